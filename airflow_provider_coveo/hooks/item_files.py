"""Items read from files: the module's path in 0.1."""

from airflow_provider_coveo.content.files import FORMATS
from airflow_provider_coveo.content.files import read_files as items_of_files
from airflow_provider_coveo.content.rows import row_mapper as item_maker

__all__ = ["FORMATS", "item_maker", "items_of_files"]
