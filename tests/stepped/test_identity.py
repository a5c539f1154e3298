"""The identity of a bracket's run and source: a run with a deleted run's ID, a list in another order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.stepped.steps import leave_active, play_all_but, start_together, step_to

if TYPE_CHECKING:
    from tests.stepped.engine import Engine

_DAY = 86400


@pytest.fixture
def variables_as_task_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the state of tasks in Variables, as before 3.3."""
    from airflow_provider_coveo.state import task_store

    init = task_store.RunState.__init__
    monkeypatch.setattr(
        task_store.RunState,
        "__init__",
        lambda self, context: init(self, {**context, "task_state_store": None}),
    )


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


def _push_one_of_three_and_create_again(engine: Engine, dag_id: str) -> None:
    """Let a run push one of three items and fail; one with its ID then has nothing to push."""
    for number in range(3):
        engine.push_as_somebody_else("one", f"old{number}")
    engine.set_variable("names", "old0")
    engine.trigger("a", dag_id)
    engine.tell("a", "after_push", "fail")
    engine.settle()
    engine.set_variable("names", "")
    _delete_and_create_again(engine)


def test_a_run_with_a_deleted_runs_id_deletes_nothing_for_what_that_one_pushed(engine: Engine) -> None:
    engine.add(_deleting("inputs"))
    _push_one_of_three_and_create_again(engine, "inputs")
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


def _two_brackets(dag_id: str, source: str = "one") -> Any:
    """Return a DAG with a bracket of source two, and then one that pushes the items named by a Variable."""
    from airflow.sdk import task

    from airflow_provider_coveo.operators.coveo_push import PushItemsOperator
    from tests.stepped import shapes

    with shapes.a_dag(dag_id) as dag:
        with shapes.bracket(group_id="first", source_id="two") as first:
            shapes.work.override(task_id="work1")("two")
        with shapes.bracket(group_id="second", source_id=source, delete_old_items=True) as second:
            items = task(_items_named_by_variable, task_id="read")()
            PushItemsOperator(task_id="push", source_id=source, items=items) >> shapes.work.override(
                task_id="after_push"
            )("two")
        first >> second
    return dag


def test_a_new_run_that_was_cleared_before_a_bracket_opened_deletes_nothing_for_a_deleted_run(
    engine: Engine,
) -> None:
    engine.add(_two_brackets("cleared_between"))
    _push_one_of_three_and_create_again(engine, "cleared_between")
    engine.tell("a", "work1", "fail")
    engine.settle()
    engine.clear_run("a")
    engine.settle()
    assert "NothingWasPushed" in [type(error).__name__ for _, error in engine.errors], engine.story()
    assert {"old1", "old2"} <= set(engine.items("one").split()), engine.story()
    assert engine.run_states()["a"] == "failed", engine.story()


def test_a_new_run_that_was_cleared_before_a_bracket_opened_has_a_source_of_its_own(engine: Engine) -> None:
    engine.add(_two_brackets("cleared_elsewhere", "{{ var.value.s }}"))
    engine.set_variable("names", "item")
    engine.set_variable("s", "one")
    engine.trigger("a", "cleared_elsewhere")
    engine.settle()
    before = engine.sequence("one")
    engine.set_variable("s", "three")
    _delete_and_create_again(engine)
    engine.tell("a", "work1", "fail")
    engine.settle()
    engine.clear_run("a")
    engine.settle()
    assert engine.run_states()["a"] == "success", engine.story()
    assert engine.sequence("one") == before, engine.story()
    assert engine.last_status("three") == "IDLE", engine.story()
    assert "REBUILD push" in engine.sequence("three"), engine.story()


def _both_on_one(dag_id: str, *, second: bool = True, first_is_bracket: bool = True) -> Any:
    """Return a DAG that pushes to source one, and then again in a bracket that deletes old items."""
    from contextlib import nullcontext

    from tests.stepped import shapes

    with shapes.a_dag(dag_id) as dag:
        with shapes.bracket(group_id="first") if first_is_bracket else nullcontext() as bracket:
            first = shapes.work.override(task_id="work1")()
        between = shapes.work.override(task_id="between")("three")
        (bracket or first) >> between
        if second:
            with shapes.bracket(group_id="second", delete_old_items=True) as deleting:
                shapes.work.override(task_id="work2")()
            between >> deleting
    return dag


def _set_to_queued(engine: Engine) -> None:
    engine.rest("PATCH", engine._run_path("a"), {"state": "queued"})


