"""Coveo's platform API for Push sources: sources, activities, fields, limits and regions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from starlette.routing import Route

from airflow_provider_coveo.coveo.statuses import SourceStatus
from airflow_provider_coveo.simulator import fields_api
from airflow_provider_coveo.simulator.call import INT32_MAX, Call, json_answer, parse_moment, wildcard
from airflow_provider_coveo.simulator.errors import ApiError
from airflow_provider_coveo.simulator.exchange import Answer
from airflow_provider_coveo.simulator.json_body import member
from airflow_provider_coveo.simulator.models import activity_model, light_source_model, source_model
from airflow_provider_coveo.simulator.records import PLATFORM_OPERATIONS, Activity, Source
from airflow_provider_coveo.simulator.state import VISIBILITIES

ACTIVITY_WINDOW = timedelta(days=31)
T = TypeVar("T")

DAILY_DOCUMENTS_KEY = "pushApiMaximumDailyDocumentLimit"
#: The reported limit while the simulator has none.
UNLIMITED = 1_000_000_000


def get_source(call: Call) -> Answer:
    """Show a source."""
    return json_answer(source_model(call.organization, _source(call)))


def get_light_source(call: Call) -> Answer:
    """Show the kind of a source."""
    return json_answer(light_source_model(_source(call)))


def list_sources(call: Call) -> Answer:
    """List the sources as an array."""
    _, page = _page(call, _filtered_sources(call), 100)
    return json_answer([source_model(call.organization, source) for source in page])


def page_sources(call: Call) -> Answer:
    """List the sources with the number of pages."""
    found = _filtered_sources(call)
    pages, page = _page(call, found, 100)
    models = [source_model(call.organization, source) for source in page]
    return json_answer({"sourceModels": models, "totalEntries": len(found), "totalPages": pages})


def create_source(call: Call) -> Answer:
    """Create a Push source."""
    body = call.json_object()
    name, visibility = member(body, "name"), member(body, "sourceVisibility")
    if member(body, "sourceType") != "PUSH":
        raise ApiError.invalid_parameter("sourceType", "the simulator has only Push sources")
    if not isinstance(name, str) or not name:
        raise ApiError.missing_parameter("name")
    if visibility not in VISIBILITIES:
        raise ApiError.invalid_parameter("sourceVisibility", f"it must be one of {', '.join(VISIBILITIES)}")
    _note_repeated_name(call, name)
    source = call.organization.add_source(None, name=name, visibility=visibility)
    return json_answer(source_model(call.organization, source), 201)


def duplicate_source(call: Call) -> Answer:
    """Create an empty source like this one."""
    original = _source(call)
    name = call.text("newSourceName")
    _note_repeated_name(call, name)
    # The copy is an ordinary Push source: the product that manages the original does not know it.
    copy = call.organization.add_source(None, name=name, visibility=original.visibility)
    return json_answer(source_model(call.organization, copy), 201)


def delete_source(call: Call) -> Answer:
    """Delete a source."""
    model = source_model(call.organization, _source(call))
    call.organization.remove_source(call.path["source"])
    return json_answer(model)


def abort_task(call: Call) -> Answer:
    """Abort the running activity of a source."""
    source = _source(call)
    call.organization.abort(source.id, call.text("activityId"))
    return Answer(200)


def push_refresh(call: Call) -> Answer:
    """Set the status of a source, using the platform's names."""
    source = _source(call)
    operation = call.text("activityOperation")
    statuses = {name: status for status, name in PLATFORM_OPERATIONS.items()}
    status = SourceStatus.IDLE if operation == "IDLE" else statuses.get(operation)
    if status is None:
        why = f"{operation!r} is not one of {', '.join([*statuses, 'IDLE'])}"
        raise ApiError.invalid_parameter("activityOperation", why)
    call.organization.set_status(source.id, status, call.request_id)
    return Answer(200)


def list_activities(call: Call) -> Answer:
    """List the activities of a period."""
    start, end = _moment(call, "from"), _moment(call, "to")
    if start is not None and end is not None and end - start > ACTIVITY_WINDOW:
        raise ApiError.invalid_parameter("from", "the window is longer than 31 days")
    found = [
        activity
        for activity in _filtered_activities(call)
        if (start is None or activity.started >= start.timestamp() * 1000)
        and (end is None or activity.started <= end.timestamp() * 1000)
    ]
    return _activities(call, found, 100)


def latest_activities(call: Call) -> Answer:
    """List the latest activities."""
    return _activities(call, _filtered_activities(call), 10)


def get_activity(call: Call) -> Answer:
    """Show an activity."""
    wanted = call.path["activity"]
    for activity in call.organization.activities:
        if activity.id == wanted:
            return json_answer(activity_model(call.organization, activity))
    raise ApiError.not_found(f"There is no activity {wanted!r}.")


def get_limit(call: Call) -> Answer:
    """Show a limit and its current usage."""
    organization = call.organization
    if call.path["key"] != DAILY_DOCUMENTS_KEY:
        raise ApiError.not_found(f"The simulator has only the limit {DAILY_DOCUMENTS_KEY}.")
    limit = organization.settings.daily_documents
    return json_answer(
        {
            "actualCount": organization.documents_today(),
            "limit": UNLIMITED if limit is None else limit,
            "lastUpdate": organization.clock.now_ms(),
        }
    )


def get_organization_status(call: Call) -> Answer:
    """Show whether the organization is paused."""
    paused = call.organization.paused
    return json_answer(
        {
            "lifeCycleState": "PAUSED" if paused else "ACTIVE",
            "pauseState": "PAUSED" if paused else "NOT_PAUSED",
            "paused": paused,
            "resumable": paused,
            "readOnly": False,
        }
    )


