"""
Push items from files and from other tasks, and delete items by ID.

The files can be of any size: they are read while they are pushed. Trigger it with your own paths, for
example `{"path": "/data/catalog/*.ndjson.gz", "table": "/data/prices.csv"}`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_coveo.operators.coveo_push import DeleteItemsOperator, PushItemsOperator
from airflow_provider_coveo.task_groups.coveo_push import push_source_update

with DAG(
    dag_id="coveo_push_files",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2025, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={
        "source_id": "{{ params.source_id }}",
        "retries": 3,
        "retry_delay": timedelta(minutes=1),
    },
    params={
        "source_id": Param("acme-products", type="string", description="The ID of the Push source"),
        "path": Param("/data/catalog/*.ndjson.gz", type="string", description="A file, a folder or a glob"),
        "table": Param("/data/prices.csv", type="string", description="A table with sku, name and price"),
    },
    tags=["coveo"],
) as dag:

    @task
    def new_items() -> list[dict[str, Any]]:
        """Return a few items; to push many, yield them from a @task.coveo_push function."""
        return [{"documentId": "product://4714", "title": "Giant magnet", "data": "The famous magnet."}]

    @task
    def removed_ids() -> list[str]:
        return ["product://4713"]

    items, ids = new_items(), removed_ids()
    with push_source_update(
        source_id="{{ params.source_id }}", status="INCREMENTAL", group_id="refresh"
    ) as refresh:
        # [START push_files]
        push_files = PushItemsOperator(task_id="push_files", path="{{ params.path }}")
        # [END push_files]
        # [START push_table]
        push_table = PushItemsOperator(
            task_id="push_table",
            path="{{ params.table }}",
            columns={
                "documentId": "product://{sku}",
                "title": "name",
                "data": "{name} for {price} dollars.",
                "price": "price",
            },
        )
        # [END push_table]
        # [START push_items]
        push_new = PushItemsOperator(task_id="push_new", items=items)
        # [END push_items]
        # [START delete_items]
        delete_removed = DeleteItemsOperator(task_id="delete_removed", document_ids=ids)
        # [END delete_items]
        push_files >> push_table >> push_new >> delete_removed
    [items, ids] >> refresh
