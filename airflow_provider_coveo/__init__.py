"""Apache Airflow provider for Coveo Push sources."""

__version__ = "0.1.1"
