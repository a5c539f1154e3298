"""
Return a source to IDLE from a callback of the DAG if the run fails.

For users who set callbacks themselves: the bracket (`push_source_update`) needs none.
"""

from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG, Param, chain, task

from airflow_provider_coveo.notifications.coveo_push import CoveoSourceStatusNotifier
from airflow_provider_coveo.operators.coveo_push import SetPushSourceStatusOperator

# [START notifier]
with DAG(
    dag_id="coveo_notifier",
    on_failure_callback=CoveoSourceStatusNotifier(source_id="{{ params.source_id }}"),
    # [END notifier]
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2025, 1, 1),
    catchup=False,
    max_active_runs=1,
    params={
        "source_id": Param("acme-products", type="string", description="The ID of the Push source"),
        "fail": Param(True, type="boolean", description="Fail mid-push, to see the source return to IDLE"),
    },
    tags=["coveo"],
) as dag:

    @task
    def push(params: dict[str, object] | None = None) -> None:
        assert params is not None
        if params["fail"]:
            raise RuntimeError("Failing on purpose, as the run's params ask")

    chain(
        SetPushSourceStatusOperator(
            task_id="refresh", source_id="{{ params.source_id }}", status="REFRESH", retries=2
        ),
        push(),
        SetPushSourceStatusOperator(
            task_id="idle", source_id="{{ params.source_id }}", status="IDLE", retries=12
        ),
    )
