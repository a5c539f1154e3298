"""Whatever a server sends, it does not count as success by mistake, mix up responses, or block forever."""

from __future__ import annotations

import asyncio
import json
import logging
import select
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_coveo.coveo import errors
from airflow_provider_coveo.coveo.errors import CoveoError
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.coveo.transport import Request, json_call
from airflow_provider_coveo.hooks.async_client import CoveoAsyncClient
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from tests.conftest import SOURCE
from tests.raw import PATIENCE, Client, RawServer, always, answer

ONCE = RetryPolicy(total_seconds=0)
ITEM = {"documentId": "product://4711", "data": "An anvil."}
MIB = 1024 * 1024


def at(connect: Callable[..., None], server: RawServer, **options: Any) -> CoveoPushHook:
    """Return a hook whose connection points to the server."""
    extra = {"verify": "false"} if server.url.startswith("https") else {}
    connect(host=server.url, extra=extra)
    return CoveoPushHook(**{"retry": ONCE, "timeout": (5, 5), **options})


def by_hook(hook: CoveoPushHook) -> Any:
    return hook.get_source(SOURCE)


def by_client(hook: CoveoPushHook) -> Any:
    """Send a request like a trigger."""

    async def ask() -> Any:
        async with CoveoAsyncClient("coveo_default", retry=ONCE) as client:
            path = f"/rest/organizations/acme/sources/{SOURCE}"
            return await client.call(
                json_call(Request("Could not read it", "GET", path, host="platform"), "id")
            )

    return asyncio.run(ask())


BOTH = pytest.mark.parametrize("ask", [by_hook, by_client])
SCHEMES = pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])


