"""
Connections for an event loop that are reused only if no data is left on them.

aiohttp keeps a connection after every response that it could parse. It treats data that arrives on an idle
connection as the response to the next request. A new connection for each request would prevent that, but its
TLS handshake costs more than the rest of the request.
"""

from __future__ import annotations

import functools
import select
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import HttpVersion11
from aiohttp.tracing import Trace

#: The connections of a task's current request.
_used: ContextVar[list[object] | None] = ContextVar("coveo_used_connections", default=None)

#: The headers that determine where a response ends.
_FRAMING: Final = ("Content-Length", "Transfer-Encoding")


class _CountingHandler(ResponseHandler):
    """aiohttp's side of a connection, extended to count how often data arrived."""

    times_received = 0

    def data_received(self, data: bytes) -> None:
        """Receive data."""
        self.times_received += 1
        super().data_received(data)


class TrustedConnector(aiohttp.TCPConnector):
    """
    A connector that reuses only trusted connections; each use needs a new call of :meth:`trust`.

    See :class:`aiohttp.TCPConnector` for the parameters.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # If aiohttp creates its handlers in another way, no connection is trusted.
        self._factory: Any = functools.partial(_CountingHandler, loop=self._loop)
        # The number of times that data had arrived on each when its last response was found valid.
        self._trusted: WeakKeyDictionary[object, int] = WeakKeyDictionary()
        self._known: WeakKeyDictionary[object, bool] = WeakKeyDictionary()

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """Return a new connection, or a trusted one on which no data has arrived since."""
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            if protocol not in self._known:
                self._known[protocol] = True
                break
            # The reader of its last response may not have decided yet whether to trust it.
            times = self._trusted.pop(protocol, None)
            if times == getattr(protocol, "times_received", 0) and not _has_something(connection):
                break
            connection.close()
        used = _used.get()
        if used is not None:
            used.append(protocol)
        return connection

    def trust(self, used: Sequence[object]) -> None:
        """
        Allow the connection of a request to be reused.

        :param used: The list from :func:`used_connections`.
        """
        # If there are several, the response came over the last one.
        for protocol in used[-1:]:
            if isinstance(protocol, _CountingHandler):
                self._trusted[protocol] = protocol.times_received


@contextmanager
def used_connections() -> Iterator[list[object]]:
    """Provide a list that receives the connections of the request within the block, for ``trust``."""
    used: list[object] = []
    token = _used.set(used)
    try:
        yield used
    finally:
        _used.reset(token)


def has_certain_end(response: aiohttp.ClientResponse) -> bool:
    """Return whether client and server certainly agree on where a response ends."""
    said = [value for name in _FRAMING for value in response.headers.getall(name, ())]
    return response.version == HttpVersion11 and len(said) == 1


def _has_something(connection: Connection) -> bool:
    """Return whether unread data, or the end of the connection, is pending."""
    protocol, transport = connection.protocol, connection.transport
    if protocol is None or protocol.should_close or transport is None:
        return True
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))
