"""Cursors for Python code that pushes what has changed since its last run."""

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

    It is read when it is first used, and moves when everything up to it is accepted: at the end of the push
    for which the code yields items, or else at the end of its own ``with``. It stays after an exception, or
    if a push in it failed.

    :param name: Its name, empty for the only one of a task and source.
    :param source_id: The source, ``None`` for that of the push that the code gives items for.
    :param start: Its first value.
    :param lag: The maximum delay of rows.
    :param reset: Whether to begin at ``start`` again.
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
        """After which value to read: where this run began, less the lag; ``start`` in the first run."""
        return self._opened().since

    def advance(self, value: object) -> None:
        """
        Record that a row is read. In whatever order rows come, the latest value counts.

        :param value: The row's value: a timestamp, a date, a number, or a text that only grows. ``None`` and
            times in the future don't move the cursor.
        :raises CoveoInputError: if a cursor can't hold it, or it is of another kind than ``start`` or what
            the cursor holds.
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
                    f"The cursor was advanced to {plain!r}, {describe_kind(plain)}, and its start is "
                    f"{start!r}, {describe_kind(start)}",
                    remedy="Give both as the same kind, such as datetimes with a time zone",
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
            # The push that reads this code's items has not ended yet.
            return
        block = self._block
        if kind is None and block.moves and not block.was_dry:
            self._cursor.save()
            return
        if kind is None:
            log.warning(
                "Cursor %s stays: a push in its block failed, or was a dry run", self._cursor.variable
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
                "The cursor does not know when what was read is accepted",
                cause="this code gives no items to a push, as a function of @task.coveo_push does",
                remedy="Use it as 'with coveo_cursor(...) as cursor:', with the push inside",
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
            raise CoveoInputError("The cursor has no source", remedy="Give source_id")
        if organization_id is None:
            from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

            organization_id = CoveoPushHook(self._coveo_conn_id).organization_id
        context = get_current_context()
        used = _USED.of(context)
        key = repr((organization_id, source_id, self._name))
        if key in used and not used[key].is_abandoned:
            called = f"The cursor {self._name!r}" if self._name else "The cursor without a name"
            raise CoveoInputError(
                f"{called} of source {source_id!r} is made a second time in one attempt of the task",
                cause="it would pass over what only the first one, or only the second one, has read",
                remedy="Make it once, or give each its own name: coveo_cursor('orders')",
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
    Return a cursor for code that pushes changes: the code reads ``since``, and calls ``advance(value)``.

    In a function of ``@task.coveo_push``, or any other code that yields the items of a push, the cursor moves
    once the push succeeded. In other tasks, put the push into ``with coveo_cursor(source_id=…) as cursor:``;
    then it moves at the end of that block. A push that fails doesn't move it. A retry and a clear read the
    ``since`` that their run began with. The cursor never moves back. See https://docs.coveo.com/en/35/ for
    the status INCREMENTAL, under which the delta that a system reports is pushed.

    It is kept in the Variable ``coveo_cursor__<organization>__<source>__<dag>__<task>``, with the name and
    the map index after it, if any. Delete that Variable to begin at ``start`` again. A renamed task begins
    with a new cursor.

    :param name: A name, if a task has several cursors for a source. An attempt creates each only once.
        Default none.
    :param start: ``since`` in the first run, of the kind that ``advance`` is given: a datetime, a date, a
        number or a text. Default ``None``.
    :param lag: The maximum delay until a row becomes visible after its own timestamp, because of a
        transaction that is still open, for example. Rows of that period are read and pushed again, which is
        harmless. A ``timedelta``; a number of seconds for times; a number for numbers. Default five
        minutes for timestamps, a day for dates, none for others. Texts have no lag.
    :param source_id: The Push source. Default: that of the push which the code gives items to.
    :param reset: Whether to begin at ``start`` again, whatever the cursor holds. Default ``False``.
    :param coveo_conn_id: The Coveo connection, whose organization counts. Default: that of the push.
    :param organization_id: The organization, if it differs from the connection's.
    :return: A :class:`CoveoCursor`.
    :raises CoveoInputError: when it is used, if a value can't be a cursor's, or it is used outside a push
        and without ``with``, or it is created twice in an attempt.
    """
    return CoveoCursor(name, source_id, start, lag, reset, coveo_conn_id, organization_id)
