"""Fields at the socket: listed, created, and created concurrently with others."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_coveo.coveo.errors import (
    AccessDeniedError,
    CoveoInputError,
    InvalidParameterError,
    NoAnswerError,
    UnexpectedAnswerError,
)
from airflow_provider_coveo.simulator import Simulator

FIELDS = {"price": "DOUBLE", "color": {"type": "STRING", "multiValueFacet": True}}


def operations(coveo: Simulator) -> list[str]:
    return [request.operation for request in coveo.requests]


def test_fields_are_listed_page_by_page(coveo: Simulator, hook: Any) -> None:
    coveo.state.fields.create({"name": f"f{n}", "type": "STRING"} for n in range(1_500))
    assert {field["name"] for field in hook.list_fields()} == coveo.fields().keys()
    assert operations(coveo) == ["list_fields", "list_fields"]


def test_missing_fields_are_created_once(coveo: Simulator, hook: Any) -> None:
    first = hook.create_fields(FIELDS)
    assert first == {
        "created": 2,
        "existing": 0,
        "fields": ["price", "color"],
        "conflicts": [],
        "dry_run": False,
    }
    assert coveo.fields()["color"]["multiValueFacet"] is True
    again = hook.create_fields({**FIELDS, "title": "STRING"})
    assert (again["created"], again["existing"], again["fields"]) == (0, 3, [])
    assert operations(coveo).count("create_fields") == 1
    json.dumps(again)


def test_a_dry_run_creates_nothing(coveo: Simulator, hook: Any) -> None:
    result = hook.create_fields({**FIELDS, "title": "STRING"}, dry_run=True)
    assert result == {
        "created": 0,
        "existing": 1,
        "fields": ["price", "color"],
        "conflicts": [],
        "dry_run": True,
    }
    assert operations(coveo) == ["list_fields"]


def test_fields_that_coveo_would_reject_are_rejected_before_anything_is_sent(
    coveo: Simulator, hook: Any
) -> None:
    with pytest.raises(CoveoInputError, match="Invalid field name: 'Price'"):
        hook.create_fields({"color": "STRING", "Price": "DOUBLE"})
    assert coveo.requests == []


def test_a_field_with_another_type_is_reported_and_left_as_it_is(
    coveo: Simulator, hook: Any, logged: Callable[[], str]
) -> None:
    coveo.state.fields.create([{"name": "price", "type": "STRING"}])
    conflict = {"name": "price", "type": "DOUBLE", "existing_type": "STRING"}
    assert hook.create_fields(FIELDS)["conflicts"] == [conflict]
    # A text can contain a number, so it is no conflict unless exactly that type was requested.
    assert hook.create_fields(FIELDS, exact=())["conflicts"] == []
    assert coveo.fields()["price"]["type"] == "STRING"
    assert "Field price has the type STRING, not DOUBLE; left unchanged" in logged()


def test_many_fields_are_created_in_requests_of_500(coveo: Simulator, hook: Any) -> None:
    result = hook.create_fields({f"f{n}": "STRING" for n in range(1_001)})
    assert (result["created"], len(result["fields"])) == (1_001, 100)
    assert operations(coveo).count("create_fields") == 3


@pytest.mark.parametrize("applied", [True, False])
def test_a_request_without_a_response_is_repeated_only_if_it_was_not_applied(
    coveo: Simulator, hook: Any, applied: bool
) -> None:
    coveo.faults.drop(operation="create_fields", before=not applied)
    result = hook.create_fields(FIELDS)
    assert (result["created"], sorted(result["fields"])) == (2, ["color", "price"])
    assert coveo.fields()["price"]["type"] == "DOUBLE"
    again = [] if applied else ["create_fields"]
    assert operations(coveo) == ["list_fields", "create_fields", "list_fields", *again]
    assert coveo.undocumented == []


def test_a_field_that_somebody_else_creates_meanwhile_is_accepted(
    coveo: Simulator, hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    list_fields = coveo.state.fields.all
    calls = []

    def create_meanwhile() -> list[dict[str, Any]]:
        listed = list_fields()
        if not calls:
            calls.append(1)
            coveo.state.fields.create([{"name": "price", "type": "DATE"}])
        return listed

    monkeypatch.setattr(coveo.state.fields, "all", create_meanwhile)
    result = hook.create_fields(FIELDS)
    assert (result["created"], result["existing"], result["fields"]) == (1, 1, ["color"])
    assert [conflict["existing_type"] for conflict in result["conflicts"]] == ["DATE"]


def test_a_field_that_coveo_rejects_fails_the_call(coveo: Simulator, hook: Any) -> None:
    with pytest.raises(InvalidParameterError, match="smartDateFacet"):
        hook.create_fields({"color": {"type": "STRING", "smartDateFacet": True}})
    assert operations(coveo) == ["list_fields", "create_fields", "list_fields"]


def test_a_call_that_never_gets_a_response_fails(coveo: Simulator, hook: Any) -> None:
    coveo.faults.drop(operation="create_fields", times=1000)
    with pytest.raises(NoAnswerError):
        hook.create_fields(FIELDS)


def test_the_error_of_a_push_only_key_names_the_missing_privilege(
    coveo: Simulator, hook: Any, connect: Callable[..., None]
) -> None:
    connect(password=coveo.push_only_key)
    with pytest.raises(AccessDeniedError, match="Fields: View"):
        hook.list_fields()
    with pytest.raises(AccessDeniedError, match="Fields: View"):
        hook.create_fields(FIELDS)


def test_the_error_of_a_key_that_cannot_create_fields_names_the_privilege(
    coveo: Simulator, hook: Any
) -> None:
    coveo.faults.answer(403, operation="create_fields", error_code="ACCESS_DENIED")
    with pytest.raises(AccessDeniedError, match="Fields: Create"):
        hook.create_fields(FIELDS)


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b'{"items": {}}', b'{"items": [{}]}', b'{"items": [], "totalPages": "1"}']
)
def test_a_response_that_is_not_a_page_of_fields_is_an_error(
    coveo: Simulator, hook: Any, body: bytes
) -> None:
    coveo.faults.answer(200, operation="list_fields", body=body)
    with pytest.raises(UnexpectedAnswerError):
        hook.list_fields()
