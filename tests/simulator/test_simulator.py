"""The simulator itself: its records, its control API, and its command line."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_coveo.simulator import Simulator
from tests.openapi import load_contracts
from tests.simulator.client import SOURCE, TIMEOUT, Client

A = "https://acme.com/a b"


@pytest.fixture
def control(coveo: Simulator) -> Callable[..., Any]:
    """Call the control API, which must succeed."""

    def ask(method: str, path: str, body: Any = None, **options: Any) -> Any:
        answer = requests.request(
            method, f"{coveo.url}/_simulator/{path}", json=body, timeout=TIMEOUT, **options
        )
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    return ask


def test_requests_are_recorded_unchanged(coveo: Simulator, client: Client) -> None:
    client.put(A, {"data": "text"})
    (exchange,) = coveo.requests
    assert exchange.method == "PUT"
    assert exchange.path == f"/push/v1/organizations/acme/sources/{SOURCE}/documents"
    assert exchange.query == {"documentId": A}
    assert exchange.raw_query == "documentId=https%3A%2F%2Facme.com%2Fa+b"
    assert exchange.headers["authorization"] == f"Bearer {coveo.api_key}"
    assert exchange.json() == {"data": "text"}
    assert (exchange.status, exchange.response_json()) == (202, None)
    assert "x-request-id" in exchange.response_headers
    assert exchange.seconds > 0
    assert (exchange.operation, exchange.source) == ("item", SOURCE)


def test_connections_can_be_counted(coveo: Simulator, client: Client) -> None:
    for _ in range(3):
        client.status("IDLE")
    assert len({exchange.client_port for exchange in coveo.requests}) == 1
    Client(coveo, coveo.api_key).status("IDLE")
    assert len({exchange.client_port for exchange in coveo.requests}) == 2


def test_items_of_many_concurrent_clients_are_all_stored(coveo: Simulator) -> None:
    def push(worker: int) -> None:
        client = Client(coveo, coveo.api_key)
        for number in range(50):
            assert client.put(f"https://acme.com/{worker}/{number}").status_code == 202

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(push, range(8)))
    stamps = [item["orderingId"] for item in coveo.items(SOURCE).values()]
    assert len(set(stamps)) == len(coveo.requests) == 400


def test_the_limits_on_recorded_requests_and_bodies_are_respected() -> None:
    with Simulator(request_limit=2, body_limit=10) as coveo:
        client = Client(coveo, coveo.api_key)
        for _ in range(3):
            client.batch({"addOrUpdate": [{"documentId": A, "data": "x" * 1000}]})
        assert len(coveo.items(SOURCE)[A]["data"]) == 1000
        assert [len(exchange.body) for exchange in coveo.requests] == [10, 0]
        assert coveo.requests[0].body_size > 1000


def test_wait_for_ends_as_soon_as_its_condition_is_true(coveo: Simulator, client: Client) -> None:
    coveo.indexing_delay = 0.2
    began = time.monotonic()
    client.put(A)
    coveo.wait_for(lambda: A in coveo.items(SOURCE), timeout=120)
    assert 0.2 <= time.monotonic() - began < 60

    later = threading.Timer(0.05, lambda: client.status("REBUILD"))
    later.start()
    coveo.wait_for(lambda: coveo.statuses(SOURCE) == ["REBUILD"])
    later.join()


def test_the_condition_of_wait_for_can_send_requests_to_the_simulator(
    coveo: Simulator, client: Client
) -> None:
    coveo.wait_for(lambda: client.get("/sources").status_code == 200)


def test_the_timeout_error_of_wait_for_shows_the_timeline(coveo: Simulator, client: Client) -> None:
    client.status("REBUILD")
    with pytest.raises(TimeoutError, match=r"(?s)acme-products: Rebuild.*status=REBUILD"):
        coveo.wait_for(lambda: False, timeout=0.01)


def test_a_reset_restores_the_initial_state(coveo: Simulator, client: Client) -> None:
    client.status("REBUILD")
    client.put(A)
    coveo.clock.advance(days=1)
    coveo.faults.answer(500)
    coveo.success_body = b"{}"
    coveo.indexing_delay = coveo.daily_documents = 1
    coveo.pause_organization()
    coveo.add_source("other")
    coveo.remove_source(SOURCE)
    coveo.reset()
    assert not coveo.requests
    assert not coveo.statuses(SOURCE)
    assert not coveo.timeline(SOURCE)
    assert client.put(A).content == b"null"
    assert list(coveo.items(SOURCE)) == [A]
    assert coveo.clock.advanced_seconds == 0
    with pytest.raises(LookupError, match="other"):
        coveo.source("other")


def test_the_connection_points_to_the_simulator(coveo: Simulator) -> None:
    described = json.loads(coveo.connection_json())
    assert described == {
        "conn_type": "coveo",
        "login": "acme",
        "password": coveo.api_key,
        "host": coveo.url,
        "extra": json.dumps({"platform_host": coveo.url}),
    }
    assert json.loads(coveo.connection_json(push_only=True))["password"] == coveo.push_only_key


def test_the_simulator_can_restart_at_the_same_address() -> None:
    with Simulator() as coveo:
        client = Client(coveo, coveo.api_key)
        client.status("REBUILD")
        coveo.stop()
        with pytest.raises(requests.ConnectionError):
            client.status("IDLE")
        coveo.start()
        assert client.status("IDLE").status_code == 201
        assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


def test_the_clock_cannot_be_advanced_backward(coveo: Simulator) -> None:
    with pytest.raises(ValueError, match="shift"):
        coveo.clock.advance(minutes=-1)


def test_a_second_simulator_gets_another_port_or_an_error(coveo: Simulator) -> None:
    with Simulator() as other:
        assert other.url != coveo.url
    with pytest.raises(OSError, match="in use"):
        Simulator(port=int(coveo.url.rpartition(":")[2])).start()


def test_the_simulator_listens_only_on_the_loopback_address(coveo: Simulator) -> None:
    port = int(coveo.url.rpartition(":")[2])
    with socket.socket() as other_address, pytest.raises(OSError, match="refused"):
        other_address.connect(("127.0.0.2", port))


def test_the_control_api_shows_the_whole_state(coveo: Simulator, client: Client, control: Any) -> None:
    client.status("REBUILD")
    client.put(A, {"data": "text", "title": "One"})
    coveo.faults.answer(503, operation="batch")
    state = control("GET", "state")
    (source,) = state["sources"]
    assert (source["console_status"], source["item_count"]) == ("Rebuild", 1)
    assert source["items"][0]["title"] == "One"
    assert state["faults"][0]["match"] == {"operation": "batch"}
    assert state["request_count"] == 2
    assert control("GET", f"timeline?source={SOURCE}") == coveo.timeline(SOURCE)
    assert control("GET", f"items?source={SOURCE}") == coveo.items(SOURCE)
    assert control("GET", f"logs?source={SOURCE}") == coveo.logs(SOURCE)
    second = control("GET", "requests?since=1")
    assert [one["operation"] for one in second] == ["item"]
    assert json.loads(second[0]["body"]) == {"data": "text", "title": "One"}
    assert len(control("GET", "requests?operation=status")) == 1


def test_the_control_api_can_change_every_setting(coveo: Simulator, client: Client, control: Any) -> None:
    control("POST", "faults", {"kind": "answer", "status": 503, "operation": "status", "times": 1})
    assert client.status("REBUILD").status_code == 503
    control("POST", "faults", {"kind": "drop", "times": None})
    control("DELETE", "faults")
    assert client.status("REBUILD").status_code == 201
    control("POST", "clock", {"advance_seconds": 900, "shift_seconds": -90})
    assert (coveo.clock.advanced_seconds, coveo.clock.shift_seconds) == (900, -90)
    control("POST", "reject-item", {"document_id": A, "task": "INDEXING", "result": "ERROR", "reason": "no"})
    client.put(A)
    assert coveo.items(SOURCE) == {}
    control("POST", "organization", {"paused": True})
    assert client.put(A).status_code == 400
    control("POST", "organization", {"paused": False})
    control("POST", "limits", {"call_limit": [1, 300], "retry_after": True})
    began = time.monotonic()
    taken, refused = client.status("IDLE"), client.status("IDLE")
    assert "Retry-After" not in taken.headers
    # Minus the real time that passed.
    assert 300 - (time.monotonic() - began) <= int(refused.headers["Retry-After"]) <= 300
    control("POST", "limits", {"call_limit": None, "daily_documents": 0})
    assert client.put(A).json()["errorCode"] == "TOO_MANY_DOCUMENTS_DAILY"
    control("POST", "source-state", {"source": SOURCE, "state": "ERROR"})
    assert coveo.source(SOURCE)["information"]["sourceStatus"]["type"] == "ERROR"
    control("POST", "sources", {"id": "wiki", "visibility": "SECURED"})
    assert coveo.source("wiki")["sourceVisibility"] == "SECURED"
    control("DELETE", "sources?source=wiki")
    control("POST", "reset")
    assert coveo.statuses(SOURCE) == []
    assert client.put(A).status_code == 202


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "items?source=none", None, 404),
        ("GET", "timeline", None, 400),
        ("POST", "faults", {"kind": "clear"}, 400),
        ("POST", "faults", {"kind": "answer", "no": 1}, 400),
        ("POST", "clock", {"seconds": 1}, 400),
        ("POST", "organization", {}, 400),
        ("POST", "limits", {}, 400),
        ("POST", "limits", {"calls": 1}, 400),
        ("POST", "limits", {"call_limit": 1}, 400),
        ("POST", "sources", {}, 400),
        ("POST", "sources", {"id": SOURCE}, 400),
        ("POST", "reject-item", {"document_id": A, "task": "NONE"}, 400),
    ],
)
def test_the_control_api_explains_invalid_requests(
    coveo: Simulator, method: str, path: str, body: Any, status: int
) -> None:
    answer = requests.request(method, f"{coveo.url}/_simulator/{path}", json=body, timeout=TIMEOUT)
    assert answer.status_code == status
    assert answer.json()["message"]


def test_other_web_pages_cannot_use_the_control_api(coveo: Simulator, client: Client) -> None:
    client.status("REBUILD")
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
        answer = requests.post(f"{coveo.url}/_simulator/reset", headers=headers, timeout=TIMEOUT)
        assert answer.status_code == 403
    assert coveo.statuses(SOURCE) == ["REBUILD"]


def test_the_page_loads_nothing_from_other_servers(coveo: Simulator) -> None:
    answer = requests.get(f"{coveo.url}/", timeout=TIMEOUT)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "innerHTML" not in answer.text
    assert "https://" not in answer.text


def test_the_openapi_files_exist_or_responses_are_not_checked() -> None:
    if load_contracts() is None:
        pytest.skip("Coveo's OpenAPI files are not at hand")


def run(*arguments: str) -> subprocess.Popen[str]:
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen(
        [sys.executable, "-m", "airflow_provider_coveo.simulator", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_the_command_starts_a_simulator_and_a_signal_ends_it(stop: signal.Signals) -> None:
    process = run("--port", "0", "--organization", "shop", "--secured-source", "wiki", "--call-limit", "1/60")
    assert process.stdout is not None
    url = process.stdout.readline().split()[-1]
    lines = [process.stdout.readline() for _ in range(6)]
    exported = next(line for line in lines if line.startswith("export "))
    described = json.loads(exported.partition("=")[2].strip().strip("'"))
    assert (described["login"], described["host"]) == ("shop", url)
    status = f"{url}/push/v1/organizations/shop/sources/wiki/status"
    headers = {"Authorization": f"Bearer {described['password']}"}
    answers = [
        requests.post(status, params={"statusType": "IDLE"}, headers=headers, timeout=TIMEOUT)
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [201, 429]
    process.send_signal(stop)
    _, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, errors) == (0, "")


def test_other_machines_can_reach_the_command_by_https_and_any_of_its_names(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COVEO_SIMULATOR_API_KEY", "from-the-environment")
    process = run(
        *("--port", "0", "--host", "0.0.0.0"),
        *("--tls-certificate", str(certificate[0]), "--tls-key", str(certificate[1])),
    )
    assert process.stdout is not None
    url = process.stdout.readline().split()[-1]
    assert url.startswith("https://127.0.0.1:")
    named = url.replace("127.0.0.1", "localhost")
    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(certificate[0])
        headers = {"Authorization": "Bearer from-the-environment"}
        made = session.post(f"{named}/push/v1/organizations/acme/files", headers=headers, timeout=TIMEOUT)
        assert made.json()["uploadUri"].startswith(named)
        uploaded = session.put(
            made.json()["uploadUri"], b"{}", headers=made.json()["requiredHeaders"], timeout=TIMEOUT
        )
        assert uploaded.status_code == 200
        reset = f"{named}/_simulator/reset"
        own, foreign = (
            session.post(reset, headers={"Origin": origin}, timeout=TIMEOUT)
            for origin in (named, named.replace("https", "http"))
        )
        assert (own.status_code, foreign.status_code) == (204, 403)
    process.terminate()
    _, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, errors) == (0, "")


def test_a_port_in_use_ends_the_command_with_one_line(coveo: Simulator) -> None:
    process = run("--port", coveo.url.rpartition(":")[2])
    output, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 2
    assert output == ""
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--call-limit", "many"],
        ["--port", "x"],
        ["--source", "a", "--source", "a"],
        ["--source", "a/b"],
        ["--organization", ""],
        ["--api-key", "é"],
        ["--host", "0.0.0.0"],
        ["--host", "coveo.example.com"],
        ["--tls-key", "key.pem"],
        ["--tls-key", "missing.pem", "--tls-certificate", "missing.pem"],
        ["--api-key", "same", "--push-only-key", "same"],
    ],
)
def test_an_invalid_option_ends_the_command(arguments: list[str]) -> None:
    process = run(*arguments)
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 2
    assert "Traceback" not in errors
