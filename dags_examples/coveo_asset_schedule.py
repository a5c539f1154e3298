"""
Run a DAG after each update of a Push source, scheduled on an asset (on Airflow 2.11, a dataset).

This DAG updates the source, and passes the source's asset as an outlet of the update. The other DAG in this
file, `coveo_asset_schedule_after`, is scheduled on that asset. It runs once the update has succeeded and the
source is IDLE again. It does not run after a failure.

The IDs of organization and source identify an asset: `coveo://acme/acme-products`. They are set here instead
of read from the connection, because Airflow must know a DAG's assets when it parses the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_coveo.assets.coveo_push import push_source_asset
from airflow_provider_coveo.task_groups.coveo_push import push_source_update

# [START asset]
SOURCE_ID = "acme-products"
PRODUCTS = push_source_asset(organization_id="acme", source_id=SOURCE_ID)
# [END asset]

with DAG(
    dag_id="coveo_asset_schedule",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2025, 1, 1),
    catchup=False,
    max_active_runs=1,
    params={"fail": Param(False, type="boolean", description="Fail, to see that the other DAG does not run")},
    tags=["coveo"],
) as dag:
    # [START outlets]
    with push_source_update(source_id=SOURCE_ID, status="REFRESH", outlets=[PRODUCTS]):

        @task.coveo_push(source_id=SOURCE_ID)
        def push_products(params: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
            assert params is not None
            yield {"documentId": "product://4711", "title": "Anvil", "data": "The famous Anvil."}
            if params["fail"]:
                raise RuntimeError("Failing on purpose, as the run's params ask")

        push_products()
    # [END outlets]

with DAG(
    dag_id="coveo_asset_schedule_after",
    doc_md=__doc__,
    schedule=[PRODUCTS],
    start_date=datetime(2025, 1, 1),
    catchup=False,
    max_active_runs=1,
    tags=["coveo"],
):

    @task
    def tell_the_search_team() -> None:
        print(f"Source {SOURCE_ID} was updated.")

    tell_the_search_team()
