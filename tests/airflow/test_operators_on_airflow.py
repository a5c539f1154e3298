"""The operators' behavior in several tries, on a real scheduler."""

from __future__ import annotations

import pytest
from local_airflow import LocalAirflow

from airflow_provider_coveo.simulator import Simulator

pytestmark = [pytest.mark.timeout(900), pytest.mark.smoke]

DAG_FILE = """
from datetime import datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_coveo.operators.coveo_push import ResetPushSourceOperator, SetPushSourceStatusOperator

default_args = {"retries": 3, "retry_delay": timedelta(seconds=1), "source_id": "tries"}
with DAG("tries", schedule=None, start_date=datetime(2025, 1, 1), default_args=default_args):
    SetPushSourceStatusOperator(task_id="final", source_id="no-such-source", status="IDLE")
    SetPushSourceStatusOperator(task_id="wrong", status="RESCAN")
    SetPushSourceStatusOperator.partial(task_id="mapped").expand(status=["REBUILD", "idle"])
    ResetPushSourceOperator(task_id="reset", queue_delay=0)
"""


def test_final_errors_are_not_retried_and_a_reset_keeps_its_cut_off_until_it_is_cleared(
    local_airflow: LocalAirflow, coveo_server: Simulator
) -> None:
    coveo_server.add_source("tries")
    # Longer than the hook retries, so that Airflow's own retry repeats the reset.
    coveo_server.faults.answer(
        503, headers={"Retry-After": "3000"}, operation="olderthan", source="tries", times=2
    )
    local_airflow.write_dag("tries.py", DAG_FILE)

    run_id = local_airflow.trigger("tries")
    assert local_airflow.wait_for_run("tries", run_id) == "failed"

    states = local_airflow.task_states("tries", run_id)
    assert states["final"] == ("failed", 1)
    assert states["wrong"] == ("failed", 1)
    assert states["mapped[0]"] == states["mapped[1]"] == ("success", 1)
    assert states["reset"] == ("success", 3)
    assert "SOURCE_DOES_NOT_EXIST" in local_airflow.task_log("tries", run_id, "final")
    assert "Invalid status of a Push source: 'RESCAN'" in local_airflow.task_log("tries", run_id, "wrong")

    def cut_offs() -> list[int]:
        return [
            int(request.query["orderingId"])
            for request in coveo_server.requests
            if request.operation == "olderthan" and request.source == "tries"
        ]

    first = cut_offs()
    assert len(first) == 3
    assert len(set(first)) == 1

    local_airflow.clear_tasks("tries", run_id, ["reset"], downstream=False)
    local_airflow.wait_for_task("tries", run_id, "reset", {"success"}, try_number=4)
    assert cut_offs()[-1] > first[0]
