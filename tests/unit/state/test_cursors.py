"""Cursors: the value that a run reads, and how it moves."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.state.cursors import CursorRecord, TaskCursor, cursor_variable
from tests.unit.conftest import Variables

NAME = "coveo_cursor__acme__products__dag__task"


def cursor(run_id: str = "run-1", *, map_index: int = -1, task_id: str = "task", **how: Any) -> TaskCursor:
    ti = SimpleNamespace(dag_id="dag", task_id=task_id, run_id=run_id, map_index=map_index, max_tries=0)
    return TaskCursor({"ti": ti}, "acme", "products", **how)  # type: ignore[typeddict-item]


def pushed(run_id: str, *values: Any, **how: Any) -> TaskCursor:
    moved = cursor(run_id, **how)
    for value in values:
        moved.advance(value)
    moved.save()
    return moved


def record(variables: Variables) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(variables.values[NAME])
    return found


def test_the_next_run_reads_from_the_latest_value_in_whatever_order_values_arrived(
    variables: Variables,
) -> None:
    first = cursor("run-1", start=3)
    assert (first.since, first.began_at_the_start) == (3, True)
    for value in (5, None, 9, 7):
        first.advance(value)
    first.save()
    assert record(variables)["value"] == {"type": "int", "value": "9"}
    second = cursor("run-2", start=3)
    assert (second.since, second.began_at_the_start) == (9, False)
    assert cursor("run-3", start=3, lag=4).since == 5  # type: ignore[arg-type]


def test_a_timestamp_is_kept_with_its_microseconds_and_its_zone(variables: Variables) -> None:
    moment = datetime(2026, 1, 1, 0, 0, 0, 1, timezone(timedelta(hours=5, minutes=45)))
    pushed("run-1", moment)
    since = cursor("run-2", lag=timedelta(0)).since
    assert (since, since.utcoffset()) == (moment, moment.utcoffset())
    assert cursor("run-3").since == moment - timedelta(minutes=5)


def test_a_failed_run_does_not_move_the_cursor(variables: Variables) -> None:
    pushed("run-1", 5)
    failed = cursor("run-2")
    failed.advance(9)
    failed.abandon()
    assert cursor("run-3").since == 5


def test_a_killed_run_does_not_move_the_cursor(variables: Variables) -> None:
    pushed("run-1", 5)
    cursor("run-2").advance(9)
    assert cursor("run-3").since == 5


def test_a_retry_and_a_clear_read_from_the_value_that_the_run_began_with(variables: Variables) -> None:
    pushed("run-1", 5)
    assert cursor("run-2").since == 5
    pushed("run-2", 9)
    assert cursor("run-2").since == 5
    pushed("run-3", 12)
    assert cursor("run-2").since == 5
    assert cursor("run-1", start=1).since == 1


def test_a_clear_of_an_older_run_does_not_move_the_cursor_back(variables: Variables) -> None:
    pushed("run-1", 5)
    pushed("run-2", 9)
    pushed("run-1", 7)
    assert record(variables)["value"]["value"] == "9"
    assert cursor("run-3").since == 9


def test_the_cursor_does_not_move_back_if_another_run_has_moved_it_meanwhile(variables: Variables) -> None:
    pushed("run-0", 1)
    slow = cursor("run-1")
    slow.advance(5)
    pushed("run-2", 9)
    slow.save()
    assert record(variables)["value"]["value"] == "9"


def test_the_cursor_is_written_again_if_another_task_wrote_at_the_same_time(
    variables: Variables, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed("run-1", 5)
    mine = cursor("run-2")
    mine.advance(9)
    before = variables.values[NAME]
    write = variables.set

    def overtaken(key: str, *args: Any, **kwargs: Any) -> None:
        write(key, *args, **kwargs)
        if key == NAME:
            monkeypatch.setattr(variables, "set", write)
            # The value that another run read earlier and writes later.
            variables.values[NAME] = before

    monkeypatch.setattr(variables, "set", overtaken)
    mine.save()
    assert record(variables)["value"]["value"] == "9"


def test_the_run_after_two_overlapping_runs_reads_the_rows_of_both_again(variables: Variables) -> None:
    pushed("run-0", 1)
    slow = cursor("run-1")
    slow.advance(3)
    pushed("run-2", 9)
    slow.save()
    assert cursor("run-3").since == 1
    pushed("run-3", 9)
    assert cursor("run-4").since == 9


def test_the_rows_of_a_run_that_was_killed_during_another_one_are_read_again(variables: Variables) -> None:
    pushed("run-0", 1)
    cursor("run-1").advance(3)
    pushed("run-2", 9)
    assert cursor("run-3").since == 1
    pushed("run-3", 9)
    assert cursor("run-4").since == 9
    assert record(variables)["running"].keys() == {"run-4"}


def test_a_reset_starts_the_cursor_over(variables: Variables) -> None:
    pushed("run-1", 900)
    again = cursor("run-2", start=0, reset=True)
    assert again.since == 0
    again.advance(5)
    again.save()
    assert cursor("run-3").since == 5
    # Also for a run that was cleared.
    assert cursor("run-3", start=0, reset=True).since == 0


def test_a_reset_accepts_values_of_another_type(variables: Variables) -> None:
    pushed("run-1", 900)
    with pytest.raises(CoveoInputError, match=r"'2026', a text, and the cursor .* is a number"):
        pushed("run-2", "2026")
    pushed("run-2", "2026", reset=True)
    assert cursor("run-3").since == "2026"


def test_a_time_in_the_future_does_not_move_the_cursor(
    variables: Variables, caplog: pytest.LogCaptureFixture
) -> None:
    now = datetime.now(timezone.utc)
    pushed("run-1", now, datetime(9999, 12, 31, tzinfo=timezone.utc))
    assert cursor("run-2", lag=timedelta(0)).since == now
    assert "Ignored 1 value in the future for the cursor" in caplog.text


def test_every_value_is_checked(variables: Variables) -> None:
    now = datetime.now(timezone.utc)
    moves = cursor()
    for minutes in range(10, 0, -1):
        moves.advance(now - timedelta(minutes=minutes))
    moves.advance(now + timedelta(days=1))
    for other in (datetime(2026, 1, 1), True, "2026", 5):
        with pytest.raises(CoveoInputError):
            moves.advance(other)
    moves.advance(now - timedelta(minutes=5))
    moves.save()
    assert cursor("run-2", lag=timedelta(0)).since == now - timedelta(minutes=1)


def test_without_the_variable_a_run_begins_at_the_start(variables: Variables) -> None:
    pushed("run-1", 5)
    del variables.values[NAME]
    assert cursor("run-2", start=2).since == 2


@pytest.mark.parametrize("text", ["", "5", "{}", '{"value": {"type": "int", "value": "x"}, "moves": 1}'])
def test_a_variable_that_does_not_hold_a_cursor_is_rejected_until_a_reset(
    variables: Variables, text: str
) -> None:
    variables.values[NAME] = text
    with pytest.raises(CoveoInputError, match=f"Could not read the cursor in the Variable '{NAME}'"):
        cursor()
    assert pushed("run-1", 3, start=1, reset=True).since == 1
    assert cursor("run-2").since == 3


def test_the_value_can_be_set_by_hand(variables: Variables) -> None:
    pushed("run-1", 5)
    variables.values[NAME] = json.dumps({**record(variables), "value": {"type": "int", "value": 2}})
    assert cursor("run-2").since == 2


def edited(variables: Variables, value: int | None) -> None:
    """Change a Variable like a user on Airflow's page of Variables."""
    if value is None:
        del variables.values[NAME]
    else:
        described = {"type": "int", "value": value}
        variables.values[NAME] = json.dumps({**record(variables), "value": described})


