"""Fields: names and types, metadata without a field, and the fields that metadata needs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.coveo.fields import (
    MAX_UNKNOWN_SHOWN,
    FieldCheck,
    FieldPlan,
    FieldSurvey,
    FieldType,
    validate_field_name,
    validate_fields,
)
from airflow_provider_coveo.coveo.items import Delete, Item

log = logging.getLogger(__name__)


def surveyed(*items: dict[str, Any]) -> dict[str, dict[str, Any]]:
    survey = FieldSurvey()
    for place, item in enumerate(items):
        survey.look_at(place, item)
    return survey.fields()


@pytest.mark.parametrize("name", ["a", "product_name", "p__r0duct", "p" * 255])
def test_a_name_that_coveo_allows_is_valid(name: str) -> None:
    assert validate_field_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "A", "productName", "1a", "_a", "a-b", "a b", "größe", "p" * 256, 1, None]
)
def test_any_other_name_is_invalid(name: object) -> None:
    with pytest.raises(CoveoInputError, match="Invalid field name"):
        validate_field_name(name)


@pytest.mark.parametrize("name", ["documentid", "data", "permissions", "parentid", "fileextension"])
def test_a_key_that_is_part_of_the_item_cannot_be_a_field(name: str) -> None:
    with pytest.raises(CoveoInputError, match="as a part of the item"):
        validate_field_name(name)


def test_a_field_can_be_defined_by_its_type_or_its_options() -> None:
    given = {"price": "double", "stock": FieldType.LONG, "color": {"type": "STRING", "multiValueFacet": True}}
    assert validate_fields(given) == {
        "price": {"name": "price", "type": "DOUBLE"},
        "stock": {"name": "stock", "type": "LONG"},
        "color": {"name": "color", "type": "STRING", "multiValueFacet": True},
    }


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (["price"], "Invalid fields"),
        ({"price": "FLOAT"}, "Invalid type of field 'price'"),
        ({"price": None}, "Invalid type of field 'price'"),
        ({"price": {"facet": True}}, "Invalid type of field 'price'"),
        ({"price": {"type": "DOUBLE", "color": "red"}}, "has the option 'color'"),
        ({"price": {"type": "DOUBLE", "facet": "true"}}, "Invalid facet of field 'price'"),
        ({"price": {"type": "DOUBLE", "system": True}}, "has the option 'system'"),
        ({"price": {"type": "DOUBLE", "name": "cost"}}, "a different name"),
    ],
)
def test_a_field_that_coveo_would_reject_is_invalid(fields: Any, words: str) -> None:
    with pytest.raises(CoveoInputError, match=words):
        validate_fields(fields)


def test_metadata_keys_match_fields_in_any_case_and_coveos_own_keys_need_no_field() -> None:
    check = FieldCheck({"productname"})
    item = {
        "documentId": "a://1",
        "DATA": "x",
        "fileExtension": ".txt",
        "permissions": [],
        "title": "t",
        "clickableUri": "https://a",
        "ProductName": "Anvil",
    }
    assert check.look_at(0, item) == []
    assert check.look_at(1, {**item, "Color": "red"}) == ["Color"]
    assert check.look_at(2, {**item, "color": "red", "weight": 2}) == ["weight"]
    assert (check.result(), check.count) == (["Color", "weight"], 2)
    assert "'Color' (first in item 1)" in check.words()


@pytest.mark.parametrize(
    "item",
    [
        {"documentId": "a://1", "color": "red"},
        b'{"documentId": "a://1", "color": "red"}',
        bytearray(b'{"documentId": "a://1", "color": "red"}'),
        Item("a://1", metadata={"color": "red"}),
    ],
)
def test_every_kind_of_item_is_checked(item: Any) -> None:
    assert FieldCheck(()).look_at(0, item) == ["color"]


@pytest.mark.parametrize("item", [Delete("a://1"), None, 1, "text", b"{", b"[]", {1: 2}, Item(1, metadata=3)])  # type: ignore[arg-type]
def test_entries_without_keys_are_left_to_the_push(item: Any) -> None:
    assert FieldCheck(()).look_at(0, item) == []


def test_a_warning_names_each_key_once(caplog: pytest.LogCaptureFixture) -> None:
    check = FieldCheck({"color"})
    items = [{"color": 1}, {"color": 1, "size_mm": 2}, {"size_mm": 3}, {"Size_MM": 4, "a b": 5}]
    with caplog.at_level(logging.WARNING):
        assert list(check.watched(items, log, fails=False)) == items
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "No field for the metadata key 'size_mm' (first in item 1)",
        "No field for the metadata key 'a b' (first in item 3)",
    ]
    assert "'a b' (first in item 3; not a valid field name)" in check.words()


def test_a_warning_about_several_keys_uses_the_plural(caplog: pytest.LogCaptureFixture) -> None:
    list(FieldCheck(()).watched([{"sizes": 1, "big": 2}], log, fails=False))
    (message,) = caplog.messages
    assert message == (
        "No field for the metadata keys 'sizes', 'big' (first in item 0): they are not searchable unless a "
        "mapping of the source uses them"
    )


def test_a_failing_check_stops_at_the_first_unknown_key_and_names_later_ones() -> None:
    def items() -> Iterator[dict[str, Any]]:
        yield {"color": 1}
        yield {"weight": 1}
        yield {"width": 1}

    watched = FieldCheck({"color"}).watched(items(), log, fails=True)
    assert next(watched) == {"color": 1}
    with pytest.raises(CoveoInputError, match=r"no field for 2 .*'weight' \(first in item 1\), 'width'"):
        next(watched)


def test_an_input_that_fails_after_an_unknown_key_does_not_hide_it() -> None:
    def items() -> Iterator[dict[str, Any]]:
        yield {"weight": 1}
        raise OSError("gone")

    with pytest.raises(CoveoInputError, match="'weight'"):
        list(FieldCheck(()).watched(items(), log, fails=True))


def test_the_number_and_length_of_remembered_unknown_keys_are_limited() -> None:
    check = FieldCheck(())
    for place in range(3_000):
        check.look_at(place, {f"{place}{'k' * 300}": 1})
    assert check.count == 1_000
    assert len(check.result()) == MAX_UNKNOWN_SHOWN
    assert max(map(len, check.result())) == 255


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1], "LONG_64"),
        ([2**40], "LONG_64"),
        ([1, 1.5], "DOUBLE"),
        ([1.5, 1], "DOUBLE"),
        (["red"], "STRING"),
        ([True], "STRING"),
        ([True, 1], "STRING"),
        ([1, "red"], "STRING"),
        (["2025-01-31"], "DATE"),
        (["2025-01-31T10:00:00Z", "2025-01-31T10:00:00.123456789+02:00", "2025-01-31T10:00:00+0200"], "DATE"),
        (["2025-01-31", "soon"], "STRING"),
        (["2025-01-31", 1], "STRING"),
        (["2025-02-31"], "STRING"),
        (["2025-01-31T10:00:00"], "STRING"),
        ([None, 1], "LONG_64"),
    ],
)
def test_a_field_gets_the_type_that_can_hold_all_its_values(values: list[Any], kind: str) -> None:
    fields = surveyed(*({"documentId": "a://1", "Value": value} for value in values))
    assert fields == {"value": {"type": kind}}


@pytest.mark.parametrize("values", [[["a", "b"]], [[1, 2]], ["a", ["b"]], [["b"], "a"], [[1], 2]])
def test_lists_become_string_fields_with_several_values(values: list[Any]) -> None:
    fields = surveyed(*({"tags": value} for value in values))
    assert fields == {"tags": {"type": "STRING", "multiValueFacet": True}}


def test_standard_fields_and_keys_without_values_need_no_field() -> None:
    assert (
        surveyed({"documentId": "a://1", "data": "x", "title": "t", "date": 1, "empty": None, "none": []})
        == {}
    )


def test_the_error_names_all_keys_that_cannot_be_fields() -> None:
    survey = FieldSurvey()
    survey.look_at(0, {"a-b": 1, "fine": 2})
    survey.look_at(7, {"2nd": 1})
    with pytest.raises(CoveoInputError, match=r"2 metadata keys.*'a-b' \(item 0\), '2nd' \(item 7\)"):
        survey.fields()


def test_too_many_different_keys_are_rejected() -> None:
    survey = FieldSurvey()
    for place in range(5_000):
        survey.look_at(place, {f"k{place}": 1})
    with pytest.raises(CoveoInputError, match="more than 5,000 metadata keys"):
        survey.look_at(5_000, {"k5000": 1})


def test_existing_fields_are_not_changed_and_reported_if_they_cannot_hold_the_values() -> None:
    wanted = validate_fields(
        {"price": "DOUBLE", "stock": "LONG", "sku": "LONG", "note": "DATE", "new": "DATE"}
    )
    known = {
        "price": {"type": "DOUBLE"},
        "stock": {"type": "LONG_64"},
        "sku": {"type": "STRING"},
        "note": {"type": "LONG"},
        "other": {"type": "VECTOR"},
    }
    plan = FieldPlan.of(wanted, known)
    assert [field["name"] for field in plan.missing] == ["new"]
    assert plan.existing == ("price", "stock", "sku", "note")
    assert plan.conflicts == ({"name": "note", "type": "DATE", "existing_type": "LONG"},)
    exact = FieldPlan.of(wanted, known, exact=wanted)
    assert [conflict["name"] for conflict in exact.conflicts] == ["stock", "sku", "note"]
