"""Cursors for Python code that pushes the changes since its last run."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.state.attempts import UsedInAttempt
from airflow_provider_coveo.state.cursor_scope import current_scope, cursor_block

if TYPE_CHECKING:
    from airflow_provider_coveo.state.cursor_scope import CursorBlock
    from airflow_provider_coveo.state.cursors import TaskCursor

log = logging.getLogger(__name__)

_USED: Final[UsedInAttempt[TaskCursor]] = UsedInAttempt()


class CoveoCursor:
    """
    The point up to which a task has pushed changes. :func:`coveo_cursor` creates it.

    It is read on first use, and moves once everything up to its new value is accepted: at the end of the push
    for which the code yields items, or at the end of its own ``with`` block. It does not move after an
    exception or a failed push in that block.

    :param name: Its name, empty for the only cursor of a task and source.
    :param source_id: The source, ``None`` for that of the push for which the code yields items.
    :param start: Its initial value.
    :param lag: The maximum delay of rows.
    :param reset: Whether to start again at ``start``.
    :param coveo_conn_id: The Coveo connection, whose organization counts.
    :param organization_id: The organization, if it differs from the connection's.
    """

    def __init__(
        self,
        name: str,
        source_id: str | None,
        start: object,
        lag: timedelta | float | None,
        reset: bool,
        coveo_conn_id: str,
        organization_id: str | None,
    ) -> None:
        self._name = name
        self._source_id = source_id
        self._start = start
        self._lag = lag
        self._reset = reset
        self._coveo_conn_id = coveo_conn_id
        self._organization_id = organization_id
        self._scope = current_scope()
        self._entered = ExitStack()
        self._block: CursorBlock | None = None
        self._cursor: TaskCursor | None = None

    @property
    def since(self) -> Any:
        """The value after which to read: the run's first cursor value minus the lag; initially ``start``."""
        return self._opened().since

    def advance(self, value: object) -> None:
        """
        Record that a row was read. The latest value counts, whatever the order of rows.

        :param value: The row's value: a timestamp, a date, a number, or an ever-increasing text. ``None`` and
            times in the future don't move the cursor.
        :raises CoveoInputError: if it can't be a cursor's value, or its kind differs from ``start`` or the
            cursor's current value.
        """
        cursor = self._opened()
        if value is not None and self._start is not None:
            from airflow_provider_coveo.coveo.cursor_values import (
                describe_kind,
                kind_of,
                validate_cursor_value,
            )

            plain = validate_cursor_value(value, "The cursor")
            start = validate_cursor_value(self._start, "start")
            if kind_of(plain) != kind_of(start):
                raise CoveoInputError(
                    f"The cursor was advanced to {plain!r}, {describe_kind(plain)}, but its start is "
                    f"{start!r}, {describe_kind(start)}",
                    remedy="Use the same kind for both, such as datetimes with a time zone",
                )
        cursor.advance(value)

    def __enter__(self) -> CoveoCursor:
        self._block = self._entered.enter_context(cursor_block())
        try:
            self._opened()
        except BaseException:
            self._entered.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self._entered.close()
        if self._scope is not None or self._cursor is None or self._block is None:
            # The push that reads this code's items is still running.
            return
        block = self._block
        if kind is None and block.moves and not block.was_dry:
            self._cursor.save()
            return
        if kind is None:
            log.warning(
                "Not moving cursor %s: a push in its block failed or was a dry run", self._cursor.variable
            )
        if block.was_dry and block.moves and not block.has_pushed:
            self._cursor.undo()
        else:
            self._cursor.abandon()

    def _opened(self) -> TaskCursor:
        if self._cursor is not None:
            return self._cursor
        if self._scope is None and self._block is None:
            raise CoveoInputError(
                "Could not use the cursor: it is not connected to a push",
                cause="this code does not yield items to a push, as a function of @task.coveo_push does",
                remedy="Use it as 'with coveo_cursor(...) as cursor:', with the push in that block",
            )
        from airflow.providers.common.compat.sdk import get_current_context

        from airflow_provider_coveo.coveo.cursor_values import validate_lag
        from airflow_provider_coveo.coveo.flags import parse_flag
        from airflow_provider_coveo.state.cursors import TaskCursor, start_value

        source_id, organization_id = self._source_id, self._organization_id
        if self._scope is not None:
            self._scope.check()
            source_id = source_id or self._scope.source_id
            organization_id = organization_id or self._scope.organization_id
        if not source_id:
            raise CoveoInputError("The cursor has no source", remedy="Pass source_id")
        if organization_id is None:
            from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

            organization_id = CoveoPushHook(self._coveo_conn_id).organization_id
        context = get_current_context()
        used = _USED.of(context)
        key = repr((organization_id, source_id, self._name))
        if key in used and not used[key].is_abandoned:
            called = f"The cursor {self._name!r}" if self._name else "The unnamed cursor"
            raise CoveoInputError(
                f"{called} of source {source_id!r} is created twice in one attempt of the task",
                cause="it could skip rows that only one of the two has read",
                remedy="Create it once, or pass a name to each: coveo_cursor('orders')",
            )
        self._cursor = used[key] = TaskCursor(
            context,
            organization_id,
            source_id,
            start=start_value(self._start),
            lag=validate_lag(self._lag),
            name=self._name,
            reset=parse_flag("reset", self._reset),
            is_dry=self._scope is not None and self._scope.is_dry,
        )
        if self._scope is not None:
            self._scope.add(self._cursor)
        return self._cursor


def coveo_cursor(
    name: str = "",
    *,
    start: object = None,
    lag: timedelta | float | None = None,
    source_id: str | None = None,
    reset: bool = False,
    coveo_conn_id: str = "coveo_default",
    organization_id: str | None = None,
) -> CoveoCursor:
    """
    Return a cursor for code that pushes changes. The code reads ``since`` and calls ``advance(value)``.

    In a function of ``@task.coveo_push``, or other code that yields the items of a push, the cursor moves
    once the push succeeds. In other tasks, put the push into ``with coveo_cursor(source_id=…) as cursor:``;
    the cursor then moves at the end of that block. A failed push doesn't move it. A retry or a clear reads
    the same ``since`` as the run's first attempt. The cursor never moves back. See
    https://docs.coveo.com/en/35/ for INCREMENTAL, the status for pushing a delta.

    It is saved in the Variable ``coveo_cursor__<organization>__<source>__<dag>__<task>``, followed by the
    name and the map index, if any. To start again at ``start``, delete that Variable. A renamed task starts
    with a new cursor.

    :param name: A name, if a task has several cursors for a source. An attempt creates each only once.
        Default none.
    :param start: ``since`` in the first run, of the same kind as the values of ``advance``: a datetime, a
        date, a number or a text. Default ``None``.
    :param lag: The maximum delay between a row's timestamp and the time when the row becomes visible, for
        example because its transaction is still open. Rows of that period are read and pushed again, which is
        harmless. A ``timedelta``; a number of seconds for times; a number for numbers. Default: five
        minutes for timestamps, a day for dates, none for others. Texts have no lag.
    :param source_id: The Push source. Default: that of the push for which the code yields items.
    :param reset: Whether to start again at ``start``, whatever the cursor's value. Default ``False``.
    :param coveo_conn_id: The Coveo connection, whose organization counts. Default: that of the push.
    :param organization_id: The organization, if it differs from the connection's.
    :return: A :class:`CoveoCursor`.
    :raises CoveoInputError: on use, if a value can't be a cursor's, if it is used outside a push and without
        ``with``, or if it is created twice in an attempt.
    """
    return CoveoCursor(name, source_id, start, lag, reset, coveo_conn_id, organization_id)
