"""
The bracket without the task group: two status operators, the second with trigger_rule="all_done".

This is the minimum, and it does not survive everything. A run that is marked by hand, a ShortCircuitOperator
and a dagrun_timeout skip the closing task. Its success hides a failed push unless a task after it fails
(here, `watcher`). The docs compare both forms.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, AirflowFailException, Param, task

from airflow_provider_coveo.operators.coveo_push import SetPushSourceStatusOperator

with DAG(
    dag_id="coveo_plain_form",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2025, 1, 1),
    catchup=False,
    max_active_runs=1,
    params={
        "source_id": Param("acme-products", type="string", description="The ID of the Push source"),
        "fail": Param(False, type="boolean", description="Fail mid-push, to see the source return to IDLE"),
    },
    tags=["coveo"],
) as dag:
    # [START plain_form]
    refresh = SetPushSourceStatusOperator(
        task_id="refresh", source_id="{{ params.source_id }}", status="REFRESH", retries=2
    )

    @task
    # [START hook]
    def push(params: dict[str, Any] | None = None) -> None:
        from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

        assert params is not None
        item = {"documentId": "page://home", "title": "Home", "data": "Welcome."}
        CoveoPushHook().add_or_update_item(params["source_id"], item)
        # [END hook]
        if params["fail"]:
            raise RuntimeError("Failing on purpose, as the run's params ask")

    idle = SetPushSourceStatusOperator(
        task_id="idle",
        source_id="{{ params.source_id }}",
        status="IDLE",
        trigger_rule="all_done",
        retries=12,
        retry_delay=timedelta(minutes=1),
    )

    @task(trigger_rule="one_failed")
    def watcher() -> None:
        """Fail the run if a task failed, which the success of `idle` would hide."""
        raise AirflowFailException("A task of this run failed")

    pushed = push()
    refresh >> pushed >> idle
    [refresh, pushed, idle] >> watcher()
    # [END plain_form]
