"""When to repeat a request, and how long to wait before it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from airflow_provider_coveo.coveo.errors import CoveoInputError


@dataclass(frozen=True)
class RetryPolicy:
    """
    How patiently a request is repeated after 429, a 5xx or no answer at all.

    The wait doubles from ``first_wait`` to ``longest_wait`` and is drawn at random between zero and that
    (full jitter), so that many tasks do not return at once. Where Coveo's answer bears ``Retry-After``, the
    wait is at least that long. No wait begins that would end after ``total_seconds``: the error is raised at
    once, and Airflow's own retries, which hold no worker, take over.

    :param total_seconds: Seconds from the first attempt within which the last one may begin; 0 to 3000, well
        under the 60 minutes that a file container lives. 0 never repeats a request.
    :param first_wait: Upper bound of the first wait, in seconds.
    :param longest_wait: Upper bound of any wait that Coveo did not ask for, in seconds.
    :raises CoveoInputError: if a value is out of its bounds.
    """

    total_seconds: float = 600.0
    first_wait: float = 1.0
    longest_wait: float = 60.0

    def __post_init__(self) -> None:
        if not 0 <= self.total_seconds <= 3000:
            raise CoveoInputError(f"total_seconds must be within 0 and 3000, not {self.total_seconds!r}")
        if not 0 <= self.first_wait <= self.longest_wait:
            raise CoveoInputError(
                f"first_wait ({self.first_wait!r}) must be within 0 and longest_wait ({self.longest_wait!r})"
            )

    def wait(self, attempt: int, retry_after: float | None) -> float:
        """Return the seconds to wait after attempt number ``attempt``, counted from 1."""
        bound = min(self.longest_wait, self.first_wait * 2 ** min(attempt - 1, 62))
        drawn = random.uniform(0, bound)  # noqa: S311 - jitter, not a secret
        # A Retry-After of zero, or a date that is past, must not become a loop without a pause.
        return drawn if retry_after is None else max(retry_after, drawn)


def retry_after_seconds(value: str | None, now_seconds: float) -> float | None:
    """
    Return how long a ``Retry-After`` header asks to wait, ``None`` where it is absent or unreadable.

    :param value: The header: a number of seconds, or an HTTP date.
    :param now_seconds: The present by the clock that the date is measured against.
    """
    if not value:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_seconds)
    except (ValueError, TypeError, OverflowError):
        return None
