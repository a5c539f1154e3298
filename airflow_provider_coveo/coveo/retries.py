"""The retry policy for requests: when to retry, and how long to wait first."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Final

from airflow_provider_coveo.coveo.errors import (
    CoveoError,
    CoveoInputError,
    NoAnswerError,
    ServiceError,
    TooManyRequestsError,
)

#: The seconds over which Coveo counts calls against the burst limit of its Stream API. For the Push API, it
#: documents no such time. See https://docs.coveo.com/en/l62e0540/.
COUNTED_OVER_SECONDS: Final = 300.0
#: Upper bound of any ``Retry-After``, so that the resulting time can still be formatted.
_MAX_RETRY_AFTER: Final = 999_999_999.0
#: The errors after which a request is retried.
RETRYABLE: Final = (TooManyRequestsError, ServiceError, NoAnswerError)
#: The errors after which Coveo may have carried out the request.
OUTCOME_UNKNOWN: Final = (ServiceError, NoAnswerError)
_NUMBER: Final = r"[0-9]+(?:\.[0-9]*)?"


@dataclass(frozen=True)
class RetryPolicy:
    """
    Retry policy for requests after a 429, a 5xx or no response at all.

    The upper bound of the wait doubles from ``first_wait`` to ``longest_wait``. Each wait is random between
    zero and that bound (full jitter), so that many tasks do not return at once. If Coveo's response has a
    ``Retry-After``, the wait is at least that long. If a wait would end after ``total_seconds``, the error is
    raised immediately, and Airflow's own retries, which occupy no worker, take over.

    Coveo's API declares ``Retry-After``, a number of seconds, for each 429; a gateway in front of it can omit
    it. A call that is rate-limited without it waits for ``refused_wait``: the time over which Coveo counts an
    organization's calls of the Stream API (https://docs.coveo.com/en/l62e0540/; for the Push API, Coveo
    documents none). So each task is rate-limited once rather than repeatedly, and the whole allowance is free
    again by then. If ``refused_wait`` is not below ``total_seconds``, a 429 is treated like any other error.

    :param total_seconds: Seconds from the first attempt within which the last one can begin; 0 to 3000, well
        below the 60 minutes that a file container lasts. 0 never retries a request.
    :param first_wait: Upper bound of the first wait, in seconds.
    :param longest_wait: Upper bound of any wait that is not for a 429, in seconds.
    :param refused_wait: The wait after a 429 without ``Retry-After``, in seconds.
    :raises CoveoInputError: if a value is out of its range.
    """

    total_seconds: float = 900.0
    first_wait: float = 1.0
    longest_wait: float = 60.0
    refused_wait: float = COUNTED_OVER_SECONDS

    def __post_init__(self) -> None:
        if not 0 <= self.total_seconds <= 3000:
            raise CoveoInputError(f"Invalid total_seconds: {self.total_seconds!r}; it must be 0 to 3000")
        if not 0 <= self.first_wait <= self.longest_wait:
            raise CoveoInputError(
                f"Invalid first_wait: {self.first_wait!r}; it must be 0 to longest_wait "
                f"({self.longest_wait!r})"
            )
        if not 0 <= self.refused_wait <= 3000:
            raise CoveoInputError(f"Invalid refused_wait: {self.refused_wait!r}; it must be 0 to 3000")

    def wait(self, attempt: int, retry_after: float | None, *, refused: bool = False) -> float:
        """
        Return the seconds to wait after an attempt.

        :param attempt: Its number, counted from 1.
        :param retry_after: The seconds that the response asks to wait, if it does.
        :param refused: Whether the response was a 429.
        """
        if refused and retry_after is None and self.refused_wait < self.total_seconds:
            return self.refused_wait + random.uniform(0, self.first_wait)  # noqa: S311 - jitter, not a secret
        bound = min(self.longest_wait, self.first_wait * 2 ** min(attempt - 1, 62))
        drawn = random.uniform(0, bound)  # noqa: S311
        # A Retry-After of zero, or a date in the past, must not cause a loop without pauses.
        return drawn if retry_after is None else max(retry_after, drawn)


#: The policy that never retries a request.
ONE_ATTEMPT: Final = RetryPolicy(total_seconds=0)


def retry_after_seconds(value: str | None, now_seconds: float) -> float | None:
    """
    Return the seconds that a ``Retry-After`` header asks to wait, ``None`` if it is missing or unreadable.

    :param value: The header: a number of seconds, which Coveo's OpenAPI file allows to be a fraction, or an
        HTTP date.
    :param now_seconds: The current time, in seconds, on the clock with which the date is compared.
    """
    if not value:
        return None
    text = value.strip()
    if re.fullmatch(_NUMBER, text):
        # More digits than that exceed the upper bound anyway.
        whole, _, fraction = text.partition(".")
        return min(float(f"{whole[:400]}.{fraction[:9] or 0}"), _MAX_RETRY_AFTER)
    try:
        parsed = parsedate_to_datetime(text)
        # An HTTP date is in GMT even if it doesn't state it.
        parsed = parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)
        return min(max(0.0, parsed.timestamp() - now_seconds), _MAX_RETRY_AFTER)
    except (ValueError, TypeError, OverflowError):
        return None


def next_wait(policy: RetryPolicy, error: CoveoError, attempt: int, elapsed: float) -> float | None:
    """
    Return the seconds to wait before the next attempt, ``None`` if there is none.

    :param policy: The policy.
    :param error: The error of the last attempt.
    :param attempt: Its number, counted from 1.
    :param elapsed: The seconds since the first attempt began.
    """
    if not isinstance(error, RETRYABLE):
        return None
    seconds = policy.wait(attempt, error.retry_after, refused=isinstance(error, TooManyRequestsError))
    return seconds if elapsed + seconds < policy.total_seconds else None