@pytest.mark.parametrize(("value", "since"), [(None, 1), (3, 3), (7, 5)])
def test_a_retry_and_a_clear_read_from_the_value_that_somebody_moved_the_cursor_back_to(
    variables: Variables, value: int | None, since: int
) -> None:
    pushed("run-1", 5)
    failed = cursor("run-2")
    failed.abandon()
    edited(variables, value)
    again = cursor("run-2", start=1)
    assert again.since == since
    again.abandon()
    assert cursor("run-2", start=1).since == since


@pytest.mark.parametrize(("value", "since"), [(None, 1), (3, 3)])
@pytest.mark.parametrize("ends", ["save", "abandon"])
def test_a_change_by_hand_during_a_run_takes_effect_in_the_next_one(
    variables: Variables, value: int | None, since: int, ends: str
) -> None:
    pushed("run-1", 5)
    running = cursor("run-2", start=1)
    running.advance(9)
    edited(variables, value)
    getattr(running, ends)()
    assert cursor("run-3", start=1).since == since
    pushed("run-3", 9, start=1)
    assert cursor("run-4", start=1).since == 9


def test_overlapping_runs_are_logged(variables: Variables, caplog: pytest.LogCaptureFixture) -> None:
    pushed("run-0", 1)
    slow = cursor("run-1")
    pushed("run-2", 9)
    caplog.clear()
    slow.save()
    assert "The next run reads from 1 again" in caplog.text


