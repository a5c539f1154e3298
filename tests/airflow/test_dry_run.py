"""A bracket in a dry run, on a real scheduler: neither it nor its tasks can send anything."""

from __future__ import annotations

import pytest
from local_airflow import LocalAirflow

from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.simulator import Simulator

pytestmark = pytest.mark.timeout(900)

DAG_FILE = """
from datetime import datetime

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_coveo.assets.coveo_push import push_source_asset
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.operators.coveo_push import PushItemsOperator
from airflow_provider_coveo.task_groups.coveo_push import push_source_update

SOURCE = "dry"
ITEMS = [{"documentId": f"a://{number}", "data": "x"} for number in range(3)]
asset = push_source_asset(source_id=SOURCE, organization_id="acme")
with DAG(
    "dry",
    schedule=None,
    start_date=datetime(2025, 1, 1),
    max_active_runs=1,
    params={"dry_run": Param(False, type="boolean"), "by_hook": Param(False, type="boolean")},
    default_args={"dry_run": "{{ params.dry_run }}"},
):

    @task
    def by_hook(params=None):
        if params["by_hook"]:
            CoveoPushHook().add_or_update_item(SOURCE, {"documentId": "a://hook", "data": "x"})

    @task
    def after():
        pass

    with push_source_update(
        source_id=SOURCE,
        delete_old_items=True,
        max_deleted="90%",
        dry_run="{{ params.dry_run }}",
        outlets=[asset],
        group_id="update",
    ) as update:
        push = PushItemsOperator(task_id="push", source_id=SOURCE, items=ITEMS)
        mapped = PushItemsOperator.partial(task_id="mapped", source_id=SOURCE).expand(items=[ITEMS, ITEMS])
        [push, mapped] >> by_hook()
    update >> after()

with DAG("on_dry", schedule=[asset], start_date=datetime(2025, 1, 1)):

    @task
    def updated():
        pass

    updated()
"""


def test_a_dry_run_changes_nothing_and_the_next_real_run_pushes(
    local_airflow: LocalAirflow, coveo_server: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    coveo_server.add_source("dry")
    monkeypatch.setenv("AIRFLOW_CONN_COVEO_DEFAULT", coveo_server.connection_json())
    hook = CoveoPushHook()
    # Someone else is updating the source.
    hook.set_source_status("dry", "REFRESH")
    local_airflow.write_dag("dry.py", DAG_FILE)
    local_airflow.wait_for_dag("on_dry")
    before = coveo_server.timeline("dry")

    run_id = local_airflow.trigger("dry", {"dry_run": True})
    assert local_airflow.wait_for_run("dry", run_id) == "success"
    states = {name: task.state for name, task in local_airflow.task_states("dry", run_id).items()}
    assert states.pop("after") == "skipped"
    assert states.pop("update.done") == "skipped"
    assert set(states.values()) == {"success"}
    log = local_airflow.task_log("dry", run_id, "update.delete_old_items")
    # The items of all tasks, mapped or not.
    assert "Source dry has 0 items, and the run would push 9" in log
    assert coveo_server.timeline("dry") == before

    run_id = local_airflow.trigger("dry", {"dry_run": True, "by_hook": True})
    assert local_airflow.wait_for_run("dry", run_id) == "failed"
    tasks = local_airflow.task_states("dry", run_id)
    assert (tasks["update.by_hook"].state, tasks["update.close"].state) == ("failed", "success")
    assert "the bracket of this task does a dry run" in local_airflow.task_log(
        "dry", run_id, "update.by_hook"
    )
    assert coveo_server.timeline("dry") == before
    assert local_airflow.rest("GET", "/dags/on_dry/dagRuns")["total_entries"] == 0

    run_id = local_airflow.trigger("dry")
    assert local_airflow.wait_for_run("dry", run_id) == "success"
    assert local_airflow.task_states("dry", run_id)["after"].state == "success"
    assert coveo_server.statuses("dry") == ["REFRESH", "REBUILD", "IDLE"]
    assert len(coveo_server.items("dry")) == 3
