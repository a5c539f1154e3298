"""
Requests from a triggerer, configured by an Airflow connection.

``HttpAsyncHook`` can't be the base class: it sends a connection's extras as headers, follows redirects, and
has no bearer token. The hook reads the settings, so that workers and triggerers use the same.
"""

from __future__ import annotations

import logging
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from asgiref.sync import sync_to_async

from airflow_provider_coveo.coveo.caller import AsyncCaller
from airflow_provider_coveo.coveo.connection import ConnectionSettings
from airflow_provider_coveo.coveo.errors import AuthenticationError
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.coveo.stop import StopSignal
from airflow_provider_coveo.coveo.transport import Call
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.hooks.observer import RequestCounter
from airflow_provider_coveo.hooks.wire import user_agent
from airflow_provider_coveo.transports.aiohttp_transport import AiohttpTransport, routes_of

if TYPE_CHECKING:
    from airflow_provider_coveo.coveo.conditions import Condition, PollResult

T = TypeVar("T")

log = logging.getLogger(__name__)


class CoveoAsyncClient:
    """
    A client for an event loop, with the same settings, retries and errors as :class:`CoveoPushHook`.

    A context manager: while it is open, all clients of the same loop share a session. Canceling the asyncio
    task ends requests in flight at once; :meth:`stop` does the same from a signal handler or another thread.

    :param coveo_conn_id: The Coveo connection.
    :param organization_id: The organization, if it is not the connection's.
    :param caller: The caller's name, for the ``User-Agent`` header.
    :param retry: The retry policy. Default: the hook's.
    """

    def __init__(
        self,
        coveo_conn_id: str,
        *,
        organization_id: str | None = None,
        caller: str = "CoveoAsyncClient",
        retry: RetryPolicy | None = None,
    ) -> None:
        self._coveo_conn_id = coveo_conn_id
        self._organization_id = organization_id
        self._caller_name = caller
        self._retry = RetryPolicy() if retry is None else retry
        self._transport = AiohttpTransport(f"{user_agent()} caller/{caller}")
        self._caller: AsyncCaller | None = None
        self._stop = StopSignal()

    async def __aenter__(self) -> CoveoAsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.__aexit__(kind, error, trace)

    def stop(self) -> None:
        """End requests in flight within two seconds, and prevent new ones; takes no lock."""
        self._stop.set()

    async def call(self, call: Call[T]) -> T:
        """
        Run a call, and return its result.

        :param call: The call.
        :raises CoveoError: if Coveo returns an error, or no response.
        """
        caller = await self._connected()
        try:
            return await caller.call(call)
        except AuthenticationError:
            # A trigger that waits for days can outlive its API key: reread the connection for a new one.
            settings = caller.settings
            self._caller = None
            caller = await self._connected()
            if caller.settings == settings:
                raise
            return await caller.call(call)

    async def poll(self, condition: Condition) -> PollResult:
        """
        Check once whether a condition is met.

        :param condition: The condition.
        :raises CoveoError: if it can't be met, or can't be checked.
        """
        settings = await self.settings()
        return await condition.poll(settings.organization_id, self.call)

    async def settings(self) -> ConnectionSettings:
        """Return the connection's settings, read on first use."""
        return (await self._connected()).settings

    async def _connected(self) -> AsyncCaller:
        if self._caller is None:
            # In a thread, because it blocks: Airflow 2 queries the database, Airflow 3 waits for the
            # supervisor.
            settings = await sync_to_async(self._read_settings)()
            self._caller = AsyncCaller(
                settings,
                self._transport,
                retry=self._retry,
                stop=self._stop,
                observer=RequestCounter(),
                log=log,
            )
        return self._caller

    def _read_settings(self) -> ConnectionSettings:
        hook = CoveoPushHook(
            self._coveo_conn_id, organization_id=self._organization_id, caller=self._caller_name
        )
        with hook.get_conn() as session:
            self._transport.routes = routes_of(hook.settings, session)
        return hook.settings
