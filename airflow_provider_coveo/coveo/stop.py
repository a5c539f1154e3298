"""A flag that ends waits and requests; a signal handler can set it."""

from __future__ import annotations

import time
from typing import Final

#: The maximum time between two checks of a flag or a socket, in seconds.
SLICE: Final = 0.25


class StopSignal:
    """
    A flag that ends waits and requests.

    Setting it takes no lock, so a signal handler can set it whatever locks the interrupted thread holds.

    :param parent: Another signal: once it is set, this one counts as set too.
    """

    def __init__(self, parent: StopSignal | None = None) -> None:
        self._parent = parent
        self._set_at: float | None = None

    def set(self) -> None:
        """Set the flag permanently."""
        if self._set_at is None:
            self._set_at = time.monotonic()

    @property
    def set_at(self) -> float | None:
        """The monotonic time at which the flag was set, or ``None``."""
        above = None if self._parent is None else self._parent.set_at
        times = [each for each in (self._set_at, above) if each is not None]
        return min(times) if times else None

    def is_set(self) -> bool:
        """Return whether the flag or its parent is set."""
        return self._set_at is not None or (self._parent is not None and self._parent.is_set())

    def wait(self, timeout: float) -> bool:
        """
        Wait until the flag is set, or the timeout expires.

        :param timeout: The maximum time to wait, in seconds.
        :return: Whether the flag is set.
        """
        until = time.monotonic() + timeout
        while not self.is_set():
            left = until - time.monotonic()
            if left <= 0:
                return False
            # An event's own wait briefly holds a lock, on which a signal handler would deadlock.
            time.sleep(min(left, SLICE))
        return True
