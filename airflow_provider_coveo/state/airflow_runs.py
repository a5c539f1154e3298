"""
States of tasks and runs, as far as Airflow reports them to a task or a callback, and all version checks.

The available queries differ by release and by process. Each function documents its result if there is none.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

#: The states in which a task instance runs, or will run by itself or, on Airflow 3.3, after a user's input.
WORKING_STATES: Final = frozenset({"queued", "running", "deferred", "restarting", "awaiting_input"})
#: These states, and those in which a task instance proceeds only if the scheduler still handles its run.
PENDING_STATES: Final = WORKING_STATES | {"scheduled", "up_for_retry", "up_for_reschedule"}
#: The states in which a task instance has ended.
FINISHED_STATES: Final = frozenset({"success", "failed", "upstream_failed", "skipped", "removed"})
ACTIVE_RUN_STATES: Final = frozenset({"running", "queued"})

#: The prefix of runs that ``airflow tasks test`` and ``airflow tasks run`` create, and delete again.
_TEMPORARY_RUN_PREFIX: Final = "__airflow_temporary_run_"

#: The XCom in which a task inside a bracket records when it was rescheduled last.
_POKED_AT_KEY: Final = "coveo_poked_at"
#: The maximum number of tasks of a run whose record is read.
_MAX_POKES: Final = 20

TaskStates = dict[str, dict[int, "str | None"]]


class RunFacts(NamedTuple):
    """
    Airflow's data about a run.

    :param state: Its state, or ``None`` if it has ended or does not exist.
    :param is_paused: Whether its DAG is paused, or ``None`` if this can't be queried.
    :param is_gone: Whether Airflow no longer handles the DAG, or ``None`` if this can't be queried.
    """

    state: str | None
    is_paused: bool | None
    is_gone: bool | None = None

    @property
    def is_active(self) -> bool:
        """Whether the run has not ended."""
        return self.state in ACTIVE_RUN_STATES


def airflow_version() -> str:
    """Return Airflow's version."""
    from airflow import __version__

    return __version__


def callbacks_can_query() -> bool:
    """
    Return whether a DAG's callback can query the states of tasks and XComs.

    The DAG processor of Airflow 3.0 responds to neither query, and a callback that tries waits until it is
    killed.
    """
    return not airflow_version().startswith("3.0.")


def callbacks_can_read() -> bool:
    """Return whether a callback can query anything: it can't in ``airflow dags test`` of Airflow 3."""
    return callbacks_see_runs() or supervisor() is not None


def supervisor() -> Any:
    """Return the connection of Airflow 3's tasks and callbacks to the API server, ``None`` elsewhere."""
    runner = sys.modules.get("airflow.sdk.execution_time.task_runner")
    return getattr(runner, "SUPERVISOR_COMMS", None)


def map_index_of(context: Context) -> int:
    """Return the map index of a running task, -1 if the task is not mapped."""
    map_index = context["ti"].map_index
    return -1 if map_index is None else int(map_index)


def map_length(context: Context) -> int | None:
    """Return the number of instances of a running mapped task, or ``None`` if it is unknown."""
    count = context.get("expanded_ti_count")
    if isinstance(count, int):
        return count
    runtime = _runtime_task_instance()
    if runtime is None or supervisor() is None:
        return None
    ti = context["ti"]
    return int(runtime.get_ti_count(dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id]))


def is_temporary_run(run_id: str) -> bool:
    """Return whether ``airflow tasks test`` created the run; it deletes it without ending it."""
    return run_id.startswith(_TEMPORARY_RUN_PREFIX)


def task_states(dag_id: str, run_id: str, task_ids: Iterable[str]) -> TaskStates:
    """Return the states of some tasks of a run, by task ID and map index (-1 if not mapped)."""
    wanted = sorted(set(task_ids))
    found: TaskStates = {task_id: {} for task_id in wanted}
    for task_id, map_index, state in _task_instance_states(dag_id, run_id, wanted):
        found[task_id][map_index] = state
    return found


def instance_name(task_id: str, map_index: int) -> str:
    """Return a unique name of a task instance in its run."""
    return f"{task_id}[{map_index}]" if map_index >= 0 else task_id


def all_task_states(dag_id: str, run_id: str, *, can_count: bool = True) -> dict[str, str | None]:
    """
    Return the states of all task instances of a run, by a unique name of each.

    :param dag_id: The DAG.
    :param run_id: The run.
    :param can_count: Whether the process can count task instances, which finds those that share a name. A
        callback can't: the DAG processor can't decode the response. Default ``True``.
    """
    return {
        instance_name(task_id, map_index): state
        for task_id, map_index, state in _task_instance_states(dag_id, run_id, None, can_count=can_count)
    }


def record_poke(context: Context) -> None:
    """
    Record that a task in reschedule mode runs again, for :func:`latest_pokes`.

    Airflow 3 shows other tasks neither its attempts nor their times. On Airflow 2, its database does.

    :param context: The context of the task.
    """
    if int(context.get("task_reschedule_count") or 0) > 0:
        # Only the watchdog reads it.
        with suppress(Exception):
            context["ti"].xcom_push(key=_POKED_AT_KEY, value=time.time())


def latest_pokes(dag_id: str, run_id: str, states: Mapping[str, str | None]) -> list[str]:
    """
    Return values that change when a task of a run that waits to be rescheduled runs again. For tasks only.

    :param dag_id: The DAG.
    :param run_id: The run.
    :param states: The states of its task instances, by their unique names.
    """
    waiting = sorted(name for name, state in states.items() if state == "up_for_reschedule")
    if not waiting:
        return []
    if _runtime_task_instance() is None:
        return [_latest_reschedule_of_database(dag_id, run_id)]
    return [str(_poked_at(dag_id, run_id, name)) for name in waiting[:_MAX_POKES]]


