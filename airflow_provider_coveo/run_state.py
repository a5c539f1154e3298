"""
What the provider remembers beyond one try of one task, and what it asks Airflow about runs.

**Values of a task that outlive its retries and clears** (:class:`RunState`). XComs don't: Airflow deletes a
task's own when the task starts again. Airflow 3.3 has a task state store for this, and it is used where it
is there. Before 3.3 the values live in one Airflow Variable for each task (and map index), named
``coveo_state__<dag>__<task>``, which holds the last runs of that task only. The difference shows where runs
of one DAG overlap: two tasks that write at the same moment may overwrite each other's value there.

**Who holds a source open** (:class:`Holder`), in one Airflow Variable a source, named
``coveo_open__<organization>__<source>``, from the opening of a bracket to its closing. It is a Variable on
all versions because it is asked for by other runs, by other DAGs and by callbacks in the DAG processor.

**Which run last changed a source's content** (:func:`take_over_content`), in one Airflow Variable a source,
named ``coveo_content__<organization>__<source>``, until a task deletes the source. What an earlier try pushed
is taken for granted only where no other run came in between.

**Which source a task makes** (:class:`MadeSource`), in one Airflow Variable a name, named
``coveo_made__<organization>__<digest of the name>``, from before the request until the source is deleted by a
task. It tells a source whose making nobody heard the end of from one that somebody else made. It is a
Variable on all versions because a later run may go on where an earlier one ended.
"""

from __future__ import annotations

import hashlib
import itertools
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

T = TypeVar("T")

#: How many runs of one task are remembered in a Variable, the latest ones.
RUNS_REMEMBERED: Final = 30
#: What the metadata database takes as a Variable's key.
_LONGEST_KEY: Final = 250

#: The states in which a task instance does something, or will without anybody's help.
WORKING_STATES: Final = frozenset({"queued", "running", "deferred", "restarting"})
_STATES_OF_RUNS_THAT_GO_ON: Final = WORKING_STATES | {"scheduled", "up_for_retry", "up_for_reschedule"}
#: The states in which a task instance is at its end.
FINISHED_STATES: Final = frozenset({"success", "failed", "upstream_failed", "skipped", "removed"})


class RunState:
    """
    The values of one task (and map index) in one DAG run.

    :param context: The context that Airflow passes to ``execute``.
    """

    def __init__(self, context: Context) -> None:
        self._store: Any = context.get("task_state_store")
        if self._store is None:
            ti: Any = context["ti"]
            self._store = _VariableStore(ti.dag_id, ti.task_id, ti.run_id, getattr(ti, "map_index", -1))

    def get(self, key: str) -> Any:
        """Return what an earlier try of this run kept under ``key``, ``None`` where there is nothing."""
        return self._store.get(key)

    def set(self, key: str, value: Any) -> None:
        """Keep a JSON value under ``key`` for later tries of this run."""
        self._store.set(key, value)

    def delete(self, key: str) -> None:
        """Keep nothing more under ``key``."""
        self._store.delete(key)


def try_set(context: Context) -> str:
    """
    Name the series of tries that the present one belongs to: a retry stays in it, a clear begins another.

    A clear raises ``max_tries`` by the tries that were used up, and nothing else changes it.
    """
    return str(context["ti"].max_tries)


def callbacks_may_ask() -> bool:
    """
    Say whether a DAG's callback may ask for the states of tasks and for XComs.

    The DAG processor of Airflow 3.0 answers neither, and a callback that asks waits until it is killed.
    """
    return not _airflow_version().startswith("3.0.")


def values_in_variables(dag_id: str, task_id: str, run_id: str, key: str) -> dict[int, Any]:
    """
    Return what a task kept under ``key`` before Airflow 3.3, by map index, to whoever is not that task.

    Of a mapped task, those before the first that kept nothing at all: there is no list of them.
    """
    found: dict[int, Any] = {}
    indexes = [-1] if _VariableStore(dag_id, task_id, run_id, -1).has_run() else itertools.count()
    for map_index in indexes:
        store = _VariableStore(dag_id, task_id, run_id, map_index)
        if not store.has_run():
            break
        found[map_index] = store.get(key)
    return found


