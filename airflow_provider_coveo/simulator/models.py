"""Sources and activities in the format of Coveo's platform API."""

from __future__ import annotations

from typing import TypedDict

from airflow_provider_coveo.coveo.statuses import SourceStatus
from airflow_provider_coveo.simulator.records import CRAWLERS, PLATFORM_OPERATIONS, Activity, Source
from airflow_provider_coveo.simulator.state import Organization

_OWNER = "simulator@example.com"


class _SourceKind(TypedDict):
    id: str
    name: str
    sourceType: str
    pushEnabled: bool
    onPremisesEnabled: bool
    streamEnabled: bool


class LightSourceModel(_SourceKind):
    """The few properties that identify the kind of source."""

    crawlerInstanceType: str


class Operation(TypedDict):
    """The last operation of a source."""

    id: str
    operationType: str
    timestamp: int
    startedDate: int
    result: str | None
    numberOfDocuments: int
    numberOfAddedDocuments: int
    numberOfUpdatedDocuments: int
    numberOfRemovedDocuments: int


class RunningStatus(TypedDict, total=False):
    """The keys of a source's status during an operation, or while it is paused on an error."""

    refreshType: str
    activityId: str
    createdDate: int
    numberOfProcessedDocuments: int
    numberOfAddedDocuments: int
    numberOfUpdatedDocuments: int
    numberOfRemovedDocuments: int
    pausedOnErrorCode: str


class StatusModel(RunningStatus):
    """The status of a source."""

    type: str
    extendedCurrentStatus: str
    timestamp: int
    numberOfDocuments: int
    allowedOperations: list[str]


class PastOperations(TypedDict, total=False):
    """The keys of a source's information after an operation."""

    lastOperation: Operation
    lastRefreshEndDate: int
    lastRebuildEndDate: int
    lastFullRefreshEndDate: int
    lastIncrementalRefreshEndDate: int


class Information(PastOperations):
    """The information on a source."""

    sourceStatus: StatusModel
    rebuildRequired: bool
    numberOfDocuments: int
    documentsTotalSize: int


class _CrawlingModule(TypedDict, total=False):
    crawlingModuleId: str


class SourceModel(_SourceKind, _CrawlingModule):
    """A source as the Source API shows it."""

    owner: str
    lastModifier: str
    lastModifiedDate: int
    createdDate: int
    sourceVisibility: str
    mappings: list[object]
    logicalIndex: str
    preConversionExtensions: list[object]
    postConversionExtensions: list[object]
    resourceId: str
    information: Information


class TriggeredBy(TypedDict):
    """The author of an activity."""

    type: str
    displayName: str


class AbortedBy(TypedDict):
    """Who aborted an activity."""

    abortedByType: str
    displayName: str


class EndedActivity(TypedDict, total=False):
    """The keys of an activity after its end."""

    endDate: int
    result: str | None
    abortedBy: AbortedBy


class ActivityModel(EndedActivity):
    """An activity as the Activity API shows it."""

    id: str
    operation: str
    state: str
    content: dict[str, object]
    createDate: int
    startDate: int
    duration: int
    progress: float
    triggeredBy: TriggeredBy
    organizationId: str
    resourceId: str
    resourceName: str
    resourceType: str
    section: str
    severity: str


def _source_kind(source: Source) -> _SourceKind:
    crawler = CRAWLERS.get(source.crawler or "")
    return {
        "id": source.id,
        "name": source.name,
        "sourceType": crawler["sourceType"] if crawler else "PUSH",
        "pushEnabled": True,
        "onPremisesEnabled": crawler["onPremisesEnabled"] if crawler else False,
        "streamEnabled": False,
    }


def light_source_model(source: Source) -> LightSourceModel:
    """Return the few properties that identify the kind of source."""
    kind = _source_kind(source)
    return {**kind, "crawlerInstanceType": kind["sourceType"]}


