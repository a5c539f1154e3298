"""The DAGs to explore: each uses ``push_source_update`` in a different way."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import DAG, get_current_context, task, task_group
from airflow.sdk.exceptions import AirflowSkipException

from airflow_provider_coveo.operators.coveo_push import CloseAbandonedPushSourcesOperator, PushItemsOperator
from airflow_provider_coveo.task_groups.coveo_push import push_source_update

SOURCE = "one"
#: The running sequence's instructions for its tasks, by run, task and map index.
told: Callable[[str, str, int], str] = lambda run_id, task_id, map_index: ""  # noqa: E731


@contextmanager
def a_dag(dag_id: str, **options: Any) -> Iterator[DAG]:
    default_args = {"retries": 0, "retry_delay": timedelta(seconds=30), **options.pop("default_args", {})}
    arguments: dict[str, Any] = {
        "schedule": None,
        "start_date": datetime(2025, 1, 1),
        "catchup": False,
        "max_active_runs": 2,
        "default_args": default_args,
    }
    with warnings.catch_warnings():
        # The DAGs of overlapping runs, because the exploration needs them.
        warnings.simplefilter("ignore")
        with DAG(dag_id, **{**arguments, **options}) as dag:
            yield dag


def bracket(**options: Any) -> push_source_update:
    defaults: dict[str, Any] = {
        "source_id": SOURCE,
        "close_retries": 3,
        "close_retry_delay": timedelta(seconds=30),
        "exclusive_timeout": timedelta(minutes=5),
        "queue_delay": 0,
    }
    return push_source_update(**{**defaults, **options})


def push(source_id: str, number: int = 1) -> None:
    """Push items of this task, the same in each try."""
    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

    ti: Any = get_current_context()["ti"]
    hook = CoveoPushHook()
    for which in range(number):
        name = f"https://example.com/{ti.run_id}/{ti.task_id.rpartition('.')[2]}/{ti.map_index}/{which}"
        hook.add_or_update_item(source_id, {"documentId": name, "data": f"try {ti.try_number}"})


@task
def work(source_id: str = SOURCE, pushes: int = 1) -> None:
    """Push, and then follow the sequence's instruction."""
    push(source_id, pushes)
    ti: Any = get_current_context()["ti"]
    what = told(ti.run_id, ti.task_id, ti.map_index)
    if what == "skip":
        raise AirflowSkipException("The sequence says so.")
    if what == "fail":
        raise RuntimeError("The sequence says so.")


@task
def work_on(number: int, source_id: str = SOURCE) -> None:
    work.function(source_id)


def one_task() -> DAG:
    with a_dag("one_task") as dag, bracket():
        work.override(task_id="work1")(pushes=2)
    return dag


def in_a_row() -> DAG:
    with a_dag("in_a_row") as dag, bracket():
        work.override(task_id="work1")() >> work.override(task_id="work2")()
    return dag


def side_by_side() -> DAG:
    with a_dag("side_by_side") as dag, bracket():
        work.override(task_id="work1")()
        work.override(task_id="work2")()
    return dag


def mapped() -> DAG:
    with a_dag("mapped") as dag, bracket(delete_old_items=True):
        work_on.override(task_id="work").expand(number=[0, 1])
    return dag


def mapped_group_inside() -> DAG:
    with a_dag("mapped_group_inside") as dag, bracket():

        @task_group
        def each(number: int) -> None:
            work_on.override(task_id="first")(number) >> work_on.override(task_id="second")(number)

        each.expand(number=[0, 1])
    return dag


def mapped_bracket() -> DAG:
    with a_dag("mapped_bracket") as dag:

        @task_group
        def each(source_id: str) -> None:
            with bracket(source_id=source_id, group_id="update", delete_old_items=True):
                work.override(task_id="work")(source_id)

        each.expand(source_id=["one", "two"])
    return dag


def branch() -> DAG:
    """Create a branch that skips the bracket, and a task after it."""
    with a_dag("branch") as dag:

        @task.branch
        def choose() -> str:
            ti: Any = get_current_context()["ti"]
            what = told(ti.run_id, ti.task_id, -1)
            return "update.begin" if what != "skip" else "elsewhere"

        chosen = choose()
        with bracket(group_id="update") as update:
            work.override(task_id="work1")()
        chosen >> update
        chosen >> work.override(task_id="elsewhere")("three")
        update >> work.override(task_id="after")("three")
    return dag


def two_in_a_row() -> DAG:
    with a_dag("two_in_a_row") as dag:
        with bracket(group_id="first") as first:
            work.override(task_id="work1")()
        with bracket(group_id="second", delete_old_items=True) as second:
            work.override(task_id="work2")()
        first >> second
    return dag


