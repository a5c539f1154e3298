"""The simulator as an object: a Coveo on a loopback port, with methods to inspect and change its state."""

from __future__ import annotations

import asyncio
import socket
import threading
from asyncio import Transport
from types import TracebackType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from airflow_provider_coveo.simulator.app import App
from airflow_provider_coveo.simulator.world import World

#: Longer than any client keeps an idle connection, so that the server never closes one that a client reuses.
_KEEP_ALIVE_SECONDS = 600


class Simulator(World):
    """
    A Coveo organization on a loopback port; use it as a context manager.

    :param organization: the organization identifier.
    :param sources: the initial Push sources.
    :param secured_sources: initial Push sources whose items need permissions.
    :param sitecore_sources: initial sources that Coveo for Sitecore manages.
    :param crawling_module_sources: initial sources that the Coveo Crawling Module manages.
    :param api_key: the API key with all privileges.
    :param push_only_key: the API key that can only push.
    :param port: the port to listen on; 0 for a free one.
    :param host: the address to listen on. Anyone who can connect to it can also control the simulator.
    :param tls: the PEM files with the certificate (and its chain) and its key, to use https. Clients on other
        machines need it, because Airflow sends an API key by http to loopback addresses only.
    :param call_limit: the limit of Push API calls, as a number and a period in seconds, such as ``(150,
        300)``; no limit by default.
    :param retry_after: whether a 429 response has ``Retry-After``, the number of seconds until the next call
        is accepted. Default ``True``, because Coveo declares it for every 429.
    :param daily_documents: the maximum number of items per day; no limit by default.
    :param document_limit: the maximum number of items in the index; no limit by default.
    :param request_limit: the number of requests to record, the latest ones; all by default.
    :param body_limit: the number of bytes of each request body to record; all by default.
    :raises OSError: if the port is in use.
    """

    _socket: socket.socket | None = None
    _server: _Server | None = None
    _thread: threading.Thread | None = None

    def __enter__(self) -> Simulator:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start listening; return once the simulator can respond."""
        # The protocol is explicit because asyncio then sets TCP_NODELAY. Without it, a response takes 40 ms.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((self._host, self._port))
        except OSError:
            self._socket.close()
            raise
        self._port = self._socket.getsockname()[1]
        self._server = _Server(self)
        self._thread = threading.Thread(
            target=self._server.run_until_stopped, args=(self._socket,), name="coveo-simulator", daemon=True
        )
        self._thread.start()
        self._server.wait_until_started()

    def stop(self) -> None:
        """Close the port and all connections, without waiting for stalled responses."""
        if self._server is not None and self._thread is not None:
            self._server.stop()
            self._thread.join()
        self._server = self._thread = self._socket = None


class _Server(uvicorn.Server):
    """
    Uvicorn in a thread. It starts and stops at once; Uvicorn itself checks only ten times a second.

    :param simulator: the simulator to serve.
    """

    def __init__(self, simulator: Simulator) -> None:
        self._transports: dict[object, Transport] = {}
        self._app = App(simulator, self._transports)
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        super().__init__(
            uvicorn.Config(
                self._app,
                http=_protocol(self._transports),
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                date_header=False,
                server_header=False,
                proxy_headers=False,
                ssl_certfile=simulator.tls[0] if simulator.tls else None,
                ssl_keyfile=simulator.tls[1] if simulator.tls else None,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            )
        )

    def run_until_stopped(self, listening: socket.socket) -> None:
        """Serve until stopped; the thread runs this."""
        try:
            asyncio.run(self.serve(sockets=[listening]))
        except BaseException as error:
            # The waiting thread raises it again.
            self._failure = error
        finally:
            self._ready.set()

    def wait_until_started(self) -> None:
        """Return once the server can respond; called in another thread."""
        self._ready.wait()
        if self._failure is not None:
            raise RuntimeError("Could not start the simulator") from self._failure

    def stop(self) -> None:
        """End :meth:`main_loop`; called in another thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._app.closing.set)

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        await self._app.closing.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for transport in list(self._transports.values()):
            transport.abort()
        if self.server_state.tasks:
            # All tasks end now, because their connections are closed and stalls are interrupted.
            await asyncio.wait(self.server_state.tasks, timeout=1)


def _protocol(transports: dict[object, Transport]) -> type[asyncio.Protocol]:
    """Return Uvicorn's protocol, extended to register connections, since faults can close them."""

    class Protocol(H11Protocol):
        def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            transports[self.client] = transport

        def connection_lost(self, exc: Exception | None) -> None:
            transports.pop(self.client, None)
            super().connection_lost(exc)

    return Protocol
