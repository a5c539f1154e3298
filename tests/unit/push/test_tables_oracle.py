"""
Generated tables: the indexed items equal the rows that another library reads, or the error names the problem.

Files are read by pyarrow's readers of CSV and data sets, by Python's json, and if installed by DuckDB and
pandas. COVEO_TABLES sets the number of tables, and optionally the first one: COVEO_TABLES=10000 or
COVEO_TABLES=5000:10000.
"""

from __future__ import annotations

import io
import json
import lzma
import math
import os
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import duckdb
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from airflow.providers.common.compat.sdk import BaseHook
from airflow.providers.common.sql.hooks.sql import DbApiHook
from pyarrow import csv as arrow_csv

from airflow_provider_coveo.content.files import read_files
from airflow_provider_coveo.content.query import read_query
from airflow_provider_coveo.coveo.batches import item_batches
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.coveo.invalid_items import InvalidItemError
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE
from tests.unit.push.generated_tables import Nanoseconds, Table, drawn, unpacked
from tests.unit.push.model import examples

INVALID = object()
#: Content that push-files.md declares invalid, but that other readers accept.
DOCUMENTED = re.compile(
    r"text follows the quote"
    r"|a quote in this row is never closed"
    r"|a lone carriage return"
    r"|some of its lines end with a carriage return"
    r"|contains a zero byte"
    r"|a column's name occurs twice"
    r"|begins or ends with white space"
    r"|has no name"
    r"|the first line has one column"
    r"|it is empty"
    r"|has no column"
    r"|begins with a byte order mark"
    r"|is no row"
    r"|repeats (the names of the first line|column_names)"
    r"|no column is mapped to documentId"
    r"|which differ by case only"
    r"|has (more|fewer) columns"
    r"|its first line contains a carriage return"
    r"|does not start with BOM"
    r"|end-of-stream marker"
    r"|it is UTF-\d+, not"
    r"|its folder sets"
    r"|not an object|found instead"
)


# --- the conversion of a row according to the guides ---


def sent(value: Any) -> Any:
    """Return the form of a value in metadata, ``INVALID`` if metadata can't represent it."""
    if isinstance(value, (list, tuple)):
        entries = [INVALID if isinstance(entry, (list, tuple)) else sent(entry) for entry in value]
        return INVALID if any(entry is INVALID for entry in entries) else entries
    if isinstance(value, (str, bool)):
        return value
    if isinstance(value, Nanoseconds):
        return value.text()
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else INVALID
    if isinstance(value, float):
        return value if math.isfinite(value) else INVALID
    if isinstance(value, Decimal):
        sign, digits, exponent = value.as_tuple()
        assert isinstance(exponent, int)
        whole = str(int("".join(map(str, digits))) * 10 ** max(exponent, 0)).rjust(1 - min(exponent, 0), "0")
        point = len(whole) + min(exponent, 0)
        return "-" * sign + whole[:point] + ("." + whole[point:] if whole[point:] else "")
    if isinstance(value, datetime):
        return INVALID if value.tzinfo is None else value.astimezone(timezone.utc)
    if isinstance(value, (date, time)):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else INVALID


def text_of(value: Any, key: str) -> Any:
    """Return the form of a value in a text."""
    is_in_id = key == "documentId"
    if isinstance(value, datetime) and value.tzinfo is not None:
        # The offset stays unchanged, unless it has seconds.
        offset = value.utcoffset() or timedelta()
        moment = (value.astimezone(timezone.utc) if offset.seconds % 60 else value).isoformat()
    value = sent(value)
    if value is INVALID or isinstance(value, list) or (is_in_id and isinstance(value, (bool, float))):
        return INVALID
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return moment if is_in_id else value
    return f"{Decimal(repr(value)):f}" if isinstance(value, float) else str(value)


