"""Rows that a database recorded since a cursor, here SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, BaseHook

from airflow_provider_coveo.content.increments import Increment, is_deleted, parameters_with_since
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.coveo.items import Delete

COLUMNS = {"documentId": "product://{SKU}", "title": "name", "data": "name"}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A database with the connection ``shop``, and a function that executes SQL in it."""
    path = tmp_path / "shop.db"
    hook = SimpleNamespace(get_conn=lambda: sqlite3.connect(path), get_records=None)
    known = SimpleNamespace(get_hook=lambda hook_params: hook, conn_type="sqlite")
    monkeypatch.setattr(BaseHook, "get_connection", classmethod(lambda _, name: known))

    def execute(sql: str) -> None:
        with sqlite3.connect(path) as connection:
            connection.executescript(sql)

    execute(
        """
        CREATE TABLE product (SKU int, name text, updated int, gone int);
        INSERT INTO product VALUES (1, 'Anvil', 10, 0), (2, 'Rope', 30, NULL), (3, 'Glue', 20, 1),
            (4, 'Nail', NULL, 0);
        CREATE TABLE gone (SKU int, at int);
        INSERT INTO gone VALUES (8, 5), (9, 15), (2, 15);
        """
    )
    return execute


class Read:
    """Reads, and records the cursor's values."""

    def __init__(self, **how: Any) -> None:
        self.values: list[Any] = []
        made: dict[str, Any] = {
            "conn_id": "shop",
            "sql": "SELECT * FROM product WHERE updated > :since OR updated IS NULL ORDER BY SKU",
            "since": 10,
            "cursor_column": "updated",
            "columns": COLUMNS,
            **how,
        }
        self.increment = Increment(advance=lambda value, _: self.values.append(value), **made)
        self.entries = list(self.increment.entries())

    @property
    def ids(self) -> list[str]:
        return [
            f"-{entry.document_id}" if isinstance(entry, Delete) else entry["documentId"]
            for entry in self.entries
        ]


def test_rows_that_changed_since_the_cursor_are_read(shop: Any) -> None:
    read = Read()
    assert read.ids == ["product://2", "product://3", "product://4"]
    assert read.values == [30, 20, None]


def test_the_names_of_columns_match_in_any_case(shop: Any) -> None:
    assert Read(cursor_column="UPDATED", deleted_column="Gone").values == [30, 20, None]


def test_the_cursor_s_column_need_not_be_part_of_an_item(shop: Any) -> None:
    assert Read().entries[0] == {"documentId": "product://2", "title": "Rope", "data": "Rope"}


def test_rows_that_are_flagged_are_deleted(shop: Any) -> None:
    read = Read(deleted_column="gone")
    assert read.ids == ["product://2", "-product://3", "product://4"]
    read = Read(
        sql='SELECT SKU AS "documentId", updated, gone FROM product WHERE updated > :since',
        deleted_column="gone",
        columns=None,
    )
    assert read.entries == [{"documentId": 2, "updated": 30}, Delete(3)]  # type: ignore[arg-type]


def test_deletions_come_first_and_do_not_move_the_cursor(shop: Any) -> None:
    read = Read(deleted_sql="SELECT SKU FROM gone WHERE at > :since ORDER BY SKU")
    # Number 2 was deleted and created again.
    assert read.ids == ["-product://2", "-product://9", "product://2", "product://3", "product://4"]
    assert read.values == [30, 20, None]


def test_a_row_deleted_between_the_queries_is_found_by_the_next_run(shop: Any) -> None:
    """The items are read in their state before the deletions are read."""
    read = Read.__new__(Read)
    read.values = []
    increment = replace(Read().increment, advance=lambda value, _: read.values.append(value))
    increment = replace(increment, deleted_sql="SELECT SKU FROM gone WHERE at > :since", fetch_size=100)
    entries = increment.entries()
    assert next(entries) == Delete("product://9")
    read.entries = list(entries)
    assert read.ids == ["-product://2", "product://2", "product://3", "product://4"]


