"""Airflow's connection form: its values reach Coveo, and it does not show the key again."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_coveo.get_provider_info import CONNECTION_FORM
from airflow_provider_coveo.simulator import Simulator
from tests.browser.conftest import Lab

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.timeout(900)

CONN_ID = "coveo_from_the_form"
#: These can't test a connection without a port. See https://github.com/apache/airflow/pull/73298
WANT_A_PORT = {"3.3.1", "3.3.2"}
SOURCE = "acme-products"
KEY = "xx-this-key-was-typed-into-the-form"
WRONG_KEY = "xx-this-key-was-mistyped-into-the-form"
LABELS = {
    **CONNECTION_FORM["ui-field-behaviour"]["relabeling"],
    **{name: described["label"] for name, described in CONNECTION_FORM["conn-fields"].items()},
}


class _Tunnel(socketserver.StreamRequestHandler):
    """A proxy's CONNECT: whatever the host, it connects to the simulator."""

    def handle(self) -> None:
        server: Any = self.server
        server.asked.append(self.rfile.readline().decode().split()[1])
        while self.rfile.readline().strip():
            pass
        with socket.create_connection(("127.0.0.1", server.behind)) as coveo:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            forth = threading.Thread(target=_pass_on, args=(self.connection, coveo), daemon=True)
            forth.start()
            _pass_on(coveo, self.connection)
            forth.join()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


class _Proxy(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, behind: int) -> None:
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self.behind = behind
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture(scope="module")
def coveo(certificate: tuple[Path, Path]) -> Iterator[Simulator]:
    """A Coveo with TLS, like Coveo's own hosts."""
    tls = (str(certificate[0]), str(certificate[1]))
    with Simulator(organization="acme", sources=[SOURCE], api_key=KEY, tls=tls) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def proxy(coveo: Simulator) -> Iterator[_Proxy]:
    """The only route to it, and to all of Coveo's hosts."""
    with _Proxy(int(coveo.url.rpartition(":")[2])) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def form(page: Page, lab: Lab) -> Any:
    """The connection form."""
    from connection_form import connection_form

    return connection_form(page, lab.airflow)


@pytest.fixture
def _no_port(page: Page, lab: Lab) -> None:
    """Make Airflow's *Test* send no port, where it would send the port 0."""

    def mended(route: Route) -> None:
        said = route.request.post_data_json
        route.continue_(post_data=json.dumps({**said, "port": said["port"] or None}))

    if lab.airflow.version in WANT_A_PORT:
        page.route("**/api/v2/connections/test", mended)


def shown(lab: Lab, page: Page) -> str:
    """Return everything that Airflow shows of connections: on this page, in its fields, API and logs."""
    fields = "[...document.querySelectorAll('input, textarea')]"
    return "\n".join(
        [
            page.content(),
            page.evaluate(f"{fields}.map(one => one.value).join()"),
            json.dumps(lab.airflow.rest("GET", "/connections")),
            json.dumps(lab.airflow.rest("GET", "/eventLogs?limit=100")),
            *(path.read_text(errors="replace") for path in lab.airflow.home.rglob("*.log")),
        ]
    )


@pytest.mark.usefixtures("_no_port")
def test_every_field_of_the_form_takes_effect(
    lab: Lab,
    coveo: Simulator,
    proxy: _Proxy,
    certificate: tuple[Path, Path],
    form: Any,
    page: Page,
) -> None:
    airflow = lab.airflow
    typed = {
        "description": "Typed by hand",
        "login": "acme",
        "password": KEY,
        "region": "eu",
        "platform_host": "https://platform-au.cloud.coveo.com",
        "timeout": "5,3",
        "total_timeout": "60",
        "proxies": json.dumps({"https": proxy.url}),
        "verify": str(certificate[0]),
        "call_interval": "2.5",
        "snapshot_path": "/srv/coveo-snapshots",
    }
    assert set(CONNECTION_FORM["conn-fields"]) < set(typed)
    form.add(CONN_ID, typed)
    assert {name: form.label(name) for name in LABELS} == LABELS
    for name in CONNECTION_FORM["ui-field-behaviour"]["hidden-fields"]:
        assert not form.is_shown(name)

    assert (
        "Connected to organization 'acme' in region eu; the key can view 1 Push source"
        in form.save_and_test()
    )
    assert set(proxy.asked) == {"platform-au.cloud.coveo.com:443"}

    stall = coveo.faults.stall(600, operation="batch")
    run_id = airflow.trigger("from_the_form")
    assert airflow.wait_for_run("from_the_form", run_id) == "success"
    assert stall.used == 1
    assert set(coveo.items(SOURCE)) == {"product://4711"}
    assert "api-eu.cloud.coveo.com:443" in proxy.asked
    pushed = [request for request in coveo.requests if request.path.startswith("/push/v1/")]
    assert {request.path.split("/")[4] for request in pushed} == {"acme"}
    assert {request.headers["authorization"] for request in pushed} == {f"Bearer {KEY}"}
    assert {request.headers["host"] for request in pushed} == {"api-eu.cloud.coveo.com"}
    assert all("caller/PushItemsOperator" in request.headers["user-agent"] for request in pushed)
    # They start two and a half seconds apart, but may arrive closer together on a busy machine.
    assert all(later.at - earlier.at >= 1000 for earlier, later in pairwise(pushed))

    form.edit(CONN_ID)
    # Airflow 3 also hides proxies, whose URLs may contain a password.
    hidden = {"password": "***", "proxies": "***"} if airflow.is_airflow_3 else {"password": ""}
    assert {name: form.value(name) for name in typed} == {**typed, **hidden}
    assert KEY not in shown(lab, page)

    # Hidden values stay unchanged.
    form.fill({"description": "Edited", **({} if airflow.is_airflow_3 else {"password": KEY})})
    assert "Connected to organization 'acme' in region eu" in form.save_and_test()


@pytest.mark.usefixtures("_no_port")
def test_a_mistyped_key_is_reported_and_can_be_corrected(lab: Lab, form: Any, page: Page) -> None:
    conn_id, url = "coveo_mistyped", lab.coveo.url
    form.add(conn_id, {"host": url, "login": "acme", "password": WRONG_KEY})
    told = form.save_and_test()
    assert f"The API key is not valid for organization 'acme' at {url}" in told
    assert "INVALID_TOKEN" in told

    form.edit(conn_id)
    form.fill({"password": lab.coveo.api_key})
    assert f"Connected to organization 'acme' at {url}" in form.save_and_test()
    form.edit(conn_id)
    text = shown(lab, page)
    assert WRONG_KEY not in text
    assert lab.coveo.api_key not in text


def test_a_saved_connection_can_be_tested_without_typing_the_key_again(lab: Lab, form: Any) -> None:
    conn_id = "coveo_saved"
    lab.airflow.rest(
        "POST", "/connections", {"connection_id": conn_id, **json.loads(lab.coveo.connection_json())}
    )
    form.edit(conn_id)
    form.fill({"description": "Tested without the key typed again"})
    told = form.save_and_test()
    if lab.airflow.version in WANT_A_PORT:
        assert "Bad Request" in told
    elif lab.airflow.is_airflow_3:
        assert "Connected to organization 'acme'" in told
    else:
        # Airflow 2.11 sends the form's values, and the form never contains a saved key.
        assert "The connection has no API key" in told
    assert "Connection success!" in lab.airflow.command("connections", "test", conn_id)
