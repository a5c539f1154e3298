"""The cursors of a push in progress: they move when the push succeeds, not before."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.coveo.flags import parse_flag

log = logging.getLogger(__name__)


_Push = TypeVar("_Push", bound=Callable[..., Any])


class MovableCursor(Protocol):
    """The part of a cursor that a push uses."""

    def save(self) -> None:
        """Move the cursor: Coveo accepted everything up to it."""

    def abandon(self) -> None:
        """Leave the cursor where it is."""

    def undo(self) -> None:
        """Remove this attempt's records."""


class CursorScope:
    """
    The cursors of one push.

    :param organization_id: Returns the organization of the push.
    :param source_id: The source.
    """

    #: Whether the push is known to send nothing: its cursors then record nothing.
    is_dry = False
    #: Whether its cursors move at the end: they don't if nothing was sent.
    moves = True
    #: Whether the push deletes what its input lacks: its input must then be the whole content.
    only_changes = False

    def __init__(self, organization_id: Callable[[], str], source_id: str) -> None:
        self._organization_id = organization_id
        self.source_id = source_id
        self._cursors: list[MovableCursor] = []

    @property
    def organization_id(self) -> str:
        """The organization of the push."""
        return self._organization_id()

    def ended(self, result: Mapping[str, object]) -> None:
        """
        Handle the result of the push.

        :param result: The result.
        """
        if result.get("dry_run"):
            self.moves = False
            for block in _blocks:
                block.was_dry = True
        else:
            for block in _blocks:
                block.has_pushed = True

    def check(self) -> None:
        """
        Check that the push may read its input with a cursor.

        :raises CoveoInputError: if the push would delete the items that are not in its input.
        """
        if self.only_changes:
            raise CoveoInputError(
                f"Could not push to source {self.source_id!r}: the push has both only_changes and a cursor",
                cause="only_changes deletes items missing from the input, and a cursor reads only some items",
                remedy="Use only one of the two",
            )

    def add(self, cursor: MovableCursor) -> None:
        """
        Add a cursor, which then moves with the push.

        :param cursor: The cursor.
        """
        if cursor not in self._cursors:
            self._cursors.append(cursor)

    def save(self) -> None:
        """Move all cursors, unless nothing was sent."""
        for cursor in self._cursors:
            if self.moves:
                cursor.save()
            else:
                cursor.undo()

    def abandon(self) -> None:
        """Leave all cursors where they are. A failure to record this is only logged."""
        for cursor in self._cursors:
            try:
                cursor.abandon()
            except Exception as problem:
                log.warning("Could not record that a push with a cursor failed: %r", problem)


_current: ContextVar[CursorScope | None] = ContextVar("coveo_cursor_scope", default=None)


def current_scope() -> CursorScope | None:
    """Return the scope of the innermost push that is reading its input, or ``None`` outside a push."""
    return _current.get()


@contextmanager
def cursor_scope(organization_id: Callable[[], str], source_id: str) -> Iterator[CursorScope]:
    """
    Move the cursors of everything read in this context at its end, unless an exception is raised.

    :param organization_id: Returns the organization of the push.
    :param source_id: The source.
    """
    scope = CursorScope(organization_id, source_id)
    token = _current.set(scope)
    try:
        with _holding_blocks():
            yield scope
    except BaseException:
        scope.abandon()
        raise
    finally:
        _current.reset(token)
    scope.save()


def moving_cursors(push: _Push) -> _Push:
    """
    Make a hook method move the cursors of its input when it succeeds.

    :param push: The method. Its first argument is the source.
    """

    @functools.wraps(push)
    def moved(hook: Any, source_id: str, *args: object, **kwargs: object) -> object:
        with cursor_scope(lambda: str(hook.organization_id), source_id) as scope:
            scope.only_changes = kwargs.get("changes") is not None
            scope.is_dry = parse_flag("dry_run", kwargs.get("dry_run") or False)
            result = push(hook, source_id, *args, **kwargs)
            scope.ended(result)
            return result

    return moved  # type: ignore[return-value]


def holding_cursors(push: _Push) -> _Push:
    """
    Make a hook method that changes one item keep the cursor of its ``with`` block in place if it fails.

    :param push: The method.
    """

    @functools.wraps(push)
    def held(*args: object, **kwargs: object) -> object:
        with _holding_blocks():
            result = push(*args, **kwargs)
        for block in _blocks:
            block.has_pushed = True
        return result

    return held  # type: ignore[return-value]


class CursorBlock:
    """A cursor's ``with`` block around pushes."""

    #: Whether no push in the block failed.
    moves = True
    #: Whether a push in the block was a dry run: the cursor then stays.
    was_dry = False
    #: Whether a push in the block was not a dry run.
    has_pushed = False


_blocks: list[CursorBlock] = []


@contextmanager
def _holding_blocks() -> Iterator[None]:
    """Keep the cursors of all ``with`` blocks in place if a push in them fails."""
    try:
        yield
    except BaseException:
        # Code around the push may catch the error and continue to the end of its block.
        for block in _blocks:
            block.moves = False
        raise


@contextmanager
def cursor_block() -> Iterator[CursorBlock]:
    """Handle pushes in a ``with`` block that fail or send nothing."""
    block = CursorBlock()
    _blocks.append(block)
    try:
        yield block
    finally:
        _blocks.remove(block)
