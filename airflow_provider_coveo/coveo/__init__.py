"""What Coveo is: endpoints, statuses, ordering IDs, items and errors. Nothing in here knows of Airflow."""
