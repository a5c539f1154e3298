"""What closes a source when its own tasks don't: callbacks and the watchdog, beside other brackets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.stepped.engine import Engine


def _leave_a_dead_holder(engine: Engine, source: str = "one") -> None:
    """Fail run a at once, lose its callback, and let a day pass; its bracket stays on record."""
    engine.trigger("a", "in_a_row")
    engine.until("a.work2", "answered", "push")
    engine.mark("a", "work1", "failed")
    for _ in range(3):
        engine.tick()
    engine.lose_callback("a.callback")
    for process in list(engine.processes):
        engine.terminate(process.actor.name)
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
