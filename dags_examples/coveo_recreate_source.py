"""
Replace a Push source with a copy of itself if it can't be reset: Coveo for Sitecore or the Crawling Module
manages it, or a cut-off in the future makes it reject all content.

The DAG duplicates the source, tests the copy with an item, and sets the Airflow Variable
`acme_products_source_id` to the copy's ID. All DAGs that push there read it with
`{{ var.value.acme_products_source_id }}`, so nothing else needs to change in Airflow. Then it fills the copy.
It deletes the old source only after someone has approved: on Airflow 3.1 and later under *Required Actions*,
before that by triggering the DAG again with the same `new_name` and the old source's name as
`delete_old_source`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_coveo.task_groups.coveo_push import push_source_update
from airflow_provider_coveo.task_groups.coveo_source import recreate_push_source

SOURCE_ID = "{{ var.value.acme_products_source_id }}"

with DAG(
    dag_id="coveo_recreate_source",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2025, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(seconds=30)},
    params={
        "new_name": Param("acme-products-2", type="string", description="The name of the new source"),
    },
    tags=["coveo"],
) as dag:
    # [START recreate]
    recreated = recreate_push_source(
        source_id=SOURCE_ID,
        new_name="{{ params.new_name }}",
        source_id_variable="acme_products_source_id",
        group_id="recreate",
    )

    with push_source_update(source_id=SOURCE_ID, status="REBUILD", group_id="fill") as fill:

        @task.coveo_push(source_id=SOURCE_ID)
        def push_products() -> Iterator[dict[str, Any]]:
            for sku, name in [("4711", "Anvil"), ("4712", "Rocket skates")]:
                yield {"documentId": f"product://{sku}", "title": name, "data": f"The famous {name}."}

        push_products()

    recreated.recreate >> fill >> recreated.approve
    # [END recreate]
