"""The cells of the bracket suite: what can happen to a run, and the expected outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.airflow.bracket.driver import Cell, Expected, Story

CELLS: list[Cell] = []
#: Makes the hook leave retries to Airflow, because it waits for no longer than ten minutes.
NOT_SOON = {"Retry-After": "1200"}


def cell(
    cell_id: str,
    title: str,
    sequence: str,
    run: str = "success",
    tasks: str = "",
    *,
    items: str | None = None,
    last: str = "IDLE",
    impossible: str = "",
    on_2: dict[str, Any] | None = None,
    otherwise_on_2: dict[str, Any] | None = None,
    on_3_0: dict[str, Any] | None = None,
    on_3_1: dict[str, Any] | None = None,
    **options: Any,
) -> Callable[[Callable[[Story], None]], Callable[[Story], None]]:
    """
    Create a cell from the function that plays it.

    ``on_2`` is the different expectation for Airflow 2, and ``otherwise_on_2`` an alternative outcome there;
    ``on_3_0`` is the different expectation for Airflow 3.0 only, and ``on_3_1`` for 3.1 and 3.2.
    """
    facts: dict[str, Any] = {
        "sequence": sequence,
        "run": run,
        "tasks": tasks,
        "items": items,
        "last": last,
        "impossible": impossible,
    }

    def register(play: Callable[[Story], None]) -> Callable[[Story], None]:
        expected_2 = Expected(**{**facts, **on_2}) if on_2 else None
        if expected_2 is not None and otherwise_on_2 is not None:
            expected_2 = replace(expected_2, otherwise=replace(expected_2, **otherwise_on_2))
        if on_3_0:
            options["expected_3_0"] = Expected(**{**facts, **on_3_0})
        if on_3_1:
            options["expected_3_1"] = Expected(**{**facts, **on_3_1})
        CELLS.append(Cell(cell_id, title, play, Expected(**facts), expected_2, **options))
        return play

    return register


def run_to_the_end(story: Story) -> None:
    story.trigger()
    story.until_quiet()


def with_work1_at_work(story: Story) -> None:
    story.hold("work1")
    story.trigger()
    story.until_seen("push")


def with_work1_failed(story: Story) -> None:
    story.fail("work1")
    story.trigger()
    story.until_quiet()
    story.mend("work1")


# --- what tasks do ---

cell("S01", "everything succeeds", "REBUILD push IDLE", tasks="work1 ok, work2 ok", representative=True)(
    run_to_the_end
)


@cell(
    "S02",
    "the first task fails",
    "REBUILD push IDLE",
    "failed",
    "work1 FAIL, work2 upf",
    representative=True,
)
def _(story: Story) -> None:
    story.fail("work1")
    story.trigger()


@cell("S02b", "the last task fails", "REBUILD push IDLE", "failed", "work1 ok, work2 FAIL")
def _(story: Story) -> None:
    story.fail("work2")
    story.trigger()


@cell(
    "S03",
    "a task fails and its retry succeeds",
    "REBUILD push IDLE",
    tasks="work1 ok#2, work2 ok",
    dag={"default_args": {"retries": 1}},
)
def _(story: Story) -> None:
    story.fail("work1", up_to_try=1)
    story.trigger()


@cell(
    "S03b",
    "a task fails and so does its retry",
    "REBUILD push IDLE",
    "failed",
    "work1 FAIL#2, work2 upf",
    dag={"default_args": {"retries": 1}},
)
def _(story: Story) -> None:
    story.fail("work1")
    story.trigger()


@cell("S04", "REBUILD fails", "REBUILD→500 IDLE", "failed", "open FAIL, work1 upf, work2 upf")
def _(story: Story) -> None:
    story.coveo.faults.answer(500, source=story.dag_id, status_type="REBUILD", headers=NOT_SOON)
    story.trigger()


@cell(
    "S04e",
    "Coveo keeps rejecting REBUILD: nothing is closed",
    "REBUILD→403",
    "failed",
    "open FAIL, work1 upf, work2 upf",
    last="",
)
def _(story: Story) -> None:
    story.coveo.faults.answer(403, source=story.dag_id, status_type="REBUILD", times=None)
    story.trigger()


@cell(
    "S04b",
    "REBUILD returns 500 but takes effect",
    "REBUILD→500 IDLE",
    "failed",
    "open FAIL, work1 upf, work2 upf",
)
def _(story: Story) -> None:
    story.coveo.faults.answer(500, source=story.dag_id, status_type="REBUILD", headers=NOT_SOON, applied=True)
    story.trigger()


@cell(
    "S04c",
    "kill -9 of `open` after its request",
    "REBUILD (kill -9 open) IDLE",
    "failed",
    "open FAIL, work1 upf, work2 upf",
    representative=True,
)
def _(story: Story) -> None:
    story.coveo.faults.stall(60, source=story.dag_id, status_type="REBUILD")
    story.trigger()
    story.until(lambda: story.coveo.statuses(story.dag_id), "the status is set")
    story.kill("open")


@cell(
    "S04d",
    "run marked failed while `open` runs",
    "REBUILD (run marked failed) IDLE",
    "failed",
    "open FAIL, work1 skip, work2 skip, done skip",
    representative=True,
)
def _(story: Story) -> None:
    story.coveo.faults.stall(60, source=story.dag_id, status_type="REBUILD")
    story.trigger()
    story.until(lambda: story.coveo.statuses(story.dag_id), "the status is set")
    story.mark_run("failed")


@cell("S05", "a task skips itself", "REBUILD push IDLE", tasks="work1 skip, work2 skip")
def _(story: Story) -> None:
    story.skip("work1")
    story.trigger()


cell(
    "S05b",
    "a branch",
    "REBUILD push IDLE",
    tasks="choose ok, work1 ok, work2 skip",
    shape="branch",
)(run_to_the_end)

cell(
    "S05c",
    "a short circuit inside",
    "REBUILD IDLE",
    tasks="go_on ok, work1 skip, done skip",
    shape="short_circuit",
    representative=True,
)(run_to_the_end)

cell(
    "S05d",
    "a short circuit before: nothing is sent",
    "",
    tasks="go_on ok, begin skip, open skip, work1 skip, close skip, outcome skip, done skip",
    shape="short_circuit_before",
    last="",
)(run_to_the_end)


# --- what happens to processes ---


@cell(
    "S06",
    "kill -9 of a task",
    "REBUILD push (kill -9 work1) push? IDLE",
    "failed",
    "work1 FAIL, work2 upf",
    representative=True,
)
def _(story: Story) -> None:
    with_work1_at_work(story)
    story.kill("work1")


@cell(
    "S06b",
    "kill -9 of a task and its supervisor",
    "REBUILD push (kill -9 work1 + supervisor) push? IDLE",
    "failed",
    "work1 FAIL, work2 upf",
)
def _(story: Story) -> None:
    with_work1_at_work(story)
    story.kill("work1", supervisor=True)


@cell(
    "S11",
    "kill -9 of the scheduler",
    "REBUILD push (kill -9 scheduler) push? (scheduler started) push? IDLE push?",
    tasks="work1 ok#2, work2 ok",
    alone=True,
)
def _(story: Story) -> None:
    with_work1_at_work(story)
    story.did("kill -9 scheduler")
    story.airflow.kill("scheduler")
    story.did("scheduler started")
    story.airflow.start_component("scheduler")
    story.until_task("work1", "running", try_number=2)
    story.release("work1")


@cell(
    "S11b",
    "kill -9 of the scheduler and all tasks",
    "REBUILD push (kill -9 scheduler and tasks) push? (scheduler started) push IDLE",
    tasks="work1 ok#2, work2 ok",
    alone=True,
)
def _(story: Story) -> None:
    with_work1_at_work(story)
    story.did("kill -9 scheduler and tasks")
    story.airflow.kill("scheduler", descendants=True)
    story.did("scheduler started")
    story.airflow.start_component("scheduler")
    story.until_task("work1", "running", try_number=2)
    story.release("work1")


# --- user actions on runs ---


@cell(
    "S07",
    "run marked failed",
    "REBUILD push (run marked failed) push? IDLE push?",
    "failed",
    "work1 FAIL, work2 skip, done skip",
    representative=True,
)
def _(story: Story) -> None:
    with_work1_at_work(story)
    story.mark_run("failed")


@cell(
    "S07b",
    "run marked failed while the last task runs",
    "REBUILD push (run marked failed) push? IDLE push?",
    "failed",
    "work1 ok, work2 FAIL, done skip",
)
def _(story: Story) -> None:
    story.hold("work2")
    story.trigger()
    story.until_task("work2", "running")
    story.until_seen("push", times=2)
    story.mark_run("failed")


@cell(
    "S07c",
    "run marked failed during one of the provider's own tasks, which stops at the next batch",
    "REBUILD push (run marked failed) push? IDLE push?",
    "failed",
    "work1 FAIL, work2 skip, done skip",
    shape="pushing_much",
)
def _(story: Story) -> None:
    story.coveo.faults.stall(0.3, operation="batch", source=story.dag_id, times=None)
    story.trigger()
    story.until_seen("push", times=3)
    story.mark_run("failed")


@cell(
    "S08",
    "run marked success",
    "REBUILD push (run marked success) push? IDLE push?",
    tasks="work1 ok, work2 skip, done skip",
    on_2={"tasks": "work1 ok, work2 ok, done ok"},
    like_2_before=(3, 3),
    representative=True,
)
def _(story: Story) -> None:
    with_work1_at_work(story)
    story.mark_run("success")


@cell(
    "S09",
    "dagrun_timeout",
    "REBUILD push IDLE push?",
    "failed",
    "work1 skip, work2 skip, close skip, outcome skip, done skip",
    on_2={"tasks": "work1 skip, work2 none, close none, outcome none, done none"},
    like_2_before=(3, 2),
    # Enough for the first push on a busy machine; other cells take as long.
    dag={"dagrun_timeout": 120},
    representative=True,
)
def _(story: Story) -> None:
    story.hold("work1")
    story.trigger()


@cell(
    "S09b",
    "execution_timeout of a task",
    "REBUILD push IDLE",
    "failed",
    "work1 FAIL, work2 upf",
    shape="limited",
)
def _(story: Story) -> None:
    story.hold("work1")
    story.trigger()


@cell(
    "S14",
    "DAG paused and unpaused",
    "REBUILD push (paused) push? (unpaused) push IDLE",
    tasks="work1 ok, work2 ok",
    impossible="IDLE waits until the DAG is unpaused; the watchdog closes the source before that",
)
def _(story: Story) -> None:
    with_work1_at_work(story)
    story.did("paused")
    story.airflow.pause(story.dag_id)
    story.release("work1")
    story.until_task("work1", "success")
    story.did("unpaused")
    story.airflow.unpause(story.dag_id)


@cell(
    "S15",
    "a task marked failed",
    "REBUILD push (work1 marked failed) push? IDLE push?",
    "failed",
    "work1 FAIL, work2 upf",
)
def _(story: Story) -> None:
    with_work1_at_work(story)
    story.mark_task("work1", "failed")


@cell(
    "S15b",
    "a task marked success",
    "REBUILD push (work1 marked success) push? IDLE push?",
    tasks="work1 ok, work2 ok",
)
def _(story: Story) -> None:
    with_work1_at_work(story)
    story.mark_task("work1", "success")


@cell(
    "S15c",
    "a task and its downstream tasks marked failed",
    "REBUILD push (work1 marked failed + downstream) push? IDLE push?",
    "failed",
    "work1 FAIL, work2 upf",
)
def _(story: Story) -> None:
    with_work1_at_work(story)
    story.mark_task("work1", "failed", downstream=True)


@cell(
    "S17",
    "run marked failed while a task is deferred",
    "REBUILD push (run marked failed) IDLE",
    "failed",
    "work1 FAIL, work2 skip, done skip",
    shape="deferring",
)
def _(story: Story) -> None:
    story.trigger()
    story.until_task("work1", "deferred")
    story.mark_run("failed")


@cell(
    "S20",
    "fail_fast",
    "REBUILD push (work2 fails) push? IDLE push?",
    "failed",
    "work1 FAIL, work2 FAIL, done skip",
    shape="side_by_side",
    dag={"fails_fast": True},
    representative=True,
)
def _(story: Story) -> None:
    story.hold("work1", "work2")
    story.fail("work2")
    story.trigger()
    story.until_task("work1", "running")
    story.until_task("work2", "running")
    story.until_seen("push", times=3)
    story.did("work2 fails")
    story.release("work2")


# --- clears ---


@cell(
    "S10a",
    "clear of only a failed task",
    "REBUILD push IDLE (clear work1) REBUILD push IDLE",
    "failed",
    "begin ok#2, open ok#2, work1 ok#2, work2 upf, close ok#2, outcome FAIL#2",
    on_3_1={"tasks": "work1 ok#2, work2 upf"},
)
def _(story: Story) -> None:
    with_work1_failed(story)
    story.clear("work1", downstream=False)
    story.until_quiet()


@cell(
    "S10b",
    "clear of a failed task and its downstream tasks",
    "REBUILD push IDLE (clear work1 + downstream) REBUILD push IDLE",
    tasks="begin ok#2, open ok#2, work1 ok#2, work2 ok, close ok#2, outcome ok#2, done ok",
)
def _(story: Story) -> None:
    with_work1_failed(story)
    story.clear("work1")
    story.until_quiet()


@cell(
    "S10c",
    "clear of all failed tasks, with downstream",
    "REBUILD push IDLE (clear work1 + downstream only failed) REBUILD push REBUILD push IDLE",
    tasks="work1 ok#2, work2 ok, outcome ok#2",
    representative=True,
)
def _(story: Story) -> None:
    with_work1_failed(story)
    story.clear("work1", only_failed=True)
    story.until_quiet()


@cell(
    "S10d",
    "clear of all failed tasks, without downstream",
    "REBUILD push IDLE (clear work1 only failed) REBUILD push IDLE",
    "failed",
    "work1 ok#2, work2 upf, outcome FAIL#2",
    on_3_1={"tasks": "work1 ok#2, work2 upf"},
)
def _(story: Story) -> None:
    with_work1_failed(story)
    story.clear("work1", downstream=False, only_failed=True)
    story.until_quiet()


@cell(
    "S10e",
    "clear of only `close`",
    "REBUILD push IDLE (clear close)",
    "failed",
    "work1 FAIL, work2 upf, close ok#2",
)
def _(story: Story) -> None:
    with_work1_failed(story)
    story.clear("close", downstream=False)
    story.until_quiet()


@cell(
    "S10f",
    "clear of only `open`",
    "REBUILD push IDLE (clear open) REBUILD IDLE",
    "failed",
    "open ok#2, work1 FAIL, work2 upf, close ok#2",
    on_3_1={"tasks": "open ok#2, work1 FAIL, work2 upf"},
)
def _(story: Story) -> None:
    with_work1_failed(story)
    story.clear("open", downstream=False)
    story.until_quiet()


@cell(
    "S10h",
    "clear of a task while another one runs",
    "REBUILD push (clear work1 + downstream) push? REBUILD push IDLE",
    tasks="begin ok#2, open ok#2, work1 ok#2, work2 ok",
    shape="side_by_side",
)
def _(story: Story) -> None:
    story.hold("work2")
    story.trigger()
    story.until_task("work1", "success")
    story.until_task("work2", "running")
    story.clear("work1")
    story.until_task("work1", "success", try_number=2)
    story.release("work2")


@cell(
    "S10i",
    "clear of a running task",
    "REBUILD push (clear work1 + downstream) push? REBUILD push IDLE",
    tasks="begin ok#2, open ok#2, work1 ok#2, work2 ok",
    # There, the task continues its first try, or Airflow considers it lost: then the run fails.
    on_2={"tasks": "begin ok#2, open ok#2, work1 ok, work2 ok"},
    otherwise_on_2={"run": "failed", "tasks": "begin ok#2, open ok#2, work1 -, work2 upf"},
    not_on_3_0="a task that is cleared while it works is restarting until the scheduler is started anew",
)
def _(story: Story) -> None:
    with_work1_at_work(story)
    story.until_task("work1", "running")
    story.until_seen("push", times=6)
    story.clear("work1")
    story.until_seen("REBUILD")
    if story.airflow.is_airflow_3:
        story.until_started(2)
    story.release("work1")


@cell(
    "S10j",
    "a second clear",
    "REBUILD push IDLE (clear work1 + downstream) REBUILD push IDLE (clear work2) REBUILD push IDLE",
    tasks="begin ok#3, open ok#3, work1 ok#2, work2 ok#2, close ok#3, outcome ok#3, done ok",
    on_3_1={"tasks": "begin ok#2, open ok#2, work1 ok#2, work2 ok#2, close ok#2, outcome ok#2, done ok"},
)
def _(story: Story) -> None:
    with_work1_failed(story)
    story.clear("work1")
    story.until_quiet()
    story.clear("work2", downstream=False)
    story.until_quiet()
    # On 3.1 and 3.2, the run's callback does it, a little later.
    story.until_seen("IDLE")


@cell(
    "S16",
    "clear of the run",
    "REBUILD push IDLE (clear run) REBUILD push IDLE",
    tasks="begin ok#2, open ok#2, work1 ok#2, work2 ok, close ok#2, outcome ok#2",
)
def _(story: Story) -> None:
    with_work1_failed(story)
    story.clear_run()
    story.until_quiet()


@cell(
    "S16b",
    "clear of the run's failed tasks",
    "REBUILD push IDLE (clear run only failed) REBUILD push REBUILD push IDLE",
    tasks="work1 ok#2, work2 ok, outcome ok#2",
)
def _(story: Story) -> None:
    with_work1_failed(story)
    story.clear_run(only_failed=True)
    story.until_quiet()


# --- failures of Coveo and of `close` ---


@cell(
    "S12",
    "IDLE fails twice",
    "REBUILD push IDLE→503 IDLE→503 IDLE",
    tasks="work1 ok, work2 ok, close ok#3",
    representative=True,
)
def _(story: Story) -> None:
    story.coveo.faults.answer(503, source=story.dag_id, status_type="IDLE", times=2, headers=NOT_SOON)
    story.trigger()


@cell(
    "S12b",
    "Coveo keeps rejecting IDLE",
    "REBUILD push IDLE→403 IDLE→403 IDLE→403",
    "failed",
    "work1 ok, work2 ok, close FAIL",
    last="REBUILD",
    impossible="Coveo accepts no IDLE from this run; the watchdog closes the source later",
)
def _(story: Story) -> None:
    story.coveo.faults.answer(403, source=story.dag_id, status_type="IDLE", times=None)
    story.trigger()


@cell(
    "S12c",
    "run marked failed during a retry of `close`",
    "REBUILD push IDLE→503* (run marked failed) IDLE→503* IDLE",
    tasks="work1 ok, work2 ok, close ok, done skip",
)
def _(story: Story) -> None:
    fault = story.coveo.faults.answer(
        503, source=story.dag_id, status_type="IDLE", times=None, headers=NOT_SOON
    )
    story.trigger()
    story.until_task("close", "up_for_retry")
    story.mark_run("failed")
    fault.times = fault.used


@cell(
    "S12d",
    "the closing tasks fail permanently, but the failure callback succeeds",
    "REBUILD push IDLE→403 IDLE→403 IDLE",
    "failed",
    "work1 ok, work2 ok, close FAIL",
    representative=True,
)
def _(story: Story) -> None:
    story.coveo.faults.answer(403, source=story.dag_id, status_type="IDLE", times=2)
    story.trigger()


@cell(
    "S12e",
    "an outage while IDLE is sent, longer than the hook retries",
    "REBUILD push IDLE→503* IDLE",
    tasks="work1 ok, work2 ok, close ok",
    bracket={"close_retries": 12},
)
def _(story: Story) -> None:
    fault = story.coveo.faults.answer(
        503, source=story.dag_id, status_type="IDLE", times=None, headers=NOT_SOON
    )
    story.trigger()
    story.until_seen("IDLE→503", times=4)
    fault.times = fault.used


@cell(
    "S12f",
    "a short outage while IDLE is sent, which the hook's retries cover",
    "REBUILD push IDLE→503* IDLE",
    tasks="work1 ok, work2 ok, close ok",
)
def _(story: Story) -> None:
    fault = story.coveo.faults.answer(503, source=story.dag_id, status_type="IDLE", times=None)
    story.trigger()
    story.until_seen("IDLE→503", times=4)
    fault.times = fault.used


@cell(
    "S12g",
    "kill -9 of `close` after its request",
    "REBUILD push IDLE (kill -9 close) IDLE",
    tasks="work1 ok, work2 ok, close ok#2",
    # On a busy machine, it may consider the task lost once more, and closes the source once more.
    on_2={"tasks": "work1 ok, work2 ok, close ok"},
    otherwise_on_2={"sequence": "REBUILD push IDLE (kill -9 close) IDLE IDLE"},
    # 3.0 does not retry a task whose process was killed.
    on_3_0={"run": "failed", "tasks": "work1 ok, work2 ok, close FAIL"},
    representative=True,
)
def _(story: Story) -> None:
    story.coveo.faults.stall(60, source=story.dag_id, status_type="IDLE")
    story.trigger()
    story.until(lambda: "IDLE" in story.coveo.statuses(story.dag_id), "the status is set")
    story.kill("close")


# --- shapes ---


@cell(
    "S13",
    "one of the mapped tasks fails",
    "REBUILD push IDLE",
    "failed",
    "work[0] ok, work[1] FAIL, work[2] ok",
    shape="mapped",
)
def _(story: Story) -> None:
    story.fail("work.1")
    story.trigger()


cell(
    "S21",
    "tasks after the bracket, and after a group that holds it",
    "REBUILD push IDLE push",
    tasks="work1 ok, after ok, after_outer ok",
    shape="followed",
)(run_to_the_end)


@cell(
    "S21b",
    "no task after a failed bracket",
    "REBUILD push IDLE",
    "failed",
    "work1 FAIL, after upf, after_outer upf",
    shape="followed",
)
def _(story: Story) -> None:
    story.fail("work1")
    story.trigger()


@cell(
    "S22",
    "a task from outside, wired downstream of `open`",
    "REBUILD push IDLE",
    "failed",
    "work1 ok, outside FAIL",
    shape="joined_from_outside",
)
def _(story: Story) -> None:
    story.fail("outside")
    story.trigger()


@cell(
    "S23",
    "two brackets in one run, one fails",
    "REBUILD push IDLE | REBUILD push IDLE",
    "failed",
    "begin -, open -, close -, outcome -, done -, one.work_one FAIL, one.close ok, one.outcome FAIL, "
    "one.done upf, two.work_two ok, two.close ok, two.outcome ok, two.done ok",
    shape="two_sources",
    sources=("S23-one", "S23-two"),
)
def _(story: Story) -> None:
    story.fail("work_one")
    story.trigger()


cell(
    "S23b",
    "two brackets on one source, one after the other",
    "REBUILD push IDLE INCREMENTAL push IDLE",
    tasks="begin -, open -, close -, outcome -, done -, one.work_one ok, two.work_two ok, one.done ok, "
    "two.done ok",
    shape="two_in_a_row",
)(run_to_the_end)


@cell(
    "S24",
    "a mapped bracket, one of two fails",
    "REBUILD push IDLE | REBUILD push IDLE",
    "failed",
    "begin -, open -, close -, outcome -, done -, work[0] FAIL, work[1] ok, close[0] ok, close[1] ok, "
    "outcome[0] FAIL, outcome[1] ok, done[0] upf, done[1] ok",
    shape="mapped_bracket",
    sources=("S24-one", "S24-two"),
)
def _(story: Story) -> None:
    story.fail("work.0")
    story.trigger()


@cell(
    "S24b",
    "a mapped group inside",
    "REBUILD push IDLE",
    "failed",
    "first[0] ok, first[1] FAIL, second[0] ok, second[1] upf",
    shape="mapped_group_inside",
)
def _(story: Story) -> None:
    story.fail("first.1")
    story.trigger()


cell(
    "S25",
    "a setup and a teardown of the user's own inside",
    "REBUILD push IDLE",
    tasks="make_room ok, work1 ok, clean_up ok",
    shape="own_setup_and_teardown",
)(run_to_the_end)


cell(
    "S26",
    "a source that another task names",
    "REBUILD push IDLE",
    tasks="choose ok, work1 ok",
    shape="chosen_source",
)(run_to_the_end)


@cell(
    "S26b",
    "the task that provides the source ID fails: nothing is sent",
    "",
    "failed",
    "choose FAIL, open upf, work1 upf",
    shape="chosen_source",
    last="",
)
def _(story: Story) -> None:
    story.fail("choose")
    story.trigger()


cell(
    "S27",
    "a connection that does not exist: nothing is sent",
    "",
    "failed",
    "open FAIL, work1 upf, work2 upf",
    bracket={"coveo_conn_id": "coveo_nowhere"},
    last="",
)(run_to_the_end)


# --- the failure callback, by where the connection is stored ---


def refuse_the_closing(story: Story) -> None:
    story.coveo.faults.answer(403, source=story.dag_id, status_type="IDLE", times=2)
    story.trigger()


cell(
    "S28",
    "the last resort, with the connection in the metadata database",
    "REBUILD push IDLE→403 IDLE→403 IDLE",
    "failed",
    "work1 ok, work2 ok, close FAIL",
    bracket={"coveo_conn_id": "coveo_in_database"},
)(refuse_the_closing)

cell(
    "S28b",
    "the last resort, with the connection in a secrets backend",
    "REBUILD push IDLE→403 IDLE→403 IDLE",
    "failed",
    "work1 ok, work2 ok, close FAIL",
    bracket={"coveo_conn_id": "coveo_in_secrets"},
)(refuse_the_closing)


@cell(
    "S28c",
    "the failure callback of a run whose source another run has opened: it does not close the source",
    "REBUILD push REBUILD push (first run timed out) push? IDLE push?",
    "a failed, b success",
    "a.work1 skip, a.close skip, a.outcome skip, a.done skip",
    on_2={"tasks": "a.work1 skip, a.close none, a.outcome none, a.done none"},
    dag={"max_active_runs": 2, "dagrun_timeout": 200},
    # As in S09: tasks that were not scheduled yet have no state.
    like_2_before=(3, 2),
)
def _(story: Story) -> None:
    story.hold("work1")
    story.hold("work1", key="b")
    story.trigger()
    story.until_age_of_run(100)
    story.trigger("b")
    story.until_seen("REBUILD", times=2)
    story.until_over()
    story.until_more_pushes()
    story.did("first run timed out")
    story.release("work1", key="b")


# --- overlap ---


@cell(
    "S19",
    "two runs of one DAG overlap (the DAG allows it and was warned)",
    "REBUILD push REBUILD push (first run is over) push IDLE",
    "a success, b success",
    shape="in_a_row",
    dag={"max_active_runs": 2},
    representative=True,
)
def _(story: Story) -> None:
    story.hold("work1")
    story.hold("work1", key="b")
    story.trigger()
    story.until_seen("push")
    story.trigger("b")
    story.until_seen("REBUILD", times=2)
    story.until_task("work1", "running", key="b")
    story.release("work1")
    story.until_over()
    story.did("first run is over")
    story.until_more_pushes()
    story.release("work1", key="b")


@cell(
    "S19b",
    "two runs of one DAG with max_active_runs=1",
    "REBUILD push IDLE REBUILD push IDLE",
    "a success, b success",
)
def _(story: Story) -> None:
    story.hold("work1")
    story.trigger()
    story.until_seen("push")
    story.trigger("b")
    story.release("work1")


@cell(
    "S19e",
    "clear of a failed run during the next one",
    "REBUILD push IDLE REBUILD push (clear run) push? IDLE REBUILD push IDLE",
    "a success, b success",
)
def _(story: Story) -> None:
    with_work1_failed(story)
    story.hold("work1", key="b")
    story.trigger("b")
    story.until_seen("push", times=2)
    story.clear_run()
    story.release("work1", key="b")
    story.until_quiet("b")
    story.until_quiet()


@cell(
    "S19h",
    "clear of only `close` of a finished run, during the next one",
    "REBUILD push IDLE REBUILD push (clear close) push IDLE",
    "a success, b success",
    "a.close ok#2",
    dag={"max_active_runs": 2},
)
def _(story: Story) -> None:
    story.trigger()
    story.until_over()
    story.hold("work1", key="b")
    story.trigger("b")
    story.until_seen("REBUILD", times=2)
    story.until_more_pushes()
    story.clear("close", downstream=False)
    story.until_task("close", "success", try_number=2)
    story.until_over()
    story.until_more_pushes()
    story.release("work1", key="b")


@cell(
    "S19f",
    "exclusive: the second run waits until the first has closed",
    "REBUILD push (second run waits) push? IDLE REBUILD push IDLE",
    "a success, b success",
    # A busy Airflow 3 can count a deferred task as lost when it continues, and retries it.
    dag={"max_active_runs": 2, "default_args": {"retries": 2}},
    bracket={"exclusive": True, "poll_interval": 5},
    representative=True,
)
def _(story: Story) -> None:
    story.hold("work1")
    story.trigger()
    story.until_seen("push")
    story.trigger("b")
    story.until_task("open", "deferred", key="b")
    story.did("second run waits")
    story.release("work1")


@cell(
    "S19c",
    "exclusive: the run waits while another DAG updates the source",
    "REBUILD push (second DAG waits) push? IDLE REBUILD push IDLE",
    "a success, b success",
    shape="two_dags",
    dag={"default_args": {"retries": 2}},
    bracket={"exclusive": True, "poll_interval": 5},
)
def _(story: Story) -> None:
    story.dag_ids["b"] = "S19c_other"
    story.hold("work1", key="b")
    story.trigger("b")
    story.until_seen("push")
    story.trigger()
    story.until_task("open", "deferred")
    story.did("second DAG waits")
    story.release("work1", key="b")


@cell(
    "S19g",
    "exclusive: the source stays in use, so the run gives up and leaves it unchanged",
    "REBUILD (somebody else opened it)",
    "failed",
    "open FAIL, work1 upf, work2 upf",
    bracket={"exclusive": True, "exclusive_timeout": 3, "poll_interval": 1},
    last="REBUILD",
    impossible="another run or tool closes the source",
)
def _(story: Story) -> None:
    story.open_as_somebody_else()
    story.did("somebody else opened it")
    story.trigger()


# --- no item is deleted that the run itself pushed ---

DELETING: dict[str, Any] = {"delete_old_items": True, "queue_delay": 0}


def old_item_in_place(story: Story) -> None:
    story.push_as_somebody_else("old")


@cell(
    "D01",
    "old items are deleted after all tasks succeeded",
    "push REBUILD push delete-old IDLE",
    tasks="work1 ok, work2 ok, delete_old_items ok",
    items="work1/-1 work2/-1",
    bracket=DELETING,
    representative=True,
)
def _(story: Story) -> None:
    old_item_in_place(story)
    story.trigger()


@cell(
    "D02",
    "a task failed: nothing is deleted",
    "push REBUILD push IDLE",
    "failed",
    "work1 ok, work2 FAIL, delete_old_items upf",
    items="old work1/-1 work2/-1",
    bracket=DELETING,
    shape="side_by_side",
)
def _(story: Story) -> None:
    old_item_in_place(story)
    story.fail("work2")
    story.trigger()


@cell(
    "D03",
    "a task skipped: nothing is deleted",
    "push REBUILD push IDLE",
    "success",
    "work1 ok, work2 skip, delete_old_items skip",
    items="old work1/-1 work2/-1",
    bracket=DELETING,
    shape="side_by_side",
)
def _(story: Story) -> None:
    old_item_in_place(story)
    story.skip("work2")
    story.trigger()


@cell(
    "D04",
    "clear of one task of two",
    "push REBUILD push IDLE (clear work2 + downstream) REBUILD push delete-old IDLE",
    tasks="work1 ok, work2 ok#2, delete_old_items ok",
    items="work1/-1 work2/-1",
    bracket=DELETING,
    shape="side_by_side",
)
def _(story: Story) -> None:
    old_item_in_place(story)
    story.fail("work2")
    story.trigger()
    story.until_quiet()
    story.mend("work2")
    story.clear("work2")
    story.until_quiet()


@cell(
    "D05",
    "clear of all failed tasks",
    "push REBUILD push IDLE (clear work2 + downstream only failed) REBUILD push REBUILD delete-old IDLE",
    tasks="work1 ok, work2 ok#2, delete_old_items ok",
    items="work1/-1 work2/-1",
    bracket=DELETING,
    shape="side_by_side",
)
def _(story: Story) -> None:
    old_item_in_place(story)
    story.fail("work2")
    story.trigger()
    story.until_quiet()
    story.mend("work2")
    story.clear("work2", only_failed=True)
    story.until_quiet()


@cell(
    "D06",
    "clear of one mapped task, after a successful run",
    "push REBUILD push delete-old IDLE (clear work[1] + downstream) REBUILD push delete-old IDLE",
    tasks="work[0] ok, work[1] ok#2, work[2] ok, delete_old_items ok#2",
    items="work/0 work/1 work/2",
    bracket=DELETING,
    shape="mapped",
    only_3="the REST API of 2.11 can't clear one mapped task",
)
def _(story: Story) -> None:
    old_item_in_place(story)
    story.trigger()
    story.until_quiet()
    story.clear(("work", 1))
    story.until_quiet()


@cell(
    "D07",
    "clear of the run, and a second one",
    "push REBUILD push delete-old IDLE (clear run) REBUILD push delete-old IDLE "
    "(clear run) REBUILD push delete-old IDLE",
    tasks="work1 ok#3, work2 ok#3, delete_old_items ok#3",
    items="work1/-1 work2/-1",
    bracket=DELETING,
    representative=True,
)
def _(story: Story) -> None:
    old_item_in_place(story)
    story.trigger()
    story.until_quiet()
    story.clear_run()
    story.until_quiet()
    story.clear_run()
    story.until_quiet()


@cell(
    "D08",
    "a retry of a task",
    "push REBUILD push delete-old IDLE",
    tasks="work1 ok#2, work2 ok, delete_old_items ok",
    items="work1/-1 work2/-1",
    bracket=DELETING,
    dag={"default_args": {"retries": 1}},
)
def _(story: Story) -> None:
    old_item_in_place(story)
    story.fail("work1", up_to_try=1)
    story.trigger()


@cell(
    "D09",
    "clear of one task, twice",
    "push REBUILD push delete-old IDLE (clear work2 + downstream) REBUILD push delete-old IDLE "
    "(clear work2 + downstream) REBUILD push delete-old IDLE",
    tasks="work1 ok, work2 ok#3, delete_old_items ok#3",
    items="work1/-1 work2/-1",
    bracket=DELETING,
    shape="side_by_side",
)
def _(story: Story) -> None:
    old_item_in_place(story)
    story.trigger()
    story.until_quiet()
    story.clear("work2")
    story.until_quiet()
    story.clear("work2")
    story.until_quiet()


@cell(
    "D10",
    "clear of only `open`, after a successful run",
    "push REBUILD push delete-old IDLE (clear open) REBUILD IDLE",
    tasks="open ok#2, work1 ok, work2 ok, delete_old_items ok, close ok#2",
    on_3_1={"tasks": "open ok#2, work1 ok, work2 ok, delete_old_items ok"},
    items="work1/-1 work2/-1",
    bracket=DELETING,
)
def _(story: Story) -> None:
    old_item_in_place(story)
    story.trigger()
    story.until_quiet()
    story.clear("open", downstream=False)
    story.until_quiet()
    story.until_seen("IDLE")


@cell(
    "D11",
    "exclusive: the run gives up, is cleared, and then deletes old items",
    "push REBUILD (somebody else opened it) IDLE (clear run) REBUILD push delete-old IDLE",
    tasks="open ok#2, work1 ok, work2 ok, delete_old_items ok",
    items="work1/-1 work2/-1",
    bracket={**DELETING, "exclusive": True, "exclusive_timeout": 2, "poll_interval": 1},
)
def _(story: Story) -> None:
    old_item_in_place(story)
    story.open_as_somebody_else()
    story.did("somebody else opened it")
    story.trigger()
    story.until_quiet()
    story.close_as_somebody_else()
    story.clear_run()
    story.until_quiet()


@cell(
    "D12",
    "nothing was pushed: nothing is deleted",
    "push REBUILD IDLE",
    "failed",
    "work1 ok, delete_old_items FAIL",
    items="old",
    bracket=DELETING,
    shape="pushing_nothing",
)
def _(story: Story) -> None:
    old_item_in_place(story)
    story.trigger()


@cell(
    "D13",
    "nothing was pushed, and allow_empty=True",
    "push REBUILD delete-old IDLE",
    tasks="work1 ok, delete_old_items ok",
    items="",
    bracket={**DELETING, "allow_empty": True},
    shape="pushing_nothing",
)
def _(story: Story) -> None:
    old_item_in_place(story)
    story.trigger()


# --- special cases ---


@cell(
    "G01",
    "`open` is marked as success while it waits, and `delete_old_items` is cleared",
    "push REBUILD (somebody else opened it) IDLE (open marked success) REBUILD push REBUILD push REBUILD "
    "IDLE (clear delete_old_items + downstream) REBUILD IDLE",
    "failed",
    "open ok, work1 ok, work2 ok, delete_old_items FAIL",
    items="old work1/-1 work2/-1",
    bracket={**DELETING, "exclusive": True, "poll_interval": 600},
)
def _(story: Story) -> None:
    old_item_in_place(story)
    story.open_as_somebody_else()
    story.did("somebody else opened it")
    story.trigger()
    story.until_task("open", "deferred")
    story.close_as_somebody_else()
    story.mark_task("open", "success")
    story.until_quiet()
    story.clear("delete_old_items")
    story.until_quiet()


@cell(
    "G02",
    "the Variable with the source ID changes during the update",
    "(Variable = G02-one) REBUILD push (Variable = G02-two) push delete-old IDLE | "
    "(Variable = G02-one) (Variable = G02-two)",
    tasks="work1 ok, work2 ok, delete_old_items ok",
    bracket=DELETING,
    shape="named_by_variable",
    sources=("G02-one", "G02-two"),
)
def _(story: Story) -> None:
    story.variable("G02", "G02-one")
    story.hold("work1")
    story.trigger()
    story.until_seen("push")
    story.variable("G02", "G02-two")
    story.release("work1")


@cell(
    "G02b",
    "the same, and the tasks get the source ID as an argument: nothing goes elsewhere or is deleted",
    "(Variable = G02b-one) REBUILD push (Variable = G02b-two) push IDLE | "
    "(Variable = G02b-one) (Variable = G02b-two)",
    "failed",
    "work1 ok, work2 FAIL, delete_old_items upf",
    bracket=DELETING,
    shape="passed_by_variable",
    sources=("G02b-one", "G02b-two"),
)
def _(story: Story) -> None:
    story.variable("G02b", "G02b-one")
    story.hold("work1")
    story.trigger()
    story.until_seen("push")
    story.variable("G02b", "G02b-two")
    story.release("work1")


@cell(
    "G03",
    "a task wired downstream of `open` inside the `with` fails: nothing is deleted",
    "push REBUILD push IDLE",
    "failed",
    "work1 ok, outside FAIL, delete_old_items upf",
    items="old outside/-1 work1/-1",
    bracket=DELETING,
    shape="joined_inside",
)
def _(story: Story) -> None:
    old_item_in_place(story)
    story.fail("outside")
    story.trigger()


@cell(
    "G04",
    "two brackets on one source, of which the second deletes old items",
    "push REBUILD push IDLE REBUILD push delete-old IDLE",
    tasks="begin -, open -, close -, outcome -, done -, work_one ok, work_two ok, delete_old_items ok",
    items="work_one/-1 work_two/-1",
    bracket=DELETING,
    shape="two_that_delete",
)
def _(story: Story) -> None:
    old_item_in_place(story)
    story.trigger()


cell(
    "G05",
    "the push goes to another source than the bracket's: nothing is deleted",
    "REBUILD IDLE | push",
    "failed",
    "work1 ok, delete_old_items FAIL",
    last="IDLE",
    bracket=DELETING,
    shape="pushing_elsewhere",
    sources=("G05-one", "G05-two"),
    representative=True,
)(run_to_the_end)


@cell(
    "G06",
    "depends_on_past, and the previous run failed: nothing is opened until that run is fixed",
    "REBUILD push IDLE (second run waits) (clear run) REBUILD push IDLE REBUILD push IDLE",
    "a success, b success",
    dag={"default_args": {"depends_on_past": True}, "max_active_runs": 2},
)
def _(story: Story) -> None:
    story.fail("work1")
    # A run without a logical date has no previous run.
    story.trigger(logical_date="2025-02-01T00:00:00+00:00")
    story.until_quiet()
    story.mend("work1")
    story.trigger("b", logical_date="2025-02-02T00:00:00+00:00")
    story.until_age_of_run(20, key="b")
    story.did("second run waits")
    story.clear_run()
    story.until_quiet()


@cell(
    "G08",
    "the bracket's task group is marked as success",
    "REBUILD push (group marked success) push? IDLE push?",
    tasks="work1 ok, work2 ok",
    since=(3, 3),
)
def _(story: Story) -> None:
    with_work1_at_work(story)
    story.mark_group("success")
    story.until_over()
    story.until_seen("IDLE")


@cell(
    "G08b",
    "a task and its downstream tasks marked as success",
    "REBUILD push (work1 marked success + downstream) push? IDLE push?",
    tasks="work1 ok, work2 ok",
    representative=True,
)
def _(story: Story) -> None:
    with_work1_at_work(story)
    story.mark_task("work1", "success", downstream=True)
    story.until_over()
    story.until_seen("IDLE")


cell(
    "G11",
    "a pre_execute in default_args that skips",
    "REBUILD IDLE",
    tasks="work1 skip",
    shape="skipped_by_default",
)(run_to_the_end)


@cell(
    "G21",
    "clear of the failed tasks in a mapped group inside",
    "REBUILD push IDLE (clear run only failed) REBUILD push REBUILD? push? IDLE",
    tasks="first[0] ok, first[1] ok#2, second[0] ok, second[1] ok, outcome ok#2",
    shape="mapped_group_inside",
)
def _(story: Story) -> None:
    story.fail("first.1")
    story.trigger()
    story.until_quiet()
    story.mend("first.1")
    story.clear_run(only_failed=True)
    story.until_quiet()


cell(
    "G24",
    "a branch goes past the bracket: what follows it is skipped",
    "",
    tasks="choose ok, other -, begin skip, open skip, work1 skip, close skip, outcome skip, done skip, "
    "after skip",
    last="",
    shape="branched_around",
    representative=True,
)(run_to_the_end)


@cell(
    "G32",
    "a finished task marked as failed while a later one runs",
    "REBUILD push (work1 marked failed) push? IDLE push?",
    "failed",
    "work1 FAIL, work2 -, close -, outcome -, done -",
    representative=True,
)
def _(story: Story) -> None:
    story.hold("work2")
    story.trigger()
    story.until_task("work2", "running")
    story.until_seen("push", times=2)
    story.mark_task("work1", "failed")
    story.until_over()
    story.until_seen("IDLE")


@cell(
    "G33",
    "the bracket's first task and its downstream tasks marked as skipped",
    "REBUILD push (begin marked skipped + downstream) push? IDLE push?",
    tasks="begin skip, open -, work1 -, work2 -, close -, outcome -, done -",
    only_3="2.11 can't mark a task as skipped",
)
def _(story: Story) -> None:
    with_work1_at_work(story)
    story.mark_task("begin", "skipped", downstream=True)
    story.until_over()
    story.until_seen("IDLE")


@cell(
    "G14",
    "DAG paused, with close_overdue_after",
    "REBUILD push (paused) push? IDLE (unpaused) REBUILD push IDLE",
    tasks="work1 ok, work2 ok",
    bracket={"close_overdue_after": 60},
    since=(3, 1),
)
def _(story: Story) -> None:
    with_work1_at_work(story)
    story.did("paused")
    story.airflow.pause(story.dag_id)
    story.release("work1")
    story.until_task("work1", "success")
    story.until_seen("IDLE")
    story.did("unpaused")
    story.airflow.unpause(story.dag_id)
