"""What closes a source when its own tasks don't: callbacks and the watchdog, beside other brackets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.stepped.explore import Director, Event
from tests.stepped.steps import leave_active

if TYPE_CHECKING:
    from tests.stepped.engine import Engine


def _leave_a_dead_holder(engine: Engine, source: str = "one") -> None:
    """Fail run a at once, lose its callback, and let a day pass; its bracket stays on record."""
    engine.trigger("a", "in_a_row")
    leave_active(engine)
    engine.let_time_pass(24 * 3600)
    assert engine.run_states()["a"] == "failed"
    assert engine.last_status(source) == "REBUILD"


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_dead_bracket_on_record_keeps_no_callback_from_closing(engine: Engine, is_deleted: bool) -> None:
    engine.reset()
    _leave_a_dead_holder(engine)
    if is_deleted:
        engine.delete_run("a")
    engine.trigger("c", "other")
    engine.until("c.work1", "answered", "push")
    waited = engine.clock.waited
    engine.mark_group("c", "push_source_update", "success")
    engine.settle()
    assert engine.last_status("one") == "IDLE", engine.story()
    assert engine.clock.waited - waited < 30


#: A finished member is marked as failed, so that Airflow ends the run at once, and its callback is lost.
ABANDONED: list[Event] = [
    ("tick",),
    ("tick",),
    ("finish", "a.open"),
    ("tick",),
    ("finish", "a.work1"),
    ("tick",),
    ("mark", "a", "work1", "failed", {"downstream": False, "upstream": False}),
    *[("tick",)] * 3,
    ("lose_callback", "a.callback"),
    ("finish", "a.work2"),
]
OTHER_OPENS: list[Event] = [("trigger", "c", "other"), ("tick",), ("tick",), ("finish", "c.open"), ("tick",)]


def _step_until(engine: Engine, name: str, point: str, what: str = "") -> None:
    actor = engine.actor(name).actor
    for _ in range(12):
        if actor.at == point and what in actor.what:
            return
        engine.step(name)
    raise AssertionError(f"{actor!r} does not come to {point}:{what}")


@pytest.mark.parametrize(
    ("stops", "is_given_back"),
    [
        ([("start", "")], False),
        ([("answered", "GET push")], False),
        ([("request", "IDLE")], True),
        ([("answered", "IDLE")], True),
        ([("request", "IDLE"), ("refuse:503", "")], True),
    ],
    ids=lambda value: "-".join(map("".join, value)) if isinstance(value, list) else "",
)
def test_the_watchdog_leaves_a_source_to_a_bracket_that_opens_it_meanwhile(
    engine: Engine, stops: list[tuple[str, str]], is_given_back: bool
) -> None:
    director = Director(engine, "in_a_row")
    for event in [*ABANDONED, ("start_watch",)]:
        assert director.do(event, strictly=True)
    for point, what in stops:
        if point.startswith("refuse"):
            engine.step("w1.watch", point)
        else:
            _step_until(engine, "w1.watch", point, what)
    for event in [*OTHER_OPENS, ("finish", "w1.watch")]:
        assert director.do(event, strictly=True)
    assert engine.last_status("one") == "REBUILD", engine.story()
    assert ("one: REBUILD (w1.watch)" in engine.story()) is is_given_back
    played = director.end([])
    assert not played.violations, f"{played.violations}\n{played.story}"
    assert engine.run_states()["c"] == "success"


@pytest.mark.parametrize("is_mapped", [False, True])
def test_the_watchdog_leaves_a_source_to_a_sensor_that_is_rescheduled_for_a_day(
    engine: Engine, is_mapped: bool
) -> None:
    from airflow.providers.common.compat.sdk import BaseSensorOperator

    from tests.stepped import shapes

    class Wait(BaseSensorOperator):
        def __init__(self, part: int = 0, **options: Any) -> None:
            super().__init__(**options)

        def poke(self, context: Any) -> bool:
            return bool(shapes.told("a", "push_source_update.wait", -1))

    options: dict[str, Any] = {"mode": "reschedule", "poke_interval": 600, "timeout": 3 * 86400}
    with shapes.a_dag(f"sensing_{is_mapped}") as dag, shapes.bracket():
        wait = Wait.partial(task_id="wait", **options).expand(part=[1, 2]) if is_mapped else None
        (wait or Wait(task_id="wait", **options)) >> shapes.work.override(task_id="work1")()
    engine.reset()
    engine.add(dag)
    engine.trigger("a", dag.dag_id)

    def turn() -> None:
        for _ in range(4):
            engine.tick()
            for process in list(engine.processes):
                engine.finish(process.actor.name)

    turn()
    for number in range(1, 5):
        engine.let_time_pass(3.4 * 3600)
        engine.trigger(f"w{number}", "watchdog")
        turn()
        assert engine.last_status("one") == "REBUILD", engine.story()
        assert "w" not in "".join(seen.run for seen in engine.seen if seen.status), engine.story()
        engine.retries_due()
        turn()
        assert "up_for_reschedule" in engine.states("a").values()
    # Nothing pokes any more.
    for number in range(5, 8):
        engine.let_time_pass(3.4 * 3600)
        engine.trigger(f"w{number}", "watchdog")
        turn()
    assert engine.last_status("one") == "IDLE", engine.story()
