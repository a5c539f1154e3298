"""A run with the ID of a deleted run inherits nothing from its records."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_coveo.operators.content_writers import note_content_change
from airflow_provider_coveo.state.ledger import BracketRecord, Holder, SourceLedger, bracket_in, write_bracket
from airflow_provider_coveo.state.run_marks import CurrentRun, RunMark, is_another_run, mark_in, mark_of
from airflow_provider_coveo.state.task_store import RunState
from airflow_provider_coveo.state.variables import read_variable

_BEGAN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)
_FIRST = RunMark(_BEGAN.timestamp(), 0)


def a_context(
    *,
    began: datetime = _BEGAN,
    clears: int = 0,
    tried: int = 1,
    max_tries: int = 0,
    opened: tuple[str, ...] = (),
) -> Any:
    """Return the context of a task without retries, in a run in which some brackets have opened a source."""

    def xcom_pull(*, task_ids: str, **_: object) -> object:
        return {"source_id": "s"} if task_ids in opened else None

    ti = SimpleNamespace(
        dag_id="d",
        task_id="t",
        run_id="r",
        map_index=-1,
        try_number=tried,
        max_tries=max_tries,
        xcom_pull=xcom_pull,
    )
    run = SimpleNamespace(start_date=began, clear_number=clears)
    return {"ti": ti, "dag_run": run, "task": SimpleNamespace(retries=0)}


def a_run(mark: RunMark, **task: Any) -> CurrentRun:
    return CurrentRun(mark, a_context(**task))


@pytest.mark.parametrize(
    ("recorded", "now", "is_another"),
    [
        (_FIRST, _FIRST, False),
        (_FIRST, RunMark(_FIRST.began + 0.001, 0), False),
        # From 3.2 on, a task was cleared in the running run; and a task that started before.
        (_FIRST, RunMark(_FIRST.began, 1), False),
        (RunMark(_FIRST.began, 1), _FIRST, False),
        # Deleted and created again, or set to queued.
        (_FIRST, RunMark(_FIRST.began + 60, 0), None),
        (_FIRST, RunMark(_FIRST.began - 60, 0), None),
        # Cleared, or also deleted and created again before.
        (_FIRST, RunMark(_FIRST.began + 60, 1), None),
        (RunMark(_FIRST.began, 2), RunMark(_FIRST.began + 60, 1), True),
        (RunMark(_FIRST.began, 0, 7), RunMark(_FIRST.began + 60, 1, 7), False),
        (RunMark(_FIRST.began, 0, 7), RunMark(_FIRST.began + 60, 1, 8), True),
        # SQLite uses a number again; a backfill on Airflow 2 starts an ended run again.
        (RunMark(_FIRST.began, 0, 7), RunMark(_FIRST.began + 60, 0, 7), None),
        (None, _FIRST, False),
        (_FIRST, None, False),
    ],
)
def test_a_mark_tells_a_run_from_a_deleted_one(
    recorded: RunMark | None, now: RunMark | None, is_another: bool | None
) -> None:
    assert is_another_run(recorded, now) is is_another


_QUEUED = RunMark(_FIRST.began + 60, 0)
_CLEARED = RunMark(_FIRST.began + 60, 1)
_BRACKET = ("b.open", -1)


@pytest.mark.parametrize(
    ("now", "task", "brackets", "is_another"),
    [
        (_QUEUED, {}, [_BRACKET], True),
        (_QUEUED, {"opened": ("b.open",)}, [_BRACKET], False),
        (_QUEUED, {"opened": ("b.open",)}, [("a.open", 2), _BRACKET], False),
        # It was cleared, or tried more often than its retries allow.
        (_QUEUED, {"max_tries": 1, "tried": 2}, [_BRACKET], False),
        (_QUEUED, {"tried": 2}, [_BRACKET], False),
        (_QUEUED, {}, [], None),
        (_CLEARED, {}, [_BRACKET], None),
        (_CLEARED, {"opened": ("b.open",)}, [_BRACKET], False),
        (_CLEARED, {"max_tries": 1}, [_BRACKET], False),
        (_FIRST, {}, [_BRACKET], False),
    ],
)
def test_a_run_is_known_by_what_it_has_done(
    now: RunMark, task: dict[str, Any], brackets: list[tuple[str, int]], is_another: bool | None
) -> None:
    assert a_run(now, **task).is_another(_FIRST, "s", brackets) is is_another


def test_nothing_tells_about_a_run_whose_xcoms_can_not_be_read() -> None:
    run = a_run(_QUEUED)

    def unreadable(**_: object) -> object:
        raise OSError("no storage")

    run.context["ti"].xcom_pull = unreadable
    assert run.is_another(_FIRST, "s", [_BRACKET]) is None


def test_a_run_that_may_be_another_one_inherits_only_what_keeps_items(variables: Any) -> None:
    ledger, bracket = SourceLedger("acme"), Holder("d", "r", "b.open")
    ledger.opened("s", bracket, 1_000, BracketRecord(), this_run=a_run(_FIRST))
    ledger.accepted("s", "d", "r", a_run(_FIRST))
    found = ledger.run("s", "d", "r", a_run(_CLEARED))
    assert (found.first_cut_off_ms, found.accepted) == (1_000, False)
    ledger.accepted("s", "d", "r", a_run(_CLEARED))
    found = ledger.run("s", "d", "r", a_run(_CLEARED))
    assert (found.first_cut_off_ms, found.accepted) == (1_000, True)


@pytest.mark.parametrize("value", [None, "x", [], [1.0], [1.0, "0", 0], [True, 0, 0]])
def test_an_invalid_mark_is_unknown(value: object) -> None:
    assert mark_in(value) is None


def test_a_mark_of_a_later_version_is_read() -> None:
    assert mark_in([1.5, 0, 3, "more"]) == RunMark(1.5, 0, 3)


def test_a_run_without_a_start_has_no_mark() -> None:
    assert mark_of(a_context()) == _FIRST
    assert mark_of({"dag_run": SimpleNamespace(start_date=None, clear_number=0)}) is None  # type: ignore[typeddict-item]
    assert mark_of({}) is None  # type: ignore[typeddict-item]


def test_the_source_s_record_of_a_run_starts_anew(variables: Any) -> None:
    ledger, bracket = SourceLedger("acme"), Holder("d", "r", "b.open")
    ledger.opened("s", bracket, 1_000, BracketRecord(), this_run=a_run(_FIRST))
    ledger.opened("s", replace(bracket, map_index=1), 1_000, BracketRecord(), this_run=a_run(_FIRST))
    ledger.accepted("s", "d", "r", a_run(_FIRST))
    cleared, new = RunMark(_FIRST.began + 60, 1), RunMark(_FIRST.began + 90, 0)
    assert ledger.run("s", "d", "r", a_run(cleared, max_tries=1)).accepted
    assert not ledger.run("s", "d", "r", a_run(new)).accepted
    opened = ledger.opened("s", bracket, 2_000, BracketRecord(), this_run=a_run(new))
    assert (opened.first_cut_off_ms, opened.accepted) == (2_000, False)
    assert opened.brackets == (("b.open", -1),)
    ledger.accepted("s", "d", "r", a_run(new))
    assert ledger.run("s", "d", "r", a_run(new)).first_cut_off_ms == 2_000


def test_a_push_before_any_opening_counts_only_for_its_own_run(variables: Any) -> None:
    ledger, new = SourceLedger("acme"), RunMark(_FIRST.began + 90, 0)
    ledger.opened("s", Holder("d", "r", "b.open"), 1_000, BracketRecord(), this_run=a_run(_FIRST))
    ledger.accepted("s", "d", "r", a_run(new))
    opened = ledger.opened("s", Holder("d", "r", "b.open"), 2_000, BracketRecord(), this_run=a_run(new))
    assert opened.first_cut_off_ms is None
    assert opened.why_unknown


def test_a_push_task_that_begins_before_any_opening_counts_only_for_its_own_run(variables: Any) -> None:
    """It is recorded before anything is sent: its process can end before Coveo's response arrives."""
    ledger, later = SourceLedger("acme"), _BEGAN + timedelta(seconds=90)
    ledger.opened("s", Holder("d", "r", "b.open"), 1_000, BracketRecord(), this_run=a_run(_FIRST))
    hook: Any = SimpleNamespace(organization_id="acme")
    note_content_change(hook, "s", a_context(began=later), pushes=True)
    new = RunMark(later.timestamp(), 0)
    opened = ledger.opened("s", Holder("d", "r", "b.open"), 2_000, BracketRecord(), this_run=a_run(new))
    assert opened.first_cut_off_ms is None
    assert opened.why_unknown


