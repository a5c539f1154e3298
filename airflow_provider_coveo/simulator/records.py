"""What the simulated organization keeps: sources, activities, log records, containers, identities."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from airflow_provider_coveo.coveo.statuses import SourceStatus

#: The platform calls the three active statuses by other names than the Push API.
PLATFORM_OPERATIONS = {
    SourceStatus.REBUILD: "REBUILD",
    SourceStatus.REFRESH: "FULL_REFRESH",
    SourceStatus.INCREMENTAL: "INCREMENTAL_REFRESH",
}

#: Who manages a Push source that is not the customer's own, and what the Source API shows for it.
CRAWLERS: dict[str, dict[str, Any]] = {
    "SITECORE": {"sourceType": "SITECORE"},
    "CRAWLING_MODULE": {"sourceType": "DATABASE", "onPremisesEnabled": True},
}

#: The states in which the Source API can show a source, besides those that its activity means.
SOURCE_STATES = ("CREATING", "DISABLED", "PAUSED", "PAUSED_ON_ERROR", "IDLE", "ERROR", "DELETING")

#: The stages that an item goes through, in order, and those of them that are logged when all is well.
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

    :param id: the identifier that the platform API takes.
    :param status: the Push status that began it.
    :param source_id: the source.
    :param source_name: its name.
    :param started: epoch milliseconds.
    :param ended: epoch milliseconds; ``None`` while it runs.
    :param result: ``SUCCESS`` or ``ABORT``; ``None`` while it runs.
    :param counts: how many items were added, updated and removed meanwhile.
    """

    id: str
    status: SourceStatus
    source_id: str
    source_name: str
    started: int
    ended: int | None = None
    result: str | None = None
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class LogRecord:
    """
    What the pipeline did with one item. The logs have one entry for each stage: see :meth:`results`.

    :param number: its place in the log of the source.
    :param at: epoch milliseconds.
    :param item: the documentId, or the fileId of a batch.
    :param operation: one of :data:`LOG_OPERATIONS`.
    :param request_id: the request that brought the item.
    :param task: the stage that did not complete; ``None`` if all did.
    :param result: the result of that stage.
    :param reason: the cause.
    :param stages: the stages to log if all is well.
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

    def entry(self, organization: str, source_id: str, stage: str, result: str) -> dict[str, Any]:
        """Return the log entry of one stage in the form of the Source Logs API."""
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
        """Yield the stages that are logged, each with its result."""
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
    A file container: where a client uploads a batch or the data of one large item.

    :param id: the fileId.
    :param signature: what its upload address is signed with.
    :param expires: when it expires, on the clock for durations.
    :param content: what was uploaded; ``None`` before that.
    :param consumed: whether a request took the content.
    """

    id: str
    signature: str
    expires: float
    content: bytes | None = None
    consumed: bool = False


@dataclass
class Source:
    """
    A source and all that happened to it.

    :param id: its identifier.
    :param name: its name.
    :param visibility: ``SHARED``, ``SECURED`` or ``PRIVATE``.
    :param crawler: ``SITECORE`` or ``CRAWLING_MODULE`` where one of these manages it.
    :param created: epoch milliseconds.
    :param cutoff: the ordering ID below which pushes are rejected.
    :param running: the activity that goes on, if any.
    :param last: the activity that ended last.
    :param ended: when an activity of each kind ended last.
    :param statuses: the statuses that were accepted.
    :param state: one of :data:`SOURCE_STATES` that somebody set.
    :param error_code: the ``pausedOnErrorCode`` that goes with it.
    :param shown: since when the source has which status; the end of an aborted activity counts as IDLE.
    :param timeline: what happened.
    :param items: what is indexed, by documentId.
    :param updated: when each item was indexed last, the latest at the end.
    :param log: what the pipeline did.
    :param log_entries: how many entries of the logs that makes.
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
    timeline: list[dict[str, Any]] = field(default_factory=list)
    items: dict[str, dict[str, Any]] = field(default_factory=dict)
    updated: dict[str, int] = field(default_factory=dict)
    log: list[LogRecord] = field(default_factory=list)
    log_entries: int = 0

    @property
    def console_name(self) -> str:
        """What the Administration Console shows: of a source whose status was never set, that it is ready."""
        return self.running.status.console_name if self.running else SourceStatus.IDLE.console_name


@dataclass
class Provider:
    """
    A security identity provider.

    :param identities: what was pushed, by (``identity`` or ``alias``, type, name).
    :param cutoff: the ordering ID below which pushes are rejected.
    """

    identities: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    cutoff: int = 0


def iso(milliseconds: int) -> str:
    """Return a moment as Coveo writes it in the logs."""
    moment = datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{milliseconds % 1000:03d}Z"
