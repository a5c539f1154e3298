"""The hook at the socket: requests, retries, and results for the caller."""

from __future__ import annotations

import copy
import http.server
import json
import logging
import os
import pickle
import re
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.exceptions import AirflowProviderDeprecationWarning
from airflow.providers.common.compat.sdk import AirflowFailException, redact
from airflow.providers.http.operators.http import HttpOperator

from airflow_provider_coveo import __version__
from airflow_provider_coveo.coveo import errors
from airflow_provider_coveo.coveo.errors import CoveoError, CoveoInputError
from airflow_provider_coveo.coveo.ordering_ids import now_ms
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.hooks.wire import mask_in_logs
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE, keep_off_midnight

ITEM = {"documentId": "product://4711", "title": "Anvil", "data": "An anvil."}
SENTINEL = "xxSENTINEL-0045-48e1-953c-3addd1ee4457"


# --- the status ---


@pytest.mark.parametrize("status", ["REBUILD", "refresh", "Incremental", "IDLE"])
def test_a_status_change_is_exactly_one_request(coveo: Simulator, hook: CoveoPushHook, status: str) -> None:
    before = now_ms()
    result = hook.set_source_status(SOURCE, status)
    assert coveo.statuses(SOURCE) == [status.upper()]
    (request,) = coveo.requests
    assert (request.method, request.path) == ("POST", f"/push/v1/organizations/acme/sources/{SOURCE}/status")
    assert request.query == {"statusType": status.upper()}
    assert request.body == b""
    assert result == {
        "source_id": SOURCE,
        "status": status.upper(),
        "ordering_id": result["ordering_id"],
        "request_id": request.response_headers["x-request-id"],
    }
    assert before - 1000 <= result["ordering_id"] <= now_ms()
    json.dumps(result)


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b'"IDLE"'])
def test_the_body_of_a_successful_response_is_ignored(
    coveo: Simulator, hook: CoveoPushHook, body: bytes
) -> None:
    coveo.faults.answer(201, body=body, applied=True, operation="status")
    assert hook.set_source_status(SOURCE, "IDLE")["status"] == "IDLE"


