"""When to repeat a request, and how long to wait before it."""

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

#: Over how many seconds Coveo counts calls against the limit of a burst: of its Stream API, as of the Push
#: API it does not say. See https://docs.coveo.com/en/l62e0540/.
COUNTED_OVER_SECONDS: Final = 300.0
#: No ``Retry-After`` is taken for longer, so that a time which is that far away can still be named.
_MAX_RETRY_AFTER: Final = 999_999_999.0
#: The errors after which a request is repeated.
RETRYABLE: Final = (TooManyRequestsError, ServiceError, NoAnswerError)
_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]*)?")


@dataclass(frozen=True)
class RetryPolicy:
    """
    How patiently a request is repeated after 429, a 5xx or no answer at all.

    The wait doubles from ``first_wait`` to ``longest_wait`` and is drawn at random between zero and that
    (full jitter), so that many tasks do not return at once. Where Coveo's answer bears ``Retry-After``, the
    wait is at least that long. No wait begins that would end after ``total_seconds``: the error is raised at
    once, and Airflow's own retries, which hold no worker, take over.

    Coveo's API declares ``Retry-After``, a number of seconds, for each answer 429; a gateway before it may
    leave it out. A call that is refused without it waits for ``refused_wait``, the time over which Coveo
    counts an organization's calls of the Stream API (https://docs.coveo.com/en/l62e0540/; of the Push API it
    does not say). So each task is refused once and not again and again, and by then the whole
    allowance is free. A policy that has not the patience for that treats the refusal like any other error.

    :param total_seconds: Seconds from the first attempt within which the last one may begin; 0 to 3000, well
        under the 60 minutes that a file container lives. 0 never repeats a request.
    :param first_wait: Upper bound of the first wait, in seconds.
    :param longest_wait: Upper bound of any wait for another reason than 429, in seconds.
    :param refused_wait: How long a call waits that was refused without ``Retry-After``, in seconds.
    :raises CoveoInputError: if a value is out of its bounds.
    """

    total_seconds: float = 900.0
    first_wait: float = 1.0
    longest_wait: float = 60.0
    refused_wait: float = COUNTED_OVER_SECONDS

    def __post_init__(self) -> None:
        if not 0 <= self.total_seconds <= 3000:
            raise CoveoInputError(f"total_seconds must be within 0 and 3000, not {self.total_seconds!r}")
        if not 0 <= self.first_wait <= self.longest_wait:
            raise CoveoInputError(
                f"first_wait ({self.first_wait!r}) must be within 0 and longest_wait ({self.longest_wait!r})"
            )
        if not 0 <= self.refused_wait <= 3000:
            raise CoveoInputError(f"refused_wait must be within 0 and 3000, not {self.refused_wait!r}")

    def wait(self, attempt: int, retry_after: float | None, *, refused: bool = False) -> float:
        """
        Return the seconds to wait after an attempt.

        :param attempt: Its number, counted from 1.
        :param retry_after: The seconds that the answer asks to wait, if it does.
        :param refused: Whether the answer was 429.
        """
        if refused and retry_after is None and self.refused_wait < self.total_seconds:
            return self.refused_wait + random.uniform(0, self.first_wait)  # noqa: S311 - jitter, not a secret
        bound = min(self.longest_wait, self.first_wait * 2 ** min(attempt - 1, 62))
        drawn = random.uniform(0, bound)  # noqa: S311
        # A Retry-After of zero, or a date that is past, must not become a loop without a pause.
        return drawn if retry_after is None else max(retry_after, drawn)


def retry_after_seconds(value: str | None, now_seconds: float) -> float | None:
    """
    Return how long a ``Retry-After`` header asks to wait, ``None`` where it is absent or unreadable.

    :param value: The header: a number of seconds, which Coveo's OpenAPI file allows to be a fraction, or an
        HTTP date.
    :param now_seconds: The present by the clock that the date is measured against.
    """
    if not value:
        return None
    text = value.strip()
    if _NUMBER.fullmatch(text):
        # More digits than that are more than the longest anyway.
        whole, _, fraction = text.partition(".")
        return min(float(f"{whole[:400]}.{fraction[:9] or 0}"), _MAX_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(text)
        # An HTTP date is in GMT, also where it does not say so.
        moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
        return min(max(0.0, moment.timestamp() - now_seconds), _MAX_RETRY_AFTER)
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
