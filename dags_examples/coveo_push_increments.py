"""
Push what changed since the last run, of a database table and of an API, every 15 minutes.

Each of the two tasks has a cursor: the latest change that it pushed. It needs a connection `catalog_db` to a
database with the tables `product` and `deleted_product`, the extra `[sql]`, and the provider of the database,
such as `apache-airflow-providers-postgres`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_coveo.cursors.coveo_push import coveo_cursor
from airflow_provider_coveo.operators.coveo_push import SqlToCoveoPushOperator
from airflow_provider_coveo.task_groups.coveo_push import push_source_update


def read_reviews(changed_since: datetime) -> list[dict[str, Any]]:
    """Read an API; here it is sample data."""
    reviews = [
        {"id": 1, "text": "Solid", "changed": datetime(2026, 11, 24, 8, tzinfo=timezone.utc)},
        {"id": 2, "text": "Heavy", "changed": datetime(2026, 11, 24, 9, tzinfo=timezone.utc)},
    ]
    return [review for review in reviews if review["changed"] > changed_since]


with DAG(
    dag_id="coveo_push_increments",
    doc_md=__doc__,
    schedule=timedelta(minutes=15),
    start_date=datetime(2025, 1, 1),
    catchup=False,
    # Overlapping runs would push the same rows twice.
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1)},
    params={
        "source_id": Param("acme-products", type="string", description="The ID of the Push source"),
        "cursor_reset": Param(False, type="boolean", description="Push everything again"),
    },
    tags=["coveo"],
) as dag:
    # [START reviews]
    @task.coveo_push(source_id="{{ params.source_id }}")
    def push_reviews() -> Iterator[dict[str, Any]]:
        cursor = coveo_cursor(start=datetime(2020, 1, 1, tzinfo=timezone.utc))
        for review in read_reviews(changed_since=cursor.since):
            cursor.advance(review["changed"])
            yield {"documentId": f"review://{review['id']}", "data": review["text"]}

    # [END reviews]

    with push_source_update(source_id="{{ params.source_id }}", status="INCREMENTAL"):
        # [START products]
        SqlToCoveoPushOperator(
            task_id="push_products",
            source_id="{{ params.source_id }}",
            sql_conn_id="catalog_db",
            sql="SELECT sku, name, price, updated FROM product WHERE updated > %(since)s ORDER BY updated",
            deleted_sql="SELECT sku FROM deleted_product WHERE deleted > %(since)s",
            columns={
                "documentId": "product://{sku}",
                "title": "name",
                "data": "The famous {name}.",
                "price": "price",
                "date": "updated",
            },
            cursor_column="updated",
            cursor_start="2020-01-01T00:00:00+00:00",
            # Longer than the longest transaction that writes to the table.
            lag=timedelta(minutes=5),
            cursor_reset="{{ params.cursor_reset }}",
        )
        # [END products]
        push_reviews()
