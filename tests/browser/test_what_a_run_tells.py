"""The notifications of a run: DAGs that wait for an asset, callbacks, metrics and lineage."""

from __future__ import annotations

from typing import Any

import pytest
from local_airflow import LocalAirflow

from tests.browser.conftest import HAS_DEADLINES, Lab

pytestmark = pytest.mark.timeout(900)

DAG_ID, AFTER = "coveo_asset_schedule", "coveo_asset_schedule_after"


def runs(airflow: LocalAirflow, dag_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = airflow.rest("GET", f"/dags/{dag_id}/dagRuns")["dag_runs"]
    return found


def test_a_dag_runs_after_an_update_that_succeeded_and_not_after_one_that_failed(lab: Lab) -> None:
    airflow = lab.airflow
    airflow.wait_for_dag(AFTER)
    airflow.unpause(AFTER)
    failed = airflow.trigger(DAG_ID, {"fail": True})
    assert airflow.wait_for_run(DAG_ID, failed) == "failed"
    assert airflow.wait_for_run(DAG_ID, airflow.trigger(DAG_ID)) == "success"
    airflow.wait_until(lambda: runs(airflow, AFTER), 120, "the DAG after it has a run")
    (after,) = runs(airflow, AFTER)
    assert airflow.wait_for_run(AFTER, after["dag_run_id"]) == "success"
    # One update failed before; its event would have come first.
    assert len(runs(airflow, AFTER)) == 1
    assert lab.coveo.statuses("acme-products") == ["REFRESH", "IDLE"] * 2


def test_the_callbacks_of_a_dag_and_of_a_task_find_their_connection_in_the_database(lab: Lab) -> None:
    airflow, coveo = lab.airflow, lab.coveo
    assert airflow.wait_for_run("notified", airflow.trigger("notified")) == "failed"
    for source, status in {"notified-by-the-fail": "REFRESH", "notified-by-the-notified": "IDLE"}.items():
        airflow.wait_until(lambda source=source: coveo.statuses(source), 120, f"{source} has a status")
        assert coveo.statuses(source) == [status]


@pytest.mark.skipif(not HAS_DEADLINES, reason="deadlines came with Airflow 3.1")
def test_the_notifier_of_a_missed_deadline_runs_in_the_triggerer(lab: Lab) -> None:
    lab.airflow.trigger("alerted")
    lab.airflow.wait_until(lambda: lab.coveo.statuses("alerted"), 240, "the alert has set a status")
    assert lab.coveo.statuses("alerted") == ["INCREMENTAL"]


def test_openlineage_events_name_the_outputs_of_operators_and_code_and_contain_no_key(
    lab: Lab, run_id: str
) -> None:
    pytest.importorskip("airflow.providers.openlineage")

    def completed(task_id: str) -> dict[str, Any] | None:
        events = lab.lineage("shown", task_id)
        return next((event for event in events if event["eventType"] == "COMPLETE"), None)

    for task_id in ("push", "by_the_hook"):
        event = lab.airflow.wait_until(
            lambda task_id=task_id: completed(task_id), 120, f"{task_id} is told of"
        )
        (output,) = event["outputs"]
        assert (output["namespace"], output["name"]) == ("coveo://acme", "shown")
        if task_id == "push":
            assert output["outputFacets"]["outputStatistics"]["rowCount"] == 3
    assert lab.coveo.api_key not in lab.events.read_text()


def test_tasks_send_metrics_of_items_and_requests(lab: Lab, run_id: str) -> None:
    pytest.importorskip("statsd")
    counted = lab.statsd.counters()
    # Two tasks of the run push three items each.
    assert counted["coveo.items_accepted"] >= 6
    assert counted["coveo.requests.202"] >= 2
    assert counted["coveo.requests"] >= counted["coveo.requests.201"] + counted["coveo.requests.202"]
