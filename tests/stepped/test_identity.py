"""The identity of a bracket's run and source: a run with a deleted run's ID, a list in another order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.stepped.engine import Engine

_DAY = 86400


def _items_named_by_variable() -> list[dict[str, str]]:
    from airflow.sdk import Variable

    names = Variable.get("names").split()
    return [{"documentId": f"https://example.com/{name}", "data": name} for name in names]


def _deleting(dag_id: str) -> Any:
    """Return a DAG that pushes the items that a Variable names, and deletes all others."""
    from airflow.sdk import task

    from airflow_provider_coveo.operators.coveo_push import PushItemsOperator
    from tests.stepped import shapes

    with shapes.a_dag(dag_id) as dag, shapes.bracket(delete_old_items=True):
        items = task(_items_named_by_variable, task_id="read")()
        PushItemsOperator(task_id="push", source_id="one", items=items) >> shapes.work.override(
            task_id="after_push"
        )("two")
    return dag


def _delete_and_create_again(engine: Engine, key: str = "a") -> None:
    engine.delete_run(key)
    engine.let_time_pass(_DAY)
    engine.create_again(key)


def test_a_run_with_a_deleted_runs_id_deletes_nothing_for_what_that_one_pushed(engine: Engine) -> None:
    engine.add(_deleting("inputs"))
    for number in range(3):
        engine.push_as_somebody_else("one", f"old{number}")
    engine.set_variable("names", "old0")
    engine.trigger("a", "inputs")
    engine.tell("a", "after_push", "fail")
    engine.settle()
    engine.set_variable("names", "")
    _delete_and_create_again(engine)
    engine.settle()
    assert engine.run_states()["a"] == "failed", engine.story()
    assert "NothingWasPushed" in [type(error).__name__ for _, error in engine.errors], engine.story()
    assert {"old1", "old2"} <= set(engine.items("one").split()), engine.story()


def test_a_run_with_a_deleted_runs_id_has_a_cut_off_of_its_own(engine: Engine) -> None:
    engine.add(_deleting("inputs_again"))
    engine.set_variable("names", "first")
    engine.trigger("a", "inputs_again")
    engine.settle()
    engine.push_as_somebody_else("one", "between")
    engine.set_variable("names", "second")
    _delete_and_create_again(engine)
    engine.settle()
    assert engine.run_states()["a"] == "success", engine.story()
    assert engine.items("one").split() == ["second"], engine.story()


def test_a_later_attempt_in_a_run_with_a_deleted_runs_id_opens_its_own_source(engine: Engine) -> None:
    from airflow_provider_coveo.operators.coveo_push import PushItemsOperator
    from tests.stepped import shapes

    source = "{{ var.value.s }}"
    items = [{"documentId": "https://example.com/for-two", "data": "new"}]
    with (
        shapes.a_dag("named_and_retried", default_args={"retries": 1}) as dag,
        shapes.bracket(source_id=source),
    ):
        PushItemsOperator(task_id="work1", source_id=source, items=items)
    engine.add(dag)
    engine.set_variable("s", "one")
    engine.trigger("a", "named_and_retried")
    engine.settle()
    before = engine.sequence("one")
    engine.delete_run("a")
    engine.rest("DELETE", "/variables/s")
    engine.let_time_pass(_DAY)
    engine.create_again("a")
    for _ in range(6):
        engine.tick()
        for actor in engine.runnable():
            engine.finish(actor.name)
        if engine.tries("a")["open"].startswith("up_for_retry"):
            break
    engine.set_variable("s", "two")
    engine.settle()
    assert engine.tries("a")["open"].endswith("#2"), engine.story()
    assert engine.sequence("one") == before, engine.story()
    assert engine.sequence("two") == "REBUILD push IDLE", engine.story()


@pytest.mark.parametrize("how", ["dry run", "not rendered"])
def test_a_run_with_a_deleted_runs_id_that_opens_nothing_closes_nothing(engine: Engine, how: str) -> None:
    from airflow.providers.standard.operators.empty import EmptyOperator

    from tests.stepped import shapes

    is_dry = how == "dry run"
    options = {"dry_run": "{{ var.value.s == 'dry' }}"} if is_dry else {"source_id": "{{ var.value.s }}"}
    with shapes.a_dag(f"opens_nothing_{is_dry}") as dag, shapes.bracket(**options):
        if is_dry:
            EmptyOperator(task_id="work1")
        else:
            shapes.work.override(task_id="work1")()
    engine.add(dag)
    engine.set_variable("s", "one")
    engine.trigger("a", dag.dag_id)
    engine.settle()
    assert engine.run_states()["a"] == "success", engine.story()
    engine.delete_run("a")
    if is_dry:
        engine.set_variable("s", "dry")
    else:
        engine.rest("DELETE", "/variables/s")
    engine.let_time_pass(_DAY)
    engine.set_status_as_somebody_else("one", "REFRESH")
    engine.create_again("a")
    engine.settle()
    assert engine.last_status("one") == "REFRESH", engine.story()
    assert engine.run_states()["a"] == ("success" if is_dry else "failed"), engine.story()
