"""Orders to the watchdog in a run's conf, and the observations that it saves."""

from __future__ import annotations

import json
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_coveo.coveo.errors import CoveoError, CoveoInputError
from airflow_provider_coveo.coveo.statuses import SourceStatus
from airflow_provider_coveo.operators import coveo_watchdog
from airflow_provider_coveo.operators.coveo_push import CloseAbandonedPushSourcesOperator
from airflow_provider_coveo.simulator import Simulator
from airflow_provider_coveo.state import watch_record
from airflow_provider_coveo.state.ledger import Holder, SourceLedger, read_bracket
from airflow_provider_coveo.state.watch_record import WatchRecord, read_watch, write_watch
from tests.conftest import SOURCE
from tests.unit.conftest import Variables
from tests.unit.task_groups.test_coveo_push_tasks import Run


@pytest.fixture
def young(coveo: Simulator, connect: Any, variables: Variables) -> str:
    """A source that became active just now, and that has no recorded owner."""
    coveo.state.set_status(SOURCE, SourceStatus.REBUILD, "somebody")
    return SOURCE


def look(conf: Any = None, **options: Any) -> dict[str, Any]:
    context: Any = {
        "dag_run": SimpleNamespace(conf=conf),
        "ti": SimpleNamespace(dag_id="dog", task_id="watchdog", xcom_push=lambda **_: None),
    }
    operator = CloseAbandonedPushSourcesOperator(task_id="watchdog", **{"takes_conf": True, **options})
    return operator.execute(context)


def watched() -> WatchRecord:
    record = read_watch("acme")
    assert record is not None
    return record


# --- orders ---


def test_a_run_closes_the_sources_that_its_conf_names_at_once(coveo: Simulator, young: str) -> None:
    coveo.add_source("other")
    coveo.state.set_status("other", SourceStatus.REFRESH, "somebody")
    assert look()["closed"] == []
    assert look({"source_ids": [young], "close_now": True, "organization_id": "ACME"})["closed"] == [young]
    assert coveo.statuses(young) == ["REBUILD", "IDLE"]
    assert coveo.statuses("other") == ["REFRESH"]


