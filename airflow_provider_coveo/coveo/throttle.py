"""The rate of one process's calls to an organization."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

#: How often a call that waits for another one checks whether the task is killed.
_SECONDS_BETWEEN_LOOKS: Final = 0.25


class CallThrottle:
    """
    Lets the calls of this process go out an interval apart, and none while Coveo rate-limits them.

    It knows nothing of other processes. These share an Airflow pool: a task that waits here keeps its slot,
    so no other task starts in it.

    :param interval: Seconds between two calls, and before the first one; 0 for none.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._lock = threading.Lock()
        self._one_at_a_time = threading.Lock()
        # The task that had the slot before may have made a call in its last moment.
        self._next = time.monotonic() + interval
        self._refused_until = 0.0

    @contextmanager
    def acquire(
        self, wait: Callable[[float], object], is_stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[None]:
        """
        Make one call in the ``with`` block, when it is time for it.

        The interval is counted from the end of the call before, whose own time on the way is not known: only
        so are two calls that far apart where Coveo counts them.

        :param wait: Waits for some seconds, or for less where the task is killed.
        :param is_stopped: Whether the task is killed; then nobody waits for the call of somebody else.
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
        """Let no call start for that long, because Coveo rate-limited one."""
        with self._lock:
            self._refused_until = max(self._refused_until, time.monotonic() + seconds)


@functools.lru_cache(maxsize=64)
def call_throttle(push_url: str, organization_id: str, interval: float) -> CallThrottle:
    """Return the throttle that all calls of this process to one organization share."""
    return CallThrottle(interval)


# A task runs in a process that was forked, and must not take over when its parent may call next.
os.register_at_fork(after_in_child=call_throttle.cache_clear)