class _VariableStore:
    def __init__(self, dag_id: str, task_id: str, run_id: str, map_index: int) -> None:
        self._run_id = run_id
        self._name = _variable_name(
            "coveo_state", dag_id, task_id, *([str(map_index)] if map_index >= 0 else [])
        )

    def has_run(self) -> bool:
        return self._run_id in self._read()

    def get(self, key: str) -> Any:
        return self._read().get(self._run_id, {}).get(key)

    def delete(self, key: str) -> None:
        runs = self._read()
        if key not in runs.get(self._run_id, {}):
            return
        del runs[self._run_id][key]
        if not runs[self._run_id]:
            del runs[self._run_id]
        if runs:
            self._write(runs)
        else:
            _delete_variable(self._name)

    def set(self, key: str, value: Any) -> None:
        runs = self._read()
        # The run that was written last stands last, so that the oldest is what is dropped.
        run = {**runs.pop(self._run_id, {}), key: value}
        kept = dict(list(runs.items())[-(RUNS_REMEMBERED - 1) :])
        self._write({**kept, self._run_id: run})

    def _write(self, runs: dict[str, dict[str, Any]]) -> None:
        _write_variable(
            self._name,
            runs,
            "What the Coveo provider remembers between tries of a task; safe to delete while no run of the "
            "DAG is under way.",
        )

    def _read(self) -> dict[str, dict[str, Any]]:
        runs = _read_variable(self._name)
        return dict(runs) if isinstance(runs, Mapping) else {}


def _from_record(record_type: type[T], value: Any) -> T | None:
    """
    Return a record as the fields that this version knows, ``None`` if one that it needs is missing.

    A later version may keep more in the same Variable, and both may be at work during an upgrade.
    """
    if not isinstance(value, Mapping):
        return None
    known = {field.name for field in fields(record_type)}  # type: ignore[arg-type]
    try:
        return record_type(**{name: each for name, each in value.items() if name in known})
    except TypeError:
        return None


@dataclass(frozen=True)
class Holder:
    """
    The bracket that opened a source and has not closed it.

    :param dag_id: Its DAG.
    :param run_id: Its run.
    :param open_task_id: Its opening task, which tells it from other brackets of the run.
    :param map_index: Its map index where it stands in a mapped task group, else -1.
    """

    dag_id: str
    run_id: str
    open_task_id: str
    map_index: int = -1

    def __str__(self) -> str:
        mapped = f"[{self.map_index}]" if self.map_index >= 0 else ""
        return f"run {self.run_id!r} of DAG {self.dag_id!r} (task {self.open_task_id}{mapped})"

    @classmethod
    def of_source(cls, organization_id: str, source_id: str) -> Holder | None:
        """Return who holds the source open, ``None`` where nobody does as far as is known."""
        return _from_record(cls, _read_variable(cls._name(organization_id, source_id)))

    def take(self, organization_id: str, source_id: str) -> None:
        """Note that this bracket holds the source open, in the place of whoever did."""
        try:
            _write_variable(
                self._name(organization_id, source_id),
                asdict(self),
                "Which DAG run holds a Coveo source open; the Coveo provider deletes it with the closing.",
            )
        except Exception:
            # Of tasks that open one bracket again at the same moment the database may refuse all but one.
            if Holder.of_source(organization_id, source_id) != self:
                raise

    def release(self, organization_id: str, source_id: str) -> None:
        """Note that this bracket closed the source, unless another one holds it by now."""
        if Holder.of_source(organization_id, source_id) == self:
            _delete_variable(self._name(organization_id, source_id))

    @staticmethod
    def _name(organization_id: str, source_id: str) -> str:
        return _variable_name("coveo_open", organization_id, source_id)


