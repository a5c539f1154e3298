"""What Coveo is: endpoints, statuses, ordering ids, items and errors. Nothing in here knows of Airflow."""
