"""
Push, and continue only once the pushed items are indexed, or fail with Coveo's reasons.

Coveo accepts a push before it processes the items, so a successful push task does not mean that they are in
the index. `indexed` polls Coveo's item logs. It fails with a table of the items that the pipeline rejected.
Tasks that depend on the new content run after it. Before the push, `quota` checks once that the day's quota
of items is sufficient; if not, the run ends there, skipped. `is_idle` waits until nobody else updates the
source.

The key needs the privileges to view the organization and all sources, which a push-only key lacks. `indexed`
waits in the triggerer, so it occupies no worker.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_coveo.sensors.coveo_push import (
    PushApiQuotaSensor,
    PushedItemsIndexedSensor,
    PushSourceStatusSensor,
)
from airflow_provider_coveo.task_groups.coveo_push import push_source_update

PRODUCTS = [
    {"sku": "4711", "name": "Anvil", "price": 89.9},
    {"sku": "4712", "name": "Rocket skates", "price": 249.0},
    {"sku": "4713", "name": "Dehydrated boulders", "price": 12.5},
]

with DAG(
    dag_id="coveo_wait_until_indexed",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2025, 1, 1),
    catchup=False,
    # A status is not a lock: two runs on one source would close each other's update. And the sensor would
    # count another run's items as this run's.
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    params={
        "source_id": Param("acme-products", type="string", description="The ID of the Push source"),
        "max_refused": Param(0, type="integer", minimum=0, description="How many rejected items to allow"),
    },
    tags=["coveo"],
) as dag:
    # [START quota]
    quota = PushApiQuotaSensor(task_id="quota", items=len(PRODUCTS), timeout=0, soft_fail=True)
    # [END quota]

    # [START status]
    is_idle = PushSourceStatusSensor(
        task_id="is_idle",
        source_id="{{ params.source_id }}",
        statuses="IDLE",
        deferrable=True,
        timeout=timedelta(hours=1),
    )
    # [END status]

    with push_source_update(
        source_id="{{ params.source_id }}", status="REFRESH", group_id="update"
    ) as update:

        @task.coveo_push(source_id="{{ params.source_id }}")
        def push_products() -> Iterator[dict[str, Any]]:
            for product in PRODUCTS:
                yield {
                    "documentId": f"product://{product['sku']}",
                    "title": product["name"],
                    "data": f"The famous {product['name']}.",
                    "price": product["price"],
                }

        pushed = push_products()

    # [START indexed]
    indexed = PushedItemsIndexedSensor(
        task_id="indexed",
        result=pushed,
        max_refused="{{ params.max_refused }}",
        deferrable=True,
        # Coveo's logs are slow to respond, and items appear after some minutes.
        poke_interval=timedelta(minutes=2),
        timeout=timedelta(hours=2),
    )

    @task
    def publish(counted: dict[str, Any]) -> str:
        return f"{counted['indexed']} of {counted['operations']} items are found."

    quota >> is_idle >> update >> indexed
    publish(indexed.output)
    # [END indexed]
