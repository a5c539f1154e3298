"""The reads that workers and triggerers share."""

from __future__ import annotations

import re
from typing import Final

from airflow_provider_coveo.coveo.endpoints import platform_path, validate_source_id
from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.responses import JsonObject, Response
from airflow_provider_coveo.coveo.transport import Call, Request, explain_privilege, json_call

#: The key of the daily limit of pushed items. See https://docs.coveo.com/en/63/.
DAILY_ITEMS_LIMIT: Final = "pushApiMaximumDailyDocumentLimit"


def source_call(organization_id: str, source_id: str) -> Call[JsonObject]:
    """Return the call that reads a source."""
    source_id = validate_source_id(source_id)
    return json_call(
        Request(
            f"Could not read source {source_id!r}",
            "GET",
            platform_path(organization_id, "sources", source_id),
            host="platform",
        ),
        "id",
        explain=explain_privilege("view sources", "the privilege Sources: View"),
    )


def limit_call(organization_id: str, key: str = DAILY_ITEMS_LIMIT) -> Call[JsonObject]:
    """Return the call that reads a limit, and its used part."""
    if not isinstance(key, str) or not re.fullmatch(r"\w+", key, re.ASCII):
        raise CoveoInputError(
            f"Invalid limit key: {short_repr(key)}", remedy=f"Pass one such as {DAILY_ITEMS_LIMIT}"
        )
    return json_call(
        Request(
            f"Could not read the limit {key} of organization {organization_id!r}",
            "GET",
            platform_path(organization_id, "limits", "content", key),
            host="platform",
        ),
        "limit",
        explain=explain_privilege("view limits", "the privilege Organization: View"),
    )


def daily_items_call(organization_id: str) -> Call[tuple[int, int]]:
    """Return the call that reads the daily limit of pushed items, and how many were pushed today."""
    limit_only = limit_call(organization_id)
    request = limit_only.request

    def parse(response: Response) -> tuple[int, int]:
        found = response.json(request.action, "limit", "actualCount")
        limit, used = found["limit"], found["actualCount"]
        if type(limit) is int and type(used) is int:
            return limit, used
        raise response.unexpected(request.action, "not a limit and a count")

    return Call(request, parse, limit_only.explain)


def organization_status_call(organization_id: str) -> Call[JsonObject]:
    """Return the call that reads whether an organization is active; any key is allowed to."""
    return json_call(
        Request(
            f"Could not read the status of organization {organization_id!r}",
            "GET",
            platform_path(organization_id, "status"),
            host="platform",
        )
    )
