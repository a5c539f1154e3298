"""
The DAGs of the bracket suite: one for each cell, with its name.

``cells.json`` in the folder ``BRACKET_FOLDER`` defines the DAGs. The files in the same folder control running
tasks: ``<dag>.<run>.<task>.hold`` keeps a task pushing while the file exists, ``.fail`` lets it fail (up to
the try that the file contains) and ``.skip`` lets it skip. ``<run>`` is the ``key`` in the run's conf, by
default ``a``.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowSkipException,
    BaseOperator,
    TaskGroup,
    get_current_context,
    get_parsing_context,
    task,
    task_group,
)

from airflow_provider_coveo.operators.coveo_push import PushItemsOperator
from airflow_provider_coveo.operators.coveo_push_update import _time_delta_trigger
from airflow_provider_coveo.task_groups.coveo_push import OverlappingRunsWarning, push_source_update

try:
    from airflow.providers.standard.operators.empty import EmptyOperator
except ImportError:  # Airflow 2.11 without the standard provider
    from airflow.operators.empty import EmptyOperator

FOLDER = Path(os.environ["BRACKET_FOLDER"])
#: The maximum seconds that a held task pushes, longer than any wait of a cell.
MAX_HOLD = 900
Shape = Callable[[str, dict[str, Any], dict[str, Any]], None]


def told(context: Any, what: str) -> Path:
    """Return the file that controls the running task."""
    ti = context["ti"]
    key = (context["dag_run"].conf or {}).get("key", "a")
    name = ti.task_id.rpartition(".")[2] + (f".{ti.map_index}" if ti.map_index >= 0 else "")
    return FOLDER / f"{ti.dag_id}.{key}.{name}.{what}"


def push(source_id: str | None = None) -> None:
    """Push one item of this task, the same in each try."""
    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

    ti: Any = get_current_context()["ti"]
    document_id = f"https://example.com/{ti.task_id.rpartition('.')[2]}/{ti.map_index}"
    item = {"documentId": document_id, "data": f"try {ti.try_number}"}
    CoveoPushHook().add_or_update_item(source_id or ti.dag_id, item)


def note_pid(context: Any) -> None:
    with (FOLDER / f"{context['ti'].dag_id}.pids").open("a") as pids:
        pids.write(f"{os.getpid()}\n")


def work_on(source_id: str | None = None) -> None:
    context: Any = get_current_context()
    note_pid(context)
    push(source_id)
    until = time.monotonic() + MAX_HOLD
    while told(context, "hold").exists() and time.monotonic() < until:
        time.sleep(0.3)
        push(source_id)
    if told(context, "skip").exists():
        raise AirflowSkipException("The suite said so.")
    fail = told(context, "fail")
    if fail.exists() and context["ti"].try_number <= int(fail.read_text() or 99):
        raise RuntimeError("The suite said so.")


@task
def work(source_id: str | None = None) -> None:
    work_on(source_id)


@task
def work_on_one(number: int) -> None:
    work_on()


class DeferringWork(BaseOperator):
    """Pushes, and then waits in the triggerer."""

    def execute(self, context: Any) -> None:
        push()
        self.defer(trigger=_time_delta_trigger(timedelta(minutes=10)), method_name="execute_complete")

    def execute_complete(self, context: Any, event: Any = None) -> None:
        push()


def note_callback(name: str) -> Callable[[Any], None]:
    """Create a DAG callback that records when it was called."""

    def callback(context: Any) -> None:
        with (FOLDER / f"{context['dag'].dag_id}.callbacks").open("a") as file:
            file.write(f"{name} {time.time() * 1000:.0f}\n")

    return callback


@contextmanager
def a_dag(dag_id: str, options: dict[str, Any]) -> Iterator[DAG]:
    """Create a DAG whose failure callbacks are the user's, then the bracket's, then an end mark."""
    arguments: dict[str, Any] = {
        "schedule": None,
        "start_date": datetime(2025, 1, 1),
        "catchup": False,
        "max_active_runs": 1,
        "on_failure_callback": note_callback("user"),
        "default_args": {"retries": 0, "retry_delay": timedelta(seconds=1)},
    }
    if "dagrun_timeout" in options:
        options["dagrun_timeout"] = timedelta(seconds=options["dagrun_timeout"])
    if "default_args" in options:
        arguments["default_args"].update(options.pop("default_args"))
    if options.pop("fails_fast", False):
        options["fail_fast" if hasattr(DAG, "fail_fast") or _is_airflow_3() else "fail_stop"] = True
    with DAG(dag_id, **{**arguments, **options}) as dag:
        yield dag
    dag.on_failure_callback = [*dag.on_failure_callback, note_callback("end")]


def _is_airflow_3() -> bool:
    from airflow import __version__

    return not __version__.startswith("2.")


def bracket(dag_id: str, options: dict[str, Any]) -> push_source_update:
    options = dict(options)
    for name in ("exclusive_timeout", "poll_interval", "close_overdue_after"):
        if name in options:
            options[name] = timedelta(seconds=options[name])
    defaults = {"source_id": dag_id, "close_retries": 3, "close_retry_delay": timedelta(seconds=1)}
    return push_source_update(**{**defaults, **options})


# --- the shapes ---


def in_a_row(dag_id: str, dag: dict[str, Any], options: dict[str, Any]) -> None:
    """Create two tasks, one after the other."""
    with a_dag(dag_id, dag), bracket(dag_id, options):
        source_id = options.get("source_id")
        work.override(task_id="work1")(source_id) >> work.override(task_id="work2")(source_id)


def side_by_side(dag_id: str, dag: dict[str, Any], options: dict[str, Any]) -> None:
    with a_dag(dag_id, dag), bracket(dag_id, options):
        work.override(task_id="work1")()
        work.override(task_id="work2")()


def mapped(dag_id: str, dag: dict[str, Any], options: dict[str, Any]) -> None:
    with a_dag(dag_id, dag), bracket(dag_id, options):
        work_on_one.override(task_id="work").expand(number=[0, 1, 2])


def limited(dag_id: str, dag: dict[str, Any], options: dict[str, Any]) -> None:
    """Create a first task that may take eight seconds."""
    with a_dag(dag_id, dag), bracket(dag_id, options):
        limit = timedelta(seconds=8)
        work.override(task_id="work1", execution_timeout=limit)() >> work.override(task_id="work2")()


def branch(dag_id: str, dag: dict[str, Any], options: dict[str, Any]) -> None:
    with a_dag(dag_id, dag), bracket(dag_id, options) as update:

        @task.branch
        def choose() -> str:
            return f"{update.group_id}.work1"

        choose() >> [work.override(task_id="work1")(), work.override(task_id="work2")()]


def short_circuit(dag_id: str, dag: dict[str, Any], options: dict[str, Any]) -> None:
    with a_dag(dag_id, dag), bracket(dag_id, options):

        @task.short_circuit
        def go_on() -> bool:
            return False

        go_on() >> work.override(task_id="work1")()


def short_circuit_before(dag_id: str, dag: dict[str, Any], options: dict[str, Any]) -> None:
    with a_dag(dag_id, dag):

        @task.short_circuit
        def go_on() -> bool:
            return False

        first = go_on()
        with bracket(dag_id, options) as update:
            work.override(task_id="work1")()
        first >> update


def pushing_much(dag_id: str, dag: dict[str, Any], options: dict[str, Any]) -> None:
    """Create one of the provider's own tasks that pushes many batches."""
    items = FOLDER / f"{dag_id}.ndjson"
    if not items.exists():
        data = "a" * 600
        lines = (json.dumps({"documentId": f"https://example.com/{n}", "data": data}) for n in range(2000))
        items.write_text("\n".join(lines))
    with a_dag(dag_id, dag), bracket(dag_id, options):
        push_items = PushItemsOperator(
            task_id="work1",
            source_id=dag_id,
            path=str(items),
            batch_bytes=1024,
            upload_concurrency=1,
            pre_execute=note_pid,
        )
        push_items >> work.override(task_id="work2")()


