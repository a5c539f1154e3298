"""HTTP over requests and aiohttp, with limits that these libraries lack; independent of Airflow."""
