"""The Field API, and the number of items of a source in the Source API."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_coveo.simulator import Simulator
from tests.simulator.client import SOURCE, Client, error

FIELDS = "/indexes/fields"
COLOR = {"name": "color", "type": "STRING"}


def names(client: Client, **options: Any) -> list[str]:
    response = client.post(f"{FIELDS}/search", options)
    assert response.status_code == 200, response.text
    return [field["name"] for field in response.json()["items"]]


def test_an_organization_has_coveos_own_fields_from_the_start(client: Client) -> None:
    title = client.get(f"{FIELDS}/title").json()
    assert (title["name"], title["type"], title["system"]) == ("title", "STRING", True)
    assert "permanentid" in names(client, perPage=1000)
    assert error(client.get(f"{FIELDS}/color"))[0] == 404


def test_a_field_is_created_with_coveos_defaults(client: Client) -> None:
    assert client.post(FIELDS, COLOR).status_code == 204
    assert client.post(FIELDS, {"name": "price", "type": "DOUBLE"}).status_code == 204
    color, price = (client.get(f"{FIELDS}/{name}").json() for name in ("color", "price"))
    assert (color["facet"], color["sort"], color["includeInQuery"], color["system"]) == (
        False,
        False,
        True,
        False,
    )
    assert (price["facet"], price["sort"]) == (True, True)


def test_fields_are_created_in_a_batch_or_not_at_all(coveo: Simulator, client: Client) -> None:
    created = client.post(f"{FIELDS}/batch/create", [COLOR, {"name": "price", "type": "DOUBLE"}])
    assert (created.status_code, created.content) == (204, b"")
    assert names(client, filters={"origin": "USER"}) == ["color", "price"]
    assert coveo.undocumented == []
    half = client.post(f"{FIELDS}/batch/create", [{"name": "size_mm", "type": "LONG"}, COLOR])
    assert error(half) == (412, "INVALID_PARAMETER")
    assert names(client, filters={"origin": "USER"}) == ["color", "price"]
    # Coveo documents no response for a field that exists.
    assert len(coveo.undocumented) == 1


def test_a_batch_with_individual_results_creates_every_valid_field(client: Client) -> None:
    client.post(FIELDS, COLOR)
    response = client.post(f"{FIELDS}/batch/create/results", [COLOR, {"name": "price", "type": "DOUBLE"}])
    assert response.status_code == 200
    assert response.json()["status"] == "COMPLETED"
    results = response.json()["batchOperationResourcesStatus"]
    assert [(one["operationResult"], one["successful"]) for one in results] == [
        ("ERROR", False),
        ("SUCCESS", True),
    ]
    assert "color" in results[0]["errorDetails"]
    assert names(client, filters={"origin": "USER"}) == ["color", "price"]


@pytest.mark.parametrize(
    "field",
    [
        {"name": "productName", "type": "STRING"},
        {"name": "1product", "type": "STRING"},
        {"name": "product-name", "type": "STRING"},
        {"name": "p" * 256, "type": "STRING"},
        {"name": "", "type": "STRING"},
        {"name": ["color"], "type": "STRING"},
        {"name": {"is": "color"}, "type": "STRING"},
        {"type": "STRING"},
        {"name": "color"},
        {"name": "color", "type": "TEXT"},
        {"name": "color", "type": "STRING", "system": True},
        {"name": "color", "type": "STRING", "useCacheForSort": True},
        {"name": "color", "type": "STRING", "useCacheForNumericQuery": True},
        {"name": "color", "type": "STRING", "multilingual": True},
        {"name": "color", "type": "STRING", "smartDateFacet": True},
        {"name": "price", "type": "DOUBLE", "facet": False},
        {"name": "price", "type": "DOUBLE", "sort": False},
        {"name": "price", "type": "DOUBLE", "multiValueFacet": True},
    ],
)
def test_a_field_that_coveo_does_not_allow_is_rejected(client: Client, field: dict[str, Any]) -> None:
    assert client.post(FIELDS, field).status_code == 412
    assert client.post(f"{FIELDS}/batch/create", [field]).status_code == 412
    response = client.post(f"{FIELDS}/batch/create/results", [field])
    # An invalid type rejects the whole request; otherwise, the other fields of the batch could be created.
    if response.status_code != 412:
        (result,) = response.json()["batchOperationResourcesStatus"]
        assert (result["operationResult"], result["successful"]) == ("ERROR", False)
    assert names(client, filters={"origin": "USER"}) == []


def test_a_field_with_the_longest_allowed_name_can_be_created(client: Client) -> None:
    assert client.post(FIELDS, {"name": "p" * 255, "type": "STRING"}).status_code == 204


def test_a_body_that_is_not_a_list_of_fields_is_rejected(coveo: Simulator, client: Client) -> None:
    for body in ({}, ["color"], [[]]):
        assert error(client.post(f"{FIELDS}/batch/create", body)) == (400, "INVALID_JSON")
    raw = f"{client.platform}{FIELDS}/batch/create"
    json_type = {"Content-Type": "application/json"}
    for data in (b"{", b'[{"name": "a", "NAME": "b", "type": "STRING"}]'):
        assert error(client.session.post(raw, data=data, headers=json_type)) == (400, "INVALID_JSON")
    assert error(client.post(FIELDS, {**COLOR, "facet": "yes"})) == (400, "INVALID_JSON")
    assert client.post(FIELDS, {**COLOR, "colour": True}).status_code == 204
    assert [note.rpartition(": ")[2] for note in coveo.undocumented] == ["a field with the option 'colour'"]


def test_fields_are_listed_in_pages_by_name(client: Client) -> None:
    client.post(f"{FIELDS}/batch/create", [{"name": f"user{n}", "type": "STRING"} for n in range(7)])
    user = {"origin": "USER"}
    page = client.post(f"{FIELDS}/search", {"filters": user, "page": 1, "perPage": 3}).json()
    assert [field["name"] for field in page["items"]] == ["user3", "user4", "user5"]
    assert (page["totalEntries"], page["totalPages"]) == (7, 3)
    assert names(client, filters=user, page=2, perPage=3) == ["user6"]
    assert names(client, filters=user, order="DESC", perPage=1) == ["user6"]
    assert len(names(client)) == len(names(client, perPage=1000))


def test_fields_are_filtered(client: Client) -> None:
    client.post(f"{FIELDS}/batch/create", [{**COLOR, "facet": True}, {"name": "price", "type": "DOUBLE"}])
    user = {"origin": "USER"}
    assert names(client, filters={**user, "type": "DOUBLE"}) == ["price"]
    assert names(client, filters={**user, "sort": "TRUE_ONLY"}) == ["price"]
    assert names(client, filters={**user, "facet": "TRUE_ONLY"}) == ["color", "price"]
    assert names(client, filters={**user, "facet": "FALSE_ONLY"}) == []
    assert names(client, filters={"name": "olo"}) == ["color"]
    assert names(client, filters={"fieldNames": ["color", "title", "none"]}) == ["color", "title"]


@pytest.mark.parametrize(
    "options",
    [
        {"page": -1},
        {"perPage": 0},
        {"perPage": 1001},
        {"perPage": True},
        {"order": "UP"},
        {"order": ["ASC"]},
        {"sortBy": "type"},
        {"filters": {"type": "TEXT"}},
        {"filters": {"origin": "MOON"}},
        {"filters": {"origin": {"is": "USER"}}},
        {"filters": {"facet": "YES"}},
        {"filters": {"projectId": "one"}},
    ],
)
def test_an_invalid_option_of_a_listing_is_rejected(client: Client, options: dict[str, Any]) -> None:
    assert error(client.post(f"{FIELDS}/search", options)) == (412, "INVALID_PARAMETER")


@pytest.mark.parametrize("filters", [["title"], {"name": 1}, {"fieldNames": "title"}])
def test_malformed_filters_are_rejected(client: Client, filters: object) -> None:
    assert error(client.post(f"{FIELDS}/search", {"filters": filters}))[0] == 400


def test_the_push_only_key_can_neither_list_nor_create_fields(coveo: Simulator, pusher: Client) -> None:
    for response in (
        pusher.get(f"{FIELDS}/title"),
        pusher.post(f"{FIELDS}/search", {}),
        pusher.post(FIELDS, COLOR),
        pusher.post(f"{FIELDS}/batch/create", [COLOR]),
        pusher.post(f"{FIELDS}/batch/create/results", [COLOR]),
    ):
        assert error(response) == (403, "ACCESS_DENIED")
    assert "color" not in coveo.fields()


def test_a_reset_deletes_the_fields_that_were_created(coveo: Simulator, client: Client) -> None:
    client.post(FIELDS, COLOR)
    assert coveo.fields()["color"]["type"] == "STRING"
    coveo.reset()
    assert "color" not in coveo.fields()


def test_the_number_of_documents_changes_once_the_pipeline_has_processed_items(
    coveo: Simulator, client: Client
) -> None:
    def number() -> int:
        found: int = client.get(f"/sources/{SOURCE}").json()["information"]["numberOfDocuments"]
        return found

    coveo.indexing_delay = 60
    client.batch({"addOrUpdate": [{"documentId": f"a://{n}", "data": "x"} for n in range(3)]})
    assert number() == 0
    coveo.clock.advance(seconds=61)
    assert number() == 3
    coveo.indexing_delay = 0
    client.put("a://1")
    assert number() == 3
    client.delete("a://0")
    assert number() == 2
    cutoff = coveo.clock.now_ms() + 1
    coveo.clock.advance(seconds=1)
    client.put("a://2")
    client.older_than(cutoff)
    assert number() == 2
    coveo.clock.advance(minutes=15)
    assert number() == 1