def pushing_nothing(dag_id: str, dag: dict[str, Any], options: dict[str, Any]) -> None:
    with a_dag(dag_id, dag), bracket(dag_id, options):
        PushItemsOperator(task_id="work1", source_id=dag_id, items=[])


def deferring(dag_id: str, dag: dict[str, Any], options: dict[str, Any]) -> None:
    with a_dag(dag_id, dag), bracket(dag_id, options):
        DeferringWork(task_id="work1") >> work.override(task_id="work2")()


def followed(dag_id: str, dag: dict[str, Any], options: dict[str, Any]) -> None:
    """Create a bracket in its own group, and after each of them a task that also pushes."""
    with a_dag(dag_id, dag):
        with TaskGroup("outer") as outer, bracket(dag_id, options) as update:
            work.override(task_id="work1")()
        update >> work.override(task_id="after")()
        outer >> work.override(task_id="after_outer")()


def joined_from_outside(dag_id: str, dag: dict[str, Any], options: dict[str, Any]) -> None:
    with a_dag(dag_id, dag):
        outside = work.override(task_id="outside")()
        with bracket(dag_id, options) as update:
            work.override(task_id="work1")()
        update.open >> outside


def two_sources(dag_id: str, dag: dict[str, Any], options: dict[str, Any]) -> None:
    """Create two parallel brackets, each with its own source."""
    with a_dag(dag_id, dag):
        for name in ("one", "two"):
            source_id = f"{dag_id}-{name}"
            with bracket(dag_id, {**options, "source_id": source_id, "group_id": name}):
                work.override(task_id=f"work_{name}")(source_id)


