"""Rows of a real PostgreSQL as items, read as a stream."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException
from local_postgres import LocalPostgres, find_postgres

from airflow_provider_coveo.content.query import items_of_query
from airflow_provider_coveo.coveo.errors import CoveoError, CoveoInputError
from airflow_provider_coveo.operators.coveo_push import SqlToCoveoPushOperator
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE
from tests.unit.push.model import on_both

_TABLE = """
CREATE TABLE product (sku int, name text, price numeric, updated timestamptz, naive timestamp, tags text[]);
INSERT INTO product VALUES
    (2, 'Rope', NULL, NULL, NULL, NULL),
    (1, 'Anvil {{ ds }}', 9.90, '2026-11-24 08:00+01', '2026-11-24', '{heavy,iron}');
"""
COLUMNS = {
    "documentId": "product://{sku}",
    "title": "name",
    "data": "{name}, {price}",
    "price": "price",
    "date": "updated",
    "tags": "tags",
}
QUERY = "SELECT * FROM product ORDER BY sku"


@pytest.fixture(scope="module")
def database() -> Iterator[LocalPostgres]:
    try:
        programs = find_postgres(install=False)
    except RuntimeError as reason:
        pytest.skip(str(reason))
    pytest.importorskip("airflow.providers.postgres.hooks.postgres")
    server = LocalPostgres("shop")
    process = server.launch()
    try:
        server.create_database()
        subprocess.run(
            [programs / "psql", "-h", server.folder, "-U", "postgres", "-q", "shop"],
            input=_TABLE,
            text=True,
            check=True,
            cwd=server.folder,
        )
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
        shutil.rmtree(server.folder, ignore_errors=True)


@pytest.fixture
def connected(database: LocalPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    described = {
        "conn_type": "postgres", "login": "postgres", "schema": "shop", "host": str(database.folder),
    }  # fmt: skip
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps(described))


pytestmark = pytest.mark.usefixtures("connect", "connected")


def run(sql: str = QUERY, columns: Any = COLUMNS, **more: Any) -> dict[str, Any]:
    with DAG("d", schedule=None, start_date=datetime(2025, 1, 1)):
        operator = SqlToCoveoPushOperator(
            task_id="t", source_id=SOURCE, sql=sql, sql_conn_id="shop", columns=columns, **more
        )
    operator.render_template_fields({"params": {"sku": 1}})
    result: dict[str, Any] = operator.execute({})
    return result


@on_both
def test_rows_become_items_by_a_mapping_of_columns(coveo: Simulator) -> None:
    assert run()["accepted_adds"] == 2
    items = coveo.items(SOURCE)
    assert {**items["product://1"], "orderingId": 0} == {
        "documentId": "product://1",
        "title": "Anvil {{ ds }}",
        "data": "Anvil {{ ds }}, 9.90",
        "price": "9.90",
        "date": items["product://1"]["date"],
        "tags": ["heavy", "iron"],
        "orderingId": 0,
    }
    moment = datetime.fromisoformat(items["product://1"]["date"])
    assert moment == datetime.fromisoformat("2026-11-24T07:00:00+00:00")
    assert {**items["product://2"], "orderingId": 0} == {
        "documentId": "product://2", "title": "Rope", "data": "Rope, ", "orderingId": 0,
    }  # fmt: skip
    assert coveo.undocumented == []


@on_both
def test_the_example_pushes_the_rows(coveo: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CATALOG_DB", os.environ["AIRFLOW_CONN_SHOP"])
    example = Path(__file__).resolve().parents[3] / "dags_examples" / "coveo_push_query.py"
    operator = runpy.run_path(str(example))["dag"].get_task("push_source_update.push_rows")
    operator.render_template_fields({"params": {"source_id": SOURCE}})
    assert operator.execute({})["accepted_adds"] == 2
    assert coveo.items(SOURCE)["product://2"]["title"] == "Rope"


@on_both
def test_query_and_parameters_are_rendered(coveo: Simulator) -> None:
    sql = "SELECT 'a://' || sku AS \"documentId\", name AS data FROM {{ 'product' }} WHERE sku = %(sku)s"
    run(sql, None, parameters={"sku": "{{ params.sku }}"})
    assert set(coveo.items(SOURCE)) == {"a://1"}


@on_both
def test_a_query_may_stand_in_a_file(coveo: Simulator, tmp_path: Path) -> None:
    (tmp_path / "products.sql").write_text(QUERY)
    with DAG("d", schedule=None, start_date=datetime(2025, 1, 1), template_searchpath=str(tmp_path)):
        operator = SqlToCoveoPushOperator(
            task_id="t", source_id=SOURCE, sql="products.sql", sql_conn_id="shop", columns=COLUMNS
        )
    operator.render_template_fields({})
    assert operator.execute({})["accepted_adds"] == 2


def test_rows_come_as_a_stream_from_a_query_that_never_ends() -> None:
    rows = items_of_query(
        "shop",
        "SELECT 'a://' || generate_series(1, 2000000000) AS \"documentId\", 'x' AS data",
        fetch_size=10,
    )
    assert [next(rows)["documentId"] for _ in range(25)][-1] == "a://25"
    rows.close()


def test_a_query_without_rows_pushes_nothing(coveo: Simulator) -> None:
    assert run(f"{QUERY.partition('ORDER')[0]} WHERE false")["accepted_adds"] == 0
    assert not [request for request in coveo.requests if request.operation != "limit"]


@pytest.mark.parametrize(
    ("sql", "columns", "reason"),
    [
        (QUERY, {"documentId": "product://{id}"}, "no column 'id'"),
        ("SELECT sku, name AS sku FROM product", COLUMNS, "two columns named 'sku'"),
        (QUERY, {**COLUMNS, "date": "naive"}, "no time zone"),
    ],
)
def test_what_can_t_be_right_fails_at_once_and_is_named(
    coveo: Simulator, sql: str, columns: Any, reason: str
) -> None:
    with pytest.raises(CoveoInputError, match=reason) as refused:
        run(sql, columns)
    assert isinstance(refused.value, AirflowFailException)


def test_an_error_of_the_database_is_raised_as_it_is(coveo: Simulator) -> None:
    with pytest.raises(Exception, match="no_such_table") as failed:
        run("SELECT * FROM no_such_table")
    assert not isinstance(failed.value, CoveoError)


def test_a_connection_of_another_kind_is_refused(
    coveo: Simulator, connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", os.environ["AIRFLOW_CONN_COVEO_DEFAULT"])
    with pytest.raises(CoveoInputError, match="CoveoPushHook"):
        run()


def test_a_database_whose_provider_is_missing_is_named_with_the_remedy(
    coveo: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", '{"conn_type": "acmebase"}')
    with pytest.raises(
        CoveoInputError, match=r"'acmebase' is on the worker\. Remedy: Install that"
    ) as refused:
        run()
    assert isinstance(refused.value, AirflowFailException)


def test_openlineage_learns_which_table_is_read() -> None:
    pytest.importorskip("airflow.providers.openlineage")
    operator = SqlToCoveoPushOperator(task_id="t", source_id=SOURCE, sql=QUERY, sql_conn_id="shop")
    lineage: Any = operator.get_openlineage_facets_on_start()
    assert [dataset.name for dataset in lineage.inputs] == ["shop.public.product"]
    assert lineage.job_facets["sql"].query == QUERY
    assert [dataset.name for dataset in lineage.outputs] == [SOURCE]
