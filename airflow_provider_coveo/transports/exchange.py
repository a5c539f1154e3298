"""How long one request may take, and what ends it before that."""

from __future__ import annotations

import time
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Final

from airflow_provider_coveo.coveo.stop import SLICE, StopSignal

#: Seconds that the response to a request that was sent whole may still take after a stop, so that the task
#: can report whether Coveo accepted it.
GRACE_SECONDS: Final = 1.0
#: For each so many bytes of a request, its response may take another silence: buffers on the way, such as a
#: proxy's, can hold all of it, and nobody here sees it move on.
BYTES_PER_SILENCE: Final = 4 * 1024 * 1024


class RequestStoppedError(OSError):
    """A request that was ended by a stop."""


class TotalTimeoutError(TimeoutError):
    """A request that took longer than a whole request may."""


class Exchange:
    """
    One request and its response, with their limits; a context manager.

    While it is open, the connections of :class:`~airflow_provider_coveo.transports.adapter.LimitedAdapter`
    keep to it in this thread.

    :param total: Seconds from the beginning to the last byte of the response, ``None`` for no limit.
    :param stop: What ends it early.
    :param silence: Seconds without a byte in either direction, ``None`` for no limit.
    """

    def __init__(
        self, *, total: float | None = None, stop: StopSignal | None = None, silence: float | None = None
    ) -> None:
        self.total = total
        self.silence = silence
        self.is_stopped = False
        self.is_overdue = False
        #: Whether a byte of the request left this machine.
        self.is_begun = False
        #: Whether the request left this machine whole, before any final response came.
        self.is_sent = False
        #: Whether the response leaves its connection in a state that the next request can rely on.
        self.is_clean = True
        #: Whether a byte of the response has come.
        self.is_answered = False
        #: How many bytes the request's body has.
        self.size = 0
        self.connection: Any = None
        self._stop = stop
        self._deadline = None if total is None else time.monotonic() + total
        self._tokens: list[Token[Exchange | None]] = []

    def __enter__(self) -> Exchange:
        self._tokens.append(_current.set(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.reset(self._tokens.pop())

    def check(self) -> None:
        """
        Return if the exchange may go on.

        :raises RequestStoppedError: if it was stopped.
        :raises TotalTimeoutError: if its time is over.
        """
        stopped_at = None if self._stop is None else self._stop.set_at
        if stopped_at is not None and (not self.is_sent or time.monotonic() - stopped_at >= GRACE_SECONDS):
            self.is_stopped = True
            raise RequestStoppedError("the request was stopped")
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.is_overdue = True
            raise TotalTimeoutError(f"timed out: the request as a whole took longer than {self.total:g} s")

    @property
    def allowed_silence(self) -> float | None:
        """Seconds without a byte in either direction that are allowed at present."""
        if self.silence is None or not self.is_sent or self.is_answered:
            return self.silence
        return self.silence * (1 + self.size / BYTES_PER_SILENCE)

    @property
    def slice_seconds(self) -> float:
        """Seconds until the next check, at most."""
        limits = (SLICE, *(limit for limit in (self.silence, self.total) if limit is not None))
        return max(0.001, min(limits))

    def end(self) -> None:
        """Give up the connection, since the response was not understood, or nobody knows what follows it."""
        if self.connection is not None:
            self.connection.close()

    def end_if_uncertain(self) -> None:
        """Give up the connection, unless the next request can rely on it."""
        if not (self.is_sent and self.is_clean):
            self.end()


_current: ContextVar[Exchange | None] = ContextVar("coveo_exchange", default=None)


def current_exchange() -> Exchange | None:
    """Return the exchange that is under way in this thread."""
    return _current.get()
