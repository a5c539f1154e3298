"""The records of the simulated organization: sources, activities, logs, containers, identities."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TypedDict

from airflow_provider_coveo.coveo.statuses import SourceStatus

#: The platform's names for the three active statuses, which differ from the Push API's.
PLATFORM_OPERATIONS = {
    SourceStatus.REBUILD: "REBUILD",
    SourceStatus.REFRESH: "FULL_REFRESH",
    SourceStatus.INCREMENTAL: "INCREMENTAL_REFRESH",
}


class Crawler(TypedDict):
    """The properties of a source that another product manages, in the Source API's format."""

    sourceType: str
    onPremisesEnabled: bool


#: The Coveo products that can manage a Push source, and the Source API's properties of such a source.
CRAWLERS: dict[str, Crawler] = {
    "SITECORE": {"sourceType": "SITECORE", "onPremisesEnabled": False},
    "CRAWLING_MODULE": {"sourceType": "DATABASE", "onPremisesEnabled": True},
}

#: The Source API's states of a source, except for those that follow from its activity.
SOURCE_STATES = ("CREATING", "DISABLED", "PAUSED", "PAUSED_ON_ERROR", "IDLE", "ERROR", "DELETING")

#: The stages of the pipeline, in order, and those that are logged on success.
PIPELINE = ("CONSUMING", "PROCESSING", "MAPPING", "EXTENSION", "INDEXING")
LOGGED_STAGES = ("CONSUMING", "PROCESSING", "INDEXING")

LOG_TASKS = (
    "CONSUMING",
    "CONSUMING_BATCH",
    "CRAWLING",
    "STREAMING_EXTENSION",
    "EXTENSION",
    "INDEXING",
    "MAPPING",
    "PROCESSING",
    "STREAMING",
    "STREAMING_BATCH",
    "PREINDEXING",
    "VALIDATION",
)
LOG_RESULTS = ("COMPLETED", "ERROR", "REJECTED", "SKIPPED", "WARNING")
LOG_OPERATIONS = (
    "ADD",
    "ADD_BY_REFERENCE",
    "BATCH_FILE",
    "DELETE",
    "DELETE_AND_CHILDREN",
    "DELETE_OLDER_THAN",
    "UPDATE",
)


@dataclass
class Activity:
    """
    An update of a source, from an active status until IDLE.

    :param id: its ID in the platform API.
    :param status: the Push status that started it.
    :param source_id: the source.
    :param source_name: its name.
    :param started: its start, in epoch milliseconds.
    :param ended: its end, in epoch milliseconds; ``None`` while it runs.
    :param result: ``SUCCESS`` or ``ABORT``; ``None`` while it runs.
    :param counts: the numbers of items added, updated and removed during the activity.
    """

    id: str
    status: SourceStatus
    source_id: str
    source_name: str
    started: int
    ended: int | None = None
    result: str | None = None
    counts: Counter[str] = field(default_factory=Counter)


class LogMeta(TypedDict, total=False):
    """The details of a log entry."""

    error: str


class LogEntry(TypedDict):
    """The result of one stage for one item in the Source Logs API's format."""

    datetime: str
    guid: str
    id: str
    meta: LogMeta
    operation: str
    organizationId: str
    requestId: str
    resourceId: str
    result: str
    sourceId: str
    task: str


@dataclass(frozen=True)
class LogRecord:
    """
    The pipeline's result for one item. The logs have one entry for each stage: see :meth:`results`.

    :param number: its index in the log of the source.
    :param at: its time, in epoch milliseconds.
    :param item: the documentId, or the fileId of a batch.
    :param operation: one of :data:`LOG_OPERATIONS`.
    :param request_id: the ID of the request that pushed the item.
    :param task: the stage that failed; ``None`` if all completed.
    :param result: the result of that stage.
    :param reason: the cause.
    :param stages: the stages to log on success.
    """

    number: int
    at: int
    item: str
    operation: str
    request_id: str
    task: str | None = None
    result: str = "COMPLETED"
    reason: str = ""
    stages: tuple[str, ...] = LOGGED_STAGES

    def entry(self, organization: str, source_id: str, stage: str, result: str) -> LogEntry:
        """Return the log entry of one stage in the Source Logs API's format."""
        name = f"{self.request_id}/{source_id}/{self.number}/{stage}"
        return {
            "datetime": iso(self.at),
            "guid": str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
            "id": self.item,
            "meta": {"error": self.reason} if result != "COMPLETED" and self.reason else {},
            "operation": self.operation,
            "organizationId": organization,
            "requestId": self.request_id,
            "resourceId": source_id,
            "result": result,
            "sourceId": source_id,
            "task": stage,
        }

    def results(self) -> Iterator[tuple[str, str]]:
        """Yield the logged stages and their results."""
        if self.task is None:
            yield from ((stage, "COMPLETED") for stage in self.stages)
            return
        if self.task not in PIPELINE:
            yield self.task, self.result
            return
        reached = PIPELINE.index(self.task)
        for position, stage in enumerate(PIPELINE):
            if position == reached:
                yield stage, self.result
            elif stage in self.stages and (position < reached or self.result == "WARNING"):
                yield stage, "COMPLETED"


