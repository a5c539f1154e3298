"""Which cursors belong to a push that is under way: they move once it succeeded, and not before."""

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
    """A cursor as a push sees it."""

    def save(self) -> None:
        """Move it: everything up to it was accepted."""

    def abandon(self) -> None:
        """Leave it where it is."""

    def undo(self) -> None:
        """Take back what is on record of this attempt."""


class CursorScope:
    """
    The cursors of one push.

    :param organization_id: Returns the organization that is pushed to.
    :param source_id: The source.
    """

    #: Whether the push is known to send nothing, so that its cursors record nothing.
    is_dry = False
    #: Whether its cursors move at the end: not if nothing was sent.
    moves = True
    #: Whether the push deletes what its input lacks, so that a part of the content must not be its input.
    only_changes = False

    def __init__(self, organization_id: Callable[[], str], source_id: str) -> None:
        self._organization_id = organization_id
        self.source_id = source_id
        self._cursors: list[MovableCursor] = []

    @property
    def organization_id(self) -> str:
        """The organization that is pushed to."""
        return self._organization_id()

    def ended(self, result: Mapping[str, object]) -> None:
        """
        Learn what the push came to.

        :param result: Its result.
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
        Check that a cursor may give the push its input.

        :raises CoveoInputError: if the push would delete what is not in it.
        """
        if self.only_changes:
            raise CoveoInputError(
                f"Could not push to source {self.source_id!r}: the push has only_changes, and a cursor",
                cause="only_changes deletes what its input lacks, and with a cursor the input is a part",
                remedy="Leave out one of the two",
            )

    def add(self, cursor: MovableCursor) -> None:
        """
        Let a cursor move with the push.

        :param cursor: The cursor.
        """
        if cursor not in self._cursors:
            self._cursors.append(cursor)

    def save(self) -> None:
        """Move all, unless nothing was sent."""
        for cursor in self._cursors:
            if self.moves:
                cursor.save()
            else:
                cursor.undo()

    def abandon(self) -> None:
        """Leave all where they are; that this can't be recorded fails nothing."""
        for cursor in self._cursors:
            try:
                cursor.abandon()
            except Exception as problem:
                log.warning("Could not record that a push with a cursor failed: %r", problem)


_current: ContextVar[CursorScope | None] = ContextVar("coveo_cursor_scope", default=None)


def current_scope() -> CursorScope | None:
    """Return the scope of the innermost push that reads its input now, ``None`` outside of one."""
    return _current.get()


@contextmanager
def cursor_scope(organization_id: Callable[[], str], source_id: str) -> Iterator[CursorScope]:
    """
    Let the cursors of what is read here move at the end, unless an exception is raised.

    :param organization_id: Returns the organization that is pushed to.
    :param source_id: The source.
    """
    scope = CursorScope(organization_id, source_id)
    token = _current.set(scope)
    try:
        yield scope
    except BaseException:
        # Code around the push may catch the error, and go on to the end of its block.
        for block in _blocks:
            block.moves = False
        scope.abandon()
        raise
    finally:
        _current.reset(token)
    scope.save()


def moving_cursors(push: _Push) -> _Push:
    """
    Let the cursors of what a hook's method reads as its input move once it succeeded.

    :param push: The method, whose first argument is the source.
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


class CursorBlock:
    """A ``with`` block of a cursor, around pushes."""

    #: Whether no push in it failed.
    moves = True
    #: Whether a push in it was a dry run, so that the cursor stays.
    was_dry = False
    #: Whether a push in it was none.
    has_pushed = False


_blocks: list[CursorBlock] = []


@contextmanager
def cursor_block() -> Iterator[CursorBlock]:
    """Learn of pushes in a ``with`` block that fail or send nothing."""
    block = CursorBlock()
    _blocks.append(block)
    try:
        yield block
    finally:
        _blocks.remove(block)
