"""Parts of sequences that several tests play."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.stepped.engine import Engine


def leave_active(engine: Engine, key: str = "a") -> None:
    """Let a run with ``work1`` and ``work2`` end while source one is active, and lose its callback."""
    engine.until(f"{key}.work2", "answered", "push")
    engine.mark(key, "work1", "failed")
    for _ in range(3):
        engine.tick()
    engine.lose_callback(f"{key}.callback")
    for process in list(engine.processes):
        engine.terminate(process.actor.name)
    assert engine.last_status("one") == "REBUILD", engine.story()


def play_all_but(engine: Engine, *names: str, rounds: int = 8) -> None:
    """Play everything except some tasks."""
    for _ in range(rounds):
        engine.tick()
        for process in list(engine.processes):
            if process.actor.name not in names:
                engine.finish(process.actor.name)


def start_together(engine: Engine, *names: str) -> None:
    """Play everything until some tasks are about to start."""
    for _ in range(6):
        engine.tick()
        waiting = [actor.name for actor in engine.runnable()]
        if set(names) <= set(waiting):
            return
        for name in waiting:
            engine.finish(name)
    raise AssertionError(f"{names} do not start: {engine.story()}")


def step_to(engine: Engine, name: str, at: str, what: str = "") -> None:
    """Step a task to a stop, such as its next push."""
    actor = engine.actor(name).actor
    while not (actor.at == at and what in actor.what):
        assert not actor.ended, engine.story()
        engine.step(name)