def test_each_task_map_index_and_name_has_its_own_cursor(variables: Variables) -> None:
    pushed("run-1", 1)
    pushed("run-1", 2, map_index=0)
    pushed("run-1", 3, map_index=1)
    pushed("run-1", 4, name="orders")
    pushed("run-1", 5, task_id="other")
    assert cursor("run-2").since == 1
    assert cursor("run-2", map_index=0).since == 2
    assert cursor("run-2", map_index=1).since == 3
    assert cursor("run-2", name="orders").since == 4
    assert cursor("run-2", task_id="other").since == 5


def test_no_two_cursors_share_a_key() -> None:
    keys = [
        cursor_variable("o", "s", "a__b", "c"),
        cursor_variable("o", "s", "a", "b__c"),
        cursor_variable("o", "s", "a", "b_"),
        cursor_variable("o", "s", "a", "b", name="c"),
        cursor_variable("o", "s", "a", "b", name="1"),
        cursor_variable("o", "s", "a", "b", 1),
        cursor_variable("o", "s", "a", "b"),
        cursor_variable("o", "s", "a", "b", 1, "1"),
    ]
    assert len(set(keys)) == len(keys)
    assert keys[-2] == "coveo_cursor__o__s__a__b"
    assert len(cursor_variable("o" * 200, "s", "d" * 200, "t")) <= 250


class World:
    """A table, an index, and runs that push changes from one to the other."""

    LAG = 2

    def __init__(self) -> None:
        self.clock = 100
        self.table: dict[int, tuple[int, int]] = {}
        self.index: dict[int, tuple[int, int]] = {}
        self.open: dict[str, tuple[TaskCursor, list[tuple[int, tuple[int, int]]]]] = {}
        self.runs = 0
        self.versions = 0

    def write(self, key: int, late: int) -> None:
        """Commit a row with the start time of its transaction."""
        self.clock += 1
        self.versions += 1
        self.table[key] = (max(self.clock - late, self.table.get(key, (0, 0))[0]), self.versions)

    def begin(self, which: int) -> None:
        """Start a run, or clear one that has ended."""
        if which >= self.runs:
            self.runs += 1
        run_id = f"run-{min(which, self.runs - 1)}"
        if run_id in self.open:
            return
        moves = cursor(run_id, start=0, lag=self.LAG)  # type: ignore[arg-type]
        rows = [(key, row) for key, row in self.table.items() if row[0] > moves.since]
        self.open[run_id] = (moves, rows)

    def push(self, which: int, rows: int) -> None:
        """Let a run push some of its rows."""
        if self.open:
            moves, left = list(self.open.values())[which % len(self.open)]
            for key, row in left[:rows]:
                moves.advance(row[0])
                self.index[key] = row
            del left[:rows]

    def end(self, which: int, how: str) -> None:
        """Let a run end."""
        if not self.open:
            return
        run_id = list(self.open)[which % len(self.open)]
        moves, left = self.open[run_id]
        if how == "succeeds":
            self.push(which % len(self.open), len(left))
            moves.save()
        elif how == "fails":
            moves.abandon()
        del self.open[run_id]