def two_dags(dag_id: str, dag: dict[str, Any], options: dict[str, Any]) -> None:
    """Create two DAGs whose brackets update the same source."""
    for each in (dag_id, f"{dag_id}_other"):
        in_a_row(each, dict(dag), {**options, "source_id": dag_id})


def two_in_a_row(dag_id: str, dag: dict[str, Any], options: dict[str, Any]) -> None:
    """Create two brackets on one source, one after the other."""
    with a_dag(dag_id, dag):
        with bracket(dag_id, {**options, "group_id": "one"}) as one:
            work.override(task_id="work_one")()
        with bracket(dag_id, {**options, "group_id": "two", "status": "INCREMENTAL"}) as two:
            work.override(task_id="work_two")()
        one >> two


def mapped_bracket(dag_id: str, dag: dict[str, Any], options: dict[str, Any]) -> None:
    with a_dag(dag_id, dag):

        @task_group
        def each(source_id: str) -> None:
            with bracket(dag_id, {**options, "source_id": source_id, "group_id": "update"}):
                work.override(task_id="work")(source_id)

        each.expand(source_id=[f"{dag_id}-one", f"{dag_id}-two"])


def mapped_group_inside(dag_id: str, dag: dict[str, Any], options: dict[str, Any]) -> None:
    with a_dag(dag_id, dag), bracket(dag_id, options):

        @task_group
        def each(number: int) -> None:
            work_on_one.override(task_id="first")(number) >> work_on_one.override(task_id="second")(number)

        each.expand(number=[0, 1])


def chosen_source(dag_id: str, dag: dict[str, Any], options: dict[str, Any]) -> None:
    """Create a bracket whose source comes from another task."""
    with a_dag(dag_id, dag):

        @task
        def choose(name: str) -> str:
            if told(get_current_context(), "fail").exists():
                raise RuntimeError("The suite said so.")
            return name

        with bracket(dag_id, {**options, "source_id": choose(dag_id)}):
            work.override(task_id="work1")()