@pytest.mark.parametrize(
    "how", ["cleared", "cleared, then queued", "queued in between", "queued for new tasks"]
)
def test_a_run_that_starts_again_keeps_what_it_pushed_before(engine: Engine, how: str) -> None:
    """Only a clear of an ended run is counted by Airflow; each of these starts it again."""
    dag_id = f"starts_again_{how.replace(' ', '_').replace(',', '')}"
    engine.add(_both_on_one(dag_id, second=how != "queued for new tasks"))
    engine.push_as_somebody_else("one", "old")
    engine.trigger("a", dag_id)
    if how.startswith("cleared"):
        engine.tell("a", "between", "fail")
    if how == "queued in between":
        engine.until("a.between", "request", "push")
    else:
        engine.settle()
    engine.let_time_pass(60)
    if how == "cleared":
        engine.clear_run("a", only_failed=True)
    elif how == "cleared, then queued":
        order = {"dry_run": False, "dag_run_id": "a", "only_failed": True, "reset_dag_runs": False}
        engine.rest("POST", f"/dags/{dag_id}/clearTaskInstances", order)
        _set_to_queued(engine)
    elif how == "queued in between":
        _set_to_queued(engine)
    else:
        engine.change(_both_on_one(dag_id))
        _set_to_queued(engine)
    engine.settle()
    assert engine.run_states()["a"] == "success", engine.story()
    assert engine.sequence("one").endswith("delete-old IDLE"), engine.story()
    assert set(engine.items("one").split()) == {"a/work1/-1/0", "a/work2/-1/0"}, engine.story()


def test_a_run_that_starts_again_remembers_a_push_without_a_bracket(engine: Engine) -> None:
    engine.add(_both_on_one("starts_again_outside", first_is_bracket=False))
    engine.trigger("a", "starts_again_outside")
    engine.until("a.between", "request", "push")
    engine.let_time_pass(60)
    _set_to_queued(engine)
    engine.settle()
    assert "UnknownFirstOpening" in [type(error).__name__ for _, error in engine.errors], engine.story()
    assert set(engine.items("one").split()) == {"a/work1/-1/0", "a/work2/-1/0"}, engine.story()


def _exclusive(dag_id: str, source: str = "one") -> Any:
    from tests.stepped import shapes

    with shapes.a_dag(dag_id) as dag, shapes.bracket(source_id=source, exclusive=True):
        shapes.work.override(task_id="work1")() >> shapes.work.override(task_id="work2")()
    return dag


@pytest.mark.parametrize("source", ["one", "two"])
def test_a_run_with_a_deleted_runs_id_closes_what_that_one_left_active(engine: Engine, source: str) -> None:
    engine.add(_exclusive(f"left_active_{source}", "{{ var.value.s }}"))
    engine.set_variable("s", "one")
    engine.trigger("a", f"left_active_{source}")
    leave_active(engine)
    engine.set_variable("s", source)
    _delete_and_create_again(engine)
    engine.settle()
    assert engine.last_status("one") == "IDLE", engine.story()
    assert engine.last_status(source) == "IDLE", engine.story()
    assert engine.run_states()["a"] == "success", engine.story()


def test_a_run_with_a_deleted_runs_id_tries_again_if_it_can_not_close_what_that_one_left(
    engine: Engine,
) -> None:
    from tests.stepped import shapes

    with shapes.a_dag("left_active_again", default_args={"retries": 1}) as dag, shapes.bracket():
        shapes.work.override(task_id="work1")() >> shapes.work.override(task_id="work2")()
    engine.add(dag)
    engine.trigger("a", "left_active_again")
    leave_active(engine)
    _delete_and_create_again(engine)
    engine.until("a.open", "request", "IDLE")
    engine.step("a.open", "refuse-later:503")
    engine.settle()
    assert engine.tries("a")["open"].endswith("#2"), engine.story()
    assert engine.last_status("one") == "IDLE", engine.story()
    assert engine.run_states()["a"] == "success", engine.story()


def test_a_run_with_a_deleted_runs_id_waits_as_long_as_any_other(engine: Engine) -> None:
    engine.add(_exclusive("waits_again"))
    engine.set_status_as_somebody_else("one", "REFRESH")
    engine.trigger("a", "waits_again")

    def play() -> None:
        for _ in range(8):
            engine.tick()
            for actor in engine.runnable():
                engine.finish(actor.name)

    play()
    assert engine.tries("a")["open"].startswith("deferred"), engine.story()
    engine.mark_run("a", "failed")
    engine.settle()
    _delete_and_create_again(engine)
    play()
    assert engine.tries("a")["open"].startswith("deferred"), engine.story()


def _side_by_side(dag_id: str) -> Any:
    from tests.stepped import shapes

    with shapes.a_dag(dag_id) as dag, shapes.bracket(exclusive=True):
        shapes.work.override(task_id="work1")()
        shapes.work.override(task_id="work2")()
    return dag


@pytest.mark.parametrize(
    "order", ["one after the other", "second claims while the first waits", "second claims after the first"]
)
def test_tasks_of_an_exclusive_bracket_open_it_again_together(engine: Engine, order: str) -> None:
    dag_id = f"together_{order.replace(' ', '_')}"
    engine.add(_side_by_side(dag_id))
    engine.trigger("a", dag_id)
    engine.tell("a", "work1", "fail")
    engine.tell("a", "work2", "fail")
    engine.settle()
    engine.clear("a", "work1", "work2", downstream=True, upstream=False, only_failed=False)
    # From 3.3 on, Airflow clears the setups of a task with it.
    engine.mark("a", "open", "success")
    start_together(engine, "a.work1", "a.work2")

    for name in ("a.work1", "a.work2"):
        engine.actor(name).actor.stops_at_each_wait = True

    if order == "second claims while the first waits":
        step_to(engine, "a.work1", "wait")
        step_to(engine, "a.work2", "wait")
    elif order == "second claims after the first":
        step_to(engine, "a.work1", "answered", "GET")
        step_to(engine, "a.work2", "wait")
    names = ["a.work1", "a.work2"]
    if order == "one after the other":
        engine.finish("a.work1")
        names = ["a.work2"]
    while names:
        for name in list(names):
            engine.step(name)
            if not any(process.actor.name == name for process in engine.processes):
                names.remove(name)
    engine.settle()
    assert not [error for _, error in engine.errors if "in use" in str(error)], engine.story()
    assert engine.run_states()["a"] == "success", engine.story()
    assert engine.last_status("one") == "IDLE", engine.story()


