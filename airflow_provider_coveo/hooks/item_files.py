"""Moved to :mod:`airflow_provider_coveo.content.files`; this name still works."""

from airflow_provider_coveo.content.files import FORMATS, items_of_files
from airflow_provider_coveo.content.rows import item_maker

__all__ = ["FORMATS", "item_maker", "items_of_files"]
