from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.coveo.retries import RetryPolicy, retry_after_seconds


def test_waits_are_random_below_a_bound_that_grows_to_its_maximum() -> None:
    policy = RetryPolicy(first_wait=1, longest_wait=8)
    for attempt, bound in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 8), (10_000, 8)]:
        waits = [policy.wait(attempt, None) for _ in range(200)]
        assert all(0 <= wait <= bound for wait in waits)
        assert max(waits) - min(waits) > bound / 2


def test_the_wait_is_at_least_coveo_s_retry_after() -> None:
    assert RetryPolicy().wait(1, 17.0) == 17.0
    assert sum(RetryPolicy(first_wait=1).wait(1, 0.0) for _ in range(50)) > 1


def test_a_rate_limited_call_waits_for_the_whole_window_in_which_coveo_counts_calls() -> None:
    waits = [RetryPolicy().wait(attempt, None, refused=True) for attempt in (1, 2)]
    assert all(300 <= wait <= 301 for wait in waits)
    assert sum(waits) < RetryPolicy().total_seconds, "two of them fit into the default retry limit"


def test_the_retry_after_of_a_429_replaces_the_default_wait() -> None:
    assert RetryPolicy().wait(1, 17.0, refused=True) == 17.0


def test_with_a_short_retry_limit_a_rate_limited_call_is_retried_like_any_other() -> None:
    assert RetryPolicy(total_seconds=20).wait(1, None, refused=True) <= 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (formatdate(1_000_030, usegmt=True), 30),
        (formatdate(999_000, usegmt=True), 0),
        ("99999999999999999999", 999_999_999),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 999_999_999),
        # Coveo's OpenAPI file declares only that it is a number.
        ("1.5", 1.5),
        ("2.", 2),
        ("9" * 5_000, 999_999_999),
        ("1." + "9" * 5_000, 1.999999999),
        ("soon", None),
        ("-5", None),
        ("nan", None),
        ("inf", None),
        ("1e3", None),
        (".5", None),
        ("\u0661", None),
        ("Thu, 99 Foo 99999999 99:99:99 GMT", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_can_be_in_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(header, now_seconds=1_000_000) == seconds


def test_a_date_without_a_zone_is_in_gmt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert retry_after_seconds("Mon Jan 12 13:47:10 1970", now_seconds=1_000_000) == 30
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "bad",
    [
        {"total_seconds": -1},
        {"total_seconds": 3001},
        {"first_wait": -1},
        {"first_wait": 9, "longest_wait": 1},
        {"refused_wait": -1},
        {"refused_wait": 3001},
    ],
)
def test_values_outside_the_bounds_are_rejected(bad: dict[str, float]) -> None:
    with pytest.raises(CoveoInputError):
        RetryPolicy(**bad)


def test_values_within_the_bounds_are_accepted() -> None:
    assert RetryPolicy(total_seconds=3000, first_wait=0, refused_wait=3000).total_seconds == 3000
    assert RetryPolicy(total_seconds=0, refused_wait=0).wait(1, None) <= 1
