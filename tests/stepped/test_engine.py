"""
The stepped Airflow gives the same results as a real scheduler.

The expectations are those of ``tests/airflow/bracket/cells.py``, under the same names. Tests with the number
of a specimen have the results of a real scheduler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.stepped.engine import Engine


def check(
    engine: Engine, sequence: str, run: str, tasks: str = "", *, key: str = "a", source: str = "one"
) -> None:
    assert engine.sequence(source) == sequence, engine.story()
    assert engine.run_states()[key] == run, engine.story()
    states = engine.tries(key)
    for expected in filter(None, tasks.split(", ")):
        name, _, state = expected.partition(" ")
        assert states[name] == state, engine.story()


def test_s01_all_tasks_succeed(engine: Engine) -> None:
    engine.run("a", "in_a_row")
    check(
        engine, "REBUILD push IDLE", "success", "open ok, work1 ok, work2 ok, close ok, outcome ok, done ok"
    )


def test_s02_a_task_fails(engine: Engine) -> None:
    engine.trigger("a", "in_a_row")
    engine.tell("a", "work1", "fail")
    engine.settle()
    check(engine, "REBUILD push IDLE", "failed", "work1 FAIL, work2 upf, close ok, outcome FAIL, done upf")


def test_s03_a_retry_succeeds(engine: Engine) -> None:
    engine.trigger("a", "retried")
    engine.tell("a", "work1", "fail")
    engine.settle()
    check(engine, "REBUILD push delete-old IDLE", "success", "work1 ok#2")


def test_s04c_open_is_killed_after_its_request(engine: Engine) -> None:
    engine.trigger("a", "in_a_row")
    engine.until("a.open", "answered", "REBUILD")
    engine.kill("a.open")
    engine.settle()
    check(engine, "REBUILD IDLE", "failed", "open FAIL, work1 upf, work2 upf, close ok, outcome FAIL")


def test_s04e_coveo_rejects_the_request_of_open(engine: Engine) -> None:
    engine.trigger("a", "in_a_row")
    engine.until("a.open", "request", "REBUILD")
    engine.step("a.open", "refuse:403")
    engine.settle()
    check(engine, "REBUILD→403", "failed", "open FAIL, work1 upf, work2 upf")


def test_s05_a_task_is_skipped(engine: Engine) -> None:
    engine.trigger("a", "in_a_row")
    engine.tell("a", "work1", "skip")
    engine.settle()
    check(engine, "REBUILD push IDLE", "success", "work1 skip, work2 skip, close ok, outcome ok")


def test_s06_a_task_is_killed(engine: Engine) -> None:
    for how in ("supervisor", "executor", "heartbeat"):
        engine.reset()
        engine.trigger("a", "in_a_row")
        engine.until("a.work1", "answered", "push")
        engine.kill("a.work1")
        engine.notice("a.work1", how)
        engine.settle()
        check(engine, "REBUILD push IDLE", "failed", "work1 FAIL, work2 upf, outcome FAIL")


def test_s07_the_run_is_marked_failed(engine: Engine) -> None:
    engine.trigger("a", "in_a_row")
    engine.until("a.work1", "answered", "push")
    engine.mark_run("a", "failed")
    engine.settle()
    check(engine, "REBUILD push IDLE", "failed", "work1 FAIL, work2 skip, done skip, close ok, outcome FAIL")


def test_s08_the_run_is_marked_success(engine: Engine) -> None:
    engine.trigger("a", "in_a_row")
    engine.until("a.work1", "answered", "push")
    engine.mark_run("a", "success")
    engine.settle()
    check(engine, "REBUILD push IDLE", "success", "work1 ok, work2 skip, done skip")


def test_s09_the_run_times_out(engine: Engine) -> None:
    engine.trigger("a", "timed")
    engine.until("a.work1", "answered", "push")
    engine.time_run_out("a")
    engine.tick()
    engine.settle()
    check(
        engine, "REBUILD push IDLE", "failed", "work1 skip, work2 skip, close skip, outcome skip, done skip"
    )


def with_work1_failed(engine: Engine) -> None:
    engine.trigger("a", "in_a_row")
    engine.tell("a", "work1", "fail")
    engine.settle()


def test_s10a_only_a_failed_task_is_cleared(engine: Engine) -> None:
    with_work1_failed(engine)
    engine.clear("a", "work1", downstream=False)
    engine.settle()
    tasks = "begin ok#2, open ok#2, work1 ok#2, work2 upf, close ok#2, outcome FAIL#2"
    check(engine, "REBUILD push IDLE REBUILD push IDLE", "failed", tasks)


def test_s10b_a_failed_task_and_its_downstream_tasks_are_cleared(engine: Engine) -> None:
    with_work1_failed(engine)
    engine.clear("a", "work1")
    engine.settle()
    tasks = "begin ok#2, open ok#2, work1 ok#2, work2 ok, close ok#2, outcome ok#2, done ok"
    check(engine, "REBUILD push IDLE REBUILD push IDLE", "success", tasks)


def test_s10c_failed_tasks_are_cleared_with_downstream(engine: Engine) -> None:
    with_work1_failed(engine)
    engine.clear("a", "work1", only_failed=True)
    engine.settle()
    tasks = "work1 ok#2, work2 ok, outcome ok#2"
    check(engine, "REBUILD push IDLE REBUILD push REBUILD push IDLE", "success", tasks)


def test_s10d_failed_tasks_are_cleared_without_downstream(engine: Engine) -> None:
    with_work1_failed(engine)
    engine.clear("a", "work1", only_failed=True, downstream=False)
    engine.settle()
    check(engine, "REBUILD push IDLE REBUILD push IDLE", "failed", "work1 ok#2, work2 upf, outcome FAIL#2")


def test_s12_idle_is_rejected_and_retried(engine: Engine) -> None:
    engine.trigger("a", "in_a_row")
    for _ in range(2):
        engine.until("a.close", "request", "IDLE")
        engine.step("a.close", "refuse-later:503")
        engine.finish("a.close")
    engine.settle()
    check(engine, "REBUILD push IDLE→503 IDLE→503 IDLE", "success", "close ok#3")


def test_s12d_the_failure_callback_sets_idle(engine: Engine) -> None:
    engine.trigger("a", "in_a_row")
    engine.until("a.close", "request", "IDLE")
    engine.step("a.close", "refuse:403")
    engine.finish("a.close")
    engine.until("a.outcome", "request", "IDLE")
    engine.step("a.outcome", "refuse:403")
    engine.settle()
    check(engine, "REBUILD push IDLE→403 IDLE→403 IDLE", "failed", "close FAIL")


def test_s16_the_run_is_cleared(engine: Engine) -> None:
    with_work1_failed(engine)
    engine.clear_run("a")
    engine.settle()
    tasks = "begin ok#2, open ok#2, work1 ok#2, work2 ok, close ok#2, outcome ok#2"
    check(engine, "REBUILD push IDLE REBUILD push IDLE", "success", tasks)


def test_s21_a_task_after_the_bracket_succeeds(engine: Engine) -> None:
    engine.run("a", "followed")
    check(engine, "REBUILD push IDLE", "success", "after ok")
    assert engine.sequence("three") == "push"


def test_s19c_an_exclusive_bracket_waits_for_another_dag(engine: Engine) -> None:
    engine.trigger("b", "exclusive_other")
    engine.until("b.work1", "answered", "push")
    engine.trigger("a", "exclusive")
    for _ in range(3):
        engine.tick()
        for name in ("a.begin", "a.open"):
            if name in [actor.name for actor in engine.runnable()]:
                engine.finish(name)
    assert engine.tries("a")["open"] == "deferred"
    engine.settle()
    check(engine, "REBUILD push IDLE REBUILD push delete-old IDLE", "success", "open ok")


def test_32_a_finished_member_is_marked_failed_while_a_later_one_runs(engine: Engine) -> None:
    engine.trigger("a", "in_a_row")
    engine.until("a.work2", "answered", "push")
    engine.mark("a", "work1", "failed")
    for _ in range(3):
        engine.tick()
    engine.settle()
    assert engine.run_states()["a"] == "failed"
    assert engine.tries("a")["close"] == "none", engine.story()


def test_33_begin_is_marked_skipped_with_downstream(engine: Engine) -> None:
    engine.trigger("a", "in_a_row")
    engine.until("a.work1", "answered", "push")
    engine.mark("a", "begin", "skipped", downstream=True)
    engine.tick()
    engine.settle()
    states = engine.tries("a")
    assert (states["close"], states["outcome"]) == ("skip", "skip"), engine.story()
    assert engine.run_states()["a"] == "success"
