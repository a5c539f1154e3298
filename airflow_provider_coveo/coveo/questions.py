"""Requests that change nothing at Coveo, as values: for who waits for each answer and for who does not."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar

from airflow_provider_coveo.coveo.endpoints import platform_path, validate_source_id
from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr

#: The limit of the items that may be pushed a day. See https://docs.coveo.com/en/63/.
DAILY_ITEMS_LIMIT: Final = "pushApiMaximumDailyDocumentLimit"

T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """
    A request that only asks.

    :param tried: What is tried, on what, for the message of an error.
    :param method: The HTTP method.
    :param path: The path.
    :param keys: What the JSON object that Coveo answers must have.
    :param query: The parameters of the query.
    :param body: What to send as JSON.
    :param of_platform: Whether the platform's host answers it, and not that of the Push API.
    :param expected: The status that is documented as its success.
    :param answer_seconds: How long an answer may take at least; ``None`` for no longer than any other.
    """

    tried: str
    method: str
    path: str
    keys: tuple[str, ...] = ()
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    of_platform: bool = True
    expected: int = 200
    answer_seconds: float | None = None


#: Questions one after the other, each of which may depend on the answers before; at the end, a conclusion.
Asking: TypeAlias = Generator[Question, dict[str, Any], T]


def asking(question: Question) -> Asking[dict[str, Any]]:
    """Ask one question, and return the answer."""
    return (yield question)


def source_question(organization_id: str, source_id: str) -> Question:
    """Ask for a source."""
    source_id = validate_source_id(source_id)
    return Question(
        f"Could not read source {source_id!r}",
        "GET",
        platform_path(organization_id, "sources", source_id),
        keys=("id",),
    )


def limit_question(organization_id: str, key: str = DAILY_ITEMS_LIMIT) -> Question:
    """Ask for a limit and how much of it is used."""
    if not isinstance(key, str) or not re.fullmatch(r"\w+", key, re.ASCII):
        raise CoveoInputError(
            f"{short_repr(key)} is not the key of a limit", remedy=f"Such as {DAILY_ITEMS_LIMIT}"
        )
    return Question(
        f"Could not read the limit {key} of organization {organization_id!r}",
        "GET",
        platform_path(organization_id, "limits", "content", key),
        keys=("limit",),
    )


def organization_status_question(organization_id: str) -> Question:
    """Ask whether an organization is active; any key may."""
    return Question(
        f"Could not read the status of organization {organization_id!r}",
        "GET",
        platform_path(organization_id, "status"),
    )
