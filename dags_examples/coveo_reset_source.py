"""
Empty a Push source, once the person who starts the run has repeated its ID.

Coveo deletes every item that was pushed before the run, after the queue delay. Trigger it with, for example,
`{"source_id": "acme-products", "repeat_source_id": "acme-products"}`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, AirflowFailException, Param, task

from airflow_provider_coveo.operators.coveo_push import ResetPushSourceOperator

with DAG(
    dag_id="coveo_reset_source",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2025, 1, 1),
    catchup=False,
    max_active_runs=1,
    params={
        "source_id": Param("acme-products", type="string", description="The ID of the source to empty"),
        "repeat_source_id": Param("", type="string", description="The same ID again, to confirm"),
        "queue_delay": Param(15, type="integer", minimum=0, description="Minutes until Coveo deletes"),
    },
    tags=["coveo"],
) as dag:

    @task
    def confirm(params: dict[str, Any] | None = None) -> None:
        assert params is not None
        if params["repeat_source_id"] != params["source_id"]:
            raise AirflowFailException(
                f"Nothing was deleted: repeat_source_id must repeat {params['source_id']!r} to confirm"
            )

    # [START reset]
    reset = ResetPushSourceOperator(
        task_id="reset",
        source_id="{{ params.source_id }}",
        queue_delay="{{ params.queue_delay }}",
        retries=3,
    )

    confirm() >> reset
    # [END reset]
