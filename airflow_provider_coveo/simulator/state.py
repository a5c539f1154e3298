"""One Coveo organization: its sources, its indexing pipeline, its file containers and its limits."""

from __future__ import annotations

import heapq
import math
import secrets
import string
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from airflow_provider_coveo.coveo.statuses import SourceStatus
from airflow_provider_coveo.simulator.clock import Clock
from airflow_provider_coveo.simulator.errors import ApiError
from airflow_provider_coveo.simulator.fields import Fields
from airflow_provider_coveo.simulator.items import Rejection
from airflow_provider_coveo.simulator.records import (
    CRAWLERS,
    LOG_RESULTS,
    LOG_TASKS,
    LOGGED_STAGES,
    SOURCE_STATES,
    Activity,
    Container,
    LogRecord,
    Provider,
    PushedIdentity,
    SentIdentity,
    Source,
)

CONTAINER_LIFE_SECONDS = 60 * 60
VISIBILITIES = ("SHARED", "SECURED", "PRIVATE")


@dataclass
class Settings:
    """
    The settings that can change while the simulator runs.

    :param call_limit: the limit of Push API calls, as a number and a period in seconds; ``None`` for none.
    :param retry_after: whether a 429 response has ``Retry-After``.
    :param daily_documents: the maximum number of items per day (UTC), or ``None`` for no limit.
    :param document_limit: the maximum number of items in the index, or ``None`` for no limit.
    :param indexing_delay: the seconds between accepting and indexing an item.
    :param success_body: the response body for an accepted push; ``None`` for the documented one.
    """

    call_limit: tuple[int, float] | None = None
    daily_documents: int | None = None
    document_limit: int | None = None
    retry_after: bool = True
    indexing_delay: float = 0.0
    success_body: bytes | None = None


