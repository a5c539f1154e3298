"""Sources and activities in the format of Coveo's platform API."""

from __future__ import annotations

from typing import Any

from airflow_provider_coveo.coveo.statuses import SourceStatus
from airflow_provider_coveo.simulator.records import CRAWLERS, PLATFORM_OPERATIONS, Activity, Source
from airflow_provider_coveo.simulator.state import Organization

_OWNER = "simulator@example.com"


def light_source_model(source: Source) -> dict[str, object]:
    """Return the few properties that identify the kind of source."""
    crawler = CRAWLERS.get(source.crawler or "", {})
    source_type = crawler.get("sourceType", "PUSH")
    return {
        "id": source.id,
        "name": source.name,
        "sourceType": source_type,
        "crawlerInstanceType": source_type,
        "pushEnabled": True,
        "onPremisesEnabled": crawler.get("onPremisesEnabled", False),
        "streamEnabled": False,
    }


def source_model(organization: Organization, source: Source) -> dict[str, Any]:
    """Return the complete source."""
    light = light_source_model(source)
    del light["crawlerInstanceType"]
    managed = {"crawlingModuleId": "simulated-crawling-module"} if light["onPremisesEnabled"] else {}
    return {
        **light,
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


def _information(organization: Organization, source: Source) -> dict[str, object]:
    information: dict[str, object] = {
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
    for status, key in (
        (SourceStatus.REBUILD, "lastRebuildEndDate"),
        (SourceStatus.REFRESH, "lastFullRefreshEndDate"),
        (SourceStatus.INCREMENTAL, "lastIncrementalRefreshEndDate"),
    ):
        if status in source.ended:
            information[key] = source.ended[status]
    return information


def _source_status(organization: Organization, source: Source) -> dict[str, object]:
    running = source.running
    state = "PUSH_READY" if running is None else "REFRESHING"
    status: dict[str, object] = {
        "type": state,
        "extendedCurrentStatus": state,
        "timestamp": organization.clock.now_ms(),
        "numberOfDocuments": len(source.items),
        "allowedOperations": [],
    }
    if running is not None:
        status |= {
            "refreshType": PLATFORM_OPERATIONS[running.status],
            "activityId": running.id,
            "createdDate": running.started,
            "numberOfProcessedDocuments": running.counts["added"] + running.counts["updated"],
            "numberOfAddedDocuments": running.counts["added"],
            "numberOfUpdatedDocuments": running.counts["updated"],
            "numberOfRemovedDocuments": running.counts["removed"],
        }
    if source.state is not None:
        status["extendedCurrentStatus"] = source.state
        # Only the extended status shows that a source is being deleted.
        if source.state != "DELETING":
            status["type"] = source.state
    if source.error_code is not None:
        status["pausedOnErrorCode"] = source.error_code
    return status


def activity_model(organization: Organization, activity: Activity) -> dict[str, Any]:
    """Return an activity."""
    now = organization.clock.now_ms()
    model: dict[str, object] = {
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
        model |= {"endDate": activity.ended, "result": activity.result}
    if activity.result == "ABORT":
        model["abortedBy"] = {"abortedByType": "USER", "displayName": _OWNER}
    return model
