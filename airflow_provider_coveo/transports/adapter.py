"""
An adapter for ``requests`` that enforces the limits of an
:class:`~airflow_provider_coveo.transports.exchange.Exchange`.

urllib3 applies the connect timeout to sending a request's body. It has no limit for a whole request, and no
way to interrupt one from outside. http.client skips no informational response except 100. Subclasses of
urllib3's connection and response classes add these features, through the extension points of urllib3.
"""

from __future__ import annotations

import errno
import functools
import http.client
import io
import re
import select
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection

from airflow_provider_coveo.coveo.stop import SLICE
from airflow_provider_coveo.transports.exchange import Exchange, current_exchange

if sys.platform == "win32":  # pragma: no cover - Airflow does not support Windows
    fcntl = termios = None
else:
    import fcntl
    import termios

if TYPE_CHECKING:
    from _typeshed import HasFileno, ReadableBuffer
    from urllib3 import HTTPConnectionPool, PoolManager

T = TypeVar("T")

#: The maximum number of informational responses before the final one.
_MAX_INTERIM: Final = 100
_INTERIM: Final = rb"HTTP/1\.\d 1(?!01)\d\d[ \r\n]"
_MAX_EARLY: Final = 64 * 1024


class _WatchedSocket:
    """
    A socket that waits no longer than its exchange allows.

    :param sock: A connected socket, with or without TLS.
    :param shows_responses: Whether it yields HTTP, and not the TLS records of an inner connection.
    """

    def __init__(self, sock: Any, *, shows_responses: bool = True) -> None:
        self._sock = sock
        self._shows_responses = shows_responses
        self._timeout: float | None = sock.gettimeout()
        self._applied = self._timeout
        self._early = bytearray()
        self._probing = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._sock, name)

    # urllib3's TLS in TLS counts its readers in this attribute.
    @property
    def _io_refs(self) -> int:
        return int(self._sock._io_refs)

    @_io_refs.setter
    def _io_refs(self, value: int) -> None:
        self._sock._io_refs = value

    def settimeout(self, value: float | None) -> None:
        """Set the timeout for operations outside of an exchange."""
        self._timeout = value

    def gettimeout(self) -> float | None:
        """Return the timeout for operations outside of an exchange."""
        return self._timeout

    def makefile(self, mode: str = "rb", buffering: int | None = None, **_: object) -> io.BufferedReader:
        """Return a reader for http.client."""
        raw = socket.SocketIO(self, "r")  # type: ignore[arg-type]
        self._io_refs += 1
        return io.BufferedReader(raw)

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        """Send ``data``, unless a final response arrives first."""
        exchange = current_exchange()
        if exchange is None:
            self._apply(self._timeout)
            self._sock.sendall(data)
            return
        exchange.is_begun = True
        with memoryview(data) as view, view.cast("B") as left:
            start = 0
            while start < len(left):
                self._end_if_answered()
                send = functools.partial(self._sock.send, left[start:])
                start += self._watched(exchange, send, self._end_if_answered)

    def recv(self, size: int = 1024, flags: int = 0) -> bytes:
        """Receive up to ``size`` bytes."""
        buffer = bytearray(size)
        return bytes(buffer[: self.recv_into(buffer)])

    def recv_into(self, buffer: bytearray | memoryview, nbytes: int = 0, flags: int = 0) -> int:
        """Receive into ``buffer``, beginning with data that arrived while the request was being sent."""
        if self._early:
            taken = min(len(buffer), len(self._early))
            buffer[:taken] = self._early[:taken]
            del self._early[:taken]
            return taken
        if self._probing:
            return self._receive_now(self._sock.recv_into, buffer)
        exchange = current_exchange()
        if exchange is None:
            self._apply(self._timeout)
            return int(self._sock.recv_into(buffer))
        size = int(self._watched(exchange, functools.partial(self._sock.recv_into, buffer)))
        exchange.is_answered = exchange.is_sent
        return size

    def has_more(self, reader: io.BufferedReader) -> bool:
        """Return whether data follows the response."""
        self._probing = True
        try:
            return bool(self._early) or bool(reader.peek(1))
        except (OSError, ValueError):
            return True
        finally:
            self._probing = False

    def _apply(self, timeout: float | None) -> None:
        # Each change is a system call.
        if timeout != self._applied:
            self._sock.settimeout(timeout)
            self._applied = timeout

    def _watched(
        self, exchange: Exchange, operation: Callable[[], T], between: Callable[[], None] | None = None
    ) -> T:
        """Repeat an operation with a short timeout until it succeeds or the exchange ends."""
        quiet = 0.0
        queued = -1
        while True:
            exchange.check()
            self._apply(exchange.slice_seconds)
            try:
                return operation()
            except TimeoutError:
                # While the kernel is still sending buffered data, the connection is not silent.
                left = _queued_bytes(self._sock)
                quiet = 0.0 if 0 <= left < queued else quiet + exchange.slice_seconds
                queued = left
                allowed = exchange.allowed_silence
                if allowed is not None and quiet >= allowed:
                    raise TimeoutError(f"timed out: no data sent or received for {allowed:g} s") from None
                if between is not None:
                    between()

    def _end_if_answered(self) -> None:
        if self._is_answered():
            # On this error, urllib3 reads the response.
            raise BrokenPipeError(errno.EPIPE, "the response arrived before the request was sent")

    def _is_answered(self) -> bool:
        """Return whether a final response, or the end of the connection, has arrived."""
        if not self._shows_responses or not _is_readable(self._sock):
            return self._shows_final_response()
        buffer = bytearray(16 * 1024)
        try:
            size = self._receive_now(self._sock.recv_into, buffer)
        except BlockingIOError:
            return self._shows_final_response()
        self._early += buffer[:size]
        return not size or len(self._early) > _MAX_EARLY or self._shows_final_response()

    def _shows_final_response(self) -> bool:
        rest = bytes(self._early)
        while re.match(_INTERIM, rest):
            _, end, rest = rest.partition(b"\r\n\r\n")
            if not end:
                return False
        # This many bytes distinguish a final response from an informational one.
        return len(rest) >= len(b"HTTP/1.1 100 ")

    def _receive_now(
        self, receive: Callable[[bytearray | memoryview], int], buffer: bytearray | memoryview
    ) -> int:
        self._apply(0.0)
        try:
            return int(receive(buffer))
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as nothing:
            raise BlockingIOError(errno.EAGAIN, "no data") from nothing


