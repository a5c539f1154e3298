"""Digits beyond microseconds, which Python's own times lack, are sent or rejected, but never cut."""

from __future__ import annotations

from datetime import datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from airflow_provider_coveo.content.files import read_files
from airflow_provider_coveo.content.rows import row_mapper
from airflow_provider_coveo.coveo.cursor_values import validate_cursor_value
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.coveo.items import Item
from airflow_provider_coveo.coveo.nanoseconds import NanosecondDatetime, NanosecondTime, with_nanoseconds
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.simulator import Simulator
from tests.unit.push.test_values import new_source

UTC = timezone.utc
#: 2023-11-14T22:13:20.123456789Z
MOMENT = 1_700_000_000_123_456_789


@pytest.fixture
def source(coveo: Simulator, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AIRFLOW_CONN_COVEO_DEFAULT", coveo.connection_json())
    return new_source(coveo)


class GoogleTime(datetime):
    """Like DatetimeWithNanoseconds of Google's clients: with all digits of a second."""

    nanosecond: Any = 0


class Timestamp(datetime):
    """Like pandas: a property has years that Python lacks, and the base class another year."""

    nanosecond: Any = 0
    own_year: int | None = None

    @property
    def year(self) -> int:
        return datetime.year.__get__(self) if self.own_year is None else self.own_year  # type: ignore[attr-defined, no-any-return]


class Timedelta(timedelta):
    nanoseconds = 0
    seconds_in_total: float | None = None

    def total_seconds(self) -> float:
        return super().total_seconds() if self.seconds_in_total is None else self.seconds_in_total


def having(value: Any, **attributes: Any) -> Any:
    for name, own in attributes.items():
        setattr(value, name, own)
    return value


def stamp(**attributes: Any) -> Any:
    return having(Timestamp(2026, 1, 31, 8, 0, 0, 123_456, UTC), **attributes)


SENT = {
    "pandas": (stamp(nanosecond=789), "2026-01-31T08:00:00.123456789+00:00"),
    "pandas without": (stamp(), "2026-01-31T08:00:00.123456+00:00"),
    "one nanosecond": (
        having(Timestamp(2026, 1, 31, tzinfo=UTC), nanosecond=1), "2026-01-31T00:00:00.000000001+00:00"
    ),
    "a zone with seconds": (
        having(Timestamp(1800, 1, 1, tzinfo=timezone(timedelta(seconds=2045))), nanosecond=120),
        "1799-12-31T23:25:55.000000120+00:00",
    ),
    "Google": (
        having(GoogleTime(2026, 1, 31, 8, 0, 0, 123_456, UTC), nanosecond=123_456_789),
        "2026-01-31T08:00:00.123456789+00:00",
    ),
    "Google below a microsecond": (
        having(GoogleTime(2026, 1, 31, 8, tzinfo=UTC), nanosecond=789), "2026-01-31T08:00:00.000000789+00:00"
    ),
    "time": (having(NanosecondTime(8), nanosecond=1), "08:00:00.000000001"),
    "time with a zone": (having(NanosecondTime(8, tzinfo=UTC), nanosecond=1), "08:00:00.000000001Z"),
    "duration": (having(Timedelta(days=1, microseconds=1), nanoseconds=120), "P1DT0.00000112S"),
    "negative duration": (having(Timedelta(days=-1, seconds=86399, microseconds=999_999), nanoseconds=999),
                          "-PT0.000000001S"),
}  # fmt: skip
REFUSED = {
    "a year above 9999": stamp(own_year=10_000),
    "a year below 1": stamp(own_year=0),
    "Google's digits of another time": having(GoogleTime(2026, 1, 31, tzinfo=UTC), nanosecond=123_456_789),
    "a negative number": stamp(nanosecond=-1),
    "no number": stamp(nanosecond="789"),
    "a duration out of range": having(Timedelta(0), seconds_in_total=1e15),
}


def push(source: str, items: Any) -> None:
    CoveoPushHook().push_items(source, items)


@pytest.mark.parametrize("name", SENT)
def test_all_digits_are_sent_in_every_form_of_item(coveo: Simulator, source: str, name: str) -> None:
    value, sent = SENT[name]
    columns = {"documentId": "a://{value}", "data": "<{value}>", "field": "value", "sku": "sku"}
    push(
        source,
        [
            {"documentId": "a://dict", "data": "", "field": value},
            {"documentId": "a://list", "data": "", "field": [value, "x"]},
            Item("a://item", data="", metadata={"field": value}),
            row_mapper(["sku", "value"], columns, "The test")({"sku": 1, "value": value}),
        ],
    )
    indexed = coveo.items(source)
    assert indexed["a://dict"]["field"] == indexed["a://item"]["field"] == sent
    assert indexed["a://list"]["field"] == [sent, "x"]
    assert (indexed[f"a://{sent}"]["field"], indexed[f"a://{sent}"]["data"]) == (sent, f"<{sent}>")


@pytest.mark.parametrize("name", REFUSED)
def test_times_out_of_python_s_range_are_rejected_by_name(coveo: Simulator, source: str, name: str) -> None:
    item = {"documentId": "a://1", "data": "", "field": REFUSED[name]}
    with pytest.raises(CoveoInputError, match=r"number 1 \(a://1\).*'field'.*out of the range of Python's"):
        push(source, [{"documentId": "a://0", "data": ""}, item])
    assert coveo.items(source) == {}
    if name.startswith("a year"):
        with pytest.raises(CoveoInputError, match="a cursor can't use"):
            validate_cursor_value(REFUSED[name], "The column")


def test_a_pandas_year_that_python_cannot_represent_is_rejected(coveo: Simulator, source: str) -> None:
    for moment in ("10000-01-01", "0000-01-01"):
        item = {
            "documentId": "a://1",
            "data": "",
            "field": pd.Timestamp(np.datetime64(moment, "s"), tz="UTC"),
        }
        with pytest.raises(CoveoInputError, match="out of the range"):
            push(source, [item])
    item["field"] = pd.Timedelta(np.timedelta64(10**15, "s"))
    with pytest.raises(CoveoInputError, match="out of the range"):
        push(source, [item])


def test_pandas_values_keep_their_nanoseconds(coveo: Simulator, source: str) -> None:
    frame = pd.DataFrame(
        {"at": pd.to_datetime([MOMENT, MOMENT + 1], utc=True), "took": pd.to_timedelta([1, -1])}
    )
    columns = {"documentId": "a://{at}", "data": "took", "at": "at", "took": "took", "zone": "zone"}
    frame["zone"] = frame["at"].dt.tz_convert("Asia/Kolkata")
    items = []
    for row in frame.to_dict("records"):
        make = row_mapper(list(row), columns | {"data": "{took}"}, "The test")
        items.append(make(row))
    items.append({"documentId": "a://series", "data": "", "at": frame["at"]})
    push(source, items)
    indexed = coveo.items(source)
    first, second = "2023-11-14T22:13:20.123456789+00:00", "2023-11-14T22:13:20.123456790+00:00"
    assert set(indexed) == {f"a://{first}", f"a://{second}", "a://series"}
    assert indexed[f"a://{first}"]["zone"] == "2023-11-15T03:43:20.123456789+05:30"
    assert [indexed[f"a://{text}"]["took"] for text in (first, second)] == [
        "PT0.000000001S",
        "-PT0.000000001S",
    ]
    assert indexed["a://series"]["at"] == [first, second]


def test_two_rows_of_parquet_that_differ_by_a_nanosecond_are_two_items(
    coveo: Simulator, source: str, tmp_path: Path
) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    values = [MOMENT, MOMENT + 1, None, -1, 0, 1_000]
    utc = pa.timestamp("ns", "UTC")
    at = pa.array(values, utc)
    table = {
        "sku": list(range(6)),
        "at": at,
        "zoned": pa.array(values, pa.timestamp("ns", "Asia/Kolkata")),
        "took": pa.array(values, pa.duration("ns")),
        "clock": pa.array([86_399_999_999_999, 1, None, 0, 1_000, 120], pa.time64("ns")),
        "several": pa.array([[value] for value in [1, 1, 1, 1, 1, 1]], pa.list_(utc)),
        "many": pa.array([[1]] * 6, pa.large_list(utc)),
        "dictionary": pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 0, 0, 0]), pa.array([1, -1], utc)),
    }
    parquet.write_table(pa.table(table), tmp_path / "a.parquet")
    columns = {"documentId": "a://{sku}/{at}", "data": "{at}", **{name: name for name in table}}
    items = list(read_files(str(tmp_path / "a.parquet"), columns=columns))
    result = CoveoPushHook().push_items(source, items, on_invalid="skip")
    assert result["invalid"] == 1
    indexed = coveo.items(source)
    texts = [
        "2023-11-14T22:13:20.123456789+00:00",
        "2023-11-14T22:13:20.123456790+00:00",
        "1969-12-31T23:59:59.999999999+00:00",
        "1970-01-01T00:00:00+00:00",
        "1970-01-01T00:00:00.000001+00:00",
    ]
    ids = [f"a://{sku}/{text}" for sku, text in zip([0, 1, 3, 4, 5], texts, strict=True)]
    assert sorted(indexed) == sorted(ids)
    assert [indexed[name]["at"] for name in ids] == [indexed[name]["data"] for name in ids] == texts
    assert indexed[ids[0]]["zoned"] == "2023-11-15T03:43:20.123456789+05:30"
    assert [indexed[name]["took"] for name in ids] == [
        "P19675DT80000.123456789S", "P19675DT80000.12345679S", "-PT0.000000001S", "P0D", "PT0.000001S",
    ]  # fmt: skip
    assert [indexed[name]["clock"] for name in ids] == [
        "23:59:59.999999999", "00:00:00.000000001", "00:00:00", "00:00:00.000001", "00:00:00.000000120",
    ]  # fmt: skip
    assert indexed[ids[0]]["several"] == indexed[ids[0]]["many"] == ["1970-01-01T00:00:00.000000001+00:00"]
    assert indexed[ids[1]]["dictionary"] == "1969-12-31T23:59:59.999999999+00:00"