def expected_item(row: dict[str, Any], columns: dict[str, str] | None, is_json: bool) -> Any:
    """Return the item for a row, ``INVALID`` if it can't be pushed."""
    item: dict[str, Any] = {}
    for key, column in (dict.fromkeys(row) if columns is None else columns).items():
        name = key if column is None else column
        if name in row:
            value = row[name]
            if is_json or not (value is None or (value == "" and key != "data")):
                item[key] = sent(value)
                if key in {"data", "documentId"} and not isinstance(value, str):
                    item[key] = INVALID
            continue
        pieces = re.split(r"\{(.*?)\}", name)
        parts = []
        for place, piece in enumerate(pieces):
            value = row[piece] if place % 2 else piece
            if place % 2 and (value is None or value == ""):
                parts.append(INVALID if key == "documentId" else "")
            else:
                parts.append(text_of(value, key) if place % 2 else piece)
        item[key] = INVALID if any(part is INVALID for part in parts) else tuple(parts)
    document_id = item.get("documentId", INVALID)
    if isinstance(document_id, tuple):
        document_id = item["documentId"] = "".join(document_id)
    is_id = isinstance(document_id, str) and re.fullmatch(
        r"[A-Za-z][A-Za-z0-9+.-]*://[^\x00-\x1f\x7f]+", document_id
    )
    texts = [key for key in item if isinstance(key, str)]
    if not is_id or any(value is INVALID for value in item.values()) or "" in texts:
        return INVALID
    if len({key.lower() for key in item}) < len(item):
        return INVALID
    if not any(key.lower() == "data" for key in item):
        if len(item) == 1:
            return INVALID
        item["data"] = ""
    return item


def is_same(pushed: Any, expected: Any) -> bool:
    """Return whether a sent value is the expected one."""
    if isinstance(expected, tuple):
        # A text that contains a time, which can be written in several ways.
        pattern = "".join(re.escape(part) if isinstance(part, str) else r"(\S+)" for part in expected)
        found = re.fullmatch(pattern, pushed, re.DOTALL)
        moments = [part for part in expected if isinstance(part, datetime)]
        return found is not None and all(map(is_same, found.groups(), moments))
    if isinstance(expected, datetime):
        moment = datetime.fromisoformat(re.sub("Z$", "+00:00", pushed))
        return moment.tzinfo is not None and moment == expected
    if isinstance(expected, list):
        return len(pushed) == len(expected) and all(map(is_same, pushed, expected))
    return type(pushed) is type(expected) and pushed == expected


# --- other readers ---


class OtherError(Exception):
    """Another library's result for a file."""


def rows_of_arrow_csv(table: Table, text: str) -> list[dict[str, Any]] | None:
    options = table.options
    is_csv = table.file_format == "csv"
    quotechar = options.get("quotechar", '"' if is_csv else None)
    escapechar = options.get("escapechar")
    nulls = options.get("null_values", [])
    names = options.get("column_names")
    if not text.strip("\r\n"):
        if names is None:
            raise OtherError("it is empty")
        return []
    # Here, an escaped letter means no value, and a TSV field can contain a carriage return.
    is_odd = "\n" in text and re.search("\r(?!\n)", text) and quotechar is None
    if is_odd or (escapechar and any(null.startswith(escapechar) for null in nulls)):
        return None
    given = {
        "parse_options": arrow_csv.ParseOptions(
            delimiter=options.get("delimiter", "," if is_csv else "\t"),
            quote_char=quotechar or False,
            escape_char=escapechar or False,
            newlines_in_values=True,
        ),
        "read_options": arrow_csv.ReadOptions(column_names=names, use_threads=False),
    }
    text = text.lstrip("\r\n")
    # Here, a table with only names needs a line end.
    content = (text if re.search("[\r\n]", text) else text + "\n").encode()
    if names is None:
        names = arrow_csv.read_csv(pa.BufferReader(content), **given).column_names
    convert = arrow_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        null_values=list(nulls),
        strings_can_be_null=bool(nulls),
        quoted_strings_can_be_null=True,
    )
    read = arrow_csv.read_csv(pa.BufferReader(content), convert_options=convert, **given)
    rows: list[dict[str, Any]] = read.to_pylist()
    return rows


