"""The rules for abandoned sources and for brackets that are still working."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_coveo.coveo.errors import CoveoError, CoveoInputError
from airflow_provider_coveo.coveo.statuses import SourceStatus
from airflow_provider_coveo.operators import coveo_watchdog
from airflow_provider_coveo.operators.coveo_push import CloseAbandonedPushSourcesOperator
from airflow_provider_coveo.simulator import Simulator
from airflow_provider_coveo.state import airflow_runs, liveness
from airflow_provider_coveo.state.airflow_runs import RunFacts
from airflow_provider_coveo.state.ledger import Phase, SourceLedger, read_bracket
from tests.conftest import SOURCE
from tests.unit.task_groups.test_coveo_push_tasks import Run

SEVEN_HOURS = timedelta(hours=7)


@pytest.fixture
def opened(coveo: Simulator, connect: Any, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose bracket opened its source seven hours ago, and which is still working."""
    run = Run(monkeypatch)
    coveo.clock.shift(seconds=-SEVEN_HOURS.total_seconds())
    run.execute("open")
    coveo.clock.shift(seconds=0)
    run.states |= {run.task("begin").task_id: "success", run.task("work").task_id: "running"}
    return run


def look(**options: Any) -> dict[str, Any]:
    return CloseAbandonedPushSourcesOperator(task_id="watchdog", **options).execute({})


def test_the_source_of_a_live_bracket_is_left_alone_however_long_it_takes(
    coveo: Simulator, opened: Run
) -> None:
    assert look()["held"] == [SOURCE]
    assert coveo.statuses(SOURCE) == ["REBUILD"]


def test_an_absolute_limit_closes_even_the_source_of_a_live_bracket(coveo: Simulator, opened: Run) -> None:
    assert look(even_if_held_longer_than=timedelta(hours=8))["held"] == [SOURCE]
    assert look(even_if_held_longer_than=SEVEN_HOURS)["closed"] == [SOURCE]
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


def test_an_ended_bracket_holds_no_source_even_if_its_run_continues(coveo: Simulator, opened: Run) -> None:
    """All tasks of the bracket were marked as success, but other tasks of the run work for hours."""
    for name in ("open", "work", "close", "outcome", "done"):
        opened.states[opened.task(name).task_id] = "success"
    opened.states["elsewhere"] = "running"
    assert look()["closed"] == [SOURCE]


def test_a_member_without_a_state_holds_the_source_if_the_close_task_was_marked(
    coveo: Simulator, opened: Run
) -> None:
    """It waits for another member, and the scheduler has not scheduled it yet."""
    for name in ("open", "close", "outcome", "done"):
        opened.states[opened.task(name).task_id] = "success"
    opened.states[opened.task("work").task_id] = None  # type: ignore[assignment]
    assert look()["held"] == [SOURCE]


@pytest.mark.parametrize("state", ["scheduled", "up_for_retry", "up_for_reschedule", None])
def test_a_run_that_no_longer_changes_holds_no_source(
    coveo: Simulator, opened: Run, monkeypatch: pytest.MonkeyPatch, state: str | None
) -> None:
    """Its DAG was deleted or can't be imported, so Airflow leaves it running forever."""
    monkeypatch.setattr(airflow_runs, "_latest_reschedule_of_database", lambda *_: "the same")
    opened.states[opened.task("work").task_id] = state  # type: ignore[assignment]
    assert look()["held"] == [SOURCE]
    assert look()["held"] == [SOURCE]
    limit = "_STALLED_AFTER_WAITING" if state else "_STALLED_AFTER"
    monkeypatch.setattr(coveo_watchdog, limit, timedelta(0))
    assert look()["closed"] == [SOURCE]


