"""
The conditions that sensors poll: whether one is met, and whether waiting can still help.

A poll is a coroutine that runs calls with ``ask``. A triggerer awaits each response. A worker's ``ask`` never
suspends, so :func:`~airflow_provider_coveo.coveo.transport.completed` can run the same code there. A poll
keeps no state, so another process can continue at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Protocol

from airflow_provider_coveo.coveo.calls import daily_items_call, organization_status_call, source_call
from airflow_provider_coveo.coveo.errors import (
    CoveoError,
    CoveoInputError,
    NotFoundError,
    OrganizationNotFoundError,
    OrganizationPausedError,
    SourceNotUsableError,
    short_repr,
)
from airflow_provider_coveo.coveo.integers import parse_int
from airflow_provider_coveo.coveo.quantities import next_day_in_words, quantity
from airflow_provider_coveo.coveo.responses import JsonObject
from airflow_provider_coveo.coveo.sources import (
    active_since_ms,
    push_status,
    status_in_words,
    unusable_reason,
)
from airflow_provider_coveo.coveo.statuses import SourceStatus
from airflow_provider_coveo.coveo.transport import Ask


@dataclass(frozen=True)
class PollResult:
    """
    The result of a poll.

    :param is_there: Whether the condition is met.
    :param words: A sentence on what Coveo showed.
    :param result: The same as small JSON, if the condition is met.
    :param warning: A warning to log even if the condition is met.
    """

    is_there: bool
    words: str
    result: Mapping[str, object] = field(default_factory=dict)
    warning: str = ""


class Condition(Protocol):
    """A condition at Coveo."""

    async def poll(self, organization_id: str, ask: Ask) -> PollResult:
        """
        Check whether the condition is met.

        :param organization_id: The organization.
        :param ask: Runs a call.
        :raises CoveoError: if it can't be met, or can't be checked.
        """


def validate_statuses(value: object) -> tuple[SourceStatus, ...]:
    """
    Return the statuses in a value: one, or several in a list or separated by commas.

    :raises CoveoInputError: if there is none, or one is not a status of a Push source.
    """
    named = value.split(",") if isinstance(value, str) else value
    if isinstance(named, SourceStatus):
        named = [named]
    if not isinstance(named, Iterable) or isinstance(named, (bytes, Mapping)):
        raise CoveoInputError(
            f"Invalid statuses: {short_repr(value)}", remedy="Pass one status, or a list of statuses"
        )
    statuses = tuple(dict.fromkeys(SourceStatus.parse(name) for name in named))
    if not statuses:
        raise CoveoInputError("There is no status to wait for", remedy="Pass at least one, such as IDLE")
    return statuses


@dataclass(frozen=True)
class SourceStatusCondition:
    """
    The condition that a source has one of the given statuses.

    :param source_id: The source.
    :param statuses: The statuses.
    """

    source_id: str
    statuses: tuple[SourceStatus, ...]

    async def poll(self, organization_id: str, ask: Ask) -> PollResult:
        """
        Read the source, and if it has another status, check whether the organization is paused.

        :raises SourceNotUsableError: if the source is in a state that it does not leave by itself.
        :raises OrganizationPausedError: if the organization is paused.
        """
        source = await self._source(organization_id, ask)
        words = f"Source {self.source_id} is {status_in_words(source)}"
        status = push_status(source)
        since = active_since_ms(source) if status is not None and status.is_active else None
        if since is not None:
            words += f" since {_utc(since)}"
        in_vain = f"Waiting can't make source {self.source_id!r} {self._wanted()}"
        problem = unusable_reason(source)
        if problem is not None:
            raise SourceNotUsableError(f"{in_vain}: it {problem}")
        if status is not None and status in self.statuses:
            return PollResult(
                True,
                f"{words}.",
                {"source_id": self.source_id, "status": status.value, "active_since": since},
            )
        await _reject_if_paused(organization_id, ask, in_vain)
        return PollResult(False, f"{words}, not {self._wanted()}.")

    async def _source(self, organization_id: str, ask: Ask) -> JsonObject:
        try:
            return await ask(source_call(organization_id, self.source_id))
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

    :raises CoveoInputError: if it is not an integer above zero.
    """
    number = parse_int(value)
    if number is None or number < 1:
        raise CoveoInputError(
            f"Invalid number of items: {short_repr(value)}", remedy="Pass an integer above zero"
        )
    return number


@dataclass(frozen=True)
class DailyQuotaCondition:
    """
    The condition that the given number of items can still be pushed today.

    :param items: The number of items.
    """

    items: int

    async def poll(self, organization_id: str, ask: Ask) -> PollResult:
        """
        Check how much of the daily quota is left, and whether the organization is paused.

        :raises CoveoInputError: if even the quota of a whole day is too small.
        :raises OrganizationPausedError: if the organization is paused.
        """
        await _reject_if_paused(organization_id, ask, "Nothing can be pushed")
        limit, used = await ask(daily_items_call(organization_id))
        if limit < self.items:
            raise CoveoInputError(
                f"{quantity(self.items, 'item')} can never be pushed in one day: the organization's "
                f"quota is {limit:,}",
                remedy="Push fewer items a day, or have the quota raised",
            )
        remaining = max(0, limit - used)
        words = f"{remaining:,} of {quantity(limit, 'item')} can still be pushed today"
        result = {"limit": limit, "used": used, "remaining": remaining}
        if remaining >= self.items:
            return PollResult(True, f"{words}.", result)
        renewal = next_day_in_words(datetime.now(timezone.utc))
        return PollResult(False, f"{words}, fewer than the required {self.items:,}; the quota {renewal}.")


async def _reject_if_paused(organization_id: str, ask: Ask, consequence: str) -> None:
    try:
        status = await ask(organization_status_call(organization_id))
    except CoveoError as error:
        if error.retry_can_help:
            raise
        # Checked only to explain why nothing changes.
        return
    state = str(status.get("lifeCycleState") or "")
    if status.get("paused") is True or state == "PAUSED":
        raise OrganizationPausedError(f"{consequence}: organization {organization_id!r} is paused")
    if state == "DELETING":
        raise OrganizationPausedError(
            f"{consequence}: organization {organization_id!r} is being deleted",
            cause="somebody deleted it, or its trial is over",
            remedy="Ask Coveo's support",
        )


def _utc(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).isoformat(timespec="seconds")
