"""The simulator's clock, which tests can turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone


class Clock:
    """
    Real time, plus what a test added to it.

    Two things can be turned, and they are not the same. :meth:`advance` lets time pass: queued deletes come
    due, containers expire, limits open again. :meth:`shift` makes Coveo's clock differ from the worker's:
    the ``Date`` header and the ordering IDs change, and nothing comes due.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._advanced = 0.0
        self._shift = 0.0
        self._listeners: list[Callable[[], None]] = []

    @property
    def advanced_seconds(self) -> float:
        """How much time :meth:`advance` let pass, in total."""
        return self._advanced

    @property
    def shift_seconds(self) -> float:
        """How far this clock is ahead of the worker's (behind, if negative), :meth:`advance` left aside."""
        return self._shift

    def now(self) -> float:
        """Return the time that Coveo's clock shows, in seconds since the Unix epoch."""
        return time.time() + self._advanced + self._shift

    def now_ms(self) -> int:
        """Return the time that Coveo's clock shows, in milliseconds since the Unix epoch."""
        return int(self.now() * 1000)

    def utcnow(self) -> datetime:
        """Return the time that Coveo's clock shows, in UTC."""
        return datetime.fromtimestamp(self.now(), timezone.utc)

    def elapsed(self) -> float:
        """Return seconds on a clock for durations: it only goes forward, and a shift leaves it alone."""
        return time.monotonic() + self._advanced

    def advance(self, *, seconds: float = 0, minutes: float = 0, hours: float = 0, days: float = 0) -> None:
        """
        Let time pass at once.

        :param seconds: how many seconds; all four add up.
        :param minutes: how many minutes.
        :param hours: how many hours.
        :param days: how many days.
        """
        step = timedelta(seconds=seconds, minutes=minutes, hours=hours, days=days).total_seconds()
        if step < 0:
            raise ValueError("Time only passes forward; use shift() for a clock that goes wrong")
        with self._lock:
            self._advanced += step
        self._tell()

    def shift(self, *, seconds: float = 0, minutes: float = 0, hours: float = 0, days: float = 0) -> None:
        """
        Set by how much this clock is ahead of the worker's (behind, if negative). Not cumulative.

        :param seconds: how many seconds; all four add up.
        :param minutes: how many minutes.
        :param hours: how many hours.
        :param days: how many days.
        """
        with self._lock:
            self._shift = timedelta(seconds=seconds, minutes=minutes, hours=hours, days=days).total_seconds()
        self._tell()

    def reset(self) -> None:
        """Go back to real time."""
        with self._lock:
            self._advanced = self._shift = 0.0
        self._tell()

    def on_turn(self, listener: Callable[[], None]) -> None:
        """
        Call ``listener`` each time somebody turned the clock.

        :param listener: what to call.
        """
        self._listeners.append(listener)

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()
