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


def _mapped(dag_id: str, *, by_operator: bool) -> Any:
    """Return a DAG with a bracket for each source in a Variable; each item is named after its source."""
    from airflow.sdk import Variable, task, task_group

    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
    from airflow_provider_coveo.operators.coveo_push import PushItemsOperator
    from tests.stepped import shapes

    def item(source_id: str) -> dict[str, Any]:
        return {"documentId": f"https://example.com/of-{source_id}", "data": source_id}

    with shapes.a_dag(dag_id) as dag:

        @task
        def ids() -> list[str]:
            return str(Variable.get("ids")).split(",")

        @task
        def read(source_id: str) -> list[dict[str, Any]]:
            return [item(source_id)]

        @task(task_id="push")
        def push_with_hook(source_id: str) -> None:
            CoveoPushHook().add_or_update_item(source_id, item(source_id))

        @task_group
        def each(source_id: str) -> None:
            with shapes.bracket(source_id=source_id, group_id="update", delete_old_items=True):
                if by_operator:
                    PushItemsOperator(task_id="push", source_id=source_id, items=read(source_id))
                else:
                    push_with_hook(source_id)

        each.expand(source_id=ids())
    return dag


def _play_first_pass(engine: Engine, dag_id: str, *, by_operator: bool) -> None:
    engine.add(_mapped(dag_id, by_operator=by_operator))
    engine.set_variable("ids", "one,two")
    for source in ("one", "two"):
        engine.push_as_somebody_else(source)
    engine.trigger("a", dag_id)
    engine.settle()
    assert engine.run_states()["a"] == "success", engine.story()


@pytest.mark.parametrize("by_operator", [True, False])
@pytest.mark.parametrize("after", ["two,one", "two", "one,two,three", "two,three,one"])
def test_a_map_index_opens_the_source_that_the_list_has_after_a_clear(
    engine: Engine, after: str, by_operator: bool
) -> None:
    dag_id = f"listed_{by_operator}_{after.replace(',', '_')}"
    _play_first_pass(engine, dag_id, by_operator=by_operator)
    engine.set_variable("ids", after)
    engine.clear_run("a")
    engine.settle()
    # Airflow may set the teardowns of an index that was removed to upstream_failed, which fails the run.
    assert engine.run_states()["a"] == "success" or after == "two", engine.story()
    assert not engine.errors, engine.story()
    for source in {"one", "two", *after.split(",")}:
        # The item of the first pass is older than the last opening, and stays.
        assert engine.items(source) == f"of-{source}", engine.story()
        assert engine.last_status(source) == "IDLE", engine.story()
    for source in after.split(","):
        passes = 1 if source == "three" else 2
        assert engine.sequence(source).count("REBUILD push") == passes, engine.story()


@pytest.mark.parametrize("by_operator", [True, False])
def test_a_task_that_is_cleared_without_open_does_not_push_for_another_source(
    engine: Engine, by_operator: bool
) -> None:
    dag_id = f"listed_alone_{by_operator}"
    _play_first_pass(engine, dag_id, by_operator=by_operator)
    before = engine.sequence("one"), engine.sequence("two")
    engine.set_variable("ids", "two,one")
    tasks = ["ids", *(["read[0]", "read[1]"] if by_operator else []), "push[0]", "push[1]"]
    engine.clear("a", *tasks, downstream=False, upstream=False, only_failed=False)
    # From 3.3 on, Airflow clears the setups of a task with it.
    engine.mark("a", "open[0]", "success")
    engine.mark("a", "open[1]", "success")
    engine.settle()
    errors = [str(error) for _, error in engine.errors if type(error).__name__ == "MappedSourceChanged"]
    assert len(errors) == 2, engine.story()
    assert all("Clear each.update.open with it" in error for error in errors)
    for source, sequence in zip(("one", "two"), before, strict=True):
        assert engine.sequence(source).removeprefix(sequence).strip() in {"", "IDLE"}, engine.story()


def test_a_map_index_that_may_have_left_a_source_open_closes_it_and_opens_no_other(engine: Engine) -> None:
    _play_first_pass(engine, "listed_open", by_operator=False)
    engine.clear_run("a")
    engine.until("a.push[0]", "request", "push")
    engine.set_variable("ids", "three,two")
    engine.clear_run("a")
    engine.settle()
    assert "MappedSourceChanged" in [type(error).__name__ for _, error in engine.errors], engine.story()
    assert engine.run_states()["a"] == "failed", engine.story()
    assert engine.last_status("one") == "IDLE", engine.story()
    assert "push" not in engine.sequence("three"), engine.story()
    engine.clear_run("a")
    engine.settle()
    assert engine.run_states()["a"] == "success", engine.story()
    assert engine.sequence("three").startswith("REBUILD push"), engine.story()
    assert engine.last_status("three") == "IDLE", engine.story()
