"""
Rebuild a Push source: push everything, delete what was not pushed again, and leave the source IDLE.

The bracket sets the source to REBUILD before its tasks and to IDLE after them, whatever happens. If a push
fails, the run still fails. To see that, run it once with `{"fail": true}`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_coveo.task_groups.coveo_push import push_source_update

PRODUCTS = [
    {"sku": "4711", "name": "Anvil", "price": 89.9},
    {"sku": "4712", "name": "Rocket skates", "price": 249.0},
    {"sku": "4713", "name": "Dehydrated boulders", "price": 12.5},
]

with DAG(
    dag_id="coveo_full_rebuild",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2025, 1, 1),
    catchup=False,
    # A status is not a lock: two runs on one source would close each other's update.
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    params={
        "source_id": Param("acme-products", type="string", description="The ID of the Push source"),
        "fail": Param(False, type="boolean", description="Fail mid-push, to see the source return to IDLE"),
    },
    tags=["coveo"],
) as dag:
    # [START full_rebuild]
    with push_source_update(
        source_id="{{ params.source_id }}",
        status="REBUILD",
        delete_old_items=True,
        group_id="rebuild",
    ) as rebuild:

        @task.coveo_push(source_id="{{ params.source_id }}", retries=0)
        def push_products(params: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
            assert params is not None
            for product in PRODUCTS:
                yield {
                    "documentId": f"product://{product['sku']}",
                    "title": product["name"],
                    "data": f"The famous {product['name']}.",
                    "price": product["price"],
                }
            if params["fail"]:
                raise RuntimeError("Failing on purpose, as the run's params ask")

        push_products()
    # [END full_rebuild]
