"""The push operators and the decorator, executed against a Coveo at the socket."""

from __future__ import annotations

import json
import threading
import time
from collections import UserList
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, AirflowSkipException, task

from airflow_provider_coveo.coveo.errors import CoveoConfigurationError, CoveoError, CoveoInputError
from airflow_provider_coveo.coveo.items import MAX_INLINE_DATA, Delete, Item
from airflow_provider_coveo.operators.coveo_push import (
    DeleteItemsOperator,
    PushItemsOperator,
    ResetPushSourceOperator,
)
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE, keep_off_midnight
from tests.fresh import RunFresh
from tests.unit.conftest import Variables
from tests.unit.push.model import indexed, on_both

pytestmark = pytest.mark.usefixtures("connect")

ITEMS = [{"documentId": "a://1", "data": "{{ ds }}"}, {"documentId": "a://2", "data": "{% raw %}"}]


@pytest.fixture
def dag() -> Iterator[DAG]:
    with DAG("d", schedule=None, start_date=datetime(2025, 1, 1)) as dag:
        yield dag


def run(operator: Any, **context: Any) -> dict[str, Any]:
    """Render and execute, like a worker."""
    operator = getattr(operator, "operator", operator)
    context = {"params": {}, **context}
    operator.render_template_fields(context)
    result: dict[str, Any] = operator.execute(context)
    assert json.loads(json.dumps(result)) == result
    return result


def operations(coveo: Simulator) -> list[str]:
    return [request.operation for request in coveo.requests]


# --- PushItemsOperator ---


@on_both
def test_items_are_pushed_without_rendering_their_braces(coveo: Simulator, dag: DAG) -> None:
    result = run(
        PushItemsOperator(task_id="t", source_id="{{ params.s }}", items=ITEMS), params={"s": SOURCE}
    )
    assert indexed(coveo, SOURCE) == {"a://1": "{{ ds }}", "a://2": "{% raw %}"}
    assert result["accepted_adds"] == 2
    assert coveo.undocumented == []


def test_neither_the_dag_nor_rendered_templates_show_any_document(dag: DAG) -> None:
    operator = PushItemsOperator(task_id="t", source_id=SOURCE, items=ITEMS, delete=["a://3"])
    assert str(operator.items) == "<2 items, not shown>"
    operator.render_template_fields({"params": {}})
    assert str(operator.items) == "<2 items, not shown>"
    assert str(operator.delete) == "<1 item, not shown>"


def test_the_result_of_another_task_is_pushed_after_it(coveo: Simulator, dag: DAG) -> None:
    @task
    def made() -> list[dict[str, Any]]:
        return ITEMS

    @task
    def gone() -> str:
        return "a://9"

    operator = PushItemsOperator(task_id="t", source_id=SOURCE, items=made(), delete=[gone(), "a://{{ 1 }}"])
    assert operator.upstream_task_ids == {"made", "gone"}


@on_both
def test_files_are_pushed_by_their_rendered_path(coveo: Simulator, dag: DAG, tmp_path: Path) -> None:
    (tmp_path / "2026-11-24.csv").write_text("sku,text\n1,{{ ds }}\n2,two\n")
    result = run(
        PushItemsOperator(
            task_id="t",
            source_id=SOURCE,
            path=f"{tmp_path}/{{{{ ds }}}}.csv",
            columns={"documentId": "a://{sku}", "data": "text"},
        ),
        ds="2026-11-24",
    )
    assert indexed(coveo, SOURCE) == {"a://1": "{{ ds }}", "a://2": "two"}
    assert result["accepted_adds"] == 2


@on_both
def test_the_results_of_a_mapped_task_are_pushed(coveo: Simulator, dag: DAG) -> None:
    # Airflow passes a sequence of the results.
    items, gone = UserList([[ITEMS[0]], [], ITEMS[1]]), UserList([["a://2"], "a://3"])
    run(PushItemsOperator(task_id="t", source_id=SOURCE, items=items, delete=gone))
    assert set(coveo.items(SOURCE)) == {"a://1"}
    run(DeleteItemsOperator(task_id="u", source_id=SOURCE, document_ids=UserList([["a://1"]])))
    assert coveo.items(SOURCE) == {}


