"""Edited or missing records, and duplicate names in Airflow."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_coveo.bracket import delete_task
from airflow_provider_coveo.bracket.closing import close_source, hook_of
from airflow_provider_coveo.bracket.delete_task import AirflowRescheduleException
from airflow_provider_coveo.bracket.errors import SharedByMapIndexes
from airflow_provider_coveo.coveo.errors import CoveoError
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.operators.coveo_watchdog import CloseAbandonedPushSourcesOperator
from airflow_provider_coveo.simulator import Simulator
from airflow_provider_coveo.state import airflow_runs, liveness
from airflow_provider_coveo.state.airflow_runs import RunFacts
from airflow_provider_coveo.state.ledger import (
    BracketRecord,
    Holder,
    Phase,
    SourceLedger,
    SourceRecord,
    bracket_variable,
    read_bracket,
    write_bracket,
)
from airflow_provider_coveo.state.run_records import RunRecord
from airflow_provider_coveo.task_groups.coveo_push import push_source_update
from tests.conftest import SOURCE
from tests.unit.task_groups.test_bracket_guarantee import begin_work, deletions, push_as
from tests.unit.task_groups.test_coveo_push_tasks import Run, Work

pytestmark = pytest.mark.usefixtures("connect")

_NO_TIME = timedelta(microseconds=1)


@pytest.fixture
def a_run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    return lambda **options: Run(monkeypatch, **options)


# --- records ---


@pytest.mark.parametrize("kind", ["coveo_open", "coveo_bracket", "coveo_content"])
@pytest.mark.parametrize(
    "text", ["[]", "5", "null", '"x"', "{}", "no json", '{"phase": "open"}', '{"runs": 5}', '{"others": [5]}']
)
@pytest.mark.parametrize("after", ["open", "work", "delete_old_items"])
def test_a_record_that_was_replaced_by_hand_leaves_no_source_open(
    coveo: Simulator,
    a_run: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    text: str,
    after: str,
) -> None:
    run = a_run(delete_old_items=True, queue_delay=0)

    def damage(step: str) -> None:
        for name in [name for name in run.variables if name.startswith(kind) and step == after]:
            run.variables[name] = text

    run.execute("open")
    damage("open")
    begin_work(run)
    push_as(run, "work", monkeypatch=monkeypatch)
    damage("work")
    try:
        run.execute("delete_old_items")
    except Exception:
        assert deletions(coveo) == []
    damage("delete_old_items")
    run.execute("close")
    assert coveo.statuses(SOURCE)[-1] == "IDLE"


@pytest.mark.parametrize("value", [None, 5, "x", [], {}, [1], True, -1.5], ids=repr)
@pytest.mark.parametrize(
    ("kind", "field"),
    [
        *(("coveo_bracket", field) for field in ("phase", "first_cut_off_ms", "closed_at", "reopened_by")),
        *(("coveo_open", field) for field in ("since_ms", "opening", "others", "reopened_by")),
        *(("coveo_content", field) for field in ("dag_id", "since", "runs")),
    ],
)
def test_a_field_that_was_edited_by_hand_leaves_no_source_open(
    coveo: Simulator, a_run: Callable[..., Run], kind: str, field: str, value: Any
) -> None:
    run = a_run()
    run.execute("open")
    for name in [name for name in run.variables if name.startswith(kind)]:
        run.variables[name] = json.dumps({**json.loads(run.variables[name]), field: value})
    begin_work(run)
    run.execute("close")
    run.execute("outcome")
    assert coveo.statuses(SOURCE)[-1] == "IDLE"


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        *(("coveo_bracket", field, None) for field in ("source_id", "organization_id", "coveo_conn_id")),
        *(("coveo_open", field, None) for field in ("dag_id", "run_id", "open_task_id", "map_index")),
        ("coveo_bracket", "source_id", ""),
        ("coveo_bracket", "organization_id", 5),
    ],
)
def test_an_identity_that_was_edited_by_hand_leaves_no_source_open(
    coveo: Simulator, a_run: Callable[..., Run], kind: str, field: str, value: Any
) -> None:
    run = a_run()
    run.execute("open")
    (name,) = [name for name in run.variables if name.startswith(kind)]
    run.variables[name] = json.dumps({**json.loads(run.variables[name]), field: value})
    run.execute("close")
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


@pytest.mark.parametrize("holders", [5, [1], "x", None, {"d r push_source_update.open -1": {"digest": 5}}])
def test_a_watchdog_s_record_that_was_edited_by_hand_leaves_no_source_open(
    coveo: Simulator, a_run: Callable[..., Run], holders: Any
) -> None:
    run = a_run()
    run.execute("open")
    run.state = "failed"
    CloseAbandonedPushSourcesOperator(task_id="looks", source_ids=[SOURCE]).execute({})
    name = f"coveo_seen__acme__{SOURCE}"
    run.variables[name] = json.dumps({**json.loads(run.variables[name]), "holders": holders})
    watchdog = CloseAbandonedPushSourcesOperator(
        task_id="watchdog", source_ids=[SOURCE], active_longer_than=_NO_TIME
    )
    assert watchdog.execute({})["closed"] == [SOURCE]


@pytest.mark.parametrize("gone", ["coveo_content", "coveo_"])
def test_a_second_bracket_uses_no_later_cut_off_if_the_sources_record_is_gone(
    coveo: Simulator, a_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    """Thirty other runs on the source also push it out of its record."""
    run = a_run()
    with run.dag, push_source_update(source_id=SOURCE, delete_old_items=True, group_id="second"):
        Work(task_id="work2")
    first = run.execute("open")["ordering_id"]
    push_as(run, "work", monkeypatch=monkeypatch)
    run.execute("close")
    for name in [name for name in run.variables if name.startswith(gone)]:
        del run.variables[name]
    # Coveo's responses contain its clock with a precision of seconds.
    time.sleep(1.1)
    run.execute("second.open")
    push_as(run, "second.work2", monkeypatch=monkeypatch)
    assert run.execute("second.delete_old_items")["ordering_id"] == first


@pytest.mark.parametrize("others", [5, 31, 400])
@pytest.mark.parametrize("knows", [True, False])
def test_a_later_cut_off_never_counts_as_a_runs_first_one_however_many_runs_followed(
    connect: Any, a_run: Callable[..., Run], others: int, knows: bool
) -> None:
    a_run()
    ledger, bracket = SourceLedger("acme"), Holder("d", "r", "b.open")
    ledger.content_changed(SOURCE, "d", "r", pushes=True)
    for number in range(others):
        ledger.content_changed(SOURCE, "d", f"other {number}", pushes=True)
    # The bracket still knows the content of its own record.
    known = BracketRecord(first_cut_off_ms=7) if knows else BracketRecord()
    opened = ledger.opened(SOURCE, bracket, 1_000, known)
    assert opened.first_cut_off_ms == (7 if knows else None)
    assert bool(opened.why_unknown) is not knows
    fresh = ledger.opened(SOURCE, Holder("d", "fresh", "b.open"), 2_000, BracketRecord())
    assert (fresh.first_cut_off_ms, fresh.why_unknown) == (2_000, "")


@pytest.mark.parametrize(
    ("about", "is_another"),
    [
        ({}, True),
        ({"try_number": 2, "retries": 1, "max_tries": 1}, True),
        # Airflow 2 starts it again in a backfill.
        ({"try_number": 2}, False),
        ({"max_tries": 1}, False),
        ({"clear_number": 1, "max_tries": 1}, False),
        ({"began": -60}, False),
    ],
)
def test_a_run_with_the_id_of_a_deleted_run_does_not_use_its_source(
    coveo: Simulator, a_run: Callable[..., Run], about: dict[str, int], is_another: bool
) -> None:
    run = a_run()
    coveo.add_source("acme-books")
    run.execute("open")
    context = run.context("open", max_tries=about.get("max_tries", 0))
    context["ti"].try_number = about.get("try_number", 1)
    began = datetime.now(timezone.utc) + timedelta(seconds=about.get("began", 60))
    context["dag_run"] = SimpleNamespace(start_date=began, clear_number=about.get("clear_number", 0))
    task = run.task("open")
    task.source_id, task.retries = "acme-books", about.get("retries", 0)
    task.execute(context)
    assert coveo.statuses("acme-books") == (["REBUILD"] if is_another else [])


@pytest.mark.parametrize("source", [SOURCE, "acme-books"])
def test_a_bracket_that_may_be_of_another_run_keeps_the_earlier_cut_off_of_its_source(
    coveo: Simulator, a_run: Callable[..., Run], source: str
) -> None:
    run = a_run()
    coveo.add_source("acme-books")
    holder = Holder("d", "r", "push_source_update.open")
    known = BracketRecord(
        "acme", SOURCE, "coveo_default", "REBUILD", Phase.CLOSED, first_cut_off_ms=7, mark=(1_000.0, 0, 0)
    )
    write_bracket(holder, known)
    context = run.context("open")
    context["ti"].try_number = 1
    context["dag_run"] = SimpleNamespace(start_date=datetime.now(timezone.utc), clear_number=1)
    task = run.task("open")
    task.source_id = source
    task.execute(context)
    record = read_bracket(holder)
    assert record is not None
    assert (record.source_id, record.first_cut_off_ms == 7) == (source, source == SOURCE)


def test_a_bracket_that_was_opened_again_since_its_record_was_read_is_not_closed(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run()
    holder = Holder("d", "r", "push_source_update.open")
    run.execute("open")
    before = read_bracket(holder)
    assert before is not None
    run.execute("open")
    closing = close_source(CoveoPushHook(), holder, before)
    assert (closing.result, closing.left_for) == (None, holder)
    assert coveo.statuses(SOURCE) == ["REBUILD", "REBUILD"]


# --- states ---


@pytest.mark.parametrize("other", ["push_1", "push_1_0"])
def test_a_task_named_like_a_mapped_task_instance_hides_no_state(
    monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    """Airflow 3 gives instance 1 of `push` and a task `push_1` the same name, and returns only one."""
    instances = {
        ("push", 0): "success",
        ("push", 1): "failed",
        ("push_1", -1): "success",
        ("push_1_0", -1): "success",
    }

    def answer(*, dag_id: str, task_ids: list[str], run_ids: list[str]) -> Any:
        named = {
            task_id if index < 0 else f"{task_id}_{index}": state
            for (task_id, index), state in instances.items()
            if task_id in task_ids
        }
        return {run_ids[0]: named}

    runtime = SimpleNamespace(get_task_states=answer)
    monkeypatch.setattr(airflow_runs, "_runtime_task_instance", lambda: runtime)
    found = airflow_runs.task_states("d", "r", ["push", other])
    assert found == {"push": {0: "success", 1: "failed"}, other: {-1: "success"}}


@pytest.mark.parametrize("hidden", ["running", "queued", "deferred", "up_for_retry", "scheduled"])
def test_all_task_states_include_a_task_that_airflow_names_like_another_one(
    monkeypatch: pytest.MonkeyPatch, hidden: str
) -> None:
    """Without the names of tasks, as in the triggerer, the task after the other one counts."""
    instances = [hidden, "success", "success"]

    def count(*, dag_id: str, run_ids: list[str], states: list[str] | None = None) -> int:
        return sum(states is None or state in states for state in instances)

    runtime = SimpleNamespace(
        get_task_states=lambda *, dag_id, run_ids: {"r": {"push_0": "success", "push_1": "success"}},
        get_ti_count=count,
    )
    monkeypatch.setattr(airflow_runs, "_runtime_task_instance", lambda: runtime)
    assert hidden in airflow_runs.all_task_states("d", "r").values()
    instances.remove(hidden)
    assert set(airflow_runs.all_task_states("d", "r").values()) == {"success"}


def test_a_bracket_with_two_cleared_tasks_is_live_until_both_have_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states = {"u.close": "success", "u.outcome": "success", "u.first": "success", "u.second": "running"}
    monkeypatch.setattr(
        airflow_runs,
        "_task_instance_states",
        lambda dag_id, run_id, ids, **_: [(name, -1, states.get(name)) for name in ids or states],
    )
    monkeypatch.setattr(liveness, "run_facts", lambda *_: RunFacts("running", False))
    holder = SourceRecord("d", "r", "u.open", opening="x", reopened_by=("u.first", -1))
    assert liveness.is_live(holder)
    states["u.second"] = "success"
    assert not liveness.is_live(holder)


@pytest.mark.parametrize(
    ("task", "is_live"),
    [
        ("u.work", True),
        ("u.inner.work_3", True),
        ("outside", True),
        ("outside_2", True),
        ("outside[2]", True),
        ("elsewhere", False),
        ("outside_of_it", False),
        ("u2.work", False),
    ],
)
def test_a_bracket_whose_close_task_was_marked_is_live_while_one_of_its_tasks_runs(
    monkeypatch: pytest.MonkeyPatch, task: str, is_live: bool
) -> None:
    states = {"u.close": "success", "u.outcome": "success", task: "running"}
    monkeypatch.setattr(
        airflow_runs,
        "_task_instance_states",
        lambda dag_id, run_id, ids, **_: [(name, -1, states.get(name)) for name in ids or states],
    )
    monkeypatch.setattr(liveness, "run_facts", lambda *_: RunFacts("running", False))
    holder = SourceRecord("d", "r", "u.open", opening="x", members_outside=("outside",))
    assert liveness.is_live(holder) is is_live


def test_the_record_of_a_source_names_the_members_that_are_not_in_the_group(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run()
    with run.dag:
        outside = [Work(task_id=f"outside{number:02}") for number in range(60)]
        run.update.open >> outside >> run.update.close
    run.execute("open")
    (holder,) = SourceLedger("acme").holders(SOURCE)
    assert holder.members_outside == tuple(f"outside{number:02}" for number in range(50))


def test_on_3_0_the_callback_closes_the_mapped_brackets_after_one_that_never_began(
    coveo: Simulator, a_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run()
    monkeypatch.setattr("airflow.__version__", "3.0.6")
    monkeypatch.setattr("airflow_provider_coveo.bracket.callbacks.mapped_group_id", lambda task: "group")
    monkeypatch.setattr("airflow_provider_coveo.bracket.callbacks.callbacks_see_runs", lambda: False)
    monkeypatch.setattr("airflow_provider_coveo.state.liveness.callbacks_see_runs", lambda: False)
    holder = Holder("d", "r", run.update.open.task_id, 2)
    record = BracketRecord("acme", SOURCE, "coveo_default", "REBUILD", Phase.OPEN, "x", first_cut_off_ms=1)
    write_bracket(holder, record)
    run.fail()
    assert coveo.statuses(SOURCE) == ["IDLE"]


def test_a_watchdog_s_idle_request_that_coveo_rejects_is_not_recorded_as_accepted(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run()
    run.execute("open")
    coveo.faults.answer(403, operation="status", status_type="IDLE")
    run.state = "failed"
    watchdog = CloseAbandonedPushSourcesOperator(
        task_id="watchdog", source_ids=[SOURCE], active_longer_than=_NO_TIME
    )
    with pytest.raises(CoveoError):
        watchdog.execute({})
    record = read_bracket(Holder("d", "r", run.update.open.task_id))
    assert record is not None
    assert record.phase is not Phase.CLOSED
    run.fail()
    assert coveo.statuses(SOURCE)[-1] == "IDLE"
    assert SourceLedger("acme").holders(SOURCE) == ()


@pytest.mark.parametrize("is_claim", [False, True])
@pytest.mark.parametrize("during", ["check", "request"])
def test_the_watchdog_closes_no_source_that_a_live_bracket_opens_after_the_check(
    coveo: Simulator, a_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, during: str, is_claim: bool
) -> None:
    run = a_run()
    run.execute("open")
    run.state = "failed"
    watchdog = CloseAbandonedPushSourcesOperator(
        task_id="watchdog", source_ids=[SOURCE], active_longer_than=_NO_TIME
    )
    later = SourceRecord("d", "later", "push_source_update.open", opening="later", status="REFRESH")
    later = replace(later, is_claim=is_claim)
    place, name = (watchdog, "_live_holder") if during == "check" else (CoveoPushHook, "set_source_status")
    original = getattr(place, name)

    def open_then(*arguments: Any) -> Any:
        result = original(*arguments)
        if arguments[-1] != "REFRESH":
            SourceLedger("acme").hold(SOURCE, later)
        return result

    monkeypatch.setattr(place, name, open_then)
    result = watchdog.execute({})
    restored = ["REFRESH"] if during == "request" else []
    statuses = ["REBUILD", "IDLE"] if is_claim else ["REBUILD", *["IDLE"] * (during == "request"), *restored]
    assert coveo.statuses(SOURCE) == statuses
    assert SourceLedger("acme").holders(SOURCE)[0] == later
    assert (result["closed"], result["held"]) == (([SOURCE], []) if is_claim else ([], [SOURCE]))


@pytest.mark.parametrize("is_concluded", [True, False])
def test_the_close_task_marks_another_bracket_as_closed_only_after_its_open_task_has_ended(
    coveo: Simulator, a_run: Callable[..., Run], is_concluded: bool
) -> None:
    """While its request is in flight, it checks again, and sets its status again."""
    run = a_run()
    run.execute("open")
    mine = Holder("d", "r", f"{run.update.group_id}.open")
    other = Holder("another", "its_run", "update.open")
    write_bracket(
        other,
        BracketRecord(
            "acme", SOURCE, status="REFRESH", phase=Phase.OPENING, opening="one", is_concluded=is_concluded
        ),
    )
    SourceLedger("acme").hold(
        SOURCE, SourceRecord("another", "its_run", "update.open", opening="one", status="REFRESH")
    )

    def out_of_order(holder: SourceRecord) -> bool:
        raise ConnectionError("Airflow does not answer")

    record = read_bracket(mine)
    assert record is not None
    assert close_source(hook_of(record), mine, record, out_of_order).left_for is None
    told = read_bracket(other)
    assert told is not None
    assert told.phase is (Phase.CLOSED if is_concluded else Phase.OPENING)


def test_a_bracket_that_opens_the_source_while_owners_are_checked_is_not_closed(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    """Whether the previous owner is live takes seconds to find out."""
    run = a_run()
    run.execute("open")
    mine = Holder("d", "r", f"{run.update.group_id}.open")
    record = read_bracket(mine)
    assert record is not None
    ledger = SourceLedger("acme")
    ledger.hold(SOURCE, SourceRecord("dead", "its_run", "update.open", opening="one", status="REFRESH"))

    def opens_meanwhile(holder: SourceRecord) -> bool:
        if holder.dag_id == "dead":
            ledger.hold(
                SOURCE, SourceRecord("new", "its_run", "update.open", opening="two", status="REBUILD")
            )
            return False
        return True

    left_for = close_source(hook_of(record), mine, record, opens_meanwhile).left_for
    assert left_for == Holder("new", "its_run", "update.open")
    assert coveo.statuses(SOURCE) == ["REBUILD"]
    assert "new" in {holder.dag_id for holder in ledger.holders(SOURCE)}


def test_old_items_stay_if_another_map_index_of_the_bracket_updates_the_source(
    coveo: Simulator, a_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(delete_old_items=True, queue_delay=0)
    run.execute("open")
    begin_work(run)
    push_as(run, "work", monkeypatch=monkeypatch)
    task_id = f"{run.update.group_id}.open"
    (name,) = [name for name in run.variables if name.startswith("coveo_content")]
    content = json.loads(run.variables[name])
    content["runs"][-1]["brackets"].append([task_id, 1])
    run.variables[name] = json.dumps(content)
    monkeypatch.setattr(delete_task, "task_states", lambda *_: {task_id: {-1: "success", 1: "success"}})
    with pytest.raises(SharedByMapIndexes, match=rf"{SOURCE}.*\(-1, 1\).*Map the bracket over its sources"):
        run.execute("delete_old_items")
    assert deletions(coveo) == []


@pytest.mark.parametrize(
    ("state", "its_source", "expected"),
    [
        ("success", SOURCE, [1]),
        ("deferred", SOURCE, [1]),
        ("success", None, [1]),
        ("success", "acme-books", []),
        ("removed", SOURCE, []),
        ("absent", SOURCE, []),
        (None, SOURCE, AirflowRescheduleException),
        ("queued", SOURCE, AirflowRescheduleException),
        ("running", SOURCE, AirflowRescheduleException),
    ],
)
def test_a_map_index_that_has_another_source_after_a_clear_does_not_share_it(
    monkeypatch: pytest.MonkeyPatch, state: str | None, its_source: str | None, expected: Any
) -> None:
    holder = Holder("d", "r", "b.open", 0)
    run = RunRecord("d", "r", brackets=(("b.open", 0), ("b.open", 1), ("other.open", 2)))
    found = {0: "success", **({1: state} if state != "absent" else {})}
    record = BracketRecord(source_id=its_source) if its_source else None
    monkeypatch.setattr(delete_task, "task_states", lambda *_: {"b.open": found})
    monkeypatch.setattr(delete_task, "read_bracket", lambda _: record)
    if isinstance(expected, list):
        assert delete_task._other_indexes_of_source(SOURCE, holder, run) == expected
        return
    with pytest.raises(expected):
        delete_task._other_indexes_of_source(SOURCE, holder, run)


def test_brackets_whose_names_contain_the_separator_have_records_of_their_own() -> None:
    holders = [
        Holder("a", "r", "b__c.open"),
        Holder("a__b", "r", "c.open"),
        Holder("a", "r", "b.open", 0),
        Holder("a", "r", "b.open__0"),
    ]
    assert len({bracket_variable(holder) for holder in holders}) == len(holders)
