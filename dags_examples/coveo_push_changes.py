"""
Push only what changed since the last run, and delete what is gone: Coveo calls it REFRESH.

The first run has nothing to compare with and pushes everything, so start it with the status REBUILD. Each
later run pushes the products that changed, and deletes those that are no longer in the catalog. The
snapshots are in a folder that all workers must reach; on one machine, a local one does.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_coveo.task_groups.coveo_push import push_source_update

with DAG(
    dag_id="coveo_push_changes",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2025, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1)},
    params={
        "source_id": Param("acme-products", type="string", description="The ID of the Push source"),
        "status": Param("REFRESH", enum=["REBUILD", "REFRESH"], description="REBUILD for the first run"),
        "snapshot_path": Param("/tmp/coveo-snapshots", type="string", description="s3://… on a cluster"),  # noqa: S108
        "max_deleted": Param("20%", type="string", description="More missing products fail the task"),
        "products": Param(1000, type="integer", description="How many products the catalog has"),
        "changed": Param(10, type="integer", description="How many of them change with each run"),
    },
    tags=["coveo"],
) as dag:
    # [START push_changes]
    @task.coveo_push(
        source_id="{{ params.source_id }}",
        only_changes=True,
        snapshot_path="{{ params.snapshot_path }}",
        max_deleted="{{ params.max_deleted }}",
    )
    def push_catalog(params: dict[str, Any], run_id: str) -> Iterator[dict[str, Any]]:
        for number in range(params["products"]):
            yield {
                "documentId": f"product://{number}",
                "title": f"Product {number}",
                "data": f"The famous product {number}.",
                # Sample data: the first products change with each run.
                "updated_by": run_id if number < params["changed"] else "nobody",
            }

    with push_source_update(source_id="{{ params.source_id }}", status="{{ params.status }}"):
        push_catalog()
    # [END push_changes]
