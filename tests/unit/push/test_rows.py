"""Rows of any driver become items: mappings by name, other rows of PEP 249 by position."""

from __future__ import annotations

import collections
import sqlite3
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_coveo.content.query import read_query
from airflow_provider_coveo.content.rows import items_of_rows, row_mapper
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE

COLUMNS = {"documentId": "product://{sku}", "title": "name", "data": "{name}"}
SQL = "SELECT 1 AS sku, 'Anvil' AS name UNION SELECT 2, 'Rope' ORDER BY sku"


class PlaceRow:
    """A row of a driver's own class, like pyodbc's: a sequence in all but name."""

    def __init__(self, names: list[str], values: tuple[Any, ...]) -> None:
        self.cursor_description = names
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, place: int) -> Any:
        return self._values[place]


class NamedRow(PlaceRow):
    """Like BigQuery's: read by position and name, with a mapping's methods, but iterated by value."""

    def __getitem__(self, key: Any) -> Any:
        return self._values[self.cursor_description.index(key) if isinstance(key, str) else key]

    def keys(self) -> list[str]:
        return self.cursor_description

    def values(self) -> tuple[Any, ...]:
        return self._values

    def items(self) -> Any:
        return zip(self.cursor_description, self._values, strict=True)


class NameIteratedRow(NamedRow):
    def __iter__(self) -> Iterator[Any]:
        return iter(self.cursor_description)


class TupleRow(tuple[Any, ...]):
    """Like the rows of Databricks and Spark."""

    __slots__ = ()

    def asDict(self) -> dict[str, Any]:  # noqa: N802
        raise AssertionError("not needed")


class ListRow(list[Any]):
    """Like psycopg2's DictRow, a list with an index of names."""

    def keys(self) -> Iterator[str]:
        return iter(("sku", "name"))


class BrokenRow(PlaceRow):
    def __getitem__(self, place: int) -> Any:
        raise ValueError("can't decode")


FACTORIES: dict[str, Callable[[list[str], tuple[Any, ...]], Any]] = {
    "tuple": lambda names, row: row,
    "list": lambda names, row: list(row),
    "dict": lambda names, row: dict(zip(names, row, strict=True)),
    "dict in another order": lambda names, row: dict(reversed(list(zip(names, row, strict=True)))),
    "ordered dict": lambda names, row: collections.OrderedDict(zip(names, row, strict=True)),
    "user dict": lambda names, row: collections.UserDict(zip(names, row, strict=True)),
    "named tuple": lambda names, row: collections.namedtuple("Row", names)(*row),
    "by place": PlaceRow,
    "by place and name": NamedRow,
    "gone through by name": NameIteratedRow,
    "tuple subclass": lambda names, row: TupleRow(row),
    "list subclass": lambda names, row: ListRow(row),
}
#: The rows of a row factory, and their description in the error.
MISREAD: dict[str, tuple[Callable[[list[str], tuple[Any, ...]], Any], str]] = {
    "scalar": (lambda names, row: row[0], "of type int"),
    "text of as many letters": (lambda names, row: "ab", "of type str"),
    "bytes": (lambda names, row: b"ab", "of type bytes"),
    "object": (lambda names, row: SimpleNamespace(**dict(zip(names, row, strict=True))), "SimpleNamespace"),
    "set": (lambda names, row: set(row), "of type set"),
    "generator": (lambda names, row: (value for value in row), "of type generator"),
    "too few": (lambda names, row: row[:1], "with 1 value"),
    "too many": (lambda names, row: (*row, 3), "with 3 values"),
    "other names": (lambda names, row: {"SKU": row[0], "NAME": row[1]}, "with the names 'SKU', 'NAME'"),
    "too few names": (lambda names, row: {"sku": row[0]}, "with the names 'sku'"),
    "no names": (lambda names, row: {}, "with the names"),
}


class Database:
    """A database whose connections support row factories."""

    row_factory: Any = None
    cursor_class: type[sqlite3.Cursor] = sqlite3.Cursor

    def connection(self) -> Any:
        cursor_class = self.cursor_class

        class Connection(sqlite3.Connection):
            def cursor(self) -> Any:  # type: ignore[override]
                return super().cursor(cursor_class)

        connection = sqlite3.connect(":memory:", factory=Connection)
        connection.row_factory = self.row_factory
        return connection

    def makes(self, factory: Callable[[list[str], tuple[Any, ...]], Any]) -> None:
        self.row_factory = lambda cursor, row: factory([column[0] for column in cursor.description], row)


