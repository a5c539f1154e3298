"""Uploads into file containers at the socket: responses, connections and retries."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_coveo.coveo import errors
from airflow_provider_coveo.coveo.errors import CoveoError
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE
from tests.unit.push.model import on_both


def items(count: int) -> list[dict[str, Any]]:
    """Return a number of items, each of which fills a batch of 1024 bytes."""
    return [{"documentId": f"product://{number}", "data": "x" * 900} for number in range(count)]


def operations(coveo: Simulator) -> list[str]:
    return [request.operation for request in coveo.requests]


class _Forwarding(http.server.BaseHTTPRequestHandler):
    """A forward proxy that forwards requests, or responds itself if a test requests it."""

    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server: Any = self.server
        server.seen.append((self.command, self.path.partition("?")[0]))
        target = urlsplit(self.path)
        upstream = http.client.HTTPConnection(target.netloc, timeout=30)
        headers = {name: value for name, value in self.headers.items() if not name.startswith("Proxy-")}
        upstream.request(self.command, f"{target.path}?{target.query}", body=body, headers=headers)
        answer = upstream.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"content-length", "connection", "date", "server"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        upstream.close()

    do_GET = do_POST = do_PUT = _pass_on  # noqa: N815 - what the standard library calls it

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def forwarding() -> Iterator[Any]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Forwarding)
    server.seen = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield SimpleNamespace(
        url=f"http://127.0.0.1:{server.server_port}",
        seen=server.seen,  # type: ignore[attr-defined]
    )
    server.shutdown()
    server.server_close()


# --- responses ---


@pytest.mark.parametrize("status", [201, 202, 204, 206])
def test_a_success_from_another_server_does_not_count_as_an_upload(
    coveo: Simulator, hook: CoveoPushHook, status: int
) -> None:
    coveo.faults.answer(status, body="", operation="upload", after=1, times=None)
    instead = f"returned {status}.*responded instead"
    with pytest.raises(errors.UnexpectedAnswerError, match=instead) as refused:
        hook.push_items(SOURCE, items(3), batch_bytes=1024, upload_concurrency=1)
    assert isinstance(refused.value, AirflowFailException)
    assert operations(coveo).count("batch") == 1
    assert set(coveo.items(SOURCE)) == {"product://0"}


def test_a_login_page_is_not_accepted_as_the_storage_s_response(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    coveo.faults.answer(
        200, body="<title>Sign in</title>", content_type="text/html", operation="upload", times=None
    )
    with pytest.raises(errors.UnexpectedAnswerError, match="web page"):
        hook.push_items(SOURCE, items(1))
    assert operations(coveo) == ["files", "upload"]


@pytest.mark.parametrize("status", [301, 302, 307])
def test_an_upload_follows_no_redirect(coveo: Simulator, hook: CoveoPushHook, status: int) -> None:
    elsewhere = f"{coveo.url}/elsewhere?X-Amz-Signature=s3cr3t"
    coveo.faults.redirect(elsewhere, status=status, operation="upload", times=None)
    with pytest.raises(errors.RedirectError) as refused:
        hook.push_items(SOURCE, items(1))
    assert "s3cr3t" not in str(refused.value)
    assert operations(coveo) == ["files", "upload"]


def test_the_error_of_a_rejected_upload_has_the_storage_s_request_id(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    coveo.faults.answer(403, operation="upload", times=None)
    with pytest.raises(errors.UploadError) as refused:
        hook.push_items(SOURCE, items(1))
    last = [request for request in coveo.requests if request.operation == "upload"][-1]
    assert refused.value.request_id == last.response_headers["x-amz-request-id"]


def test_a_rate_limited_upload_is_retried_with_the_same_container(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    # Without Coveo's error format, as from an intermediary.
    coveo.faults.answer(429, body="", headers={"Retry-After": "1"}, operation="upload")
    started = time.monotonic()
    hook.push_items(SOURCE, items(1))
    assert time.monotonic() - started >= 1
    assert operations(coveo) == ["files", "upload", "upload", "batch"]


# --- connections ---


@on_both
def test_a_netrc_adds_no_credentials_to_an_upload(coveo: Simulator, hook: CoveoPushHook) -> None:
    netrc = Path(os.environ["HOME"]) / ".netrc"
    netrc.write_text("machine 127.0.0.1 login other password other\n")
    netrc.chmod(0o600)
    assert hook.push_items(SOURCE, items(1))["accepted_adds"] == 1
    (upload,) = [request for request in coveo.requests if request.operation == "upload"]
    assert "authorization" not in upload.headers


@on_both
@pytest.mark.parametrize("where", ["connection", "environment"])
def test_uploads_use_the_same_proxy_as_the_api(
    coveo: Simulator,
    connect: Callable[..., None],
    forwarding: Any,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    if where == "connection":
        connect(extra={"proxies": forwarding.url})
    else:
        monkeypatch.setenv("http_proxy", forwarding.url)
    assert CoveoPushHook().push_items(SOURCE, items(1))["accepted_adds"] == 1
    assert operations(coveo) == ["files", "upload", "batch"]
    assert forwarding.seen == [(request.method, f"{coveo.url}{request.path}") for request in coveo.requests]


def test_the_timeout_of_the_connection_applies_to_uploads(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    connect(extra={"timeout": "5,1"})
    coveo.faults.stall(60, operation="upload")
    started = time.monotonic()
    with pytest.raises(errors.NoAnswerError, match=r"Could not upload batch 1.*timed out"):
        CoveoPushHook(retry=RetryPolicy(total_seconds=0)).push_items(SOURCE, items(1))
    assert time.monotonic() - started < 50


def test_a_push_keeps_its_connections(coveo: Simulator, hook: CoveoPushHook) -> None:
    hook.push_items(SOURCE, items(20), batch_bytes=1024, upload_concurrency=2)
    assert len(coveo.requests) == 60
    # Two threads upload, each with a connection to the API and one to the storage; a third submits batches.
    assert len({request.client_port for request in coveo.requests}) <= 2 * 2 + 1


# --- retries ---


@pytest.mark.parametrize(("status", "code"), [(412, "INVALID_PARAMETER"), (404, "NOT_FOUND")])
def test_a_batch_whose_container_is_never_found_fails(
    coveo: Simulator, hook: CoveoPushHook, status: int, code: str
) -> None:
    coveo.faults.answer(status, error_code=code, operation="batch", times=None)
    with pytest.raises(CoveoError, match=code) as refused:
        hook.push_items(SOURCE, items(1))
    assert isinstance(refused.value, AirflowFailException)
    # A new container each time, because the previous one may be the problem.
    named = [request.query["fileId"] for request in coveo.requests if request.operation == "batch"]
    assert len(named) == len(set(named)) == 3


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "INVALID_JSON", errors.InvalidJsonError),
        (400, "ORGANIZATION_IS_PAUSED", errors.OrganizationPausedError),
        (401, "INVALID_TOKEN", errors.AuthenticationError),
        (403, "ACCESS_DENIED", errors.AccessDeniedError),
        (412, "SOURCE_DOES_NOT_EXIST", errors.SourceDoesNotExistError),
        (412, "DOCUMENT_LIMIT_EXCEEDED", errors.DocumentLimitExceededError),
        (413, "TOO_LARGE", errors.RequestTooLargeError),
        (415, "UNSUPPORTED_MEDIA_TYPE", errors.UnsupportedMediaTypeError),
    ],
)
def test_a_batch_that_coveo_rejects_permanently_is_sent_once(
    coveo: Simulator, hook: CoveoPushHook, status: int, code: str, expected: type[CoveoError]
) -> None:
    coveo.faults.answer(status, error_code=code, operation="batch", after=1, times=None)
    with pytest.raises(expected, match=re.escape("batch 2 (item 1 of the input")) as refused:
        hook.push_items(SOURCE, items(5), batch_bytes=1024)
    assert isinstance(refused.value, AirflowFailException)
    assert operations(coveo).count("batch") == 2
    assert refused.value.accepted is not None
    assert refused.value.accepted["accepted_adds"] == len(coveo.items(SOURCE)) == 1


def test_a_container_is_used_for_less_than_its_lifetime() -> None:
    from airflow_provider_coveo.coveo.pusher import _MAX_CONTAINER_AGE
    from airflow_provider_coveo.simulator.state import CONTAINER_LIFE_SECONDS

    # Up to five minutes for requests that are in flight then.
    assert _MAX_CONTAINER_AGE + 300 <= CONTAINER_LIFE_SECONDS


# --- several pushes ---


def test_the_result_names_the_first_and_the_last_request(coveo: Simulator, hook: CoveoPushHook) -> None:
    result = hook.push_items(SOURCE, items(3), batch_bytes=1024)
    ids = [
        request.response_headers["x-request-id"] for request in coveo.requests if request.operation == "batch"
    ]
    assert len(set(ids)) == 3
    assert (result["first_request_id"], result["last_request_id"]) == (ids[0], ids[-1])


def test_two_hooks_side_by_side_share_nothing(
    coveo: Simulator, connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Simulator(organization="emca", sources=("other",), api_key="xx-other-key") as other:
        monkeypatch.setenv("AIRFLOW_CONN_COVEO_OTHER", other.connection_json())
        for organization in (coveo, other):
            organization.faults.answer(503, operation="batch", after=5)
        patient = CoveoPushHook(retry=RetryPolicy(total_seconds=5, first_wait=0.01, longest_wait=0.05))
        impatient = CoveoPushHook("coveo_other", retry=RetryPolicy(total_seconds=0))
        failures: list[CoveoError] = []

        def push_impatiently() -> None:
            try:
                impatient.push_items("other", items(10), batch_bytes=1024)
            except CoveoError as error:
                failures.append(error)

        beside = threading.Thread(target=push_impatiently)
        beside.start()
        assert patient.push_items(SOURCE, items(20), batch_bytes=1024)["accepted_adds"] == 20
        beside.join()
        assert [type(failure) for failure in failures] == [errors.ServiceError]
        assert (len(coveo.items(SOURCE)), len(other.items("other"))) == (20, 5)
        for organization in (coveo, other):
            keys = {request.headers.get("authorization") for request in organization.requests}
            assert keys == {None, f"Bearer {organization.api_key}"}
            assert {
                request.path.split("/")[4]
                for request in organization.requests
                if request.operation != "upload"
            } == {json.loads(organization.connection_json())["login"]}
