"""
Cursors: the value, of a column or an API, up to which a task has pushed changes.

A cursor is the Airflow Variable ``coveo_cursor__<organization>__<source>__<dag>__<task>``, followed by the
name of the cursor and the map index, if any. (Airflow 3.3 also has a state store for assets. Only tasks with
the asset as an inlet or outlet can use it, and like Variables, it does not detect concurrent writes.) The
cursor's value at the start of a run is stored with the run's task, for retries and clears: see
:mod:`~airflow_provider_coveo.state.task_store`.

A cursor never moves back. If runs overlap, the run that ends last may have pushed an older version of a row
than the other run, so that the older content is in the index. In that case ``again`` is recorded: the value
from which the next run reads again. ``running`` records the runs in progress, because a killed run can't
record anything later.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, cast

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
from airflow_provider_coveo.coveo.quantities import quantity
from airflow_provider_coveo.state.ledger import SourceLedger
from airflow_provider_coveo.state.run_marks import current_run
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
#: The maximum number of killed runs on record, the latest ones.
_MAX_RUNNING: Final = 20
#: Represents ``cursor_start``: nothing is earlier.
_FROM_THE_START: Final = {"type": "start", "value": ""}


@dataclass(frozen=True)
class CursorRecord:
    """
    The record of a cursor.

    :param value: The value up to which everything is pushed, as typed JSON; ``None`` before the first run
        that read something.
    :param again: The value from which the next run reads, if that is earlier, as typed JSON.
    :param running: The values from which unfinished runs read, by run, as typed JSON.
    :param moves: The number of runs that have ended.
    :param run_id: The run that last wrote the record.
    :param moved_at: The time of that, in ISO 8601.
    :param part: A digest of the mapped arguments with which the value was reached; empty if there are none.
    """

    value: dict[str, str] | None = None
    again: dict[str, str] | None = None
    running: dict[str, dict[str, str]] = field(default_factory=dict)
    moves: int = 0
    run_id: str = ""
    moved_at: str = ""
    part: str = ""

    @classmethod
    def read(cls, variable: str) -> CursorRecord:
        """
        Return the record in a Variable.

        :param variable: Its key.
        :raises CoveoInputError: if somebody edited it so that it is invalid: starting over may not be
            intended.
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
                texts = (str(record.get(name) or "") for name in ("run_id", "moved_at", "part"))
                return cls(value, again, still, moves, *texts)
        raise CoveoInputError(
            f"Could not read the cursor in the Variable {variable!r}",
            cause="somebody edited the Variable",
            remedy="Correct the Variable, or delete it to start from cursor_start",
        )

    def without(self, run_id: str) -> CursorRecord:
        """
        Return the record without a run that has ended.

        :param run_id: The run.
        """
        return replace(self, running={run: each for run, each in self.running.items() if run != run_id})


