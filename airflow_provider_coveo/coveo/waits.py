"""
What one can wait for at Coveo: how to look whether it has come, and when no waiting will bring it.

A look is a series of questions (:mod:`airflow_provider_coveo.coveo.questions`) that ends in what was seen. It
remembers nothing of the look before, so whoever waits may be started again at any time and elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol

from airflow_provider_coveo.coveo.errors import (
    AccessDeniedError,
    CoveoError,
    CoveoInputError,
    NotFoundError,
    OrganizationNotFoundError,
    OrganizationPausedError,
    SourceNotUsableError,
    UnexpectedAnswerError,
    missing_privilege_error,
    short_repr,
)
from airflow_provider_coveo.coveo.integers import parse_int
from airflow_provider_coveo.coveo.questions import (
    Asking,
    limit_question,
    organization_status_question,
    source_question,
)
from airflow_provider_coveo.coveo.sources import (
    active_since_ms,
    push_status,
    status_in_words,
    unusable_reason,
)
from airflow_provider_coveo.coveo.statuses import SourceStatus


@dataclass(frozen=True)
class Seen:
    """
    What a look showed.

    :param is_there: Whether what was waited for has come.
    :param words: What was seen.
    :param result: The same as small JSON, once it has come.
    :param warning: What should not be overlooked though it has come.
    """

    is_there: bool
    words: str
    result: dict[str, Any] = field(default_factory=dict)
    warning: str = ""


class Wait(Protocol):
    """Something that one can wait for."""

    def look(self, organization_id: str) -> Asking[Seen]:
        """
        Look whether it has come.

        :raises CoveoError: if it can't come, or that can't be told.
        """


def validate_statuses(value: object) -> tuple[SourceStatus, ...]:
    """
    Return the statuses that were named: one, or several in a list or with commas between them.

    :raises CoveoInputError: if none was, or one is no status of a Push source.
    """
    named = value.split(",") if isinstance(value, str) else value
    if isinstance(named, SourceStatus):
        named = [named]
    if not isinstance(named, Iterable) or isinstance(named, (bytes, Mapping)):
        raise CoveoInputError(f"{short_repr(value)} names no statuses", remedy="Give one, or a list")
    statuses = tuple(dict.fromkeys(SourceStatus.parse(name) for name in named))
    if not statuses:
        raise CoveoInputError("There is no status to wait for", remedy="Give at least one, such as IDLE")
    return statuses


@dataclass(frozen=True)
class SourceStatusWait:
    """
    Wait until a source has one of some statuses.

    :param source_id: The source.
    :param statuses: The statuses.
    """

    source_id: str
    statuses: tuple[SourceStatus, ...]

    def look(self, organization_id: str) -> Asking[Seen]:
        """
        Look at the source, and, while it has another status, whether the organization is paused.

        :raises SourceNotUsableError: if the source is in a state that it does not leave by itself.
        :raises OrganizationPausedError: if the organization is paused.
        """
        source = yield from self._source(organization_id)
        words = f"Source {self.source_id} is {status_in_words(source)}"
        status = push_status(source)
        since = active_since_ms(source) if status is not None and status.is_active else None
        if since is not None:
            words += f" since {_utc(since)}"
        problem = unusable_reason(source)
        if problem is not None:
            raise SourceNotUsableError(
                f"Source {self.source_id!r} will not be {self._wanted()} by waiting: it {problem}"
            )
        if status in self.statuses:
            assert status is not None
            return Seen(
                True,
                f"{words}.",
                {"source_id": self.source_id, "status": status.value, "active_since": since},
            )
        yield from _refusing_if_paused(
            organization_id, f"Source {self.source_id!r} will not be {self._wanted()} by waiting"
        )
        return Seen(False, f"{words}, not {self._wanted()}.")

    def _source(self, organization_id: str) -> Asking[dict[str, Any]]:
        try:
            return (yield source_question(organization_id, self.source_id))
        except AccessDeniedError as refused:
            raise missing_privilege_error(refused, "view sources", "the privilege Sources: View") from None
        except OrganizationNotFoundError:
            raise
        except NotFoundError as missing:
            raise NotFoundError(
                missing.tried, **{**missing.fields(), "cause": "there is no such source, or it was deleted"}
            ) from None

    def _wanted(self) -> str:
        return " or ".join(str(status) for status in self.statuses)


def validate_items(value: object) -> int:
    """
    Return a number of items.

    :raises CoveoInputError: if it is no whole number above zero.
    """
    number = parse_int(value)
    if number is None or number < 1:
        raise CoveoInputError(
            f"{short_repr(value)} is not a number of items", remedy="Give a whole number above zero"
        )
    return number


@dataclass(frozen=True)
class DailyQuotaWait:
    """
    Wait until so many items may still be pushed today.

    :param items: How many.
    """

    items: int

    def look(self, organization_id: str) -> Asking[Seen]:
        """
        Look how much of the daily quota is left, and whether the organization is paused.

        :raises CoveoInputError: if the quota of a whole day is smaller.
        :raises OrganizationPausedError: if the organization is paused.
        """
        yield from _refusing_if_paused(organization_id, "Nothing can be pushed")
        question = limit_question(organization_id)
        try:
            answer = yield question
        except AccessDeniedError as refused:
            raise missing_privilege_error(
                refused, "view limits", "the privilege Organization: View"
            ) from None
        limit, used = answer["limit"], answer.get("actualCount")
        if not all(isinstance(number, int) and not isinstance(number, bool) for number in (limit, used)):
            raise UnexpectedAnswerError(question.tried, answer="not a limit and a count")
        if limit < self.items:
            raise CoveoInputError(
                f"{self.items:,} items can never be pushed in one day: the organization's quota is {limit:,}",
                remedy="Push fewer items a day, or have the quota raised",
            )
        remaining = max(0, limit - used)
        words = f"{remaining:,} of {limit:,} items may still be pushed today"
        result = {"limit": limit, "used": used, "remaining": remaining}
        if remaining >= self.items:
            return Seen(True, f"{words}.", result)
        renewal = next_day_in_words(datetime.now(timezone.utc))
        return Seen(False, f"{words}, and {self.items:,} are wanted; the quota {renewal}.")


def next_day_in_words(now: datetime) -> str:
    """Say when a daily quota renews: Coveo documents no more than that it does the next day."""
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    minutes = int((midnight - now).total_seconds() // 60)
    return f"renews the next day, which in UTC begins in {minutes // 60} h {minutes % 60} min"


def _refusing_if_paused(organization_id: str, what_can_not_be: str) -> Asking[None]:
    try:
        status = yield organization_status_question(organization_id)
    except CoveoError as error:
        if error.retry_can_help:
            raise
        # It is asked for only to say why nothing goes on.
        return
    state = str(status.get("lifeCycleState") or "")
    if status.get("paused") is True or state == "PAUSED":
        raise OrganizationPausedError(f"{what_can_not_be}: organization {organization_id!r} is paused")
    if state == "DELETING":
        raise OrganizationPausedError(
            f"{what_can_not_be}: organization {organization_id!r} is being deleted",
            cause="somebody deleted it, or its trial is over",
            remedy="Ask Coveo's support",
        )


def _utc(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).isoformat(timespec="seconds")
