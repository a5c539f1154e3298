"""Each example DAG works as described on a real Airflow."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_airflow import LocalAirflow

from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.simulator import Simulator
from tests.airflow.conftest import EXAMPLES

pytestmark = pytest.mark.timeout(900)

#: The example DAGs; each has its tests, most of them below.
DAG_IDS = {
    "coveo_asset_schedule",
    "coveo_bracket_forms",
    "coveo_close_abandoned",
    "coveo_create_fields",
    "coveo_full_rebuild",
    "coveo_incremental_refresh",
    "coveo_many_sources",
    "coveo_notifier",
    "coveo_plain_form",
    "coveo_push_api_increments",
    "coveo_push_changes",
    "coveo_push_files",
    "coveo_push_identities",
    "coveo_push_increments",
    "coveo_push_query",
    "coveo_push_rejected",
    "coveo_recreate_source",
    "coveo_reset_source",
    "coveo_set_up_environment",
    "coveo_wait_until_indexed",
}

_numbers = itertools.count(1)


@pytest.fixture
def source(coveo_server: Simulator) -> Iterator[str]:
    """A Push source that no other test uses."""
    source_id = f"acme-source-{next(_numbers)}"
    coveo_server.add_source(source_id)
    yield source_id
    coveo_server.remove_source(source_id)


def run(airflow: LocalAirflow, dag_id: str, conf: dict[str, object]) -> tuple[str, str]:
    run_id = airflow.trigger(dag_id, conf)
    return run_id, airflow.wait_for_run(dag_id, run_id)


@pytest.mark.smoke
def test_every_example_is_parsed_and_has_a_test(local_airflow: LocalAirflow) -> None:
    for dag_id in DAG_IDS:
        local_airflow.wait_for_dag(dag_id)

    assert local_airflow.import_errors() == {}
    assert {dag["dag_id"] for dag in local_airflow.rest("GET", "/dags")["dags"]} >= DAG_IDS
    assert {path.stem for path in EXAMPLES.glob("*.py")} == DAG_IDS, "an example without a test"


def test_an_increment_pushes_the_changes_that_an_api_reports(
    local_airflow: LocalAirflow, coveo_server: Simulator, source: str
) -> None:
    _, state = run(local_airflow, "coveo_push_api_increments", {"source_id": source})

    assert state == "success"
    assert coveo_server.statuses(source) == ["INCREMENTAL", "IDLE"]
    assert set(coveo_server.items(source)) == {"product://2"}


@pytest.mark.smoke
def test_a_full_rebuild_pushes_and_ends_idle(
    local_airflow: LocalAirflow, coveo_server: Simulator, source: str
) -> None:
    _, state = run(local_airflow, "coveo_full_rebuild", {"source_id": source})

    assert state == "success"
    assert coveo_server.statuses(source) == ["REBUILD", "IDLE"]
    assert len(coveo_server.items(source)) == 3
    events = [event["event"] for event in coveo_server.timeline(source)]
    assert events[-2:] == ["delete_old_items_queued", "status"]


@pytest.mark.smoke
def test_a_full_rebuild_that_fails_ends_idle_deletes_nothing_and_fails_its_run(
    local_airflow: LocalAirflow, coveo_server: Simulator, source: str
) -> None:
    run_id, state = run(local_airflow, "coveo_full_rebuild", {"source_id": source, "fail": True})

    assert state == "failed"
    tasks = local_airflow.task_states("coveo_full_rebuild", run_id)
    assert tasks["rebuild.push_products"].state == "failed"
    assert tasks["rebuild.close"].state == "success"
    assert coveo_server.statuses(source) == ["REBUILD", "IDLE"]
    assert "delete_old_items_queued" not in [event["event"] for event in coveo_server.timeline(source)]
    assert "on purpose" in local_airflow.task_log("coveo_full_rebuild", run_id, "rebuild.push_products")


@pytest.mark.parametrize(("fail", "state"), [(False, "success"), (True, "failed")])
def test_the_plain_form_ends_idle_and_reports_failures(
    local_airflow: LocalAirflow, coveo_server: Simulator, source: str, fail: bool, state: str
) -> None:
    assert run(local_airflow, "coveo_plain_form", {"source_id": source, "fail": fail})[1] == state
    assert coveo_server.statuses(source) == ["REFRESH", "IDLE"]


def test_an_incremental_refresh_adds_and_deletes_between_incremental_and_idle(
    local_airflow: LocalAirflow, coveo_server: Simulator, source: str
) -> None:
    _, state = run(local_airflow, "coveo_incremental_refresh", {"source_id": source})

    assert state == "success"
    opened, batch, closed = coveo_server.timeline(source)
    assert (opened["event"], closed["event"]) == ("status", "status")
    assert (batch["added"], batch["deleted"]) == (1, 1)
    assert coveo_server.statuses(source) == ["INCREMENTAL", "IDLE"]


@pytest.mark.parametrize("dry_run", [True, False])
def test_fields_are_created_and_a_dry_run_changes_nothing(
    local_airflow: LocalAirflow, coveo_server: Simulator, source: str, dry_run: bool
) -> None:
    run_id, state = run(local_airflow, "coveo_create_fields", {"source_id": source, "dry_run": dry_run})

    assert state == "success"
    tasks = local_airflow.task_states("coveo_create_fields", run_id)
    assert {task.state for task in tasks.values()} == {"success"}
    if dry_run:
        assert coveo_server.timeline(source) == []
        assert "price" not in coveo_server.fields()
        log = local_airflow.task_log("coveo_create_fields", run_id, "rebuild.push_products")
        assert f"Dry run, nothing was sent. Source {source}: 2 items" in log
    else:
        assert coveo_server.statuses(source) == ["REBUILD", "IDLE"]
        assert coveo_server.fields()["price"]["type"] == "DOUBLE"
        assert len(coveo_server.items(source)) == 2


@pytest.fixture
def filled_source(coveo_server: Simulator, source: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AIRFLOW_CONN_COVEO_DEFAULT", coveo_server.connection_json())
    item = {"documentId": "https://example.com/old", "title": "Old", "data": "Old"}
    CoveoPushHook().add_or_update_item(source, item)
    assert coveo_server.items(source)
    return source


def test_a_confirmed_reset_empties_the_source(
    local_airflow: LocalAirflow, coveo_server: Simulator, filled_source: str
) -> None:
    conf = {"source_id": filled_source, "repeat_source_id": filled_source, "queue_delay": 0}
    _, state = run(local_airflow, "coveo_reset_source", conf)

    assert state == "success"
    coveo_server.wait_for(lambda: not coveo_server.items(filled_source))


def test_an_unconfirmed_reset_fails_and_deletes_nothing(
    local_airflow: LocalAirflow, coveo_server: Simulator, filled_source: str
) -> None:
    run_id, state = run(local_airflow, "coveo_reset_source", {"source_id": filled_source, "queue_delay": 0})

    assert state == "failed"
    assert [event["event"] for event in coveo_server.timeline(filled_source)] == ["push"]
    assert "must repeat" in local_airflow.task_log("coveo_reset_source", run_id, "confirm")


def test_files_tables_and_task_results_are_pushed_and_ids_are_deleted(
    local_airflow: LocalAirflow, coveo_server: Simulator, source: str, tmp_path: Path
) -> None:
    for sku, name in [("4711", "Anvil"), ("4713", "Boulder")]:
        line = json.dumps({"documentId": f"product://{sku}", "title": name, "data": f"The famous {name}."})
        (tmp_path / f"{sku}.ndjson.gz").write_bytes(gzip.compress(line.encode()))
    table = tmp_path / "prices.csv"
    table.write_text("sku,name,price\n4712,Rocket skates,249.5\n")
    conf = {"source_id": source, "path": f"{tmp_path}/*.ndjson.gz", "table": str(table)}

    assert run(local_airflow, "coveo_push_files", conf)[1] == "success"
    assert set(coveo_server.items(source)) == {"product://4711", "product://4712", "product://4714"}
    assert coveo_server.statuses(source) == ["INCREMENTAL", "IDLE"]


def test_identities_are_pushed_before_the_items_that_name_them(
    local_airflow: LocalAirflow, coveo_server: Simulator
) -> None:
    coveo_server.add_source("acme-stock", visibility="SECURED")

    assert run(local_airflow, "coveo_push_identities", {})[1] == "success"
    assert set(coveo_server.items("acme-stock")) == {"stock://4711"}
    assert coveo_server.statuses("acme-stock") == ["REBUILD", "IDLE"]


def test_each_form_of_the_bracket_opens_and_closes(
    local_airflow: LocalAirflow, coveo_server: Simulator, source: str
) -> None:
    assert run(local_airflow, "coveo_bracket_forms", {"source_id": source})[1] == "success"
    assert coveo_server.statuses(source) == ["REFRESH", "IDLE", "INCREMENTAL", "IDLE", "REFRESH", "IDLE"]
    assert len(coveo_server.items(source)) == 7


def test_a_callback_closes_the_source(
    local_airflow: LocalAirflow, coveo_server: Simulator, source: str
) -> None:
    assert run(local_airflow, "coveo_notifier", {"source_id": source})[1] == "failed"
    # The DAG processor calls it some time after the run has failed.
    coveo_server.wait_for(lambda: coveo_server.statuses(source) == ["REFRESH", "IDLE"], timeout=180)


def test_a_refresh_pushes_only_changes_and_deletes_nothing_if_too_many_items_are_missing(
    local_airflow: LocalAirflow, coveo_server: Simulator, source: str, tmp_path: Path
) -> None:
    conf = {"source_id": source, "snapshot_path": str(tmp_path), "products": 200, "changed": 5}
    run_id, state = run(local_airflow, "coveo_push_changes", {**conf, "status": "REBUILD"})
    assert state == "success"
    assert len(coveo_server.items(source)) == 200
    first = local_airflow.xcom("coveo_push_changes", run_id, "push_source_update.push_catalog")
    assert (first["added"], first["full_because"]) == (200, "there is no snapshot yet")
    run_id, state = run(local_airflow, "coveo_push_changes", {**conf, "products": 190})
    assert state == "success"
    result = local_airflow.xcom("coveo_push_changes", run_id, "push_source_update.push_catalog")
    assert (result["updated"], result["deleted"], result["unchanged"]) == (5, 10, 185)
    assert len(coveo_server.items(source)) == 190
    # Half a catalog deletes nothing, and the source is still closed.
    _, state = run(local_airflow, "coveo_push_changes", {**conf, "products": 100})
    assert state == "failed"
    assert len(coveo_server.items(source)) == 190
    assert coveo_server.statuses(source)[-1] == "IDLE"
