"""
Sequences that once broke the bracket's guarantee; the numbers are those of the specimens.

Each is played to its end, and B1 to B8 must all hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.stepped.explore import Event, play, script

if TYPE_CHECKING:
    from tests.stepped.engine import Engine

ALONE = {"downstream": False, "upstream": False}
BELOW = {"downstream": True, "upstream": False}
CLEAR_BELOW = {**BELOW, "only_failed": False}
CLEAR_ONLY_FAILED = {**BELOW, "only_failed": True}


#: `begin` does nothing, so that the scheduler itself sets it to success.
BEGUN: list[Event] = [("tick",), ("tick",)]


def opened(run: str = "a") -> list[Event]:
    """Play a run until its source is open and its next task is queued."""
    return [*BEGUN, ("finish", f"{run}.open"), ("tick",)]


#: Another DAG's bracket has opened the source.
OTHER_OPENED: list[Event] = [("trigger", "c", "other"), *BEGUN, ("finish", "c.open")]
#: A run leaves its source open for another one's `open`, which Coveo then rejects.
LEFT_FOR_A_REJECTED_OPENING: list[Event] = [
    *opened(),
    ("trigger", "c", "other"),
    *BEGUN,
    ("step", "c.open"),
    ("finish", "a.work1"),
    ("tick",),
    ("finish", "a.close"),
    ("tick",),
    ("finish", "a.outcome"),
    ("tick",),
    ("tick",),
    ("finish", "a.callback"),
    ("step", "c.open", "refuse:403"),
]


SPECIMENS: dict[str, tuple[str, list[Event]]] = {
    "a-lost-response-and-then-a-rejection-of-the-same-request": (
        "joined_from_outside",
        [
            ("trigger", "b", "joined_from_outside"),
            ("tick",),
            ("tick",),
            ("step", "b.open"),
            ("step", "b.open"),
            ("step", "b.open", "lose"),
            ("step", "b.open"),
            ("step", "b.open", "refuse:401"),
            ("mark_group", "a", "push_source_update", "skipped"),
        ],
    ),
    "a-task-becomes-due-after-a-callback-has-looked": (
        "exclusive",
        [
            ("tick",),
            ("tick",),
            ("finish", "a.open"),
            ("trigger", "c", "exclusive_other"),
            ("tick",),
            ("mark_group", "a", "push_source_update", "success"),
        ],
    ),
    "1-open-marked-success-while-it-waits": (
        "exclusive",
        [
            ("trigger", "c", "exclusive_other"),
            *opened("c"),
            ("finish", "a.open"),
            ("mark", "a", "open", "success", ALONE),
            ("settle",),
            ("clear_with", "a", ["delete_old_items"], CLEAR_BELOW),
        ],
    ),
    "2-the-variable-that-names-the-source-changes": (
        "named_by_variable",
        [*opened(), ("step", "a.work1"), ("step", "a.work1"), ("variable", "two")],
    ),
    "3-wired-below-open-inside-the-with": ("joined_inside", [("tell", "a", "outside", "fail")]),
    "4-two-brackets-on-one-source": ("two_in_a_row", []),
    "5-pushed-to-another-source": ("pushing_elsewhere", []),
    "6-depends-on-past": (
        "depending_on_past",
        [("tell", "a", "work1", "fail"), ("settle",), ("trigger", "b", "depending_on_past")],
    ),
    "7-open-repeats-its-request-after-the-run-was-marked": (
        "one_task",
        [
            *BEGUN,
            ("step", "a.open"),
            ("step", "a.open", "refuse:503"),
            ("mark_run", "a", "failed"),
            ("tick",),
            ("finish", "a.close"),
            ("step", "a.open"),
            ("step", "a.open"),
        ],
    ),
    "8-group-marked-success": (
        "in_a_row",
        [*opened(), ("step", "a.work1"), ("mark_group", "a", "push_source_update", "success")],
    ),
    "21-only-failed-clear-in-a-mapped-group": (
        "mapped_group_inside",
        [
            ("tell", "a", "first", "fail"),
            ("settle",),
            ("clear_with", "a", ["first[0]"], CLEAR_ONLY_FAILED),
            ("clear_with", "a", ["first[1]"], CLEAR_ONLY_FAILED),
        ],
    ),
    "24-a-branch-skips-the-bracket": ("branch", [("tell", "a", "choose", "skip")]),
    "32-a-finished-member-is-marked-failed": (
        "in_a_row",
        [
            *opened(),
            ("finish", "a.work1"),
            ("tick",),
            ("step", "a.work2"),
            ("mark", "a", "work1", "failed", ALONE),
            ("tick",),
            ("tick",),
            ("tick",),
        ],
    ),
    "33-begin-is-marked-skipped-with-downstream": (
        "in_a_row",
        [*opened(), ("step", "a.work1"), ("mark", "a", "begin", "skipped", BELOW), ("tick",)],
    ),
    "a-member-is-cleared-when-close-is-queued": (
        "one_task",
        [
            ("tell", "a", "work1", "fail"),
            *opened(),
            ("finish", "a.work1"),
            ("tick",),
            ("clear_run", "a", True),
            ("tick",),
            ("step", "a.work1"),
            ("finish", "a.close"),
        ],
    ),
    "a-member-is-cleared-when-outcome-is-queued": (
        "one_task",
        [
            ("tell", "a", "work1", "fail"),
            ("tell", "a", "work1", "fail"),
            *opened(),
            ("finish", "a.work1"),
            ("tick",),
            ("finish", "a.close"),
            ("tick",),
            ("mark", "a", "done", "success", ALONE),
            ("clear_run", "a", True),
            ("tick",),
            ("finish", "a.outcome"),
        ],
    ),
    "a-member-is-cleared-when-done-is-queued": (
        "followed",
        [
            *opened(),
            ("finish", "a.work1"),
            ("tick",),
            ("finish", "a.close"),
            ("tick",),
            ("mark", "a", "work1", "failed", ALONE),
            ("clear_run", "a", True),
            ("tick",),
            ("step", "a.work1"),
            ("step", "a.work1"),
            ("step", "a.work1"),
            ("finish", "a.done"),
        ],
    ),
    "a-task-is-cleared-whose-process-and-supervisor-were-killed": (
        "one_task",
        [
            *opened(),
            ("step", "a.work1"),
            ("step", "a.work1"),
            ("kill", "a.work1"),
            ("clear_with", "a", ["outcome"], {"downstream": True, "upstream": True, "only_failed": False}),
            ("tick",),
            ("notice", "a.work1", "heartbeat"),
        ],
    ),
    "open-is-ended-right-behind-its-request-after-its-group-was-marked": (
        "in_a_row",
        [
            *BEGUN,
            ("step", "a.open"),
            ("mark_group", "a", "push_source_update", "skipped"),
            ("tick",),
            ("step", "a.callback"),
            ("step", "a.callback"),
            ("step", "a.open"),
            ("terminate", "a.open"),
            ("finish", "a.callback"),
        ],
    ),
    "a-callback-waits-for-the-late-request-of-another-map-index": (
        "mapped_bracket",
        [
            ("tick",),
            ("tick",),
            ("finish", "a.open[1]"),
            ("step", "a.open[0]"),
            ("mark_group", "a", "each.update", "skipped"),
            ("trigger", "c", "other"),
            ("tick",),
            ("step", "a.callback"),
            ("tick",),
        ],
    ),
    "a-closing-in-flight-meets-two-openings-and-opens-again": (
        "in_a_row",
        [
            ("trigger", "c", "other"),
            ("tick",),
            ("tick",),
            ("trigger", "b", "in_a_row"),
            ("finish", "c.open"),
            ("tick",),
            ("finish", "c.work1"),
            ("tick",),
            ("step", "c.close"),
            ("finish", "a.open"),
            ("step", "c.close"),
        ],
    ),
    "a-closing-in-flight-is-cleared-before-it-can-open-again": (
        "mapped_group_inside",
        [
            ("tick",),
            ("tick",),
            ("finish", "a.open"),
            ("trigger", "c", "other"),
            ("mark_run", "a", "success"),
            ("tick",),
            ("step", "a.close"),
            ("tick",),
            ("finish", "c.open"),
            ("step", "a.close"),
            (
                "clear_with",
                "a",
                ["first[0]", "outcome"],
                {"downstream": True, "upstream": False, "only_failed": False},
            ),
        ],
    ),
    "the-first-task-of-a-bracket-that-follows-another-is-marked": (
        "two_in_a_row",
        [("mark", "a", "second.begin", "success", {"downstream": False, "upstream": False})],
    ),
    "what-follows-is-cleared-alone-and-then-the-opening": (
        "followed",
        [
            ("settle",),
            ("mark", "a", "open", "failed", {"downstream": False, "upstream": False}),
            (
                "clear_with",
                "a",
                ["after", "close"],
                {"downstream": False, "upstream": False, "only_failed": False},
            ),
            ("clear_with", "a", ["open"], {"downstream": True, "upstream": False, "only_failed": True}),
        ],
    ),
    "a-callback-is-suspended-during-its-request-while-another-run-updates": (
        "side_by_side",
        [
            ("tick",),
            ("tick",),
            ("trigger", "c", "other"),
            ("step", "a.open"),
            ("mark_group", "a", "push_source_update", "failed"),
            ("tick",),
            ("step", "a.callback"),
            ("tick",),
            ("finish", "c.open"),
            ("step", "a.callback"),
            ("tick",),
            ("finish", "c.work1"),
            ("tick",),
        ],
    ),
    "a-paused-bracket-that-another-one-closed-continues": (
        "own_setup_and_teardown",
        [
            ("delete_run", "a"),
            ("trigger", "b", "own_setup_and_teardown"),
            ("tick",),
            ("trigger", "c", "other"),
            ("tick",),
            ("pause", True),
            ("finish", "b.open"),
            ("tick",),
            ("finish", "c.open"),
            ("tick",),
            ("finish", "c.work1"),
            ("tick",),
            ("step", "c.close"),
        ],
    ),
    "a-paused-bracket-opened-during-the-closing-of-another": (
        "mapped",
        [
            ("tick",),
            ("tick",),
            ("finish", "a.open"),
            ("tick",),
            ("finish", "a.work[0]"),
            ("trigger", "b", "mapped"),
            ("finish", "a.work[1]"),
            ("tick",),
            ("finish", "a.delete_old_items"),
            ("tick",),
            ("pause", True),
            ("step", "a.close"),
            ("finish", "b.open"),
            ("step", "a.close"),
            ("step", "a.close"),
        ],
    ),
    "the-previous-run-is-cleared-and-fails-before-open": (
        "depending_on_past",
        [
            ("settle",),
            ("trigger", "b", "depending_on_past"),
            ("tick",),
            ("clear_run", "a", False),
            ("tick",),
            ("tick",),
            ("step", "a.open", "lose"),
            ("kill", "a.open"),
        ],
    ),
    "the-previous-runs-member-is-cleared-and-its-opening-fails": (
        "depending_on_past",
        [
            ("mark_group", "a", "push_source_update", "skipped"),
            ("trigger", "b", "depending_on_past"),
            ("tick",),
            ("clear_with", "a", ["work1"], {**ALONE, "only_failed": False}),
            ("tick",),
            ("tick",),
            ("step", "a.open"),
            ("step", "a.open", "refuse-applied:503"),
        ],
    ),
    "a-member-outside-of-the-group-is-pending-when-the-group-was-marked": (
        "joined_inside",
        [
            ("tick",),
            ("tick",),
            ("finish", "a.open"),
            ("mark_group", "a", "push_source_update", "success"),
            ("watch",),
        ],
    ),
    "a-member-of-the-previous-run-is-marked-failed-behind-the-opening": (
        "depending_on_past",
        [
            ("trigger", "b", "depending_on_past"),
            ("mark_group", "a", "push_source_update", "skipped"),
            ("tick",),
            ("tick",),
            ("mark_group", "a", "push_source_update", "failed"),
            ("trigger", "c", "other"),
        ],
    ),
    "another-bracket-closes-between-two-members-that-were-cleared-alone": (
        "own_setup_and_teardown",
        [
            ("settle",),
            ("trigger", "c", "other"),
            ("tick",),
            ("tick",),
            ("finish", "c.open"),
            ("tick",),
            (
                "clear_with",
                "a",
                ["make_room"],
                {"downstream": False, "upstream": False, "only_failed": False},
            ),
        ],
    ),
    "another-bracket-closes-between-two-members-behind-a-marked-close": (
        "in_a_row",
        [
            ("tick",),
            ("tick",),
            ("finish", "a.open"),
            ("mark", "a", "close", "success", ALONE),
            ("mark", "a", "outcome", "success", ALONE),
            ("tick",),
            ("trigger", "c", "other"),
            ("tick",),
            ("tick",),
            ("finish", "c.open"),
            ("tick",),
            ("finish", "c.work1"),
            ("tick",),
            ("finish", "a.work1"),
            ("finish", "c.close"),
        ],
    ),
    "another-bracket-closes-behind-a-group-that-was-cleared-and-marked-skipped": (
        "joined_from_outside",
        [
            ("tick",),
            ("trigger", "c", "other"),
            ("tick",),
            ("finish", "a.open"),
            ("tick",),
            ("finish", "c.open"),
            ("mark", "a", "begin", "skipped", {"downstream": False, "upstream": True}),
            ("tick",),
            ("tick",),
            ("finish", "a.callback"),
            ("finish", "c.work1"),
            (
                "clear_with",
                "a",
                ["done"],
                {"downstream": True, "upstream": True, "only_failed": False},
            ),
            ("tick",),
            ("mark_group", "a", "push_source_update", "skipped"),
        ],
    ),
    "the-first-of-two-brackets-closes-while-another-one-opens": (
        "two_in_a_row",
        [
            ("tick",),
            ("tick",),
            ("finish", "a.first.open"),
            ("tick",),
            ("finish", "a.work1"),
            ("tick",),
            ("step", "a.first.close"),
            ("trigger", "c", "other"),
            ("tick",),
            ("tick",),
            ("finish", "c.open"),
        ],
    ),
    "an-exclusive-bracket-claims-the-source-while-another-one-closes-it": (
        "exclusive",
        [
            *OTHER_OPENED,
            ("tick",),
            ("finish", "c.work1"),
            ("tick",),
            ("step", "c.close"),
            ("step", "a.open"),
            ("finish", "c.close"),
            ("finish", "a.open"),
        ],
    ),
    "an-exclusive-bracket-claims-the-source-while-one-opens-it-that-was-closed": (
        "exclusive",
        [
            ("trigger", "c", "other"),
            ("tick",),
            ("tick",),
            ("step", "c.open"),
            ("mark_group", "c", "push_source_update", "success"),
            ("tick",),
            ("step", "c.callback"),
            ("step", "c.callback"),
            ("step", "c.callback"),
            ("step", "a.open"),
            ("step", "c.open"),
            ("step", "c.open"),
            ("finish", "c.open"),
        ],
    ),
    "an-exclusive-bracket-is-killed-with-its-claim-while-a-callback-closes": (
        "exclusive",
        [
            *OTHER_OPENED,
            ("mark_group", "c", "push_source_update", "success"),
            ("tick",),
            ("step", "a.open"),
            ("finish", "c.callback"),
            ("kill", "a.open"),
        ],
    ),
    "an-exclusive-bracket-is-killed-with-its-claim": (
        "exclusive",
        [("tick",), ("tick",), ("step", "a.open"), ("kill", "a.open")],
    ),
    "a-source-is-left-open-for-a-bracket-whose-opening-is-rejected": (
        "one_task",
        [
            *LEFT_FOR_A_REJECTED_OPENING,
        ],
    ),
    "a-source-is-left-open-for-a-bracket-whose-opening-is-rejected-and-closing-it-fails": (
        "one_task",
        [
            *LEFT_FOR_A_REJECTED_OPENING,
            ("step", "c.open"),
            ("step", "c.open", "refuse-later:503"),
        ],
    ),
    "an-exclusive-bracket-continues-after-another-one-took-its-source": (
        "exclusive",
        [
            ("tick",),
            ("tick",),
            ("finish", "a.open"),
            ("tick",),
            ("pause", True),
            ("finish", "a.work1"),
            ("trigger", "c", "exclusive_other"),
            ("tick",),
            ("tick",),
            ("finish", "c.open"),
            ("pause", False),
            ("tick",),
            ("finish", "a.delete_old_items"),
            ("tick",),
            ("finish", "a.close"),
        ],
    ),
    "close-is-cleared-alone-and-meets-the-opening-of-an-exclusive-bracket": (
        "exclusive",
        [
            ("settle",),
            ("trigger", "c", "exclusive_other"),
            ("tick",),
            ("clear_with", "a", ["close"], {**ALONE, "only_failed": False}),
            ("tick",),
            ("step", "a.close"),
        ],
    ),
    "a-run-ends-while-the-next-one-works-on-its-source": (
        "in_a_row",
        [
            *opened("a"),
            ("trigger", "b", "in_a_row"),
            *opened("b"),
            ("finish", "a.work1"),
            ("tick",),
            ("finish", "a.work2"),
            ("tick",),
            ("finish", "a.close"),
            ("tick",),
            ("finish", "a.outcome"),
            ("tick",),
            ("tick",),
            ("finish", "a.callback"),
        ],
    ),
    "a-clear-that-clears-nothing-behind-a-run-that-was-marked-as-success": (
        "one_task",
        [
            ("settle",),
            ("mark", "a", "open", "failed", ALONE),
            ("clear_with", "a", ["work1"], {**ALONE, "only_failed": True}),
            ("tick",),
            ("step", "a.open"),
            ("mark_run", "a", "success"),
            ("clear_run", "a", True),
            ("step", "a.open"),
        ],
    ),
}


@pytest.mark.parametrize("name", SPECIMENS)
def test_a_specimen_violates_no_invariant(engine: Engine, name: str) -> None:
    shape, events = SPECIMENS[name]
    played: Any = play(engine, shape, events, strictly=True)
    assert not played.violations, f"{played.violations}\n{played.story}\n{script(played)}"


@pytest.mark.parametrize("at", ["a.open", "a.work1"])
def test_16_a_bracket_that_is_removed_during_its_run_is_closed_by_the_watchdog(
    engine: Engine, at: str
) -> None:
    """All its tasks are `removed`, and the DAG has lost its callback, so the run succeeds."""
    from tests.stepped import shapes

    dag_id = f"edited_at_{at[2:]}"
    with shapes.a_dag(dag_id) as before:
        with shapes.bracket():
            shapes.work.override(task_id="work1")()
        shapes.work.override(task_id="elsewhere")("three")
    with shapes.a_dag(dag_id) as after:
        shapes.work.override(task_id="elsewhere")("three")
    engine.add(before)
    engine.trigger("a", dag_id)
    engine.until(at, "answered", "REBUILD" if at == "a.open" else "push")
    engine.change(after)
    engine.settle()
    assert engine.run_states()["a"] == "success", engine.story()
    assert engine.last_status("one") == "REBUILD", engine.story()
    engine.let_time_pass(7 * 3600)
    engine.run("w1", "watchdog")
    assert engine.sequence("one").endswith("IDLE"), engine.story()


def test_a_member_marked_failed_after_outcome_no_longer_affects_the_run(engine: Engine) -> None:
    """
    "Only Failed" then clears only this member: Airflow judges the run by `outcome`, which succeeded.

    The source is still opened and closed.
    """
    events: list[Event] = [
        ("settle",),
        ("mark", "a", "work1", "failed", ALONE),
        ("tell", "a", "work1", "fail"),
        ("clear_run", "a", True),
    ]
    played = play(engine, "one_task", events, strictly=True)
    assert not played.violations, played.story
    assert engine.sequence("one") == "REBUILD push IDLE REBUILD push IDLE", played.story
    assert engine.tries("a")["work1"] == "FAIL#2", played.story
    assert engine.run_states()["a"] == "success", played.story


def test_a_run_that_is_marked_failed_is_a_success_to_airflow_if_that_skips_the_rest(engine: Engine) -> None:
    events: list[Event] = [
        ("mark", "a", "begin", "failed", BELOW),
        ("tick",),
        ("clear_with", "a", ["outcome", "work2"], {**ALONE, "only_failed": False}),
        ("tick",),
        ("tick",),
        ("finish", "a.open"),
        ("clear_with", "a", ["work2"], CLEAR_BELOW),
        ("mark_run", "a", "failed"),
    ]
    played = play(engine, "side_by_side", events)
    assert not played.violations, played.story
    assert engine.run_states()["a"] == "success", played.story
    assert engine.last_status("one") == "IDLE", played.story


def test_a_bracket_that_opens_during_the_idle_of_a_callback_to_which_it_seems_dead(engine: Engine) -> None:
    events: list[Event] = [
        ("tick",),
        ("tick",),
        ("finish", "a.open"),
        ("mark_group", "a", "push_source_update", "skipped"),
        ("tick",),
        ("step", "a.callback"),
        ("step", "a.callback"),
        ("trigger", "c", "other"),
        ("tick",),
        ("tick",),
        ("finish", "c.open"),
        ("tick",),
    ]
    played = play(engine, "one_task", events, strictly=True)
    assert not played.violations, played.story
    assert engine.sequence("one").endswith("IDLE"), played.story


def test_a_bracket_that_another_runs_callback_has_closed_sends_no_idle(engine: Engine) -> None:
    """To the callback, the bracket seems dead between its last push and its `close`."""
    events: list[Event] = [
        ("tick",),
        ("tick",),
        ("step", "a.first.open"),
        ("trigger", "b", "two_in_a_row"),
        ("mark_run", "a", "success"),
    ]
    played = play(engine, "two_in_a_row", events)
    assert not played.violations, played.story
    assert engine.sequence("one").endswith("push IDLE REBUILD push delete-old IDLE"), played.story
    assert engine.run_states()["b"] == "success", played.story


def test_outcome_waits_for_a_member_that_was_cleared_while_the_bracket_closed(engine: Engine) -> None:
    """The member's second attempt succeeds, and so does the run."""
    events: list[Event] = [
        ("tell", "a", "push_source_update.work1", "fail"),
        ("mark_run", "a", "failed"),
        ("clear_with", "a", ["work1"], {"downstream": False, "upstream": True, "only_failed": False}),
        ("tick",),
        ("mark", "a", "close", "success", ALONE),
        ("tick",),
        ("finish", "a.open"),
        ("tick",),
        ("finish", "a.work1"),
        ("tick",),
        ("step", "a.outcome"),
        ("clear_run", "a", True),
    ]
    played = play(engine, "named_by_variable", events)
    assert not played.violations, played.story
    assert engine.run_states()["a"] == "success", played.story
    assert engine.tries("a")["work1"] == "ok#2", played.story
