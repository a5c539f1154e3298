"""The page *Push sources* in Airflow's web interface."""
