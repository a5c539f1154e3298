"""Values of cursors: compared, moved back, and saved without loss."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_coveo.coveo.cursor_values import (
    cursor_from_json,
    cursor_to_json,
    is_in_the_future,
    is_later,
    kind_of,
    minus_lag,
    validate_cursor_value,
    validate_lag,
)
from airflow_provider_coveo.coveo.errors import CoveoInputError

NOW = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)

values = st.one_of(
    st.datetimes(),
    st.datetimes(timezones=st.timezones()),
    st.datetimes(timezones=st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23)))),
    st.dates(),
    st.integers(-(2**80), 2**80),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=50),
    st.binary(max_size=50),
    st.uuids(),
)


@given(value=values)
def test_a_value_is_saved_without_loss(value: Any) -> None:
    plain = validate_cursor_value(value, "it")
    kept = cursor_from_json(json.loads(json.dumps(cursor_to_json(plain))))
    assert (kept, type(kept), kind_of(plain)) == (plain, type(plain), kind_of(kept))  # type: ignore[arg-type]
    assert plain == value or isinstance(value, datetime)
    if isinstance(value, datetime) and isinstance(kept, datetime):
        assert kept.utcoffset() == value.utcoffset()
        assert kept.replace(tzinfo=None) == value.replace(tzinfo=None)
    assert repr(kept) == repr(plain)


@given(value=values)
def test_no_lag_makes_a_value_later(value: Any) -> None:
    plain = validate_cursor_value(value, "it")
    assert not is_later(minus_lag(plain, None, "c"), plain)


def test_values_of_subclasses_become_plain_ones() -> None:
    class Text(str):
        __slots__ = ()

    class Time(datetime):
        def isoformat(self, *args: Any, **kwargs: Any) -> str:
            raise ValueError

    assert type(validate_cursor_value(Text("a"), "it")) is str
    assert type(validate_cursor_value(Time(2026, 1, 1, 1, 2, 3, 4), "it")) is datetime
    assert validate_cursor_value(bytearray(b"\0\1"), "it") == b"\0\1"


def test_pandas_timestamps_are_truncated_to_microseconds() -> None:
    moment = pandas.Timestamp("2026-01-01T00:00:00.123456789Z")
    assert validate_cursor_value(moment, "it") == datetime(2026, 1, 1, 0, 0, 0, 123456, timezone.utc)
    with pytest.raises(CoveoInputError, match="updated has the value NaT"):
        validate_cursor_value(pandas.NaT, "updated")


@pytest.mark.parametrize(
    "value", [True, float("nan"), float("inf"), Decimal("NaN"), [1], {}, object(), timedelta(1), "x" * 1001]
)
def test_values_without_an_order_are_rejected(value: Any) -> None:
    with pytest.raises(CoveoInputError, match="a cursor can't use"):
        validate_cursor_value(value, "updated")


@pytest.mark.parametrize(
    ("value", "lag", "earlier"),
    [
        (NOW, None, NOW - timedelta(minutes=5)),
        (NOW, timedelta(0), NOW),
        (NOW, 90, NOW - timedelta(seconds=90)),
        (NOW, "0.5", NOW - timedelta(milliseconds=500)),
        (datetime(2026, 1, 1), timedelta(hours=1), datetime(2025, 12, 31, 23)),
        (datetime.min, timedelta(1), datetime.min),
        (datetime.min.replace(tzinfo=timezone.utc), 1, datetime.min.replace(tzinfo=timezone.utc)),
        (date(2026, 1, 2), None, date(2026, 1, 1)),
        (date(2026, 1, 3), timedelta(days=1, seconds=1), date(2026, 1, 1)),
        (date.min, timedelta(1), date.min),
        (date(2026, 1, 1), 1e30, date.min),
        (datetime(2026, 1, 1), "1e400", datetime.min),
        (10, None, 10),
        (10, 3, 7),
        (10, "0.5", Decimal("9.5")),
        (Decimal("1.5"), 1, Decimal("0.5")),
        (1.5, 1, 0.5),
        ("b", None, "b"),
        ("b", 0, "b"),
        (b"\1", "", b"\1"),
    ],
)
def test_a_lag_moves_a_value_back(value: Any, lag: Any, earlier: Any) -> None:
    moved = minus_lag(value, validate_lag(lag), "c")
    assert (moved, type(moved)) == (earlier, type(earlier))


@pytest.mark.parametrize(
    ("value", "lag"), [("2026-01-01", timedelta(1)), (5, timedelta(1)), (b"a", 1), (UUID(int=1), 1)]
)
def test_a_lag_that_does_not_fit_the_type_of_the_value_is_rejected(value: Any, lag: Any) -> None:
    with pytest.raises(CoveoInputError, match="can't be moved back by a lag"):
        minus_lag(value, validate_lag(lag), "c")


@pytest.mark.parametrize("lag", [-1, timedelta(-1), "soon", True, float("nan"), "inf", [1]])
def test_an_invalid_lag_is_rejected(lag: Any) -> None:
    with pytest.raises(CoveoInputError, match="Invalid lag"):
        validate_lag(lag)


def test_values_are_compared_by_time_or_number_and_only_within_their_kind() -> None:
    there = timezone(timedelta(hours=5))
    assert not is_later(datetime(2026, 1, 1, 5, tzinfo=there), datetime(2026, 1, 1, tzinfo=timezone.utc))
    assert is_later(Decimal("10.1"), 10)
    assert is_later("a", None)
    assert kind_of(1) == kind_of(Decimal(1)) == kind_of(1.0)
    assert kind_of(datetime(2026, 1, 1)) != kind_of(NOW) != kind_of(date(2026, 1, 1))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (NOW, False),
        (NOW + timedelta(microseconds=1), True),
        (datetime(2026, 11, 30, 2), False),
        (datetime(2026, 11, 30, 2, 0, 1), True),
        (date(2026, 11, 30), False),
        (date(2026, 12, 1), True),
        (datetime.max, True),
        (10**12, False),
        ("9999", False),
    ],
)
def test_only_times_in_the_future_count_as_future_values(value: Any, expected: bool) -> None:
    assert is_in_the_future(value, NOW) is expected


@pytest.mark.parametrize(
    "described",
    [
        None,
        "x",
        {},
        {"type": "timestamp"},
        {"type": "timestamp", "value": "yesterday"},
        {"type": "decimal", "value": "x"},
        {"type": "float", "value": "nan"},
        {"type": "list", "value": "1"},
        {"type": "bytes", "value": "zz"},
        {"type": "uuid", "value": "zz"},
    ],
)
def test_an_invalid_saved_value_is_ignored(described: Any) -> None:
    assert cursor_from_json(described) is None


def test_saved_values_can_be_written_by_hand() -> None:
    assert cursor_from_json({"type": "int", "value": 7}) == 7
    assert cursor_from_json({"type": "timestamp", "value": "2026-01-01T00:00:00Z"}) == datetime(
        2026, 1, 1, tzinfo=timezone.utc
    )
