"""
Every five minutes, close the Push sources that have been active for over six hours and that no run works on.

It covers what a DAG cannot do for itself: when it was paused in the middle of an update, deleted, or kept
from closing by an outage that outlasted all retries. The connection's key must be allowed to view sources.

The page *Push sources* shows what it saw, and its buttons start runs of this DAG: to look at one source now,
or to close one that nobody works on, however short it has been active.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_provider_coveo.operators.coveo_push import CloseAbandonedPushSourcesOperator

with DAG(
    dag_id="coveo_close_abandoned",
    doc_md=__doc__,
    schedule=timedelta(minutes=5),
    start_date=datetime(2025, 1, 1),
    catchup=False,
    max_active_runs=1,
    params={
        "report_only": Param(False, type="boolean", description="Only say which ones, close nothing"),
        "source_ids": Param(None, type=["null", "array"], description="Look at these sources and no others"),
        "close_now": Param(False, type="boolean", description="Close these however short they are active"),
    },
    tags=["coveo"],
) as dag:
    # [START watchdog]
    CloseAbandonedPushSourcesOperator(
        task_id="close_abandoned",
        # Longer than the longest update takes that does not use push_source_update.
        active_longer_than=timedelta(hours=6),
        report_only="{{ params.report_only }}",
        # The buttons of the page Push sources say in a run's conf which source is meant.
        takes_conf=True,
        retries=1,
        retry_delay=timedelta(seconds=30),
    )
    # [END watchdog]
