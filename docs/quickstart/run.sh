airflow dags test catalog_to_coveo