@dataclass
class Container:
    """
    A file container, to which a client uploads a batch or the data of one large item.

    :param id: the fileId.
    :param signature: the signature of its upload address.
    :param expires: its expiry, on the monotonic clock.
    :param content: the uploaded content; ``None`` before the upload.
    :param consumed: whether a request has used the content.
    """

    id: str
    signature: str
    expires: float
    content: bytes | None = None
    consumed: bool = False


@dataclass
class Source:
    """
    A source and its history.

    :param id: its ID.
    :param name: its name.
    :param visibility: ``SHARED``, ``SECURED`` or ``PRIVATE``.
    :param crawler: ``SITECORE`` or ``CRAWLING_MODULE`` if one of these manages it.
    :param created: its creation time, in epoch milliseconds.
    :param cutoff: the ordering ID below which pushes are rejected.
    :param running: the current activity, if any.
    :param last: the activity that ended last.
    :param ended: the latest end of an activity of each kind.
    :param statuses: the accepted statuses.
    :param state: the one of :data:`SOURCE_STATES` that a test set.
    :param error_code: the ``pausedOnErrorCode`` of that state.
    :param shown: the statuses and their start times; the end of an aborted activity counts as IDLE.
    :param timeline: the events.
    :param items: the indexed items, by documentId.
    :param updated: the latest indexing time of each item, in ascending order.
    :param log: the pipeline's results.
    :param log_entries: the number of log entries of these results.
    """

    id: str
    name: str
    visibility: str
    crawler: str | None
    created: int
    cutoff: int = 0
    running: Activity | None = None
    last: Activity | None = None
    ended: dict[SourceStatus, int] = field(default_factory=dict)
    statuses: list[SourceStatus] = field(default_factory=list)
    state: str | None = None
    error_code: str | None = None
    shown: list[tuple[int, SourceStatus]] = field(default_factory=list)
    timeline: list[dict[str, object]] = field(default_factory=list)
    items: dict[str, dict[str, object]] = field(default_factory=dict)
    updated: dict[str, int] = field(default_factory=dict)
    log: list[LogRecord] = field(default_factory=list)
    log_entries: int = 0

    @property
    def console_name(self) -> str:
        """The status in the Administration Console; ready if the status was never set."""
        return self.running.status.console_name if self.running else SourceStatus.IDLE.console_name


@dataclass(frozen=True)
class SentIdentity:
    """
    A security identity, or its aliases, as a client sent it.

    :param type: its type.
    :param name: its name.
    :param body: the whole body in Coveo's spelling.
    """

    type: str
    name: str
    body: dict[str, object]


@dataclass
class PushedIdentity:
    """
    A security identity, or its aliases, that the provider has.

    :param kind: ``identity`` or ``alias``.
    :param body: the body in Coveo's spelling.
    :param ordering_id: the ordering ID of its request.
    :param disabled: whether it is disabled.
    """

    kind: str
    body: dict[str, object]
    ordering_id: int
    disabled: bool = False

    def describe(self) -> dict[str, object]:
        """Return the body with the identity's state."""
        return {
            **self.body,
            "kind": self.kind,
            "orderingId": self.ordering_id,
            "disabled": self.disabled,
        }


@dataclass
class Provider:
    """
    A security identity provider.

    :param identities: the pushed identities, by (``identity`` or ``alias``, type, name).
    :param cutoff: the ordering ID below which pushes are rejected.
    """

    identities: dict[tuple[str, str, str], PushedIdentity] = field(default_factory=dict)
    cutoff: int = 0


def iso(milliseconds: int) -> str:
    """Return a time in the format of Coveo's logs."""
    moment = datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{milliseconds % 1000:03d}Z"
