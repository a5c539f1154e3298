"""Rows of a real MariaDB as items, read as a stream by each driver that MySQL has for Airflow.

Airflow's provider for MySQL must be compiled, so these tests have a separate environment: ``make
test-mysql``.
"""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG
from local_mariadb import LocalMariaDB, find_mariadb

from airflow_provider_coveo.content.query import read_query
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.operators.coveo_push import SqlToCoveoPushOperator
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE

pytest.importorskip("airflow.providers.mysql.hooks.mysql")

_TABLE = """
CREATE TABLE product (sku int, name text, price decimal(9, 2), updated datetime, made date, tags json);
INSERT INTO product VALUES
    (2, 'Rope', NULL, NULL, NULL, NULL),
    (1, 'Anvil {{ ds }}', 9.90, '2026-11-24 08:00', '2026-01-31', '["heavy"]');
"""
#: A billion rows: reading all of them would never end.
_ENDLESS = "SELECT concat('a://', seq) AS documentId, 'x' AS data FROM seq_1_to_1000000000"
DRIVERS = ("mysqlclient", "mysql-connector-python")


@pytest.fixture(scope="module")
def database() -> Iterator[LocalMariaDB]:
    try:
        find_mariadb()
    except RuntimeError as reason:
        pytest.skip(str(reason))
    server = LocalMariaDB("shop")
    process = server.launch()
    try:
        server.create_database(_TABLE)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
        shutil.rmtree(server.folder, ignore_errors=True)


@pytest.fixture(params=DRIVERS)
def _driver(request: pytest.FixtureRequest, database: LocalMariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    described = {
        "conn_type": "mysql", "login": "root", "schema": "shop", "host": "127.0.0.1", "port": database.port,
        "extra": {"client": request.param, "cursor": "dictcursor"},
    }  # fmt: skip
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps(described))


pytestmark = pytest.mark.usefixtures("connect", "_driver")


def run(sql: str, columns: Any) -> dict[str, Any]:
    with DAG("d", schedule=None, start_date=datetime(2025, 1, 1)):
        operator = SqlToCoveoPushOperator(
            task_id="t", source_id=SOURCE, sql=sql, sql_conn_id="shop", columns=columns
        )
    result: dict[str, Any] = operator.execute({})
    return result


def test_rows_become_items_by_a_mapping_of_columns(coveo: Simulator) -> None:
    sql = "SELECT *, DATE_FORMAT(updated, '%Y-%m-%dT%TZ') AS moment FROM product ORDER BY sku"
    columns = {
        "documentId": "product://{sku}",
        "data": "name",
        "price": "price",
        "date": "moment",
        "made": "made",
        "tags": "tags",
    }
    assert run(sql, columns)["accepted_adds"] == 2
    items = coveo.items(SOURCE)
    assert {**items["product://1"], "orderingId": 0} == {
        "documentId": "product://1",
        "data": "Anvil {{ ds }}",
        "price": "9.90",
        "date": "2026-11-24T08:00:00Z",
        "made": items["product://1"]["made"],
        "tags": '["heavy"]',
        "orderingId": 0,
    }
    assert items["product://1"]["made"].startswith("2026-01-31")
    assert set(items["product://2"]) == {"documentId", "data", "orderingId"}
    assert coveo.undocumented == []


def test_rows_are_streamed_and_the_remaining_ones_are_not_read() -> None:
    rows = read_query("shop", _ENDLESS, fetch_size=10)
    assert [next(rows)["documentId"] for _ in range(25)][-1] == "a://25"
    began = time.monotonic()
    rows.close()
    assert time.monotonic() - began < 50


def test_a_row_that_can_t_be_pushed_is_named_at_once(coveo: Simulator) -> None:
    began = time.monotonic()
    with pytest.raises(CoveoInputError, match="no time zone"):
        run("SELECT 'a://1' AS documentId, updated, 'x' AS data FROM product ORDER BY sku LIMIT 1", None)
    with pytest.raises(CoveoInputError, match="number 0"):
        run(_ENDLESS.replace("concat('a://', seq)", "''"), None)
    assert time.monotonic() - began < 100


def test_the_write_timeout_of_the_server_is_long_enough_for_a_slow_push() -> None:
    (row,) = read_query("shop", "SELECT 'a://1' AS documentId, @@net_write_timeout AS seconds")
    assert row["seconds"] == 3600


def test_an_error_of_the_database_is_raised_unchanged() -> None:
    with pytest.raises(Exception, match="no_such_table"):
        list(read_query("shop", "SELECT * FROM no_such_table"))


def test_parameters_are_passed_to_the_driver() -> None:
    sql = "SELECT name AS documentId FROM product WHERE sku = %(sku)s"
    assert list(read_query("shop", sql, parameters={"sku": 2})) == [{"documentId": "Rope"}]