def test_a_query_for_deletions_can_return_ids(shop: Any) -> None:
    read = Read(
        sql="SELECT 'a://' || SKU AS \"documentId\", updated FROM product WHERE updated > :since",
        deleted_sql="SELECT 'a://' || SKU AS documentid FROM gone WHERE at > :since AND SKU > :above",
        parameters={"above": 8},
        columns=None,
    )
    assert read.ids == ["-a://9", "a://2", "a://3"]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"cursor_column": "modified"}, "no column 'modified', which cursor_column names"),
        ({"deleted_column": "modified"}, "no column 'modified', which deleted_column names"),
        ({"cursor_column": " updated"}, "names.*Remedy: Pass 'updated'; the columns are"),
        ({"sql": "SELECT * FROM product"}, "has no placeholder for the cursor"),
        ({"sql": "SELECT ':since' FROM product -- ?"}, "has no placeholder for the cursor"),
        ({"sql": 'SELECT SKU AS ":since" FROM product'}, "has no placeholder for the cursor"),
        ({"deleted_sql": "SELECT SKU FROM gone"}, "deleted_sql has no placeholder"),
        ({"deleted_sql": "SELECT at FROM gone WHERE at > :since"}, "no column 'SKU'"),
        ({"parameters": {"since": 1}}, "parameters contains 'since'"),
        ({"parameters": [1]}, "has the named placeholder since, but parameters is a list"),
        (
            {"sql": "SELECT SKU, name, updated, updated AS UPDATED FROM product WHERE updated > :since",
             "cursor_column": "Updated"},
            "more than one column 'Updated'",
        ),
        ({"deleted_column": "name"}, "does not show whether the row is deleted"),
    ],
)  # fmt: skip
def test_parameters_that_do_not_fit_the_query_are_named_before_the_first_row(
    shop: Any, how: dict[str, Any], words: str
) -> None:
    with pytest.raises(CoveoInputError, match=words):
        Read(**how)


NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("sql", "parameters", "expected"),
    [
        ("a > %(since)s", None, {"since": NOW}),
        ("a > %(since)s AND b = %(b)s", {"b": 1}, {"since": NOW, "b": 1}),
        ("a > :since", {}, {"since": NOW}),
        ("a > :since::timestamptz", {"b": 2}, {"since": NOW, "b": 2}),
        ("a > @since", None, {"since": NOW}),
        ("a > ?", None, (NOW,)),
        ("a > ? AND b = ?", [5], (NOW, 5)),
        ("a > %s", (), (NOW,)),
        ("a > %s AND b::text = 'x:since'", (1, 2), (NOW, 1, 2)),
        ("a > $1", None, (NOW,)),
        ("a > :1", None, (NOW,)),
    ],
)
def test_parameters_fit_the_placeholders_of_each_driver(sql: str, parameters: Any, expected: Any) -> None:
    assert parameters_with_since(sql, NOW, parameters) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, False), (False, False), (0, False), (Decimal(0), False), ("", False), ("f", False),
        ("No", False), ("0", False), (b"\0", False), (True, True), (1, True), (Decimal(1), True),
        ("Y", True), ("true", True), (NOW, True), (date(2026, 1, 1), True), ("2026-01-01 10:00:00", True),
        ("2026-01-01", True), (b"\1", True),
    ],
)  # fmt: skip
def test_values_that_show_whether_a_row_is_deleted(value: Any, expected: bool) -> None:
    assert is_deleted(value, "gone") is expected


@pytest.mark.parametrize("value", ["active", "deleted", [], b"ab", object(), float("nan"), Decimal("sNaN")])
def test_values_that_do_not_show_whether_a_row_is_deleted_are_rejected(value: Any) -> None:
    with pytest.raises(CoveoInputError, match="does not show whether"):
        is_deleted(value, "gone")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("sqlite", "pip install apache-airflow-providers-sqlite"),
        ("mssql", "pip install apache-airflow-providers-microsoft-mssql"),
        ("acmebase", "Install that database's provider, or correct the connection's type"),
    ],
)
def test_a_provider_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, kind: str, words: str) -> None:
    def get_hook(hook_params: object) -> object:
        raise AirflowException(f'Unknown hook type "{kind}"')

    connection = SimpleNamespace(conn_type=kind, get_hook=get_hook)
    monkeypatch.setattr(BaseHook, "get_connection", classmethod(lambda *_: connection))
    with pytest.raises(CoveoInputError) as failed:
        Read()
    assert words in str(failed.value)
