"""HTTP as requests and urllib3 speak it, with limits that they lack; knows nothing of Airflow."""
