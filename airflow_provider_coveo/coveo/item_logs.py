"""Coveo's item logs: the stages of the pipeline that each item reached, with the results."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final, NamedTuple, cast
from urllib.parse import quote

from airflow_provider_coveo.coveo.endpoints import validate_source_id
from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.iso8601 import parse_iso8601
from airflow_provider_coveo.coveo.responses import JsonObject, Response
from airflow_provider_coveo.coveo.transport import Call, Request, explain_privilege

if TYPE_CHECKING:
    from airflow_provider_coveo.coveo.results import LogCounts

#: The maximum time range of one request, and the time for which Coveo keeps the logs.
#: See https://docs.coveo.com/en/1864/.
MAX_WINDOW: Final = timedelta(days=7)
LOG_RETENTION: Final = timedelta(days=14)
#: The minimum time to wait for a response, in seconds: a call can take a minute
#: (https://docs.coveo.com/en/59/).
MIN_READ_TIMEOUT: Final = 120.0
ENTRIES_PER_PAGE: Final = 100

#: The values that Coveo declares.
OPERATIONS: Final = frozenset(
    {
        "ADD",
        "ADD_BY_REFERENCE",
        "BATCH_FILE",
        "DELETE",
        "DELETE_AND_CHILDREN",
        "DELETE_OLDER_THAN",
        "UPDATE",
    }
)
RESULTS: Final = frozenset({"COMPLETED", "ERROR", "REJECTED", "SKIPPED", "WARNING"})
TASKS: Final = frozenset(
    {
        "CONSUMING",
        "CONSUMING_BATCH",
        "CRAWLING",
        "EXTENSION",
        "INDEXING",
        "MAPPING",
        "PREINDEXING",
        "PROCESSING",
        "STREAMING",
        "STREAMING_BATCH",
        "STREAMING_EXTENSION",
        "VALIDATION",
    }
)
MATCHINGS: Final = frozenset({"EXACT", "PARTIAL", "WILDCARD"})

_EXPLAIN: Final = explain_privilege(
    "view item logs", "the privileges Organization: View and Sources: View (all sources)"
)
_DIGITS: Final = r"\s*\d{1,16}\s*"


class LogPage(NamedTuple):
    """
    A page of entries.

    :param entries: The entries, as Coveo sends them.
    :param has_next: Whether there is another page.
    """

    entries: list[JsonObject]
    has_next: bool


def parse_datetime(value: object) -> datetime:
    """
    Parse a time: a ``datetime``, an ISO 8601 text, or epoch milliseconds, like an ordering ID.

    :raises CoveoInputError: if it is none of these, or has no time zone.
    """
    found: datetime | None = None
    if isinstance(value, datetime):
        found = value
    elif (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, str) and re.fullmatch(_DIGITS, value)
    ):
        with suppress(OverflowError):
            found = datetime.fromtimestamp(0, timezone.utc) + timedelta(milliseconds=int(value))
    elif isinstance(value, str):
        with suppress(ValueError):
            found = parse_iso8601(value.strip())
    if found is None or found.tzinfo is None:
        why = "it has no time zone" if found is not None else "it can't be read"
        raise CoveoInputError(
            f"Invalid time: {short_repr(value)}: {why}",
            remedy="Pass a datetime with a time zone, ISO 8601 with a time zone, or epoch milliseconds",
        )
    return found.astimezone(timezone.utc)


def iso(value: datetime) -> str:
    """Return a time in Coveo's format."""
    return value.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def log_window(start: object, end: object) -> dict[str, str]:
    """
    Return the query parameters for a time range.

    :raises CoveoInputError: if a time is invalid, or the range is reversed or too long.
    """
    first, last = parse_datetime(start), parse_datetime(end)
    if first > last:
        raise CoveoInputError(
            f"Could not read the item logs from {iso(first)} to {iso(last)}: the end is before the start"
        )
    if last - first > MAX_WINDOW:
        raise CoveoInputError(
            f"Could not read the item logs from {iso(first)} to {iso(last)} in one request",
            cause=f"one request can cover at most {MAX_WINDOW.days} days",
            remedy="Read the logs week by week",
        )
    return {"from": iso(first), "to": iso(last)}


