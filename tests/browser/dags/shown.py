"""Tasks to show in Airflow's UI, and callbacks."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.notifications.coveo_push import CoveoSourceStatusNotifier
from airflow_provider_coveo.operators.coveo_push import PushItemsOperator, SetPushSourceStatusOperator
from airflow_provider_coveo.sensors.coveo_push import PushSourceStatusSensor

SOURCE = "shown"
ITEMS = [{"documentId": f"product://{n}", "data": "x"} for n in range(3)]
COMMON: dict[str, Any] = {"schedule": None, "start_date": datetime(2025, 1, 1), "max_active_runs": 1}

with DAG("shown", **COMMON):
    PushItemsOperator(task_id="push", source_id=SOURCE, items=ITEMS)
    # Rejected before anything is sent, so that no request goes to the real Coveo.
    SetPushSourceStatusOperator(
        task_id="failed_in_europe", source_id=SOURCE, status="RESCAN", coveo_conn_id="coveo_europe"
    )
    SetPushSourceStatusOperator.partial(task_id="mapped", status="IDLE").expand(source_id=[SOURCE])
    PushSourceStatusSensor(task_id="sensor", source_id=SOURCE, statuses="IDLE")

    @task
    def by_the_hook() -> None:
        CoveoPushHook().push_items(SOURCE, ITEMS)

    by_the_hook()

with DAG("killed", **COMMON):
    PushItemsOperator(task_id="push", source_id="killed", items=ITEMS)


@task
def fail() -> None:
    raise RuntimeError("Failing, to have it notified")


with DAG(
    "notified",
    on_failure_callback=CoveoSourceStatusNotifier(
        source_id="notified-by-the-{{ dag.dag_id }}", coveo_conn_id="coveo_in_database"
    ),
    **COMMON,
):
    fail.override(
        on_failure_callback=CoveoSourceStatusNotifier(
            source_id="notified-by-the-{{ ti.task_id }}",
            status="refresh",
            coveo_conn_id="coveo_in_database",
        )
    )()
