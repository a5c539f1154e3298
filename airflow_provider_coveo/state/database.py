"""
Records and runs for Airflow's web server, read from the metadata database in a few queries.

This module is for the API server (on 2.11, the webserver). There, the Task SDK has no API server to query,
and ``Variable.get`` would read one record at a time through the secrets backends. It writes nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import datetime, timezone
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from airflow_provider_coveo.state.records import PUSHED_XCOM_KEY

T = TypeVar("T")

#: The prefixes of this provider's Variables. No other Variable is read, not even in encrypted form.
RECORD_PREFIXES: Final = ("coveo_open__", "coveo_content__", "coveo_bracket__", "coveo_watch__")
#: The number of pairs in one query, which SQLite, MySQL and PostgreSQL all accept.
_PAIRS_AT_ONCE: Final = 200

RunKey = tuple[str, str]


class UnreadableRecordError(Exception):
    """A record is not JSON, or can't be decrypted."""


class RunRow(NamedTuple):
    """
    The database's data about a run.

    :param state: Its state.
    :param began: Its start, in epoch seconds.
    :param ended: Its end, in epoch seconds.
    """

    state: str | None
    began: float | None
    ended: float | None


class DagRow(NamedTuple):
    """
    The database's data about a DAG.

    :param is_paused: Whether it is paused.
    :param is_gone: Whether Airflow no longer handles it.
    :param next_run: The time of its next run, in epoch seconds.
    """

    is_paused: bool
    is_gone: bool
    next_run: float | None


class TaskRow(NamedTuple):
    """
    A task instance.

    :param task_id: Its task.
    :param map_index: Its map index, -1 if not mapped.
    :param state: Its state.
    """

    task_id: str
    map_index: int
    state: str | None


class Store(Protocol):
    """The source of the page's data."""

    def records(self) -> Mapping[str, Callable[[], Any]]:
        """Return a decoder of each record, by the key of its Variable."""
        ...

    def runs(self, keys: Iterable[RunKey]) -> dict[RunKey, RunRow]:
        """Return the data about runs."""
        ...

    def dags(self, dag_ids: Iterable[str]) -> dict[str, DagRow]:
        """Return the data about DAGs."""
        ...

    def tasks(self, keys: Iterable[RunKey], task_ids: Iterable[str]) -> dict[RunKey, list[TaskRow]]:
        """Return the instances of some tasks of runs."""
        ...

    def states(self, keys: Iterable[RunKey]) -> dict[RunKey, set[tuple[str, str | None]]]:
        """Return the tasks of runs with the states of their instances."""
        ...

    def failed(self, keys: Iterable[RunKey]) -> dict[RunKey, list[str]]:
        """Return the failed tasks of runs."""
        ...

    def pushed(self, keys: Iterable[RunKey]) -> Iterator[tuple[RunKey, object]]:
        """Yield the counts of pushed items that each task of runs saved."""
        ...


