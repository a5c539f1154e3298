from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.coveo.ordering_ids import (
    CoveoClock,
    now_ms,
    validate_cut_off,
    validate_queue_delay,
)

NOW = 1_795_500_000_000


@pytest.mark.parametrize("value", [NOW, NOW - 1, 1_000_000_000_000, str(NOW), f" {NOW} "])
def test_a_past_time_in_milliseconds_is_accepted(value: object) -> None:
    assert validate_cut_off(value, NOW) == int(str(value))


@pytest.mark.parametrize(
    ("ahead_ms", "words"), [(1_500, "1.500 s in"), (7_200_000, "2 h in"), (864_000_000, "10 days in")]
)
def test_the_error_of_a_future_time_uses_a_fitting_unit(ahead_ms: int, words: str) -> None:
    with pytest.raises(CoveoInputError, match=f"it is {words} the future"):
        validate_cut_off(NOW + ahead_ms, NOW)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (NOW + 1, "in the future"),
        (NOW + 10 * 365 * 86_400_000, "in the future"),
        (0, "not positive"),
        (-NOW, "not positive"),
        (f"-{NOW}", "not positive"),
        (1.7e12, "float"),
        (str(1.7e12), "not an integer"),
        (True, "bool"),
        (None, "NoneType"),
        ("", "not an integer"),
        ("now", "not an integer"),
        ("²", "not an integer"),
        ("1" * 5000, "more digits"),
        (NOW // 1000, "seconds"),
        (NOW * 1000, "microseconds"),
        (NOW * 1_000_000, "nanoseconds"),
        (639_000_000_000_000_000, "Sitecore"),
        (18_500_000_000_000_000_000, "Crawling Module"),
    ],
)
def test_any_other_value_is_rejected_with_the_reason(value: object, reason: str) -> None:
    with pytest.raises(CoveoInputError, match=reason) as refused:
        validate_cut_off(value, NOW)
    assert "recreate the source" in str(refused.value)


def _at(seconds_from_now: float) -> CoveoClock:
    return CoveoClock.from_http_date(formatdate(time.time() + seconds_from_now, usegmt=True))


def test_coveo_s_clock_applies_if_the_worker_s_is_ahead() -> None:
    clock = _at(-90)
    assert now_ms() - 92_000 <= clock.now_ms() <= now_ms() - 89_000
    with pytest.raises(CoveoInputError, match="in the future"):
        validate_cut_off(now_ms(), clock.latest_cut_off_ms())


def test_a_worker_s_clock_that_is_two_seconds_ahead_is_detected() -> None:
    with pytest.raises(CoveoInputError, match="in the future"):
        validate_cut_off(now_ms(), _at(-2).latest_cut_off_ms())


def test_the_worker_s_clock_applies_if_it_is_behind() -> None:
    assert _at(+90).now_ms() <= now_ms()


def test_a_date_without_a_zone_is_in_gmt() -> None:
    date = formatdate(time.time() - 90, usegmt=True).removesuffix("GMT")
    for form in (date, date + "-0000"):
        assert abs(CoveoClock.from_http_date(form).now_ms() - (now_ms() - 90_000)) < 2000


@pytest.mark.parametrize(
    "date",
    [None, "", "yesterday", "Thu, 99 Foo 2026 25:61:00 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"],
)
def test_without_a_readable_date_the_worker_s_clock_is_used(date: str | None) -> None:
    before = now_ms()
    assert before <= CoveoClock.from_http_date(date).now_ms() <= now_ms()


def test_the_current_time_is_accepted_although_http_dates_have_no_fractions_of_a_second() -> None:
    clock = _at(0)
    present = now_ms()
    assert validate_cut_off(present, clock.latest_cut_off_ms()) == present


@pytest.mark.parametrize(("given", "minutes"), [(0, 0), (15, 15), ("15", 15), (" 3 ", 3)])
def test_a_queue_delay_is_a_number_of_minutes(given: object, minutes: int) -> None:
    assert validate_queue_delay(given) == minutes


@pytest.mark.parametrize("given", [-1, "-1", 1.5, "1.5", None, True, "soon", 2**31])
def test_an_invalid_queue_delay_is_rejected(given: object) -> None:
    with pytest.raises(CoveoInputError, match="queue delay"):
        validate_queue_delay(given)