@on_both
def test_deletions_can_come_with_items_or_alone(coveo: Simulator, dag: DAG) -> None:
    run(PushItemsOperator(task_id="a", source_id=SOURCE, items=ITEMS, delete=["a://1", Delete("a://5")]))
    assert set(coveo.items(SOURCE)) == {"a://2"}
    result = run(PushItemsOperator(task_id="b", source_id=SOURCE, delete=["a://2"]))
    assert coveo.items(SOURCE) == {}
    assert (result["accepted_adds"], result["accepted_deletes"]) == (0, 1)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"items": ITEMS, "path": "x.json"},
        {"path": "no/such/file.json"},
        {"items": "a string"},
        {"items": ITEMS, "batch_bytes": "many"},
        {"items": ITEMS, "batch_bytes": [1024]},
        {"items": ITEMS, "on_invalid": "shrug"},
        {"items": [{}]},
    ],
)
def test_bad_input_fails_at_once_without_a_push(
    coveo: Simulator, dag: DAG, parameters: dict[str, Any]
) -> None:
    with pytest.raises(CoveoInputError) as refused:
        run(PushItemsOperator(task_id="t", source_id=SOURCE, **parameters))
    assert isinstance(refused.value, AirflowFailException)
    assert set(operations(coveo)) <= {"limit"}


@on_both
def test_every_parameter_can_be_a_template(coveo: Simulator, dag: DAG) -> None:
    values = {"batch_bytes": "2000", "upload_concurrency": "2", "on_invalid": "skip", "max_invalid": "1"}
    result = run(
        PushItemsOperator(
            task_id="t",
            source_id=SOURCE,
            items=[*ITEMS, {}],
            **{name: f"{{{{ params.{name} }}}}" for name in values},
        ),
        params=values,
    )
    assert (result["accepted_adds"], result["invalid"]) == (2, 1)


def test_nothing_is_read_or_checked_when_a_dag_file_is_parsed(dag: DAG) -> None:
    PushItemsOperator(task_id="t", source_id="{{ no }}", path="{{ such }}", columns={"a": "{{ thing }}"})
    PushItemsOperator(task_id="u", source_id="", items=5, path=5, batch_bytes=-1)


def test_a_killed_task_stops_at_its_next_request(coveo: Simulator, dag: DAG) -> None:
    operator = PushItemsOperator(task_id="t", source_id=SOURCE, items=ITEMS, check_quota=False)
    operator.on_kill()
    with pytest.raises(Exception, match="the task was killed"):
        run(operator)
    assert coveo.requests == []


@pytest.mark.parametrize("batches", [2, 20], ids=["all enqueued", "more to enqueue"])
@pytest.mark.parametrize("operation", ["upload", "batch"])
def test_a_task_that_is_killed_while_a_request_hangs_ends_soon_and_reports_what_was_accepted(
    coveo: Simulator, dag: DAG, monkeypatch: pytest.MonkeyPatch, batches: int, operation: str
) -> None:
    from airflow_provider_coveo.coveo import pusher

    monkeypatch.setattr(pusher, "_SECONDS_TO_DRAIN", 0.5)
    hanging = coveo.faults.stall(60, operation=operation, after=1)
    operator = _operator(dag, _many(count=batches), upload_concurrency=1)

    def kill() -> None:
        # An upload may finish before that of the previous batch.
        coveo.wait_for(lambda: hanging.used and coveo.items(SOURCE))
        operator.on_kill()

    killer = threading.Thread(target=kill)
    killer.start()
    began = time.monotonic()
    with pytest.raises(CoveoError, match=r"was killed.*Accepted before: the first valid entry") as killed:
        run(operator)
    killer.join()
    assert time.monotonic() - began < 50
    assert killed.value.accepted is not None
    assert killed.value.accepted["accepted_adds"] == 1


