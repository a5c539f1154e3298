"""
Push files, keep what is rejected in a file, and push it again once it is corrected.

The run named in the parameter `of_run` is the one whose rejected items are pushed again; without it, the DAG
pushes the catalog.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_coveo.operators.coveo_push import PushItemsOperator, RepushRejectedItemsOperator
from airflow_provider_coveo.sensors.coveo_push import PushedItemsIndexedSensor
from airflow_provider_coveo.task_groups.coveo_push import push_source_update

with DAG(
    dag_id="coveo_push_rejected",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2025, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1)},
    params={
        "source_id": Param("acme-products", type="string", description="The ID of the Push source"),
        "path": Param("/data/catalog/*.ndjson.gz", type="string", description="The files"),
        "folder": Param("/data/rejected", type="string", description="Where rejected items are kept"),
        "of_run": Param("", type="string", description="Push the rejected items of this run again"),
    },
    tags=["coveo"],
) as dag:

    @task.branch
    def choose(params: dict[str, str] | None = None) -> str:
        return "again.begin" if (params or {}).get("of_run") else "catalog.begin"

    chosen = choose()
    with push_source_update(
        source_id="{{ params.source_id }}", status="REFRESH", group_id="catalog"
    ) as catalog:
        # [START push]
        push = PushItemsOperator(
            task_id="push_catalog",
            source_id="{{ params.source_id }}",
            path="{{ params.path }}",
            on_invalid="skip",
            max_invalid="1%",
            rejected_path="{{ params.folder }}/{{ run_id }}/invalid.ndjson.gz",
        )
        # [END push]
        # [START sensor]
        PushedItemsIndexedSensor(
            task_id="wait_until_indexed",
            result=push.output,
            rejected_path="{{ params.folder }}/{{ run_id }}/rejected.ndjson.gz",
            pushed_path="{{ params.path }}",
            max_refused=100,
            deferrable=True,
        )
        # [END sensor]
    with push_source_update(source_id="{{ params.source_id }}", status="REFRESH", group_id="again") as again:
        # [START again]
        RepushRejectedItemsOperator(
            task_id="push_again",
            source_id="{{ params.source_id }}",
            path="{{ params.folder }}/{{ params.of_run }}/*.ndjson.gz",
            rejected_path="{{ params.folder }}/{{ run_id }}/invalid.ndjson.gz",
        )
        # [END again]
    chosen >> [catalog, again]
