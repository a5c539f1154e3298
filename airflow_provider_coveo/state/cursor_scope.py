"""Which cursors belong to a push that is under way: they move once it succeeded, and not before."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

log = logging.getLogger(__name__)


class MovableCursor(Protocol):
    """A cursor as a push sees it."""

    def save(self) -> None:
        """Move it: everything up to it was accepted."""

    def abandon(self) -> None:
        """Leave it where it is."""


class CursorScope:
    """
    The cursors of one push.

    :param organization_id: The organization that is pushed to.
    :param source_id: The source.
    """

    def __init__(self, organization_id: str, source_id: str) -> None:
        self.organization_id = organization_id
        self.source_id = source_id
        self.moves = True
        self._cursors: list[MovableCursor] = []

    def add(self, cursor: MovableCursor) -> None:
        """
        Let a cursor move with the push.

        :param cursor: The cursor.
        """
        if cursor not in self._cursors:
            self._cursors.append(cursor)

    def save(self) -> None:
        """Move all, unless nothing was sent."""
        if self.moves:
            for cursor in self._cursors:
                cursor.save()

    def abandon(self) -> None:
        """Leave all where they are; that this can't be recorded fails nothing."""
        for cursor in self._cursors if self.moves else ():
            try:
                cursor.abandon()
            except Exception as problem:
                log.warning("Could not record that a push with a cursor failed: %r", problem)


_current: ContextVar[CursorScope | None] = ContextVar("coveo_cursor_scope", default=None)


def current_scope() -> CursorScope | None:
    """Return the scope of the innermost push that reads its input now, ``None`` outside of one."""
    return _current.get()


@contextmanager
def cursor_scope(organization_id: str, source_id: str) -> Iterator[CursorScope]:
    """
    Let the cursors of what is read here move at the end, unless an exception is raised.

    :param organization_id: The organization that is pushed to.
    :param source_id: The source.
    """
    scope = CursorScope(organization_id, source_id)
    token = _current.set(scope)
    try:
        yield scope
    except BaseException:
        scope.abandon()
        raise
    finally:
        _current.reset(token)
    scope.save()