# --- DeleteItemsOperator ---


@on_both
@pytest.mark.parametrize("children", [True, "True", False, "{{ false }}"])
def test_items_are_deleted_by_id_with_their_children_on_request(
    coveo: Simulator, dag: DAG, children: bool | str
) -> None:
    run(
        PushItemsOperator(
            task_id="a",
            source_id=SOURCE,
            items=[Item("a://1", "x"), Item("a://1/x", "x"), Item("a://2", "x")],
        )
    )
    result = run(
        DeleteItemsOperator(task_id="b", source_id=SOURCE, document_ids=["a://1"], delete_children=children)
    )
    with_children = children in {True, "True"}
    assert set(coveo.items(SOURCE)) == ({"a://2"} if with_children else {"a://1/x", "a://2"})
    assert result["accepted_deletes"] == 1


@pytest.mark.parametrize("document_ids", ["a://1", [5], ["a"], None])
def test_values_that_are_not_ids_are_rejected(coveo: Simulator, dag: DAG, document_ids: Any) -> None:
    with pytest.raises(CoveoInputError) as refused:
        run(DeleteItemsOperator(task_id="t", source_id=SOURCE, document_ids=document_ids))
    assert isinstance(refused.value, AirflowFailException)
    assert coveo.requests == []


# --- @task.coveo_push ---


@on_both
def test_items_that_a_function_yields_are_pushed(coveo: Simulator, dag: DAG) -> None:
    @task.coveo_push(source_id="{{ params.s }}")
    def catalog(count: int, ds: str | None = None, *, more: str) -> Iterator[Any]:
        """Push."""
        for number in range(count):
            yield {"documentId": f"a://{number}", "data": f"{{{{ ds }}}} {ds} {more}"}
        yield Item("a://item", "item")
        yield b'{"documentId":"a://bytes","data":"bytes"}'
        yield Delete("a://0")

    result = run(catalog(2, more="{{ ds }}"), params={"s": SOURCE}, ds="2026")
    assert indexed(coveo, SOURCE) == {
        "a://1": "{{ ds }} 2026 2026",
        "a://item": "item",
        "a://bytes": "bytes",
    }
    assert (result["accepted_adds"], result["accepted_deletes"]) == (4, 1)


@on_both
@pytest.mark.parametrize(
    ("returned", "adds"), [(ITEMS, 2), (ITEMS[0], 1), (Item("a://1", "x"), 1), ([], 0), ((), 0)]
)
def test_items_that_a_function_returns_are_pushed(
    coveo: Simulator, dag: DAG, returned: Any, adds: int
) -> None:
    @task.coveo_push(source_id=SOURCE)
    def catalog() -> Any:
        return returned

    assert run(catalog())["accepted_adds"] == adds


def test_the_error_of_a_function_that_yields_nothing_says_what_it_returned(
    coveo: Simulator, dag: DAG
) -> None:
    @task.coveo_push(source_id=SOURCE)
    def catalog() -> None:
        pass

    with pytest.raises(CoveoInputError, match="returned NoneType") as refused:
        run(catalog())
    assert isinstance(refused.value, AirflowFailException)


@pytest.mark.parametrize("refused", [False, True], ids=["pushed", "rejected"])
def test_resources_of_a_function_are_closed_with_the_push(coveo: Simulator, dag: DAG, refused: bool) -> None:
    closed = []

    @task.coveo_push(source_id=SOURCE, batch_bytes=1024)
    def catalog() -> Iterator[Any]:
        try:
            yield from _many()
        finally:
            closed.append(True)

    if refused:
        coveo.faults.answer(400, operation="batch")
        with pytest.raises(CoveoError) as error:
            run(catalog())
        assert error.value.__traceback__ is not None
    else:
        run(catalog())
    assert closed == [True]


