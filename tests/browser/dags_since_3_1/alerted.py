"""A run that misses its deadline, with an alert in the triggerer."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, AsyncCallback, DeadlineAlert, DeadlineReference, task

from airflow_provider_coveo.notifications.coveo_push import CoveoSourceStatusNotifier

with DAG(
    "alerted",
    schedule=None,
    start_date=datetime(2025, 1, 1),
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(seconds=0),
        callback=AsyncCallback(
            CoveoSourceStatusNotifier,
            kwargs={
                "source_id": "alerted",
                "status": "INCREMENTAL",
                "coveo_conn_id": "coveo_in_database",
            },
        ),
    ),
):

    @task
    def work() -> None:
        print("Too late already.")

    work()