@pytest.mark.parametrize("in_list", [True, False])
@pytest.mark.parametrize("options", [{"exclusive": True}, {}])
def test_no_map_index_deletes_what_another_one_has_not_pushed_yet(
    engine: Engine, options: dict[str, Any], in_list: bool
) -> None:
    from airflow.sdk import task, task_group

    from tests.stepped import shapes

    dag_id = f"shared_{len(options)}_{in_list}"
    # The map indexes run one after the other.
    with shapes.a_dag(dag_id, max_active_tasks=1, default_args={"weight_rule": "upstream"}) as dag:

        @task
        def sources() -> list[str]:
            return ["one", "two", "one"]

        @task_group
        def each(source_id: str) -> None:
            source = source_id if in_list else "one"
            with shapes.bracket(source_id=source, group_id="update", delete_old_items=True, **options):
                shapes.work.override(task_id="push")(source)

        each.expand(source_id=sources())
    engine.add(dag)
    for source in ("one", "two"):
        engine.push_as_somebody_else(source, "old")
    engine.trigger("a", dag_id)
    engine.tell("a", "push[2]", "fail")
    engine.settle()
    assert "old" in engine.items("one").split(), engine.story()
    assert "SharedByMapIndexes" in [type(error).__name__ for _, error in engine.errors], engine.story()
    if in_list:
        assert "old" not in engine.items("two").split(), engine.story()


@pytest.mark.parametrize(
    "template", ["ti.xcom_pull(task_ids='each.name', map_indexes=ti.map_index)", "listed"]
)
def test_a_template_of_the_map_index_names_the_source_that_the_list_has_after_a_clear(
    engine: Engine, template: str
) -> None:
    from airflow.sdk import Variable, task, task_group

    from airflow_provider_coveo.operators.coveo_push import PushItemsOperator
    from tests.stepped import shapes

    listed = template == "listed"
    source = "{{ var.value.ids.split(',')[ti.map_index] }}" if listed else f"{{{{ {template} }}}}"
    dag_id = f"template_{listed}"
    with shapes.a_dag(dag_id) as dag:

        @task
        def ids() -> list[str]:
            return str(Variable.get("ids")).split(",")

        @task
        def name(source_id: str) -> str:
            return source_id

        @task
        def read(source_id: str) -> list[dict[str, Any]]:
            return [{"documentId": f"https://example.com/of-{source_id}", "data": source_id}]

        @task_group
        def each(source_id: str) -> None:
            named = name(source_id)
            with shapes.bracket(source_id=source, group_id="update", delete_old_items=True) as update:
                PushItemsOperator(task_id="push", source_id=source, items=read(source_id))
            named >> update

        each.expand(source_id=ids())
    engine.add(dag)
    engine.set_variable("ids", "one,two")
    engine.trigger("a", dag_id)
    engine.settle()
    assert engine.run_states()["a"] == "success", engine.story()
    engine.set_variable("ids", "two,one")
    engine.clear_run("a")
    engine.settle()
    assert engine.run_states()["a"] == "success", engine.story()
    for each_source in ("one", "two"):
        assert engine.items(each_source) == f"of-{each_source}", engine.story()


def test_a_late_request_for_the_source_that_a_map_index_had_leaves_no_source_active(engine: Engine) -> None:
    engine.add(_mapped("late_request", by_operator=False))
    engine.set_variable("ids", "one,two")
    engine.trigger("a", "late_request")
    engine.until("a.open[0]", "request", "REBUILD")
    late = engine.actor("a.open[0]")
    engine.mark_run("a", "failed")
    for _ in range(6):
        engine.tick()
        for process in list(engine.processes):
            if process is not late and not process.actor.name.startswith("a.outcome"):
                engine.finish(process.actor.name)
    engine.set_variable("ids", "three,two")
    engine.clear_run("a")
    for _ in range(5):
        engine.tick()
        for process in list(engine.processes):
            if process is not late and process.actor.name != "a.push[0]":
                engine.finish(process.actor.name)
    while not late.actor.ended:
        engine._step(late)
    engine.settle()
    engine.clear_run("a")
    engine.settle()
    assert "REBUILD push" in engine.sequence("three"), engine.story()
    for source in ("one", "two", "three"):
        assert engine.last_status(source) == "IDLE", engine.story()


