"""Coveo's endpoints, statuses, items and errors, and a client for them. Nothing here depends on Airflow."""