class TaskCursor:
    """
    The cursor of one task (and map index) for one source, during one attempt.

    :param context: The context of the task.
    :param organization_id: The organization.
    :param source_id: The source.
    :param start: The value at which the first run starts, or ``None`` to read everything.
    :param lag: The lag, as :func:`~airflow_provider_coveo.coveo.cursor_values.validate_lag` returns it.
    :param name: A name, if a task has several cursors for a source. Default: none.
    :param reset: Whether to start at ``start``, regardless of the record. Default ``False``.
    :param is_dry: Whether nothing is pushed; nothing is then recorded. Default ``False``.
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
        #: The current time at the last check, in the type of the values; ``None`` if they are not times.
        self._now: object = None
        self._in_future = 0
        self._is_dry = is_dry
        self._state = RunState(context)
        self._key = "coveo_cursor" + (f"_{name}" if name else "")
        self._part = _mapped_part(context)
        self._begin()
        if not (is_dry or self.began_at_the_start):
            SourceLedger(organization_id).pushed_only_changes(
                source_id, ti.dag_id, ti.run_id, ti.task_id, current_run(context)
            )

    def _begin(self) -> None:
        record = self._record()
        if self._part and record.part not in {"", self._part} and not self._reset:
            log.warning(
                "Starting from cursor_start: the cursor %s was reached with other mapped arguments",
                self.variable,
            )
            self._reset = True
        kept = self._state.get(self._key)
        began = kept.get("from") if isinstance(kept, Mapping) else None
        stands = _FROM_THE_START if self._reset else record.value or _FROM_THE_START
        if _is_readable(began) and not self._reset:
            # No run moves a cursor back. If it is earlier, someone edited or deleted the Variable.
            self._from: dict[str, str] = _earlier(stands, began)
        else:
            self._from = _earlier(stands, record.again)
        # Raise an error for an unusable value before this run is recorded.
        _ = self.since
        self._before = (record, kept)
        self._moves = record.moves
        self._began_with = record.value
        #: Whether the push failed: the cursor then stays.
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
            # A record that is being reset may hold anything.
            if self._reset:
                return CursorRecord()
            raise

    @property
    def since(self) -> object:
        """The value to read after: the run's first value minus the lag, or ``start`` if there is none."""
        value = cursor_from_json(self._from)
        return self._start if value is None else minus_lag(value, self._lag, self.variable)

    @property
    def since_before_deletions(self) -> object:
        """
        The value to read rows after if deletions are read after ``since``: the lag earlier.

        A row can be older than a deletion of its item that it takes back, by as much as it became visible
        late. If the deletion is read again, the row has to be, too.
        """
        since = self.since
        if cursor_from_json(self._from) is None:
            return since
        return minus_lag(cast("CursorValue", since), self._lag, self.variable)

    @property
    def began_at_the_start(self) -> bool:
        """Whether there was no cursor when the run began."""
        return self._from == _FROM_THE_START

    def advance(self, value: object, name: str = "The cursor") -> None:
        """
        Record that everything up to a value is read. The latest value counts, in whatever order values come.

        :param value: The value. ``None`` does not move the cursor, and neither does a time in the future,
            which would hide later changes.
        :param name: The origin of the value, for error messages.
        :raises CoveoInputError: if a cursor can't hold the value, or its kind differs from the cursor's.
        """
        if value is None or (type(value) is self._quick_type and self._advance_quickly(value)):
            return
        plain = validate_cursor_value(value, name)
        before = self._max if self._max is not None else self._value
        if before is not None and kind_of(plain) != kind_of(before):
            raise CoveoInputError(
                f"{name} has the value {plain!r}, {describe_kind(plain)}, and the cursor "
                f"{self.variable!r} is {describe_kind(before)} ({before!r})",
                cause="cursor names a different column, or the column's type changed",
                remedy="Run the task once with cursor_reset=True, or delete that Variable",
            )
        if self._max is None:
            # The next run reads from here. Check now, rather than then, that the lag fits.
            minus_lag(plain, self._lag, self.variable)
        if is_later(plain, self._max):
            if is_in_the_future(plain):
                self._in_future += 1
                return
            self._max = plain
        # Few of the further values of this type need a full check.
        self._quick_type = type(value) if type(value) in {datetime, date, int} else None
        now = datetime.now(timezone.utc)
        self._now = {
            "timestamp": now,
            "naive timestamp": now.replace(tzinfo=None),
            "date": now.date(),
        }.get(kind_of(plain))

    def _advance_quickly(self, value: Any) -> bool:
        """Accept a value of the same type as the last one; return whether that needed no full check."""
        try:
            if not value > self._max:
                return True
            if self._now is None or value <= self._now:
                self._max = value
                return True
        except (TypeError, ArithmeticError):
            # Only one of them has a time zone, or it is not a number.
            return False
        return False

    def save(self) -> None:
        """
        Move the cursor to the latest value: Coveo accepted everything up to it.

        It never moves back to an earlier value than another run has just recorded.
        """
        if self._is_dry:
            return
        if self._in_future:
            log.warning(
                "Ignored %s in the future for the cursor %s; the next run pushes these rows again",
                quantity(self._in_future, "value"),
                self.variable,
            )
        for _ in range(_ATTEMPTS_TO_WRITE):
            record = self._record()
            wanted = replace(self._ended(record, self._moved(record)), part=self._part or record.part)
            self._write(wanted)
            if self._stands(wanted):
                before, now = _words(record.value), _words(wanted.value)
                if before == now:
                    log.info("Cursor %s stays at %s", self.variable, now)
                else:
                    log.info("Cursor %s moved from %s to %s", self.variable, before, now)
                if wanted.again is not None:
                    log.warning(
                        "The next run reads from %s again, because another run of the task pushed at the "
                        "same time or was killed, or the cursor was edited. Set max_active_runs=1 on the DAG "
                        "if its runs overlap: until then, the cursor may not advance",
                        _words(wanted.again),
                    )
                return
        raise CoveoInputError(
            f"Could not move the cursor {self.variable!r}",
            cause="other runs of the task write to it at the same time",
            remedy="Set max_active_runs=1 on the DAG, and clear the task",
        )

    def abandon(self) -> None:
        """
        Leave the cursor where it is because the push failed.

        If another run has moved it in the meantime, this push may have replaced newer content: the next run
        then reads from this run's first value.
        """
        self.is_abandoned = True
        if self._is_dry:
            return
        record = CursorRecord.read(self.variable)
        self._write(self._ended(record, record.value, succeeded=False))

    def undo(self) -> None:
        """Remove this attempt's records: it was a dry run and pushed nothing."""
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

        :param record: The current record.
        :param value: The new value of the cursor.
        :param succeeded: Whether everything that was read is pushed.
        """
        again = record.again
        if succeeded and again is not None and _earlier(self._from, again) == self._from:
            # Everything after this value is read again.
            again = None
        # Runs that were on record before and still are may have pushed at the same time, or be dead.
        left = [each for run, each in record.running.items() if run in self._running_before]
        overlapping = [*([self._from] if record.moves != self._moves else []), *(left if succeeded else [])]
        if self._began_with is not None and not self._reset:
            stands = record.value or _FROM_THE_START
            if _earlier(self._began_with, stands) != self._began_with:
                # Someone edited or deleted the Variable during this run: the next run starts at the new
                # value.
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
            "The value up to which a task has pushed changes to a Coveo source. Delete it to push from the "
            "start again.",
        )

    def _stands(self, wanted: CursorRecord) -> bool:
        """Return whether the write succeeded: another task may have written at the same time."""
        record = self._record()
        if wanted.again is not None and (
            record.again is None or _earlier(record.again, wanted.again) != record.again
        ):
            return False
        value, stands = cursor_from_json(wanted.value), cursor_from_json(record.value)
        if value is None or stands is None or kind_of(value) != kind_of(stands):
            return record.value == wanted.value
        return not is_later(value, stands)


def _mapped_part(context: Context) -> str:
    """
    Return a digest of the arguments over which a task is mapped, empty if there are none or they are unknown.

    If the parts of a mapped task change their order, a map index belongs to another part, whose rows the
    cursor has not passed.
    """
    task = context.get("task")
    mapped: object = getattr(getattr(task, "dag", None), "task_dict", {}).get(getattr(task, "task_id", None))
    expanded = getattr(mapped, "op_kwargs_expand_input", None) or getattr(mapped, "expand_input", None)
    names = getattr(expanded, "value", None)
    if not isinstance(names, Mapping) or not names:
        return ""
    given = getattr(task, "op_kwargs", None) or vars(task)
    values = json.dumps([[name, given.get(name)] for name in sorted(names)], default=_plain)
    return hashlib.sha256(values.encode()).hexdigest()[:12]


def _plain(value: object) -> str:
    """Return a text for a value that JSON lacks; one that is the same in each process."""
    return str(value) if isinstance(value, (date, timedelta, Decimal)) else type(value).__name__


def cursor_variable(
    organization_id: str, source_id: str, dag_id: str, task_id: str, map_index: int = -1, name: str = ""
) -> str:
    """
    Return the key of a cursor's Variable.

    :param organization_id: The organization.
    :param source_id: The source.
    :param dag_id: The DAG.
    :param task_id: The task.
    :param map_index: The map index, -1 if the task is not mapped.
    :param name: The name of the cursor, or an empty text.
    """
    parts = [organization_id, source_id, dag_id, task_id]
    if name:
        parts.append(name)
    if map_index >= 0:
        parts.append(str(map_index))
    if any("__" in part or part.strip("_") != part for part in parts) or (name and name.isdigit()):
        # Names can contain the separator: make sure that two tasks never share a key.
        parts.append(hashlib.sha256(repr((*parts, map_index, name)).encode()).hexdigest()[:12])
    return variable_name("coveo_cursor", *parts)


def _is_readable(value: object) -> bool:
    return value == _FROM_THE_START or cursor_from_json(value) is not None


def _earlier(value: dict[str, str], other: dict[str, str] | None) -> dict[str, str]:
    """Return the earlier of two values as typed JSON; if their kinds differ, the first."""
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
    Return the start of a cursor, as an instance of a built-in type.

    :param value: The value of the parameter.
    :raises CoveoInputError: if a cursor can't start there.
    """
    return None if value is None else validate_cursor_value(value, "cursor_start")
