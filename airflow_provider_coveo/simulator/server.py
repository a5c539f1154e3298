"""The simulator as an object: a Coveo that listens on a loopback port, and the handles to look into it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from asyncio import Transport
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from airflow_provider_coveo.simulator.app import App
from airflow_provider_coveo.simulator.clock import Clock
from airflow_provider_coveo.simulator.exchange import Exchange
from airflow_provider_coveo.simulator.faults import Faults
from airflow_provider_coveo.simulator.items import Rejection
from airflow_provider_coveo.simulator.models import activity_model, source_model
from airflow_provider_coveo.simulator.state import Organization, Settings

HOST = "127.0.0.1"
#: All IPv4 addresses of this machine.
EVERYWHERE = "0.0.0.0"  # noqa: S104 - only where somebody asks for it
#: Longer than any client keeps an idle connection, so that none is closed under a client's hands.
_KEEP_ALIVE_SECONDS = 600
#: Waiting threads look again after this long even if nothing was announced.
_MAX_WAIT_SECONDS = 0.5


class Simulator:
    """
    A Coveo organization on a loopback port; use it as a context manager.

    :param organization: the organization identifier.
    :param sources: the Push sources that are there from the start.
    :param secured_sources: Push sources whose items need permissions.
    :param sitecore_sources: sources that Coveo for Sitecore manages.
    :param crawling_module_sources: sources that the Coveo Crawling Module manages.
    :param api_key: the API key that may do everything.
    :param push_only_key: the API key that may push, and is refused everything else.
    :param port: the port to listen on; 0 for any free one.
    :param host: the address to listen on. Whoever reaches it can also control the simulator.
    :param tls: the files with the certificate (and its chain) and its key, both PEM: it then speaks https.
        Other machines' connections need that, because Airflow sends an API key by http on loopback only.
    :param call_limit: how many Push API calls in how many seconds, such as ``(150, 300)``; none by default.
    :param retry_after: whether an answer 429 bears ``Retry-After``, the whole seconds until there is room
        again. Coveo declares it for each 429, so by default it does.
    :param daily_documents: how many items a day; no limit by default.
    :param document_limit: how many items the index may hold; no limit by default.
    :param request_limit: how many of the last requests to record; all by default.
    :param body_limit: how many bytes of each request body to record; all by default.
    :raises OSError: if the port is taken.
    """

    def __init__(
        self,
        *,
        organization: str = "acme",
        sources: Iterable[str] = ("acme-products",),
        secured_sources: Iterable[str] = (),
        sitecore_sources: Iterable[str] = (),
        crawling_module_sources: Iterable[str] = (),
        api_key: str = "simulator-full-access",
        push_only_key: str = "simulator-push-only",
        port: int = 0,
        host: str = HOST,
        tls: tuple[str, str] | None = None,
        call_limit: tuple[int, float] | None = None,
        retry_after: bool = True,
        daily_documents: int | None = None,
        document_limit: int | None = None,
        request_limit: int | None = None,
        body_limit: int | None = None,
    ) -> None:
        self.organization = organization
        self.api_key = api_key
        self.push_only_key = push_only_key
        self.clock = Clock()
        self.faults = Faults()
        self._initial_sources = [
            *((source, "SHARED", None) for source in sources),
            *((source, "SECURED", None) for source in secured_sources),
            *((source, "SHARED", "SITECORE") for source in sitecore_sources),
            *((source, "SHARED", "CRAWLING_MODULE") for source in crawling_module_sources),
        ]
        self._initial_limits = (call_limit, daily_documents, document_limit, retry_after)
        self._port = port
        self._host = host
        self.tls = tls
        self._request_limit = request_limit
        self._body_limit = body_limit
        self._exchanges: list[Exchange] = []
        self._socket: socket.socket | None = None
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self.state = Organization(organization, self.clock, Settings())
        self._fill()

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
        """Listen; returns when the port answers."""
        # Named in full, because asyncio sets TCP_NODELAY only then; without it each answer takes 40 ms.
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
        """Close the port and all connections, without waiting for answers that stall."""
        if self._server is not None and self._thread is not None:
            self._server.stop()
            self._thread.join()
        self._server = self._thread = self._socket = None

    def reset(self) -> None:
        """Make everything as it was at the start, and keep the port and the connections open."""
        with self.state.changed:
            self.faults.clear()
            self._exchanges = []
            self.clock.reset()
            self.state.reset()
            self._fill()

    def _fill(self) -> None:
        self.state.settings = Settings(*self._initial_limits)
        for source_id, visibility, crawler in self._initial_sources:
            self.add_source(source_id, visibility=visibility, crawler=crawler)

    # Where it is.

    @property
    def url(self) -> str:
        """The address that stands for Coveo's, as this machine reaches it."""
        return f"{self.scheme}://{HOST if self._host == EVERYWHERE else self._host}:{self._port}"

    @property
    def scheme(self) -> str:
        """``https`` if it has a certificate, ``http`` if not."""
        return "https" if self.tls else "http"

    def connection_json(self, *, push_only: bool = False) -> str:
        """
        Return an Airflow connection to this simulator, for ``AIRFLOW_CONN_<ID>``.

        :param push_only: whether with the key that may push and nothing else.
        """
        return json.dumps(
            {
                "conn_type": "coveo",
                "login": self.organization,
                "password": self.push_only_key if push_only else self.api_key,
                "host": self.url,
                # By which Airflow's UI links to the page, where it would link to Coveo's console.
                "extra": json.dumps({"platform_host": self.url}),
            }
        )

    # What happened.

    @property
    def requests(self) -> list[Exchange]:
        """The requests that arrived, in order; those of the control API and the page are left out."""
        with self.state.changed:
            return list(self._exchanges)

    @property
    def undocumented(self) -> list[str]:
        """What clients relied on although Coveo does not document it, each time they did."""
        with self.state.changed:
            return list(self.state.undocumented)

    def statuses(self, source_id: str) -> list[str]:
        """
        Return the statuses that were accepted, in order.

        :param source_id: the source's ID.
        """
        return [status.value for status in self.state.source(source_id).statuses]

    def timeline(self, source_id: str) -> list[dict[str, Any]]:
        """
        Return what happened to a source, in order: dicts with ``at`` (epoch milliseconds) and ``event``.

        The events are ``status``, ``aborted``, ``push``, ``delete``, ``batch``, ``delete_old_items_queued``,
        ``delete_old_items`` and ``rejected``.

        :param source_id: the source's ID.
        """
        with self.state.reading():
            return [dict(event) for event in self.state.source(source_id).timeline]

    def items(self, source_id: str) -> dict[str, dict[str, Any]]:
        """
        Return the indexed items by documentId, each with its ``orderingId``.

        :param source_id: the source's ID.
        """
        with self.state.reading():
            return {name: dict(item) for name, item in self.state.source(source_id).items.items()}

    def fields(self) -> dict[str, dict[str, Any]]:
        """Return the organization's fields by name, as the Field API shows them."""
        with self.state.reading():
            return {field["name"]: field for field in self.state.fields.all()}

    def source(self, source_id: str) -> dict[str, Any]:
        """
        Return a source as the Source API shows it.

        :param source_id: the source's ID.
        """
        with self.state.reading():
            return source_model(self.state, self.state.source(source_id))

    def activities(self, source_id: str) -> list[dict[str, Any]]:
        """
        Return the activities of a source, oldest first, as the Activity API shows them.

        :param source_id: the source's ID.
        """
        with self.state.reading():
            found = [activity for activity in self.state.activities if activity.source_id == source_id]
            return [activity_model(self.state, activity) for activity in found]

    def logs(self, source_id: str) -> list[dict[str, Any]]:
        """
        Return the item logs of a source, oldest first, as the Source Logs API shows them.

        :param source_id: the source's ID.
        """
        with self.state.reading():
            return [
                record.entry(self.organization, source_id, stage, result)
                for record in self.state.source(source_id).log
                for stage, result in record.results()
            ]

    def identities(self, provider_id: str) -> list[dict[str, Any]]:
        """
        Return what was pushed to a security identity provider.

        Besides what was sent, each has ``kind`` (``identity`` or ``alias``), ``orderingId`` and ``disabled``.

        :param provider_id: the provider's ID.
        """
        with self.state.reading():
            return [dict(identity) for identity in self.state.provider(provider_id).identities.values()]

    def wait_for(self, predicate: Callable[[], Any], timeout: float = 10) -> None:
        """
        Wait until ``predicate`` is true; it is asked again each time something happened.

        :param predicate: what to wait for.
        :param timeout: for how many seconds at most.
        :raises TimeoutError: if it is not within ``timeout`` seconds; the message shows the timelines.
        """
        until = time.monotonic() + timeout
        while True:
            with self.state.reading():
                seen = self.state.changes
            # Not under the lock: a predicate may itself ask the simulator over HTTP.
            if predicate():
                return
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"Not within {timeout:g} seconds.\n{self._story()}")
            due = self.state.seconds_to_next()
            if due is not None:
                left = min(left, due + 0.001)
            with self.state.changed:
                if self.state.changes == seen:
                    self.state.changed.wait(min(left, _MAX_WAIT_SECONDS))

    def _story(self) -> str:
        lines = []
        with self.state.reading():
            for source in self.state.sources.values():
                lines.append(f"{source.id}: {source.console_name}, {len(source.items)} items")
                for event in source.timeline[-50:]:
                    facts = ", ".join(f"{name}={value}" for name, value in event.items() if name != "event")
                    lines.append(f"  {event['event']}: {facts}")
            for exchange in self._exchanges[-20:]:
                lines.append(
                    f"{exchange.method} {exchange.path} -> {exchange.status} {exchange.fault}".rstrip()
                )
        return "\n".join(lines)

    # What to change.

    @property
    def success_body(self) -> bytes | None:
        """The body of an accepted push; ``None`` for what the documentation shows."""
        return self.state.settings.success_body

    @success_body.setter
    def success_body(self, body: bytes | None) -> None:
        self.state.settings.success_body = body

    @property
    def indexing_delay(self) -> float:
        """Seconds of the simulator's clock from the acceptance of an item until it is indexed."""
        return self.state.settings.indexing_delay

    @indexing_delay.setter
    def indexing_delay(self, seconds: float) -> None:
        self.state.settings.indexing_delay = seconds

    @property
    def call_limit(self) -> tuple[int, float] | None:
        """How many Push API calls in how many seconds; ``None`` for no limit."""
        return self.state.settings.call_limit

    @call_limit.setter
    def call_limit(self, limit: tuple[int, float] | None) -> None:
        self.state.settings.call_limit = limit

    @property
    def retry_after(self) -> bool:
        """Whether an answer 429 bears ``Retry-After``: the seconds until there is room again."""
        return self.state.settings.retry_after

    @retry_after.setter
    def retry_after(self, told: bool) -> None:
        self.state.settings.retry_after = told

    @property
    def daily_documents(self) -> int | None:
        """How many items a day; ``None`` for no limit."""
        return self.state.settings.daily_documents

    @daily_documents.setter
    def daily_documents(self, limit: int | None) -> None:
        self.state.settings.daily_documents = limit

    @property
    def document_limit(self) -> int | None:
        """How many items the index may hold; ``None`` for no limit."""
        return self.state.settings.document_limit

    @document_limit.setter
    def document_limit(self, limit: int | None) -> None:
        self.state.settings.document_limit = limit

    def reject_item(
        self,
        document_id: str,
        task: str = "PROCESSING",
        result: str = "REJECTED",
        reason: str = "The simulator was told to reject this item.",
    ) -> None:
        """
        Let the pipeline refuse an item at this stage from now on; only the logs show it.

        :param document_id: the item's ID.
        :param task: the stage, such as ``PROCESSING`` or ``INDEXING``.
        :param result: ``REJECTED``, ``ERROR``, ``SKIPPED`` or ``WARNING``.
        :param reason: what the logs say about it.
        """
        self.state.reject_item(document_id, Rejection(task, result, reason))

    def pause_organization(self) -> None:
        """Pause the organization, as Coveo does with an idle trial."""
        self.state.paused = True

    def resume_organization(self) -> None:
        """End the pause."""
        self.state.paused = False

    def set_source_state(self, source_id: str, state: str | None, *, error_code: str | None = None) -> None:
        """
        Show a source in a state that Coveo, or somebody in its console, brought it into.

        :param source_id: the source's ID.
        :param state: ``CREATING``, ``DISABLED``, ``PAUSED``, ``PAUSED_ON_ERROR``, ``IDLE``, ``ERROR`` or
            ``DELETING``; ``None`` for what its activity means.
        :param error_code: the ``pausedOnErrorCode``.
        """
        self.state.set_state(source_id, state, error_code)

    def add_source(
        self,
        source_id: str,
        *,
        name: str | None = None,
        visibility: str = "SHARED",
        crawler: str | None = None,
    ) -> None:
        """
        Add a source.

        :param source_id: its identifier.
        :param name: its name; the identifier by default.
        :param visibility: ``SHARED``, ``SECURED`` (items need permissions) or ``PRIVATE``.
        :param crawler: ``SITECORE`` or ``CRAWLING_MODULE`` for a source that one of these manages.
        """
        self.state.add_source(source_id, name=name, visibility=visibility, crawler=crawler)

    def remove_source(self, source_id: str) -> None:
        """
        Delete a source and all that is in it.

        :param source_id: the source's ID.
        """
        self.state.remove_source(source_id)

    # What the HTTP side tells.

    def record(self, exchange: Exchange) -> None:
        """
        Take note of a request that arrived.

        :param exchange: the request.
        """
        with self.state.changed:
            self._exchanges.append(exchange)
            if self._request_limit is not None and len(self._exchanges) > self._request_limit:
                del self._exchanges[0]
            self.state.announce()

    def answered(self, exchange: Exchange) -> None:
        """
        Take note that a request has its answer, which is about to be sent.

        :param exchange: the request.
        """
        with self.state.changed:
            if self._body_limit is not None:
                exchange.body = exchange.body[: self._body_limit]
            self.state.announce()


class _Server(uvicorn.Server):
    """
    Uvicorn in a thread: starts and stops at once, where Uvicorn itself looks ten times a second.

    :param simulator: what to serve.
    """

    def __init__(self, simulator: Simulator) -> None:
        self._transports: dict[Any, Transport] = {}
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
        """Serve; this is the thread's work."""
        try:
            asyncio.run(self.serve(sockets=[listening]))
        except BaseException as error:
            # It is raised again in the thread that waits.
            self._failure = error
        finally:
            self._ready.set()

    def wait_until_started(self) -> None:
        """Return when the port answers; called in another thread."""
        self._ready.wait()
        if self._failure is not None:
            raise RuntimeError("The simulator did not start") from self._failure

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
            # They all end by themselves now: their connections are gone and no stall goes on.
            await asyncio.wait(self.server_state.tasks, timeout=1)


def _protocol(transports: dict[Any, Transport]) -> type[asyncio.Protocol]:
    """Return Uvicorn's protocol, made to remember the connections, which faults may have to close."""

    class Protocol(H11Protocol):
        def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            transports[self.client] = transport

        def connection_lost(self, exc: Exception | None) -> None:
            transports.pop(self.client, None)
            super().connection_lost(exc)

    return Protocol
