"""A flag that ends waits and requests, from a signal handler if need be."""

from __future__ import annotations

import time
from typing import Final

#: The most seconds between two checks of a flag or a socket.
SLICE: Final = 0.25


class StopSignal:
    """
    A flag that ends waits and requests.

    Setting it takes no lock, so that a signal handler can set it whatever the interrupted thread holds.

    :param parent: A signal that counts as well: once it is set, so is this one.
    """

    def __init__(self, parent: StopSignal | None = None) -> None:
        self._parent = parent
        self._set_at: float | None = None

    def set(self) -> None:
        """Set it, for good."""
        if self._set_at is None:
            self._set_at = time.monotonic()

    @property
    def set_at(self) -> float | None:
        """The monotonic time at which it was set, ``None`` if it is not."""
        above = None if self._parent is None else self._parent.set_at
        times = [each for each in (self._set_at, above) if each is not None]
        return min(times) if times else None

    def is_set(self) -> bool:
        """Return whether it, or its parent, is set."""
        return self._set_at is not None or (self._parent is not None and self._parent.is_set())

    def wait(self, timeout: float) -> bool:
        """
        Wait until it is set, or the time is over.

        :param timeout: The most seconds to wait.
        :return: Whether it is set.
        """
        until = time.monotonic() + timeout
        while not self.is_set():
            left = until - time.monotonic()
            if left <= 0:
                return False
            # An event's own wait holds a lock for a moment, which a signal handler would wait for in vain.
            time.sleep(min(left, SLICE))
        return True