class Organization:
    """
    The state behind the HTTP interface. All methods are thread-safe.

    :param id: the organization identifier.
    :param clock: Coveo's clock.
    :param settings: limits and delays.
    """

    def __init__(self, id: str, clock: Clock, settings: Settings) -> None:  # noqa: A002 - what Coveo calls it
        self.id = id
        self.clock = clock
        self.settings = settings
        self.changed = threading.Condition(threading.RLock())
        #: The number of changes so far, so that a waiting thread does not miss one.
        self.changes = 0
        self.reset()
        clock.on_turn(self._clock_turned)

    def reset(self) -> None:
        """Delete everything except the settings."""
        self.paused = False
        self.fields = Fields()
        self.sources: dict[str, Source] = {}
        self.providers: dict[str, Provider] = {}
        self.activities: list[Activity] = []
        self.containers: dict[str, Container] = {}
        self.undocumented: list[str] = []
        self._rejections: dict[str, Rejection] = {}
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._queued = 0
        self._last_ordering_id = 0
        self._calls: deque[float] = deque()
        self._documents_day = -1
        self._documents_today = 0

    # The queue of accepted work that is not due yet.

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold the lock, after executing all work that is due."""
        with self.changed:
            self._settle()
            yield

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the lock, after executing all work that is due, and then wake waiting threads."""
        with self.reading():
            yield
            self.announce()

    def announce(self) -> None:
        """Wake the threads that wait for a change."""
        with self.changed:
            self.changes += 1
            self.changed.notify_all()

    def _clock_turned(self) -> None:
        with self.transaction():
            pass

    def _settle(self) -> None:
        while self._queue and self._queue[0][0] <= self.clock.elapsed():
            _, _, work = heapq.heappop(self._queue)
            work()
            self.announce()

    def seconds_to_next(self) -> float | None:
        """Return the seconds until queued work is due, ``None`` if the queue is empty."""
        with self.changed:
            return max(0.0, self._queue[0][0] - self.clock.elapsed()) if self._queue else None

    def _after(self, seconds: float, work: Callable[[], None]) -> None:
        if seconds <= 0:
            work()
            return
        self._queued += 1
        heapq.heappush(self._queue, (self.clock.elapsed() + seconds, self._queued, work))

    # Limits.

    def count_call(self) -> None:
        """Count one Push API call, unless it is rate-limited."""
        with self.reading():
            if self.settings.call_limit is None:
                return
            limit, seconds = self.settings.call_limit
            now = self.clock.elapsed()
            while self._calls and self._calls[0] <= now - seconds:
                self._calls.popleft()
            if len(self._calls) >= limit:
                message = f"The limit of calls has been reached: {limit} in {seconds:g} s."
                headers = self._retry_after(self._calls[0] + seconds - now)
                raise ApiError(429, "TOO_MANY_REQUESTS", message, headers)
            self._calls.append(now)

    def _retry_after(self, seconds: float) -> dict[str, str]:
        return {"Retry-After": str(math.ceil(seconds))} if self.settings.retry_after else {}

    def check_document_limits(self) -> None:
        """Reject a push of items if a limit of the organization has been reached."""
        with self.reading():
            daily, most = self.settings.daily_documents, self.settings.document_limit
            if daily is not None and self.documents_today() >= daily:
                message = f"The limit of items per day has been reached: {daily}."
                headers = self._retry_after(86_400 - self.clock.now() % 86_400)
                raise ApiError(429, "TOO_MANY_DOCUMENTS_DAILY", message, headers)
            if most is not None and sum(len(source.items) for source in self.sources.values()) >= most:
                message = f"The limit of items in the index has been reached: {most}."
                raise ApiError(412, "DOCUMENT_LIMIT_EXCEEDED", message)

    def documents_today(self) -> int:
        """Return the number of items accepted since midnight UTC on Coveo's clock."""
        day = int(self.clock.now() // 86_400)
        if day != self._documents_day:
            self._documents_day, self._documents_today = day, 0
        return self._documents_today

    # Sources.

    def source(self, source_id: str) -> Source:
        """Return a source; raise LookupError if it does not exist."""
        with self.reading():
            try:
                return self.sources[source_id]
            except KeyError:
                raise LookupError(f"The simulator has no source {source_id!r}") from None

    def push_source(self, source_id: str) -> Source:
        """Return a source; raise the Push API's error if it does not exist."""
        with self.reading():
            source = self.sources.get(source_id)
            if source is None:
                raise ApiError(412, "SOURCE_DOES_NOT_EXIST", f"There is no source {source_id!r}.")
            return source

    def add_source(
        self,
        source_id: str | None,
        *,
        name: str | None,
        visibility: str = "SHARED",
        crawler: str | None = None,
    ) -> Source:
        """Create a source. Without an ID, it gets one in Coveo's format."""
        if visibility not in VISIBILITIES:
            raise ValueError(f"visibility must be one of {', '.join(VISIBILITIES)}, not {visibility!r}")
        if crawler is not None and crawler not in CRAWLERS:
            raise ValueError(f"crawler must be None or one of {', '.join(CRAWLERS)}, not {crawler!r}")
        with self.transaction():
            if source_id is None:
                letters = string.ascii_lowercase + string.digits
                source_id = f"{''.join(secrets.choice(letters) for _ in range(26))}-{self.id}"
            if source_id in self.sources:
                raise ValueError(f"The source {source_id!r} already exists")
            now = self.clock.now_ms()
            source = Source(source_id, name or source_id, visibility, crawler, created=now)
            self.sources[source_id] = source
            return source

    def remove_source(self, source_id: str) -> Source:
        """Delete a source and its content."""
        with self.transaction():
            source = self.source(source_id)
            self._end_activity(source, "ABORT")
            del self.sources[source_id]
            return source

    def set_state(self, source_id: str, state: str | None, error_code: str | None) -> None:
        """Set the state of a source, whatever its activity; ``None`` removes it."""
        if state is not None and state not in SOURCE_STATES:
            raise ValueError(f"state must be None or one of {', '.join(SOURCE_STATES)}, not {state!r}")
        with self.transaction():
            source = self.source(source_id)
            source.state, source.error_code = state, error_code

    def event(self, source: Source, event: str, **facts: object) -> None:
        """Add an event to the timeline of a source."""
        source.timeline.append({"at": self.clock.now_ms(), "event": event, **facts})

    # Statuses and activities.

    def set_status(self, source_id: str, status: SourceStatus, request_id: str) -> None:
        """Start, continue or end the activity of a source."""
        with self.transaction():
            source = self.push_source(source_id)
            running = source.running
            if running is not None and running.status is not status:
                self._end_activity(source, "SUCCESS")
            if status is not SourceStatus.IDLE and source.running is None:
                now = self.clock.now_ms()
                source.running = Activity(str(uuid.uuid4()), status, source.id, source.name, started=now)
                self.activities.append(source.running)
            source.statuses.append(status)
            source.shown.append((self.clock.now_ms(), status))
            activity = source.running or running
            self.event(
                source,
                "status",
                status=status.value,
                activity=activity.id if activity else None,
                request_id=request_id,
            )

    def abort(self, source_id: str, activity_id: str) -> None:
        """End a running activity as aborted."""
        with self.transaction():
            source = self.source(source_id)
            if source.running is None or source.running.id != activity_id:
                self.undocumented.append(f"aborting activity {activity_id}, which is not running")
                raise ApiError.invalid_parameter("activityId", "it is not a running activity of this source")
            self._end_activity(source, "ABORT")
            source.shown.append((self.clock.now_ms(), SourceStatus.IDLE))
            self.event(source, "aborted", activity=activity_id)

    def _end_activity(self, source: Source, result: str) -> None:
        activity = source.running
        if activity is None:
            return
        activity.ended, activity.result = self.clock.now_ms(), result
        source.running, source.last = None, activity
        source.ended[activity.status] = activity.ended

    # Ordering IDs and items.

    def next_ordering_id(self) -> int:
        """Return the ordering ID of a request without one: the time, but always above the previous one."""
        with self.changed:
            self._last_ordering_id = max(self._last_ordering_id + 1, self.clock.now_ms())
            return self._last_ordering_id

    def reject_item(self, document_id: str, rejection: Rejection) -> None:
        """Let the pipeline reject this item from now on, whatever its content."""
        if rejection.task not in LOG_TASKS:
            raise ValueError(f"task must be one of {', '.join(LOG_TASKS)}, not {rejection.task!r}")
        if rejection.result not in LOG_RESULTS:
            raise ValueError(f"result must be one of {', '.join(LOG_RESULTS)}, not {rejection.result!r}")
        with self.transaction():
            self._rejections[document_id] = rejection

    def accept(self, work: Callable[[], None], documents: int = 0) -> None:
        """Let the pipeline execute ``work``, after the indexing delay if there is one."""
        with self.transaction():
            self._documents_today = self.documents_today() + documents
            self._after(self.settings.indexing_delay, work)

    def index(
        self,
        source: Source,
        document_id: str,
        item: Mapping[str, object],
        ordering_id: int,
        request_id: str,
        problem: Rejection | None = None,
        same_request: bool = False,
    ) -> None:
        """
        Let the pipeline process one item.

        :param source: the source to which it was pushed.
        :param document_id: the item's ID.
        :param item: the item with its documentId, its reserved keys in Coveo's spelling.
        :param ordering_id: the request's ordering ID.
        :param request_id: the ID of the request.
        :param problem: the reason to reject the item, if there is one already.
        :param same_request: whether an earlier entry of the same request had this documentId.
        """
        known = source.items.get(document_id)
        operation = "ADD" if known is None else "UPDATE"
        problem = self._rejections.get(document_id) or problem
        if problem is None and ordering_id < source.cutoff:
            reason = f"orderingId {ordering_id} is below {source.cutoff}, the cut-off of deleted old items."
            problem = Rejection("CONSUMING", "REJECTED", reason)
        if problem is None and known is not None and not same_request and ordering_id <= _ordering_id(known):
            reason = f"orderingId {ordering_id} is not higher than the item's own, {known['orderingId']}."
            problem = Rejection("CONSUMING", "REJECTED", reason)
        self.log(source, document_id, operation, request_id, problem)
        if problem is not None and problem.result != "WARNING":
            return
        source.items[document_id] = {**item, "orderingId": ordering_id}
        source.updated.pop(document_id, None)
        source.updated[document_id] = self.clock.now_ms()
        self._count(source, "added" if known is None else "updated")

    def delete(
        self, source: Source, document_id: str, children: bool, ordering_id: int, request_id: str
    ) -> None:
        """Let the pipeline delete an item, and if requested, its children: ``<document_id>/…``."""
        prefix = f"{document_id}/"
        found = [document_id] if document_id in source.items else []
        if children:
            found += [name for name in source.items if name.startswith(prefix)]
        operation = "DELETE_AND_CHILDREN" if children else "DELETE"
        removed = [name for name in found if _ordering_id(source.items[name]) <= ordering_id]
        problem = None
        if len(removed) < len(found):
            reason = f"orderingId {ordering_id} is lower than that of {len(found) - len(removed)} item(s)."
            problem = Rejection("CONSUMING", "SKIPPED", reason)
        self.log(source, document_id, operation, request_id, problem)
        self._remove(source, removed)

    def delete_older_than(
        self, source: Source, ordering_id: int, delay_minutes: int, request_id: str
    ) -> None:
        """Queue the deletion of old items. After it, pushes with a lower ordering ID are rejected."""

        def execute() -> None:
            removed = [name for name, item in source.items.items() if _ordering_id(item) < ordering_id]
            source.cutoff = max(source.cutoff, ordering_id)
            self._remove(source, removed)
            self.log(source, source.id, "DELETE_OLDER_THAN", request_id)
            self.event(
                source,
                "delete_old_items",
                ordering_id=ordering_id,
                removed=len(removed),
                request_id=request_id,
            )

        with self.transaction():
            self.event(
                source,
                "delete_old_items_queued",
                ordering_id=ordering_id,
                queue_delay=delay_minutes,
                due=self.clock.now_ms() + delay_minutes * 60_000,
                request_id=request_id,
            )
            self._after(delay_minutes * 60, execute)

    def log(
        self,
        source: Source,
        item: str,
        operation: str,
        request_id: str,
        problem: Rejection | None = None,
        stages: tuple[str, ...] = LOGGED_STAGES,
    ) -> None:
        """Add an entry to the item logs, and for a rejection an event to the timeline."""
        facts = (len(source.log), self.clock.now_ms(), item, operation, request_id)
        if problem is not None:
            record = LogRecord(*facts, problem.task, problem.result, problem.reason)
            self.event(
                source,
                "rejected",
                document_id=item,
                task=problem.task,
                result=problem.result,
                reason=problem.reason,
                request_id=request_id,
            )
        else:
            record = LogRecord(*facts, stages=stages)
        source.log.append(record)
        source.log_entries += sum(1 for _ in record.results())

    def _remove(self, source: Source, names: list[str]) -> None:
        for name in names:
            del source.items[name]
            del source.updated[name]
        self._count(source, "removed", len(names))

    def _count(self, source: Source, what: str, number: int = 1) -> None:
        if source.running is not None:
            source.running.counts[what] += number

    # File containers.

    def create_container(self) -> Container:
        """Create a file container."""
        with self.transaction():
            expires = self.clock.elapsed() + CONTAINER_LIFE_SECONDS
            container = Container(str(uuid.uuid4()), secrets.token_hex(32), expires)
            self.containers[container.id] = container
            return container

    def expired(self, container: Container) -> bool:
        """Whether a container has expired."""
        return self.clock.elapsed() >= container.expires

    def expire_container(self, file_id: str) -> None:
        """Let a container expire now."""
        with self.transaction():
            container = self.containers.get(file_id)
            if container is not None:
                container.expires = self.clock.elapsed()

    def take_content(self, file_id: str) -> bytes:
        """Return the content of a container, and mark the container as used."""
        with self.transaction():
            container = self.containers.get(file_id)
            if container is None:
                state = "does not exist"
            elif container.consumed:
                state = "has already been used"
            elif self.expired(container):
                state = "has expired"
            elif container.content is None:
                state = "is empty: nothing was uploaded"
            else:
                content, container.content, container.consumed = container.content, None, True
                return content
            self.undocumented.append(f"the response to a fileId whose container {state}")
            raise ApiError.invalid_parameter("fileId", f"the file container {file_id!r} {state}")

    # Security identities.

    def provider(self, provider_id: str) -> Provider:
        """Return a security identity provider; create it on first access."""
        with self.changed:
            return self.providers.setdefault(provider_id, Provider())

    def put_identity(self, provider: Provider, kind: str, sent: SentIdentity, ordering_id: int) -> None:
        """Add or replace an identity or an alias, unless the existing one is newer."""
        key = (kind, sent.type, sent.name)
        known = provider.identities.get(key)
        if ordering_id < provider.cutoff or (known is not None and ordering_id <= known.ordering_id):
            return
        provider.identities[key] = PushedIdentity(kind, sent.body, ordering_id)

    def disable_identity(self, provider: Provider, sent: SentIdentity, ordering_id: int) -> None:
        """Disable an identity, including aliases of that name."""
        for kind in ("identity", "alias"):
            known = provider.identities.get((kind, sent.type, sent.name))
            if known is not None and known.ordering_id <= ordering_id:
                known.disabled = True

    def disable_identities_older_than(self, provider: Provider, ordering_id: int, delay_minutes: int) -> None:
        """Queue the disabling of identities with a lower ordering ID."""

        def execute() -> None:
            provider.cutoff = max(provider.cutoff, ordering_id)
            for known in provider.identities.values():
                if known.ordering_id < ordering_id:
                    known.disabled = True

        with self.transaction():
            self._after(delay_minutes * 60, execute)


def _ordering_id(item: Mapping[str, object]) -> int:
    """Return the ordering ID of an indexed item."""
    ordering_id = item["orderingId"]
    assert isinstance(ordering_id, int)
    return ordering_id