@contextmanager
def ended_within(seconds: float) -> Iterator[None]:
    """Fail if it takes longer than a limit that is generous even for a busy machine."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


# --- destinations of requests, and their log lines ---


@BOTH
@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
def test_plain_http_goes_through_a_proxy_on_this_machine_only(
    connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch, ask: Callable[..., Any], name: str
) -> None:
    response = answer(200, b'{"id": "acme-products"}')
    with RawServer(always(response)) as server, RawServer(always(response)) as proxy:
        hook = at(connect, server)
        # An address of this machine that is not a loopback address.
        monkeypatch.setenv(name, f"http://user:pass@0.0.0.0:{proxy.port}")
        ask(hook)
        assert (len(server.requests), len(proxy.requests)) == (1, 0)
        monkeypatch.setenv(name, proxy.url)
        ask(hook if ask is by_client else at(connect, server))
        assert (len(server.requests), len(proxy.requests)) == (1, 1)


@pytest.mark.parametrize("query", ["X-Amz-Signature=s3cr3t", "sig=s3cr3t", "X-Amz-Security-Token=s3cr3t&X=1"])
@pytest.mark.parametrize(
    "response",
    [
        answer(200),
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nno header at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n folded: from nothing\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"",
    ],
)
def test_urllib3_logs_no_presigned_url(
    connect: Callable[..., None], logged: Callable[[], str], response: bytes, query: str
) -> None:
    def script(client: Client) -> None:
        while request := client.read_request():
            if b"/files" in request.split(b"\r\n")[0]:
                uri = f"{server.url}/bucket/1?{query}"
                client.send(
                    answer(201, json.dumps({"fileId": "1", "uploadUri": uri, "requiredHeaders": {}}).encode())
                )
            elif b"/bucket" in request:
                client.send(response)
                if not response:
                    return
            else:
                client.send(answer(202))

    logger = logging.getLogger("urllib3")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        with RawServer(script) as server, suppress(CoveoError):
            at(connect, server).push_items(SOURCE, [ITEM])
    finally:
        logger.setLevel(level)
    shown = logged()
    assert "/bucket/1" in shown
    assert "s3cr3t" not in shown


# --- which response belongs to which request ---


INTERIM = [
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n",
    b"HTTP/1.1 199 Whatever\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n",
]


@SCHEMES
@pytest.mark.parametrize("interim", INTERIM)
def test_informational_responses_are_skipped(
    connect: Callable[..., None], certificate: tuple[Path, Path], interim: bytes, secure: bool
) -> None:
    statuses = iter([201, 403, 202])

    def script(client: Client) -> None:
        while client.read_request():
            client.send(interim)
            client.send(interim + answer(next(statuses)))

    with RawServer(script, certificate=certificate if secure else None) as server:
        hook = at(connect, server)
        assert hook.set_source_status(SOURCE, "IDLE")["status"] == "IDLE"
        with pytest.raises(errors.AccessDeniedError):
            hook.set_source_status(SOURCE, "IDLE")
        hook.delete_item(SOURCE, "product://1")


@pytest.mark.parametrize("interim", INTERIM)
def test_an_async_client_skips_informational_responses_too(
    connect: Callable[..., None], interim: bytes
) -> None:
    def script(client: Client) -> None:
        while client.read_request():
            client.send(interim + answer(200, b'{"id": "acme-products"}'))

    with RawServer(script) as server:
        assert by_client(at(connect, server))["id"] == SOURCE


def test_an_informational_response_in_the_middle_of_an_upload_does_not_end_it(
    connect: Callable[..., None],
) -> None:
    def script(client: Client) -> None:
        while head := client.read_request(body=False):
            if b"/files" in head:
                client.send(answer(201, container(server)))
            else:
                client.send(b"HTTP/1.1 102 Processing\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                got = len(client._rest)
                client._rest = b""
                while got < length:
                    got += len(client.sock.recv(65_536))
                client.send(answer(200))

    with RawServer(script) as server:
        at(connect, server).client.containers.upload(b"x" * (8 * MIB), "Could not upload")


def test_endless_informational_responses_are_an_error(connect: Callable[..., None]) -> None:
    def script(client: Client) -> None:
        client.read_request()
        for _ in range(100_000):
            client.send(INTERIM[1])

    with RawServer(script) as server, pytest.raises(errors.NoAnswerError, match="informational"):
        at(connect, server).set_source_status(SOURCE, "IDLE")


#: Responses with an unclear end, or with data after it; each has the status 201.
UNCERTAIN = {
    "another response": answer(201) + answer(403),
    "more than its length": answer(201, b"{}") + b"more",
    "much more than its length": answer(201, b"{}") + b"x" * 100_000,
    "two lengths": b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "a length and chunks": (
        b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "HTTP/1.0": answer(201, b"", "Connection: keep-alive", version="HTTP/1.0"),
    "a line that is no header": b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nwhat is this\r\n\r\n",
    "a length that others may read otherwise": (b"HTTP/1.1 201 Created\r\nContent-Length: 0_0\r\n\r\n"),
    "a length with a sign": b"HTTP/1.1 201 Created\r\nContent-Length: +0\r\n\r\n",
    "no length": b"HTTP/1.1 201 Created\r\nConnection: close\r\n\r\n",
}


@SCHEMES
@pytest.mark.parametrize("how", UNCERTAIN)
def test_a_connection_whose_state_is_uncertain_is_not_reused(
    connect: Callable[..., None], certificate: tuple[Path, Path], how: str, secure: bool
) -> None:
    def script(client: Client) -> None:
        client.read_request()
        client.send(UNCERTAIN[how] if client.number == 1 else answer(403))
        if how != "no length":
            client.wait_until_gone()

    with RawServer(script, certificate=certificate if secure else None) as server:
        hook = at(connect, server)
        hook.set_source_status(SOURCE, "IDLE")
        with pytest.raises(errors.AccessDeniedError):
            hook.set_source_status(SOURCE, "IDLE")
        assert [number for number, _ in server.requests] == [1, 2]


def test_data_on_an_idle_connection_is_not_a_response(connect: Callable[..., None]) -> None:
    late, came = threading.Event(), threading.Event()

    def script(client: Client) -> None:
        client.read_request()
        client.send(answer(201) if client.number == 1 else answer(403))
        if client.number == 1:
            late.wait(30)
            client.send(answer(201))
            came.set()
        client.wait_until_gone()

    with RawServer(script) as server:
        hook = at(connect, server)
        hook.set_source_status(SOURCE, "IDLE")
        late.set()
        assert came.wait(30)
        with pytest.raises(errors.AccessDeniedError):
            hook.set_source_status(SOURCE, "IDLE")


@BOTH
@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        answer(302, b"", "Location: https://example.com/"),
        answer(204),
        answer(202, b'{"id": "acme-products"}'),
        answer(503),
        answer(404, b"{}"),
        answer(200, b"[]"),
    ],
)
def test_no_connection_is_reused_after_an_unsuccessful_response(
    connect: Callable[..., None], ask: Callable[[CoveoPushHook], Any], response: bytes
) -> None:
    """Otherwise, data that such a server sends later would count as the next response."""

    def script(client: Client) -> None:
        client.read_request()
        client.send(response)
        client.wait_until_gone()

    with RawServer(script) as server:
        hook = at(connect, server)
        for number in (1, 2):
            with pytest.raises(CoveoError):
                ask(hook)
            assert server.connections == number


@pytest.mark.parametrize("what", ["a length and chunks", "another response", "more", "late"])
def test_an_async_client_does_not_reuse_a_connection_whose_state_is_uncertain(
    connect: Callable[..., None], what: str
) -> None:
    good, other = (answer(200, b'{"id": "%s"}' % name) for name in (b"first", b"other"))
    late = threading.Event()
    came = threading.Event()
    responses = {
        "a length and chunks": good.replace(
            b"Content-Length: 15", b"Content-Length: 99\r\nTransfer-Encoding: chunked"
        ).replace(b'{"id": "first"}', b'f\r\n{"id": "first"}\r\n0\r\n\r\n'),
        "another response": good + other,
        "more": good + b"x" * 1000,
        "late": good,
    }

    def script(client: Client) -> None:
        client.read_request()
        if client.number > 1:
            client.send(answer(403))
            return
        client.send(responses[what])
        if what == "late":
            late.wait(30)
            client.send(other)
            came.set()
        client.wait_until_gone()

    async def ask() -> None:
        async with CoveoAsyncClient("coveo_default", retry=ONCE) as client:
            call = json_call(Request("Could not read it", "GET", "/rest/x", host="platform"), "id")
            with suppress(errors.NoAnswerError):
                assert await client.call(call) == {"id": "first"}
            if what == "late":
                late.set()
                assert await asyncio.to_thread(came.wait, 30)
                # The event loop must process the data before anyone can detect it.
                for _ in range(100):
                    await asyncio.sleep(0.001)
            with pytest.raises(errors.AccessDeniedError):
                await client.call(call)

    with RawServer(script) as server:
        at(connect, server)
        asyncio.run(ask())


#: Data on an idle connection, and responses that close the connection.
NOT_TRUSTED = {
    "a whole response": (b"", answer(200, b'{"id": "stale"}')),
    "a part of a response": (b"", b"HTTP/1.1 200 OK\r\nContent-Le"),
    "a byte": (b"", b"H"),
    "chunks and no length": (b"Transfer-Encoding: chunked\r\n", b""),
    "HTTP/1.0": (b"", b""),
}


@SCHEMES
@pytest.mark.parametrize("what", [None, *NOT_TRUSTED])
def test_an_async_client_reuses_a_connection_only_if_no_data_is_left_on_it(
    connect: Callable[..., None], certificate: tuple[Path, Path], what: str | None, secure: bool
) -> None:
    judged, sent = threading.Event(), threading.Event()
    headers, late = NOT_TRUSTED.get(what or "", (b"", b""))
    body = b'{"id": "good"}'
    good = answer(200, body, version="HTTP/1.0" if what == "HTTP/1.0" else "HTTP/1.1")
    if what == "HTTP/1.0":
        good = good.replace(b"\r\n", b"\r\nConnection: keep-alive\r\n", 1)
    chunked = b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)

    def script(client: Client) -> None:
        while client.read_request():
            client.send(chunked if headers else good)
            if late and not sent.is_set():
                judged.wait(30)
                client.send(late)
            sent.set()

    async def ask() -> None:
        async with CoveoAsyncClient("coveo_default", retry=ONCE) as client:
            for _ in range(3):
                call = json_call(Request("Could not read it", "GET", "/rest/x", host="platform"), "id")
                assert await client.call(call) == {"id": "good"}
                judged.set()
                assert await asyncio.to_thread(sent.wait, 30)

    with RawServer(script, certificate=certificate if secure else None) as server:
        at(connect, server)
        asyncio.run(ask())
        # A chunked response has a certain end, too.
        expected = {None: 1, "chunks and no length": 1, "HTTP/1.0": 3}.get(what, 2)
        assert server.connections == expected
        assert len(server.requests) == 3


def test_an_async_client_reuses_no_connection_whose_response_was_not_validated(
    connect: Callable[..., None],
) -> None:
    """While one connection awaits its check, another request may need a connection."""

    def script(client: Client) -> None:
        while client.read_request():
            client.send(answer(202, b'{"id": "undocumented"}'))

    async def ask() -> None:
        async with CoveoAsyncClient("coveo_default", retry=ONCE) as client:

            async def one() -> None:
                call = json_call(Request("Could not read it", "GET", "/rest/x", host="platform"), "id")
                for _ in range(5):
                    with pytest.raises(errors.UnexpectedAnswerError):
                        await client.call(call)

            await asyncio.gather(*(one() for _ in range(5)))

    with RawServer(script) as server:
        at(connect, server)
        asyncio.run(ask())
        assert server.connections == len(server.requests) == 25


def test_no_connection_is_reused_after_a_timeout(connect: Callable[..., None]) -> None:
    gone = threading.Event()

    def script(client: Client) -> None:
        client.read_request()
        if client.number == 1:
            client.wait_until_gone()
            gone.set()
        client.send(answer(403))

    with RawServer(script) as server:
        hook = at(connect, server, timeout=(5, 0.2))
        with pytest.raises(errors.NoAnswerError, match="timed out"):
            hook.set_source_status(SOURCE, "IDLE")
        assert gone.wait(30)
        with pytest.raises(errors.AccessDeniedError):
            at(connect, server).set_source_status(SOURCE, "IDLE")


def container(server: RawServer) -> bytes:
    """Describe a file container on the server."""
    return json.dumps(
        {
            "uploadUri": f"{server.url}/bucket/1?X-Amz-Signature=0",
            "fileId": "1",
            "requiredHeaders": {"Content-Type": "application/octet-stream"},
        }
    ).encode()


@SCHEMES
@pytest.mark.parametrize(
    ("status", "error"),
    [(413, errors.RequestTooLargeError), (403, errors.UploadError), (200, errors.NoAnswerError)],
)
def test_a_response_before_the_end_of_the_request_is_read_but_is_not_a_success(
    connect: Callable[..., None],
    certificate: tuple[Path, Path],
    status: int,
    error: type[CoveoError],
    secure: bool,
) -> None:
    def script(client: Client) -> None:
        while head := client.read_request(body=False):
            if b"/files" in head:
                client.send(answer(201, container(server)))
            else:
                # It reads only the head, and leaves the connection open.
                client.send(answer(status))
                time.sleep(3)
                return

    with RawServer(script, certificate=certificate if secure else None) as server, pytest.raises(error):
        at(connect, server, timeout=(5, 20)).client.containers.upload(b"x" * (64 * MIB), "Could not upload")


# --- time limits ---


@SCHEMES
def test_an_upload_that_the_server_does_not_read_times_out(
    connect: Callable[..., None], certificate: tuple[Path, Path], secure: bool
) -> None:
    def script(client: Client) -> None:
        while head := client.read_request(body=False):
            if b"/files" in head:
                client.send(answer(201, container(server)))
            else:
                over.wait(30)
                return

    over = threading.Event()
    with (
        RawServer(script, certificate=certificate if secure else None) as server,
        ended_within(20),
        pytest.raises(errors.NoAnswerError, match=r"timed out: no data sent or received for 0\.5 s"),
    ):
        at(connect, server, timeout=(5, 0.5)).client.containers.upload(b"x" * (64 * MIB), "Could not upload")
    over.set()


@SCHEMES
def test_a_slow_upload_does_not_time_out_whatever_the_connect_timeout(
    connect: Callable[..., None], certificate: tuple[Path, Path], secure: bool
) -> None:
    """The whole request takes several times either timeout."""

    def script(client: Client) -> None:
        while head := client.read_request(body=False):
            if b"/files" in head:
                client.send(answer(201, container(server)))
                continue
            left = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]) - len(client._rest)
            client._rest = b""
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            while left:
                time.sleep(0.01)
                left -= len(client.sock.recv(256 * 1024))
            client.send(answer(200))

    with RawServer(script, certificate=certificate if secure else None) as server:
        hook = at(connect, server, timeout=(0.5, 1.0))
        hook.client.containers.upload(b"x" * (24 * MIB), "Could not upload")


def test_the_response_to_a_large_upload_can_take_longer_since_a_proxy_may_still_forward_it(
    connect: Callable[..., None],
) -> None:
    def script(client: Client) -> None:
        while head := client.read_request():
            if b"/files" in head:
                client.send(answer(201, container(server)))
            else:
                # Like a proxy that accepts everything at once, and forwards it slowly.
                time.sleep(1.5)
                client.send(answer(200))

    with RawServer(script) as server:
        hook = at(connect, server, timeout=(5, 0.5))
        hook.client.containers.upload(b"x" * (24 * MIB), "Could not upload")
        with pytest.raises(errors.NoAnswerError, match="timed out"):
            hook.client.containers.upload(b"x", "Could not upload")


DRIPS: dict[str, Callable[[Client], None]] = {
    "the status line": lambda client: client.drip(b"HTTP/1.1 200 " + b"x" * 100_000),
    "the headers": lambda client: client.drip(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 90_000),
    "the body": lambda client: (
        client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"),
        client.drip(b" " * 1_000_000),
    )[-1],
    "an error's body": lambda client: (
        client.send(b"HTTP/1.1 503 Oh\r\nTransfer-Encoding: chunked\r\n\r\n"),
        client.drip(b"1\r\n \r\n" * 100_000),
    )[-1],
    "informational responses": lambda client: client.drip(INTERIM[1] * 90),
}


@BOTH
@pytest.mark.parametrize("what", DRIPS)
def test_a_slow_drip_of_bytes_ends_at_the_total_timeout(
    connect: Callable[..., None], ask: Callable[[CoveoPushHook], Any], what: str
) -> None:
    def script(client: Client) -> None:
        client.read_request()
        DRIPS[what](client)

    with RawServer(script) as server:
        hook = at(connect, server, total_timeout=0.6)
        connect(host=server.url, extra={"total_timeout": "0.6"})
        with ended_within(20), pytest.raises(errors.NoAnswerError, match=r"timed out|Timeout"):
            ask(hook)


def test_the_total_timeout_grows_with_the_size_of_the_request(connect: Callable[..., None]) -> None:
    settings = CoveoPushHook().settings
    assert settings.total_seconds(0) == 300
    # Three uploads share a line of 2 Mbit/s.
    assert settings.total_seconds(12 * MIB) > 3 * 12 * MIB / 250_000
    assert settings.total_seconds(64 * MIB) > 3 * 64 * MIB / 2_000_000
    assert settings.total_seconds(256 * MIB) == 3600
    assert settings.total_seconds(0, (10, 120)) == 600
    assert settings.total_seconds(0, 2000) == 10_000


# --- through a proxy ---


def relay(client: Client) -> None:
    """Forward a connection to the requested host, as a proxy does for TLS."""
    head = client.read_request()
    target = head.split(b" ")[1].decode()
    host, _, port = target.partition(":")
    with socket.create_connection((host, int(port))) as upstream:
        client.send(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 Connection established\r\n\r\n")

        # In one thread: two that read and write on one TLS connection at the same time damage it.
        other_end: dict[socket.socket, socket.socket] = {client.sock: upstream, upstream: client.sock}
        with suppress(OSError):
            readable = [client.sock]
            while readable:
                has_more = isinstance(client.sock, ssl.SSLSocket) and client.sock.pending()
                readable = [client.sock] if has_more else select.select(other_end, [], [], PATIENCE)[0]
                for sock in readable:
                    if not (piece := sock.recv(65_536)):
                        return
                    other_end[sock].sendall(piece)


@pytest.mark.parametrize("secure_proxy", [False, True], ids=["http proxy", "https proxy"])
def test_limits_and_responses_are_the_same_through_a_proxy(
    connect: Callable[..., None], certificate: tuple[Path, Path], secure_proxy: bool
) -> None:
    def script(client: Client) -> None:
        number = 0
        while head := client.read_request():
            number += 1
            if b"/files" in head:
                client.send(INTERIM[4] + answer(201, container(server)))
            elif head.startswith(b"PUT /bucket"):
                client.send(INTERIM[1] + answer(200))
            elif b"/batch" in head:
                client.send(answer(202) + answer(500))
            else:
                client.wait_until_gone()

    with (
        RawServer(script, certificate=certificate) as server,
        RawServer(relay, certificate=certificate if secure_proxy else None) as proxy,
    ):
        connect(host=server.url, extra={"verify": str(certificate[0]), "proxies": {"https": proxy.url}})
        hook = CoveoPushHook(retry=ONCE, timeout=(5, 1))
        many = [{"documentId": f"product://{number}", "data": "x" * MIB} for number in range(4)]
        assert hook.push_items(SOURCE, many, batch_bytes=2 * MIB)["accepted_adds"] == 4
        with pytest.raises(errors.NoAnswerError, match="timed out"):
            hook.get_source(SOURCE)
        assert proxy.connections == server.connections > 1


@pytest.mark.parametrize("stopped", [False, True], ids=["total", "stop"])
def test_a_proxy_that_drips_its_response_does_not_block_the_request(
    connect: Callable[..., None], stopped: bool
) -> None:
    begun = threading.Event()

    def script(client: Client) -> None:
        client.read_request()
        begun.set()
        client.drip(b"HTTP/1.1 200 " + b"x" * 60_000)

    with RawServer(script) as proxy:
        connect(host="https://127.0.0.1:9", extra={"proxies": {"https": proxy.url}})
        hook = CoveoPushHook(retry=ONCE, timeout=(5, 5), total_timeout=60 if stopped else 0.6)
        if stopped:
            _stopped_while(begun, hook.stop, lambda: hook.get_source(SOURCE))
        else:
            with ended_within(20), pytest.raises(errors.NoAnswerError, match="the whole request"):
                hook.get_source(SOURCE)


# --- stop ---


def under_way(script: Callable[[Client, threading.Event], None]) -> Callable[..., Any]:
    def begin(begun: threading.Event) -> Callable[[Client], None]:
        return lambda client: script(client, begun)

    return begin


def _no_handshake(client: Client, begun: threading.Event) -> None:
    begun.set()
    client.wait_until_gone()


def _no_answer(client: Client, begun: threading.Event) -> None:
    client.read_request()
    begun.set()
    client.wait_until_gone()


def _dripping_body(client: Client, begun: threading.Event) -> None:
    client.read_request()
    client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    begun.set()
    client.drip(b" " * 1_000_000, 0.01)


def _try_later(client: Client, begun: threading.Event) -> None:
    client.read_request()
    client.send(answer(503, b"", "Retry-After: 300"))
    begun.set()
    client.wait_until_gone()


STOPPED = {
    "handshake": (_no_handshake, "https"),
    "waiting": (_no_answer, "http"),
    "reading": (_dripping_body, "http"),
    "sleeping": (_try_later, "http"),
}


@pytest.mark.parametrize("phase", STOPPED)
def test_stop_ends_a_request_of_the_hook_in_each_phase(connect: Callable[..., None], phase: str) -> None:
    script, scheme = STOPPED[phase]
    begun = threading.Event()
    with RawServer(lambda client: script(client, begun)) as server:
        connect(host=f"{scheme}://127.0.0.1:{server.port}")
        hook = CoveoPushHook(timeout=(60, 60), retry=RetryPolicy(total_seconds=900))
        _stopped_while(begun, hook.stop, lambda: hook.get_source(SOURCE))


def _stopped_while(begun: threading.Event, stop: Callable[[], None], work: Callable[[], Any]) -> None:
    """Check that stopped work ends with an error, long before any of its timeouts."""

    def stop_it() -> None:
        begun.wait(30)
        stop()

    threading.Thread(target=stop_it, daemon=True).start()
    with ended_within(30), pytest.raises((errors.NoAnswerError, errors.ServiceError)):
        work()


def test_stop_ends_an_upload_that_the_server_does_not_read(connect: Callable[..., None]) -> None:
    begun = threading.Event()

    def script(client: Client) -> None:
        while head := client.read_request(body=False):
            if b"/files" in head:
                client.send(answer(201, container(server)))
            else:
                begun.set()
                time.sleep(40)

    with RawServer(script) as server:
        hook = at(connect, server, timeout=(60, 60))
        _stopped_while(
            begun, hook.stop, lambda: hook.client.containers.upload(b"x" * (64 * MIB), "Could not upload")
        )


def test_stop_ends_an_attempt_to_connect(connect: Callable[..., None]) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        # No one accepts connections and the queue is full, so further attempts get no response.
        port = full.getsockname()[1]
        fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        connect(host=f"http://127.0.0.1:{port}")
        hook = CoveoPushHook(timeout=(60, 60), retry=ONCE)
        begun = threading.Event()
        begun.set()
        _stopped_while(begun, hook.stop, lambda: hook.get_source(SOURCE))
        for filler in fillers:
            filler.close()


def test_a_response_directly_after_a_stop_still_counts(connect: Callable[..., None]) -> None:
    """A killed push must know whether its last batch was accepted."""
    hooks: list[CoveoPushHook] = []

    def script(client: Client) -> None:
        client.read_request()
        hooks[0].stop()
        client.send(answer(201))

    with RawServer(script) as server:
        hooks.append(at(connect, server))
        assert hooks[0].set_source_status(SOURCE, "IDLE")["status"] == "IDLE"
        with pytest.raises(errors.NoAnswerError, match="nothing was sent"):
            hooks[0].set_source_status(SOURCE, "IDLE")


@pytest.mark.parametrize("phase", ["waiting", "sleeping"])
def test_a_signal_handler_can_stop_the_hook_whatever_it_interrupts(
    connect: Callable[..., None], phase: str
) -> None:
    script, _ = STOPPED[phase]
    begun = threading.Event()
    with RawServer(lambda client: script(client, begun)) as server:
        connect(host=server.url)
        hook = CoveoPushHook(timeout=(60, 60), retry=RetryPolicy(total_seconds=900))
        before = signal.signal(signal.SIGUSR1, lambda *_: hook.stop())
        try:
            main = threading.get_ident()
            _stopped_while(
                begun,
                lambda: signal.pthread_kill(main, signal.SIGUSR1),
                lambda: hook.get_source(SOURCE),
            )
        finally:
            signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("phase", STOPPED)
def test_stop_ends_a_request_of_the_client_in_each_phase(connect: Callable[..., None], phase: str) -> None:
    script, scheme = STOPPED[phase]
    begun = threading.Event()
    clients: list[CoveoAsyncClient] = []

    async def ask() -> None:
        async with CoveoAsyncClient("coveo_default") as client:
            clients.append(client)
            await client.call(json_call(Request("Could not read it", "GET", "/rest/x", host="platform")))

    with RawServer(lambda client: script(client, begun)) as server:
        connect(host=f"{scheme}://127.0.0.1:{server.port}", extra={"timeout": "60"})
        _stopped_while(begun, lambda: clients[0].stop(), lambda: asyncio.run(ask()))


# --- invalid responses ---


def gzipped(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


GARBAGE = {
    "location in Latin-1": b"HTTP/1.1 302 Found\r\nLocation: /caf\xe9\r\nContent-Length: 0\r\n\r\n",
    "location that is no URL": b"HTTP/1.1 301 Moved\r\nLocation: http://[bad\r\nContent-Length: 0\r\n\r\n",
    "location with a bad port": b"HTTP/1.1 307 Go\r\nLocation: http://a:b:c/\r\nContent-Length: 0\r\n\r\n",
    "empty location": b"HTTP/1.1 308 Go\r\nLocation:\r\nContent-Length: 0\r\n\r\n",
    "no location": b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
    "redirect with an endless body": b"HTTP/1.1 302 F\r\nLocation: /\r\nContent-Length: 999999999\r\n\r\nx",
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "binary": bytes(range(256)) * 40,
    "status that is no number": b"HTTP/1.1 OK 200\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "long status line": b"HTTP/1.1 200 " + b"x" * 100_000 + b"\r\n\r\n",
    "HTTP/2 preface": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    "HTTP/3.7": b"HTTP/3.7 200 OK\r\nContent-Length: 0\r\n\r\n",
    "long header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1_000 + b"\r\n",
    "header that is none": b"HTTP/1.1 200 OK\r\nno colon here\r\nContent-Length: 2\r\n\r\n{}",
    "header name in Latin-1": b"HTTP/1.1 200 OK\r\n\xe9: \xff\x00\r\nContent-Length: 2\r\n\r\n{}",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}",
    "length that is no number": b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n{}",
    "endless length": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n{}",
    "bad chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n",
    "negative chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
    "long chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 100_000,
    "chunk that breaks off": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
    "unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, x\r\n\r\n{}",
    "gzip that is none": gzipped(b"this is not gzip"),
    "gzip that breaks off": gzipped(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"),
    "many codings": b"HTTP/1.1 200 OK\r\nContent-Encoding: " + b"gzip," * 50 + b"gzip\r\n"
    b"Content-Length: 2\r\n\r\n{}",
    "deflate that is none": b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nContent-Length: 3\r\n\r\nabc",
    "unknown charset": b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=klingon\r\n"
    b"Content-Length: 2\r\n\r\n{}",
    "charset with NUL": b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=\x00\r\n"
    b"Content-Length: 2\r\n\r\n{}",
    "UTF-16": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n" + '{"'.encode("utf-16"),
    "broken UTF-8": answer(200, b'{"id": "\xff\xfe"'),
    "no JSON": answer(200, b"nothing"),
    "another shape": answer(200, b'["id"]'),
    "deep": answer(200, b"[" * 100_000),
    "a huge number": answer(200, b"9" * 10_000),
    "a bare number": answer(200, b"1e999"),
    "a bad date": answer(200, b"{}", "Date: Thu, 99 Foo 99999999 99:99:99 GMT"),
    "a bad Retry-After": answer(503, b"", "Retry-After: " + "9" * 5_000, "Date: \xff"),
    "a cookie": answer(200, b"{}", "Set-Cookie: \xe9=\xff; expires=never; Max-Age=x"),
    "an empty page": answer(404, b""),
    "an error without end": b"HTTP/1.1 500 Oh\r\nContent-Type: text/html\r\n\r\n" + b"<title " * 30_000,
    "nothing": b"",
}


@BOTH
@SCHEMES
@pytest.mark.parametrize("what", GARBAGE)
def test_every_failure_raises_one_of_the_hook_s_own_errors(
    connect: Callable[..., None],
    certificate: tuple[Path, Path],
    ask: Callable[[CoveoPushHook], Any],
    what: str,
    secure: bool,
) -> None:
    def script(client: Client) -> None:
        client.read_request()
        client.send(GARBAGE[what])

    with RawServer(script, certificate=certificate if secure else None) as server:
        hook = at(connect, server)
        with ended_within(60), pytest.raises(CoveoError) as raised:
            ask(hook)
        assert len(str(raised.value)) < 2_000
        assert not isinstance(raised.value, errors.CoveoConfigurationError)
        assert "location" not in what or isinstance(raised.value, errors.RedirectError)


@pytest.mark.parametrize("what", [what for what in GARBAGE if "location" in what or "redirect" in what])
def test_a_redirect_is_an_error_wherever_it_leads(connect: Callable[..., None], what: str) -> None:
    with RawServer(always(GARBAGE[what])) as server:
        for call in (
            lambda hook: hook.set_source_status(SOURCE, "IDLE"),
            lambda hook: hook.add_or_update_item(SOURCE, ITEM),
            lambda hook: hook.run(f"/rest/organizations/acme/sources/{SOURCE}"),
            lambda hook: hook.push_items(SOURCE, [ITEM]),
        ):
            with pytest.raises(errors.RedirectError):
                call(at(connect, server))


def test_a_redirected_upload_is_an_error(connect: Callable[..., None]) -> None:
    def script(client: Client) -> None:
        while head := client.read_request():
            client.send(
                answer(201, container(server)) if b"/files" in head else GARBAGE["location in Latin-1"]
            )

    with RawServer(script) as server, pytest.raises(errors.RedirectError):
        at(connect, server).push_items(SOURCE, [ITEM])
