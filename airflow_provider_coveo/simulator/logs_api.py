"""The Source Logs API: the pipeline's result for each item."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import NamedTuple

from starlette.routing import Route

from airflow_provider_coveo.simulator.call import INT32_MAX, Call, json_answer, parse_moment, wildcard
from airflow_provider_coveo.simulator.errors import ApiError
from airflow_provider_coveo.simulator.exchange import Answer
from airflow_provider_coveo.simulator.json_body import member
from airflow_provider_coveo.simulator.records import LOG_OPERATIONS, LOG_RESULTS, LOG_TASKS, LogRecord

MAX_WINDOW = timedelta(days=7)
KEPT = timedelta(days=14)
DEFAULT_PAGE_SIZE = 100

#: The filters: the key of the body, the key of an entry, and the declared values.
_FILTERS = {
    "operations": ("operation", LOG_OPERATIONS),
    "results": ("result", LOG_RESULTS),
    "tasks": ("task", LOG_TASKS),
    "sourcesIds": ("sourceId", None),
    "resourceIds": ("resourceId", None),
    "excludeOperations": ("operation", LOG_OPERATIONS),
    "excludeResults": ("result", LOG_RESULTS),
    "excludeTasks": ("task", LOG_TASKS),
    "excludeSourceIds": ("sourceId", None),
    "excludeResourceIds": ("resourceId", None),
}


def get_logs(call: Call) -> Answer:
    """List log entries."""
    page = call.integer("page", most=INT32_MAX) or 0
    size = call.integer("perPage", most=INT32_MAX) or DEFAULT_PAGE_SIZE
    found = sorted(_entries(call), key=lambda entry: entry.record.at, reverse=True)
    models = [
        entry.record.entry(
            call.organization.id, entry.facts["sourceId"], entry.facts["task"], entry.facts["result"]
        )
        for entry in found[page * size : (page + 1) * size]
    ]
    return json_answer({"documentLogEntries": models, "hasNextPage": len(found) > (page + 1) * size})


def get_counts(call: Call) -> Answer:
    """Count log entries by each of their facets."""
    counts: dict[str, Counter[str]] = {
        name: Counter() for name in ("operations", "resourceIds", "results", "sourceIds", "tasks")
    }
    for entry in _entries(call):
        for name, counter in counts.items():
            counter[entry.facts[name[:-1]]] += 1
    return json_answer(counts)


class _Entry(NamedTuple):
    """One stage of one record and its filterable values; its model is created only if it is shown."""

    record: LogRecord
    facts: dict[str, str]


def _entries(call: Call) -> Iterator[_Entry]:
    start = parse_moment("from", call.text("from"))
    end = parse_moment("to", call.text("to"))
    if start > end:
        raise ApiError.invalid_parameter("from", "it is later than to")
    if end - start > MAX_WINDOW:
        raise ApiError.invalid_parameter("from", "the window is longer than 7 days")
    matching = call.one_of("documentIdMatching", ("EXACT", "PARTIAL", "WILDCARD")) or "EXACT"
    matches = _matcher(call.exchange.query.get("documentId"), matching)
    filters = _filters(call.json_object())
    organization = call.organization
    since = max(start, organization.clock.utcnow() - KEPT).timestamp() * 1000
    until = end.timestamp() * 1000

    def found() -> Iterator[_Entry]:
        for source in list(organization.sources.values()):
            for record in source.log:
                if not since <= record.at <= until or not matches(record.item):
                    continue
                for stage, result in record.results():
                    facts = {
                        "operation": record.operation,
                        "result": result,
                        "task": stage,
                        "sourceId": source.id,
                        "resourceId": source.id,
                    }
                    if all((facts[key] in values) is wanted for key, values, wanted in filters):
                        yield _Entry(record, facts)

    return found()


def _filters(body: dict[str, object]) -> list[tuple[str, list[str], bool]]:
    """Return the filters: a key, its values, and whether to include or exclude them."""
    filters = []
    for name, (key, declared) in _FILTERS.items():
        values = member(body, name)
        if not values:
            continue
        if not isinstance(values, list) or (declared and not set(map(str, values)) <= set(declared)):
            raise ApiError.invalid_json(
                f"{name} must be an array of {', '.join(declared or ['identifiers'])}."
            )
        filters.append((key, values, not name.startswith("exclude")))
    return filters


def _matcher(document_id: str | None, matching: str) -> Callable[[str], bool]:
    if document_id is None:
        return lambda item: True
    if matching == "PARTIAL":
        return lambda item: document_id in item
    if matching == "WILDCARD":
        pattern = wildcard(document_id)
        return lambda item: pattern.fullmatch(item) is not None
    return lambda item: item == document_id


_LOGS = "/logs/v1/organizations/{organization}"

ROUTES = [
    Route(_LOGS, get_logs, methods=["POST"], name="logs"),
    Route(_LOGS + "/facetsStats", get_counts, methods=["POST"], name="log_counts"),
]