@pytest.mark.parametrize("column", ["naive", "map", "structure", "lists"])
def test_nanoseconds_in_a_value_that_no_field_can_hold_reject_the_item_and_not_the_file(
    coveo: Simulator, source: str, tmp_path: Path, column: str
) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    utc = pa.timestamp("ns", "UTC")
    values = {
        "naive": pa.array([None, 1], pa.timestamp("ns")),
        "map": pa.array([None, [("a", 1)]], pa.map_(pa.string(), utc)),
        "structure": pa.array([None, {"a": [1]}], pa.struct([("a", pa.list_(utc))])),
        "lists": pa.array([None, [[1]]], pa.list_(pa.list_(utc))),
    }[column]
    table = pa.table({"documentId": ["a://0", "a://1"], "data": ["", ""], column: values})
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(CoveoInputError, match=rf"number 1 \(a://1\).*'{column}'"):
        push(source, read_files(str(tmp_path / "a.parquet")))
    result = CoveoPushHook().push_items(source, read_files(str(tmp_path / "a.parquet")), on_invalid="skip")
    assert (set(coveo.items(source)), result["invalid"]) == ({"a://0"}, 1)


def test_a_structure_with_a_repeated_name_is_rejected_by_name(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    twice = pa.StructArray.from_arrays([pa.array([1], pa.timestamp("ns", "UTC"))] * 2, names=["a", "a"])
    parquet.write_table(pa.table({"documentId": ["a://0"], "twice": twice}), tmp_path / "a.parquet")
    with pytest.raises(CoveoInputError, match=r"a\.parquet.*occurs twice"):
        list(read_files(str(tmp_path / "a.parquet")))


def test_times_with_nanoseconds_show_all_digits() -> None:
    moment = with_nanoseconds(datetime(2026, 1, 31, tzinfo=UTC, fold=1), 7)
    assert isinstance(moment, NanosecondDatetime)
    assert (str(moment), moment.fold) == ("2026-01-31 00:00:00.000000007+00:00", 1)
    assert moment.isoformat(timespec="seconds") == "2026-01-31T00:00:00+00:00"
    assert str(with_nanoseconds(time(8), 7)) == "08:00:00.000000007"
    ambiguous = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Zurich"), fold=1)
    assert str(with_nanoseconds(ambiguous, 7)).replace(" ", "T") == "2026-10-25T02:30:00.000000007+01:00"
    plain = timedelta(1)
    assert with_nanoseconds(plain, 0) is plain