@pytest.mark.parametrize("by_template", [False, True])
def test_a_map_index_that_waits_for_its_new_source_does_not_share_that_of_another(
    engine: Engine, by_template: bool
) -> None:
    from airflow.sdk import Variable, task, task_group

    from tests.stepped import shapes

    template = "{{ var.value.ids.split(',')[ti.map_index] }}"
    with shapes.a_dag(f"waits_for_another_{by_template}") as dag:

        @task
        def ids() -> list[str]:
            return str(Variable.get("ids")).split(",")

        @task_group
        def each(source_id: str) -> None:
            options = {"delete_old_items": True, "exclusive": True, "group_id": "update"}
            with shapes.bracket(source_id=template if by_template else source_id, **options):
                shapes.work.override(task_id="push")(source_id)

        each.expand(source_id=ids())
    engine.add(dag)
    engine.set_variable("ids", "one,two")
    engine.trigger("a", dag.dag_id)
    engine.settle()
    engine.set_variable("ids", "two,one")
    engine.set_status_as_somebody_else("one", "REFRESH")
    engine.clear_run("a")
    for _ in range(20):
        engine.tick()
        for actor in list(engine.runnable()):
            engine.finish(actor.name)
    assert engine.tries("a")["open[1]"].startswith("deferred"), engine.story()
    engine.set_status_as_somebody_else("one", "IDLE")
    engine.settle()
    assert engine.run_states()["a"] == "success", (engine.story(), engine.errors)


def test_a_map_index_of_a_member_that_is_no_longer_listed_does_not_keep_old_items(engine: Engine) -> None:
    from airflow.sdk import Variable, task

    from tests.stepped import shapes

    with shapes.a_dag("fewer_parts") as dag, shapes.bracket(delete_old_items=True):

        @task
        def parts() -> list[str]:
            return ["one"] * int(Variable.get("parts"))

        shapes.work.override(task_id="push").expand(source_id=parts())
    engine.add(dag)
    engine.push_as_somebody_else("one", "old")
    engine.set_variable("parts", "3")
    engine.trigger("a", "fewer_parts")
    engine.tell("a", "push[1]", "fail")
    engine.settle()
    engine.set_variable("parts", "1")
    engine.clear_run("a")
    engine.settle()
    assert engine.run_states()["a"] == "success", (engine.story(), engine.errors)
    assert "old" not in engine.items("one").split(), engine.story()


@pytest.mark.usefixtures("variables_as_task_store")
def test_a_run_with_a_deleted_runs_id_resumes_nothing_of_that_one(engine: Engine) -> None:
    """Before 3.3, the records of pushes are in Variables, which are not deleted with a run."""
    from airflow_provider_coveo.operators.coveo_push import PushItemsOperator
    from tests.stepped import shapes

    items = [{"documentId": f"https://example.com/i{n}", "data": "abcd"[n] * 900} for n in range(4)]
    with shapes.a_dag("resumes") as dag, shapes.bracket(delete_old_items=True):
        shapes.work.override(task_id="prepare")("three") >> PushItemsOperator(
            task_id="push", source_id="one", items=items, batch_bytes=1024
        )
    engine.add(dag)
    engine.push_as_somebody_else("one", "old")
    engine.trigger("a", "resumes")
    engine.until("a.push", "request", "push")
    pushes = 1
    while pushes < 3:
        engine.step("a.push")
        actor = engine.actor("a.push").actor
        pushes += actor.at == "request" and "push" in actor.what
    engine.step("a.push", "refuse-later:503")
    engine.finish("a.push")
    engine.settle()
    assert len(engine.items("one").split()) == 3, engine.story()
    _delete_and_create_again(engine)
    engine.tell("a", "prepare", "fail")
    engine.settle()
    engine.clear_run("a")
    engine.settle()
    assert engine.run_states()["a"] == "success", (engine.story(), engine.errors)
    assert set(engine.items("one").split()) == {"i0", "i1", "i2", "i3"}, engine.story()


@pytest.mark.parametrize("named", ["one", "{{ var.value.s }}"])
@pytest.mark.parametrize("result", ["success", "fail", "skip"])
def test_no_bracket_deletes_what_another_one_of_the_run_has_not_pushed_yet(
    engine: Engine, result: str, named: str
) -> None:
    from tests.stepped import shapes

    with shapes.a_dag(f"beside_{result}_{named.isalpha()}") as dag:
        for name, source in (("first", "one"), ("second", named)):
            with shapes.bracket(group_id=name, source_id=source, delete_old_items=True):
                shapes.work.override(task_id=f"of_{name}")()
    engine.add(dag)
    engine.set_variable("s", "one")
    engine.push_as_somebody_else("one", "old")
    engine.trigger("a", dag.dag_id)
    if result != "success":
        engine.tell("a", "of_second", result)

    play_all_but(engine, "a.of_second")
    assert "old" in engine.items("one").split(), engine.story()
    engine.settle()
    assert ("old" in engine.items("one").split()) is (result != "success"), engine.story()
    assert engine.run_states()["a"] == ("failed" if result == "fail" else "success"), engine.story()


