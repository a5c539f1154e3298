"""The OpenLineage metadata of a push."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_coveo.coveo.errors import CoveoError
from airflow_provider_coveo.operators.coveo_push import (
    DeleteItemsOperator,
    PushItemsOperator,
    SqlToCoveoPushOperator,
)
from airflow_provider_coveo.simulator import Simulator
from tests.fresh import RunFresh

ITEM = {"documentId": "product://1", "data": "x"}
WITHOUT_THE_PROVIDER = """
import sys
sys.modules["airflow.providers.openlineage.extractors"] = None
from airflow_provider_coveo.operators.coveo_push import PushItemsOperator
push = PushItemsOperator(task_id="push", source_id="acme-products", path="products.json")
assert push.get_openlineage_facets_on_start() is None
assert push.get_openlineage_facets_on_complete(None) is None
"""


def test_without_the_openlineage_provider_nothing_fails(
    run_fresh: RunFresh,
) -> None:
    run_fresh(WITHOUT_THE_PROVIDER).check_returncode()


@pytest.fixture(autouse=True)
def _with_the_provider(request: pytest.FixtureRequest) -> None:
    if request.function is not test_without_the_openlineage_provider_nothing_fails:
        pytest.importorskip("airflow.providers.openlineage")


def names(datasets: list[Any]) -> list[tuple[str, str]]:
    return [(dataset.namespace, dataset.name) for dataset in datasets]


def test_a_push_reports_its_source_as_output_and_its_size_when_it_has_ended(
    connect: Callable[..., None],
) -> None:
    push = PushItemsOperator(task_id="push", source_id="acme-products", items=[ITEM, ITEM])
    began = push.get_openlineage_facets_on_start()
    assert names(began.outputs) == [("coveo://acme", "acme-products")]
    assert began.outputs[0].outputFacets == {}
    assert began.inputs == []

    result = push.execute({})
    ended = push.get_openlineage_facets_on_complete(None)
    statistics = ended.outputs[0].outputFacets["outputStatistics"]
    assert (statistics.rowCount, statistics.size) == (2, result["bytes"])


def test_a_push_that_failed_reports_how_much_was_accepted_before(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    coveo.faults.answer(403, operation="batch", after=1)
    items = [{"documentId": f"product://{n}", "data": "x" * 600} for n in range(4)]
    push = PushItemsOperator(
        task_id="push", source_id="acme-products", items=items, batch_bytes=1024, upload_concurrency=1
    )
    with pytest.raises(CoveoError):
        push.execute({})
    statistics = push.get_openlineage_facets_on_failure(None).outputs[0].outputFacets["outputStatistics"]
    assert statistics.rowCount == 1


def test_deletions_report_their_source_as_output(connect: Callable[..., None]) -> None:
    delete = DeleteItemsOperator(task_id="delete", source_id="acme-products", document_ids=["product://1"])
    delete.execute({})
    lineage = delete.get_openlineage_facets_on_complete(None)
    assert names(lineage.outputs) == [("coveo://acme", "acme-products")]
    assert lineage.outputs[0].outputFacets["outputStatistics"].rowCount == 0


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/data/products.json", [("file", "/data/products.json")]),
        (Path("/data/products.json"), [("file", "/data/products.json")]),
        ("file:///data/products.json", [("file", "/data/products.json")]),
        ("/data/2025-*/products.json", [("file", "/data")]),
        ("/*.json", [("file", "/")]),
        ("s3://bucket/catalog/products.json", [("s3://bucket", "catalog/products.json")]),
        ("s3://aws_conn@bucket/catalog/*.ndjson.gz", [("s3://bucket", "catalog")]),
        ("s3://key:SECRET@bucket/*.json", [("s3://bucket", "/")]),
        (["/data/a/*.csv", "/data/a/*.tsv", "/data/b"], [("file", "/data/a"), ("file", "/data/b")]),
    ],
    ids=str,
)
def test_a_push_of_files_reports_them_as_inputs(
    connect: Callable[..., None], path: Any, expected: Any
) -> None:
    push = PushItemsOperator(task_id="push", source_id="acme-products", path=path)
    assert names(push.get_openlineage_facets_on_start().inputs) == expected


def sql_push() -> SqlToCoveoPushOperator:
    return SqlToCoveoPushOperator(
        task_id="push",
        source_id="acme-products",
        sql='SELECT sku AS "documentId", name AS data FROM shop.products JOIN prices USING (sku)',
        sql_conn_id="shop",
    )


@pytest.mark.parametrize("connection", [None, "postgres://reader:SECRET@127.0.0.1:1/warehouse"])
def test_if_the_tables_of_a_query_are_unknown_the_query_itself_is_reported(
    connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch, connection: str | None
) -> None:
    if connection:
        # No server listens there. push/test_sql.py tests the tables of a query.
        monkeypatch.setenv("AIRFLOW_CONN_SHOP", connection)
    lineage = sql_push().get_openlineage_facets_on_start()
    assert lineage.inputs == []
    assert "shop.products" in lineage.job_facets["sql"].query
    assert names(lineage.outputs) == [("coveo://acme", "acme-products")]
    assert "SECRET" not in repr(lineage)


def test_python_code_that_pushes_with_the_hook_reports_its_source_as_output(
    hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.providers.common.compat.lineage import hook as lineage

    told: list[tuple[Any, dict[str, Any]]] = []

    class Collector:
        def add_output_asset(self, context: Any, **asset: Any) -> None:
            told.append((context, asset))

    # Loaded, as Airflow does if the provider is installed.
    importlib.import_module("airflow.providers.openlineage")
    monkeypatch.setattr(lineage, "get_hook_lineage_collector", Collector)
    hook.push_items("acme-products", [ITEM])
    named = {"organization_id": "acme", "source_id": "acme-products"}
    assert told == [(hook, {"scheme": "coveo", "asset_kwargs": named})]


def test_an_asset_has_the_same_name_in_openlineage_as_the_pushes_to_it() -> None:
    from airflow_provider_coveo.assets.coveo_push import convert_asset_to_openlineage, push_source_asset

    asset = push_source_asset(organization_id="acme", source_id="acme-products")
    assert names([convert_asset_to_openlineage(asset, None)]) == [("coveo://acme", "acme-products")]
