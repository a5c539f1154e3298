"""The simulated organization as an object, independent of HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable

from airflow_provider_coveo.simulator.clock import Clock
from airflow_provider_coveo.simulator.exchange import Exchange
from airflow_provider_coveo.simulator.faults import Faults
from airflow_provider_coveo.simulator.items import Rejection
from airflow_provider_coveo.simulator.models import ActivityModel, SourceModel, activity_model, source_model
from airflow_provider_coveo.simulator.records import LogEntry
from airflow_provider_coveo.simulator.state import Organization, Settings

HOST = "127.0.0.1"
#: All IPv4 addresses of this machine.
EVERYWHERE = "0.0.0.0"  # noqa: S104 - only on request
#: Waiting threads check again after this time even without a notification.
_MAX_WAIT_SECONDS = 0.5


class World:
    """
    A Coveo organization: its state, the recorded requests, and methods to inspect and change both.

    The parameters are those of :class:`~airflow_provider_coveo.simulator.server.Simulator`, which adds HTTP.
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
        self.state = Organization(organization, self.clock, Settings())
        self._fill()

    def reset(self) -> None:
        """Restore the initial state; the port and all connections stay open."""
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

    # Address.

    @property
    def url(self) -> str:
        """The base URL that replaces Coveo's, for clients on this machine."""
        return f"{self.scheme}://{HOST if self._host == EVERYWHERE else self._host}:{self._port}"

    @property
    def scheme(self) -> str:
        """``https`` if it has a certificate, ``http`` if not."""
        return "https" if self.tls else "http"

    def connection_json(self, *, push_only: bool = False) -> str:
        """
        Return an Airflow connection to this simulator, for ``AIRFLOW_CONN_<ID>``.

        :param push_only: whether to use the key that can only push.
        """
        return json.dumps(
            {
                "conn_type": "coveo",
                "login": self.organization,
                "password": self.push_only_key if push_only else self.api_key,
                "host": self.url,
                # Makes links in Airflow's UI lead to the simulator's page instead of Coveo's console.
                "extra": json.dumps({"platform_host": self.url}),
            }
        )

    # Inspection.

    @property
    def requests(self) -> list[Exchange]:
        """The recorded requests, in order, without those of the control API and the page."""
        with self.state.changed:
            return list(self._exchanges)

    @property
    def undocumented(self) -> list[str]:
        """The undocumented behavior that clients relied on, one entry for each time."""
        with self.state.changed:
            return list(self.state.undocumented)

    def statuses(self, source_id: str) -> list[str]:
        """
        Return the accepted statuses, in order.

        :param source_id: the source's ID.
        """
        return [status.value for status in self.state.source(source_id).statuses]

    def timeline(self, source_id: str) -> list[dict[str, object]]:
        """
        Return the events of a source, in order: dicts with ``at`` (epoch milliseconds) and ``event``.

        The events are ``status``, ``aborted``, ``push``, ``delete``, ``batch``, ``delete_old_items_queued``,
        ``delete_old_items`` and ``rejected``.

        :param source_id: the source's ID.
        """
        with self.state.reading():
            return [dict(event) for event in self.state.source(source_id).timeline]

    def items(self, source_id: str) -> dict[str, dict[str, object]]:
        """
        Return the indexed items by documentId, each with its ``orderingId``.

        :param source_id: the source's ID.
        """
        with self.state.reading():
            return {name: dict(item) for name, item in self.state.source(source_id).items.items()}

    def fields(self) -> dict[str, dict[str, object]]:
        """Return the organization's fields by name, in the Field API's format."""
        with self.state.reading():
            return self.state.fields.all()

    def source(self, source_id: str) -> SourceModel:
        """
        Return a source in the Source API's format.

        :param source_id: the source's ID.
        """
        with self.state.reading():
            return source_model(self.state, self.state.source(source_id))

    def activities(self, source_id: str) -> list[ActivityModel]:
        """
        Return the activities of a source, oldest first, in the Activity API's format.

        :param source_id: the source's ID.
        """
        with self.state.reading():
            found = [activity for activity in self.state.activities if activity.source_id == source_id]
            return [activity_model(self.state, activity) for activity in found]

    def logs(self, source_id: str) -> list[LogEntry]:
        """
        Return the item logs of a source, oldest first, in the Source Logs API's format.

        :param source_id: the source's ID.
        """
        with self.state.reading():
            return [
                record.entry(self.organization, source_id, stage, result)
                for record in self.state.source(source_id).log
                for stage, result in record.results()
            ]

    def identities(self, provider_id: str) -> list[dict[str, object]]:
        """
        Return the identities that were pushed to a security identity provider.

        Each has the keys that were sent, ``kind`` (``identity`` or ``alias``), ``orderingId`` and
        ``disabled``.

        :param provider_id: the provider's ID.
        """
        with self.state.reading():
            return [known.describe() for known in self.state.provider(provider_id).identities.values()]

    def wait_for(self, predicate: Callable[[], object], timeout: float = 10) -> None:
        """
        Wait until ``predicate`` is true; it is called again after each change.

        :param predicate: the condition.
        :param timeout: the maximum wait in seconds.
        :raises TimeoutError: if the wait takes longer; the message contains the timelines.
        """
        until = time.monotonic() + timeout
        while True:
            with self.state.reading():
                seen = self.state.changes
            # Not under the lock: a predicate can send requests to the simulator.
            if predicate():
                return
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"The condition was not true within {timeout:g} s.\n{self._story()}")
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
                lines.append(f"{source.id}: {source.console_name}, items: {len(source.items)}")
                for event in source.timeline[-50:]:
                    facts = ", ".join(f"{name}={value}" for name, value in event.items() if name != "event")
                    lines.append(f"  {event['event']}: {facts}")
            for exchange in self._exchanges[-20:]:
                lines.append(
                    f"{exchange.method} {exchange.path} -> {exchange.status} {exchange.fault}".rstrip()
                )
        return "\n".join(lines)

    # Changes.

    @property
    def success_body(self) -> bytes | None:
        """The response body for an accepted push; ``None`` for the documented one."""
        return self.state.settings.success_body

    @success_body.setter
    def success_body(self, body: bytes | None) -> None:
        self.state.settings.success_body = body

    @property
    def indexing_delay(self) -> float:
        """The seconds on the simulator's clock between accepting and indexing an item."""
        return self.state.settings.indexing_delay

    @indexing_delay.setter
    def indexing_delay(self, seconds: float) -> None:
        self.state.settings.indexing_delay = seconds

    @property
    def call_limit(self) -> tuple[int, float] | None:
        """The limit of Push API calls, as a number and a period in seconds; ``None`` for no limit."""
        return self.state.settings.call_limit

    @call_limit.setter
    def call_limit(self, limit: tuple[int, float] | None) -> None:
        self.state.settings.call_limit = limit

    @property
    def retry_after(self) -> bool:
        """Whether a 429 response has ``Retry-After``, the seconds until the next call is accepted."""
        return self.state.settings.retry_after

    @retry_after.setter
    def retry_after(self, told: bool) -> None:
        self.state.settings.retry_after = told

    @property
    def daily_documents(self) -> int | None:
        """The maximum number of items per day; ``None`` for no limit."""
        return self.state.settings.daily_documents

    @daily_documents.setter
    def daily_documents(self, limit: int | None) -> None:
        self.state.settings.daily_documents = limit

    @property
    def document_limit(self) -> int | None:
        """The maximum number of items in the index; ``None`` for no limit."""
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
        Let the pipeline reject an item at this stage from now on; only the logs show it.

        :param document_id: the item's ID.
        :param task: the stage, such as ``PROCESSING`` or ``INDEXING``.
        :param result: ``REJECTED``, ``ERROR``, ``SKIPPED`` or ``WARNING``.
        :param reason: the reason in the logs.
        """
        self.state.reject_item(document_id, Rejection(task, result, reason))

    def pause_organization(self) -> None:
        """Pause the organization, as Coveo does with idle trial organizations."""
        self.state.paused = True

    def resume_organization(self) -> None:
        """End the pause."""
        self.state.paused = False

    def set_source_state(self, source_id: str, state: str | None, *, error_code: str | None = None) -> None:
        """
        Set the state of a source, as if Coveo or a user of its console had changed it.

        :param source_id: the source's ID.
        :param state: ``CREATING``, ``DISABLED``, ``PAUSED``, ``PAUSED_ON_ERROR``, ``IDLE``, ``ERROR`` or
            ``DELETING``; ``None`` for the state that follows from its activity.
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
        Delete a source and its content.

        :param source_id: the source's ID.
        """
        self.state.remove_source(source_id)

    # Called by the HTTP side.

    def record(self, exchange: Exchange) -> None:
        """
        Record a request that arrived.

        :param exchange: the request.
        """
        with self.state.changed:
            self._exchanges.append(exchange)
            if self._request_limit is not None and len(self._exchanges) > self._request_limit:
                del self._exchanges[0]
            self.state.announce()

    def answered(self, exchange: Exchange) -> None:
        """
        Record that the response to a request is about to be sent.

        :param exchange: the request.
        """
        with self.state.changed:
            if self._body_limit is not None:
                exchange.body = exchange.body[: self._body_limit]
            self.state.announce()
