"""Limits the rate of one process's calls to an organization."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

#: The interval, in seconds, at which a waiting call checks whether the task is killed.
_SECONDS_BETWEEN_LOOKS: Final = 0.25


class CallThrottle:
    """
    Spaces the calls of this process by an interval, and pauses them while Coveo rate-limits one.

    It does not know about other processes. To limit those too, use an Airflow pool: a task that waits here
    keeps its slot, so no other task starts in it.

    :param interval: Seconds between two calls, and before the first one; 0 for none.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._lock = threading.Lock()
        self._one_at_a_time = threading.Lock()
        # The previous task in the slot may have sent a call at its very end.
        self._next = time.monotonic() + interval
        self._refused_until = 0.0

    @contextmanager
    def acquire(
        self, wait: Callable[[float], object], is_stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[None]:
        """
        Wait until a call is allowed, and run it in the ``with`` block.

        The interval starts at the end of the previous call. It is unknown when Coveo counted that call; only
        this guarantees that Coveo counts two calls at least that far apart.

        :param wait: Waits for some seconds, or less if the task is killed.
        :param is_stopped: Returns whether the task is killed; it then no longer waits for another call.
        """
        has_lock = False
        while self._interval and not has_lock and not is_stopped():
            has_lock = self._one_at_a_time.acquire(timeout=_SECONDS_BETWEEN_LOOKS)
        try:
            seconds = max(self._next, self._refused_until) - time.monotonic()
            if seconds > 0:
                wait(seconds)
            try:
                yield
            finally:
                self._next = time.monotonic() + self._interval
        finally:
            if has_lock:
                self._one_at_a_time.release()

    def pause_for(self, seconds: float) -> None:
        """Pause all calls for some time, because Coveo rate-limited one."""
        with self._lock:
            self._refused_until = max(self._refused_until, time.monotonic() + seconds)


@functools.lru_cache(maxsize=64)
def call_throttle(push_url: str, organization_id: str, interval: float) -> CallThrottle:
    """Return the throttle that all calls of this process to one organization share."""
    return CallThrottle(interval)


# A task runs in a forked process, which must not inherit its parent's wait.
os.register_at_fork(after_in_child=call_throttle.cache_clear)
