python3 -m venv coveo-try
source coveo-try/bin/activate
pip install 'apache-airflow>=3.1' 'airflow-provider-coveo[simulator]'
