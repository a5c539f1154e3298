"""Moved to :mod:`airflow_provider_coveo.coveo.client.item_logs`; this name still works."""

from airflow_provider_coveo.coveo.client.item_logs import ItemLogs as ItemLogRequests

__all__ = ["ItemLogRequests"]