def rows_of_json(table: Table, text: str) -> list[dict[str, Any]]:
    def members(pairs: list[tuple[str, Any]]) -> dict[Any, Any]:
        found: dict[Any, Any] = dict(pairs)
        if len({key.lower() for key in found}) < len(pairs):
            found[("twice",)] = INVALID
        return found

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is no JSON")

    decoder = json.JSONDecoder(object_pairs_hook=members, parse_constant=refuse)
    if table.file_format == "ndjson":
        return [decoded(decoder, line) for line in text.split("\n") if line.strip()]
    if text.lstrip(" \t\r\n").startswith("["):
        found: list[dict[str, Any]] = json.loads(text, object_pairs_hook=members, parse_constant=refuse)
        if not all(isinstance(each, dict) for each in found):
            raise OtherError("not all are objects")
        return found
    rows, at = [], 0
    while rest := text[at:].lstrip(" \t\r\n"):
        at = len(text) - len(rest)
        row, at = decoder.raw_decode(text, at)
        if not isinstance(row, dict):
            raise OtherError("it is no object")
        rows.append(row)
    if not rows:
        raise OtherError("nothing is in it")
    return rows


def decoded(decoder: json.JSONDecoder, line: str) -> Any:
    try:
        row = decoder.decode(line.strip(" \t\r\n"))
    except ValueError:
        return {"documentId": INVALID}
    return row if isinstance(row, dict) else {"documentId": INVALID}


def rows_by_another(table: Table) -> list[dict[str, Any]] | None:
    """Return the rows that another library reads; ``None`` if it does not support the dialect."""
    rows: list[dict[str, Any]] = []
    is_known = True
    texts = {
        path: unpacked(path.read_bytes(), table.packed).decode(table.encoding).removeprefix("\ufeff")
        for path, _ in table.files
        if table.file_format != "parquet"
    }
    for path, _ in table.files:
        if table.file_format == "parquet":
            read: Any = ds.dataset(path, format="parquet", partitioning=None).to_table()
            if len(set(read.schema.names)) < len(read.schema.names):
                raise OtherError("a name occurs twice")
            found = [
                dict(zip(read.schema.names, values, strict=True))
                for values in zip(*(column_of(column) for column in read.columns), strict=True)
            ]
        else:
            read = rows_of_json if "json" in table.file_format else rows_of_arrow_csv
            made = read(table, texts[path])
            if made is None:
                is_known = False
                continue
            found = made
        rows += [with_folders(row, path, table) for row in found]
    return rows if is_known else None


def column_of(column: Any) -> list[Any]:
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        return [
            None if value is None else Nanoseconds(value) for value in column.cast(pa.int64()).to_pylist()
        ]
    if pa.types.is_time64(column.type) and column.type.unit == "ns":
        column = column.cast(pa.time64("us"))
    if pa.types.is_float32(column.type):
        # numpy's text of a short float has the fewest digits that identify it.
        return [None if value is None else float(str(np.float32(value))) for value in column.to_pylist()]
    values: list[Any] = column.to_pylist()
    return values


def with_folders(row: dict[str, Any], path: Path, table: Table) -> dict[str, Any]:
    if not table.folders:
        return row
    schema = pa.schema([(name, pa.string()) for name in table.folders])
    told = ds.get_partition_keys(ds.partitioning(schema, flavor="hive").parse(str(path)))
    if "json" in table.file_format:
        told = {name: value for name, value in told.items() if value or name in row}
    for name, value in told.items():
        if name in row and not is_told(row[name], value):
            raise OtherError(f"its folders say {name}={value!r} and it has {row[name]!r}")
    return {**told, **row}


