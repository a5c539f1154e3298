"""Rows of a real PostgreSQL as items, read as a stream."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, BaseHook
from local_postgres import LocalPostgres, find_postgres

from airflow_provider_coveo.content.query import read_query
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
@pytest.mark.parametrize("cursor", ["dictcursor", "realdictcursor", "namedtuplecursor"])
def test_the_cursor_of_the_connection_makes_no_difference(
    coveo: Simulator, monkeypatch: pytest.MonkeyPatch, cursor: str
) -> None:
    described = json.loads(os.environ["AIRFLOW_CONN_SHOP"])
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps({**described, "extra": {"cursor": cursor}}))
    sql = "SELECT 'sku-' || n AS sku, n AS name, 1.5 AS price FROM generate_series(1, 500) AS n"
    columns = {"documentId": "product://{sku}", "data": "{name}"}
    try:
        connection = BaseHook.get_connection("shop").get_hook().get_conn()
    except ValueError as unknown:
        pytest.skip(str(unknown))
    connection.close()
    assert run(sql, columns)["accepted_adds"] == 500
    assert set(coveo.items(SOURCE)) == {f"product://sku-{number}" for number in range(1, 501)}


@dataclass
class _Product:
    sku: int
    name: str


def _connections(database: LocalPostgres) -> Iterator[tuple[str, Callable[[], Any]]]:
    where = f"host={database.folder} user=postgres dbname=shop"
    with suppress(ImportError):
        import psycopg2.extras

        for name in ("DictCursor", "RealDictCursor", "NamedTupleCursor", "LoggingCursor"):
            factory = getattr(psycopg2.extras, name)
            yield name, partial(psycopg2.connect, where, cursor_factory=factory)
        for name in ("DictConnection", "RealDictConnection", "NamedTupleConnection"):
            factory = getattr(psycopg2.extras, name)
            yield name, partial(psycopg2.connect, where, connection_factory=factory)
    with suppress(ImportError):
        import psycopg
        from psycopg import rows

        factories = {
            "tuple_row": rows.tuple_row,
            "dict_row": rows.dict_row,
            "namedtuple_row": rows.namedtuple_row,
            "scalar_row": rows.scalar_row,
            "class_row": rows.class_row(_Product),
            "args_row": rows.args_row(lambda *values: set(values)),
            "kwargs_row": rows.kwargs_row(lambda **values: values.keys()),
        }
        for name, row_factory in factories.items():
            yield name, partial(psycopg.connect, where, row_factory=row_factory)
        for cursor_factory in (psycopg.Cursor, psycopg.ClientCursor, psycopg.RawCursor):
            yield cursor_factory.__name__, partial(psycopg.connect, where, cursor_factory=cursor_factory)


@on_both
def test_every_cursor_and_row_factory_of_the_drivers_returns_the_same_items(
    coveo: Simulator, database: LocalPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = type(BaseHook.get_connection("shop").get_hook())
    tried = []
    for name, connect in _connections(database):
        monkeypatch.setattr(hook, "get_conn", lambda _, connect=connect: connect())
        items = list(read_query("shop", "SELECT sku, name FROM product ORDER BY sku", columns={
            "documentId": "product://{sku}", "data": "name"
        }))  # fmt: skip
        assert [item["documentId"] for item in items] == ["product://1", "product://2"], name
        tried.append(name)
    assert len(tried) >= 7


_PLAIN_AND_COMPOSED = [
    ("'\\x34373131'::bytea", "memoryview|bytes"),
    ("'NaN'::numeric", "no field"),
    ("'NaN'::float8", "JSON"),
    ("'{1,2}'::int[]", "list"),
    ("'2026-01-31'::timestamp", "no time zone"),
    ("'{\"a\": 1}'::jsonb", "dict"),
    ("int4range(1, 5)", "Range"),
    ("4711::float8", "can't be part of an ID"),
    ("true", "can't be part of an ID"),
]


@pytest.mark.parametrize(("value", "reason"), _PLAIN_AND_COMPOSED)
def test_a_value_is_validated_before_it_becomes_part_of_an_id(
    coveo: Simulator, value: str, reason: str
) -> None:
    with pytest.raises(CoveoInputError, match=f"number 0 .*'value'.*({reason})"):
        run(f"SELECT {value} AS value", {"documentId": "product://{value}", "title": "value"})
    assert not [request for request in coveo.requests if request.operation != "limit"]


def test_numbers_are_written_without_an_exponent(coveo: Simulator) -> None:
    run(
        "SELECT 1 AS sku, 0::numeric(20,10) AS zero, 1e22::float8 AS large, '1E+2'::numeric AS hundred",
        {"documentId": "a://{sku}/{hundred}", "data": "{zero} {large}", "zero": "zero"},
    )
    item = coveo.items(SOURCE)["a://1/100"]
    assert (item["data"], item["zero"]) == ("0.0000000000 10000000000000000000000", "0.0000000000")


@on_both
def test_no_parameter_other_than_the_query_can_name_a_file(coveo: Simulator, tmp_path: Path) -> None:
    (tmp_path / "paths.sql").write_text(
        "SELECT path, 'x' AS data FROM (VALUES ('{{ params.sku }}.sql'), ('b.txt')) AS t (path) "
        "WHERE path LIKE %(pattern)s AND path <> ALL (%(other)s)"
    )
    (tmp_path / "%.sql").write_text("no")
    with DAG("d", schedule=None, start_date=datetime(2025, 1, 1), template_searchpath=str(tmp_path)):
        operator = SqlToCoveoPushOperator(
            task_id="t",
            source_id=SOURCE,
            sql="paths.sql",
            sql_conn_id="shop",
            parameters={"pattern": "%.sql", "other": ["paths.sql", "{{ params.sku }}.txt"]},
            columns={"documentId": "repo://{path}", "data": "data", "title": "in {path}.sql"},
        )
        mapped = SqlToCoveoPushOperator.partial(
            task_id="m", source_id=SOURCE, sql="paths.sql", sql_conn_id="shop.sql"
        ).expand(parameters=[{"pattern": "%.sql"}])
    operator.resolve_template_files()
    assert operator.parameters["other"][0] == "paths.sql"
    operator.render_template_fields({"params": {"sku": 1}})
    assert operator.execute({})["accepted_adds"] == 1
    assert coveo.items(SOURCE)["repo://1.sql"]["title"] == "in 1.sql.sql"
    unmapped: Any = mapped.unmap({"parameters": {"pattern": "%.sql"}})
    environment = unmapped.get_template_env()
    unmapped._do_render_template_fields(
        unmapped, mapped.template_fields, {"params": {"sku": 1}}, environment, set()
    )
    assert (unmapped.parameters, unmapped.sql_conn_id) == ({"pattern": "%.sql"}, "shop.sql")
    assert unmapped.sql.startswith("SELECT path")


def test_only_queries_are_read_from_files() -> None:
    for module in ("coveo_push", "coveo_push_update", "coveo_source", "coveo_watchdog"):
        for name, operator in vars(import_module(f"airflow_provider_coveo.operators.{module}")).items():
            if getattr(operator, "template_ext", ()):
                assert name == "SqlToCoveoPushOperator"


@on_both
def test_query_and_parameters_are_rendered(coveo: Simulator) -> None:
    sql = "SELECT 'a://' || sku AS \"documentId\", name AS data FROM {{ 'product' }} WHERE sku = %(sku)s"
    run(sql, None, parameters={"sku": "{{ params.sku }}"})
    assert set(coveo.items(SOURCE)) == {"a://1"}


@on_both
def test_a_query_can_be_in_a_file(coveo: Simulator, tmp_path: Path) -> None:
    (tmp_path / "products.sql").write_text(QUERY)
    with DAG("d", schedule=None, start_date=datetime(2025, 1, 1), template_searchpath=str(tmp_path)):
        operator = SqlToCoveoPushOperator(
            task_id="t", source_id=SOURCE, sql="products.sql", sql_conn_id="shop", columns=COLUMNS
        )
    operator.render_template_fields({})
    assert operator.execute({})["accepted_adds"] == 2


def test_rows_are_streamed_from_a_query_that_never_ends() -> None:
    rows = read_query(
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
def test_an_invalid_parameter_fails_at_once_and_is_named(
    coveo: Simulator, sql: str, columns: Any, reason: str
) -> None:
    with pytest.raises(CoveoInputError, match=reason) as refused:
        run(sql, columns)
    assert isinstance(refused.value, AirflowFailException)


def test_an_error_of_the_database_is_raised_unchanged(coveo: Simulator) -> None:
    with pytest.raises(Exception, match="no_such_table") as failed:
        run("SELECT * FROM no_such_table")
    assert not isinstance(failed.value, CoveoError)


def test_a_connection_of_another_kind_is_rejected(
    coveo: Simulator, connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", os.environ["AIRFLOW_CONN_COVEO_DEFAULT"])
    with pytest.raises(CoveoInputError, match="CoveoPushHook"):
        run()


def test_the_error_of_a_missing_provider_names_the_database_and_the_remedy(
    coveo: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", '{"conn_type": "acmebase"}')
    with pytest.raises(
        CoveoInputError, match=r"'acmebase' is on the worker\. Remedy: Install that"
    ) as refused:
        run()
    assert isinstance(refused.value, AirflowFailException)


def test_openlineage_gets_the_table_that_is_read() -> None:
    pytest.importorskip("airflow.providers.openlineage")
    operator = SqlToCoveoPushOperator(task_id="t", source_id=SOURCE, sql=QUERY, sql_conn_id="shop")
    lineage: Any = operator.get_openlineage_facets_on_start()
    assert [dataset.name for dataset in lineage.inputs] == ["shop.public.product"]
    assert lineage.job_facets["sql"].query == QUERY
    assert [dataset.name for dataset in lineage.outputs] == [SOURCE]


@pytest.mark.parametrize("value", [None, "", "  ", "{{ '' }}"])
def test_no_check_fields_means_the_default(coveo: Simulator, value: Any) -> None:
    assert "unknown_fields" not in run(check_fields=value)
    assert "unknown_fields" in run(check_fields=value, dry_run=True)