def log_filters(
    source_id: str,
    *,
    operations: Iterable[str] = (),
    results: Iterable[str] = (),
    tasks: Iterable[str] = (),
) -> dict[str, list[str]]:
    """
    Return the request's body for the entries of one source. An empty filter matches all entries.

    :raises CoveoInputError: if Coveo has no such operation, result or task.
    """
    body = {"sourcesIds": [source_id]}
    for name, values, known in (
        ("operations", operations, OPERATIONS),
        ("results", results, RESULTS),
        ("tasks", tasks, TASKS),
    ):
        wanted = sorted(_checked(name, values, known))
        if wanted:
            body[name] = wanted
    return body


def _checked(name: str, values: Iterable[str], known: Collection[str]) -> set[str]:
    wanted = [values] if isinstance(values, str) else list(values)
    unknown = [value for value in wanted if not isinstance(value, str) or value not in known]
    if unknown:
        raise CoveoInputError(
            f"Invalid {name}: {', '.join(sorted(set(map(str, unknown))))}",
            remedy=f"Use one or more of {', '.join(sorted(known))}",
        )
    return set(wanted)


def validate_matching(value: object) -> str:
    """
    Return a valid ``document_id_matching``.

    :raises CoveoInputError: if Coveo does not support the value.
    """
    if isinstance(value, str) and value.upper() in MATCHINGS:
        return value.upper()
    raise CoveoInputError(
        f"Invalid document_id_matching: {short_repr(value)}",
        remedy=f"Use one of {', '.join(sorted(MATCHINGS))}",
    )


def counts_call(
    organization_id: str, source_id: str, start: object, end: object, **narrowed: Iterable[str]
) -> Call[LogCounts]:
    """
    Return the call that counts entries by result, task, operation and source.

    For the arguments, see :func:`log_window` and :func:`log_filters`.

    :raises CoveoInputError: if an argument is invalid.
    """
    source_id = validate_source_id(source_id)
    request = Request(
        f"Could not count the item logs of source {source_id!r}",
        "POST",
        f"{_path(organization_id)}/facetsStats",
        query=log_window(start, end),
        body=json.dumps(log_filters(source_id, **narrowed)).encode(),
        min_read_timeout=MIN_READ_TIMEOUT,
    )

    def parse(response: Response) -> LogCounts:
        found = response.json(request.action, "results")
        counts = {name: found.get(name) or {} for name in ("results", "tasks", "operations", "sourceIds")}
        for counted in counts.values():
            if not isinstance(counted, dict) or not all(isinstance(one, int) for one in counted.values()):
                raise response.unexpected(request.action, "not counts of log entries")
        return cast("LogCounts", counts)

    return Call(request, parse, _EXPLAIN)


def page_call(
    organization_id: str,
    source_id: str,
    start: object,
    end: object,
    *,
    page: int = 0,
    per_page: int = ENTRIES_PER_PAGE,
    document_id: str | None = None,
    document_id_matching: str = "EXACT",
    **narrowed: Iterable[str],
) -> Call[LogPage]:
    """
    Return the call that reads a page of entries.

    For the other arguments, see :func:`log_window` and :func:`log_filters`.

    :param page: The index of the page, from 0.
    :param per_page: The number of entries on a page.
    :param document_id: Only entries for this item.
    :param document_id_matching: ``EXACT``, ``PARTIAL`` or ``WILDCARD``.
    :raises CoveoInputError: if an argument is invalid.
    """
    source_id = validate_source_id(source_id)
    query: dict[str, object] = {**log_window(start, end), "page": page, "perPage": per_page}
    if document_id is not None:
        query["documentId"] = document_id
        query["documentIdMatching"] = validate_matching(document_id_matching)
    request = Request(
        f"Could not read the item logs of source {source_id!r}",
        "POST",
        _path(organization_id),
        query=query,
        body=json.dumps(log_filters(source_id, **narrowed)).encode(),
        min_read_timeout=MIN_READ_TIMEOUT,
    )

    def parse(response: Response) -> LogPage:
        found = response.json(request.action, "documentLogEntries")
        entries = found["documentLogEntries"]
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise response.unexpected(request.action, "not a page of log entries")
        return LogPage(entries, found.get("hasNextPage") is True and bool(entries))

    return Call(request, parse, _EXPLAIN)


def _path(organization_id: str) -> str:
    return f"/logs/v1/organizations/{quote(organization_id, safe='')}"
