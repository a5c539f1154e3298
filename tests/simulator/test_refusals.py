"""Privileges and limits."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

import pytest

from airflow_provider_coveo.simulator import Simulator
from tests.conftest import keep_off_midnight
from tests.simulator.client import SOURCE, Client, error

A, B = "https://acme.com/a", "https://acme.com/b"


def test_requests_without_a_bearer_token_are_unauthorized(coveo: Simulator) -> None:
    stranger = Client(coveo, None)
    assert error(stranger.status("REBUILD")) == (401, "UNAUTHORIZED")
    stranger.session.headers["Authorization"] = "Basic abc"
    assert error(stranger.get("/sources")) == (401, "UNAUTHORIZED")
    assert coveo.statuses(SOURCE) == []


def test_an_unknown_key_is_an_invalid_token(coveo: Simulator) -> None:
    assert error(Client(coveo, "wrong").status("REBUILD")) == (401, "INVALID_TOKEN")


def test_the_push_only_key_can_push_but_lacks_every_other_privilege(coveo: Simulator, pusher: Client) -> None:
    assert pusher.status("REBUILD").status_code == 201
    assert pusher.batch({"addOrUpdate": [{"documentId": A, "data": "text"}]}).status_code == 202
    for answer in (
        pusher.get("/sources"),
        pusher.get(f"/sources/{SOURCE}"),
        pusher.post("/activities/latest", {"states": []}),
        pusher.item_logs(),
        pusher.get("/limits/content/pushApiMaximumDailyDocumentLimit"),
    ):
        assert error(answer) == (403, "ACCESS_DENIED")
    assert pusher.get("/status").json()["lifeCycleState"] == "ACTIVE"


def test_an_unknown_organization_is_not_found(coveo: Simulator, client: Client) -> None:
    for url in (
        f"{coveo.url}/push/v1/organizations/other/sources/{SOURCE}/status?statusType=IDLE",
        f"{coveo.url}/push/v1/organizations/other/files",
    ):
        assert error(client.session.post(url)) == (404, "ORGANIZATION_NOT_FOUND")
    assert error(client.session.get(f"{coveo.url}/rest/organizations/other/status"))[0] == 404


def test_an_unknown_source_does_not_exist(coveo: Simulator, client: Client) -> None:
    expected = (412, "SOURCE_DOES_NOT_EXIST")
    assert error(client.status("REBUILD", source="none")) == expected
    assert error(client.put(A, source="none")) == expected
    assert error(client.delete(A, source="none")) == expected
    assert error(client.older_than(1, source="none")) == expected
    assert error(client.batch({"addOrUpdate": []}, source="none")) == expected
    assert client.get("/sources/none").status_code == 404
    coveo.remove_source(SOURCE)
    assert error(client.status("REBUILD")) == expected


def test_a_paused_organization_accepts_nothing_until_it_is_resumed(coveo: Simulator, client: Client) -> None:
    coveo.pause_organization()
    assert error(client.put(A)) == (400, "ORGANIZATION_IS_PAUSED")
    assert error(client.status("IDLE")) == (400, "ORGANIZATION_IS_PAUSED")
    assert client.get("/status").json()["paused"] is True
    coveo.resume_organization()
    assert client.put(A).status_code == 202


def test_every_response_has_a_request_id_and_the_date_of_coveos_clock(
    coveo: Simulator, client: Client
) -> None:
    coveo.clock.advance(days=400)
    before = coveo.clock.utcnow().replace(microsecond=0)
    answers = [
        client.status("REBUILD"),
        client.status("WRONG"),
        client.get("/nothing"),
        client.get("/sources"),
    ]
    assert len({answer.headers["X-Request-ID"] for answer in answers}) == len(answers)
    for answer in answers:
        assert before <= parsedate_to_datetime(answer.headers["Date"]) <= coveo.clock.utcnow()
        assert "Server" not in answer.headers


def test_the_error_for_the_stream_api_says_that_it_is_not_supported(client: Client) -> None:
    answer = client.session.post(f"{client.push}/sources/{SOURCE}/stream/open")
    assert answer.status_code == 404
    assert "Stream API" in answer.json()["message"]


def test_an_unknown_path_is_not_found(client: Client) -> None:
    assert client.get("/nothing/here").status_code == 404
    assert client.session.get(f"{client.push}/sources/{SOURCE}/status").status_code == 404


def test_calls_beyond_the_limit_are_rate_limited_until_the_window_has_passed(
    coveo: Simulator, client: Client
) -> None:
    coveo.call_limit, coveo.retry_after = (2, 300), False
    assert client.status("REBUILD").status_code == 201
    coveo.clock.advance(seconds=200)
    assert client.status("IDLE").status_code == 201
    refused = client.status("IDLE")
    assert error(refused) == (429, "TOO_MANY_REQUESTS")
    assert "Retry-After" not in refused.headers
    assert client.get("/sources").status_code == 200
    coveo.clock.advance(seconds=100)
    assert client.status("IDLE").status_code == 201
    assert client.status("IDLE").status_code == 429


def test_the_retry_after_of_a_rate_limited_call_is_when_the_next_one_is_accepted(
    coveo: Simulator, client: Client
) -> None:
    coveo.call_limit = (1, 300)
    began = time.monotonic()
    assert client.status("REBUILD").status_code == 201
    coveo.clock.advance(seconds=100)
    refused = client.status("IDLE")
    assert error(refused) == (429, "TOO_MANY_REQUESTS")
    # Minus the real time that passed.
    assert 200 - (time.monotonic() - began) <= int(refused.headers["Retry-After"]) <= 200
    coveo.clock.advance(seconds=200)
    assert client.status("IDLE").status_code == 201


def test_the_retry_after_of_each_429_is_in_whole_seconds(coveo: Simulator, client: Client) -> None:
    keep_off_midnight(coveo)
    coveo.daily_documents = 0
    refused = client.put(A)
    assert error(refused) == (429, "TOO_MANY_DOCUMENTS_DAILY")
    coveo.clock.advance(seconds=int(refused.headers["Retry-After"]) + 1)
    coveo.daily_documents = 1
    assert client.put(A).status_code == 202
    fault = coveo.faults.answer(429, operation="status")
    assert client.status("IDLE").headers["Retry-After"].isdecimal()
    assert fault.used == 1
    coveo.faults.answer(429, operation="status", headers={})
    assert "Retry-After" not in client.status("IDLE").headers
    coveo.faults.random(seed=1, rate=1, kinds=["429"])
    assert client.status("IDLE").headers["Retry-After"].isdecimal()


def test_items_beyond_the_daily_limit_are_rejected_until_the_next_day(
    coveo: Simulator, client: Client
) -> None:
    keep_off_midnight(coveo)
    coveo.daily_documents = 2
    two = {"addOrUpdate": [{"documentId": A, "data": "text"}, {"documentId": B, "data": "text"}]}
    assert client.batch(two).status_code == 202
    limit = "/limits/content/pushApiMaximumDailyDocumentLimit"
    assert client.get(limit).json().items() >= {"actualCount": 2, "limit": 2}.items()
    assert error(client.put(A)) == (429, "TOO_MANY_DOCUMENTS_DAILY")
    assert error(client.batch(two)) == (429, "TOO_MANY_DOCUMENTS_DAILY")
    assert client.delete(A).status_code == 202
    coveo.clock.advance(days=1)
    assert client.put(A).status_code == 202


def test_items_beyond_the_limit_of_the_index_are_rejected(coveo: Simulator, client: Client) -> None:
    coveo.document_limit = 1
    client.put(A)
    assert error(client.put(B)) == (412, "DOCUMENT_LIMIT_EXCEEDED")
    client.delete(A)
    assert client.put(B).status_code == 202


@pytest.mark.parametrize("key", ["other", "pushApiMaximumDailyDocumentLimit"])
def test_only_the_daily_limit_can_be_read(client: Client, key: str) -> None:
    status = client.get(f"/limits/content/{key}").status_code
    assert status == (404 if key == "other" else 200)


def test_the_endpoints_of_the_regions_are_the_simulator(coveo: Simulator, client: Client) -> None:
    (region,) = client.session.get(f"{coveo.url}/rest/global/regions").json()
    assert region["apiEndpoint"] == region["mainEndpoint"] == coveo.url
