"""
A client for Coveo that needs no Airflow.

.. code-block:: python

    from airflow_provider_coveo.coveo.client import CoveoClient
    from airflow_provider_coveo.coveo.connection import ConnectionSettings
    from airflow_provider_coveo.transports.requests_transport import RequestsTransport

    settings = ConnectionSettings.read(login="myorganization", password=api_key, extra={"region": "eu"})
    client = CoveoClient(settings, RequestsTransport())
    client.sources.set_source_status("acme-products", "REFRESH")
    client.push.push_items("acme-products", [{"documentId": "product://4711", "data": "The famous anvil."}])
    client.sources.set_source_status("acme-products", "IDLE")

The guide *Without Airflow* has a complete script.

Each module of this package covers one resource: a class whose methods send requests and return the results.
``CONTRIBUTING.md`` shows how to add one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow_provider_coveo.coveo.caller import Caller
from airflow_provider_coveo.coveo.client.fields import Fields
from airflow_provider_coveo.coveo.client.identities import Identities
from airflow_provider_coveo.coveo.client.item_logs import ItemLogs
from airflow_provider_coveo.coveo.client.limits import Limits
from airflow_provider_coveo.coveo.client.push import Push
from airflow_provider_coveo.coveo.client.sources import Sources
from airflow_provider_coveo.coveo.connection import ConnectionSettings
from airflow_provider_coveo.coveo.containers import Containers
from airflow_provider_coveo.coveo.endpoints import has_path, regions_in_words
from airflow_provider_coveo.coveo.errors import (
    AccessDeniedError,
    AuthenticationError,
    CoveoError,
    NotFoundError,
)
from airflow_provider_coveo.coveo.observer import Observer
from airflow_provider_coveo.coveo.quantities import quantity
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.coveo.stop import StopSignal
from airflow_provider_coveo.coveo.transport import Call, T, Transport, completed

if TYPE_CHECKING:
    from airflow_provider_coveo.coveo.conditions import Condition, PollResult


class CoveoClient:
    """
    A client for one Coveo organization. Threads can share it.

    :param settings: The settings, or a function that returns them; it is called on first use.
    :param transport: Sends the requests, such as
        :class:`~airflow_provider_coveo.transports.requests_transport.RequestsTransport`.
    :param retry: The retry policy. Default: retry for up to 900 seconds.
    :param stop: Ends requests in flight and prevents new ones. Default: a signal of the client's own.
    :param observer: Is notified of requests and pushes. Default: none.
    :param log: The logger. Default: this module's.
    :param is_timeout_fixed: Whether the timeouts of the settings apply to every request. By default,
        requests for the item logs get two minutes.
    """

    def __init__(
        self,
        settings: ConnectionSettings | Callable[[], ConnectionSettings],
        transport: Transport,
        *,
        retry: RetryPolicy | None = None,
        stop: StopSignal | None = None,
        observer: Observer | None = None,
        log: logging.Logger | None = None,
        is_timeout_fixed: bool = False,
    ) -> None:
        self._compose(
            Caller(
                settings,
                transport,
                retry=RetryPolicy() if retry is None else retry,
                stop=StopSignal() if stop is None else stop,
                observer=Observer() if observer is None else observer,
                log=logging.getLogger(__name__) if log is None else log,
                is_timeout_fixed=is_timeout_fixed,
            )
        )

    def _compose(self, caller: Caller) -> None:
        self.caller = caller
        self.containers = Containers(caller)
        self._compose_resources(caller, self.containers)

    def _compose_resources(
        self,
        caller: Caller,
        containers: Containers,
        *,
        daily_items: Callable[[], tuple[int, int]] | None = None,
        remaining_daily_items: Callable[[], int | None] | None = None,
    ) -> None:
        """
        Create the resource clients.

        :param caller: Sends the requests.
        :param containers: Uploads batches and submits them.
        :param daily_items: Returns the daily quota, and its used part. Default: the client's own.
        :param remaining_daily_items: Returns the rest of the quota. Default: the client's own.
        """
        self.fields = Fields(caller)
        self.identities = Identities(caller, containers)
        self.item_logs = ItemLogs(caller)
        self.limits = Limits(caller, daily_items)
        remaining = remaining_daily_items or self.limits.remaining_daily_items
        self.push = Push(caller, containers, remaining, self.fields)
        self.sources = Sources(caller)

    def stoppable(self, stop: StopSignal) -> CoveoClient:
        """
        Return a client that shares this one's connection but is stopped by another signal.

        :param stop: The signal.
        """
        client = CoveoClient.__new__(CoveoClient)
        client._compose(self.caller.stoppable(stop))
        return client

    @property
    def settings(self) -> ConnectionSettings:
        """The settings."""
        return self.caller.settings

    def poll(self, condition: Condition) -> PollResult:
        """
        Check once whether a condition is met.

        :param condition: The condition.
        :raises CoveoError: if it can't be met, or can't be checked.
        """

        async def ask(call: Call[T]) -> T:
            return self.caller.call(call)

        return completed(condition.poll(self.caller.organization_id, ask))

    def test_connection(self) -> tuple[bool, str]:
        """
        Return whether the connection works; if not, whether the organization, key or region is wrong.

        It requests one page with one source and changes nothing. A push-only key can't read sources; Coveo's
        error distinguishes such a key from an invalid one.
        """
        try:
            settings = self.settings
        except CoveoError as error:
            return False, str(error)
        region = f" in region {settings.region.name}" if settings.region else f" at {settings.push_url}"
        where = f"organization {settings.organization_id!r}{region}"
        try:
            count = self.sources.count_sources()
        except AccessDeniedError:
            return True, (
                f"Connected to {where}. The key lacks the privilege to view sources, like any push-only key: "
                "the first request shows whether it can push."
            )
        except CoveoError as error:
            # Don't try the key in other regions: it may go only to the connection's hosts.
            hint = f" Check the region too: Coveo has {regions_in_words()}." if settings.region else ""
            # A plain 404 below a path already blames the path.
            blames_path = type(error) is NotFoundError and has_path(settings.platform_url)
            if isinstance(error, NotFoundError) and not blames_path:
                return False, f"There is no {where}. {error}{hint}"
            if isinstance(error, AuthenticationError):
                return False, f"The API key is not valid for {where}. {error}{hint}"
            return False, str(error)
        return True, f"Connected to {where}; the key can view {quantity(count, 'Push source')}."
