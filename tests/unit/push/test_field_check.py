"""Pushes that check the organization's fields, at the socket."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_coveo.coveo.errors import AccessDeniedError, CoveoInputError, ServiceError
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE


def item(number: int, **metadata: Any) -> dict[str, Any]:
    return {"documentId": f"product://{number}", "data": "x", **metadata}


def operations(coveo: Simulator) -> list[str]:
    return [request.operation for request in coveo.requests]


@pytest.fixture(autouse=True)
def _fields(coveo: Simulator) -> None:
    coveo.state.fields.create([{"name": "color", "type": "STRING"}])


def test_a_push_does_not_read_fields_by_default(coveo: Simulator, hook: Any) -> None:
    for options in ({}, {"check_fields": "off"}, {"check_fields": None}, {"check_fields": ""}):
        result = hook.push_items(SOURCE, [item(1, weight=1)], **options)
        assert "unknown_fields" not in result
    assert "list_fields" not in operations(coveo)


def test_a_warning_names_the_keys_without_a_field_and_every_item_is_pushed(
    coveo: Simulator, hook: Any, logged: Callable[[], str]
) -> None:
    items = [item(1, color="red"), item(2, Color="red", Weight=1), item(3, weight=2), item(4, size_mm=1)]
    result = hook.push_items(SOURCE, items, check_fields="WARN")
    assert result["unknown_fields"] == ["Weight", "size_mm"]
    assert len(coveo.items(SOURCE)) == 4
    assert operations(coveo).count("list_fields") == 1
    text = logged()
    assert text.count("No field for the metadata key 'Weight' (first in item 1)") == 1
    assert "'weight'" not in text
    json.dumps(result)


def test_with_check_fields_fail_no_item_with_a_key_without_a_field_is_sent(
    coveo: Simulator, hook: Any
) -> None:
    def items() -> Iterator[dict[str, Any]]:
        yield from (item(n, color="red", data="x" * 900) for n in range(10))
        yield item(10, weight=1)
        yield item(11, width=1)

    with pytest.raises(CoveoInputError, match=r"no field for 2 .*'weight' \(first in item 10\), 'width'"):
        hook.push_items(SOURCE, items(), check_fields="fail", batch_bytes=2048)
    pushed = coveo.items(SOURCE)
    assert 0 < len(pushed) <= 10
    assert "product://10" not in pushed
    assert "product://11" not in pushed


def test_with_check_fields_fail_a_push_that_fails_at_its_first_item_sends_nothing(
    coveo: Simulator, hook: Any
) -> None:
    with pytest.raises(CoveoInputError, match="CreateFieldsOperator"):
        hook.push_items(SOURCE, [item(1, weight=1)], check_fields="fail")
    assert operations(coveo) == ["list_fields"]


def test_invalid_items_before_a_key_without_a_field_are_counted_too(hook: Any) -> None:
    items = [item(1, color={}), item(2, weight=1)]
    with pytest.raises(CoveoInputError, match=r"'weight'.*found 1 invalid item"):
        hook.push_items(SOURCE, items, check_fields="fail", on_invalid="skip")


@pytest.mark.parametrize("mode", ["warn", "fail"])
def test_json_and_deletions_pass_the_check(coveo: Simulator, hook: Any, mode: str) -> None:
    from airflow_provider_coveo.coveo.items import Delete

    items = [json.dumps(item(1, color="red")).encode(), Delete("product://9"), item(2, color="blue")]
    result = hook.push_items(SOURCE, items, delete=["product://8"], check_fields=mode)
    assert (result["accepted_adds"], result["accepted_deletes"]) == (2, 2)
    assert result["unknown_fields"] == []


def test_with_a_push_only_key_the_check_is_skipped_and_logged(
    coveo: Simulator, hook: Any, connect: Callable[..., None], logged: Callable[[], str]
) -> None:
    connect(password=coveo.push_only_key)
    result = hook.push_items(SOURCE, [item(n, weight=n) for n in range(3)], check_fields="warn")
    assert "unknown_fields" not in result
    assert len(coveo.items(SOURCE)) == 3
    assert "Fields are not checked: the API key lacks the privilege to view them" in logged()
    assert operations(coveo).count("list_fields") == 1


def test_with_check_fields_fail_a_key_that_cannot_view_fields_fails_before_anything_is_sent(
    coveo: Simulator, hook: Any, connect: Callable[..., None]
) -> None:
    connect(password=coveo.push_only_key)
    with pytest.raises(AccessDeniedError, match="Fields: View"):
        hook.push_items(SOURCE, [item(1)], check_fields="fail")
    assert operations(coveo) == ["list_fields"]


def test_an_unavailable_field_api_does_not_delay_a_push_that_only_warns(
    coveo: Simulator, hook: Any, logged: Callable[[], str]
) -> None:
    coveo.faults.answer(503, operation="list_fields", times=None)
    assert hook.push_items(SOURCE, [item(1, weight=1)], check_fields="warn")["accepted_adds"] == 1
    assert operations(coveo).count("list_fields") == 1
    assert "Fields are not checked: " in logged()
    with pytest.raises(ServiceError):
        hook.push_items(SOURCE, [item(1)], check_fields="fail")
    assert len([one for one in operations(coveo) if one == "batch"]) == 1


def test_an_invalid_check_fields_value_is_rejected_before_anything_is_sent(
    coveo: Simulator, hook: Any
) -> None:
    for value in ("yes", True, 1):
        with pytest.raises(CoveoInputError, match="Invalid check_fields"):
            hook.push_items(SOURCE, [item(1)], check_fields=value)
    assert coveo.requests == []