def test_a_bracket_keeps_the_old_items_of_one_beside_it_that_skipped_its_push(engine: Engine) -> None:
    from tests.stepped import shapes

    with shapes.a_dag("beside_that_skips_first") as dag:
        for name in ("first", "second"):
            with shapes.bracket(group_id=name, delete_old_items=True):
                shapes.work.override(task_id=f"of_{name}")()
    engine.add(dag)
    engine.push_as_somebody_else("one", "old")
    engine.trigger("a", dag.dag_id)
    engine.tell("a", "of_second", "skip")
    # Whichever ends last.
    play_all_but(engine, "a.of_first")
    engine.settle()
    assert "old" in engine.items("one").split(), engine.story()
    assert engine.run_states()["a"] == "success", engine.story()


def test_a_bracket_deletes_old_items_before_one_that_follows_it(engine: Engine) -> None:
    from tests.stepped import shapes

    with shapes.a_dag("full_then_changes") as dag:
        with shapes.bracket(group_id="full", delete_old_items=True) as full:
            shapes.work.override(task_id="work1")()
        with shapes.bracket(group_id="changes", status="INCREMENTAL") as changes:
            shapes.work.override(task_id="work2")()
        full >> changes
    engine.add(dag)
    engine.push_as_somebody_else("one", "old")
    engine.trigger("a", "full_then_changes")
    engine.settle()
    assert set(engine.items("one").split()) == {"a/work1/-1/0", "a/work2/-1/0"}, engine.story()


def test_a_map_index_whose_open_was_killed_opens_another_source_later(engine: Engine) -> None:
    engine.add(_mapped("killed_open", by_operator=False))
    engine.set_variable("ids", "one,two")
    engine.trigger("a", "killed_open")
    engine.until("a.open[0]", "request", "REBUILD")
    engine.kill("a.open[0]")
    engine.notice("a.open[0]")
    engine.settle()
    engine.set_variable("ids", "three,two")
    engine.let_time_pass(3600)
    engine.clear_run("a")
    engine.settle()
    assert "REBUILD push" in engine.sequence("three"), (engine.story(), engine.errors)
    assert engine.last_status("one") == engine.last_status("three") == "IDLE", engine.story()


@pytest.mark.usefixtures("variables_as_task_store")
def test_a_retry_keeps_its_state_if_another_task_of_the_running_run_is_cleared(engine: Engine) -> None:
    """From 3.2 on, Airflow counts that as a clear of the run."""
    from airflow_provider_coveo.operators.coveo_push import ResetPushSourceOperator
    from tests.stepped import shapes

    with shapes.a_dag("resets", default_args={"retries": 1}) as dag:
        ResetPushSourceOperator(task_id="reset", source_id="one", queue_delay=0)
        shapes.work.override(task_id="aside", retries=0)("three")
    engine.add(dag)
    engine.push_as_somebody_else("one", "old")
    engine.trigger("a", "resets")
    engine.until("a.reset", "request", "delete-old")
    engine.step("a.reset", "refuse-later:503")
    engine.finish("a.reset")
    engine.tick()
    engine.push_as_somebody_else("one", "new")
    engine.clear("a", "aside", downstream=False, upstream=False, only_failed=False)
    engine.let_time_pass(60)
    engine.settle()
    assert engine.items("one") == "new", engine.story()


def _one_for_each_number(dag_id: str, count: int) -> Any:
    """Return a DAG with a bracket for each result of a mapped task."""
    from airflow.sdk import task, task_group

    from tests.stepped import shapes

    with shapes.a_dag(dag_id) as dag:

        @task
        def name(number: int) -> str:
            return ["one", "two", "three"][number]

        @task_group
        def each(source_id: str) -> None:
            with shapes.bracket(source_id=source_id, group_id="update", delete_old_items=True):
                shapes.work.override(task_id="push")(source_id)

        each.expand(source_id=name.expand(number=list(range(count))))
    return dag


