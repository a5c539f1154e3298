"""A Push source as an asset: each source has one URI, however it is spelled."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Asset

from airflow_provider_coveo.assets.coveo_push import push_source_asset
from airflow_provider_coveo.coveo.errors import CoveoInputError

URI = "coveo://acme/acme-products"


def test_the_asset_of_a_source_has_its_uri_and_the_given_extra() -> None:
    asset = push_source_asset(organization_id="acme", source_id="acme-products", extra={"team": "search"})
    assert asset.uri == URI
    assert asset.extra == {"team": "search"}
    same = push_source_asset(organization_id="ACME", source_id="acme-products")
    # Airflow 3 compares assets by name and URI; 2.11 has no names.
    assert getattr(same, "name", URI) == same.uri == URI


@pytest.mark.parametrize(
    "uri",
    [
        "coveo://acme/acme-products",
        "coveo://acme/acme-products/",
        "coveo://ACME/acme-products",
        "COVEO://acme/acme-products",
        "coveo://acme//acme-products",
        "coveo://acme/acme-products#fragment",
    ],
)
def test_all_forms_of_a_uri_become_the_same_one(uri: str) -> None:
    assert Asset(uri=uri).uri == URI


def test_the_case_of_a_source_id_is_significant() -> None:
    assert Asset(uri="coveo://acme/Products").uri == "coveo://acme/Products"


@pytest.mark.parametrize(
    "uri",
    [
        "coveo://acme",
        "coveo://acme/",
        "coveo:///acme-products",
        "coveo://acme/acme-products/more",
        "coveo://acme/acme-products?status=IDLE",
        "coveo://acme:443/acme-products",
        "coveo://acme/{{ params.source }}",
    ],
)
def test_a_uri_without_exactly_one_source_is_rejected(uri: str) -> None:
    with warnings.catch_warnings():
        # Airflow 2.11 only warns about what Airflow 3 rejects.
        warnings.simplefilter("error")
        with pytest.raises((ValueError, UserWarning), match="Invalid URI of a Push source"):
            Asset(uri=uri)


@pytest.mark.parametrize(
    "ids", [("acme", ""), ("", "acme-products"), ("acme", "{{ params.source }}"), ("a/b", "c")]
)
def test_an_invalid_id_is_rejected(ids: tuple[str, str]) -> None:
    with pytest.raises(CoveoInputError):
        push_source_asset(organization_id=ids[0], source_id=ids[1])


def test_airflow_finds_the_factory_and_the_converter_by_the_scheme() -> None:
    from airflow.providers_manager import ProvidersManager

    manager: Any = ProvidersManager()
    for kind in ("asset", "dataset"):
        factories = getattr(manager, f"{kind}_factories", None)
        if factories is not None:
            assert factories["coveo"] is push_source_asset
            converters = getattr(manager, f"{kind}_to_openlineage_converters")
            assert converters["coveo"].__name__ == "convert_asset_to_openlineage"
            return
    raise AssertionError("neither kind is known")
