"""
Push what an API reports as changed since the last run: Coveo calls it INCREMENTAL.

The cursor is the latest change that a run pushed. It moves only if the whole push was accepted.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_coveo.cursors.coveo_push import coveo_cursor
from airflow_provider_coveo.task_groups.coveo_push import push_source_update


def read_products(changed_since: datetime) -> list[dict[str, Any]]:
    """Read an API; here it is sample data, of which one product changed lately."""
    changes = {1: datetime(2025, 6, 1, tzinfo=timezone.utc), 2: datetime(2026, 6, 1, tzinfo=timezone.utc)}
    return [
        {"id": number, "name": f"Product {number}", "changed": changed}
        for number, changed in changes.items()
        if changed > changed_since
    ]


with DAG(
    dag_id="coveo_push_api_increments",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2025, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1)},
    params={"source_id": Param("acme-products", type="string", description="The ID of the Push source")},
    tags=["coveo"],
) as dag:

    @task.coveo_push(source_id="{{ params.source_id }}")
    def push_products() -> Iterator[dict[str, Any]]:
        cursor = coveo_cursor(start=datetime(2026, 1, 1, tzinfo=timezone.utc))
        for product in read_products(changed_since=cursor.since):
            cursor.advance(product["changed"])
            yield {"documentId": f"product://{product['id']}", "data": f"{product['name']}, changed"}

    with push_source_update(source_id="{{ params.source_id }}", status="INCREMENTAL"):
        push_products()
