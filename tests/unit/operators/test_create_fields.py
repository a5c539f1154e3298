"""CreateFieldsOperator, executed against a Coveo at the socket."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException

from airflow_provider_coveo.coveo.errors import AccessDeniedError, CoveoInputError
from airflow_provider_coveo.coveo.items import Delete, Item
from airflow_provider_coveo.operators.coveo_push import CreateFieldsOperator
from airflow_provider_coveo.simulator import Simulator

_numbers = itertools.count()

pytestmark = pytest.mark.usefixtures("connect")


@pytest.fixture(autouse=True)
def _dag() -> Iterator[DAG]:
    with DAG("d", schedule=None, start_date=datetime(2025, 1, 1)) as dag:
        yield dag


def create(params: Any = None, **given: Any) -> dict[str, Any]:
    """Render and execute, like a worker."""
    operator = CreateFieldsOperator(task_id=f"t{next(_numbers)}", **given)
    context: Any = {"params": params or {}}
    operator.render_template_fields(context)
    result = operator.execute(context)
    assert json.loads(json.dumps(result)) == result
    return result


def created(coveo: Simulator) -> dict[str, str]:
    return {name: field["type"] for name, field in coveo.fields().items() if not field["system"]}


def test_fields_given_by_name_are_created_and_templated(coveo: Simulator) -> None:
    result = create({"type": "DOUBLE"}, fields={"price": "{{ params.type }}", "color": {"type": "STRING"}})
    assert created(coveo) == {"price": "DOUBLE", "color": "STRING"}
    assert result == {
        "created": 2,
        "existing": 0,
        "fields": ["price", "color"],
        "conflicts": [],
        "dry_run": False,
        "items": 0,
        "invalid": 0,
    }
    assert create(fields={"price": "DOUBLE"})["created"] == 0


def test_the_needed_fields_are_inferred_from_items(coveo: Simulator) -> None:
    items = [
        {"documentId": "a://1", "data": "x", "title": "t", "Price": 1.5, "stock": 3, "since": "2025-01-31"},
        Item("a://2", data="x", metadata={"tags": ["a", "b"], "since": datetime(2025, 1, 1).date()}),
        json.dumps({"documentId": "a://3", "data": "x", "big": "y" * 6_000_000, "new": True}).encode(),
        Delete("a://4"),
        {"documentId": "invalid", "wrong": 1},
    ]
    result = create(items=items)
    assert created(coveo) == {
        "price": "DOUBLE",
        "stock": "LONG_64",
        "since": "DATE",
        "tags": "STRING",
        "big": "STRING",
        "new": "STRING",
    }
    assert coveo.fields()["tags"]["multiValueFacet"] is True
    assert (result["items"], result["invalid"]) == (5, 1)


def test_files_are_read_as_they_would_be_pushed(coveo: Simulator, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sku,name,price\n1,Anvil,9\n")
    columns = {"documentId": "product://{sku}", "data": "name", "cost": "price"}
    assert create(path=str(tmp_path / "a.csv"), columns=columns)["fields"] == ["cost"]
    # The values of a CSV file are strings.
    assert created(coveo) == {"cost": "STRING"}


def test_numbers_in_a_csv_file_cause_a_warning(
    coveo: Simulator, tmp_path: Path, logged: Callable[[], str]
) -> None:
    (tmp_path / "a.csv").write_text(
        "documentId,data,price,stock,code,width\na://1,x,9.50,3,007,1\na://2,y,,-1,12,L\n"
    )
    path = str(tmp_path / "a.csv")
    create(path=path, fields={"stock": "LONG_64"})
    assert created(coveo) == {"price": "STRING", "stock": "LONG_64", "code": "STRING", "width": "STRING"}
    words = logged()
    assert "which nobody can change later: price. For numbers, pass" in words
    assert "fields={'price': 'DOUBLE'}" in words


def test_texts_that_are_not_all_numbers_cause_no_warning(coveo: Simulator, logged: Callable[[], str]) -> None:
    items = [
        {"documentId": "a://1", "data": "x", "title": "4711", "price": 3, "mixed": "3", "list": ["3"]},
        {"documentId": "a://2", "data": "x", "mixed": 3},
    ]
    create(items=items)
    assert "look like" not in logged()


def test_explicit_fields_override_inferred_ones(coveo: Simulator) -> None:
    items = [{"documentId": "a://1", "data": "x", "price": 3, "stock": 4}]
    create(items=items, fields={"price": "DOUBLE"})
    assert created(coveo) == {"price": "DOUBLE", "stock": "LONG_64"}


def test_no_more_than_max_items_are_read(coveo: Simulator) -> None:
    def items() -> Iterator[dict[str, Any]]:
        yield {"documentId": "a://1", "data": "x", "price": 1}
        raise AssertionError("read on")

    operator = CreateFieldsOperator(task_id="t", items=[], max_items="1")
    operator.items.value = items()
    assert operator.execute({})["items"] == 1
    assert created(coveo) == {"price": "LONG_64"}


def test_a_type_that_can_t_hold_the_items_is_reported(coveo: Simulator) -> None:
    coveo.state.fields.create([{"name": "price", "type": "DATE"}, {"name": "stock", "type": "DOUBLE"}])
    result = create(items=[{"documentId": "a://1", "data": "x", "price": 1.5, "stock": 1}])
    assert result["conflicts"] == [{"name": "price", "type": "DOUBLE", "existing_type": "DATE"}]
    assert created(coveo) == {"price": "DATE", "stock": "DOUBLE"}


@pytest.mark.parametrize("dry_run", [True, "{{ params.dry_run }}"])
def test_a_dry_run_creates_nothing(coveo: Simulator, dry_run: Any) -> None:
    result = create({"dry_run": True}, fields={"price": "DOUBLE", "title": "STRING"}, dry_run=dry_run)
    assert (result["fields"], result["existing"], result["dry_run"]) == (["price"], 1, True)
    assert created(coveo) == {}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "neither fields nor items"),
        ({"items": [], "path": "x.json"}, "both items and a path"),
        ({"fields": {"Price": "DOUBLE"}}, "Invalid field name"),
        ({"fields": {"price": "FLOAT"}}, "Invalid type of field"),
        ({"fields": "price"}, "Invalid fields"),
        (
            {"items": [{"documentId": "a://1", "data": "x", "a-b": 1}]},
            "Invalid field names in 1 metadata key: 'a-b'",
        ),
        ({"fields": {"price": "DOUBLE"}, "max_items": 0}, "Invalid max_items"),
        ({"fields": {"price": "DOUBLE"}, "dry_run": "maybe"}, "Invalid dry_run"),
    ],
)
def test_invalid_arguments_are_rejected_before_anything_is_sent(
    coveo: Simulator, given: Any, words: str
) -> None:
    with pytest.raises(AirflowFailException, match=words) as raised:
        create(**given)
    assert isinstance(raised.value, CoveoInputError)
    assert coveo.requests == []


def test_the_error_of_a_push_only_key_names_its_missing_privilege(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    connect(password=coveo.push_only_key)
    with pytest.raises(AccessDeniedError, match="Fields: View") as raised:
        create(fields={"price": "DOUBLE"})
    assert isinstance(raised.value, AirflowFailException)


def test_rendered_templates_do_not_show_any_document() -> None:
    operator = CreateFieldsOperator(task_id="t", items=[{"documentId": "a://1", "data": "{{ secret }}"}])
    operator.render_template_fields({})
    assert str(operator.items) == "<1 item, not shown>"