def is_told(own: Any, value: str | None) -> bool:
    if own is None or value is None:
        return own is value
    own = own.isoformat() if isinstance(own, (date, time)) else own
    return str(own).lower() == value.lower() or (isinstance(own, int) and str(own) == value.lstrip("0"))


def as_written(table: Table) -> list[dict[str, Any]]:
    rows = []
    for row in table.rows:
        members = dict(zip(table.names, row, strict=True))
        told: dict[str, Any] = dict(table.folders)
        if table.file_format in {"csv", "tsv"} and "null_values" not in table.options:
            members = {name: "" if value is None else value for name, value in members.items()}
        if "json" in table.file_format:
            members = {
                name: value
                for (name, value), kind in zip(members.items(), table.kinds, strict=True)
                if value is not None or kind == "null"
            }
            told = {name: value for name, value in told.items() if value}
        rows.append({**members, **told})
    return rows


# --- the comparison ---


class Played:
    """The result of a table: its items, the invalid ones, or the reason for its rejection."""

    def __init__(self, items: Iterator[Any]) -> None:
        self.items: dict[str, Any] = {}
        self.invalid: dict[int, InvalidItemError] = {}
        self.refusal: str | None = None
        self.count = 0

        def counted() -> Iterator[Any]:
            for item in items:
                self.count += 1
                yield item

        try:
            for batch in item_batches(counted(), 4_096, self._noted):
                for item in json.loads(b"".join(batch.body(lambda data: "none")))["addOrUpdate"]:
                    key = next(name for name in item if name.lower() == "documentid")
                    self.items[item[key]] = item
        except CoveoInputError as error:
            self.refusal = str(error)

    def _noted(self, place: int, error: InvalidItemError) -> bool:
        assert error.rule
        self.invalid[place] = error
        return True


def compare(played: Played, rows: list[dict[str, Any]], table: Table, who: str) -> None:
    expected, invalid = {}, set()
    for place, row in enumerate(rows):
        item = expected_item(row, table.columns, "json" in table.file_format)
        if item is INVALID:
            invalid.add(place)
        else:
            expected[item["documentId"]] = item
    where = f"table {table.number} ({table.file_format}) by {who}"
    assert played.count == len(rows), where
    told = {place: error.rule for place, error in played.invalid.items()}
    assert set(told) == invalid, (where, told, [rows[place] for place in set(told) ^ invalid])
    assert set(played.items) == set(expected), where
    for key, item in expected.items():
        pushed = played.items[key]
        assert set(pushed) == set(item), (where, pushed, item)
        for name, value in item.items():
            assert is_same(pushed[name], value), (where, name, pushed[name], value)


def judge(table: Table) -> str:
    """Read a table from files, and return the result."""
    played = Played(read_files(str(table.path), **table.options))
    try:
        other = rows_by_another(table)
        problem = None
    except (
        OtherError,
        pa.ArrowException,
        ValueError,
        OSError,
        EOFError,
        lzma.LZMAError,
        RecursionError,
    ) as error:
        other, problem = None, error
    if played.refusal is None:
        # A problem within an object's braces is reported for that object.
        is_of_one = "json" in table.file_format and played.invalid
        assert problem is None or is_of_one, (
            table.number,
            "is accepted, but another library rejects it",
            problem,
        )
        if other is not None:
            compare(played, other, table, "another")
        if not table.is_damaged and not set(table.folders) & set(table.names):
            compare(played, as_written(table), table, "what was written")
        return "taken" if not played.invalid else "taken, with invalid items"
    names = [str(path) for path, _ in table.files]
    assert any(name in played.refusal for name in names), (table.number, played.refusal)
    empty = not any(count for _, count in table.files) or "it is empty" in played.refusal
    if not table.is_damaged:
        assert empty or DOCUMENTED.search(played.refusal), (table.number, played.refusal)
    else:
        is_wrong = problem is not None or any(row.get("documentId") is INVALID for row in other or ())
        assert is_wrong or DOCUMENTED.search(played.refusal), (table.number, played.refusal)
    return "refused"


