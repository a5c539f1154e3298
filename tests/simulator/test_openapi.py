"""The validation against Coveo's OpenAPI files finds violations."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_coveo.simulator import Exchange
from tests.openapi import Contracts, load_contracts

PUSH = "/push/v1/organizations/acme"
SOURCE = "/rest/organizations/acme/sources/a"


@pytest.fixture
def contracts() -> Contracts:
    loaded = load_contracts()
    if loaded is None:
        pytest.skip("Coveo's OpenAPI files are not at hand")
    return loaded


def exchange(method: str, path: str, query: dict[str, str] | None = None, **more: Any) -> Exchange:
    described: dict[str, Any] = {"headers": {"content-type": "application/json"}, "body": b"", **more}
    raw_query = "&".join(f"{name}={value}" for name, value in (query or {}).items())
    size = len(described["body"])
    return Exchange(method, path, query or {}, raw_query, body_size=size, client_port=1, **described)


@pytest.mark.parametrize(
    ("one", "violation"),
    [
        (exchange("POST", f"{PUSH}/nothing"), "no file declares"),
        (exchange("POST", f"{PUSH}/sources/a/status"), "'statusType' is missing"),
        (exchange("POST", f"{PUSH}/sources/a/status", {"statusType": "RESCAN"}), "none of"),
        (exchange("POST", f"{PUSH}/sources/a/status", {"statusType": "IDLE", "a": "b"}), "not declared"),
        (
            exchange("POST", f"{PUSH}/sources/a/status", {"statusType": "IDLE"}, body=b"{1}"),
            "none is declared",
        ),
        (exchange("DELETE", f"{PUSH}/sources/a/documents/olderthan", {"orderingId": "1e3"}), "no integer"),
        (
            exchange(
                "DELETE", f"{PUSH}/sources/a/documents/olderthan", {"orderingId": "1", "queueDelay": "-1"}
            ),
            "below 0",
        ),
        (exchange("PUT", f"{PUSH}/sources/a/documents", {"documentId": "a://b"}), "no body"),
        (exchange("PUT", f"{PUSH}/sources/a/documents", {"documentId": "a://b"}, body=b"{"), "not JSON"),
        (
            exchange("PUT", f"{PUSH}/sources/a/documents", {"documentId": "a://b"}, body=b'{"data":1}'),
            "data: 1",
        ),
    ],
)
def test_a_request_that_violates_the_contract_is_detected(
    contracts: Contracts, one: Exchange, violation: str
) -> None:
    assert any(violation in found for found in contracts.check_request(one))


@pytest.mark.parametrize(
    ("one", "violation"),
    [
        (exchange("POST", f"{PUSH}/files", status=200), "status 200 is not declared"),
        (exchange("POST", f"{PUSH}/files", status=201), "not JSON"),
        (exchange("POST", f"{PUSH}/files", status=201, response_body=b'{"fileId": 1}'), "fileId: 1"),
        (exchange("POST", f"{PUSH}/files", status=403, response_body=b"[]"), "is not of type"),
        (exchange("GET", SOURCE, status=202), "status 202 is not declared"),
        (exchange("GET", SOURCE, status=200, response_body=b'{"pushEnabled": 1}'), "not valid under any"),
    ],
)
def test_a_response_that_violates_the_contract_is_detected(
    contracts: Contracts, one: Exchange, violation: str
) -> None:
    assert any(violation in found for found in contracts.check_response(one))


def test_exchanges_that_no_openapi_file_declares_are_skipped_by_name(contracts: Contracts) -> None:
    one = exchange("GET", "/rest/organizations/acme/limits/content/any", status=200)
    assert contracts.skipped(one) == "limit"
    assert contracts.check(one) == []


def test_the_response_of_an_injected_fault_is_not_checked(contracts: Contracts) -> None:
    assert contracts.check(exchange("POST", f"{PUSH}/files", status=502, fault="answer 502")) == []