def test_a_run_closes_no_source_that_a_live_bracket_holds(
    coveo: Simulator, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(monkeypatch)
    run.execute("open")
    run.states[run.task("work").task_id] = "running"
    conf = {"source_ids": [SOURCE], "close_now": True}
    assert look(conf)["held"] == [SOURCE]
    assert coveo.statuses(SOURCE) == ["REBUILD"]

    run.state = "failed"
    assert look(conf)["closed"] == [SOURCE]
    record = read_bracket(Holder("d", "r", run.update.open.task_id))
    assert record is not None
    assert record.closed_by == "watchdog"
    # If the same source is opened again, the bracket did it.
    run.state = "running"
    run.execute("open")
    record = read_bracket(Holder("d", "r", run.update.open.task_id))
    assert record is not None
    assert record.closed_by == ""


def test_report_only_closes_nothing_however_long_a_source_has_been_active(
    coveo: Simulator, young: str
) -> None:
    look({"source_ids": [young], "report_only": True}, active_longer_than=timedelta(microseconds=1))
    assert coveo.statuses(young) == ["REBUILD"]


def test_without_takes_conf_the_conf_is_ignored(coveo: Simulator, young: str) -> None:
    assert look({"source_ids": [young], "close_now": True}, takes_conf=False)["closed"] == []
    assert watched().takes_conf is False


@pytest.mark.parametrize(
    "conf",
    [
        {"close_now": True},
        {"close_now": True, "source_ids": None},
        {"close_now": True, "source_ids": []},
        {"source_ids": []},
        {"source_ids": SOURCE},
        {"source_ids": 5},
        {"source_ids": ["../else"]},
        {"source_ids": [None]},
        {"source_ids": [f"s{number}" for number in range(101)]},
        {"source_ids": [SOURCE], "close_now": "perhaps"},
        {"source_ids": [SOURCE], "close_now": True, "report_only": True},
        {"source_ids": [SOURCE], "close_now": True, "report_only": "maybe"},
        {"source_ids": [SOURCE], "close_now": True, "organization_id": "another"},
        {"source_ids": [SOURCE], "close_now": True, "organization_id": 5},
        ["close_now"],
        "close_now",
    ],
)
def test_an_invalid_order_closes_nothing_and_is_an_error(coveo: Simulator, young: str, conf: Any) -> None:
    with pytest.raises(CoveoInputError):
        look(conf)
    assert coveo.statuses(young) == ["REBUILD"]
    assert not [each for each in coveo.requests if each.method != "GET"]


def test_an_order_for_a_source_that_the_watchdog_does_not_check_is_rejected(
    coveo: Simulator, young: str
) -> None:
    with pytest.raises(CoveoInputError, match="that this task checks"):
        look({"source_ids": [young], "close_now": True}, source_ids=["another"])
    assert look({"source_ids": [young], "close_now": True}, source_ids=[young])["closed"] == [young]


@pytest.mark.parametrize("conf", [None, {}, {"source_ids": None, "close_now": False, "report_only": False}])
def test_a_scheduled_run_and_one_from_airflow_s_trigger_form_check_all_sources(
    coveo: Simulator, young: str, conf: Any
) -> None:
    assert look(conf)["active"] == 1
    assert {each.id for each in watched().sources} == {SOURCE}


def test_a_source_that_was_closed_since_is_left_alone(coveo: Simulator, young: str) -> None:
    coveo.state.set_status(SOURCE, SourceStatus.IDLE, "somebody")
    assert look({"source_ids": [young], "close_now": True})["closed"] == []
    assert coveo.statuses(young) == ["REBUILD", "IDLE"]


# --- saved observations ---


def test_the_latest_observations_are_saved_with_their_time(coveo: Simulator, young: str) -> None:
    look()
    record = watched()
    (source,) = record.sources
    assert (source.id, source.status, source.is_active) == (SOURCE, "REBUILD", True)
    assert source.since_ms is not None
    assert source.at > 0
    assert (record.dag_id, record.task_id, record.takes_conf) == ("dog", "watchdog", True)
    assert record.at > 0
    assert record.quota_limit is not None
    assert record.quota_used is not None


def test_a_check_of_one_source_keeps_the_saved_state_of_the_others(coveo: Simulator, young: str) -> None:
    coveo.add_source("other")
    look()
    before = watched()
    coveo.state.set_status("other", SourceStatus.REFRESH, "somebody")
    look({"source_ids": ["other"], "report_only": True})
    after = watched()
    assert after.source(SOURCE) == before.source(SOURCE)
    other = after.source("other")
    assert other is not None
    assert other.status == "REFRESH"
    assert after.at == before.at
    assert after.quota_limit == before.quota_limit


def test_a_check_of_all_sources_removes_deleted_ones_from_the_record(coveo: Simulator, young: str) -> None:
    write_watch(WatchRecord("acme").with_sources([watch_record.SeenSource("gone")], only=True))
    look()
    assert [each.id for each in watched().sources] == [SOURCE]


def test_a_closed_source_is_saved_as_idle(coveo: Simulator, young: str) -> None:
    look({"source_ids": [young], "close_now": True})
    (source,) = watched().sources
    assert (source.status, source.is_active, source.since_ms) == ("IDLE", False, None)


def test_the_message_of_an_error_that_is_not_coveo_s_is_not_saved(
    young: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("could not read coveo_bracket__a_secret_dag")

    monkeypatch.setattr(CloseAbandonedPushSourcesOperator, "_live_holder", fail)
    with pytest.raises(RuntimeError):
        look()
    assert watched().sources[0].error == "RuntimeError"


@pytest.mark.parametrize("failing", [403, 404, 500])
def test_a_source_that_cannot_be_read_keeps_its_saved_state_and_gets_an_error(
    coveo: Simulator, young: str, failing: int
) -> None:
    look()
    coveo.faults.answer(
        failing, operation="source", source=young, times=None, headers={"Retry-After": "3000"}
    )
    with pytest.raises(CoveoError):
        look({"source_ids": [young], "report_only": True})
    (source,) = watched().sources
    assert source.status == "REBUILD"
    assert SOURCE in source.error
    assert coveo.api_key not in json.dumps(source.__dict__)
    coveo.faults.clear()
    look()
    assert watched().sources[0].error == ""


@pytest.mark.parametrize("status", [403, 500])
def test_a_quota_that_cannot_be_read_is_left_out(coveo: Simulator, young: str, status: int) -> None:
    coveo.faults.answer(status, operation="limit", times=None, headers={"Retry-After": "3000"})
    assert look()["active"] == 1
    assert watched().quota_limit is None


@pytest.mark.parametrize("broken", ["read_watch", "write_watch"])
def test_a_record_that_cannot_be_read_or_written_does_not_keep_a_source_active(
    coveo: Simulator, young: str, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("the database is down")

    monkeypatch.setattr(watch_record, broken, fail)
    assert look({"source_ids": [young], "close_now": True})["closed"] == [young]


@pytest.mark.parametrize("value", ["null", "[]", "{}", "no JSON", '{"organization_id": 3}', '{"sources": 3}'])
def test_a_damaged_record_is_replaced(coveo: Simulator, young: str, variables: Variables, value: str) -> None:
    variables.values["coveo_watch__acme"] = value
    look()
    assert [each.id for each in watched().sources] == [SOURCE]


def test_repeated_checks_read_no_records_of_sources_that_stay_idle(
    coveo: Simulator, connect: Any, variables: Variables, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        coveo.add_source(f"idle-{number}")
    look()
    asked: list[str] = []
    found = SourceLedger.seen
    monkeypatch.setattr(SourceLedger, "seen", lambda self, name: (asked.append(name), found(self, name))[1])
    look()
    assert asked == []


def test_the_number_of_saved_sources_is_limited_and_active_ones_come_first(
    coveo: Simulator, young: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_record, "MAX_SOURCES", 2)
    for number in range(3):
        coveo.add_source(f"a{number}")
    look()
    record = watched()
    assert [each.id for each in record.sources] == [SOURCE, "a0"]
    assert record.left_out == 2


def test_an_order_is_parsed_from_the_conf() -> None:
    order = coveo_watchdog._order_of_conf(None, False, {"source_ids": ["a", "a"], "close_now": "yes"})
    assert order == coveo_watchdog._Order(["a"], report_only=False, close_now=True)