def test_the_sources_of_all_map_indexes_are_read_in_one_request(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.execution_time import lazy_sequence

    from airflow_provider_coveo.bracket import delete_task

    keys: list[object] = []
    get, find = lazy_sequence.LazyXComSequence.__getitem__, delete_task.indexes_of_source

    def counting(*arguments: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(
                lazy_sequence.LazyXComSequence,
                "__getitem__",
                lambda self, key: (keys.append(key), get(self, key))[1],
            )
            return find(*arguments)

    monkeypatch.setattr(delete_task, "indexes_of_source", counting)
    engine.add(_one_for_each_number("read_at_once", 3))
    engine.trigger("a", "read_at_once")
    engine.settle()
    assert engine.run_states()["a"] == "success", (engine.story(), engine.errors)
    assert keys == [slice(None)] * 3


@pytest.mark.parametrize("arguments", ["one", "two"])
def test_a_map_index_whose_bracket_is_skipped_shares_no_source(engine: Engine, arguments: str) -> None:
    from airflow.sdk import task, task_group
    from airflow.sdk.exceptions import AirflowSkipException

    from tests.stepped import shapes

    with shapes.a_dag(f"skipped_index_{arguments}") as dag:

        @task
        def wanted(number: int) -> None:
            if number != 1:
                raise AirflowSkipException("not this one")

        @task_group
        def each(number: int, source_id: str) -> None:
            options = {"source_id": source_id, "group_id": "update", "delete_old_items": True}
            with shapes.bracket(**options) as update:
                shapes.work.override(task_id="push")("one")
            wanted(number) >> update

        if arguments == "one":
            each.partial(source_id="one").expand(number=[0, 1, 2])
        else:
            each.expand(source_id=["one"], number=[0, 1, 2])
    engine.add(dag)
    engine.push_as_somebody_else("one", "old")
    engine.trigger("a", dag.dag_id)
    engine.settle()
    assert engine.run_states()["a"] == "success", (engine.story(), engine.errors)
    assert "old" not in engine.items("one").split(), engine.story()


def test_map_indexes_over_a_product_share_a_source_by_their_positions(engine: Engine) -> None:
    from airflow.sdk import task_group

    from tests.stepped import shapes

    with shapes.a_dag("product") as dag:

        @task_group
        def each(source_id: str, part: int) -> None:
            with shapes.bracket(source_id=source_id, group_id="update", delete_old_items=True):
                shapes.work.override(task_id="push")("one")

        each.expand(source_id=["one", "two"], part=[0, 1])
    engine.add(dag)
    engine.trigger("a", "product")
    engine.settle()
    errors = sorted(
        str(error).partition("(")[2].partition(")")[0]
        for _, error in engine.errors
        if type(error).__name__ == "SharedByMapIndexes"
    )
    # Those of two have pushed nothing to their source; the check comes first.
    assert errors == ["0, 1", "0, 1", "2, 3", "2, 3"], (engine.story(), engine.errors)


def test_many_tasks_of_an_exclusive_bracket_that_start_one_after_the_other_open_it_again(
    engine: Engine,
) -> None:
    from tests.stepped import shapes

    count = 6
    with shapes.a_dag("late_siblings") as dag, shapes.bracket(exclusive=True):
        shapes.work_on.override(task_id="work").expand(number=list(range(count)))
    engine.add(dag)
    engine.trigger("a", "late_siblings")
    for index in range(count):
        engine.tell("a", f"work[{index}]", "fail")
    engine.settle()
    engine.clear("a", "work", downstream=True, upstream=False, only_failed=False)
    engine.mark("a", "open", "success")
    start_together(engine, f"a.work[{count - 1}]")
    for index in range(count):
        engine.actor(f"a.work[{index}]").actor.stops_at_each_wait = True
    # Each further one starts while the first one settles its claim.
    for started in range(1, count + 1):
        for index in reversed(range(started)):
            name = f"a.work[{index}]"
            if any(process.actor.name == name for process in engine.processes):
                engine.step(name)
        engine.let_time_pass(26)
    names = [f"a.work[{index}]" for index in range(count)]
    while names:
        for name in list(names):
            if any(process.actor.name == name for process in engine.processes):
                engine.step(name)
            else:
                names.remove(name)
    engine.settle()
    assert not [error for _, error in engine.errors if "in use" in str(error)], engine.story()
    assert engine.run_states()["a"] == "success", engine.story()


def test_a_run_that_starts_again_remembers_a_task_that_opened_instead_of_its_open(engine: Engine) -> None:
    engine.add(_both_on_one("starts_again_marked"))
    engine.trigger("a", "starts_again_marked")
    engine.tick()
    engine.mark("a", "first.open", "success")
    engine.until("a.between", "request", "push")
    engine.let_time_pass(60)
    _set_to_queued(engine)
    engine.settle()
    assert "UnknownFirstOpening" in [type(error).__name__ for _, error in engine.errors], engine.story()
    assert set(engine.items("one").split()) == {"a/work1/-1/0", "a/work2/-1/0"}, engine.story()


def test_a_bracket_beside_counts_by_the_source_that_it_opened(engine: Engine) -> None:
    from airflow.sdk import task, task_group

    from tests.stepped import shapes

    with shapes.a_dag("beside_opened") as dag:
        with shapes.bracket(group_id="first", delete_old_items=True):
            shapes.work.override(task_id="of_first")()
        with shapes.bracket(group_id="second", source_id="{{ var.value.s }}"):
            shapes.work.override(task_id="of_second")()

        @task
        def name(number: int) -> str:
            return ["one", "two"][number]

        @task_group
        def each(number: int) -> None:
            with shapes.bracket(group_id="update", source_id=name(number)):
                shapes.work.override(task_id="of_each")()

        each.expand(number=[0, 1])
    engine.add(dag)
    engine.set_variable("s", "one")
    engine.push_as_somebody_else("one", "old")
    engine.trigger("a", "beside_opened")
    held = {"a.of_first", "a.of_second", "a.of_each[0]"}

    play_all_but(engine, *held)
    engine.set_variable("s", "three")
    held.remove("a.of_first")
    play_all_but(engine, *held)
    assert engine.tries("a")["delete_old_items"].startswith("up_for_reschedule"), engine.story()
    assert "old" in engine.items("one").split(), engine.story()


def test_a_dry_bracket_beside_has_pushed_nothing(engine: Engine) -> None:
    from airflow.providers.standard.operators.empty import EmptyOperator

    from tests.stepped import shapes

    with shapes.a_dag("beside_dry") as dag:
        with shapes.bracket(group_id="first", delete_old_items=True):
            shapes.work.override(task_id="of_first")()
        with shapes.bracket(group_id="second", dry_run=True):
            EmptyOperator(task_id="of_second")
    engine.add(dag)
    engine.push_as_somebody_else("one", "old")
    engine.trigger("a", "beside_dry")
    engine.settle()
    assert "old" in engine.items("one").split(), engine.story()


@pytest.mark.parametrize("in_a_row", [False, True])
def test_each_map_index_deletes_although_others_are_at_work_on_other_sources(
    engine: Engine, in_a_row: bool
) -> None:
    from airflow.sdk import task_group

    from tests.stepped import shapes

    with shapes.a_dag(f"mapped_pairs_{in_a_row}") as dag:

        @task_group
        def each(source_id: str) -> None:
            updates = []
            for name in ("first", "second"):
                with shapes.bracket(source_id=source_id, group_id=name, delete_old_items=True) as update:
                    shapes.work.override(task_id=f"of_{name}")(source_id)
                updates.append(update)
            if in_a_row:
                updates[0] >> updates[1]

        each.expand(source_id=["one", "two"])
    engine.add(dag)
    for source in ("one", "two"):
        engine.push_as_somebody_else(source, "old")
    engine.trigger("a", dag.dag_id)
    play_all_but(engine, "a.of_first[1]", rounds=16)
    assert "old" not in engine.items("one").split(), engine.story()
    assert "old" in engine.items("two").split(), engine.story()
    engine.settle()
    assert "old" not in engine.items("two").split(), engine.story()
    assert engine.run_states()["a"] == "success", (engine.story(), engine.errors)


def test_a_bracket_deletes_after_one_in_which_a_branch_skipped_a_task(engine: Engine) -> None:
    from tests.stepped import shapes

    with shapes.a_dag("after_a_branch") as dag:
        with shapes.bracket(group_id="first", status="INCREMENTAL") as first:
            shapes.work.override(task_id="work1")()
            shapes.work.override(task_id="work2")()
        with shapes.bracket(group_id="second", delete_old_items=True) as second:
            shapes.work.override(task_id="work3")()
        first >> second
    engine.add(dag)
    engine.push_as_somebody_else("one", "old")
    engine.trigger("a", "after_a_branch")
    engine.tell("a", "work2", "skip")
    engine.settle()
    assert engine.run_states()["a"] == "success", (engine.story(), engine.errors)
    assert "old" not in engine.items("one").split(), engine.story()


@pytest.mark.parametrize("mapped", [False, True])
def test_a_run_with_a_deleted_runs_id_inherits_nothing_through_a_bracket_that_opens_another_source(
    engine: Engine, mapped: bool
) -> None:
    from airflow.sdk import Variable, task, task_group

    from airflow_provider_coveo.operators.coveo_push import PushItemsOperator
    from tests.stepped import shapes

    with shapes.a_dag(f"announces_another_{mapped}") as dag:
        items = task(_items_named_by_variable, task_id="read")()
        if mapped:

            @task
            def ids() -> list[str]:
                return str(Variable.get("s")).split(",")

            @task
            def for_one(source_id: str, every: list[Any]) -> list[Any]:
                return every if source_id == "one" else [{"documentId": "https://example.com/x", "data": "x"}]

            @task_group
            def each(source_id: str) -> None:
                with shapes.bracket(source_id=source_id, group_id="update", delete_old_items=True):
                    mine = for_one(source_id, items)  # type: ignore[arg-type]
                    push = PushItemsOperator(task_id="push", source_id=source_id, items=mine)
                    push >> shapes.work.override(task_id="after_push")("three")

            each.expand(source_id=ids())
        else:
            with shapes.bracket(group_id="first", source_id="{{ var.value.s }}") as first:
                shapes.work.override(task_id="work1")("three")
            with shapes.bracket(group_id="second", delete_old_items=True) as second:
                push = PushItemsOperator(task_id="push", source_id="one", items=items)
                push >> shapes.work.override(task_id="after_push")("three")
            first >> second
    engine.add(dag)
    for number in range(3):
        engine.push_as_somebody_else("one", f"old{number}")
    engine.set_variable("names", "old0")
    engine.set_variable("s", "one,two" if mapped else "one")
    engine.trigger("a", dag.dag_id)
    engine.tell("a", "after_push[0]" if mapped else "after_push", "fail")
    engine.settle()
    engine.set_variable("names", "")
    engine.set_variable("s", "two,one" if mapped else "two")
    _delete_and_create_again(engine)
    engine.settle()
    assert {"old1", "old2"} <= set(engine.items("one").split()), engine.story()
    assert "NothingWasPushed" in [type(error).__name__ for _, error in engine.errors], engine.story()


def test_a_mapped_bracket_of_another_source_does_not_keep_old_items(engine: Engine) -> None:
    from airflow.sdk import task_group

    from tests.stepped import shapes

    with shapes.a_dag("mapped_elsewhere") as dag:
        with shapes.bracket(group_id="first", delete_old_items=True):
            shapes.work.override(task_id="of_first")()

        @task_group
        def each(part: int) -> None:
            with shapes.bracket(source_id="two", group_id="update"):
                shapes.work.override(task_id="of_each")("two")

        each.expand(part=[0, 1])
    engine.add(dag)
    engine.push_as_somebody_else("one", "old")
    engine.trigger("a", "mapped_elsewhere")
    play_all_but(engine, "a.of_each[1]", rounds=10)
    assert "old" not in engine.items("one").split(), engine.story()
    engine.settle()
    assert engine.run_states()["a"] == "success", engine.story()


@pytest.mark.parametrize("result", ["success", "fail"])
def test_a_bracket_waits_for_one_beside_it_that_deletes_nothing(engine: Engine, result: str) -> None:
    from tests.stepped import shapes

    with shapes.a_dag(f"waits_beside_{result}") as dag:
        with shapes.bracket(group_id="first", delete_old_items=True):
            shapes.work.override(task_id="of_first")()
        with shapes.bracket(group_id="second"):
            shapes.work.override(task_id="of_second")()
    engine.add(dag)
    engine.push_as_somebody_else("one", "old")
    engine.trigger("a", dag.dag_id)
    if result == "fail":
        engine.tell("a", "of_second", "fail")
    play_all_but(engine, "a.of_second")
    assert engine.tries("a")["delete_old_items"].startswith("up_for_reschedule"), engine.story()
    engine.settle()
    assert ("old" in engine.items("one").split()) is (result == "fail"), engine.story()
    assert engine.last_status("one") == "IDLE", engine.story()
    assert engine.run_states()["a"] == ("failed" if result == "fail" else "success"), engine.story()


@pytest.mark.parametrize("how", ["beside", "by the hook", "by a reset"])
def test_a_run_that_pushes_only_changes_deletes_nothing_by_time(
    engine: Engine, tmp_path: Path, how: str
) -> None:
    """On a day on which nothing else has changed the source, it pushes nothing of what is unchanged."""
    from airflow.sdk import task

    from airflow_provider_coveo.coveo.only_changes import OnlyChanges
    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
    from airflow_provider_coveo.operators.coveo_push import PushItemsOperator, ResetPushSourceOperator
    from tests.stepped import shapes

    items = [{"documentId": "https://example.com/kept", "data": "unchanged"}]
    folder = str(tmp_path / "snapshots")
    hook_items, reset = how == "by the hook", how == "by a reset"
    with shapes.a_dag(f"only_changes_{how.replace(' ', '_')}") as dag:

        @task(task_id="work2")
        def push_with_hook() -> None:
            CoveoPushHook().push_items("one", items, changes=OnlyChanges(snapshot_path=folder))

        with shapes.bracket(group_id="first", delete_old_items=not reset) as first:
            work = shapes.work.override(task_id="work1")()
            if hook_items:
                push_with_hook()
            if reset:
                work >> ResetPushSourceOperator(
                    task_id="reset", source_id="one", ordering_id=first.ordering_id, queue_delay=0
                )
        if not hook_items:
            with shapes.bracket(group_id="second", status="INCREMENTAL"):
                options = {"only_changes": True, "snapshot_path": folder}
                PushItemsOperator(task_id="work2", source_id="one", items=items, **options)
    engine.add(dag)

    engine.trigger("a", dag.dag_id)
    engine.tell("a", "work1", "fail")
    play_all_but(engine, "a.work2", rounds=6)
    engine.settle()
    assert "kept" in engine.items("one").split(), engine.story()
    engine.let_time_pass(_DAY)
    engine.trigger("b", dag.dag_id)
    play_all_but(engine, "b.work1", rounds=6)
    engine.settle()
    assert "kept" in engine.items("one").split(), engine.story()
    assert engine.run_states()["b"] == "failed", engine.story()
    assert [error for _, error in engine.errors if "pushed only what changed" in str(error)], engine.errors


@pytest.mark.parametrize("follows", [False, True])
def test_a_cursor_in_a_run_leaves_nothing_to_a_deletion_by_time_before_it(
    engine: Engine, follows: bool
) -> None:
    from airflow.sdk import task

    from airflow_provider_coveo.cursors.coveo_push import coveo_cursor
    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
    from tests.stepped import shapes

    with shapes.a_dag(f"cursor_{follows}") as dag:

        @task(task_id="work2")
        def push_changes() -> None:
            with coveo_cursor(source_id="one", start=0) as cursor:
                for number in range(int(cursor.since), 2):
                    item = {"documentId": f"https://example.com/kept{number}", "data": "unchanged"}
                    CoveoPushHook().add_or_update_item("one", item)
                cursor.advance(2)

        with shapes.bracket(group_id="first", delete_old_items=True) as first:
            shapes.work.override(task_id="work1")()
            if not follows:
                push_changes()
        if follows:
            with shapes.bracket(group_id="second", status="INCREMENTAL") as second:
                push_changes()
            first >> second
    engine.add(dag)
    engine.trigger("a", dag.dag_id)
    engine.settle()
    assert engine.run_states()["a"] == "success", (engine.story(), engine.errors)
    engine.let_time_pass(_DAY)
    engine.trigger("b", dag.dag_id)
    engine.settle()
    assert engine.run_states()["b"] == ("success" if follows else "failed"), (engine.story(), engine.errors)
    if follows:
        engine.clear_run("b")
        engine.settle()
        assert engine.run_states()["b"] == "success", (engine.story(), engine.errors)
    else:
        assert {"kept0", "kept1"} <= set(engine.items("one").split()), engine.story()
