"""Ordering IDs: the cut-offs of “delete old items”, and the guards that keep a source from harm."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Final

from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.integers import parse_int

_WHY_IT_MATTERS: Final = (
    "Coveo remembers the highest cut-off and rejects all content that is older, so a wrong one bars new "
    "content until that moment comes; the only cure is to recreate the source "
    "(https://docs.coveo.com/en/147/)"
)
_REMEDY: Final = "Give the milliseconds since 1970-01-01 UTC, or leave it out to take the present moment"

#: Milliseconds of 1973-03-03: a smaller number reads as seconds.
_MIN_MILLISECONDS: Final = 10**11
#: What a number above the present most likely is: upper bound and name, in rising order.
_OTHER_UNITS: Final = (
    (10**14, None),
    (10**17, "microseconds"),
    (10**18, "the .NET ticks that Coveo for Sitecore uses"),
    (10**19, "nanoseconds"),
)
_CRAWLING_MODULE: Final = "the nanoseconds since 1440 that the Crawling Module uses"

#: 2020-01-01: an answer with an earlier date does not show Coveo's clock.
_EARLIEST_PLAUSIBLE_DATE: Final = 1_577_836_800_000
#: An HTTP date has no fraction of a second, so the server's clock may show that much more than its date.
_HTTP_DATE_RESOLUTION_MS: Final = 999

DEFAULT_QUEUE_DELAY_MINUTES: Final = 15


def now_ms() -> int:
    """Return this machine's clock in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class CoveoClock:
    """
    Coveo's clock, as the ``Date`` of one of its answers showed it.

    Coveo stamps pushed items by its own clock, so a cut-off by the worker's would delete fresh items where
    the worker's clock runs ahead.

    :param server_ms: The date in milliseconds since the epoch, ``None`` where the answer bore none.
    :param read_at: This machine's monotonic clock in seconds when the answer came.
    """

    server_ms: int | None
    read_at: float

    @classmethod
    def from_http_date(cls, http_date: str | None) -> CoveoClock:
        """
        Read the ``Date`` header of an answer that came just now.

        :param http_date: The header; ``None`` where there is none.
        """
        return cls(_epoch_ms(http_date), time.monotonic())

    def now_ms(self) -> int:
        """Return the present by Coveo's clock, never later than by this machine's own."""
        return self._present_ms(slack_ms=0)

    def latest_cut_off_ms(self) -> int:
        """Return the highest cut-off that is not in the future, as far as can be told."""
        return self._present_ms(slack_ms=_HTTP_DATE_RESOLUTION_MS)

    def latest_ms(self) -> int:
        """Return a moment that is not before the present by Coveo's clock, whatever this machine's says."""
        return self.shown_ms() + _HTTP_DATE_RESOLUTION_MS

    def shown_ms(self) -> int:
        """Return what Coveo's clock shows, which dates in its answers are measured against."""
        if self.server_ms is None:
            return now_ms()
        return self.server_ms + int((time.monotonic() - self.read_at) * 1000)

    def _present_ms(self, slack_ms: int) -> int:
        return min(self.shown_ms() + slack_ms, now_ms())


def _epoch_ms(http_date: str | None) -> int | None:
    try:
        moment = parsedate_to_datetime(http_date or "")
    except (ValueError, TypeError, OverflowError):
        return None
    # An HTTP date is in GMT, also where it does not say so.
    moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    epoch_ms = int(moment.timestamp() * 1000)
    return epoch_ms if epoch_ms >= _EARLIEST_PLAUSIBLE_DATE else None


def parsed_ordering_id(value: object) -> int:
    """
    Return an ordering ID given as an int, or as a string of digits as templates render it.

    :param value: The ordering ID.
    :raises CoveoInputError: if it is anything else, zero, negative, or in seconds.
    """
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise _refused(value, f"it is a {type(value).__name__}, and an ordering ID is a whole number")
    if isinstance(value, str):
        text = value.strip()
        if not (text.isascii() and text.removeprefix("-").isdigit()):
            raise _refused(value, "it is not a whole number")
        if len(text) > 20:
            raise _refused(value, "it has more digits than any ordering ID")
        value = int(text)
    if value <= 0:
        raise _refused(value, "it is not positive")
    if value < _MIN_MILLISECONDS:
        raise _refused(value, "it reads as seconds, not milliseconds")
    return value


def validate_cut_off(value: object, latest_ms: int) -> int:
    """
    Return an ordering ID that may serve as the cut-off of “delete old items”.

    :param value: Milliseconds since the epoch.
    :param latest_ms: The latest moment that is not in the future.
    :raises CoveoInputError: if it is no ordering ID, or lies in the future.
    """
    ordering_id = parsed_ordering_id(value)
    if ordering_id <= latest_ms:
        return ordering_id
    unit = next((unit for bound, unit in _OTHER_UNITS if ordering_id < bound), _CRAWLING_MODULE)
    if unit is not None:
        raise _refused(value, f"it reads as {unit}")
    ahead = (ordering_id - latest_ms) / 1000
    raise _refused(value, f"it lies {ahead:,.3f} s in the future of Coveo's or of this worker's clock")


def validate_queue_delay(minutes: object) -> int:
    """
    Return the queue delay in minutes: how long Coveo waits before it deletes.

    :param minutes: A whole number, or a string of its digits.
    :raises CoveoInputError: if it is not a whole number of minutes, or below zero.
    """
    whole = parse_int(minutes)
    if whole is None or not 0 <= whole < 2**31:
        raise CoveoInputError(
            f"{short_repr(minutes)} is not a queue delay: it must be a whole number of minutes, zero or more",
            remedy=f"Use {DEFAULT_QUEUE_DELAY_MINUTES}, Coveo's default, unless no push is under way",
        )
    return whole


def _refused(value: object, why: str) -> CoveoInputError:
    return CoveoInputError(
        f"{value!r} is not a safe orderingId: {why}",
        cause=_WHY_IT_MATTERS,
        remedy=_REMEDY,
    )


# The names that 0.1 documented.
checked_cut_off = validate_cut_off
checked_queue_delay = validate_queue_delay
