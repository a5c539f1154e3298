variable "coveo_api_key" {
  type      = string
  sensitive = true
}

resource "aws_secretsmanager_secret" "coveo" {
  name = "airflow/connections/coveo_default"
}

resource "aws_secretsmanager_secret_version" "coveo" {
  secret_id = aws_secretsmanager_secret.coveo.id
  secret_string = jsonencode({
    conn_type = "coveo"
    login     = "myorganizationg8tp8wu3"
    password  = var.coveo_api_key
    extra = {
      region  = "eu"
      timeout = "10,120"
    }
  })
}
