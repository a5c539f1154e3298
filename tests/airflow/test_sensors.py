"""Sensors that wait in a real triggerer, which is killed meanwhile, and in a real scheduler's queue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from local_airflow import LocalAirflow

from airflow_provider_coveo.coveo.statuses import SourceStatus
from airflow_provider_coveo.simulator import Simulator

pytestmark = [pytest.mark.timeout(900), pytest.mark.smoke]

DAG_FILE = """
from datetime import datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_coveo.operators.coveo_push import PushItemsOperator
from airflow_provider_coveo.sensors.coveo_push import (
    PushApiQuotaSensor,
    PushedItemsIndexedSensor,
    PushSourceStatusSensor,
)

default_args = {
    "retries": 3,
    "retry_delay": timedelta(seconds=1),
    "poke_interval": 1,
    "allow_nested_operators": False,
}
with DAG("sensors", schedule=None, start_date=datetime(2025, 1, 1), default_args=default_args):
    source = {"source_id": "sensed"}
    PushApiQuotaSensor(task_id="quota", items=2) >> PushSourceStatusSensor(
        task_id="until_idle", **source, statuses=["IDLE"], deferrable=True
    )
    # With pauses of a second, Airflow 3.0 takes a task that is queued again for one that was killed.
    PushSourceStatusSensor(task_id="rescheduled", **source, mode="reschedule", poke_interval=5)
    # Airflow takes a task for killed that is queued again before the scheduler, which may be busy, has seen
    # the end of the process that deferred it.
    PushSourceStatusSensor(task_id="too_late", **source, deferrable=True, timeout=8)
    PushSourceStatusSensor(task_id="skipped", **source, deferrable=True, timeout=8, soft_fail=True)
    PushSourceStatusSensor(
        task_id="out_of_time", **source, deferrable=True, execution_timeout=timedelta(seconds=8), retries=0
    )
    items = [{"documentId": f"sensed://{number}", "data": "text"} for number in range(3)]
    push = PushItemsOperator(task_id="push", **source, items=items)
    PushedItemsIndexedSensor(
        task_id="indexed",
        result=push.output,
        deferrable=True,
        settle_time=0,
        max_refused=1,
    )
"""


@pytest.fixture
def airflow(local_airflow: LocalAirflow, coveo_server: Simulator) -> Iterator[LocalAirflow]:
    """The Airflow of all tests here, with a triggerer while this one runs."""
    local_airflow.start_component("triggerer")
    yield local_airflow
    local_airflow.kill("triggerer", descendants=True)
    coveo_server.indexing_delay = 0


def test_deferred_tasks_survive_the_death_of_their_triggerer_and_time_out(
    airflow: LocalAirflow, coveo_server: Simulator
) -> None:
    def asked_by_triggers() -> Counter[str]:
        callers = (one.headers.get("user-agent", "").rpartition("/")[2] for one in coveo_server.requests)
        return Counter(caller for caller in callers if caller.endswith("Trigger"))

    def both_have_asked(times: int) -> bool:
        asked = asked_by_triggers()
        return min(asked["PushSourceStatusTrigger"], asked["PushedItemsIndexedTrigger"]) >= times

    coveo_server.add_source("sensed")
    coveo_server.state.set_status("sensed", SourceStatus.REBUILD, "request")
    coveo_server.reject_item("sensed://1", "PROCESSING", "REJECTED", "unreadable")
    # Until the clock is advanced.
    coveo_server.indexing_delay = 3600
    airflow.write_dag("sensors.py", DAG_FILE)
    run_id = airflow.trigger("sensors")
    for task_id in ("until_idle", "indexed"):
        airflow.wait_for_task("sensors", run_id, task_id, {"deferred"})
    coveo_server.wait_for(lambda: both_have_asked(1), timeout=120)
    # If the triggerer is down for longer than a minute, Airflow itself ends tasks that are out of time.
    for task_id, state in (("too_late", "failed"), ("out_of_time", "failed"), ("skipped", "skipped")):
        airflow.wait_for_task("sensors", run_id, task_id, {state})

    airflow.kill("triggerer", descendants=True)
    before = sum(asked_by_triggers().values())
    airflow.start_component("triggerer")
    coveo_server.wait_for(lambda: sum(asked_by_triggers().values()) >= before + 4, timeout=120)
    states = airflow.task_states("sensors", run_id)
    assert states["until_idle"] == states["indexed"] == ("deferred", 1)
    assert states["rescheduled"].state in {"up_for_reschedule", "scheduled", "queued", "running"}

    coveo_server.state.set_status("sensed", SourceStatus.IDLE, "request")
    # Due work is executed, and Coveo's clock shows the same time as before.
    coveo_server.clock.shift(hours=-1)
    coveo_server.clock.advance(hours=1)
    assert airflow.wait_for_run("sensors", run_id) == "failed"

    states = airflow.task_states("sensors", run_id)
    assert states["until_idle"] == states["indexed"] == ("success", 1)
    assert states["rescheduled"].state == "success"
    # A timeout is final, as for any sensor.
    assert states["too_late"] == ("failed", 1)
    assert "Last poll: Source sensed is REBUILD" in airflow.task_log("sensors", run_id, "too_late")
    assert airflow.xcom("sensors", run_id, "until_idle")["status"] == "IDLE"
    assert airflow.xcom("sensors", run_id, "indexed")["refused"] == 1
    assert "unreadable" in airflow.task_log("sensors", run_id, "indexed")
