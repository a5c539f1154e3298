"""Faults on demand."""

from __future__ import annotations

import re
import threading
import time

import pytest
import requests

from airflow_provider_coveo.simulator import Simulator, logs_api, platform_api, push_api, uploads
from airflow_provider_coveo.simulator.faults import Faults
from tests.simulator.client import SOURCE, Client, error

A = "https://acme.com/a"


def test_a_fault_affects_as_many_requests_as_requested(coveo: Simulator, client: Client) -> None:
    fault = coveo.faults.answer(503, times=2, operation="status", status_type="IDLE")
    assert [client.status(one).status_code for one in ("IDLE", "REBUILD", "IDLE", "IDLE")] == [
        503,
        201,
        503,
        201,
    ]
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]
    assert fault.used == 2
    assert coveo.faults.active == []


def test_a_fault_can_match_every_part_of_a_request(coveo: Simulator, client: Client) -> None:
    coveo.add_source("other")
    coveo.faults.answer(500, source="other", times=None)
    coveo.faults.answer(501, path=r"/files$")
    coveo.faults.answer(502, method="delete", query={"deleteChildren": "true"})
    coveo.faults.answer(504, operation=["item", "batch"], after=1)
    assert client.put(A, source="other").status_code == 500
    assert client.session.post(f"{client.push}/files").status_code == 501
    assert client.delete(A).status_code == 202
    assert client.delete(A, deleteChildren="true").status_code == 502
    assert client.put(A).status_code == 202
    assert client.put(A).status_code == 504


def test_a_fault_can_return_any_response(coveo: Simulator, client: Client) -> None:
    coveo.faults.answer(429, headers={"Retry-After": "1"})
    coveo.faults.answer(403, error_code="ACCESS_DENIED", headers={"x-coveo-waf-action": "block"})
    coveo.faults.answer(502, body="<html>", content_type="text/html")
    coveo.faults.answer(500, body="")
    answer = client.put(A)
    assert (error(answer), answer.headers["Retry-After"]) == ((429, "TOO_MANY_REQUESTS"), "1")
    answer = client.put(A)
    assert (error(answer), answer.headers["x-coveo-waf-action"]) == ((403, "ACCESS_DENIED"), "block")
    answer = client.put(A)
    assert (answer.content, answer.headers["Content-Type"]) == (b"<html>", "text/html")
    assert client.put(A).content == b""
    assert client.put(A).status_code == 202


def test_a_fault_can_return_an_error_although_the_request_was_applied(
    coveo: Simulator, client: Client
) -> None:
    coveo.faults.answer(500, applied=True)
    assert client.put(A).status_code == 500
    assert list(coveo.items(SOURCE)) == [A]


@pytest.mark.parametrize("before", [True, False])
def test_a_connection_can_be_dropped_before_or_after_applying(
    coveo: Simulator, client: Client, before: bool
) -> None:
    coveo.faults.drop(before=before, operation="item")
    with pytest.raises(requests.ConnectionError):
        client.put(A)
    assert (list(coveo.items(SOURCE)) == []) is before
    assert coveo.requests[-1].status == 0
    assert client.put(A).status_code == 202


def test_a_response_can_be_truncated(coveo: Simulator, client: Client) -> None:
    coveo.faults.truncate(5, operation="files")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        client.session.post(f"{client.push}/files")
    coveo.faults.truncate(operation="status")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        client.status("REBUILD")
    assert coveo.statuses(SOURCE) == ["REBUILD"]


def test_a_response_can_stall_after_the_request_was_applied(coveo: Simulator, client: Client) -> None:
    coveo.faults.stall(30)
    with pytest.raises(requests.ReadTimeout):
        client.status("REBUILD", timeout=0.1)
    # The client may have given up before the simulator handled it.
    coveo.wait_for(lambda: coveo.statuses(SOURCE) == ["REBUILD"])


def test_a_stall_without_applying_ends_with_a_gateway_timeout(coveo: Simulator, client: Client) -> None:
    coveo.faults.stall(0.1, applied=False)
    answer = client.status("REBUILD")
    assert answer.status_code == 504
    assert "errorCode" not in answer.json()
    assert answer.elapsed.total_seconds() >= 0.1
    assert coveo.statuses(SOURCE) == []


def test_a_stall_delays_no_other_client(coveo: Simulator, client: Client) -> None:
    stalled = coveo.faults.stall(30, operation="status")
    with pytest.raises(requests.ReadTimeout):
        client.status("REBUILD", timeout=0.05)
    coveo.wait_for(lambda: stalled.used)
    assert client.put(A).status_code == 202


def test_a_request_can_be_redirected(coveo: Simulator, client: Client) -> None:
    coveo.faults.redirect("http://127.0.0.1:9/", status=307)
    answer = client.status("IDLE", allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (307, "http://127.0.0.1:9/")


def test_a_container_can_expire_between_upload_and_batch(coveo: Simulator, client: Client) -> None:
    coveo.faults.expire_container()
    batch = {"addOrUpdate": [{"documentId": A, "data": "text"}]}
    assert error(client.batch(batch)) == (412, "INVALID_PARAMETER")
    assert client.batch(batch).status_code == 202
    coveo.faults.expire_container(operation="upload")
    assert client.upload(client.container(), b"{}").status_code == 403


def test_random_faults_are_the_same_for_the_same_seed(coveo: Simulator, client: Client) -> None:
    def outcomes(seed: int) -> list[str]:
        coveo.reset()
        coveo.faults.random(seed=seed, rate=0.5)
        for _ in range(40):
            try:
                client.put(A)
            except requests.ConnectionError:
                continue
        return [f"{one.status} {one.fault}" for one in coveo.requests]

    first = outcomes(1)
    assert outcomes(1) == first
    assert outcomes(2) != first
    assert 5 < sum("random" in one for one in first) < 35


def test_faults_can_be_removed(coveo: Simulator, client: Client) -> None:
    coveo.faults.answer(503, times=None)
    assert client.put(A).status_code == 503
    coveo.faults.clear()
    assert client.put(A).status_code == 202


def test_the_simulator_stops_at_once_despite_open_connections_and_stalled_responses() -> None:
    with Simulator() as coveo:
        client = Client(coveo, coveo.api_key)
        idle = Client(coveo, coveo.api_key)
        assert idle.status("IDLE").status_code == 201
        coveo.faults.stall(60, operation="status")
        failures: list[Exception] = []

        def ask() -> None:
            try:
                client.status("REBUILD")
            except requests.ConnectionError as error:
                failures.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        coveo.wait_for(lambda: coveo.statuses(SOURCE) == ["IDLE", "REBUILD"])
        began = time.monotonic()
    assert time.monotonic() - began < 30
    # The stall ended before the simulator would have cancelled it, a second later.
    assert [exchange.status for exchange in coveo.requests] == [201, 201]
    asking.join(timeout=30)
    assert len(failures) == 1


def test_the_description_of_the_operation_parameter_names_every_request() -> None:
    described = str(Faults.__doc__).partition(":param operation:")[2].partition(":param method:")[0]
    routes = (
        *push_api.ROUTES,
        *uploads.ROUTES,
        *platform_api.ROUTES,
        *platform_api.UNPRIVILEGED_ROUTES,
        *logs_api.ROUTES,
    )
    assert set(re.findall(r"``(\w+)``", described)) == {route.name for route in routes}
