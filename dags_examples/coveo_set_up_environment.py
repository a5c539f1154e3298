"""
Create the Push sources of an environment and write their IDs into Airflow Variables, or delete the sources.

Run it as often as you like: it finds a source that it created before, and does not create a second one. To
delete the sources and everything in them, trigger it with `{"tear_down": true}`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, Variable, task

from airflow_provider_coveo.operators.coveo_push import CreatePushSourceOperator, DeletePushSourceOperator

#: The Variable that holds a source's ID, and the source's name after the environment's prefix.
SOURCES = {"acme_products_source_id": "products", "acme_manuals_source_id": "manuals"}

with DAG(
    dag_id="coveo_set_up_environment",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2025, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(seconds=30)},
    params={
        "environment": Param("staging", type="string", description="The first part of the sources' names"),
        "tear_down": Param(False, type="boolean", description="Delete the sources instead"),
    },
    tags=["coveo"],
) as dag:

    @task.branch
    def up_or_down(params: dict[str, Any] | None = None) -> list[str]:
        assert params is not None
        way = "delete" if params["tear_down"] else "create"
        return [f"{way}_{source}" for source in SOURCES.values()]

    @task
    def publish(source_id: str, variable: str) -> None:
        Variable.set(variable, source_id)

    branch = up_or_down()
    for variable, source in SOURCES.items():
        source_name = f"{{{{ params.environment }}}}-{source}"
        # [START create]
        create = CreatePushSourceOperator(
            task_id=f"create_{source}", source_name=source_name, visibility="SHARED"
        )
        delete = DeletePushSourceOperator(
            task_id=f"delete_{source}",
            source_id=f"{{{{ var.value.{variable} }}}}",
            source_name=source_name,
        )
        branch >> [create, delete]
        # [END create]
        publish.override(task_id=f"publish_{source}")(create.output["source_id"], variable)
