"""Brackets with unusual tasks inside, or wired in unusual ways; each is played to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.stepped.engine import Engine


def violations(engine: Engine) -> list[str]:
    from tests.stepped.invariants import Judge

    return [str(each) for each in Judge(engine).violations()]


def branching(dag_id: str, chosen: str | None, *, is_last: bool = False) -> Any:
    """Create a bracket with a branch inside, and a task that works beside it."""
    from airflow.sdk import task

    from tests.stepped import shapes

    with shapes.a_dag(dag_id) as dag:
        with shapes.bracket(group_id="update") as update:

            @task.branch
            def choose() -> str | None:
                what = shapes.told(str(shapes.get_current_context()["ti"].run_id), "update.choose", -1)
                if what == "fail":
                    raise RuntimeError("The sequence says so.")
                return chosen

            branch = choose()
            if not is_last:
                branch >> shapes.work.override(task_id="work1", trigger_rule="none_failed")()
            shapes.work.override(task_id="work2")()
        update >> shapes.work.override(task_id="after")("three")
    return dag


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("chosen", [None, "after", "update.done", "update.close"])
def test_a_branch_skips_nothing_that_closes_the_source(
    engine: Engine, chosen: str | None, is_last: bool
) -> None:
    """It chooses nothing, or a task after the bracket, while another task still works."""
    dag_id = f"branch_to_{str(chosen).replace('.', '_')}{'_at_the_end' * is_last}"
    engine.add(branching(dag_id, chosen, is_last=is_last))
    engine.trigger("a", dag_id)
    engine.until("a.work2", "request", "push")
    for _ in range(3):
        engine.tick()
        for process in list(engine.processes):
            if process.actor.name != "a.work2":
                engine.finish(process.actor.name)
    assert engine.sequence("one") == "REBUILD", engine.story()
    engine.settle()
    assert engine.sequence("one") == "REBUILD push IDLE", engine.story()
    assert engine.run_states()["a"] == "success", engine.story()
    assert engine.tries("a")["after"] == "ok", engine.story()
    assert not violations(engine), engine.story()


def test_a_failure_beside_a_branch_that_chooses_nothing_fails_the_run(engine: Engine) -> None:
    engine.add(branching("branch_beside", None))
    engine.trigger("a", "branch_beside")
    engine.tell("a", "work2", "fail")
    engine.settle()
    assert engine.sequence("one") == "REBUILD push IDLE", engine.story()
    assert engine.run_states()["a"] == "failed", engine.story()
    assert not violations(engine), engine.story()


@pytest.mark.parametrize("rule", ["all_done", "none_failed"])
def test_a_branch_that_fails_lets_no_task_run_after_the_bracket(engine: Engine, rule: str) -> None:
    """`all_done`: Airflow doesn't pass the failure on to the tasks below."""

    dag = branching(f"failing_branch_{rule}", None)
    dag.get_task("update.work1").trigger_rule = rule
    engine.add(dag)
    engine.trigger("a", dag.dag_id)
    engine.tell("a", "choose", "fail")
    engine.settle()
    assert engine.run_states()["a"] == "failed", engine.story()
    assert engine.sequence("one").endswith("IDLE"), engine.story()
    assert not engine.sequence("three"), engine.story()
    assert not violations(engine), engine.story()


def sharing(dag_id: str, make: Any, **options: Any) -> Any:
    """Create two brackets, on sources one and two, and a task of both."""
    from tests.stepped import shapes

    with shapes.a_dag(dag_id) as dag:
        with shapes.bracket(group_id="update_one", **options):
            both = make()
        with shapes.bracket(source_id="two", group_id="update_two") as two:
            shapes.work.override(task_id="work2")("two")
        two.open >> both >> two.close
    return dag


def pushing_to_both() -> Any:
    from airflow.sdk import task

    from tests.stepped import shapes

    @task
    def both() -> None:
        shapes.push("one")
        shapes.work.function("two")

    return both()


def test_a_task_of_two_brackets_opens_both_again(engine: Engine) -> None:
    engine.add(sharing("shared", pushing_to_both))
    engine.trigger("a", "shared")
    engine.tell("a", "both", "fail")
    engine.settle()
    engine.clear("a", "both", downstream=True, only_failed=True)
    engine.settle()
    for source in ("one", "two"):
        words = engine.sequence(source)
        assert words.endswith("IDLE REBUILD push IDLE"), engine.story()
    assert engine.run_states()["a"] == "success", engine.story()
    assert not violations(engine), engine.story()