def take_over_content(organization_id: str, source_id: str, dag_id: str, run_id: str) -> str:
    """
    Note that from here on a run changes the content of a source.

    :return: What tells this time from any other: it stays the same until another run takes over.
    """
    name = _variable_name("coveo_content", organization_id, source_id)
    last = _read_variable(name)
    if not isinstance(last, Mapping):
        last = {"since": uuid.uuid4().hex}
    if (last.get("dag_id"), last.get("run_id")) == (dag_id, run_id):
        return str(last["since"])
    # Derived, so that tasks of one run that begin at the same moment come to the same.
    since = hashlib.sha256(f"{last.get('since')} {dag_id} {run_id}".encode()).hexdigest()[:16]
    try:
        _write_variable(
            name,
            {"dag_id": dag_id, "run_id": run_id, "since": since},
            "Which DAG run last changed a Coveo source's content; safe to delete: a push that failed then "
            "begins anew when it is tried again.",
        )
    except Exception:
        # Of tasks that write at the same moment the database may refuse all but one.
        last = _read_variable(name)
        if not isinstance(last, Mapping) or (last.get("dag_id"), last.get("run_id")) != (dag_id, run_id):
            raise
        return str(last["since"])
    return since


def forget_content(organization_id: str, source_id: str) -> None:
    """Keep no longer which run last changed the content of a source, which is deleted."""
    name = _variable_name("coveo_content", organization_id, source_id)
    if _read_variable(name) is not None:
        _delete_variable(name)


@dataclass(frozen=True)
class MadeSource:
    """
    A source that a task is about to make, or made.

    :param name: Its name, which no source had at that moment.
    :param since: The moment before, by Coveo's clock in epoch milliseconds.
    :param source_id: Its ID, once that is known.
    :param original_id: The source that it is a copy of.
    :param original_name: The name of that source.
    :param tested: Whether it has been seen to index an item.
    """

    name: str
    since: int
    source_id: str | None = None
    original_id: str | None = None
    original_name: str | None = None
    tested: bool = False

    @classmethod
    def named(cls, organization_id: str, name: str) -> MadeSource | None:
        """Return what is known of the making of that name, ``None`` where nothing is."""
        made = _from_record(cls, _read_variable(cls._variable(organization_id, name)))
        return made if made is not None and made.name == name else None

    def keep(self, organization_id: str) -> None:
        """Keep this for later tries and runs."""
        _write_variable(
            self._variable(organization_id, self.name),
            asdict(self),
            f"How the Coveo provider made the source {self.name!r}; safe to delete while no task makes it.",
        )

    def forget(self, organization_id: str) -> None:
        """Keep this no longer, unless another task keeps something else by now."""
        if MadeSource.named(organization_id, self.name) == self:
            _delete_variable(self._variable(organization_id, self.name))

    @staticmethod
    def _variable(organization_id: str, name: str) -> str:
        # A name may hold anything, and a Variable's key is part of URLs.
        return _variable_name("coveo_made", organization_id, hashlib.sha256(name.encode()).hexdigest()[:16])


def text_in_variable(key: str) -> str | None:
    """Return an Airflow Variable as it is, ``None`` where there is none."""
    value = _read_variable(key, as_json=False)
    return None if value is None else str(value)


def put_text_in_variable(key: str, text: str, description: str) -> None:
    """Write an Airflow Variable that is read as it is."""
    from airflow.providers.common.compat.sdk import Variable

    Variable.set(key, text, description=description)


def task_states(dag_id: str, run_id: str, task_ids: Iterable[str]) -> dict[str, dict[int, str | None]]:
    """Return the states of some tasks of a run: by task ID, then by map index (-1 where it isn't mapped)."""
    wanted = sorted(set(task_ids))
    found: dict[str, dict[int, str | None]] = {task_id: {} for task_id in wanted}
    for task_id, map_index, state in _task_instance_states(dag_id, run_id, wanted):
        found[task_id][map_index] = state
    return found


def is_run_working(dag_id: str, run_id: str) -> bool:
    """
    Say whether a run will go on by itself: it is not over, and is not stopped by a pause of its DAG.

    Where Airflow can't tell a task whether a DAG is paused (3.0 and 3.1), a run counts as working while
    one of its tasks is.
    """
    state, paused = _run_state(dag_id, run_id)
    if state not in {"running", "queued"}:
        return False
    if paused is False:
        return True
    return any(s in WORKING_STATES for _, _, s in _task_instance_states(dag_id, run_id, None))


