"""The time limits of one request, and its early end."""

from __future__ import annotations

import time
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Final, Protocol

from airflow_provider_coveo.coveo.stop import SLICE, StopSignal

#: The seconds that a response may take after a stop if its request was sent completely, so that the task can
#: report whether Coveo accepted it.
GRACE_SECONDS: Final = 1.0
#: For each of these bytes of a request, its response may take another ``silence``: buffers on the way, such
#: as a proxy's, can hold the whole request, and the client can't see their progress.
BYTES_PER_SILENCE: Final = 4 * 1024 * 1024


class RequestStoppedError(OSError):
    """The request was interrupted by a stop."""


class TotalTimeoutError(TimeoutError):
    """The request exceeded the limit for a whole request."""


class Closable(Protocol):
    """A connection that can be closed from another thread."""

    def close(self) -> None:
        """Close it."""


class Exchange:
    """
    One request and its response, with their limits. Use it as a context manager.

    While it is open, connections of :class:`~airflow_provider_coveo.transports.adapter.LimitedAdapter`
    respect its limits in this thread.

    :param total: The maximum seconds from the start to the last byte of the response, ``None`` for no limit.
    :param stop: The signal that ends it early.
    :param silence: The maximum seconds without a byte in either direction, ``None`` for no limit.
    """

    def __init__(
        self, *, total: float | None = None, stop: StopSignal | None = None, silence: float | None = None
    ) -> None:
        self.total = total
        self.silence = silence
        self.is_stopped = False
        self.is_overdue = False
        #: Whether a byte of the request was sent.
        self.is_begun = False
        #: Whether the complete request was sent before a final response arrived.
        self.is_sent = False
        #: Whether the response leaves its connection in a usable state for the next request.
        self.is_clean = True
        #: Whether a byte of the response has arrived.
        self.is_answered = False
        #: The size of the request's body in bytes.
        self.size = 0
        self.connection: Closable | None = None
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
        Return if the exchange may continue.

        :raises RequestStoppedError: if it was stopped.
        :raises TotalTimeoutError: if its time is up.
        """
        stopped_at = None if self._stop is None else self._stop.set_at
        if stopped_at is not None and (not self.is_sent or time.monotonic() - stopped_at >= GRACE_SECONDS):
            self.is_stopped = True
            raise RequestStoppedError("the request was stopped")
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.is_overdue = True
            raise TotalTimeoutError(f"timed out: the whole request took longer than {self.total:g} s")

    @property
    def allowed_silence(self) -> float | None:
        """The maximum seconds without a byte in either direction, at this point of the exchange."""
        if self.silence is None or not self.is_sent or self.is_answered:
            return self.silence
        return self.silence * (1 + self.size / BYTES_PER_SILENCE)

    @property
    def slice_seconds(self) -> float:
        """The maximum seconds until the next check."""
        limits = (SLICE, *(limit for limit in (self.silence, self.total) if limit is not None))
        return max(0.001, min(limits))

    def end(self) -> None:
        """Close the connection, because the response was not understood or unknown data may follow it."""
        if self.connection is not None:
            self.connection.close()

    def end_if_uncertain(self) -> None:
        """Close the connection, unless the next request can use it safely."""
        if not (self.is_sent and self.is_clean):
            self.end()


_current: ContextVar[Exchange | None] = ContextVar("coveo_exchange", default=None)


def current_exchange() -> Exchange | None:
    """Return this thread's current exchange."""
    return _current.get()
