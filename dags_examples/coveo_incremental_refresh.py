"""
Push what changed since the last run: additions, updates and deletions, every hour.

Coveo's console shows INCREMENTAL as "Refresh". Nothing is deleted by time: the DAG deletes each item that was
removed at the origin by its ID.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_coveo.coveo.items import Delete
from airflow_provider_coveo.task_groups.coveo_push import push_source_update

with DAG(
    dag_id="coveo_incremental_refresh",
    doc_md=__doc__,
    schedule=timedelta(hours=1),
    start_date=datetime(2025, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1)},
    params={"source_id": Param("acme-products", type="string", description="The ID of the Push source")},
    tags=["coveo"],
) as dag:

    @task
    def read_changes() -> dict[str, list[dict[str, Any]]]:
        """Read the delta from the indexed system; here it is sample data."""
        return {
            "changed": [{"sku": "4711", "name": "Anvil, 50 kg", "price": 94.5}],
            "removed": [{"sku": "4713"}],
        }

    # [START push_changes]
    @task.coveo_push(source_id="{{ params.source_id }}")
    def push_changes(changes: dict[str, list[dict[str, Any]]]) -> Iterator[dict[str, Any] | Delete]:
        for product in changes["changed"]:
            yield {
                "documentId": f"product://{product['sku']}",
                "title": product["name"],
                "data": f"The famous {product['name']}.",
                "price": product["price"],
            }
        for product in changes["removed"]:
            yield Delete(f"product://{product['sku']}")

    # [END push_changes]

    # [START incremental]
    # The source is active only during the push, not while the delta is read.
    changes = read_changes()
    with push_source_update(
        source_id="{{ params.source_id }}", status="INCREMENTAL", group_id="refresh"
    ) as refresh:
        push_changes(changes)
    changes >> refresh
    # [END incremental]