def test_records_of_0_1_have_no_mark_and_stay_readable(variables: Any) -> None:
    ledger, holder = SourceLedger("acme"), Holder("d", "r", "b.open")
    ledger.opened("s", holder, 1_000, BracketRecord())
    ledger.accepted("s", "d", "r")
    assert ledger.run("s", "d", "r", a_run(_FIRST)).accepted
    write_bracket(holder, BracketRecord(organization_id="acme", source_id="s", coveo_conn_id="c"))
    (name,) = (each for each in variables.values if each.startswith("coveo_bracket__"))
    stored = read_variable(name)
    del stored["mark"]
    found = bracket_in(stored)
    assert found is not None
    assert found.mark is None


def test_a_task_s_state_is_not_that_of_a_deleted_run(variables: Any) -> None:
    RunState(a_context()).set("key", 5)
    later = _BEGAN + timedelta(hours=1)
    assert RunState(a_context(began=later, clears=1, max_tries=1)).get("key") == 5
    # Cleared before this task has ever run.
    assert RunState(a_context(began=later, clears=1)).get("key") is None
    assert RunState(a_context(began=later)).get("key") is None
    RunState(a_context(began=later)).set("other", 6)
    assert RunState(a_context(began=later)).get("key") is None
    assert RunState(a_context(began=later)).get("other") == 6
    RunState(a_context(began=later)).delete("other")
    assert not variables.values
