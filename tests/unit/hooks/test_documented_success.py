"""For each call, only the status that Coveo documents as success counts as success."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

import airflow_provider_coveo.coveo
from airflow_provider_coveo.coveo.errors import CoveoError, UnexpectedAnswerError
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from tests.conftest import SOURCE
from tests.openapi import load_contracts
from tests.raw import Client, RawServer

PUSH = "/push/v1/organizations/acme"
REST = "/rest/organizations/acme"
LOGS = "/logs/v1/organizations/acme"
START = datetime(2026, 1, 1, tzinfo=timezone.utc)
WINDOW = (SOURCE, START, START)
ITEM = {"documentId": "product://1", "data": "An anvil."}
USER = {"identity": {"name": "jane@example.com", "type": "USER"}}

#: Each request of the hook: its method and path, its documented success, and the call that sends it.
CALLS: dict[str, tuple[str, str, int, Callable[[CoveoPushHook], Any]]] = {
    "status": (
        "POST",
        rf"{PUSH}/sources/{SOURCE}/status",
        201,
        lambda hook: hook.set_source_status(SOURCE, "IDLE"),
    ),
    "item": (
        "PUT",
        rf"{PUSH}/sources/{SOURCE}/documents",
        202,
        lambda hook: hook.add_or_update_item(SOURCE, ITEM),
    ),
    "deletion": (
        "DELETE",
        rf"{PUSH}/sources/{SOURCE}/documents",
        202,
        lambda hook: hook.delete_item(SOURCE, "product://1"),
    ),
    "old items": (
        "DELETE",
        rf"{PUSH}/sources/{SOURCE}/documents/olderthan",
        202,
        lambda hook: hook.delete_old_items(SOURCE, 1_700_000_000_000),
    ),
    "container": ("POST", rf"{PUSH}/files", 201, lambda hook: hook.push_items(SOURCE, [ITEM])),
    "upload": ("PUT", "/bucket/1", 200, lambda hook: hook.push_items(SOURCE, [ITEM])),
    "batch": (
        "PUT",
        rf"{PUSH}/sources/{SOURCE}/documents/batch",
        202,
        lambda hook: hook.push_items(SOURCE, [ITEM]),
    ),
    "identities": (
        "PUT",
        rf"{PUSH}/providers/p/permissions/batch",
        202,
        lambda hook: hook.push_identities("p", members=[USER]),
    ),
    "old identities": (
        "DELETE",
        rf"{PUSH}/providers/p/permissions/olderthan",
        202,
        lambda hook: hook.delete_old_identities("p", 1_700_000_000_000),
    ),
    "source": ("GET", rf"{REST}/sources/{SOURCE}", 200, lambda hook: hook.get_source(SOURCE)),
    "light source": (
        "GET",
        rf"{REST}/sources/{SOURCE}/light",
        200,
        lambda hook: hook.current_cut_off(SOURCE),
    ),
    "sources": ("GET", rf"{REST}/sources/pages", 200, lambda hook: hook.list_sources()),
    "new source": (
        "POST",
        rf"{REST}/sources",
        201,
        lambda hook: hook.create_source("new", visibility="SECURED"),
    ),
    "copied source": (
        "POST",
        rf"{REST}/sources/{SOURCE}/duplicate",
        201,
        lambda hook: hook.duplicate_source(SOURCE, "new"),
    ),
    "deleted source": (
        "DELETE",
        rf"{REST}/sources/{SOURCE}",
        200,
        lambda hook: hook.delete_source(SOURCE),
    ),
    "abort": (
        "POST",
        rf"{REST}/sources/{SOURCE}/tasks/abort",
        200,
        lambda hook: hook.abort_activity(SOURCE, "a"),
    ),
    "logs": ("POST", LOGS, 200, lambda hook: list(hook.list_item_logs(*WINDOW))),
    "log counts": ("POST", rf"{LOGS}/facetsStats", 200, lambda hook: hook.count_item_logs(*WINDOW)),
    "limit": (
        "GET",
        rf"{REST}/limits/content/pushApiMaximumDailyDocumentLimit",
        200,
        lambda hook: hook.get_limit(),
    ),
    "fields": ("POST", rf"{REST}/indexes/fields/search", 200, lambda hook: hook.list_fields()),
    "new fields": (
        "POST",
        rf"{REST}/indexes/fields/batch/create",
        204,
        lambda hook: hook.create_fields({"price": "DOUBLE"}),
    ),
}
#: Requests that the OpenAPI files of the Push API and of sources don't contain. Limits are documented at
#: https://docs.coveo.com/en/63/, and fields at https://docs.coveo.com/en/115/.
UNDECLARED = {"limit", "upload", "fields", "new fields"}
BODIES: dict[str, Any] = {
    "source": {"id": SOURCE},
    "light source": {"id": SOURCE},
    "sources": {"sourceModels": [], "totalPages": 1, "totalEntries": 0},
    "new source": {"id": "new"},
    "copied source": {"id": "new"},
    "logs": {"documentLogEntries": [], "hasNextPage": False},
    "log counts": {"results": {}, "tasks": {}, "operations": {}, "sourceIds": {}},
    "limit": {"limit": 5, "actualCount": 1},
    "fields": {"items": [], "totalPages": 1, "totalEntries": 0},
}
#: The success of all others has a status without a body.
WITH_A_BODY = [name for name, call in CALLS.items() if call[2] != 204]
TYPES = {
    "no type": [],
    "plain text": ["Content-Type: text/plain"],
    "HTML": ["Content-Type: text/html; charset=utf-8"],
    "XHTML": ["Content-Type: application/xhtml+xml"],
    "XML": ["Content-Type: application/xml"],
    "bytes": ["Content-Type: application/octet-stream"],
}
PAGES = {
    "a page": b"<!DOCTYPE html><html><title>Sign in</title></html>",
    "a page after white space": b"\n\n  <html>Sign in</html>",
    "a page with a byte order mark": b"\xef\xbb\xbf<html>Sign in</html>",
    "words": b"Please sign in",
}


def respond(status: int, body: bytes, headers: list[str]) -> bytes:
    # With a status without a body, the body would become part of the next response.
    body = b"" if status == 204 else body
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def serving(named: str, response: bytes) -> RawServer:
    """Serve all calls as documented, except for one, which gets the given response."""

    def script(client: Client) -> None:
        while request := client.read_request():
            method, target, _ = request.split(b" ", 2)
            path = target.decode().partition("?")[0]
            name = next(
                name
                for name, (its_method, its_path, _, _) in CALLS.items()
                if (method.decode(), path) == (its_method, its_path)
            )
            if name == named:
                client.send(response)
                continue
            body = json.dumps(BODIES[name]).encode() if name in BODIES else b""
            if name == "container":
                described = {"uploadUri": f"{server.url}/bucket/1", "fileId": "1", "requiredHeaders": {}}
                body = json.dumps(described).encode()
            client.send(respond(CALLS[name][2], body, ["Content-Type: application/json"]))

    server = RawServer(script)
    return server


def call(connect: Callable[..., None], server: RawServer, name: str) -> Any:
    connect(host=server.url, extra={})
    return CALLS[name][3](CoveoPushHook(retry=RetryPolicy(total_seconds=0), timeout=(10, 20)))


def body_of(name: str) -> bytes:
    return json.dumps(BODIES[name]).encode() if name in BODIES else b""


@pytest.mark.parametrize("name", CALLS)
def test_the_table_matches_coveo_s_declarations(name: str) -> None:
    contracts = load_contracts()
    if contracts is None:
        pytest.skip("Coveo's OpenAPI files are not at hand")
    method, path, status, _ = CALLS[name]
    declared = [
        {int(code) for code in operation.declaration["responses"] if re.fullmatch(r"2\d\d", str(code))}
        for operation in contracts.operations
        if operation.method == method and operation.pattern.fullmatch(path)
    ]
    # Several files can declare an operation.
    assert all(codes == {status} for codes in declared), declared
    assert bool(declared) == (name not in UNDECLARED)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("status", [200, 201, 202, 203, 204, 205, 206, 207, 226, 299])
def test_the_documented_status_is_the_only_success(
    connect: Callable[..., None], name: str, status: int
) -> None:
    if name == "container" and status == CALLS[name][2]:
        body = b'{"uploadUri": "https://127.0.0.1:9/bucket/1", "fileId": "1", "requiredHeaders": {}}'
    else:
        body = body_of(name)
    response = respond(status, body, ["Content-Type: application/json"])
    with serving(name, response) as server:
        if status != CALLS[name][2]:
            with pytest.raises(UnexpectedAnswerError, match=f"returned {status}"):
                call(connect, server, name)
        elif name != "container":
            call(connect, server, name)


@pytest.mark.parametrize("name", WITH_A_BODY)
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("type_", TYPES)
def test_a_web_page_is_not_a_success_even_with_the_documented_status(
    connect: Callable[..., None], name: str, page: str, type_: str
) -> None:
    with (
        serving(name, respond(CALLS[name][2], PAGES[page], TYPES[type_])) as server,
        pytest.raises(UnexpectedAnswerError) as refused,
    ):
        call(connect, server, name)
    assert page == "words" or re.search("web page|not JSON|responded instead", str(refused.value))


@pytest.mark.parametrize("name", WITH_A_BODY)
@pytest.mark.parametrize(
    ("type_", "body"),
    [
        ("application/json", b"<html>Sign in</html>"),
        ("application/json", b"<html>" + b"x" * 100_000),
        ("application/json", b"Please sign in"),
        ("application/json", b'{"requestId": '),
        ("application/vnd.api+json", b"\n<html>Sign in</html>"),
        ("application/json", b'{"errorCode": "ACCESS_DENIED", "message": "No."}'),
        ("application/problem+json", b'{"status": 403, "title": "No."}'),
    ],
)
def test_a_body_declared_as_json_that_is_not_json_or_an_error_is_rejected(
    connect: Callable[..., None], name: str, type_: str, body: bytes
) -> None:
    with (
        serving(name, respond(CALLS[name][2], body, [f"Content-Type: {type_}"])) as server,
        pytest.raises(UnexpectedAnswerError),
    ):
        call(connect, server, name)


@pytest.mark.parametrize("name", [name for name in CALLS if name not in BODIES and name != "container"])
@pytest.mark.parametrize("body", [b"", b" \r\n", b"null", b"{}", b'{"requestId": "x"}'])
@pytest.mark.parametrize("headers", [[], ["Content-Type: text/plain"], ["Content-Type: application/json"]])
def test_every_documented_success_is_accepted(
    connect: Callable[..., None], name: str, body: bytes, headers: list[str]
) -> None:
    if name == "upload" and body.strip():
        pytest.skip("the storage answers with nothing")
    with serving(name, respond(CALLS[name][2], body, headers)) as server:
        call(connect, server, name)


def test_every_request_of_the_hook_is_in_the_table() -> None:
    """No call is missing here: the package builds no other requests."""
    folder = Path(airflow_provider_coveo.coveo.__file__).parent
    built = sum(len(re.findall(r"\bRequest\(", module.read_text())) for module in folder.rglob("*.py"))
    # Batches of items and of identities share one request. The organization's status, which only a sensor
    # reads, is not in CALLS.
    assert built == len(CALLS), "add the new request to CALLS"


def test_the_error_describes_the_response(connect: Callable[..., None]) -> None:
    with (
        serving("batch", respond(200, b"", ["X-Request-ID: " + "x" * 5_000])) as server,
        pytest.raises(CoveoError, match=r"returned 200 “where 202 is documented”") as refused,
    ):
        call(connect, server, "batch")
    assert len(str(refused.value)) < 1_500
