"""
Small values that outlive a task's retries and clears, within one DAG run.

XComs don't: Airflow deletes a task's own when the task starts again. Airflow 3.3 has a task state store for
this, and it is used where it is there. Before 3.3 the values live in one Airflow Variable for each task
(and map index), named ``coveo_state__<dag>__<task>``, which holds the last runs of that task only. The
difference shows where runs of one DAG overlap: two tasks that write at the same moment may overwrite each
other's value there, and then a later try behaves as the first one of its run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

#: How many runs of one task are remembered in a Variable, the latest ones.
RUNS_REMEMBERED: Final = 30
#: What the metadata database takes as a Variable's key.
_LONGEST_KEY: Final = 250


class RunState:
    """
    The values of one task (and map index) in one DAG run.

    :param context: The context that Airflow passes to ``execute``.
    """

    def __init__(self, context: Context) -> None:
        self._store: Any = context.get("task_state_store")
        if self._store is None:
            self._store = _VariableStore(context)

    def get(self, key: str) -> Any:
        """Return what an earlier try of this run kept under ``key``, ``None`` where there is nothing."""
        return self._store.get(key)

    def set(self, key: str, value: Any) -> None:
        """Keep a JSON value under ``key`` for later tries of this run."""
        self._store.set(key, value)


def try_set(context: Context) -> str:
    """
    Name the series of tries that the present one belongs to: a retry stays in it, a clear begins another.

    A clear raises ``max_tries`` by the tries that were used up, and nothing else changes it.
    """
    return str(context["ti"].max_tries)


class _VariableStore:
    def __init__(self, context: Context) -> None:
        task_instance: Any = context["ti"]
        self._run_id: str = task_instance.run_id
        self._name = _variable_name(
            task_instance.dag_id, task_instance.task_id, getattr(task_instance, "map_index", -1)
        )

    def get(self, key: str) -> Any:
        return self._read().get(self._run_id, {}).get(key)

    def set(self, key: str, value: Any) -> None:
        runs = self._read()
        # The run that was written last stands last, so that the oldest is what is dropped.
        run = {**runs.pop(self._run_id, {}), key: value}
        kept = dict(list(runs.items())[-(RUNS_REMEMBERED - 1) :])
        from airflow.providers.common.compat.sdk import Variable

        Variable.set(
            self._name,
            {**kept, self._run_id: run},
            description="What the Coveo provider remembers between tries of a task; safe to delete "
            "while no run of the DAG is under way.",
            serialize_json=True,
        )

    def _read(self) -> dict[str, dict[str, Any]]:
        from airflow.providers.common.compat.sdk import Variable

        try:
            runs = Variable.get(self._name, deserialize_json=True)
        except Exception as error:
            if not _says_there_is_none(error):
                raise
            return {}
        return dict(runs) if isinstance(runs, Mapping) else {}


def _says_there_is_none(error: Exception) -> bool:
    # Airflow 2.11 raises KeyError, Airflow 3 AirflowRuntimeError with this code.
    code = getattr(getattr(error, "error", None), "error", None)
    return isinstance(error, KeyError) or getattr(code, "value", None) == "VARIABLE_NOT_FOUND"


def _variable_name(dag_id: str, task_id: str, map_index: int) -> str:
    name = f"coveo_state__{dag_id}__{task_id}" + (f"__{map_index}" if map_index >= 0 else "")
    if len(name) <= _LONGEST_KEY:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:32]
    return f"{name[: _LONGEST_KEY - 34]}__{digest}"