def test_a_function_can_skip_its_task(coveo: Simulator, dag: DAG) -> None:
    @task.coveo_push(source_id=SOURCE)
    def catalog() -> Iterator[Any]:
        raise AirflowSkipException("nothing new")
        yield

    with pytest.raises(AirflowSkipException):
        run(catalog())


@on_both
def test_the_function_gets_the_whole_context_if_it_takes_any_keyword(coveo: Simulator, dag: DAG) -> None:
    @task.coveo_push(source_id=SOURCE)
    def catalog(prefix: str, **context: Any) -> list[Any]:
        return [{"documentId": f"{prefix}://{context['ds']}", "data": "x"}]

    run(catalog("a"), ds="2026")
    assert set(coveo.items(SOURCE)) == {"a://2026"}


@on_both
@pytest.mark.parametrize("takes_all", [False, True])
def test_positional_arguments_override_the_context(coveo: Simulator, dag: DAG, takes_all: bool) -> None:
    if takes_all:

        @task.coveo_push(source_id=SOURCE)
        def catalog(ds: str | None = None, **context: Any) -> list[Any]:
            return [{"documentId": f"a://{ds}", "data": context["run_id"]}]

    else:

        @task.coveo_push(source_id=SOURCE)
        def catalog(ds: str | None = None) -> list[Any]:
            return [{"documentId": f"a://{ds}", "data": "r"}]

    run(catalog("given"), ds="2026", run_id="r")
    assert indexed(coveo, SOURCE) == {"a://given": "r"}


# --- the quota ---


def test_a_push_warns_in_advance_if_the_daily_quota_is_too_small(
    coveo: Simulator, dag: DAG, logged: Callable[[], str]
) -> None:
    keep_off_midnight(coveo)
    coveo.daily_documents = 2
    run(PushItemsOperator(task_id="t", source_id=SOURCE, items=ITEMS))
    assert "quota is too small" not in logged()
    coveo.daily_documents = 3
    run(PushItemsOperator(task_id="u", source_id=SOURCE, items=ITEMS))
    assert "The daily quota is too small: 1 item can still be pushed today" in logged()
    assert operations(coveo)[:2] == ["limit", "files"]


def test_a_stream_warns_as_soon_as_it_exceeds_the_daily_quota(
    coveo: Simulator, dag: DAG, logged: Callable[[], str]
) -> None:
    keep_off_midnight(coveo)
    coveo.daily_documents = 5

    @task.coveo_push(source_id=SOURCE, batch_bytes=1024)
    def catalog() -> Iterator[Any]:
        yield from ({"documentId": f"a://{number}", "data": "x" * 900} for number in range(8))

    with pytest.raises(Exception, match="daily quota"):
        run(catalog())
    # Airflow 2 writes a line twice.
    assert logged().count("The daily quota is too small: 5 items") in {1, 2}


def test_a_key_that_cannot_view_the_quota_pushes_without_the_check(
    coveo: Simulator, dag: DAG, connect: Callable[..., None]
) -> None:
    connect(password=coveo.push_only_key)
    assert run(PushItemsOperator(task_id="t", source_id=SOURCE, items=ITEMS))["accepted_adds"] == 2


# --- resuming ---