def source_model(organization: Organization, source: Source) -> SourceModel:
    """Return the complete source."""
    kind = _source_kind(source)
    managed: _CrawlingModule = {}
    if kind["onPremisesEnabled"]:
        managed["crawlingModuleId"] = "simulated-crawling-module"
    return {
        **kind,
        **managed,
        "owner": _OWNER,
        "lastModifier": _OWNER,
        "lastModifiedDate": source.created,
        "createdDate": source.created,
        "sourceVisibility": source.visibility,
        "mappings": [],
        "logicalIndex": "default",
        "preConversionExtensions": [],
        "postConversionExtensions": [],
        "resourceId": source.id,
        "information": _information(organization, source),
    }


def _information(organization: Organization, source: Source) -> Information:
    information: Information = {
        "sourceStatus": _source_status(organization, source),
        "rebuildRequired": False,
        "numberOfDocuments": len(source.items),
        "documentsTotalSize": 0,
    }
    if source.last is not None and source.last.ended is not None:
        counts = source.last.counts
        information["lastOperation"] = {
            "id": source.last.id,
            "operationType": PLATFORM_OPERATIONS[source.last.status],
            "timestamp": source.last.ended,
            "startedDate": source.last.started,
            "result": source.last.result,
            "numberOfDocuments": len(source.items),
            "numberOfAddedDocuments": counts["added"],
            "numberOfUpdatedDocuments": counts["updated"],
            "numberOfRemovedDocuments": counts["removed"],
        }
        information["lastRefreshEndDate"] = source.last.ended
    if SourceStatus.REBUILD in source.ended:
        information["lastRebuildEndDate"] = source.ended[SourceStatus.REBUILD]
    if SourceStatus.REFRESH in source.ended:
        information["lastFullRefreshEndDate"] = source.ended[SourceStatus.REFRESH]
    if SourceStatus.INCREMENTAL in source.ended:
        information["lastIncrementalRefreshEndDate"] = source.ended[SourceStatus.INCREMENTAL]
    return information


def _source_status(organization: Organization, source: Source) -> StatusModel:
    running = source.running
    state = "PUSH_READY" if running is None else "REFRESHING"
    status: StatusModel = {
        "type": state,
        "extendedCurrentStatus": state,
        "timestamp": organization.clock.now_ms(),
        "numberOfDocuments": len(source.items),
        "allowedOperations": [],
    }
    if running is not None:
        status["refreshType"] = PLATFORM_OPERATIONS[running.status]
        status["activityId"] = running.id
        status["createdDate"] = running.started
        status["numberOfProcessedDocuments"] = running.counts["added"] + running.counts["updated"]
        status["numberOfAddedDocuments"] = running.counts["added"]
        status["numberOfUpdatedDocuments"] = running.counts["updated"]
        status["numberOfRemovedDocuments"] = running.counts["removed"]
    if source.state is not None:
        status["extendedCurrentStatus"] = source.state
        # Only the extended status shows that a source is being deleted.
        if source.state != "DELETING":
            status["type"] = source.state
    if source.error_code is not None:
        status["pausedOnErrorCode"] = source.error_code
    return status


def activity_model(organization: Organization, activity: Activity) -> ActivityModel:
    """Return an activity."""
    now = organization.clock.now_ms()
    model: ActivityModel = {
        "id": activity.id,
        "operation": PLATFORM_OPERATIONS[activity.status],
        "state": "EXECUTING" if activity.ended is None else "EXECUTED",
        "content": {},
        "createDate": activity.started,
        "startDate": activity.started,
        "duration": max(0, (activity.ended or now) - activity.started) // 1000,
        "progress": 0.0 if activity.ended is None else 1.0,
        "triggeredBy": {"type": "USER", "displayName": _OWNER},
        "organizationId": organization.id,
        "resourceId": activity.source_id,
        "resourceName": activity.source_name,
        "resourceType": "SOURCE",
        "section": "CONTENT",
        "severity": "INFO",
    }
    if activity.ended is not None:
        model["endDate"], model["result"] = activity.ended, activity.result
    if activity.result == "ABORT":
        model["abortedBy"] = {"abortedByType": "USER", "displayName": _OWNER}
    return model
