"""Moved to :mod:`airflow_provider_coveo.coveo.client.sources`; this name still works."""

from airflow_provider_coveo.coveo.client.sources import Sources as SourceRequests

__all__ = ["SourceRequests"]