def _is_readable(sock: HasFileno) -> bool:
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _queued_bytes(sock: HasFileno) -> int:
    """Return the number of unsent or unacknowledged bytes in the kernel, -1 if it is unknown."""
    try:
        answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    except (AttributeError, OSError, ValueError):
        return -1
    return int.from_bytes(answer, sys.byteorder)


class _Response(http.client.HTTPResponse):
    """A response that skips informational ones before it, and detects data after it."""

    def __init__(
        self,
        sock: socket.socket,
        debuglevel: int = 0,
        method: str | None = None,
        url: str | None = None,
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self._socket: object = getattr(sock, "socket", sock)

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(_MAX_INTERIM):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            # After 101, the connection uses another protocol.
            if not 100 <= status < 200 or status == 101:
                return version, status, reason
            http.client.parse_headers(self.fp)
        raise http.client.HTTPException(f"more than {_MAX_INTERIM} informational responses")

    def begin(self) -> None:
        """Read the status and the headers."""
        super().begin()
        exchange = current_exchange()
        if exchange is not None and self._is_ambiguous():
            exchange.is_clean = False

    def _is_ambiguous(self) -> bool:
        """Return whether client and server could disagree on where the response ends."""
        lengths = self.headers.get_all("Content-Length", [])
        codings = self.headers.get_all("Transfer-Encoding", [])
        return (
            bool(codings and lengths)
            or len(lengths) > 1
            or len(codings) > 1
            or not all(re.fullmatch(r"[0-9]+", length.strip(" \t")) for length in lengths)
            # A malformed line may have been one of these headers.
            or bool(self.headers.defects)
            or self.version != 11
        )

    def _close_conn(self) -> None:
        exchange = current_exchange()
        if exchange is not None and isinstance(self._socket, _WatchedSocket) and self.fp is not None:
            exchange.is_clean = exchange.is_clean and not self._socket.has_more(self.fp)
        super()._close_conn()  # type: ignore[misc]


class _Connecting:
    """
    An attempt to connect, in its own thread, since name resolution and handshakes can't be interrupted.

    :param connect: Opens the connection.
    :param close: Closes the connection.
    """

    def __init__(self, connect: Callable[[], None], close: Callable[[], None]) -> None:
        self.is_over = threading.Event()
        self._connect = connect
        self._close = close
        self._is_abandoned = False
        self._problem: BaseException | None = None

    def run(self, exchange: Exchange) -> None:
        """Connect, unless the exchange ends first."""
        threading.Thread(target=self._work, name="coveo-connect", daemon=True).start()
        try:
            while not self.is_over.wait(min(SLICE, exchange.slice_seconds)):
                exchange.check()
        except BaseException:
            self._is_abandoned = True
            if self.is_over.is_set():
                self._close()
            raise
        if self._problem is not None:
            raise self._problem

    def _work(self) -> None:
        try:
            self._connect()
        except BaseException as problem:
            self._problem = problem
        finally:
            self.is_over.set()
            if self._is_abandoned:
                self._close()


class _WatchedConnection(HTTPConnection):
    """A connection that respects the limits of its thread's exchange."""

    response_class = _Response
    _connecting: _Connecting | None = None

    def connect(self) -> None:
        """Connect."""
        exchange = current_exchange()
        if exchange is None:
            super().connect()
        else:
            self._connecting = _Connecting(super().connect, super().close)
            self._connecting.run(exchange)
            self._connecting = None
        self.sock: object = _watched(self.sock)

    def close(self) -> None:
        """Close, unless the connecting thread still uses the socket; it will close it then."""
        if self._connecting is None or self._connecting.is_over.is_set():
            super().close()

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request."""
        exchange = current_exchange()
        if exchange is not None:
            exchange.connection = self
            exchange.is_sent = False
        super().request(*args, **kwargs)
        if exchange is not None:
            exchange.is_sent = True


def _watched(sock: Any) -> object:
    if isinstance(sock, (_WatchedSocket, type(None))):
        return sock
    inner = getattr(sock, "socket", None)
    if isinstance(inner, socket.socket):
        # TLS to a host through TLS to a proxy: the outer connection does the waiting.
        sock.socket = _WatchedSocket(inner, shows_responses=False)
        return sock
    return _WatchedSocket(sock)


@functools.cache
def _watched_pool_class(pool_class: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
    connection_class = pool_class.ConnectionCls
    if issubclass(connection_class, _WatchedConnection):
        return pool_class
    watched = type(connection_class.__name__, (_WatchedConnection, connection_class), {})
    return type(pool_class.__name__, (pool_class,), {"ConnectionCls": watched})


def _watch(manager: PoolManager) -> None:
    manager.pool_classes_by_scheme = {
        scheme: _watched_pool_class(pool_class)
        for scheme, pool_class in manager.pool_classes_by_scheme.items()
    }


class LimitedAdapter(HTTPAdapter):
    """Sends requests within the limits of the thread's current exchange."""

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: object
    ) -> None:
        """Create the pools for direct connections."""
        super().init_poolmanager(connections, maxsize, block, **pool_kwargs)
        _watch(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: object) -> object:
        """Return the pools for a proxy."""
        is_new = proxy not in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **kwargs)
        if is_new:
            _watch(manager)
        return manager

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float, float] | tuple[float, None] | None = None,
        verify: bool | str = True,
        cert: str | bytes | tuple[str | bytes, str | bytes] | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """
        Send a request.

        :param timeout: The time to connect and the maximum silence, in seconds: a number, or a pair. The
            former applies only to connecting, the latter to sending and receiving.
        """
        exchange = current_exchange()
        if exchange is None:
            with Exchange(silence=_silence(timeout)):
                return super().send(request, stream, timeout, verify, cert, proxies)
        exchange.silence = _silence(timeout)
        exchange.size = int(request.headers.get("Content-Length") or 0)
        return super().send(request, stream, timeout, verify, cert, proxies)


def _silence(timeout: float | tuple[float, float | None] | None) -> float | None:
    if isinstance(timeout, tuple):
        timeout = timeout[-1]
    return None if timeout is None else float(getattr(timeout, "read_timeout", timeout))
