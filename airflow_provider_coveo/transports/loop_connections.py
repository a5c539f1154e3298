"""
Connections for an event loop that are used again only if nothing is left on them.

aiohttp keeps a connection after any response that it could read, and takes what comes over one that nobody
uses for the response to the next request. To open a connection for each request instead costs a TLS
handshake, which is more than all the rest.
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
from aiohttp.http import HttpVersion11

#: The connections of the request that is under way in a task.
_used: ContextVar[list[object] | None] = ContextVar("coveo_used_connections", default=None)

#: What says where a response ends.
_FRAMING: Final = ("Content-Length", "Transfer-Encoding")


class _CountingHandler(ResponseHandler):
    """aiohttp's end of a connection, which says how often something came."""

    times_received = 0

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        self.times_received += 1
        super().data_received(data)


class TrustedConnector(aiohttp.TCPConnector):
    """
    A connector that keeps only connections it was told to trust, once for each response.

    See :class:`aiohttp.TCPConnector` for the parameters.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # Where aiohttp has another way to make them, no connection is trusted.
        self._factory: Any = functools.partial(_CountingHandler, loop=self._loop)
        # How often something had come over each when its last response was found to be right.
        self._trusted: WeakKeyDictionary[object, int] = WeakKeyDictionary()
        self._known: WeakKeyDictionary[object, bool] = WeakKeyDictionary()

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        """Return a new connection, or one that is trusted and over which nothing came since."""
        while True:
            connection = await super().connect(*args, **kwargs)
            protocol = connection.protocol
            if protocol not in self._known:
                self._known[protocol] = True
                break
            # Whoever read the last response from it may not have come to a verdict yet.
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
        Let the connection of a request be used for another one.

        :param used: What :func:`used_connections` gave.
        """
        # Where there are several, the last one had the response.
        for protocol in used[-1:]:
            if isinstance(protocol, _CountingHandler):
                self._trusted[protocol] = protocol.times_received


@contextmanager
def used_connections() -> Iterator[list[object]]:
    """Give a list of what is the connection of the request that is made meanwhile, to be trusted or not."""
    used: list[object] = []
    token = _used.set(used)
    try:
        yield used
    finally:
        _used.reset(token)


def has_certain_end(response: aiohttp.ClientResponse) -> bool:
    """Return whether the two ends can't differ over where a response ends."""
    said = [value for name in _FRAMING for value in response.headers.getall(name, ())]
    return response.version == HttpVersion11 and len(said) == 1


def _has_something(connection: Any) -> bool:
    """Return whether something waits on a connection: bytes, or its end."""
    if connection.protocol.should_close:
        return True
    sock = connection.transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))
