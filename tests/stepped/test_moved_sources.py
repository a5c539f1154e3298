"""A run keeps to the source that it opened first, also if its tasks take another one from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from tests.stepped.engine import Engine


def _item(name: str) -> dict[str, str]:
    return {"documentId": f"https://example.com/{name}", "data": name}


def _filled(engine: Engine) -> None:
    for source in ("one", "two"):
        for name in ("docs", "products"):
            engine.push_as_somebody_else(source, name)


def _pushed_by(engine: Engine, run: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"one": [], "two": []}
    for seen in engine.seen:
        if seen.run == run and seen.word == "push" and seen.applied and seen.source in found:
            found[seen.source].append(seen.task_id.rpartition(".")[2])
    return found


def _literal(dag_id: str, source: str, *, by_hook: bool) -> DAG:
    from airflow.sdk import task

    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
    from airflow_provider_coveo.operators.coveo_push import PushItemsOperator
    from tests.stepped import shapes

    @task
    def push(name: str) -> None:
        CoveoPushHook().push_items(source, [_item(name)])

    def pushing(name: str) -> Any:
        if by_hook:
            return push.override(task_id=f"push_{name}")(name)
        return PushItemsOperator(task_id=f"push_{name}", source_id=source, items=[_item(name)])

    with (
        shapes.a_dag(dag_id) as dag,
        shapes.bracket(source_id=source, delete_old_items=True),
    ):
        pushing("products") >> shapes.work.override(task_id="check")("three") >> pushing("docs")
    return dag


@pytest.mark.parametrize("by_hook", [False, True])
@pytest.mark.parametrize("only_failed", [False, True])
def test_a_source_that_was_changed_in_the_file_before_a_clear_is_not_changed(
    engine: Engine, by_hook: bool, only_failed: bool
) -> None:
    _filled(engine)
    dag_id = f"edited_{by_hook}_{only_failed}"
    dag = _literal(dag_id, "one", by_hook=by_hook)
    engine.add(dag)
    engine.trigger("a", dag.dag_id)
    engine.tell("a", "check", "fail")
    engine.settle()
    engine.change(_literal(dag_id, "two", by_hook=by_hook))
    engine.clear_run("a", only_failed=only_failed)
    engine.settle()
    assert engine.run_states() == {"a": "failed"}, engine.story()
    assert _pushed_by(engine, "a") == {"one": ["push_products"], "two": []}, engine.story()
    assert len(engine.items("one").split()) == len(engine.items("two").split()) == 2
    assert engine.last_status("one") == "IDLE"
    (error,) = {str(error) for _, error in engine.errors if "Could not change" in str(error)}
    assert "opened source 'one'" in error
    assert "name 'two' since" in error


def _from_a_task(source_id: Any, dag_id: str) -> DAG:
    from airflow.sdk import Variable, task

    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
    from tests.stepped import shapes

    @task
    def pick() -> str:
        return str(Variable.get("s"))

    @task
    def push(source_id: str, name: str) -> None:
        CoveoPushHook().add_or_update_item(source_id, _item(name))

    with shapes.a_dag(dag_id) as dag:
        given = pick() if source_id is None else source_id
        with shapes.bracket(source_id=given, delete_old_items=True):
            (
                push.override(task_id="push_products")(given, "products")
                >> shapes.work.override(task_id="check")("three")
                >> push.override(task_id="push_docs")(given, "docs")
            )
    return dag


def test_a_source_that_a_task_returns_anew_after_a_clear_is_not_changed(engine: Engine) -> None:
    _filled(engine)
    engine.add(_from_a_task(None, "picked"))
    engine.set_variable("s", "one")
    engine.trigger("a", "picked")
    engine.tell("a", "check", "fail")
    engine.settle()
    engine.set_variable("s", "two")
    engine.clear_run("a")
    engine.settle()
    assert engine.run_states() == {"a": "failed"}
    assert _pushed_by(engine, "a") == {"one": ["push_products"], "two": []}
    assert len(engine.items("one").split()) == 2
    assert engine.last_status("one") == "IDLE"


def test_a_source_from_a_variable_that_changes_between_two_tasks_is_not_changed(engine: Engine) -> None:
    _filled(engine)
    engine.add(_from_a_task("{{ var.value.s }}", "variable"))
    engine.set_variable("s", "one")
    engine.trigger("a", "variable")
    engine.until("a.push_products", "answered", "push")
    engine.set_variable("s", "two")
    engine.settle()
    assert engine.run_states() == {"a": "failed"}
    assert _pushed_by(engine, "a") == {"one": ["push_products"], "two": []}
    assert len(engine.items("one").split()) == 2
    assert engine.last_status("one") == "IDLE"


def test_a_task_may_push_elsewhere_while_the_source_is_the_same(engine: Engine) -> None:
    from airflow.sdk import task

    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
    from tests.stepped import shapes

    @task
    def both() -> None:
        hook = CoveoPushHook()
        hook.push_items("two", [_item("docs")])
        hook.push_items("one", [_item("docs")])
        hook.delete_item("two", "https://example.com/products")

    with (
        shapes.a_dag("both") as dag,
        shapes.bracket(source_id="{{ var.value.s }}", delete_old_items=True),
    ):
        both()
    engine.add(dag)
    engine.set_variable("s", "one")
    engine.trigger("a", "both")
    engine.settle()
    assert engine.run_states() == {"a": "success"}
    assert _pushed_by(engine, "a") == {"one": ["both"], "two": ["both"]}
