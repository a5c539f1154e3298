"""Cursors over a real PostgreSQL: its types, and transactions that commit late."""

from __future__ import annotations

import os
import runpy
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_coveo.operators.coveo_push import SqlToCoveoPushOperator
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE
from tests.unit.conftest import Variables
from tests.unit.push.test_sql import connected, database

__all__ = ["connected", "database"]

psycopg = pytest.importorskip("psycopg")

pytestmark = pytest.mark.usefixtures("connect", "connected", "variables")

COLUMNS = {"documentId": "product://{sku}", "title": "name", "data": "name"}


def context(run_id: str) -> Any:
    return {
        "ti": SimpleNamespace(dag_id="d", task_id="t", map_index=-1, max_tries=0, try_number=1, run_id=run_id)
    }


@pytest.fixture
def shop(database: Any) -> Iterator[Any]:
    """A connection to the database, with empty tables."""
    with psycopg.connect(host=str(database.folder), user="postgres", dbname="shop") as connection:
        connection.execute(
            """
            DROP TABLE IF EXISTS changing, deleted_product;
            CREATE TABLE changing (sku int PRIMARY KEY, name text, updated timestamptz DEFAULT now(),
                naive timestamp, day date, number numeric(40, 20));
            CREATE TABLE deleted_product (sku int, deleted timestamptz DEFAULT now());
            """
        )
        connection.commit()
        yield connection


def run(run_id: str, column: str = "updated", start: Any = "2020-01-01", **how: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "sql": f"SELECT * FROM changing WHERE {column} > %(since)s ORDER BY {column}",  # noqa: S608
        "columns": COLUMNS,
        "cursor_column": column,
        "cursor_start": start,
        **how,
    }
    with DAG("d", schedule=None, start_date=datetime(2025, 1, 1)):
        operator = SqlToCoveoPushOperator(task_id="t", source_id=SOURCE, sql_conn_id="shop", **made)
    operator.render_template_fields({"params": {}})
    result: dict[str, Any] = operator.execute(context(run_id))
    return result


def titles(coveo: Simulator) -> dict[str, str]:
    return {key.removeprefix("product://"): item["title"] for key, item in coveo.items(SOURCE).items()}


DIGITS = "12345678901234567890.0000000000000000000"


@pytest.mark.parametrize(
    ("column", "start", "values"),
    [
        ("updated", "2020-01-01", ["2026-01-01 00:00:00.000001+05", "2026-01-01 00:00:00.000002+05"]),
        ("naive", "2020-01-01", ["2026-01-01 00:00:00.000001", "2026-01-01 00:00:00.000002"]),
        ("number", 0, [f"{DIGITS}1", f"{DIGITS}2"]),
        ("name", "A", ["a", "b"]),
    ],
)
def test_no_value_is_rounded(coveo: Simulator, shop: Any, column: str, start: Any, values: list[str]) -> None:
    columns = {"documentId": "a://{sku}", "title": "sku"}
    how: Any = {"column": column, "start": start, "lag": 0, "columns": columns}
    for sku, value in enumerate(values):
        shop.execute(f"INSERT INTO changing (sku, {column}) VALUES (%s, %s)", (sku, value))  # noqa: S608
        shop.commit()
        assert run(f"run-{sku}", **how)["accepted_adds"] == 1
    assert run("run-9", **how)["accepted_adds"] == 0


def test_with_a_date_column_the_last_day_is_read_again(coveo: Simulator, shop: Any) -> None:
    shop.execute("INSERT INTO changing (sku, name, day) VALUES (1, 'x', '2026-01-01')")
    shop.commit()
    assert run("run-1", column="day")["accepted_adds"] == 1
    shop.execute("INSERT INTO changing (sku, name, day) VALUES (2, 'x', '2026-01-01')")
    shop.commit()
    assert run("run-2", column="day")["accepted_adds"] == 2


def test_rows_of_a_transaction_that_commits_late_are_not_lost(
    coveo: Simulator, shop: Any, database: Any
) -> None:
    with psycopg.connect(host=str(database.folder), user="postgres", dbname="shop") as slow:
        # now() is the start time of the transaction.
        slow.execute("INSERT INTO changing (sku, name) VALUES (1, 'late')")
        shop.execute("INSERT INTO changing (sku, name, updated) VALUES (2, 'early', clock_timestamp())")
        shop.commit()
        run("run-1")
        assert titles(coveo) == {"2": "early"}
        slow.commit()
        run("run-2")
    assert titles(coveo) == {"1": "late", "2": "early"}


def test_a_deletion_that_is_read_again_does_not_delete_an_item_that_was_created_again(
    coveo: Simulator, shop: Any
) -> None:
    # The row's time is the start of its transaction, in which the item was created again after its deletion.
    shop.execute("INSERT INTO deleted_product VALUES (1, '2026-01-01 10:00:05+00')")
    shop.execute(
        "INSERT INTO changing (sku, name, updated) VALUES "
        "(1, 'again', '2026-01-01 10:00:00+00'), (2, 'other', '2026-01-01 10:05:02+00')"
    )
    shop.commit()
    deleted_sql = "SELECT sku FROM deleted_product WHERE deleted > %(since)s"
    for number in range(3):
        result = run(f"run-{number}", deleted_sql=deleted_sql)
        assert titles(coveo) == {"1": "again", "2": "other"}
    assert (result["accepted_deletes"], result["accepted_adds"]) == (1, 2)


def test_the_example_pushes_what_changed(
    coveo: Simulator, shop: Any, monkeypatch: pytest.MonkeyPatch, variables: Variables
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CATALOG_DB", os.environ["AIRFLOW_CONN_SHOP"])
    example = Path(__file__).resolve().parents[3] / "dags_examples" / "coveo_push_increments.py"

    def push(run_id: str) -> dict[str, Any]:
        operator = runpy.run_path(str(example))["dag"].get_task("push_source_update.push_products")
        operator.render_template_fields({"params": {"source_id": SOURCE, "cursor_reset": False}})
        operator.sql = operator.sql.replace("price", "NULL AS price").replace("product", "changing")
        result: dict[str, Any] = operator.execute(context(run_id))
        return result

    shop.execute("INSERT INTO changing (sku, name) VALUES (1, 'Anvil'), (2, 'Rope')")
    shop.commit()
    assert push("run-1")["accepted_adds"] == 2
    shop.execute("DELETE FROM changing WHERE sku = 1")
    shop.execute("INSERT INTO deleted_product (sku) VALUES (1)")
    shop.commit()
    assert push("run-2")["accepted_deletes"] == 1
    assert titles(coveo) == {"2": "Rope"}
    assert [name for name in variables.values if name.startswith("coveo_cursor")] == [
        f"coveo_cursor__acme__{SOURCE}__d__t"
    ]
