aws secretsmanager create-secret \
    --name airflow/connections/coveo_default \
    --secret-string file://connection.json