def get_regions(call: Call) -> Answer:
    """List the regions; there is one."""
    region = {
        "name": "simulator",
        "apiEndpoint": call.base_url,
        "mainEndpoint": call.base_url,
        "analyticsEndpoint": call.base_url,
    }
    return json_answer([region])


def _source(call: Call) -> Source:
    source = call.organization.sources.get(call.path["source"])
    if source is None:
        raise ApiError.not_found(f"There is no source {call.path['source']!r}.")
    return source


def _note_repeated_name(call: Call, name: str) -> None:
    if any(source.name == name for source in call.organization.sources.values()):
        call.undocumented(f"a second source with the name {name!r}")


def _filtered_sources(call: Call) -> list[Source]:
    host = call.one_of("filterHostType", ("CLOUD", "CRAWLING_MODULE", "PUSH"))
    matching = call.one_of("stringFilterType", ("WILDCARD", "EXACTMATCH"))
    order = call.one_of("sortingOrder", ("ASC", "DESC"))
    if call.exchange.query.get("sortingType", "NAME") != "NAME":
        raise ApiError.invalid_parameter("sortingType", "the simulator only sorts by NAME")
    wanted = call.exchange.query.get("filter", "")
    pattern = wildcard(f"*{wanted.lower()}*")

    def fits(source: Source) -> bool:
        # All sources are Push sources, so CLOUD, for sources that Coveo crawls, finds none.
        own_host = "CRAWLING_MODULE" if source.crawler == "CRAWLING_MODULE" else "PUSH"
        if host not in (None, own_host):
            return False
        if matching == "EXACTMATCH":
            return not wanted or source.name == wanted
        return pattern.fullmatch(source.name.lower()) is not None

    found = [source for source in call.organization.sources.values() if fits(source)]
    return sorted(found, key=lambda source: source.name, reverse=order == "DESC")


def _filtered_activities(call: Call) -> list[Activity]:
    body = call.json_object()
    facets: dict[str, Callable[[Activity], str | None]] = {
        "resourceIds": lambda activity: activity.source_id,
        "resourceTypes": lambda activity: "SOURCE",
        "operations": lambda activity: PLATFORM_OPERATIONS[activity.status],
        "states": lambda activity: "EXECUTING" if activity.ended is None else "EXECUTED",
        "resultTypes": lambda activity: activity.result,
        "sections": lambda activity: "CONTENT",
        "organizationIds": lambda activity: call.organization.id,
    }
    wanted: dict[str, list[object]] = {}
    for name in facets:
        values = member(body, name)
        if not values:
            continue
        if not isinstance(values, list):
            raise ApiError.invalid_json(f"{name} must be an array.")
        wanted[name] = values
    found = [
        activity
        for activity in call.organization.activities
        if all(facets[name](activity) in values for name, values in wanted.items())
    ]
    return found[::-1]


def _activities(call: Call, found: list[Activity], per_page: int) -> Answer:
    pages, page = _page(call, found, per_page)
    items = [activity_model(call.organization, activity) for activity in page]
    return json_answer({"items": items, "totalEntries": len(found), "totalPages": pages})


def _page(call: Call, found: list[T], per_page: int) -> tuple[int, list[T]]:
    """Return the number of pages, and the requested page."""
    number = call.integer("page", most=INT32_MAX) or 0
    size = call.integer("perPage", most=INT32_MAX) or per_page
    return -(-len(found) // size), found[number * size : (number + 1) * size]


def _moment(call: Call, name: str) -> datetime | None:
    value = call.exchange.query.get(name)
    return None if value is None else parse_moment(name, value)


_ORGANIZATION = "/rest/organizations/{organization}"
_SOURCES = _ORGANIZATION + "/sources"
_SOURCE = _SOURCES + "/{source}"
_ACTIVITIES = _ORGANIZATION + "/activities"

ROUTES = [
    Route(_SOURCES, list_sources, methods=["GET"], name="list_sources"),
    Route(_SOURCES, create_source, methods=["POST"], name="create_source"),
    Route(_SOURCES + "/pages", page_sources, methods=["GET"], name="page_sources"),
    Route(_SOURCE, get_source, methods=["GET"], name="source"),
    Route(_SOURCE, delete_source, methods=["DELETE"], name="delete_source"),
    Route(_SOURCE + "/light", get_light_source, methods=["GET"], name="light_source"),
    Route(_SOURCE + "/duplicate", duplicate_source, methods=["POST"], name="duplicate_source"),
    Route(_SOURCE + "/tasks/abort", abort_task, methods=["POST"], name="abort"),
    Route(_SOURCE + "/pushRefresh", push_refresh, methods=["POST"], name="push_refresh"),
    Route(_ACTIVITIES + "/public", list_activities, methods=["POST"], name="activities"),
    Route(_ACTIVITIES + "/latest", latest_activities, methods=["POST"], name="latest_activities"),
    Route(_ACTIVITIES + "/{activity}", get_activity, methods=["GET"], name="activity"),
    Route(_ORGANIZATION + "/limits/content/{key}", get_limit, methods=["GET"], name="limit"),
    *fields_api.ROUTES,
]

#: Coveo documents no privilege for these, so any key can use them.
UNPRIVILEGED_ROUTES = [
    Route(_ORGANIZATION + "/status", get_organization_status, methods=["GET"], name="organization_status"),
    Route("/rest/global/regions", get_regions, methods=["GET"], name="regions"),
]
