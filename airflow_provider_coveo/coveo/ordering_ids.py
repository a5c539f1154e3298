"""Ordering IDs: the cut-offs of “delete old items”, and the checks that protect a source."""

from __future__ import annotations

import time
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple

from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.integers import parse_int
from airflow_provider_coveo.coveo.quantities import quantity

_WHY_IT_MATTERS: Final = (
    "Coveo remembers the highest cut-off and rejects all older content, so a wrong one blocks new content "
    "until that time; to fix it earlier, recreate the source (https://docs.coveo.com/en/147/)"
)
_REMEDY: Final = "Pass milliseconds since 1970-01-01 UTC, or leave it out to use the current time"

#: 1973-03-03 in milliseconds: a smaller number is probably in seconds.
_MIN_MILLISECONDS: Final = 10**11
#: The likely unit of a number in the future: upper bound and name, in ascending order.
_OTHER_UNITS: Final = (
    (10**14, None),
    (10**17, "microseconds"),
    (10**18, "the .NET ticks that Coveo for Sitecore uses"),
    (10**19, "nanoseconds"),
)
_CRAWLING_MODULE: Final = "the nanoseconds since 1440 that the Crawling Module uses"

#: 2020-01-01: an earlier date in a response is not Coveo's clock.
_EARLIEST_PLAUSIBLE_DATE: Final = 1_577_836_800_000
#: An HTTP date has no fraction of a second, so the server's clock can be ahead of it by this much.
_HTTP_DATE_RESOLUTION_MS: Final = 999

DEFAULT_QUEUE_DELAY_MINUTES: Final = 15


def now_ms() -> int:
    """Return the time on this machine's clock in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class CoveoClock(NamedTuple):
    """
    Coveo's clock, as the ``Date`` header of one of its responses showed it.

    Coveo stamps pushed items with its own clock. If the worker's clock were ahead, a cut-off from it would
    delete fresh items.

    :param server_ms: The date in milliseconds since the epoch, ``None`` if the response had none.
    :param read_at: This machine's monotonic clock in seconds when the response arrived.
    """

    server_ms: int | None
    read_at: float

    @classmethod
    def from_http_date(cls, http_date: str | None) -> CoveoClock:
        """
        Read the ``Date`` header of a response that has just arrived.

        :param http_date: The header, ``None`` if it is missing.
        """
        return cls(_epoch_ms(http_date), time.monotonic())

    def now_ms(self) -> int:
        """Return the current time on Coveo's clock, never later than on this machine's own."""
        return self._present_ms(slack_ms=0)

    def latest_cut_off_ms(self) -> int:
        """Return the highest cut-off that is certainly not in the future."""
        return self._present_ms(slack_ms=_HTTP_DATE_RESOLUTION_MS)

    def latest_ms(self) -> int:
        """Return the latest possible time on Coveo's clock, regardless of this machine's own."""
        return self.shown_ms() + _HTTP_DATE_RESOLUTION_MS

    def shown_ms(self) -> int:
        """Return the time on Coveo's clock, for comparison with dates in its responses."""
        if self.server_ms is None:
            return now_ms()
        return self.server_ms + int((time.monotonic() - self.read_at) * 1000)

    def _present_ms(self, slack_ms: int) -> int:
        return min(self.shown_ms() + slack_ms, now_ms())


def _epoch_ms(http_date: str | None) -> int | None:
    try:
        parsed = parsedate_to_datetime(http_date or "")
    except (ValueError, TypeError, OverflowError):
        return None
    # An HTTP date is in GMT even if it doesn't state it.
    parsed = parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)
    epoch_ms = int(parsed.timestamp() * 1000)
    return epoch_ms if epoch_ms >= _EARLIEST_PLAUSIBLE_DATE else None


def parsed_ordering_id(value: object) -> int:
    """
    Return an ordering ID from an int, or from a string of digits, as templates render it.

    :param value: The ordering ID.
    :raises CoveoInputError: if it is anything else, zero, negative, or in seconds.
    """
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise _unsafe(value, f"it is a {type(value).__name__}, not an integer")
    if isinstance(value, str):
        text = value.strip()
        if not (text.isascii() and text.removeprefix("-").isdigit()):
            raise _unsafe(value, "it is not an integer")
        if len(text) > 20:
            raise _unsafe(value, "it has more digits than any ordering ID")
        value = int(text)
    if value <= 0:
        raise _unsafe(value, "it is not positive")
    if value < _MIN_MILLISECONDS:
        raise _unsafe(value, "it looks like seconds, not milliseconds")
    return value


def validate_cut_off(value: object, latest_ms: int) -> int:
    """
    Return an ordering ID that is safe as the cut-off of “delete old items”.

    :param value: Milliseconds since the epoch.
    :param latest_ms: The latest time that is not in the future.
    :raises CoveoInputError: if it is not an ordering ID, or is in the future.
    """
    ordering_id = parsed_ordering_id(value)
    if ordering_id <= latest_ms:
        return ordering_id
    unit = next((unit for bound, unit in _OTHER_UNITS if ordering_id < bound), _CRAWLING_MODULE)
    if unit is not None:
        raise _unsafe(value, f"it looks like {unit}")
    ahead = (ordering_id - latest_ms) / 1000
    shown = f"{ahead:,.3f} s" if ahead < 3600 else f"{ahead / 3600:,.0f} h"
    if ahead >= 100 * 3600:
        shown = quantity(round(ahead / 86_400), "day")
    raise _unsafe(value, f"it is {shown} in the future on Coveo's or this worker's clock")


def validate_queue_delay(minutes: object) -> int:
    """
    Return the queue delay in minutes: the time that Coveo waits before it deletes.

    :param minutes: An integer, or a string of its digits.
    :raises CoveoInputError: if it is not an integer, or is negative.
    """
    parsed = parse_int(minutes)
    if parsed is None or not 0 <= parsed < 2**31:
        raise CoveoInputError(
            f"Invalid queue delay: {short_repr(minutes)}; it must be an integer of 0 or more minutes",
            remedy=f"Use {DEFAULT_QUEUE_DELAY_MINUTES}, Coveo's default, unless no push is in progress",
        )
    return parsed


def _unsafe(value: object, why: str) -> CoveoInputError:
    return CoveoInputError(
        f"Invalid orderingId: {value!r}: {why}",
        cause=_WHY_IT_MATTERS,
        remedy=_REMEDY,
    )


# Names that 0.1 documented.
checked_cut_off = validate_cut_off
checked_queue_delay = validate_queue_delay
