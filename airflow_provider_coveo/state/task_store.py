"""
Values of one task in one run that survive its retries and clears.

XComs do not survive: Airflow deletes a task's own when the task starts again. Airflow 3.3 has a task state
store, which is used if it is available. Before 3.3, one Airflow Variable for each task (and map index), named
``coveo_state__<dag>__<task>``, stores the values of the task's latest runs. The difference matters if runs of
one DAG overlap: there, two tasks that write at the same time can overwrite each other's value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from airflow_provider_coveo.state.run_marks import CurrentRun, current_run, is_another_run, mark_in
from airflow_provider_coveo.state.variables import (
    delete_variable,
    read_variable,
    variable_name,
    write_variable,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

#: The name of the value that tells a run from a deleted one with its ID. Other names have no space.
_MARK: Final = "mark of the run"
#: The number of a task's runs, the latest ones, that a Variable stores.
RUNS_REMEMBERED: Final = 30


class _Store(Protocol):
    """The part of Airflow's task state store that the provider uses."""

    def get(self, key: str) -> object: ...

    def set(self, key: str, value: Any) -> None: ...

    def delete(self, key: str) -> None: ...


class RunState:
    """
    The values of one task (and map index) in one DAG run.

    :param context: The context that Airflow passes to ``execute``.
    """

    def __init__(self, context: Context) -> None:
        store: _Store | None = context.get("task_state_store")
        if store is None:
            ti = context["ti"]
            map_index = getattr(ti, "map_index", -1)
            store = _VariableStore(ti.dag_id, ti.task_id, ti.run_id, map_index, current_run(context))
        self._store = store

    def get(self, key: str) -> Any:
        """Return the value that an earlier attempt of this run stored under ``key``, ``None`` without one."""
        return self._store.get(key)

    def set(self, key: str, value: object) -> None:
        """Store a JSON value under ``key`` for later attempts of this run."""
        self._store.set(key, value)

    def delete(self, key: str) -> None:
        """Delete the value of ``key``."""
        self._store.delete(key)


def retry_series(context: Context) -> str:
    """
    Return a name for the series of attempts that the current one belongs to. A clear starts a new series.

    A clear raises ``max_tries`` by the number of used attempts, and nothing else changes it.
    """
    return str(context["ti"].max_tries)


class _VariableStore:
    def __init__(
        self, dag_id: str, task_id: str, run_id: str, map_index: int, run: CurrentRun | None = None
    ) -> None:
        self._run_id = run_id
        self._run = run
        self._name = variable_name(
            "coveo_state", dag_id, task_id, *([str(map_index)] if map_index >= 0 else [])
        )

    def get(self, key: str) -> object:
        return self._values(self._read()).get(key)

    def delete(self, key: str) -> None:
        runs = self._read()
        if key not in runs.get(self._run_id, {}):
            return
        del runs[self._run_id][key]
        if not runs[self._run_id].keys() - {_MARK}:
            del runs[self._run_id]
        if runs:
            self._write(runs)
        else:
            delete_variable(self._name)

    def set(self, key: str, value: object) -> None:
        runs = self._read()
        # The latest run moves to the end, so that the oldest one is dropped.
        before = self._values(runs)
        runs.pop(self._run_id, None)
        mark = {} if self._run is None or _MARK in before else {_MARK: list(self._run.mark)}
        run = {**before, **mark, key: value}
        kept = dict(list(runs.items())[-(RUNS_REMEMBERED - 1) :])
        self._write({**kept, self._run_id: run})

    def _values(self, runs: Mapping[str, dict[str, object]]) -> dict[str, object]:
        """Return the run's values, but not those of a deleted run with its ID."""
        values = runs.get(self._run_id, {})
        recorded = mark_in(values.get(_MARK))
        if self._run is None or recorded is None:
            return values
        answer = is_another_run(recorded, self._run.mark)
        # Without them, a task only starts from the beginning. So they count only if they are of this run.
        was_cleared = self._run.was_cleared_since(recorded) and self._run.was_continued
        return values if answer is False or (answer is None and was_cleared) else {}

    def _write(self, runs: dict[str, dict[str, object]]) -> None:
        write_variable(
            self._name,
            runs,
            "State of the Coveo provider between attempts of a task; safe to delete while no run of the DAG "
            "is active.",
        )

    def _read(self) -> dict[str, dict[str, object]]:
        runs = read_variable(self._name)
        if not isinstance(runs, Mapping):
            return {}
        return {run_id: dict(run) for run_id, run in runs.items() if isinstance(run, Mapping)}
