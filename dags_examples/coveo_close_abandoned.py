"""
Every five minutes, close the Push sources that no run is updating and that have been active for six hours.

It covers what a DAG can't do for itself: the DAG was paused mid-update or deleted, or an outage that
outlasted all retries prevented it from closing the source. The connection's key needs the privilege to view
sources.

The *Push sources* page shows what it saw. Its buttons start runs of this DAG: to check one source now, or to
close one that no run is updating, however briefly it has been active.
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
        "report_only": Param(False, type="boolean", description="Only report them, close nothing"),
        "source_ids": Param(None, type=["null", "array"], description="Check these sources and no others"),
        "close_now": Param(False, type="boolean", description="Close them however briefly they were active"),
    },
    tags=["coveo"],
) as dag:
    # [START watchdog]
    CloseAbandonedPushSourcesOperator(
        task_id="close_abandoned",
        # Longer than the longest update that does not use push_source_update.
        active_longer_than=timedelta(hours=6),
        report_only="{{ params.report_only }}",
        # The buttons of the Push sources page name the source in the conf of the run.
        takes_conf=True,
        retries=1,
        retry_delay=timedelta(seconds=30),
    )
    # [END watchdog]
