from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.coveo.sources import (
    active_since_ms,
    is_active,
    managed_by,
    push_status,
    validate_source_name,
)


def source(**status: Any) -> dict[str, Any]:
    return {"id": "acme-products", "information": {"sourceStatus": status}}


@pytest.mark.parametrize(
    ("status", "active"),
    [("REFRESHING", True), ("PUSH_READY", False), ("IDLE", False), ("ERROR", False), (None, False)],
)
def test_a_source_is_active_while_it_is_refreshing(status: str | None, active: bool) -> None:
    assert is_active(source(type=status)) is active


@pytest.mark.parametrize("name", ["Products", "Schöne Dinge (2)", "none"])
def test_a_name_is_a_line_of_text(name: str) -> None:
    assert validate_source_name(name) == name


@pytest.mark.parametrize("name", ["", " x", "x ", "a\nb", 5, []])
def test_invalid_names_are_rejected(name: object) -> None:
    with pytest.raises(CoveoInputError, match="Invalid source name"):
        validate_source_name(name)


@pytest.mark.parametrize("name", [None, "None"])
def test_a_name_from_a_template_that_rendered_to_none_is_rejected(name: object) -> None:
    with pytest.raises(CoveoInputError, match="a template rendered to nothing"):
        validate_source_name(name)


@pytest.mark.parametrize("nothing", [{}, {"information": None}, {"information": {"sourceStatus": None}}])
def test_a_source_without_a_status_is_not_active(nothing: dict[str, Any]) -> None:
    assert not is_active(nothing)
    assert active_since_ms(nothing) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1_795_500_000_000, 1_795_500_000_000),
        ("2026-11-24T06:00:00Z", 1_795_500_000_000),
        ("2026-11-24T06:00:00.000+00:00", 1_795_500_000_000),
        ("2026-11-24T06:00:00", 1_795_500_000_000),
        ("yesterday", None),
        (True, None),
    ],
)
def test_the_start_of_the_activity_can_be_a_timestamp_or_an_iso_date(
    value: object, expected: int | None
) -> None:
    assert active_since_ms(source(createdDate=value)) == expected


def test_the_start_of_the_activity_takes_precedence_over_the_date_of_the_status() -> None:
    assert active_since_ms(source(createdDate=5, timestamp=9)) == 5
    assert active_since_ms(source(timestamp=9)) == 9


@pytest.mark.parametrize(
    ("source", "product"),
    [
        ({"sourceType": "SITECORE"}, "Coveo for Sitecore"),
        ({"sourceType": "DATABASE", "crawlerInstanceType": "CRAWLING_MODULE"}, "the Coveo Crawling Module"),
        ({"sourceType": "DATABASE", "onPremisesEnabled": True}, "the Coveo Crawling Module"),
        ({"sourceType": "PUSH", "crawlerInstanceType": "CLOUD", "onPremisesEnabled": False}, None),
        ({}, None),
    ],
)
def test_any_of_several_fields_identifies_the_product_that_manages_a_source(
    source: dict[str, Any], product: str | None
) -> None:
    assert managed_by(source) == product


def test_a_status_that_is_not_text_has_no_push_api_status() -> None:
    assert push_status({"information": {"sourceStatus": {"type": ["IDLE"]}}}) is None
