"""The simulator's clock, which tests can change."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone


class Clock:
    """
    Real time, plus the changes of a test.

    There are two kinds of change. :meth:`advance` lets time pass: queued deletions come due, containers
    expire, limits reset. :meth:`shift` makes Coveo's clock differ from the worker's: the ``Date`` header and
    the ordering IDs change, but nothing comes due.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._advanced = 0.0
        self._shift = 0.0
        self._listeners: list[Callable[[], None]] = []

    @property
    def advanced_seconds(self) -> float:
        """The total time that :meth:`advance` added."""
        return self._advanced

    @property
    def shift_seconds(self) -> float:
        """The lead over the worker's clock in seconds, without :meth:`advance`; negative if behind."""
        return self._shift

    def now(self) -> float:
        """Return the time on Coveo's clock, in seconds since the Unix epoch."""
        return time.time() + self._advanced + self._shift

    def now_ms(self) -> int:
        """Return the time on Coveo's clock, in milliseconds since the Unix epoch."""
        return int(self.now() * 1000)

    def utcnow(self) -> datetime:
        """Return the time on Coveo's clock, in UTC."""
        return datetime.fromtimestamp(self.now(), timezone.utc)

    def elapsed(self) -> float:
        """Return the seconds on a monotonic clock, which a shift does not affect."""
        return time.monotonic() + self._advanced

    def advance(self, *, seconds: float = 0, minutes: float = 0, hours: float = 0, days: float = 0) -> None:
        """
        Let time pass at once.

        :param seconds: the number of seconds; all four parameters add up.
        :param minutes: the number of minutes.
        :param hours: the number of hours.
        :param days: the number of days.
        """
        step = timedelta(seconds=seconds, minutes=minutes, hours=hours, days=days).total_seconds()
        if step < 0:
            raise ValueError("Time can't go backward; use shift() to simulate a wrong clock")
        with self._lock:
            self._advanced += step
        self._tell()

    def shift(self, *, seconds: float = 0, minutes: float = 0, hours: float = 0, days: float = 0) -> None:
        """
        Set the difference to the worker's clock: ahead, or behind if negative. It is not cumulative.

        :param seconds: the number of seconds; all four parameters add up.
        :param minutes: the number of minutes.
        :param hours: the number of hours.
        :param days: the number of days.
        """
        with self._lock:
            self._shift = timedelta(seconds=seconds, minutes=minutes, hours=hours, days=days).total_seconds()
        self._tell()

    def reset(self) -> None:
        """Return to real time."""
        with self._lock:
            self._advanced = self._shift = 0.0
        self._tell()

    def on_turn(self, listener: Callable[[], None]) -> None:
        """
        Call ``listener`` after each change of the clock.

        :param listener: the function to call.
        """
        self._listeners.append(listener)

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()
