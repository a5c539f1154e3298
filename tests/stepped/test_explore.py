"""
The bracket's guarantee holds in random sequences of events.

These tests play a fixed set of seeds; ``make explore SEEDS=1-1000`` plays any number. A sequence that broke
the guarantee is a separate test below, as :func:`~tests.stepped.explore.script` prints it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.stepped.explore import Event, play, play_seed, script

if TYPE_CHECKING:
    from tests.stepped.engine import Engine

#: The number that takes two minutes of one core.
SEEDS = range(1, int(os.environ.get("STEPPED_SEEDS", "80")) + 1)

pytestmark = pytest.mark.explore


@pytest.mark.parametrize("seed", SEEDS)
def test_the_sequence_of_a_seed_violates_no_invariant(engine: Engine, seed: int) -> None:
    played = play_seed(engine, seed)
    assert not played.violations, f"{played.violations}\n{played.story}\n{script(played)}"


def test_tasks_marked_along_with_another_one_count_as_marked_by_hand(engine: Engine) -> None:
    """Airflow's response names only the task itself, here a member marked after its bracket's outcome."""
    events: list[Event] = [
        ("trigger", "b", "two_in_a_row"),
        *[("tick",), ("tick",), ("finish", "b.first.open"), ("tick",), ("finish", "b.work1"), ("tick",)],
        *[("finish", "b.first.close"), ("tick",), ("finish", "b.first.done"), ("finish", "b.first.outcome")],
        ("tick",),
        ("mark", "b", "first.done", "failed", {"downstream": False, "upstream": True}),
    ]
    played = play(engine, "two_in_a_row", events, strictly=True)
    assert ("b", "first.work1", -1) in engine.marked
    assert not played.violations, f"{played.violations}\n{played.story}"


def test_a_seed_always_produces_the_same_sequence(engine: Engine) -> None:
    first, second = play_seed(engine, 7), play_seed(engine, 7)
    assert first.events == second.events
    assert first.violations == second.violations


def test_a_replayed_sequence_has_the_same_events_and_violations(engine: Engine) -> None:
    first = play_seed(engine, 7)
    second = play(engine, first.shape, first.events, strictly=True)
    assert (second.events, second.violations) == (first.events, first.violations)