def is_run_over(dag_id: str, run_id: str, last_task_ids: Iterable[str]) -> bool:
    """
    Say whether a run that failed is still over, and was not cleared in the meantime.

    On Airflow 3 the DAG processor, which asks, can't see a run's state, so it is told by the states of those
    tasks that are cleared with any other.
    """
    if _runtime_task_instance() is None:
        return _run_state(dag_id, run_id)[0] not in {"running", "queued"}
    states = task_states(dag_id, run_id, last_task_ids)
    if all(state in FINISHED_STATES for by_index in states.values() for state in by_index.values()):
        return True
    # When a run times out, Airflow 3.1 leaves the tasks that did not start as they are; later ones skip them.
    # A run that was cleared looks the same until its scheduler takes it up, within a second.
    return _airflow_version().startswith("3.1.") and not any(
        state in _STATES_OF_RUNS_THAT_GO_ON for _, _, state in _task_instance_states(dag_id, run_id, None)
    )


def _task_instance_states(
    dag_id: str, run_id: str, task_ids: list[str] | None
) -> list[tuple[str, int, str | None]]:
    runtime = _runtime_task_instance()
    if runtime is None:
        return _task_instance_states_of_database(dag_id, run_id, task_ids)
    states = runtime.get_task_states(dag_id=dag_id, task_ids=task_ids, run_ids=[run_id]).get(run_id, {})
    known = set(task_ids or ())
    return [(*_task_and_map_index(name, known), state) for name, state in states.items()]


def _task_and_map_index(name: str, task_ids: set[str]) -> tuple[str, int]:
    # Airflow 3 writes the map index behind the task ID, with an underscore that IDs may hold as well.
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


def _run_state(dag_id: str, run_id: str) -> tuple[str | None, bool | None]:
    """Return a run's state and whether its DAG is paused, each ``None`` where it isn't known."""
    runtime = _runtime_task_instance()
    if runtime is None:
        from airflow.models.dag import DagModel
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session

        with create_session() as session:
            run = session.query(DagRun.state).filter(DagRun.dag_id == dag_id, DagRun.run_id == run_id).first()
            dag = session.query(DagModel.is_paused).filter(DagModel.dag_id == dag_id).first()
            return (run.state if run else None), (dag.is_paused if dag else None)
    active = ["running", "queued"]
    if not runtime.get_dr_count(dag_id=dag_id, run_ids=[run_id], states=active):
        return None, None
    get_dag = getattr(runtime, "get_dag", None)
    return "running", (get_dag(dag_id).is_paused if get_dag else None)


def _airflow_version() -> str:
    from airflow import __version__

    return __version__


def _runtime_task_instance() -> Any:
    """Return Airflow 3's door to the API server, ``None`` on Airflow 2, where tasks read the database."""
    try:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    except ImportError:
        return None
    return RuntimeTaskInstance


def _read_variable(name: str, *, as_json: bool = True) -> Any:
    from airflow.providers.common.compat.sdk import Variable

    try:
        return Variable.get(name, deserialize_json=as_json)
    except Exception as error:
        # Airflow 2.11 raises KeyError, Airflow 3 AirflowRuntimeError with this code.
        code = getattr(getattr(error, "error", None), "error", None)
        if isinstance(error, KeyError) or getattr(code, "value", None) == "VARIABLE_NOT_FOUND":
            return None
        raise


def _write_variable(name: str, value: Any, description: str) -> None:
    from airflow.providers.common.compat.sdk import Variable

    Variable.set(name, value, description=description, serialize_json=True)


def _delete_variable(name: str) -> None:
    from airflow.providers.common.compat.sdk import Variable

    Variable.delete(name)


def _variable_name(*parts: str) -> str:
    name = "__".join(parts)
    if len(name) <= _LONGEST_KEY:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:32]
    return f"{name[: _LONGEST_KEY - 34]}__{digest}"