def test_the_cut_off_is_on_coveo_s_clock_and_never_later_than_the_worker_s(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    coveo.clock.shift(seconds=-90)
    assert hook.set_source_status(SOURCE, "REBUILD")["ordering_id"] < now_ms() - 89_000
    coveo.clock.shift(seconds=+90)
    assert hook.set_source_status(SOURCE, "REBUILD")["ordering_id"] <= now_ms()


# --- connection and transport ---


def test_a_hook_reuses_its_connection(coveo: Simulator, hook: CoveoPushHook) -> None:
    hook.set_source_status(SOURCE, "REBUILD")
    hook.add_or_update_item(SOURCE, ITEM)
    hook.delete_item(SOURCE, "product://1")
    hook.get_source(SOURCE)
    hook.delete_old_items(SOURCE)
    hook.set_source_status(SOURCE, "IDLE")
    assert len({request.client_port for request in coveo.requests}) == 1


def test_threads_share_a_hook_and_each_has_its_own_session(coveo: Simulator, hook: CoveoPushHook) -> None:
    ready = threading.Barrier(4)

    def work() -> None:
        ready.wait(timeout=100)
        for _ in range(5):
            hook.set_source_status(SOURCE, "REBUILD")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(coveo.requests) == 20
    assert {request.status for request in coveo.requests} == {201}


def test_the_key_is_sent_as_a_bearer_token_and_not_replaced_by_a_netrc(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    netrc = Path(os.environ["HOME"]) / ".netrc"
    netrc.write_text("machine 127.0.0.1 login other password other\n")
    netrc.chmod(0o600)
    hook.set_source_status(SOURCE, "IDLE")
    assert coveo.requests[0].headers["authorization"] == f"Bearer {coveo.api_key}"


def test_the_extra_of_the_connection_does_not_become_headers(
    coveo: Simulator, hook: CoveoPushHook, connect: Callable[..., None]
) -> None:
    connect(extra={"timeout": "30.5", "region": "us", "verify": "true", "call_interval": ""})
    hook.set_source_status(SOURCE, "IDLE")
    assert not [value for value in coveo.requests[0].headers.values() if value in {"30.5", "us", "true"}]
    assert set(coveo.requests[0].headers) <= {
        "host", "user-agent", "accept", "accept-encoding", "connection", "content-length", "authorization",
    }  # fmt: skip


def test_the_user_agent_names_provider_airflow_python_and_caller(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    CoveoPushHook(caller="Some Operator\r\n").set_source_status(SOURCE, "IDLE")
    agent = coveo.requests[0].headers["user-agent"]
    assert re.fullmatch(
        rf"airflow-provider-coveo/{re.escape(__version__)} airflow/\d+\.\d+\.\S+ python/3\.\d+\.\S+ "
        r"caller/Some_Operator__",
        agent,
    )


def test_a_redirect_is_an_error_and_is_not_followed(coveo: Simulator, hook: CoveoPushHook) -> None:
    coveo.faults.redirect(f"{coveo.url}/elsewhere")
    with pytest.raises(errors.RedirectError):
        hook.add_or_update_item(SOURCE, ITEM)
    assert len(coveo.requests) == 1


def test_the_timeout_of_the_connection_applies_to_requests(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    connect(extra={"timeout": "5,0.2"})
    coveo.faults.stall(60)
    started = time.monotonic()
    with pytest.raises(errors.NoAnswerError, match="timed out"):
        CoveoPushHook(retry=RetryPolicy(total_seconds=0)).set_source_status(SOURCE, "IDLE")
    assert time.monotonic() - started < 50


def test_the_timeout_of_the_hook_overrides_that_of_the_connection(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    connect(extra={"timeout": 60})
    coveo.faults.stall(20)
    with pytest.raises(errors.NoAnswerError):
        CoveoPushHook(timeout=0.2, retry=RetryPolicy(total_seconds=0)).set_source_status(SOURCE, "IDLE")


def test_a_proxy_of_the_connection_gets_the_request(
    coveo: Simulator, connect: Callable[..., None], proxy: Any
) -> None:
    # No server listens on this host, so only the proxy can respond.
    connect(host="http://127.0.0.1:9", extra={"proxies": {"http": proxy.url}})
    CoveoPushHook().set_source_status(SOURCE, "IDLE")
    assert proxy.request_lines == [
        f"POST http://127.0.0.1:9/push/v1/organizations/acme/sources/{SOURCE}/status?statusType=IDLE HTTP/1.1"
    ]


def test_a_proxy_of_the_environment_gets_the_request(
    connect: Callable[..., None], proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy.url)
    connect(host="http://127.0.0.1:9")
    CoveoPushHook().set_source_status(SOURCE, "IDLE")
    assert len(proxy.request_lines) == 1


def test_certificates_are_verified_according_to_the_connection(
    connect: Callable[..., None], tls_server: Any
) -> None:
    connect(host=tls_server.url)
    with pytest.raises(errors.CertificateError) as refused:
        CoveoPushHook().set_source_status(SOURCE, "IDLE")
    assert isinstance(refused.value, AirflowFailException)
    assert tls_server.requests == 0
    for verify in (tls_server.certificate, "false"):
        connect(host=tls_server.url, extra={"verify": verify})
        CoveoPushHook().set_source_status(SOURCE, "IDLE")
    assert tls_server.requests == 2


def test_without_a_host_the_region_s_is_used(connect: Callable[..., None]) -> None:
    connect(host="", extra={"region": "eu"})
    hook = CoveoPushHook()
    assert hook.settings.push_url == "https://api-eu.cloud.coveo.com"
    assert hook.url_from_endpoint("/push/v1") == "https://api-eu.cloud.coveo.com/push/v1"


@pytest.mark.parametrize("status", [200, 201, 204])
def test_a_login_page_is_not_accepted_as_coveo_s_response(
    coveo: Simulator, hook: CoveoPushHook, status: int
) -> None:
    coveo.faults.answer(status, body="<title>Sign in</title>", content_type="text/html; charset=utf-8")
    with pytest.raises(errors.UnexpectedAnswerError, match="web page"):
        hook.set_source_status(SOURCE, "IDLE")


def test_a_hook_can_be_copied_and_sent_to_another_process(coveo: Simulator, hook: CoveoPushHook) -> None:
    hook.set_source_status(SOURCE, "REBUILD")
    for copied in (copy.deepcopy(hook), pickle.loads(pickle.dumps(hook))):
        assert copied.set_source_status(SOURCE, "IDLE")["status"] == "IDLE"


def test_a_response_with_contradictory_headers_is_retried(
    connect: Callable[..., None],
) -> None:
    class Broken(http.server.BaseHTTPRequestHandler):
        answers = 0

        def do_POST(self) -> None:
            self.send_response(201)
            self.send_header("Content-Length", "0" if Broken.answers else "5, 6")
            self.end_headers()
            Broken.answers += 1

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Broken) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        connect(host=f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(errors.NoAnswerError, match="headers contradict each other") as broken:
            CoveoPushHook(retry=RetryPolicy(total_seconds=0)).set_source_status(SOURCE, "IDLE")
        assert not isinstance(broken.value, AirflowFailException)
        assert CoveoPushHook().set_source_status(SOURCE, "IDLE")["status"] == "IDLE"
        server.shutdown()


def test_an_endless_response_is_not_read_completely(
    connect: Callable[..., None], endless_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(host=endless_server.url)
    hook = CoveoPushHook(retry=RetryPolicy(total_seconds=0))
    with pytest.raises(errors.NotFoundError):
        hook.get_source(SOURCE)
    assert endless_server.megabytes < 50
    endless_server.answer_with(200)
    monkeypatch.setattr("airflow_provider_coveo.transports.requests_transport.MAX_RESPONSE_BYTES", 1_000_000)
    with pytest.raises(errors.UnexpectedAnswerError):
        hook.get_source(SOURCE)
    assert endless_server.megabytes < 100


# --- retries ---


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_temporary_errors_are_retried_until_they_end(
    coveo: Simulator, hook: CoveoPushHook, status: int
) -> None:
    coveo.faults.answer(status, times=2, operation="status")
    hook.set_source_status(SOURCE, "REBUILD")
    assert [request.status for request in coveo.requests] == [status, status, 201]


@pytest.mark.parametrize("before", [True, False])
def test_a_request_without_a_response_is_retried(coveo: Simulator, hook: CoveoPushHook, before: bool) -> None:
    coveo.faults.drop(before=before, operation="status")
    hook.set_source_status(SOURCE, "REBUILD")
    assert len(coveo.requests) == 2
    assert coveo.source(SOURCE)["information"]["sourceStatus"]["type"] == "REFRESHING"


def test_a_truncated_response_is_retried(coveo: Simulator, hook: CoveoPushHook) -> None:
    coveo.faults.truncate(10, operation="source")
    assert hook.get_source(SOURCE)["id"] == SOURCE
    assert len(coveo.requests) == 2


def test_the_hook_waits_as_long_as_retry_after_says(coveo: Simulator, hook: CoveoPushHook) -> None:
    coveo.faults.answer(429, headers={"Retry-After": "1"}, operation="status")
    started = time.monotonic()
    hook.set_source_status(SOURCE, "REBUILD")
    assert time.monotonic() - started >= 1
    assert len(coveo.requests) == 2


@pytest.mark.parametrize("ahead", [3600, -3600])
def test_a_retry_after_date_is_read_on_coveo_s_clock(
    coveo: Simulator, connect: Callable[..., None], ahead: int
) -> None:
    coveo.clock.shift(seconds=ahead)
    started = time.monotonic()
    until = format_datetime(coveo.clock.utcnow() + timedelta(seconds=3), usegmt=True)
    coveo.faults.answer(429, headers={"Retry-After": until}, operation="status")
    CoveoPushHook(retry=RetryPolicy(total_seconds=60)).set_source_status(SOURCE, "REBUILD")
    assert 1 < time.monotonic() - started < 60
    assert len(coveo.requests) == 2


@pytest.mark.parametrize("header", ["0", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_a_retry_after_without_a_wait_does_not_cause_a_busy_loop(
    coveo: Simulator, connect: Callable[..., None], header: str
) -> None:
    coveo.faults.answer(429, headers={"Retry-After": header}, times=None)
    policy = RetryPolicy(total_seconds=1, first_wait=0.2, longest_wait=0.4)
    with pytest.raises(errors.TooManyRequestsError):
        CoveoPushHook(retry=policy).set_source_status(SOURCE, "IDLE")
    assert len(coveo.requests) < 40


def test_a_wait_longer_than_the_retry_limit_is_left_to_airflow(coveo: Simulator, hook: CoveoPushHook) -> None:
    coveo.faults.answer(429, headers={"Retry-After": "3600"}, operation="status")
    with pytest.raises(errors.TooManyRequestsError) as raised:
        hook.set_source_status(SOURCE, "REBUILD")
    assert len(coveo.requests) == 1
    assert raised.value.retry_after == 3600
    assert not isinstance(raised.value, AirflowFailException)


def test_retries_end_at_the_retry_limit(coveo: Simulator, connect: Callable[..., None]) -> None:
    coveo.faults.answer(503, times=None)
    hook = CoveoPushHook(retry=RetryPolicy(total_seconds=2, first_wait=0.05, longest_wait=0.1))
    with pytest.raises(errors.ServiceError) as raised:
        hook.set_source_status(SOURCE, "REBUILD")
    assert len(coveo.requests) > 2
    assert not isinstance(raised.value, AirflowFailException)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "INVALID_JSON", errors.InvalidJsonError),
        (400, "ORGANIZATION_IS_PAUSED", errors.OrganizationPausedError),
        (401, "INVALID_TOKEN", errors.AuthenticationError),
        (403, "ACCESS_DENIED", errors.AccessDeniedError),
        (404, "ORGANIZATION_NOT_FOUND", errors.OrganizationNotFoundError),
        (412, "SOURCE_DOES_NOT_EXIST", errors.SourceDoesNotExistError),
        (413, None, errors.RequestTooLargeError),
        (415, "UNSUPPORTED_MEDIA_TYPE", errors.UnsupportedMediaTypeError),
        (429, "TOO_MANY_DOCUMENTS_DAILY", errors.DailyQuotaExceededError),
    ],
)
def test_errors_that_a_retry_cannot_fix_fail_at_once(
    coveo: Simulator, hook: CoveoPushHook, status: int, code: str | None, expected: type[CoveoError]
) -> None:
    coveo.faults.answer(status, error_code=code, message="As it is.", times=None)
    with pytest.raises(expected, match=SOURCE) as raised:
        hook.add_or_update_item(SOURCE, ITEM)
    assert len(coveo.requests) == 1
    assert isinstance(raised.value, AirflowFailException)
    assert raised.value.status_code == status
    assert raised.value.request_id == coveo.requests[0].response_headers["x-request-id"]
    copy = pickle.loads(pickle.dumps(raised.value))
    assert isinstance(copy, expected)
    assert isinstance(copy, AirflowFailException)
    assert str(copy) == str(raised.value)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("<html><title>502 Bad Gateway</title></html>", "text/html"),
        ("<?xml version='1.0'?><Error><Code>SlowDown</Code></Error>", "application/xml"),
        ("", "application/json"),
        ('{"errorCode": "BROK', "application/json"),
    ],
)
def test_any_error_body_raises_a_service_error(
    coveo: Simulator, connect: Callable[..., None], body: str, content_type: str
) -> None:
    coveo.faults.answer(502, body=body, content_type=content_type)
    with pytest.raises(errors.ServiceError):
        CoveoPushHook(retry=RetryPolicy(total_seconds=0)).set_source_status(SOURCE, "IDLE")


def test_a_stopped_hook_ends_its_wait_and_sends_nothing_more(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    coveo.faults.answer(503, times=None)
    hook = CoveoPushHook(retry=RetryPolicy(first_wait=3000, longest_wait=3000, total_seconds=3000))
    failures: list[CoveoError] = []

    def work() -> None:
        try:
            hook.set_source_status(SOURCE, "IDLE")
        except CoveoError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    coveo.wait_for(lambda: coveo.requests and coveo.requests[0].status == 503)
    hook.stop()
    thread.join(timeout=100)
    assert not thread.is_alive()
    assert failures
    with pytest.raises(CoveoError, match="the task was killed"):
        hook.set_source_status(SOURCE, "IDLE")
    assert len(coveo.requests) == 1


def test_a_refused_connection_is_an_error_that_names_the_source_and_the_host(
    connect: Callable[..., None],
) -> None:
    connect(host="http://127.0.0.1:9")
    with pytest.raises(errors.NoAnswerError, match="refused") as raised:
        CoveoPushHook(retry=RetryPolicy(total_seconds=0)).set_source_status(SOURCE, "IDLE")
    assert raised.value.status_code is None
    assert SOURCE in str(raised.value)
    assert "127.0.0.1" in str(raised.value)


# --- invalid input ---


@pytest.mark.parametrize(
    ("fields", "call"),
    [
        ({}, lambda hook: hook.set_source_status(SOURCE, "RESCAN")),
        ({}, lambda hook: hook.set_source_status("", "IDLE")),
        ({}, lambda hook: hook.set_source_status("a/b", "IDLE")),
        ({}, lambda hook: hook.set_source_status("a b", "IDLE")),
        ({"login": None}, lambda hook: hook.set_source_status(SOURCE, "IDLE")),
        ({"password": None}, lambda hook: hook.set_source_status(SOURCE, "IDLE")),
        ({"extra": {"region": "mars"}}, lambda hook: hook.set_source_status(SOURCE, "IDLE")),
        ({"host": "http://example.com"}, lambda hook: hook.set_source_status(SOURCE, "IDLE")),
        ({}, lambda hook: hook.delete_old_items(SOURCE, now_ms() + 60_000)),
        ({}, lambda hook: hook.delete_old_items(SOURCE, 0)),
        ({}, lambda hook: hook.delete_old_items(SOURCE, -5)),
        ({}, lambda hook: hook.delete_old_items(SOURCE, 1.7e12)),
        ({}, lambda hook: hook.delete_old_items(SOURCE, now_ms() // 1000)),
        ({}, lambda hook: hook.delete_old_items(SOURCE, now_ms() * 1000)),
        ({}, lambda hook: hook.delete_old_items(SOURCE, 639_000_000_000_000_000)),
        ({}, lambda hook: hook.delete_old_items(SOURCE, queue_delay=-1)),
        ({}, lambda hook: hook.add_or_update_item(SOURCE, {"documentId": "x", "data": ""})),
        ({}, lambda hook: hook.add_or_update_item(SOURCE, ITEM, ordering_id=now_ms() + 60_000)),
        ({}, lambda hook: hook.delete_item(SOURCE, "4711")),
        ({}, lambda hook: hook.delete_item(SOURCE, "a://b", delete_children="false")),
        ({}, lambda hook: hook.set_source_status("None", "IDLE")),
        ({}, lambda hook: CoveoPushHook(organization_id="").set_source_status(SOURCE, "IDLE")),
        ({}, lambda hook: hook.get_source("a/b")),
    ],
)
def test_bad_input_is_rejected_before_anything_is_sent(
    coveo: Simulator, connect: Callable[..., None], fields: dict[str, Any], call: Callable[[Any], Any]
) -> None:
    connect(**fields)
    with pytest.raises(CoveoInputError) as refused:
        call(CoveoPushHook())
    assert coveo.requests == []
    assert isinstance(refused.value, AirflowFailException)
    assert isinstance(refused.value, ValueError)


# --- deleting old items ---


def test_old_items_are_deleted_after_the_queue_delay_and_new_ones_stay(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    coveo.clock.shift(seconds=-3600)
    hook.add_or_update_item(SOURCE, {**ITEM, "documentId": "product://old"})
    coveo.clock.shift(seconds=0)
    cut_off = hook.set_source_status(SOURCE, "REBUILD")["ordering_id"]
    hook.add_or_update_item(SOURCE, {**ITEM, "documentId": "product://new"})
    result = hook.delete_old_items(SOURCE, str(cut_off), queue_delay="15")
    assert (result["ordering_id"], result["queue_delay"]) == (cut_off, 15)
    assert set(coveo.items(SOURCE)) == {"product://old", "product://new"}
    coveo.clock.advance(minutes=15)
    assert set(coveo.items(SOURCE)) == {"product://new"}


def test_a_reset_uses_coveo_s_current_time_as_the_cut_off(coveo: Simulator, hook: CoveoPushHook) -> None:
    coveo.clock.shift(seconds=-90)
    hook.add_or_update_item(SOURCE, ITEM)
    coveo.clock.advance(seconds=3)
    result = hook.delete_old_items(SOURCE, queue_delay=0)
    assert result["ordering_id"] < now_ms() - 80_000
    assert coveo.items(SOURCE) == {}
    hook.add_or_update_item(SOURCE, ITEM)
    assert list(coveo.items(SOURCE)) == [ITEM["documentId"]]


def test_a_cut_off_from_a_worker_clock_that_runs_ahead_is_rejected(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    coveo.clock.shift(seconds=-90)
    with pytest.raises(CoveoInputError, match="future"):
        hook.delete_old_items(SOURCE, now_ms() - 1000)
    assert [request.operation for request in coveo.requests] == ["light_source"]


@pytest.mark.parametrize(
    ("crawler", "product"), [("SITECORE", "Sitecore"), ("CRAWLING_MODULE", "Crawling Module")]
)
def test_a_source_that_a_product_manages_is_not_reset(
    coveo: Simulator, hook: CoveoPushHook, crawler: str, product: str
) -> None:
    coveo.add_source("managed", crawler=crawler)
    with pytest.raises(CoveoInputError, match=f"{product}.*[Rr]ecreate"):
        hook.delete_old_items("managed")
    assert [request.method for request in coveo.requests] == ["GET"]


def test_a_key_that_cannot_view_the_source_can_still_reset_it(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    connect(password=coveo.push_only_key)
    coveo.clock.shift(seconds=-90)
    result = CoveoPushHook().delete_old_items(SOURCE)
    assert [request.status for request in coveo.requests] == [403, 202]
    assert result["ordering_id"] < now_ms() - 89_000


# --- single items ---


@pytest.mark.parametrize(
    "document_id",
    ["product://4711", "https://x.org/a?b=c&d=e#f", "file://a b/100%/ü/猫", "x://+plus&amp;%2F"],
)
def test_an_item_is_pushed_replaced_and_deleted_by_the_same_id(
    coveo: Simulator, hook: CoveoPushHook, document_id: str
) -> None:
    result = hook.add_or_update_item(SOURCE, {**ITEM, "documentId": document_id})
    assert result == {
        "source_id": SOURCE,
        "document_id": document_id,
        "request_id": coveo.requests[0].response_headers["x-request-id"],
        "repeated_items": 0,
    }
    hook.add_or_update_item(SOURCE, {**ITEM, "documentId": document_id, "title": "Better {{ anvil }}"})
    assert {key: item["title"] for key, item in coveo.items(SOURCE).items()} == {
        document_id: "Better {{ anvil }}"
    }
    hook.delete_item(SOURCE, document_id)
    assert coveo.items(SOURCE) == {}
    assert coveo.requests[-1].query == {"documentId": document_id, "deleteChildren": "false"}


def test_children_are_deleted_only_on_request(coveo: Simulator, hook: CoveoPushHook) -> None:
    for document_id in ("file://a", "file://a/b", "file://c"):
        hook.add_or_update_item(SOURCE, {**ITEM, "documentId": document_id})
    hook.delete_item(SOURCE, "file://a", delete_children=True)
    assert list(coveo.items(SOURCE)) == ["file://c"]


def test_an_ordering_id_is_sent_only_when_given(coveo: Simulator, hook: CoveoPushHook) -> None:
    hook.add_or_update_item(SOURCE, ITEM)
    assert "orderingId" not in coveo.requests[0].query
    given = now_ms() - 1000
    hook.add_or_update_item(SOURCE, {**ITEM, "documentId": "a://b"}, ordering_id=given)
    assert coveo.items(SOURCE)["a://b"]["orderingId"] == given


def test_compressed_content_names_its_compression_in_the_query(coveo: Simulator, hook: CoveoPushHook) -> None:
    hook.add_or_update_item(
        SOURCE, {"documentId": "a://b", "compressedBinaryData": "eJwDAAAAAAE=", "compressionType": "ZLIB"}
    )
    assert coveo.requests[0].query["compressionType"] == "ZLIB"
    assert b"compressionType" not in coveo.requests[0].body


def test_text_that_json_makes_too_large_for_a_request_uses_a_file_container_too(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    text = "\x01" * 1_500_000
    hook.add_or_update_item(SOURCE, {**ITEM, "data": text})
    assert [request.operation for request in coveo.requests] == ["files", "upload", "item"]
    assert coveo.requests[1].body == text.encode()


def test_metadata_too_large_for_a_request_is_rejected_before_anything_is_sent(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    for data in ("short", "x" * 6_000_000):
        with pytest.raises(errors.CoveoInputError, match="Shorten its metadata"):
            hook.add_or_update_item(SOURCE, {**ITEM, "data": data, "description": "x" * 6_000_000})
    assert coveo.requests == []


def test_text_too_large_for_a_request_uses_a_file_container(coveo: Simulator, hook: CoveoPushHook) -> None:
    text = "é" * (3 * 1024 * 1024)
    hook.add_or_update_item(SOURCE, {**ITEM, "data": text})
    files, upload, item = coveo.requests
    assert [files.operation, upload.operation, item.operation] == ["files", "upload", "item"]
    assert upload.body == text.encode()
    assert "authorization" not in upload.headers
    assert upload.headers["x-amz-server-side-encryption"] == "AES256"
    assert item.query["compressionType"] == "UNCOMPRESSED"
    assert ITEM["documentId"] in coveo.items(SOURCE)


def test_a_rejected_container_is_replaced(coveo: Simulator, hook: CoveoPushHook) -> None:
    coveo.faults.answer(403, body="<Error><Code>AccessDenied</Code></Error>", operation="upload", times=2)
    hook.add_or_update_item(SOURCE, {**ITEM, "data": "x" * 6_000_000})
    assert [request.operation for request in coveo.requests] == ["files", "upload"] * 3 + ["item"]


def test_a_container_that_is_always_rejected_is_an_error_that_a_later_retry_can_fix(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    coveo.faults.answer(403, body="<Error><Code>AccessDenied</Code></Error>", operation="upload", times=None)
    with pytest.raises(errors.UploadError) as raised:
        hook.add_or_update_item(SOURCE, {**ITEM, "data": "x" * 6_000_000})
    assert not isinstance(raised.value, AirflowFailException)
    assert coveo.items(SOURCE) == {}


@pytest.mark.parametrize(
    "uri",
    [
        *("http://example.com/x?X-Amz-Signature=s3cr3t", "ftp://example.com/x", "", "https://eu/s3cr3t"),
        *("https://[s3cr3t/x", "https://example.com;s3cr3t/x", "https://example.com:s3cr3t/x"),
    ],
)
def test_an_upload_to_an_unsafe_address_is_rejected(coveo: Simulator, hook: CoveoPushHook, uri: str) -> None:
    body = json.dumps({"uploadUri": uri, "fileId": "f", "requiredHeaders": {}})
    coveo.faults.answer(201, body=body, operation="files")
    with pytest.raises(CoveoInputError) as refused:
        hook.add_or_update_item(SOURCE, {**ITEM, "data": "x" * 6_000_000})
    assert "s3cr3t" not in str(refused.value)
    assert [request.operation for request in coveo.requests] == ["files"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"fileId": None},
        {"fileId": ""},
        {"uploadUri": None},
        {"requiredHeaders": None},
        {"requiredHeaders": ["Content-Type"]},
        {"requiredHeaders": {"Content-Length": 1}},
        {"requiredHeaders": {"X-Note": "two\nlines"}},
        {"requiredHeaders": {"X-Note": "\N{EURO SIGN}"}},
    ],
)
def test_a_response_that_describes_no_container_is_an_error_that_says_so(
    coveo: Simulator, hook: CoveoPushHook, wrong: dict[str, Any]
) -> None:
    described = {"fileId": "f", "uploadUri": f"{coveo.url}/x?X-Amz-Signature=s3cr3t", "requiredHeaders": {}}
    coveo.faults.answer(201, body=json.dumps({**described, **wrong}), operation="files")
    with pytest.raises(errors.UnexpectedAnswerError, match="not a file container") as refused:
        hook.push_items(SOURCE, [ITEM])
    assert "s3cr3t" not in str(refused.value)
    assert [request.operation for request in coveo.requests] == ["files"]


def test_an_upload_that_an_intermediary_rejects_as_too_large_is_an_error_with_a_remedy(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    coveo.faults.answer(413, body="<h1>Request Entity Too Large</h1>", operation="upload", times=None)
    with pytest.raises(errors.RequestTooLargeError, match="Reduce the batch size") as refused:
        hook.push_items(SOURCE, [ITEM])
    assert isinstance(refused.value, AirflowFailException)
    assert [request.operation for request in coveo.requests] == ["files", "upload"]


# --- sources ---


def test_sources_are_read_and_listed_page_by_page(
    coveo: Simulator, hook: CoveoPushHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_coveo.coveo.client.sources._SOURCES_PER_PAGE", 2)
    for number in range(4):
        coveo.add_source(f"more-{number}")
    assert {source["id"] for source in hook.list_sources()} == {
        SOURCE, "more-0", "more-1", "more-2", "more-3",
    }  # fmt: skip
    assert len(coveo.requests) == 3
    assert hook.get_source("more-1")["id"] == "more-1"


def test_the_error_of_a_push_only_key_names_the_privilege_to_view_sources(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    connect(password=coveo.push_only_key)
    with pytest.raises(errors.AccessDeniedError, match="privilege"):
        CoveoPushHook().list_sources()


def test_an_undocumented_response_is_an_error(coveo: Simulator, hook: CoveoPushHook) -> None:
    for body in ("[]", "{}", "not json", "[" * 100_000, ""):
        coveo.faults.answer(200, body=body, operation="source")
        with pytest.raises(errors.UnexpectedAnswerError, match="JSON object"):
            hook.get_source(SOURCE)
    for body in (
        '{"sourceModels": 5}',
        '{"sourceModels": [], "totalEntries": "many"}',
        '{"sourceModels": [1]}',
    ):
        coveo.faults.answer(200, body=body, operation="page_sources", times=2)
        with pytest.raises(errors.UnexpectedAnswerError, match="page of sources"):
            hook.list_sources()
        assert hook.test_connection()[0] is False


# --- limits ---


def test_a_limit_is_returned_with_its_usage(coveo: Simulator, hook: CoveoPushHook) -> None:
    keep_off_midnight(coveo)
    coveo.daily_documents = 10
    hook.push_items(SOURCE, [ITEM])
    limit = hook.get_limit()
    assert (limit["limit"], limit["actualCount"]) == (10, 1)
    assert coveo.requests[-1].path == (
        "/rest/organizations/acme/limits/content/pushApiMaximumDailyDocumentLimit"
    )


@pytest.mark.parametrize("key", ["", "a/b", "../status", None, 7])
def test_an_invalid_limit_key_is_rejected_before_anything_is_sent(
    coveo: Simulator, hook: CoveoPushHook, key: Any
) -> None:
    with pytest.raises(CoveoInputError, match="Invalid limit key") as refused:
        hook.get_limit(key)
    assert isinstance(refused.value, AirflowFailException)
    assert coveo.requests == []


# --- the connection test ---


def test_the_test_of_a_valid_connection_succeeds_and_changes_nothing(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    works, message = hook.test_connection()
    assert works, message
    assert "1 Push source" in message
    assert [request.method for request in coveo.requests] == ["GET"]
    assert coveo.timeline(SOURCE) == []


def test_the_test_of_a_connection_with_a_push_only_key_succeeds(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    connect(password=coveo.push_only_key)
    works, message = CoveoPushHook().test_connection()
    assert works
    assert "push" in message


@pytest.mark.parametrize(
    ("fields", "blamed"),
    [
        ({"password": SENTINEL}, "API key is not valid"),
        ({"login": "other"}, "There is no organization 'other'"),
        ({"login": ""}, "organization ID is empty"),
        ({"password": ""}, "no API key"),
        ({"extra": {"region": "mars"}}, "Invalid region: 'mars'"),
        ({"host": "http://127.0.0.1:9"}, "refused"),
        ({"host": "http://example.com"}, "http"),
    ],
)
def test_the_connection_test_names_the_problem(
    coveo: Simulator, connect: Callable[..., None], fields: dict[str, Any], blamed: str
) -> None:
    connect(**fields)
    works, message = CoveoPushHook().test_connection()
    assert not works
    assert blamed in message
    assert SENTINEL not in message


def test_a_wrong_path_in_the_host_is_named(connect: Callable[..., None]) -> None:
    with Simulator(organization="acme", sources=[SOURCE]) as elsewhere:
        connect(host=f"{elsewhere.url}/coveo", password=elsewhere.api_key)
        works, message = CoveoPushHook().test_connection()
        assert not works
        blamed = f"the path in the connection's host, {elsewhere.url}/coveo, is wrong"
        assert blamed in message
        assert "There is no organization" not in message
        with pytest.raises(errors.NotFoundError, match=re.escape(blamed)):
            CoveoPushHook().set_source_status(SOURCE, "REBUILD")


@pytest.mark.parametrize("what_is_wrong", ["region", "key"])
def test_a_connection_test_sends_the_key_to_no_other_region(
    coveo: Simulator, connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch, what_is_wrong: str
) -> None:
    from airflow_provider_coveo.coveo.endpoints import REGIONS, Region

    with Simulator(organization="someone-else") as elsewhere:
        for name in REGIONS:
            url = coveo.url if name == "eu" else elsewhere.url
            monkeypatch.setitem(REGIONS, name, Region(name, name.upper(), url, url))
        if what_is_wrong == "region":
            connect(host="", extra={"region": "us"}, password=coveo.api_key)
        else:
            connect(host="", extra={"region": "us"}, password=SENTINEL, login="someone-else")
        works, message = CoveoPushHook().test_connection()
        assert not works
        assert "Check the region too: Coveo has us (US), ca (CA), eu (EU), au (AU), hipaa (HIPAA)" in message
        assert len(elsewhere.requests) == 1
        assert coveo.requests == []


# --- a connection as Airflow stores it ---


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ('{"region": "eu",}', "extra"),
        ("region=eu", "extra"),
        ('["eu"]', "extra"),
        ('"eu"', "extra"),
        ('{"regoin": "eu"}', "regoin"),
        ('{"region": ["eu"]}', "region"),
        ('{"region": "us", "region": "eu"}', "region"),
    ],
)
@pytest.mark.parametrize("form", ["JSON", "URI", "JSON object"])
def test_an_unreadable_extra_is_rejected_and_the_key_is_not_sent(
    coveo: Simulator, monkeypatch: pytest.MonkeyPatch, form: str, extra: str, named: str
) -> None:
    """Airflow itself would continue without it, and the key would go to another region."""
    from urllib.parse import quote, urlsplit

    host = urlsplit(coveo.url).netloc
    if form == "URI":
        stored = f"coveo://acme:{SENTINEL}@{host}/?__extra__={quote(extra, safe='')}"
    else:
        try:
            given = json.loads(extra) if form == "JSON object" else extra
        except ValueError:
            pytest.skip("no JSON object")
        if given == {"region": "eu"}:
            pytest.skip("a repeated name does not outlive Python's own reader")
        stored = json.dumps(
            {"conn_type": "coveo", "login": "acme", "password": SENTINEL, "host": coveo.url, "extra": given}
        )
    monkeypatch.setenv("AIRFLOW_CONN_COVEO_DEFAULT", stored)
    for call in (
        lambda: CoveoPushHook().set_source_status(SOURCE, "IDLE"),
        lambda: CoveoPushHook().run("/rest"),
    ):
        with pytest.raises(errors.CoveoConfigurationError, match=named) as refused:
            call()
        assert SENTINEL not in str(refused.value)
        assert refused.value.remedy
    works, message = CoveoPushHook().test_connection()
    assert not works
    assert named in message
    assert coveo.requests == []


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"host": "eu"}, "name of a region"),
        ({"host": "not a host"}, "host"),
        ({"login": "acme inc"}, "organization ID"),
        ({"schema": "eu", "host": "p.example.com"}, "schema"),
    ],
)
def test_an_invalid_host_is_rejected_without_waiting_for_it(
    connect: Callable[..., None], fields: dict[str, Any], named: str
) -> None:
    connect(**{"host": "", **fields})
    # The retry limit of 900 seconds, which is not used at all.
    with pytest.raises(errors.CoveoConfigurationError, match=named) as refused:
        CoveoPushHook().set_source_status(SOURCE, "IDLE")
    assert isinstance(refused.value, AirflowFailException)


# --- secrets in logs and errors ---


def test_each_request_is_logged_in_one_line_with_method_path_status_time_and_attempt(
    coveo: Simulator, hook: CoveoPushHook, logged: Callable[[], str]
) -> None:
    coveo.faults.answer(503, operation="status")
    hook.set_source_status(SOURCE, "IDLE")
    path = f"/push/v1/organizations/acme/sources/{SOURCE}/status"
    lines = [line for line in logged().splitlines() if f"POST {path} ->" in line]
    assert len(lines) == 2
    assert re.search(r"-> 503 in \d+ ms \(attempt 1\)", lines[0])
    assert re.search(r"-> 201 in \d+ ms \(attempt 2\)", lines[1])


def test_neither_the_key_nor_a_presigned_url_appears_in_logs_or_errors(
    coveo: Simulator, connect: Callable[..., None], logged: Callable[[], str]
) -> None:
    logging.getLogger().setLevel(logging.DEBUG)
    shown: list[str] = []
    # With some wait, because the simulator records the upload of each attempt.
    policy = RetryPolicy(total_seconds=2, first_wait=0.1, longest_wait=0.1)
    coveo.faults.drop(operation="upload")
    coveo.faults.answer(503, operation="upload")
    coveo.faults.answer(403, operation="upload")
    coveo.faults.drop(operation="item", times=None)
    hook = CoveoPushHook(retry=policy)
    with pytest.raises(CoveoError) as raised:
        hook.add_or_update_item(SOURCE, {**ITEM, "data": "x" * 6_000_000})
    shown.append(_whole_story(raised.value))
    coveo.faults.clear()
    coveo.faults.drop(operation="upload", times=None)
    with pytest.raises(CoveoError) as raised:
        hook.add_or_update_item(SOURCE, {**ITEM, "data": "x" * 6_000_000})
    shown += [_whole_story(raised.value), repr(hook), str(vars(hook)), repr(hook.settings)]
    shown.append(repr(hook.test_connection()))
    shown.append(logged())
    signatures = {
        request.query[name]
        for request in coveo.requests
        if request.operation == "upload"
        for name in request.query
        if "Signature" in name
    }
    assert signatures
    assert "urllib3" in shown[-1] or "PUT" in shown[-1]
    for text in shown:
        assert coveo.api_key not in text
        for signature in signatures:
            assert signature not in text


def _whole_story(error: BaseException) -> str:
    import traceback

    chain = [error, error.__cause__, error.__context__]
    return "".join("".join(traceback.format_exception(one)) for one in chain if one is not None)


def test_the_key_is_masked_wherever_a_task_logs_it() -> None:
    secret = "xx-a-key-that-no-connection-has"
    mask_in_logs(secret)
    assert redact(f"Bearer {secret}") == "Bearer ***"


# --- as an HttpHook ---


def test_a_plain_http_operator_can_use_the_connection(coveo: Simulator, connect: Callable[..., None]) -> None:
    hook = CoveoPushHook("coveo_default", method="POST", auth_type=None, tcp_keep_alive=True)
    answer = hook.run(f"/push/v1/organizations/acme/sources/{SOURCE}/status?statusType=IDLE")
    assert answer.status_code == 201
    assert coveo.requests[0].headers["authorization"] == f"Bearer {coveo.api_key}"


def test_a_task_of_airflow_s_http_provider_can_use_the_connection(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    operator = HttpOperator(
        task_id="t",
        http_conn_id="coveo_default",
        endpoint=f"/push/v1/organizations/acme/sources/{SOURCE}/status?statusType=REBUILD",
        log_response=False,
    )
    operator.execute({})
    assert coveo.statuses(SOURCE) == ["REBUILD"]
    (request,) = coveo.requests
    assert request.headers["authorization"] == f"Bearer {coveo.api_key}"
    assert request.headers["user-agent"].endswith("caller/CoveoPushHook")


@pytest.mark.parametrize("status", [302, 307])
def test_run_follows_no_redirect(coveo: Simulator, connect: Callable[..., None], status: int) -> None:
    coveo.faults.redirect(f"{coveo.url}/elsewhere", status=status)
    with pytest.raises(errors.RedirectError):
        CoveoPushHook(method="PUT").run(f"/push/v1/organizations/acme/sources/{SOURCE}/documents", data="{}")
    assert len(coveo.requests) == 1


def test_run_raises_coveo_s_errors_and_respects_the_timeout(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    path = "/push/v1/organizations/acme/sources/nowhere/status?statusType=IDLE"
    patient = CoveoPushHook(method="POST", retry=RetryPolicy(total_seconds=0))
    with pytest.raises(errors.SourceDoesNotExistError):
        patient.run(path)
    coveo.faults.stall(20)
    hook = CoveoPushHook(method="POST", timeout=0.2, retry=RetryPolicy(total_seconds=0))
    with pytest.raises(errors.NoAnswerError):
        hook.run(f"/push/v1/organizations/acme/sources/{SOURCE}/status?statusType=IDLE")
    assert patient.run(path, extra_options={"check_response": False}).status_code == 412


def test_the_hook_s_former_methods_for_parts_of_a_push_still_work_and_are_deprecated(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    with pytest.warns(AirflowProviderDeprecationWarning, match=r"client\.containers\.upload"):
        file_id = hook.upload(
            b'{"addOrUpdate": [{"documentId": "a://1", "data": "x"}]}', "Could not upload"
        ).file_id
    path = f"/push/v1/organizations/acme/sources/{SOURCE}/documents/batch"
    with pytest.warns(AirflowProviderDeprecationWarning, match=r"client\.containers\.submit"):
        accepted = hook.take_batch(path, file_id, "Could not push", RetryPolicy())
    assert accepted.status_code == 202
    assert set(coveo.items(SOURCE)) == {"a://1"}
    with pytest.warns(AirflowProviderDeprecationWarning, match=r"client\.caller\.repeat"):
        assert hook.repeated(lambda number: number) == 1
    with pytest.warns(AirflowProviderDeprecationWarning, match="branch"):
        branch = hook.branch()
    branch.stop()
    with pytest.raises(CoveoError, match="nothing was sent"):
        branch.set_source_status(SOURCE, "IDLE")
    hook.set_source_status(SOURCE, "REBUILD")
    hook.stop()
    assert hook.branch().is_stopped