def test_a_change_in_the_run_restarts_the_time_limit(
    coveo: Simulator, opened: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coveo_watchdog, "_STALLED_AFTER", timedelta(seconds=60))
    now = [0.0]
    monkeypatch.setattr(coveo_watchdog.time, "time", lambda: now[0])
    work = opened.task("work").task_id
    for at, state, held in [(0, None, True), (50, "success", True), (100, "success", True)]:
        now[0], opened.states[work] = at, state  # type: ignore[assignment]
        assert bool(look()["held"]) is held, at
    now[0] = 111
    assert look()["closed"] == [SOURCE]


@pytest.mark.parametrize(
    ("facts", "work", "verdict"),
    [
        (RunFacts("running", True), "running", "held"),
        (RunFacts("running", True), "scheduled", "closed"),
        (RunFacts("running", None), "queued", "held"),
        (RunFacts("running", False, is_gone=True), None, "closed"),
        (RunFacts("failed", False), "running", "closed"),
        (RunFacts(None, None), "running", "closed"),
    ],
)
def test_a_bracket_holds_its_source_while_one_of_its_tasks_can_run(
    opened: Run, monkeypatch: pytest.MonkeyPatch, facts: RunFacts, work: Any, verdict: str
) -> None:
    monkeypatch.setattr(liveness, "run_facts", lambda *_: facts)
    opened.states[opened.task("work").task_id] = work
    assert look()[verdict] == [SOURCE]


def test_the_bracket_knows_that_the_watchdog_closed_its_source(coveo: Simulator, opened: Run) -> None:
    (holder,) = SourceLedger("acme").holders(SOURCE)
    opened.state = "failed"
    look()
    record = read_bracket(holder.bracket)
    assert record is not None
    assert record.phase is Phase.CLOSED
    assert SourceLedger("acme").holders(SOURCE) == ()
    assert SourceLedger("acme").seen(SOURCE) == {}


def test_an_unexpected_error_for_one_source_does_not_keep_the_watchdog_from_the_others(
    coveo: Simulator, opened: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.state = "failed"
    for name in ("a-broken", "z-broken"):
        coveo.add_source(name)
        coveo.state.set_status(name, SourceStatus.REBUILD, "somebody")
    ledger = SourceLedger.holders

    def broken(self: SourceLedger, source_id: str) -> Any:
        if "broken" in source_id:
            raise RuntimeError("a record that can't be read")
        return ledger(self, source_id)

    monkeypatch.setattr(SourceLedger, "holders", broken)
    with pytest.raises(RuntimeError, match="can't be read"):
        look()
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


@pytest.mark.parametrize("failing", [503, 403, 404, 500])
def test_a_source_that_cannot_be_read_does_not_keep_the_watchdog_from_the_others(
    coveo: Simulator, opened: Run, failing: int
) -> None:
    opened.state = "failed"
    coveo.add_source("broken")
    coveo.faults.answer(
        failing, operation="source", source="broken", times=None, headers={"Retry-After": "3000"}
    )
    with pytest.raises(CoveoError):
        look(source_ids=["broken", SOURCE])
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


@pytest.mark.parametrize("value", ["on", "On", " yes ", "1", "TRUE", True])
def test_report_only_closes_nothing(coveo: Simulator, opened: Run, value: Any) -> None:
    opened.state = "failed"
    assert look(report_only=value)["closed"] == []
    assert coveo.statuses(SOURCE) == ["REBUILD"]


@pytest.mark.parametrize("value", ["", "maybe", "None", None, 2, "{{ params.report_only }}"])
def test_an_invalid_report_only_value_closes_nothing(coveo: Simulator, opened: Run, value: Any) -> None:
    opened.state = "failed"
    with pytest.raises(CoveoInputError, match="Invalid report_only"):
        look(report_only=value)
    assert coveo.statuses(SOURCE) == ["REBUILD"]


@pytest.mark.parametrize("value", [timedelta(0), 60, "1h"])
def test_an_invalid_limit_is_rejected(opened: Run, value: Any) -> None:
    with pytest.raises(CoveoInputError, match="even_if_held_longer_than"):
        look(even_if_held_longer_than=value)
