source coveo-try/bin/activate
python -m airflow_provider_coveo.simulator
