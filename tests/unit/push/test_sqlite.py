"""Rows of an SQLite database as items, read as a stream, if Airflow's provider for it is installed."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_coveo.content.query import read_query
from airflow_provider_coveo.operators.coveo_push import SqlToCoveoPushOperator
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE
from tests.unit.push.model import indexed

pytest.importorskip("airflow.providers.sqlite.hooks.sqlite")


@pytest.fixture(autouse=True)
def _shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
        database.executescript("CREATE TABLE product (sku, name); INSERT INTO product VALUES (1, 'Anvil');")
    described = {"conn_type": "sqlite", "host": str(tmp_path / "shop.db")}
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps(described))


@pytest.mark.usefixtures("connect")
def test_rows_become_items(coveo: Simulator) -> None:
    with DAG("d", schedule=None, start_date=datetime(2025, 1, 1)):
        operator = SqlToCoveoPushOperator(
            task_id="t",
            source_id=SOURCE,
            sql="SELECT * FROM product",
            sql_conn_id="shop",
            columns={"documentId": "product://{sku}", "data": "name"},
        )
    assert operator.execute({})["accepted_adds"] == 1
    assert indexed(coveo, SOURCE) == {"product://1": "Anvil"}


def test_rows_are_streamed_from_a_query_that_never_ends() -> None:
    sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS documentId FROM n"
    rows = read_query("shop", sql, fetch_size=10)
    assert [next(rows)["documentId"] for _ in range(25)][-1] == 25
    rows.close()
