"""
Cursors: up to which value of a column or an API a task has pushed what changed.

A cursor is the Airflow Variable ``coveo_cursor__<organization>__<source>__<dag>__<task>``, with the name of
the cursor and the map index behind it where there are such. (Airflow 3.3 also has a state store of assets.
That one is open to tasks with the asset among their inlets or outlets only, and compares no more than
Variables do when two tasks write.) What a run began with is among the values of its task, where a retry and a
clear find it: see :mod:`~airflow_provider_coveo.state.task_store`.

A cursor never moves back. If runs overlap, the later one to end may have pushed a row as it was before the
other one did, so that the older content is in the index. Then ``again`` is recorded: from where the next run
reads once more. For a run that is killed and records nothing any more, ``running`` tells that it was there.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_coveo.coveo.cursor_values import (
    CursorValue,
    cursor_from_json,
    cursor_to_json,
    describe_kind,
    is_in_the_future,
    is_later,
    kind_of,
    minus_lag,
    validate_cursor_value,
)
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.state.task_store import RunState
from airflow_provider_coveo.state.variables import (
    forget_variable,
    read_variable,
    variable_name,
    write_variable,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)

_ATTEMPTS_TO_WRITE: Final = 5
#: Of how many runs that were killed it is known, the latest ones.
_MAX_RUNNING: Final = 20
#: Stands for ``cursor_start``, before which there is nothing.
_FROM_THE_START: Final = {"type": "start", "value": ""}


@dataclass(frozen=True)
class CursorRecord:
    """
    What is on record of a cursor.

    :param value: Up to where all is pushed, as typed JSON; ``None`` before the first run that read something.
    :param again: From where the next run reads, if that is earlier, as typed JSON.
    :param running: From where runs read that have not ended, by the run, as typed JSON.
    :param moves: How often a run has ended.
    :param run_id: The run that wrote it last.
    :param moved_at: When, in ISO 8601.
    """

    value: dict[str, str] | None = None
    again: dict[str, str] | None = None
    running: dict[str, dict[str, str]] = field(default_factory=dict)
    moves: int = 0
    run_id: str = ""
    moved_at: str = ""

    @classmethod
    def read(cls, variable: str) -> CursorRecord:
        """
        Return what is on record in a Variable.

        :param variable: Its key.
        :raises CoveoInputError: if somebody made something else of it: to begin anew may not be meant.
        """
        if read_variable(variable, as_json=False) is None:
            return cls()
        record = read_variable(variable)
        if isinstance(record, Mapping):
            value, again, moves = record.get("value"), record.get("again"), record.get("moves")
            running = record.get("running")
            if (
                isinstance(moves, int)
                and isinstance(running, Mapping)
                and all(each is None or _is_readable(each) for each in (value, again))
            ):
                still = {str(run): each for run, each in running.items() if _is_readable(each)}
                moved = (str(record.get("run_id", "")), str(record.get("moved_at", "")))
                return cls(value, again, still, moves, *moved)
        raise CoveoInputError(
            f"The Variable {variable!r} holds no cursor",
            cause="it was edited",
            remedy="Correct it, or delete it to begin with cursor_start",
        )

    def without(self, run_id: str) -> CursorRecord:
        """
        Return the same without a run that has ended.

        :param run_id: The run.
        """
        return replace(self, running={run: each for run, each in self.running.items() if run != run_id})


class TaskCursor:
    """
    The cursor of one task (and map index) for one source, as one attempt of a run reads and moves it.

    :param context: The context of the task.
    :param organization_id: The organization.
    :param source_id: The source.
    :param start: Where the first run begins: a value, or ``None`` for the beginning.
    :param lag: As :func:`~airflow_provider_coveo.coveo.cursor_values.validate_lag` returns it.
    :param name: A name, where a task has several cursors for a source. Default none.
    :param reset: Whether to begin at ``start`` whatever is on record. Default ``False``.
    :param is_dry: Whether nothing is pushed, so that nothing is recorded. Default ``False``.
    """

    def __init__(
        self,
        context: Context,
        organization_id: str,
        source_id: str,
        *,
        start: object = None,
        lag: timedelta | Decimal | None = None,
        name: str = "",
        reset: bool = False,
        is_dry: bool = False,
    ) -> None:
        ti = context["ti"]
        self.variable = cursor_variable(
            organization_id, source_id, ti.dag_id, ti.task_id, getattr(ti, "map_index", -1), name
        )
        self._run_id = str(ti.run_id)
        self._start = start
        self._lag = lag
        self._reset = reset
        self._max: CursorValue | None = None
        self._quick_type: type | None = None
        #: The present when it was last looked at, in the type of the values; ``None`` for values of no time.
        self._now: object = None
        self._in_future = 0
        self._is_dry = is_dry
        self._state = RunState(context)
        self._key = "coveo_cursor" + (f"_{name}" if name else "")
        self._begin()

    def _begin(self) -> None:
        record = self._record()
        kept = self._state.get(self._key)
        began = kept.get("from") if isinstance(kept, Mapping) else None
        stands = _FROM_THE_START if self._reset else record.value or _FROM_THE_START
        if _is_readable(began) and not self._reset:
            # No run moves a cursor back. If it stands earlier, someone edited or deleted the Variable.
            self._from: dict[str, str] = _earlier(stands, began)
        else:
            self._from = _earlier(stands, record.again)
        # What can't be read from is an error before this run is on record.
        _ = self.since
        self._before = (record, kept)
        self._moves = record.moves
        self._began_with = record.value
        #: Whether the push failed, so that the cursor stays.
        self.is_abandoned = False
        self._value = None if self._reset else cursor_from_json(record.value)
        self._running_before = record.without(self._run_id).running
        if self._is_dry:
            return
        if self._from != began:
            self._state.set(self._key, {"from": self._from})
        running = {**self._running_before, self._run_id: self._from}
        self._write(replace(record, running=dict(list(running.items())[-_MAX_RUNNING:])))

    def _record(self) -> CursorRecord:
        try:
            return CursorRecord.read(self.variable)
        except CoveoInputError:
            # What is reset may be anything.
            if self._reset:
                return CursorRecord()
            raise

    @property
    def since(self) -> object:
        """After which value to read: where the run began, less the lag; ``start`` where nothing is known."""
        value = cursor_from_json(self._from)
        return self._start if value is None else minus_lag(value, self._lag, self.variable)

    @property
    def began_at_the_start(self) -> bool:
        """Whether there was no cursor when the run began."""
        return self._from == _FROM_THE_START

    def advance(self, value: object, name: str = "The cursor") -> None:
        """
        Record that everything up to a value is read; the latest one counts, in whatever order they come.

        :param value: The value. ``None``, and a time in the future, which would hide what comes until then,
            don't move the cursor.
        :param name: Where the value comes from, for errors.
        :raises CoveoInputError: if a cursor can't hold it, or it is of another kind than the cursor's.
        """
        if value is None or (type(value) is self._quick_type and self._advance_quickly(value)):
            return
        plain = validate_cursor_value(value, name)
        before = self._max if self._max is not None else self._value
        if before is not None and kind_of(plain) != kind_of(before):
            raise CoveoInputError(
                f"{name} has the value {plain!r}, {describe_kind(plain)}, and the cursor "
                f"{self.variable!r} is {describe_kind(before)} ({before!r})",
                cause="another column is meant, or its type was changed",
                remedy="Run the task once with cursor_reset=True, or delete that Variable",
            )
        if self._max is None:
            # The next run reads from here, and must not be the first to find out that the lag does not fit.
            minus_lag(plain, self._lag, self.variable)
        if is_later(plain, self._max):
            if is_in_the_future(plain):
                self._in_future += 1
                return
            self._max = plain
        # Of further values of this type, few need to be looked at closely.
        self._quick_type = type(value) if type(value) in {datetime, date, int} else None
        now = datetime.now(timezone.utc)
        self._now = {
            "timestamp": now,
            "naive timestamp": now.replace(tzinfo=None),
            "date": now.date(),
        }.get(kind_of(plain))

    def _advance_quickly(self, value: Any) -> bool:
        """Take a value of the type of the one before, and return whether it needs no closer look."""
        try:
            if not value > self._max:
                return True
            if self._now is None or value <= self._now:
                self._max = value
                return True
        except (TypeError, ArithmeticError):
            # With a zone and without one, or no number.
            return False
        return False

    def save(self) -> None:
        """
        Move the cursor to the latest value: everything up to it was accepted.

        It does not move back: not to an earlier value than another run has left there meanwhile.
        """
        if self._is_dry:
            return
        if self._in_future:
            log.warning(
                "%d values of the cursor %s lie in the future and did not move it; these rows are pushed "
                "again",
                self._in_future,
                self.variable,
            )
        for _ in range(_ATTEMPTS_TO_WRITE):
            record = self._record()
            wanted = self._ended(record, self._moved(record))
            self._write(wanted)
            if self._stands(wanted):
                log.info(
                    "Cursor %s moved from %s to %s",
                    self.variable,
                    _words(record.value),
                    _words(wanted.value),
                )
                if wanted.again is not None:
                    log.warning(
                        "The next run reads from %s again, since another run of the task pushed at the same "
                        "time or was killed, or the cursor was edited. Set max_active_runs=1 on the DAG if "
                        "its runs overlap: while they do, the cursor may not get on",
                        _words(wanted.again),
                    )
                return
        raise CoveoInputError(
            f"Could not move the cursor {self.variable!r}",
            cause="other runs of the task write it at the same time",
            remedy="Set max_active_runs=1 on the DAG, and clear the task",
        )

    def abandon(self) -> None:
        """
        Leave the cursor where it is, since the push failed.

        If another run moved it meanwhile, what this one pushed may have replaced newer content: the next run
        reads from where this one began.
        """
        self.is_abandoned = True
        if self._is_dry:
            return
        record = CursorRecord.read(self.variable)
        self._write(self._ended(record, record.value, succeeded=False))

    def undo(self) -> None:
        """Take back what is on record of this attempt, since it was a dry run: it pushed nothing."""
        if self._is_dry:
            return
        before, kept = self._before
        record = self._record().without(self._run_id)
        if self._run_id in before.running:
            # An earlier attempt may have pushed.
            record.running[self._run_id] = before.running[self._run_id]
        if record.run_id == self._run_id:
            record = replace(record, run_id=before.run_id, moved_at=before.moved_at)
        if record == CursorRecord():
            forget_variable(self.variable)
        else:
            self._store(record)
        if kept is None:
            self._state.delete(self._key)
        else:
            self._state.set(self._key, kept)

    def _moved(self, record: CursorRecord) -> dict[str, str] | None:
        stands = None if self._reset else cursor_from_json(record.value)
        if self._max is None:
            return None if self._reset else record.value
        if stands is not None and (kind_of(stands) != kind_of(self._max) or not is_later(self._max, stands)):
            return record.value
        return cursor_to_json(self._max)

    def _ended(
        self, record: CursorRecord, value: dict[str, str] | None, *, succeeded: bool = True
    ) -> CursorRecord:
        """
        Return the record once this run has ended.

        :param record: What is on record now.
        :param value: Where the cursor stands then.
        :param succeeded: Whether all that was read is pushed.
        """
        again = record.again
        if succeeded and again is not None and _earlier(self._from, again) == self._from:
            # All from there on is read once more.
            again = None
        # Whoever was there before and still is may have pushed at the same time, or be dead since long.
        left = [each for run, each in record.running.items() if run in self._running_before]
        overlapping = [*([self._from] if record.moves != self._moves else []), *(left if succeeded else [])]
        if self._began_with is not None and not self._reset:
            stands = record.value or _FROM_THE_START
            if _earlier(self._began_with, stands) != self._began_with:
                # Someone edited or deleted the Variable during this run, so that the next one begins there.
                overlapping.append(stands)
        for each in overlapping:
            again = _earlier(each, again)
        running = {
            run: each
            for run, each in record.running.items()
            if run != self._run_id and not (succeeded and run in self._running_before)
        }
        return replace(record, value=value, again=again, running=running, moves=record.moves + 1)

    def _write(self, record: CursorRecord) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._store(replace(record, run_id=self._run_id, moved_at=now))

    def _store(self, record: CursorRecord) -> None:
        write_variable(
            self.variable,
            asdict(record),
            "Up to where a task has pushed what changed to a Coveo source. Delete it to push from the start "
            "again.",
        )

    def _stands(self, wanted: CursorRecord) -> bool:
        """Return whether what was written counts: another task may have written at the same time."""
        record = self._record()
        if wanted.again is not None and (
            record.again is None or _earlier(record.again, wanted.again) != record.again
        ):
            return False
        value, stands = cursor_from_json(wanted.value), cursor_from_json(record.value)
        if value is None or stands is None or kind_of(value) != kind_of(stands):
            return record.value == wanted.value
        return not is_later(value, stands)


def cursor_variable(
    organization_id: str, source_id: str, dag_id: str, task_id: str, map_index: int = -1, name: str = ""
) -> str:
    """
    Return the key of a cursor's Variable.

    :param organization_id: The organization.
    :param source_id: The source.
    :param dag_id: The DAG.
    :param task_id: The task.
    :param map_index: The map index, -1 for a task that is not mapped.
    :param name: The name of the cursor, where it has one.
    """
    parts = [organization_id, source_id, dag_id, task_id]
    if name:
        parts.append(name)
    if map_index >= 0:
        parts.append(str(map_index))
    if any("__" in part or part.strip("_") != part for part in parts) or (name and name.isdigit()):
        # Two tasks must not share a key because their names hold what stands between names.
        parts.append(hashlib.sha256(repr((*parts, map_index, name)).encode()).hexdigest()[:12])
    return variable_name("coveo_cursor", *parts)


def _is_readable(value: object) -> bool:
    return value == _FROM_THE_START or cursor_from_json(value) is not None


def _earlier(value: dict[str, str], other: dict[str, str] | None) -> dict[str, str]:
    """Return the earlier one of two values as typed JSON; of two kinds, the first."""
    if other is None or value == _FROM_THE_START:
        return value
    if other == _FROM_THE_START:
        return other
    first, second = cursor_from_json(value), cursor_from_json(other)
    if first is None or second is None or kind_of(first) != kind_of(second):
        return value
    return value if not is_later(first, second) else other


def _words(value: dict[str, str] | None) -> str:
    return "its start" if value is None or value == _FROM_THE_START else value["value"]


def start_value(value: object) -> object:
    """
    Return where a cursor begins, as exactly one of Python's own types.

    :param value: What was given.
    :raises CoveoInputError: if a cursor can't begin there.
    """
    return None if value is None else validate_cursor_value(value, "cursor_start")
