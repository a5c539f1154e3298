"""A real scheduler creates, recreates and deletes sources, with kills and an approval."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from local_airflow import LocalAirflow

from airflow_provider_coveo.simulator import Simulator
from airflow_provider_coveo.simulator.faults import Fault

pytestmark = pytest.mark.timeout(1200)

DAG_FILE = """
from datetime import datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_coveo.operators.coveo_push import PushItemsOperator
from airflow_provider_coveo.task_groups.coveo_source import recreate_push_source

default_args = {"retries": 20, "retry_delay": timedelta(seconds=0.5)}
with DAG("killed", schedule=None, start_date=datetime(2025, 1, 1), default_args=default_args):
    recreated = recreate_push_source(
        source_id="{{ var.value.killed_source_id }}",
        new_name="Killed (2)",
        source_id_variable="killed_source_id",
        poll_interval=timedelta(seconds=1),
        group_id="r",
    )
    fill = PushItemsOperator(
        task_id="fill",
        source_id="{{ var.value.killed_source_id }}",
        items=[{"documentId": "product://1", "data": "x"}],
    )
    recreated.recreate >> fill >> recreated.approve
"""

#: The task is killed after each of these requests, and once before the duplication.
STEPS = ("duplicate_source", "item", "logs", "delete")
#: The states of a task that waits for an approval: in Airflow 3.3, and in 3.1 and 3.2.
ASKING = frozenset({"awaiting_input", "deferred"})


@pytest.fixture(scope="module")
def airflow(local_airflow: LocalAirflow) -> Iterator[LocalAirflow]:
    """The Airflow of all tests here, with a triggerer if the approval needs one."""
    waits_in_triggerer = local_airflow.version.startswith(("3.1.", "3.2."))
    if waits_in_triggerer:
        local_airflow.start_component("triggerer")
    yield local_airflow
    if waits_in_triggerer:
        local_airflow.kill("triggerer", descendants=True)


def asks(airflow: LocalAirflow) -> bool:
    """Return whether this Airflow supports approvals."""
    return airflow.is_airflow_3 and not airflow.version.startswith("3.0.")


@pytest.fixture
def coveo(coveo_server: Simulator) -> Iterator[Simulator]:
    yield coveo_server
    coveo_server.faults.clear()


def named(coveo: Simulator, name: str) -> list[str]:
    return [source.id for source in list(coveo.state.sources.values()) if source.name == name]


def variable(airflow: LocalAirflow, key: str) -> str:
    value = airflow.rest("GET", f"/variables/{key}")["value"]
    assert isinstance(value, str)
    return value


def kill_in(airflow: LocalAirflow, coveo: Simulator, run_id: str, task_id: str, **which: Any) -> None:
    """Kill a task with SIGKILL after it has made a request and before it gets the response."""
    kill_at(airflow, coveo, run_id, task_id, coveo.faults.stall(600, **which))


def kill_at(airflow: LocalAirflow, coveo: Simulator, run_id: str, task_id: str, stall: Fault) -> None:
    """Kill a task with SIGKILL while it waits for a response."""
    coveo.wait_for(lambda: stall.used, timeout=240)
    psutil.Process(airflow.task_pid("killed", run_id, task_id)).kill()


def answer(airflow: LocalAirflow, dag_id: str, run_id: str, task_id: str, option: str) -> str:
    """Answer an approval request, as the UI does, and return the question."""
    path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/-1/hitlDetails"
    asked = ""

    def is_through() -> bool:
        nonlocal asked
        task = airflow.task_states(dag_id, run_id).get(task_id)
        state = task.state if task else None
        if state in ASKING:
            detail = airflow.rest("GET", path)
            asked = detail["body"]
            # If the answer came at once, Airflow may mistake the end of the asking process for the end of the
            # task, which then asks again.
            if not detail["response_received"]:
                airflow.rest("PATCH", path, {"chosen_options": [option], "params_input": {}})
        return state == "success"

    airflow.wait_until(is_through, 240, f"{task_id} of {dag_id} has its answer")
    return asked


def test_kills_after_each_step_leave_one_copy_and_the_original_until_the_approval(
    airflow: LocalAirflow, coveo: Simulator
) -> None:
    if airflow.version.startswith("3.0."):
        pytest.skip("Airflow 3.0 does not retry a task whose process was killed")
    coveo.add_source("killed", name="Killed", crawler="SITECORE")
    airflow.rest("POST", "/variables", {"key": "killed_source_id", "value": "killed"})
    airflow.write_dag("killed.py", DAG_FILE)

    run_id = airflow.trigger("killed")
    kill_in(airflow, coveo, run_id, "r.recreate", operation="duplicate_source", applied=False)
    for step in STEPS:
        kill_in(airflow, coveo, run_id, "r.recreate", operation=step)
        assert variable(airflow, "killed_source_id") == "killed"

    if asks(airflow):
        airflow.wait_for_task("killed", run_id, "r.approve", ASKING)
    else:
        # Not approved: the run ends without the deletion.
        assert airflow.wait_for_run("killed", run_id) == "success"
        assert airflow.task_states("killed", run_id)["r.delete_old"].state == "skipped"
    (copy,) = named(coveo, "Killed (2)")
    assert airflow.task_states("killed", run_id)["r.recreate"].try_number == len(STEPS) + 2
    assert variable(airflow, "killed_source_id") == copy
    assert set(coveo.items(copy)) == {"product://1"}
    assert named(coveo, "Killed") == ["killed"]
    assert coveo.timeline("killed") == []

    # Set before the approval, because the deletion can follow it at any time.
    deletion = coveo.faults.stall(600, operation="delete_source")
    if asks(airflow):
        asked = answer(airflow, "killed", run_id, "r.approve", "Approve")
        assert "**Killed** (`killed`)" in asked
        assert f"**Killed (2)** (`{copy}`)" in asked
        assert "Coveo for Sitecore manages the old source" in asked
    else:
        run_id = airflow.trigger("killed", {"delete_old_source": "Killed"})
    kill_at(airflow, coveo, run_id, "r.delete_old", deletion)
    assert airflow.wait_for_run("killed", run_id) == "success"

    assert named(coveo, "Killed") == []
    assert named(coveo, "Killed (2)") == [copy]
    assert set(coveo.items(copy)) == {"product://1"}
    assert variable(airflow, "killed_source_id") == copy


def test_the_example_recreates_a_source_and_keeps_the_original_without_an_approval(
    airflow: LocalAirflow, coveo: Simulator
) -> None:
    dag_id, key = "coveo_recreate_source", "acme_products_source_id"
    coveo.add_source("to-recreate", name="To recreate")
    airflow.rest("POST", "/variables", {"key": key, "value": "to-recreate"})
    run_id = airflow.trigger(dag_id, {"new_name": "recreated"})
    if asks(airflow):
        answer(airflow, dag_id, run_id, "recreate.approve", "Reject")
    assert airflow.wait_for_run(dag_id, run_id) == "success"
    assert airflow.task_states(dag_id, run_id)["recreate.delete_old"].state == "skipped"
    (copy,) = named(coveo, "recreated")
    assert variable(airflow, key) == copy
    assert coveo.statuses(copy) == ["REBUILD", "IDLE"]
    assert len(coveo.items(copy)) == 2
    assert named(coveo, "To recreate") == ["to-recreate"]
    airflow.rest("DELETE", f"/variables/{key}")


def test_the_example_sets_up_and_tears_down_an_environment(airflow: LocalAirflow, coveo: Simulator) -> None:
    dag_id = "coveo_set_up_environment"

    def run(**conf: Any) -> None:
        run_id = airflow.trigger(dag_id, conf)
        assert airflow.wait_for_run(dag_id, run_id) == "success"

    def made() -> list[list[str]]:
        return [named(coveo, f"staging-{source}") for source in ("products", "manuals")]

    run()
    products, manuals = made()
    assert len(products) == len(manuals) == 1
    assert variable(airflow, "acme_products_source_id") == products[0]
    assert variable(airflow, "acme_manuals_source_id") == manuals[0]
    run()
    assert made() == [products, manuals]
    run(tear_down=True)
    assert made() == [[], []]
    known = [variable["key"] for variable in airflow.rest("GET", "/variables?limit=100")["variables"]]
    assert not [
        key
        for key in known
        if key.startswith("coveo_made__") and "staging" in airflow.rest("GET", f"/variables/{key}")["value"]
    ]