class _Store(dict[str, Any]):
    """The state that a task keeps between tries; it can fail."""

    broken = False

    def get(self, key: str, default: Any = None) -> Any:
        return super().get(key, default)

    def set(self, key: str, value: Any) -> None:
        if self.broken:
            raise RuntimeError("no database")
        self[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        if self.broken:
            raise RuntimeError("no database")
        self.pop(key, None)


def _try(
    operator: Any, store: _Store, *, number: int = 1, max_tries: int = 0, run_id: str = "r"
) -> dict[str, Any]:
    ti = SimpleNamespace(
        max_tries=max_tries, try_number=number, dag_id="d", task_id="t", run_id=run_id, map_index=-1
    )
    return run(operator, ti=ti, task_state_store=store)


def _many(changed: int | None = None, count: int = 10) -> list[dict[str, Any]]:
    return [
        {"documentId": f"a://{number}", "data": ("y" if number == changed else "x") * 900}
        for number in range(count)
    ]


def _operator(dag: DAG, items: Any, **more: Any) -> PushItemsOperator:
    return PushItemsOperator(
        task_id=f"t{len(dag.task_ids)}",
        items=items,
        **{
            "source_id": SOURCE,
            "batch_bytes": 1024,
            "upload_concurrency": 1,
            "check_quota": False,
            **more,
        },
    )


def _failed_after(
    coveo: Simulator, count: int, operator: Any, store: _Store, *, number: int = 1, run_id: str = "r"
) -> None:
    """Attempt a push that Coveo rejects after it has accepted some batches."""
    coveo.faults.answer(400, error_code="INVALID_JSON", operation="batch", after=count)
    with pytest.raises(Exception, match="INVALID_JSON"):
        _try(operator, store, number=number, run_id=run_id)


@pytest.fixture
def _variables(variables: Variables) -> Variables:
    return variables


resuming = pytest.mark.usefixtures("_variables")


@resuming
@pytest.mark.parametrize("max_tries", [0, 2], ids=["retried", "cleared"])
def test_a_later_attempt_resumes_where_the_earlier_one_failed(
    coveo: Simulator, dag: DAG, max_tries: int
) -> None:
    store = _Store()
    _failed_after(coveo, 7, _operator(dag, _many()), store)
    before = len(coveo.requests)
    result = _try(_operator(dag, _many()), store, number=2, max_tries=max_tries)
    assert operations(coveo)[before:].count("batch") == 3
    assert len(coveo.items(SOURCE)) == 10
    assert (result["accepted_adds"], result["batches"]) == (10, 10)
    assert (result["resumed_batches"], result["resumed_entries"]) == (7, 7)


@resuming
@pytest.mark.parametrize("count", [10, 7], ids=["some left", "nothing left"])
def test_the_ordering_id_of_a_resumed_push_is_older_than_all_accepted_items(
    coveo: Simulator, dag: DAG, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Deleting older items must not delete items that an earlier try pushed."""
    store = _Store()
    _failed_after(coveo, 7, _operator(dag, _many()), store)
    coveo.clock.advance(minutes=60)
    result = _try(_operator(dag, _many(count=count)), store, number=2)
    assert result["resumed_batches"] == 7
    oldest = min(item["orderingId"] for item in coveo.items(SOURCE).values())
    assert oldest - 60_000 < result["ordering_id"] <= oldest


@resuming
def test_a_push_resumes_at_the_first_difference(coveo: Simulator, dag: DAG) -> None:
    store = _Store()
    _failed_after(coveo, 7, _operator(dag, _many()), store)
    _failed_after(coveo, 2, _operator(dag, _many(3)), store, number=2)
    # Only the first try's batches before the difference still count.
    assert _try(_operator(dag, _many()), store, number=3)["resumed_batches"] == 3
    assert indexed(coveo, SOURCE)["a://3"].startswith("x")


@resuming
@pytest.mark.parametrize(("content", "resumed"), [("x", 3), ("y", 0)], ids=["the same", "another"])
def test_content_in_its_own_container_is_compared_too(
    coveo: Simulator, dag: DAG, content: str, resumed: int
) -> None:
    store = _Store()

    def items(content: str) -> list[dict[str, Any]]:
        return [{"documentId": "a://large", "data": content * (MAX_INLINE_DATA + 1)}, *_many(count=4)]

    _failed_after(coveo, 3, _operator(dag, items("x")), store)
    assert _try(_operator(dag, items(content)), store, number=2)["resumed_batches"] == resumed


@resuming
@pytest.mark.parametrize(
    "other",
    [
        {"resume": False},
        {"resume": "{{ 'False' }}"},
        {"batch_bytes": 2048},
        {"source_id": "other"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_push_with_other_parameters_starts_over(coveo: Simulator, dag: DAG, other: dict[str, Any]) -> None:
    coveo.add_source("other")
    store = _Store()
    _failed_after(coveo, 7, _operator(dag, _many()), store)
    assert _try(_operator(dag, _many(), **other), store, number=2)["resumed_batches"] == 0
    # The earlier state does not count any longer, either.
    assert _try(_operator(dag, _many()), store, number=3)["resumed_batches"] == 0


@resuming
def test_a_cleared_complete_push_is_pushed_again(coveo: Simulator, dag: DAG) -> None:
    store = _Store()
    _failed_after(coveo, 7, _operator(dag, _many()), store)
    assert _try(_operator(dag, _many()), store, number=2)["resumed_batches"] == 7
    assert store == {}
    assert _try(_operator(dag, _many()), store, number=3, max_tries=1)["resumed_batches"] == 0


def upstream(kind: str) -> Any:
    if kind == "deletes":
        return DeleteItemsOperator(task_id="up", source_id=SOURCE, document_ids=["a://1"])
    if kind == "pushes":
        return PushItemsOperator(task_id="up", source_id=SOURCE, items=ITEMS)
    if kind == "is mapped":
        return DeleteItemsOperator.partial(task_id="up", source_id=SOURCE).expand(document_ids=[["a://1"]])
    if kind == "may be on this source":
        return PushItemsOperator(task_id="up", source_id="{{ params.s }}", items=ITEMS)
    return ResetPushSourceOperator(task_id="up", source_id=SOURCE)


@resuming
@pytest.mark.parametrize("kind", ["deletes", "pushes", "is mapped", "may be on this source", "resets"])
def test_a_cleared_push_starts_over_if_an_upstream_task_would_undo_it(
    coveo: Simulator, dag: DAG, kind: str
) -> None:
    store = _Store()
    operator = _operator(dag, _many())
    upstream(kind) >> operator
    _failed_after(coveo, 7, operator, store)
    assert _try(operator, _Store(store), number=2)["resumed_batches"] == 7
    assert _try(operator, _Store(store), number=2, max_tries=1)["resumed_batches"] == 0


@resuming
@pytest.mark.parametrize(
    ("trigger_rule", "resumed"), [("all_success", 7), ("all_done", 0), ("none_failed", 7), ("one_failed", 0)]
)
def test_a_cleared_push_starts_over_if_a_downstream_task_may_have_undone_it(
    coveo: Simulator, dag: DAG, trigger_rule: str, resumed: int
) -> None:
    store = _Store()
    operator = _operator(dag, _many())
    between = DeleteItemsOperator(
        task_id="i", source_id="another", document_ids=[], trigger_rule=trigger_rule
    )
    operator >> between >> DeleteItemsOperator(task_id="j", source_id=SOURCE, document_ids=["a://1"])
    _failed_after(coveo, 7, operator, store)
    assert _try(operator, _Store(store), number=2)["resumed_batches"] == 7
    assert _try(operator, _Store(store), number=2, max_tries=1)["resumed_batches"] == resumed


@resuming
def test_tasks_for_other_sources_do_not_prevent_resuming(coveo: Simulator, dag: DAG) -> None:
    store = _Store()
    operator = _operator(dag, _many())
    ResetPushSourceOperator(task_id="up", source_id="another") >> operator
    _failed_after(coveo, 7, operator, store)
    assert _try(operator, store, number=2, max_tries=1)["resumed_batches"] == 7


@resuming
@pytest.mark.parametrize("kind", ["pushes", "deletes", "resets"])
def test_a_push_starts_over_if_another_run_changed_the_source_in_between(
    coveo: Simulator, dag: DAG, kind: str
) -> None:
    store = _Store()
    _failed_after(coveo, 7, _operator(dag, _many()), store)
    _try(upstream(kind), _Store(), run_id="another")
    assert _try(_operator(dag, _many()), store, number=2)["resumed_batches"] == 0
    assert set(coveo.items(SOURCE)) >= {item["documentId"] for item in _many()}


@resuming
def test_another_task_of_the_run_does_not_count_as_another_run(coveo: Simulator, dag: DAG) -> None:
    store = _Store()
    _failed_after(coveo, 7, _operator(dag, _many()), store)
    _try(_operator(dag, ITEMS), _Store())
    assert _try(_operator(dag, _many()), store, number=2)["resumed_batches"] == 7


def test_without_variables_a_push_succeeds_but_starts_over(
    coveo: Simulator, dag: DAG, logged: Callable[[], str]
) -> None:
    # There is no database here, so reading a Variable fails.
    store = _Store()
    _failed_after(coveo, 7, _operator(dag, _many()), store)
    assert _try(_operator(dag, _many()), store, number=2)["resumed_batches"] == 0
    assert "Could not record that this run changes the content" in logged()


@on_both
@resuming
def test_a_push_resumes_after_invalid_items_were_corrected(coveo: Simulator, dag: DAG) -> None:
    store = _Store()
    items = _many()
    with pytest.raises(CoveoInputError):
        _try(_operator(dag, [*items[:8], {}, *items[8:]]), store)
    assert _try(_operator(dag, items), store, number=2, max_tries=1)["resumed_batches"] == 7


@on_both
@resuming
def test_a_small_push_writes_no_state(coveo: Simulator, dag: DAG) -> None:
    store = _Store()
    _try(_operator(dag, _many()), store)
    assert store == {}


@resuming
def test_batches_accepted_long_ago_are_pushed_again(
    coveo: Simulator, dag: DAG, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_coveo.hooks import checkpoint

    store = _Store()
    _failed_after(coveo, 7, _operator(dag, _many()), store)
    monkeypatch.setattr(checkpoint, "_MAX_AGE_SECONDS", -1)
    assert _try(_operator(dag, _many()), store, number=2)["resumed_batches"] == 0


@resuming
def test_more_digests_than_fit_into_one_value_are_kept(
    coveo: Simulator, dag: DAG, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_coveo.hooks import checkpoint

    monkeypatch.setattr(checkpoint, "_PAGE", 3)
    store = _Store()
    _failed_after(coveo, 7, _operator(dag, _many()), store)
    # A difference in the first page must not leave the last pages behind.
    _failed_after(coveo, 0, _operator(dag, _many(changed=2)), store, number=2)
    assert _try(_operator(dag, _many()), _Store(store), number=3)["resumed_batches"] == 2
    assert _try(_operator(dag, _many(changed=2)), store, number=3)["resumed_batches"] == 2
    assert store == {}


@resuming
def test_the_checkpoint_is_small_and_bounded(
    coveo: Simulator, dag: DAG, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_coveo.coveo import checkpoints

    store = _Store()
    _failed_after(coveo, 7, _operator(dag, _many()), store)
    assert len(store["coveo_push_0"]) == 7 * 12
    assert len(json.dumps(store)) < 400
    monkeypatch.setattr(checkpoints, "_MAX_BATCHES_KEPT", 4)
    store = _Store()
    _failed_after(coveo, 7, _operator(dag, _many()), store)
    assert _try(_operator(dag, _many()), store, number=2)["resumed_batches"] == 4


@resuming
def test_an_attempt_that_still_runs_does_not_overwrite_the_checkpoint_of_the_next_one(
    coveo: Simulator, dag: DAG
) -> None:
    store = _Store()
    _failed_after(coveo, 7, _operator(dag, _many()), store, number=2)
    # The first try, which was cleared while it was running, ends after the second one began.
    late = _Store(store)
    _failed_after(coveo, 0, _operator(dag, _many(changed=0)), late, number=2)
    _failed_after(coveo, 3, _operator(dag, _many()), late, number=1)
    assert late["coveo_push"]["try"] == 2
    assert _try(_operator(dag, _many()), late, number=3)["resumed_batches"] == 0


@resuming
def test_a_checkpoint_that_two_attempts_wrote_at_the_same_time_is_ignored(coveo: Simulator, dag: DAG) -> None:
    store = _Store()
    _failed_after(coveo, 7, _operator(dag, _many()), store)
    store["coveo_push_0"] = "another try " + store["coveo_push_0"][12:]
    assert _try(_operator(dag, _many()), store, number=2)["resumed_batches"] == 0


@resuming
def test_the_checkpoint_is_saved_while_the_next_batch_waits(
    coveo: Simulator, dag: DAG, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that is killed during a long wait must lose nothing."""
    from airflow_provider_coveo.coveo import checkpoints, pusher

    monkeypatch.setattr(pusher, "_SECONDS_BETWEEN_CHECKS", 0.02)
    # Otherwise, a slow save would delay the next one for long.
    monkeypatch.setattr(checkpoints, "_MAX_SHARE_OF_TIME", 1000)
    kept: list[int] = []

    class Store(_Store):
        def set(self, key: str, value: Any) -> None:
            super().set(key, value)
            if key == "coveo_push":
                kept.append(value["count"])

    store = Store()
    coveo.faults.stall(1, operation="batch", after=7)
    _try(_operator(dag, _many()), store)
    assert 7 in kept
    assert store == {}


@resuming
def test_a_push_does_not_fail_if_its_checkpoint_cannot_be_saved(
    coveo: Simulator, dag: DAG, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], str]
) -> None:
    from airflow_provider_coveo.coveo import pusher

    monkeypatch.setattr(pusher, "_SECONDS_BETWEEN_CHECKS", 0.01)
    coveo.faults.stall(1, operation="batch", after=5)
    store = _Store()
    store.broken = True
    assert _try(_operator(dag, _many()), store)["accepted_adds"] == 10
    assert "a retry will push more than necessary: RuntimeError" in logged()


