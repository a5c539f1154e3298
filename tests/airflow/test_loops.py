"""A task loop of Airflow 3.4 inside a bracket, on a real scheduler: its iterations are one update."""

from __future__ import annotations

import importlib.util

import pytest
from local_airflow import LocalAirflow

from airflow_provider_coveo.simulator import Simulator

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.smoke,
    pytest.mark.skipif(
        importlib.util.find_spec("airflow.sdk") is None
        or importlib.util.find_spec("airflow.sdk.definitions.loop") is None,
        reason="Airflow has task loops since 3.4",
    ),
]

SOURCE = "loop-products"

DAG_FILE = """
from datetime import datetime

from airflow.sdk import DAG, task, task_group

from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.task_groups.coveo_push import push_source_update


def enough(params, loop):
    if loop.index == params["fails_at"]:
        raise ValueError("as asked")
    return loop.index == 2


with DAG("looping", schedule=None, start_date=datetime(2025, 1, 1), params={"fails_at": 9}):

    @task_group
    def page():
        @task
        def push(*, loop):
            CoveoPushHook().add_or_update_item(SOURCE, {"documentId": f"page://{loop.index}", "data": "x"})

        push()

    with push_source_update(source_id=SOURCE, delete_old_items=True):
        page.loop(max_iterations=5, until=enough)
""".replace("SOURCE", repr(SOURCE))


def words(coveo: Simulator) -> list[str]:
    """Return the changes that Coveo saw, in order."""
    names = {"item": "push", "olderthan": "delete"}
    found = [
        request.query.get("statusType") or names.get(request.operation)
        for request in coveo.requests
        if request.source == SOURCE
    ]
    return [word for word in found if word]


@pytest.fixture(scope="module")
def airflow(local_airflow: LocalAirflow, coveo_server: Simulator) -> LocalAirflow:
    coveo_server.add_source(SOURCE)
    local_airflow.write_dag("looping.py", DAG_FILE)
    return local_airflow


def test_all_iterations_are_one_update(airflow: LocalAirflow, coveo_server: Simulator) -> None:
    before = len(words(coveo_server))
    run_id = airflow.trigger("looping", {})
    assert airflow.wait_for_run("looping", run_id, timeout=240) == "success"
    assert words(coveo_server)[before:] == ["REBUILD", "push", "push", "push", "delete", "IDLE"]
    assert len(coveo_server.items(SOURCE)) == 3


def test_a_failing_iteration_deletes_nothing_and_closes_the_source(
    airflow: LocalAirflow, coveo_server: Simulator
) -> None:
    before = len(words(coveo_server))
    run_id = airflow.trigger("looping", {"fails_at": 1})
    assert airflow.wait_for_run("looping", run_id, timeout=240) == "failed"
    assert words(coveo_server)[before:] == ["REBUILD", "push", "push", "IDLE"]


def test_a_cleared_iteration_opens_the_source_again(airflow: LocalAirflow, coveo_server: Simulator) -> None:
    run_id = airflow.trigger("looping", {})
    assert airflow.wait_for_run("looping", run_id, timeout=240) == "success"
    before = len(words(coveo_server))
    airflow.clear_tasks("looping", run_id, ["push_source_update.page.push"], downstream=True)
    assert airflow.wait_for_run("looping", run_id, timeout=240) == "success"
    found = words(coveo_server)[before:]
    assert found[0] == "REBUILD", found
    assert found[-1] == "IDLE", found
    assert found.count("push") == 3, found
