"""Moved to :mod:`airflow_provider_coveo.content.query`; this name still works."""

from airflow_provider_coveo.content.query import items_of_query

__all__ = ["items_of_query"]