def own_setup_and_teardown(dag_id: str, dag: dict[str, Any], options: dict[str, Any]) -> None:
    """Create the user's own setup and teardown around the work, inside the bracket."""
    with a_dag(dag_id, dag), bracket(dag_id, options):
        make_room = work.override(task_id="make_room")()
        clean_up = work.override(task_id="clean_up")()
        make_room >> work.override(task_id="work1")() >> clean_up.as_teardown(setups=make_room)


def joined_inside(dag_id: str, dag: dict[str, Any], options: dict[str, Any]) -> None:
    """Create a task from outside that is wired downstream of `open` before the bracket is complete."""
    with a_dag(dag_id, dag):
        outside = work.override(task_id="outside")()
        with bracket(dag_id, options) as update:
            work.override(task_id="work1")()
            update.open >> outside


def named_by_variable(dag_id: str, dag: dict[str, Any], options: dict[str, Any]) -> None:
    """Create a bracket and a push whose source comes from a Variable, and a held task between them."""
    source_id = "{{ var.value." + dag_id + " }}"
    with a_dag(dag_id, dag), bracket(dag_id, {**options, "source_id": source_id}):
        item = {"documentId": "https://example.com/work2/-1", "data": "x"}
        pushing = PushItemsOperator(task_id="work2", source_id=source_id, items=[item])
        work.override(task_id="work1")(f"{dag_id}-one") >> pushing


def passed_by_variable(dag_id: str, dag: dict[str, Any], options: dict[str, Any]) -> None:
    """Create a bracket and two tasks whose source comes from a Variable; the tasks get it as an argument."""
    source_id = "{{ var.value." + dag_id + " }}"
    with a_dag(dag_id, dag), bracket(dag_id, {**options, "source_id": source_id}):
        work.override(task_id="work1")(source_id) >> work.override(task_id="work2")(source_id)


def two_that_delete(dag_id: str, dag: dict[str, Any], options: dict[str, Any]) -> None:
    """Create two brackets on one source, one after the other; the second one deletes old items."""
    with a_dag(dag_id, dag):
        with bracket(dag_id, {**options, "delete_old_items": False, "group_id": "one"}) as one:
            work.override(task_id="work_one")()
        with bracket(dag_id, {**options, "group_id": "two"}) as two:
            work.override(task_id="work_two")()
        one >> two


def pushing_elsewhere(dag_id: str, dag: dict[str, Any], options: dict[str, Any]) -> None:
    """Create a bracket on one source, whose task pushes to another one."""
    with a_dag(dag_id, dag), bracket(dag_id, {**options, "source_id": f"{dag_id}-one"}):
        work.override(task_id="work1")(f"{dag_id}-two")


def skipped_by_default(dag_id: str, dag: dict[str, Any], options: dict[str, Any]) -> None:
    """Create a bracket in a DAG whose default_args skip its tasks at night."""
    arguments = {**dag, "default_args": {"pre_execute": skip_now}}
    with a_dag(dag_id, arguments), bracket(dag_id, options):
        work.override(task_id="work1")()


def skip_now(context: Any) -> None:
    raise AirflowSkipException("It is night.")


def branched_around(dag_id: str, dag: dict[str, Any], options: dict[str, Any]) -> None:
    """Create a branch that bypasses the bracket, and a task that follows it."""
    with a_dag(dag_id, dag):

        @task.branch
        def choose() -> str:
            return "other"

        with bracket(dag_id, options) as update:
            work.override(task_id="work1")()
        choose() >> [update, EmptyOperator(task_id="other")]
        update >> work.override(task_id="after")()


def build(dag_id: str, described: dict[str, Any]) -> None:
    if get_parsing_context().dag_id in (None, dag_id, f"{dag_id}_other"):
        shape: Shape = globals()[described["shape"]]
        shape(dag_id, dict(described["dag"]), dict(described["bracket"]))


with warnings.catch_warnings():
    # The cells of overlapping runs set this, because they need it.
    warnings.simplefilter("ignore", OverlappingRunsWarning)
    for _dag_id, _described in json.loads((FOLDER / "cells.json").read_text()).items():
        build(_dag_id, _described)
