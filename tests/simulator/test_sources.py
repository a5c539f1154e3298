"""The Source API."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_coveo.simulator import Simulator
from tests.simulator.client import SOURCE, Client, error


def light(client: Client, source: str) -> dict[str, Any]:
    model: dict[str, Any] = client.get(f"/sources/{source}/light").json()
    return model


def test_a_source_shows_its_kind_and_its_number_of_items(coveo: Simulator, client: Client) -> None:
    client.put("https://acme.com/1")
    source = client.get(f"/sources/{SOURCE}").json()
    assert source["id"] == SOURCE
    assert (source["sourceType"], source["pushEnabled"], source["onPremisesEnabled"]) == ("PUSH", True, False)
    assert source["sourceVisibility"] == "SHARED"
    assert source["information"]["numberOfDocuments"] == 1


def test_the_source_api_shows_which_product_manages_a_source(coveo: Simulator, client: Client) -> None:
    coveo.add_source("sitecore", crawler="SITECORE")
    coveo.add_source("on-premises", crawler="CRAWLING_MODULE")
    assert light(client, SOURCE)["sourceType"] == "PUSH"
    assert light(client, "sitecore")["sourceType"] == "SITECORE"
    assert light(client, "on-premises")["onPremisesEnabled"] is True
    assert "crawlingModuleId" in client.get("/sources/on-premises").json()


def test_sources_are_listed_by_name_in_pages(coveo: Simulator, client: Client) -> None:
    coveo.add_source("b", name="Beta")
    coveo.add_source("a", name="Alpha")
    assert [one["name"] for one in client.get("/sources").json()] == ["Alpha", "Beta", SOURCE]
    assert [one["name"] for one in client.get("/sources", page=1, perPage=2).json()] == [SOURCE]
    page = client.get("/sources/pages", perPage=2, sortingOrder="DESC").json()
    assert [one["name"] for one in page["sourceModels"]] == [SOURCE, "Beta"]
    assert (page["totalEntries"], page["totalPages"]) == (3, 2)


def test_sources_are_filtered_by_name_and_by_host(coveo: Simulator, client: Client) -> None:
    coveo.add_source("b", name="Acme on premises", crawler="CRAWLING_MODULE")

    def found(**parameters: str) -> list[str]:
        return [one["id"] for one in client.get("/sources", **parameters).json()]

    assert found(filter="acme") == ["b", SOURCE]
    assert found(filter="acme-p*s") == [SOURCE]
    assert found(filter="acme", stringFilterType="EXACTMATCH") == []
    assert found(filterHostType="PUSH") == [SOURCE]
    assert found(filterHostType="CRAWLING_MODULE") == ["b"]
    assert found(filterHostType="CLOUD") == []


def test_unsupported_sort_orders_are_rejected(client: Client) -> None:
    assert error(client.get("/sources", sortingType="CONTENT")) == (412, "INVALID_PARAMETER")
    assert error(client.get("/sources", filterHostType="MOON")) == (412, "INVALID_PARAMETER")


def test_a_push_source_can_be_created_and_deleted(coveo: Simulator, client: Client) -> None:
    body = {"sourceType": "PUSH", "name": "New", "sourceVisibility": "SECURED", "pushEnabled": True}
    answer = client.post("/sources", body)
    assert answer.status_code == 201
    created = answer.json()["id"]
    assert client.status("REBUILD", source=created).status_code == 201
    assert coveo.source(created)["sourceVisibility"] == "SECURED"
    deleted = client.session.delete(f"{client.platform}/sources/{created}")
    assert deleted.json()["id"] == created
    assert client.get(f"/sources/{created}").status_code == 404
    assert error(client.status("IDLE", source=created)) == (412, "SOURCE_DOES_NOT_EXIST")


def test_only_push_sources_can_be_created(client: Client) -> None:
    body = {"sourceType": "WEB2", "name": "Web", "sourceVisibility": "SHARED"}
    assert error(client.post("/sources", body)) == (412, "INVALID_PARAMETER")
    assert error(client.post("/sources", {**body, "sourceType": "PUSH", "sourceVisibility": "ALL"}))[0] == 412
    assert error(client.post("/sources", {**body, "sourceType": "PUSH", "name": ""}))[0] == 412


def test_a_duplicate_is_a_separate_empty_push_source(coveo: Simulator, client: Client) -> None:
    coveo.add_source("sitecore", visibility="SECURED", crawler="SITECORE")
    client.older_than(10**18, source="sitecore", queueDelay=0)
    answer = client.post("/sources/sitecore/duplicate", newSourceName="Copy")
    assert answer.status_code == 201
    copy = answer.json()
    assert (copy["name"], copy["sourceType"], copy["sourceVisibility"]) == ("Copy", "PUSH", "SECURED")
    item = {"data": "text", "permissions": [{"allowAnonymous": True}]}
    client.put("https://acme.com/1", item, source=copy["id"])
    assert len(coveo.items(copy["id"])) == 1
    assert coveo.items("sitecore") == {}


def test_a_duplicate_needs_a_name_and_a_repeated_name_is_noted(coveo: Simulator, client: Client) -> None:
    assert error(client.post(f"/sources/{SOURCE}/duplicate")) == (412, "MISSING_PARAMETER")
    assert client.post(f"/sources/{SOURCE}/duplicate", newSourceName=SOURCE).status_code == 201
    assert len(coveo.undocumented) == 1


@pytest.mark.parametrize(
    ("state", "type_", "extended"),
    [
        ("PAUSED_ON_ERROR", "PAUSED_ON_ERROR", "PAUSED_ON_ERROR"),
        ("DISABLED", "DISABLED", "DISABLED"),
        ("DELETING", "REFRESHING", "DELETING"),
        (None, "REFRESHING", "REFRESHING"),
    ],
)
def test_the_state_that_a_source_shows_can_be_set(
    coveo: Simulator, client: Client, state: str | None, type_: str, extended: str
) -> None:
    client.status("REBUILD")
    coveo.set_source_state(SOURCE, "ERROR")
    coveo.set_source_state(SOURCE, state, error_code="OOPS")
    status = client.get(f"/sources/{SOURCE}").json()["information"]["sourceStatus"]
    assert (status["type"], status["extendedCurrentStatus"]) == (type_, extended)
    assert status["pausedOnErrorCode"] == "OOPS"
    with pytest.raises(ValueError, match="state must be None or one of"):
        coveo.set_source_state(SOURCE, "SLEEPING")
