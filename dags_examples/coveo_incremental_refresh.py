"""
Push what changed since the last run: additions, updates and deletions, every hour.

INCREMENTAL is shown as "Refresh" in Coveo's console. Nothing is deleted by time: what was removed at the
origin is deleted item by item.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_coveo.operators.coveo_push import SetPushSourceStatusOperator

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
    refresh = SetPushSourceStatusOperator(
        task_id="refresh", source_id="{{ params.source_id }}", status="INCREMENTAL"
    )

    @task
    def read_changes() -> dict[str, list[dict[str, Any]]]:
        """Ask the system that is indexed for its delta; here it is made up."""
        return {
            "changed": [{"sku": "4711", "name": "Anvil, 50 kg", "price": 94.5}],
            "removed": [{"sku": "4713"}],
        }

    @task
    def push_changes(changes: dict[str, list[dict[str, Any]]], params: dict[str, Any] | None = None) -> None:
        from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

        assert params is not None
        hook = CoveoPushHook()
        for product in changes["changed"]:
            hook.add_or_update_item(
                params["source_id"],
                {
                    "documentId": f"product://{product['sku']}",
                    "title": product["name"],
                    "data": f"The famous {product['name']}.",
                    "price": product["price"],
                },
            )
        for product in changes["removed"]:
            hook.delete_item(params["source_id"], f"product://{product['sku']}")

    idle = SetPushSourceStatusOperator(
        task_id="idle", source_id="{{ params.source_id }}", status="IDLE", retries=8
    )

    changes = read_changes()
    refresh >> push_changes(changes) >> idle.as_teardown(setups=refresh)
