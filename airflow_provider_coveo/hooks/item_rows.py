"""Items made from the rows of a query: the module's path in 0.1."""

from airflow_provider_coveo.content.query import read_query as items_of_query

__all__ = ["items_of_query"]