@resuming
def test_a_push_does_not_fail_if_its_checkpoint_cannot_be_removed(
    coveo: Simulator, dag: DAG, logged: Callable[[], str]
) -> None:
    store = _Store()
    _failed_after(coveo, 7, _operator(dag, _many()), store)

    def broken(key: str) -> None:
        raise RuntimeError("no database")

    store.delete = broken  # type: ignore[method-assign]
    assert _try(_operator(dag, _many()), store, number=2)["accepted_adds"] == 10
    assert "Could not remove the checkpoint" in logged()


def test_a_connection_that_can_t_be_used_fails_at_once(
    coveo: Simulator, dag: DAG, connect: Callable[..., None]
) -> None:
    connect(password="")
    for operator in (_operator(dag, _many()), ResetPushSourceOperator(task_id="reset", source_id=SOURCE)):
        with pytest.raises(CoveoConfigurationError) as refused:
            _try(operator, _Store())
        assert isinstance(refused.value, AirflowFailException)


# --- the cost of imports ---


def test_importing_the_decorator_imports_neither_http_libraries_nor_the_hook(
    run_fresh: RunFresh,
) -> None:
    script = """
import sys
from airflow.providers.common.compat.sdk import BaseOperator, DecoratedOperator, XComArg
from airflow.providers.common.compat.sdk import task_decorator_factory
before = set(sys.modules)
import airflow_provider_coveo.decorators.coveo_push
new = set(sys.modules) - before
unwanted = {"requests", "aiohttp", "urllib3", "tenacity", "pandas", "pyarrow", "zstandard"}
assert not [name for name in new if name.split(".")[0] in unwanted], new
assert "airflow_provider_coveo.hooks.coveo_push" not in sys.modules
"""
    done = run_fresh(script)
    assert done.returncode == 0, done.stdout + done.stderr