def two_sources() -> DAG:
    with a_dag("two_sources") as dag:
        for name in ("one", "two"):
            with bracket(source_id=name, group_id=f"update_{name}"):
                work.override(task_id=f"work_{name}")(name)
    return dag


def deleting() -> DAG:
    with a_dag("deleting") as dag, bracket(delete_old_items=True):
        work.override(task_id="work1")() >> work.override(task_id="work2")()
    return dag


def exclusive() -> DAG:
    with a_dag("exclusive") as dag, bracket(exclusive=True, delete_old_items=True):
        work.override(task_id="work1")(pushes=2)
    return dag


def exclusive_other() -> DAG:
    with a_dag("exclusive_other") as dag, bracket(exclusive=True):
        work.override(task_id="work1")()
    return dag


def other() -> DAG:
    with a_dag("other") as dag, bracket():
        work.override(task_id="work1")()
    return dag


def followed() -> DAG:
    with a_dag("followed") as dag:
        with bracket() as update:
            work.override(task_id="work1")()
        update >> work.override(task_id="after")("three")
    return dag


def own_setup_and_teardown() -> DAG:
    with a_dag("own_setup_and_teardown") as dag, bracket(delete_old_items=True):
        make_room = work.override(task_id="make_room")()
        clean_up = work.override(task_id="clean_up")()
        make_room >> work.override(task_id="work1")() >> clean_up.as_teardown(setups=make_room)
    return dag


def all_done_inside() -> DAG:
    with a_dag("all_done_inside") as dag, bracket(delete_old_items=True):
        last = work.override(task_id="work2", trigger_rule="all_done")()
        work.override(task_id="work1")() >> last
    return dag


def retried() -> DAG:
    options = {"retries": 1}
    with a_dag("retried", default_args=options) as dag, bracket(delete_old_items=True):
        work.override(task_id="work1")()
    return dag


def depending_on_past() -> DAG:
    with a_dag("depending_on_past", default_args={"depends_on_past": True}) as dag, bracket():
        work.override(task_id="work1")()
    return dag


def timed() -> DAG:
    with a_dag("timed", dagrun_timeout=timedelta(hours=10)) as dag, bracket():
        work.override(task_id="work1")() >> work.override(task_id="work2")()
    return dag


def joined_from_outside() -> DAG:
    with a_dag("joined_from_outside") as dag:
        outside = work.override(task_id="outside")()
        with bracket(delete_old_items=True) as update:
            work.override(task_id="work1")()
        update.open >> outside
    return dag


def joined_inside() -> DAG:
    """Wire a task from outside downstream of `open` while the bracket is being created."""
    with a_dag("joined_inside") as dag:
        outside = work.override(task_id="outside")()
        with bracket(delete_old_items=True) as update:
            work.override(task_id="work1")()
            update.open >> outside
    return dag


def named_by_variable() -> DAG:
    template = "{{ var.value.s }}"
    with a_dag("named_by_variable") as dag, bracket(source_id=template, delete_old_items=True):
        work.override(task_id="work1")(template)
    return dag


def pushing_elsewhere() -> DAG:
    with a_dag("pushing_elsewhere") as dag, bracket(delete_old_items=True):
        items = [{"documentId": "https://example.com/pushed", "data": "new"}]
        PushItemsOperator(task_id="work1", source_id="two", items=items)
    return dag


def pushing_items() -> DAG:
    with a_dag("pushing_items") as dag, bracket(delete_old_items=True):
        items = [{"documentId": "https://example.com/pushed", "data": "new"}]
        PushItemsOperator(task_id="work1", source_id=SOURCE, items=items) >> work.override(task_id="work2")()
    return dag


def watchdog() -> DAG:
    with a_dag("watchdog") as dag:
        CloseAbandonedPushSourcesOperator(task_id="watch", retries=0)
    return dag


SHAPES: dict[str, Callable[[], DAG]] = {
    function.__name__: function
    for function in (
        *(one_task, in_a_row, side_by_side, mapped, mapped_group_inside, mapped_bracket, branch),
        *(two_in_a_row, two_sources, deleting, exclusive, followed, own_setup_and_teardown),
        *(all_done_inside, retried, depending_on_past, timed, joined_from_outside, joined_inside),
        *(named_by_variable, pushing_elsewhere, pushing_items),
    )
}
#: The DAGs that update the same source as a shape.
OTHERS = {"exclusive": exclusive_other, "": other}
