"""
Refresh many Push sources in one run, each in its own bracket, by mapping a task group over their IDs.

If the update of one source fails, that source returns to IDLE like the others, and does not stop them. With
POOL, all DAGs that push to one organization share a limit of tasks that call Coveo at the same time.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task, task_group

from airflow_provider_coveo.task_groups.coveo_push import push_source_update

#: A pool with few slots: see "Update many sources" in the docs. This example uses the default pool.
POOL = "default_pool"

with DAG(
    dag_id="coveo_many_sources",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2025, 1, 1),
    catchup=False,
    max_active_runs=1,
    # [START pool]
    max_active_tasks=4,
    default_args={
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "pool": POOL,
        # Push to and close open sources before opening more.
        "weight_rule": "upstream",
    },
    # [END pool]
    params={
        "source_ids": Param(["acme-products"], type="array", description="The IDs of the Push sources"),
    },
    tags=["coveo"],
) as dag:

    @task
    def source_ids(params: dict[str, Any] | None = None) -> list[str]:
        assert params is not None
        return list(params["source_ids"])

    @task
    def push_one(source_id: str) -> str:
        from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

        item = {"documentId": f"page://{source_id}/home", "title": "Home", "data": f"Welcome to {source_id}."}
        CoveoPushHook().add_or_update_item(source_id, item)
        return source_id

    # [START many_sources]
    @task_group
    def update(source_id: str) -> None:
        with push_source_update(source_id=source_id, status="REFRESH", group_id="refresh"):
            push_one(source_id)

    update.expand(source_id=source_ids())
    # [END many_sources]