def _steps() -> st.SearchStrategy[Any]:
    which = st.integers(0, 3)
    return st.one_of(
        st.tuples(st.just("write"), st.integers(0, 3), st.integers(0, World.LAG - 1)),
        st.tuples(st.just("begin"), st.sampled_from([0, 1, 99, 99, 99])),
        st.tuples(st.just("push"), which, st.integers(0, 3)),
        st.tuples(st.just("end"), which, st.sampled_from(["succeeds", "succeeds", "fails", "is killed"])),
    )


_others = [("write", 2, 0)] * 4


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(_steps(), max_size=40))
@example(
    # The slow run pushes its older row after the other run, and is killed.
    steps=[
        ("write", 1, 0), ("begin", 99), ("write", 1, 0), *_others, ("begin", 99), ("end", 1, "succeeds"),
        ("push", 0, 3), ("end", 0, "is killed"),
    ]
)  # fmt: skip
@example(
    # The slow run pushes its older row after the other run did, but ends before it.
    steps=[
        ("write", 1, 0), ("begin", 99), ("write", 1, 0), *_others, ("begin", 99), ("push", 1, 4),
        ("push", 0, 3), ("end", 0, "succeeds"), ("end", 0, "succeeds"),
    ]
)  # fmt: skip
@example(
    # The same, and it fails.
    steps=[
        ("write", 1, 0), ("begin", 99), ("write", 1, 0), *_others, ("begin", 99), ("push", 1, 4),
        ("push", 0, 3), ("end", 0, "fails"), ("end", 0, "succeeds"),
    ]
)  # fmt: skip
@example(
    # The slow run ends last, and has read less.
    steps=[
        ("write", 1, 0), ("begin", 99), ("write", 2, 0), ("begin", 99), ("end", 1, "succeeds"),
        ("end", 0, "succeeds"),
    ]
)  # fmt: skip
def test_whatever_happens_the_index_equals_the_table_in_the_end(
    variables: Variables, steps: list[Any]
) -> None:
    variables.values.clear()
    world = World()
    cursors = []
    for step, *arguments in steps:
        getattr(world, step)(*arguments)
        value = CursorRecord.read(NAME).value
        if value is not None:
            cursors.append(int(value["value"]))
    assert cursors == sorted(cursors)
    while world.open:
        world.end(0, "succeeds")
    # After overlapping runs, one run without overlap is needed, and one more if some were killed.
    for _ in range(2):
        world.begin(99)
        world.end(0, "succeeds")
    assert world.index == world.table


def test_a_lag_that_does_not_fit_the_values_fails_the_first_run(variables: Variables) -> None:
    first = cursor("run-1", start="2020", lag=timedelta(minutes=5))
    with pytest.raises(CoveoInputError, match="can't be moved back by a lag"):
        first.advance("2026-11-28T00:00:00Z")
    first.abandon()
    assert record(variables)["value"] is None


def test_a_run_that_cannot_begin_is_not_recorded(variables: Variables) -> None:
    pushed("run-1", "2026-11-28")
    with pytest.raises(CoveoInputError):
        cursor("run-2", lag=timedelta(minutes=5))
    assert record(variables)["running"] == {}