class BrokenMapping(collections.UserDict[str, Any]):
    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[str]:
        raise ValueError("can't decode")


@pytest.fixture
def database(connect: Any, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database with the Airflow connection ``shop``."""
    database = Database()
    hook = SimpleNamespace(get_conn=database.connection, get_records=None)
    known = SimpleNamespace(get_hook=lambda hook_params: hook, conn_type="sqlite")
    get_connection = BaseHook.get_connection
    found = classmethod(lambda _, name: known if name == "shop" else get_connection(name))
    monkeypatch.setattr(BaseHook, "get_connection", found)
    return database


def push(sql: str = SQL, columns: Any = COLUMNS, **options: Any) -> dict[str, Any]:
    return CoveoPushHook().push_items(SOURCE, read_query("shop", sql, columns=columns), **options)


@pytest.mark.parametrize("name", FACTORIES)
def test_each_row_is_an_item(coveo: Simulator, database: Database, name: str) -> None:
    database.makes(FACTORIES[name])
    assert push()["accepted_adds"] == 2
    assert {key: item["title"] for key, item in coveo.items(SOURCE).items()} == {
        "product://1": "Anvil", "product://2": "Rope",
    }  # fmt: skip


def test_rows_of_sqlite_s_own_class_become_items(coveo: Simulator, database: Database) -> None:
    database.row_factory = sqlite3.Row
    assert push()["accepted_adds"] == 2
    assert set(coveo.items(SOURCE)) == {"product://1", "product://2"}


def test_a_cursor_needs_only_the_methods_that_are_called(coveo: Simulator, database: Database) -> None:
    class Bare(sqlite3.Cursor):
        """Like DuckDB's, whose cursors accept no other attributes."""

        @property
        def arraysize(self) -> int:
            return 1

    database.cursor_class = Bare
    assert push()["accepted_adds"] == 2


@pytest.mark.parametrize(
    ("counts", "most"), [({100_000: 600}, 83), ({10: 2_000, 1_000_000: 40}, 2_000), ({10: 6_000}, 2_000)]
)
@pytest.mark.parametrize("as_mapping", [False, True])
def test_large_rows_are_fetched_in_smaller_numbers(
    database: Database, counts: dict[int, int], most: int, as_mapping: bool
) -> None:
    fetched: list[int] = []

    class Counting(sqlite3.Cursor):
        def fetchmany(self, size: Any = 1) -> list[Any]:
            rows = super().fetchmany(size)
            fetched.append(len(rows))
            return rows

    database.cursor_class = Counting
    if as_mapping:
        database.makes(lambda names, row: dict(zip(names, row, strict=True)))
    numbers = "SELECT * FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {0}) "
    texts = "SELECT i + {1} * 10000 AS sku, printf('%{1}s', i) AS name FROM n)"
    values = " UNION ALL ".join((numbers + texts).format(count, size) for size, count in counts.items())
    rows = read_query("shop", values, columns=COLUMNS)
    assert sum(1 for _ in rows) == sum(counts.values())
    # Each fetch holds about 8 MiB at most, beyond the first one and the first of a new size.
    assert max(fetched) == most
    if 1_000_000 in counts:
        assert [count for count in fetched if count][-1] == 8


@pytest.mark.parametrize("name", MISREAD)
def test_an_unsupported_row_is_rejected_with_its_columns(
    coveo: Simulator, database: Database, name: str
) -> None:
    factory, named = MISREAD[name]
    database.makes(factory)
    for on_invalid in ("fail", "skip"):
        with pytest.raises(CoveoInputError, match=f"'shop': it has 2 columns \\('sku', 'name'\\).*{named}"):
            push(on_invalid=on_invalid)
    assert coveo.requests == []


@pytest.mark.parametrize("broken", [BrokenRow, lambda names, row: BrokenMapping()])
def test_a_row_that_cannot_be_read_is_an_invalid_item(
    coveo: Simulator, database: Database, broken: Any
) -> None:
    database.makes(lambda names, row: (broken if row[0] == 1 else PlaceRow)(names, row))
    result = push(on_invalid="skip")
    assert (result["accepted_adds"], result["invalid_items"][0]["index"]) == (1, 0)
    assert "can't decode" in result["invalid_items"][0]["rule"]


@pytest.mark.parametrize(
    ("sql", "columns", "reason"),
    [
        ("SELECT 1 AS sku, 2 AS sku", COLUMNS, "two columns named 'sku'"),
        ("SELECT 'a://1' AS documentId, '' AS data, 1 AS price, 2 AS PRICE", None, "'price' and 'PRICE'"),
        ("SELECT 'a://1' AS documentId, '' AS data, 1 AS DATA", None, "two columns|'data' and 'DATA'"),
        (
            "SELECT 1 AS sku",
            {"documentId": "a://{sku}", "DocumentID": "sku"},
            "differ by case",
        ),
        ("SELECT 1 AS sku, 2 AS [ ]", {"documentId": "a://{sku}", "": "sku"}, "columns has ''"),
        ("SELECT 1 AS sku", {"documentId": "a://{sku}", 1: "sku"}, "columns has 1"),
        ("SELECT 1 AS sku", {"documentId": "a://{sku}", "x": 1}, "1, for the key 'x', is not a column"),
        ("SELECT 1 AS sku", [("documentId", "sku")], "columns must be a mapping"),
        ("SELECT 1 AS sku, 2 AS ''", COLUMNS, "not a name for its column 2"),
    ],
)
def test_ambiguous_names_are_rejected(
    coveo: Simulator, database: Database, sql: str, columns: Any, reason: str
) -> None:
    with pytest.raises(CoveoInputError, match=reason):
        push(sql, columns)
    assert coveo.requests == []


@pytest.mark.parametrize("name", [None, b"sku", 3])
def test_a_column_whose_name_is_not_a_text_is_rejected(
    name: Any, coveo: Simulator, database: Database
) -> None:
    class Cursor(sqlite3.Cursor):
        @property
        def description(self) -> Any:
            return ((name, None), ("name", None))

    database.cursor_class = Cursor
    with pytest.raises(CoveoInputError, match="not a name for its column 1"):
        push()


def test_columns_can_distinguish_names_that_differ_by_case(coveo: Simulator, database: Database) -> None:
    push("SELECT 1 AS sku, 2 AS SKU", {"documentId": "a://{sku}", "data": "{SKU}"})
    assert coveo.items(SOURCE)["a://1"]["data"] == "2"


@pytest.mark.parametrize("empty", ["NULL", "''"])
def test_empty_values_are_left_out_and_never_part_of_an_id(
    coveo: Simulator, database: Database, empty: str
) -> None:
    columns = {
        "documentId": "a://{sku}/{part}",
        "parentId": "a://{parent}",
        "title": "{name}",
        "data": "{name}",
        "author": "name",
    }
    sql = f"SELECT 1 AS sku, 2 AS part, {empty} AS parent, {empty} AS name"
    push(sql, columns)
    assert {**coveo.items(SOURCE)["a://1/2"], "orderingId": 0} == {
        "documentId": "a://1/2", "data": "", "orderingId": 0
    }  # fmt: skip
    with pytest.raises(CoveoInputError, match=r"number 1 .*no documentId: the column 'part'.* is empty"):
        push(f"{sql} UNION ALL SELECT 2, {empty}, 3, 'x'", columns)


def test_rows_of_one_file_may_have_other_columns_than_the_first() -> None:
    rows = [{"documentId": "a://1"}, {"documentId": "a://2", "title": "x"}, {"documentId": "a://3"}]
    assert list(items_of_rows(iter(rows), None, "x")) == rows
    make = row_mapper(["documentId", "title"], None, "x")
    assert "title" in make({"documentId": "a://1"})["title"].rule


def test_braces_that_name_no_column_are_rejected_and_escaped_ones_are_kept() -> None:
    make = row_mapper(["sku", "a {b}"], {"documentId": "a://{{sku}}", "data": "a {b}"}, "x")
    assert make({"sku": 1, "a {b}": "y"}) == {"documentId": "a://{1}", "data": "y"}
    with pytest.raises(CoveoInputError, match="no column 'other'"):
        row_mapper(["sku"], {"documentId": "a://{other}"}, "x")