# --- databases ---


class SqliteHook(DbApiHook):
    """An Airflow hook for a table in SQLite."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get_conn(self) -> Any:
        return sqlite3.connect(self.path)


class DuckDbHook(SqliteHook):
    """An Airflow hook for a table in DuckDB."""

    def get_conn(self) -> Any:
        return duckdb.connect(str(self.path)).cursor()


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[[DbApiHook], None]:
    """Makes a hook that of the connection ``tables``."""
    get_connection = BaseHook.get_connection

    def make_known(hook: DbApiHook) -> None:
        connection = SimpleNamespace(get_hook=lambda hook_params: hook, conn_type="sqlite")
        found = classmethod(lambda _, name: connection if name == "tables" else get_connection(name))
        monkeypatch.setattr(BaseHook, "get_connection", found)

    return make_known


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def judge_query(table: Table, folder: Path, known: Callable[[DbApiHook], None]) -> str:
    """Read a table from a database, and return the result."""
    path = folder / f"{table.number}.db"
    names = ", ".join(map(quoted, table.names))
    connection = sqlite3.connect(path)
    connection.execute(f"CREATE TABLE rows ({names})")
    marks = ", ".join("?" * len(table.names))
    connection.executemany(f"INSERT INTO rows VALUES ({marks})", table.rows)  # noqa: S608
    connection.commit()
    # SQLite has no booleans, and treats NaN as NULL.
    rows = [
        {
            name: None if value != value else int(value) if isinstance(value, bool) else value
            for name, value in zip(table.names, row, strict=True)
        }
        for row in table.rows
    ]
    known(SqliteHook(path))
    played = Played(
        read_query("tables", "SELECT * FROM rows ORDER BY rowid", columns=table.columns, fetch_size=3)
    )
    if rows:
        read = pandas.read_sql_query("SELECT * FROM rows ORDER BY rowid", connection, dtype=object)
        rows_read = read.astype(object).where(read.notna(), None).to_dict("records")
        for row, other in zip(rows, rows_read, strict=True):
            assert row == other or any(isinstance(value, float) for value in other.values())
    connection.close()
    path.unlink()
    assert played.refusal is None
    compare(played, rows, table, "what was written")
    return "taken" if not played.invalid else "taken, with invalid items"


def chosen() -> range:
    """Return the numbers of the tables to test."""
    text = os.environ.get("COVEO_TABLES") or str(examples(600))
    first, _, end = text.rpartition(":")
    return range(int(first or 0), int(end))


def test_a_table_is_sent_as_another_library_reads_it(
    tmp_path: Path, known: Callable[[DbApiHook], None]
) -> None:
    ended: Counter[tuple[str, str]] = Counter()
    failures = []
    for number in chosen():
        table = drawn(number, tmp_path)
        try:
            end = judge_query(table, tmp_path, known) if table.file_format == "sql" else judge(table)
        except Exception as failure:
            failures.append((number, failure))
            continue
        ended[table.file_format, end] += 1
        shutil.rmtree(tmp_path / str(number), ignore_errors=True)
    for (file_format, end), count in sorted(ended.items()):
        print(f"{file_format:8} {end:28} {count:6,}")
    assert not failures, failures[:5]
    if len(chosen()) >= 600:
        # Some tables are rejected, but not all.
        for file_format in ("csv", "tsv", "json", "ndjson", "parquet"):
            taken = sum(
                count for (name, end), count in ended.items() if name == file_format and end != "refused"
            )
            assert 40 < 100 * taken / len(chosen()) * 6 < 95
            assert ended[file_format, "taken"]
            assert ended[file_format, "taken, with invalid items"]


@pytest.mark.usefixtures("connect")
def test_a_table_is_indexed_as_another_library_reads_it(coveo: Simulator, tmp_path: Path) -> None:
    pushed = 0
    for number in range(examples(60)):
        table = drawn(number, tmp_path)
        if table.file_format == "sql" or table.is_damaged or not (rows := as_written(table)):
            continue
        coveo.reset()
        try:
            result = CoveoPushHook().push_items(
                SOURCE, read_files(str(table.path), **table.options), on_invalid="skip", batch_bytes=4_096
            )
        except CoveoInputError as error:
            assert DOCUMENTED.search(str(error)), error  # noqa: PT017
            continue
        pushed += 1
        items = [expected_item(row, table.columns, "json" in table.file_format) for row in rows]
        expected = {item["documentId"]: item for item in items if item is not INVALID}
        assert result["invalid"] == sum(item is INVALID for item in items)
        indexed = coveo.items(SOURCE)
        assert set(indexed) == set(expected), number
        for key, item in expected.items():
            pushed_item = {name: value for name, value in indexed[key].items() if name != "orderingId"}
            assert set(pushed_item) == set(item)
            assert all(is_same(pushed_item[name], value) for name, value in item.items()), number
    assert pushed > examples(60) // 6


def test_duckdb_reads_the_same_parquet_and_can_be_queried(
    tmp_path: Path, known: Callable[[DbApiHook], None]
) -> None:
    compared = 0
    for number in chosen():
        table = drawn(number, tmp_path)
        # DuckDB returns these as other values: numbers of more than 38 digits as floats, times truncated, and
        # short floats widened.
        other_kinds = {"none", "decimal256", "nanoseconds", "float32"} & set(table.kinds)
        if table.file_format != "parquet" or table.is_damaged or table.folders or other_kinds:
            continue
        played = Played(read_files(str(table.path), **table.options))
        if not played.count:
            continue
        known(DuckDbHook(tmp_path / f"{number}.duckdb"))
        files = [str(path) for path, _ in table.files]
        sql = f"SELECT * FROM read_parquet({files!r})"  # noqa: S608
        queried = Played(read_query("tables", sql, columns=table.columns, fetch_size=7))
        assert queried.refusal is None, (number, queried.refusal)
        compare(queried, as_written(table), table, "what was written")
        assert set(queried.invalid) == set(played.invalid), number
        compared += 1
    assert compared > len(chosen()) // 30


def test_pandas_reads_the_same_csv(tmp_path: Path) -> None:
    compared = 0
    for number in chosen():
        table = drawn(number, tmp_path)
        options = table.options
        if table.file_format not in {"csv", "tsv"} or table.is_damaged or table.folders:
            continue
        # pandas unescapes before it searches for nulls.
        if options.get("escapechar"):
            continue
        played = Played(read_files(str(table.path), **options))
        if played.refusal is not None:
            continue
        texts = [unpacked(path.read_bytes(), table.packed).decode(table.encoding) for path, _ in table.files]
        if any(re.search("\r(?!\n)", text) for text in texts):
            # In this case, pandas loses an empty first field after an empty line.
            continue
        is_csv = table.file_format == "csv"
        quotechar = options.get("quotechar", '"' if is_csv else None)
        rows: list[dict[str, Any]] = []
        for path, count in table.files:
            if not count:
                continue
            read = pandas.read_csv(
                io.BytesIO(unpacked(path.read_bytes(), table.packed)),
                sep=options.get("delimiter", "," if is_csv else "\t"),
                dtype=object,
                keep_default_na=False,
                na_values=options.get("null_values", []),
                names=options.get("column_names"),
                header=None if "column_names" in options else 0,
                encoding=table.encoding,
                **({"quotechar": quotechar} if quotechar else {"quoting": 3}),
            )
            rows += read.astype(object).where(read.notna(), None).to_dict("records")
        compare(played, rows, table, "pandas")
        compared += 1
    assert compared > len(chosen()) // 30