class DatabaseStore:
    """
    The metadata database of this process.

    :param seconds: The time after which no further query starts. Default 10.
    """

    def __init__(self, seconds: float = 10) -> None:
        self._until = time.monotonic() + seconds

    def records(self) -> Mapping[str, Callable[[], object]]:
        """Return a decoder of each record: most records are never needed, and decrypting is slow."""
        from airflow.models.variable import Variable
        from sqlalchemy import or_

        key, encrypted = Variable.key, Variable.is_encrypted
        # Loading the object instead of the columns would decrypt and mask each value.
        value = Variable.__table__.c.val
        wanted = or_(*(key.startswith(prefix, autoescape=True) for prefix in RECORD_PREFIXES))
        with self._session() as session:
            rows = session.query(key, value, encrypted).filter(wanted).all()
        return {
            name: _decoder(text, bool(is_encrypted))
            for name, text, is_encrypted in rows
            # SQLite and MySQL compare without regard to case.
            if name.startswith(RECORD_PREFIXES)
        }

    def runs(self, keys: Iterable[RunKey]) -> dict[RunKey, RunRow]:
        """Return the data about runs."""
        from airflow.models.dagrun import DagRun

        columns = (DagRun.dag_id, DagRun.run_id, DagRun.state, DagRun.start_date, DagRun.end_date)
        return {
            (dag_id, run_id): RunRow(_text(state), _seconds(began), _seconds(ended))
            for dag_id, run_id, state, began, ended in self._of_runs(DagRun, columns, keys)
        }

    def dags(self, dag_ids: Iterable[str]) -> dict[str, DagRow]:
        """Return the data about DAGs."""
        from airflow.models.dag import DagModel

        # Airflow 3 calls a DAG stale if 2.11 calls it inactive.
        gone = getattr(DagModel, "is_stale", None)
        state = DagModel.is_active if gone is None else gone
        columns = (DagModel.dag_id, DagModel.is_paused, state, DagModel.next_dagrun_create_after)
        found = {}
        for some in _chunks(sorted(set(dag_ids))):
            with self._session() as session:
                rows = session.query(*columns).filter(DagModel.dag_id.in_(some)).all()
            for dag_id, is_paused, flag, next_run in rows:
                is_gone = bool(flag) if gone is not None else not flag
                found[dag_id] = DagRow(bool(is_paused), is_gone, _seconds(next_run))
        return found

    def tasks(self, keys: Iterable[RunKey], task_ids: Iterable[str]) -> dict[RunKey, list[TaskRow]]:
        """Return the instances of some tasks of runs."""
        from airflow.models.taskinstance import TaskInstance as Task

        columns = (Task.dag_id, Task.run_id, Task.task_id, Task.map_index, Task.state)
        condition = Task.task_id.in_(sorted(set(task_ids)))
        found: dict[RunKey, list[TaskRow]] = {}
        for dag_id, run_id, task_id, map_index, state in self._of_runs(Task, columns, keys, condition):
            found.setdefault((dag_id, run_id), []).append(TaskRow(task_id, map_index, _text(state)))
        return found

    def states(self, keys: Iterable[RunKey]) -> dict[RunKey, set[tuple[str, str | None]]]:
        """Return the tasks of runs with the states of their instances: few rows, however many instances."""
        from airflow.models.taskinstance import TaskInstance as Task

        columns = (Task.dag_id, Task.run_id, Task.task_id, Task.state)
        found: dict[RunKey, set[tuple[str, str | None]]] = {}
        for dag_id, run_id, task_id, state in self._of_runs(Task, columns, keys):
            found.setdefault((dag_id, run_id), set()).add((task_id, _text(state)))
        return found

    def failed(self, keys: Iterable[RunKey]) -> dict[RunKey, list[str]]:
        """Return the failed tasks of runs, a mapped one once."""
        from airflow.models.taskinstance import TaskInstance as Task

        columns = (Task.dag_id, Task.run_id, Task.task_id)
        found: dict[RunKey, list[str]] = {}
        for dag_id, run_id, task_id in self._of_runs(Task, columns, keys, Task.state == "failed"):
            found.setdefault((dag_id, run_id), []).append(task_id)
        return found

    def pushed(self, keys: Iterable[RunKey]) -> Iterator[tuple[RunKey, object]]:
        """Yield the counts of pushed items that each task of runs saved."""
        import airflow.models.xcom as xcom

        model: Any = getattr(xcom, "XComModel", None) or xcom.BaseXCom
        columns = (model.dag_id, model.run_id, model.__table__.c.value)
        condition = model.key == PUSHED_XCOM_KEY
        for dag_id, run_id, value in self._of_runs(model, columns, keys, condition, distinct=False):
            yield (dag_id, run_id), _json(value)

    def _of_runs(
        self,
        model: Any,
        columns: Iterable[object],
        keys: Iterable[RunKey],
        *conditions: object,
        distinct: bool = True,
    ) -> Iterator[Any]:
        from sqlalchemy import tuple_

        columns = tuple(columns)
        for some in _chunks(sorted(set(keys))):
            with self._session() as session:
                among = tuple_(model.dag_id, model.run_id).in_(some)
                query = session.query(*columns).filter(among, *conditions)
                # A run can have many instances of a mapped task.
                yield from (query.distinct() if distinct else query).yield_per(1000)

    def _session(self) -> AbstractContextManager[Any]:
        from airflow.utils.session import create_session

        if time.monotonic() > self._until:
            raise TimeoutError("Airflow's database responds too slowly")
        session: AbstractContextManager[object] = create_session()
        return session


def _decoder(text: str | None, is_encrypted: bool) -> Callable[[], Any]:
    def decode() -> Any:
        try:
            return json.loads(_decrypted(text or "") if is_encrypted else text or "")
        except Exception as error:
            # Neither the text nor a library's message about it may appear in an error.
            raise UnreadableRecordError(type(error).__name__) from None

    return decode


def _decrypted(text: str) -> str:
    from airflow.models.crypto import get_fernet

    return str(get_fernet().decrypt(text.encode()).decode())


def _json(value: object) -> Any:
    """Return an XCom's value, or ``None`` if its format is unknown: releases store different formats."""
    for _ in range(2):
        if not isinstance(value, (str, bytes)):
            break
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return value


def _chunks(values: list[T]) -> Iterator[list[T]]:
    for start in range(0, len(values), _PAIRS_AT_ONCE):
        yield values[start : start + _PAIRS_AT_ONCE]


def _text(value: object) -> str | None:
    return None if value is None else str(getattr(value, "value", value))


def _seconds(moment: datetime | None) -> float | None:
    if moment is None:
        return None
    # Airflow stores times in UTC.
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
