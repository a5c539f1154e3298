"""The watchdog closes abandoned sources, but not those that someone is updating."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from local_airflow import LocalAirflow

from airflow_provider_coveo.simulator import Simulator
from tests.airflow.conftest import EXAMPLES

pytestmark = pytest.mark.timeout(900)

DAG_FILE = """
import os, time
from datetime import datetime

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_coveo.task_groups.coveo_push import push_source_update

with DAG("at_work", schedule=None, start_date=datetime(2025, 1, 1), max_active_runs=1):

    @task
    def work(step):
        from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

        CoveoPushHook().add_or_update_item("at-work", {"documentId": f"step://{step}", "data": "x"})
        while "step://go" not in str(CoveoPushHook().get_source("at-work")["name"]):
            time.sleep(0.3)

    with push_source_update(source_id="at-work"):
        work(1) >> work(2)
"""

#: The example's DAG without a schedule, because a scheduled run could start in the middle of a test.
WATCHDOG = "close_abandoned_when_asked"
SEVEN_HOURS = 7 * 3600


@pytest.fixture
def coveo(coveo_server: Simulator) -> Iterator[Simulator]:
    yield coveo_server
    coveo_server.clock.shift(seconds=0)


@pytest.fixture(scope="module")
def airflow(local_airflow: LocalAirflow) -> LocalAirflow:
    """The local Airflow, with a watchdog that runs only when triggered."""
    example = (EXAMPLES / "coveo_close_abandoned.py").read_text()
    for given, changed in {
        'dag_id="coveo_close_abandoned"': f'dag_id="{WATCHDOG}"',
        "schedule=timedelta(minutes=5)": "schedule=None",
    }.items():
        assert example.count(given) == 1
        example = example.replace(given, changed)
    local_airflow.write_dag(f"{WATCHDOG}.py", example)
    # An earlier test may have left its hourly schedule active; its open sources would be reported.
    local_airflow.wait_for_dag("coveo_incremental_refresh")
    local_airflow.pause("coveo_incremental_refresh")
    return local_airflow


def look(airflow: LocalAirflow, **conf: Any) -> dict[str, Any]:
    run_id = airflow.trigger(WATCHDOG, conf)
    assert airflow.wait_for_run(WATCHDOG, run_id) == "success"
    found = airflow.xcom(WATCHDOG, run_id, "close_abandoned")
    assert isinstance(found, dict)
    return found


def test_a_source_that_was_left_active_is_reported_or_closed(
    airflow: LocalAirflow, coveo: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

    monkeypatch.setenv("AIRFLOW_CONN_COVEO_DEFAULT", coveo.connection_json())
    for source in ("left-active", "young", "idle"):
        coveo.add_source(source)
    coveo.clock.shift(seconds=-SEVEN_HOURS)
    CoveoPushHook().set_source_status("left-active", "REBUILD")
    coveo.clock.shift(seconds=0)
    CoveoPushHook().set_source_status("young", "REFRESH")
    # A run that owned it and no longer exists.
    held_by = {"dag_id": "deleted", "run_id": "gone", "open_task_id": "push_source_update.open"}
    record = {"key": "coveo_open__acme__left-active", "value": json.dumps(held_by)}
    airflow.rest("POST", "/variables", record)

    found = look(airflow, report_only=True)
    assert found["active"] >= 2
    assert (found["abandoned"], found["closed"], found["held"]) == (["left-active"], [], [])
    assert coveo.statuses("left-active") == ["REBUILD"]

    assert look(airflow)["closed"] == ["left-active"]
    known = [variable["key"] for variable in airflow.rest("GET", "/variables")["variables"]]
    assert record["key"] not in known
    assert coveo.statuses("left-active") == ["REBUILD", "IDLE"]
    assert coveo.statuses("young") == ["REFRESH"]
    assert coveo.statuses("idle") == []
    CoveoPushHook().set_source_status("young", "IDLE")


def test_a_running_bracket_is_left_alone_and_a_paused_one_is_closed(
    airflow: LocalAirflow, coveo: Simulator
) -> None:
    coveo.add_source("at-work")
    airflow.write_dag("at_work.py", DAG_FILE)
    coveo.clock.shift(seconds=-SEVEN_HOURS)
    run_id = airflow.trigger("at_work")
    coveo.wait_for(lambda: coveo.items("at-work"), timeout=240)
    coveo.clock.shift(seconds=0)

    assert look(airflow)["held"] == ["at-work"]
    assert coveo.statuses("at-work") == ["REBUILD"]

    # While it is paused, its current task still works; after that, the run does not continue.
    airflow.pause("at_work")
    assert look(airflow)["held"] == ["at-work"]
    coveo.state.source("at-work").name = "step://go"
    airflow.wait_for_task("at_work", run_id, "push_source_update.work", {"success"})
    assert look(airflow)["closed"] == ["at-work"]
    assert coveo.statuses("at-work") == ["REBUILD", "IDLE"]

    # Once unpaused, its next task opens the bracket again, and `close` follows.
    airflow.unpause("at_work")
    assert airflow.wait_for_run("at_work", run_id) == "success"
    assert coveo.statuses("at-work")[-1] == "IDLE"
