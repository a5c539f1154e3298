export AIRFLOW_HOME=$PWD/airflow-home AIRFLOW__CORE__LOAD_EXAMPLES=False
mkdir -p "$AIRFLOW_HOME/dags"
airflow db migrate