def test_a_dry_push_in_a_bracket_that_deletes_fails_in_a_task_of_two(engine: Engine) -> None:
    """Its item would be deleted, because it was not pushed."""
    from airflow_provider_coveo.operators.coveo_push import PushItemsOperator
    from tests.stepped import shapes

    def make() -> Any:
        shapes.work.override(task_id="work1")()
        items = [{"documentId": "https://example.com/old1", "data": "new"}]
        return PushItemsOperator(task_id="both", source_id="one", items=items, dry_run="{{ var.value.dry }}")

    engine.add(sharing("shared_deleting", make, delete_old_items=True))
    engine.set_variable("dry", "true")
    for number in range(2):
        engine.push_as_somebody_else("one", f"old{number}")
    engine.trigger("a", "shared_deleting")
    engine.settle()
    assert "delete-old" not in engine.sequence("one"), engine.story()
    assert engine.run_states()["a"] == "failed", engine.story()
    assert not violations(engine), engine.story()


@pytest.mark.parametrize("dry", [True, False])
def test_a_task_of_a_dry_bracket_sends_nothing_although_it_is_in_another(engine: Engine, dry: bool) -> None:
    engine.add(sharing(f"shared_dry_{dry}", pushing_to_both, dry_run=dry))
    engine.trigger("a", f"shared_dry_{dry}")
    engine.settle()
    assert engine.sequence("one") == ("" if dry else "REBUILD push IDLE"), engine.story()
    assert engine.run_states()["a"] == ("failed" if dry else "success"), engine.story()
    assert any("only some of them do a dry run" in str(error) for _, error in engine.errors) is dry
    assert not violations(engine), engine.story()


def depending_on_past(dag_id: str, flag: str, *, has_new_task: bool = False) -> Any:
    """Create a bracket with a teardown of its own, and a task after one of its tasks."""
    from tests.stepped import shapes

    with shapes.a_dag(dag_id, default_args={flag: True}) as dag:
        with shapes.bracket():
            make_room = shapes.work.override(task_id="make_room")()
            work = shapes.work.override(task_id="work1")()
            clean_up = shapes.work.override(task_id="clean_up")()
            make_room >> work >> clean_up.as_teardown(setups=make_room)
            if has_new_task:
                shapes.work.override(task_id="new")()
        work >> shapes.work.override(task_id="elsewhere", depends_on_past=False, wait_for_downstream=False)(
            "three"
        )
    return dag


@pytest.mark.parametrize("flag", ["depends_on_past", "wait_for_downstream"])
@pytest.mark.parametrize("failing", ["clean_up", "elsewhere"])
def test_6_what_failed_outside_of_the_previous_bracket_does_not_keep_the_source_open(
    engine: Engine, flag: str, failing: str
) -> None:
    """Airflow ignores the failure of a teardown, so the previous run's bracket succeeded."""
    dag_id = f"{failing}_{flag}"
    engine.add(depending_on_past(dag_id, flag))
    engine.trigger("a", dag_id)
    engine.tell("a", failing, "fail")
    engine.settle()
    engine.trigger("b", dag_id)
    engine.settle()
    assert engine.run_states()["b"] == "success", engine.story()
    assert engine.last_status("one") == "IDLE", engine.story()
    assert not violations(engine), engine.story()


def test_6_a_task_that_the_previous_run_did_not_have_does_not_keep_the_source_open(engine: Engine) -> None:
    engine.add(depending_on_past("extended", "depends_on_past"))
    engine.trigger("a", "extended")
    engine.settle()
    engine.change(depending_on_past("extended", "depends_on_past", has_new_task=True))
    engine.trigger("b", "extended")
    engine.settle()
    assert engine.tries("b")["new"] == "ok", engine.story()
    assert engine.last_status("one") == "IDLE", engine.story()
    assert not violations(engine), engine.story()


@pytest.mark.parametrize("flag", ["depends_on_past", "wait_for_downstream"])
def test_6_a_bracket_that_failed_keeps_the_next_one_from_opening(engine: Engine, flag: str) -> None:
    engine.add(depending_on_past(f"failed_{flag}", flag))
    engine.trigger("a", f"failed_{flag}")
    engine.tell("a", "work1", "fail")
    engine.settle()
    before = engine.sequence("one")
    engine.trigger("b", f"failed_{flag}")
    engine.settle()
    assert engine.run_states()["b"] == "running", engine.story()
    assert engine.sequence("one") == before, engine.story()


def test_with_upstream_weights_a_source_is_closed_before_the_next_one_is_opened(engine: Engine) -> None:
    """As the guide for many sources says."""
    from airflow.sdk import task, task_group

    from tests.stepped import shapes

    options: dict[str, Any] = {"max_active_tasks": 1, "default_args": {"weight_rule": "upstream"}}
    with shapes.a_dag("weighted", **options) as dag:

        @task
        def ids() -> list[str]:
            return ["one", "two"]

        @task_group
        def each(source_id: str) -> None:
            with shapes.bracket(source_id=source_id, group_id="update"):
                shapes.work.override(task_id="work")(source_id)

        each.expand(source_id=ids())
    engine.add(dag)
    engine.trigger("a", "weighted")
    engine.settle()
    played = [f"{seen.source} {seen.word}" for seen in engine.seen if seen.word]
    assert played == [f"{name} {what}" for name in ("one", "two") for what in ("REBUILD", "push", "IDLE")]
    assert not violations(engine), engine.story()