def _poked_at(dag_id: str, run_id: str, name: str) -> object:
    from airflow.providers.common.compat.sdk import XCom

    task_id, _, index = name.rpartition("_")
    for each, map_index in [(name, -1), *([(task_id, int(index))] if index.isdigit() else [])]:
        with suppress(Exception):
            found = XCom.get_one(
                key=_POKED_AT_KEY, dag_id=dag_id, task_id=each, run_id=run_id, map_index=map_index
            )
            if found is not None:
                return found
    return None


def _latest_reschedule_of_database(dag_id: str, run_id: str) -> str:
    from airflow.models.taskreschedule import TaskReschedule
    from airflow.utils.session import create_session

    with create_session() as session:
        ends = session.query(TaskReschedule.end_date).filter(
            TaskReschedule.dag_id == dag_id, TaskReschedule.run_id == run_id
        )
        return str(max((end for (end,) in ends), default=None))


def run_facts(dag_id: str, run_id: str) -> RunFacts:
    """Return Airflow's data about a run. For tasks only: callbacks can't query it on Airflow 3."""
    runtime = _runtime_task_instance()
    if runtime is None:
        return _run_facts_of_database(dag_id, run_id)
    if not runtime.get_dr_count(dag_id=dag_id, run_ids=[run_id], states=sorted(ACTIVE_RUN_STATES)):
        return RunFacts(None, None)
    get_dag = getattr(runtime, "get_dag", None)
    return RunFacts("running", get_dag(dag_id).is_paused if get_dag else None)


def callbacks_see_runs() -> bool:
    """Return whether a callback can query a run's state: on Airflow 2, which lets it read the database."""
    return _runtime_task_instance() is None


def _task_instance_states(
    dag_id: str, run_id: str, task_ids: list[str] | None, *, can_count: bool = True
) -> list[tuple[str, int, str | None]]:
    runtime = _runtime_task_instance()
    if runtime is None:
        return _task_instance_states_of_database(dag_id, run_id, task_ids)
    if task_ids is None:
        states = runtime.get_task_states(dag_id=dag_id, run_ids=[run_id]).get(run_id, {})
        every = [(*_task_and_map_index(name, set()), state) for name, state in states.items()]
        if not can_count:
            return every
        return [*every, *_hidden_task_instances(runtime, dag_id, run_id, list(states.values()))]
    found = []
    for group in _without_shared_names(task_ids):
        states = runtime.get_task_states(dag_id=dag_id, task_ids=group, run_ids=[run_id]).get(run_id, {})
        found += [(*_task_and_map_index(name, set(group)), state) for name, state in states.items()]
    return found


def _hidden_task_instances(
    runtime: Any, dag_id: str, run_id: str, known: list[str | None]
) -> list[tuple[str, int, str | None]]:
    """
    Return the pending task instances that share a name with another one in Airflow's response.

    If the tasks can't be listed, their IDs are unknown, so this only counts them.
    """
    if runtime.get_ti_count(dag_id=dag_id, run_ids=[run_id]) <= len(known):
        return []
    return [
        (f"(another one that is {state})", -1, state)
        for state in sorted(PENDING_STATES)
        if runtime.get_ti_count(dag_id=dag_id, run_ids=[run_id], states=[state]) > known.count(state)
    ]


def _without_shared_names(task_ids: list[str]) -> list[list[str]]:
    """
    Group tasks so that no two task instances share a name in Airflow's response.

    Task ``push`` with the map index 1 and a task ``push_1`` have the same name there, so one state is lost.
    """
    known = set(task_ids)
    parts: list[list[str]] = []
    left = task_ids
    while left:
        mapped = {task_id: _task_and_map_index(task_id, known - {task_id})[0] for task_id in left}
        shared = {task_id for task_id, of in mapped.items() if of != task_id and of in left}
        parts.append([task_id for task_id in left if task_id not in shared])
        left = [task_id for task_id in left if task_id in shared]
    return parts or [[]]


def _task_and_map_index(name: str, task_ids: set[str]) -> tuple[str, int]:
    # Airflow 3 appends the map index to the task ID, after an underscore, which IDs can also contain.
    if name in task_ids:
        return name, -1
    task_id, _, index = name.rpartition("_")
    return (task_id, int(index)) if task_id in task_ids and index.isdigit() else (name, -1)


def _task_instance_states_of_database(
    dag_id: str, run_id: str, task_ids: list[str] | None
) -> list[tuple[str, int, str | None]]:
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    with create_session() as session:
        query = session.query(TaskInstance.task_id, TaskInstance.map_index, TaskInstance.state).filter(
            TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id
        )
        if task_ids is not None:
            query = query.filter(TaskInstance.task_id.in_(task_ids))
        return [(task_id, map_index, state) for task_id, map_index, state in query]


def _run_facts_of_database(dag_id: str, run_id: str) -> RunFacts:
    from airflow.models.dag import DagModel
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        run = session.query(DagRun.state).filter(DagRun.dag_id == dag_id, DagRun.run_id == run_id).first()
        dag = session.query(DagModel.is_paused, DagModel.is_active).filter(DagModel.dag_id == dag_id).first()
        state = run.state if run else None
        if dag is None:
            return RunFacts(state, None, is_gone=True)
        return RunFacts(state, dag.is_paused, is_gone=not dag.is_active)


def _runtime_task_instance() -> Any:
    """Return Airflow 3's client for the API server, ``None`` on Airflow 2, where tasks read the database."""
    try:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    except ImportError:
        return None
    return RuntimeTaskInstance
