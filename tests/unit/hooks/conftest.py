from __future__ import annotations

import http.server
import logging
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.fixture
def logged(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """All log lines, from structlog (Airflow 3) or the standard library (2.11)."""
    handler = logging.StreamHandler()
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)

    def _logged() -> str:
        out, err = capfd.readouterr()
        return out + err

    yield _logged
    root.removeHandler(handler)
    root.setLevel(level)


class _Answering201(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.server.seen.append(self.requestline)  # type: ignore[attr-defined]
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST  # noqa: N815 - what the standard library calls it

    def log_message(self, *args: Any) -> None:
        pass


def _serving(server: http.server.HTTPServer) -> None:
    server.seen = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()


@pytest.fixture
def proxy() -> Iterator[Any]:
    """A forward proxy that responds with 201 to every request."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answering201)
    _serving(server)
    yield SimpleNamespace(
        url=f"http://127.0.0.1:{server.server_port}",
        request_lines=server.seen,  # type: ignore[attr-defined]
    )
    server.shutdown()
    server.server_close()


@pytest.fixture
def tls_server(certificate: tuple[Path, Path]) -> Iterator[Any]:
    """An HTTPS server with a self-signed certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answering201)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *args: None  # type: ignore[method-assign]
    _serving(server)

    class Seen:
        url = f"https://127.0.0.1:{server.server_port}"

        def __init__(self) -> None:
            self.certificate = str(certificate[0])

        @property
        def requests(self) -> int:
            return len(server.seen)  # type: ignore[attr-defined]

    yield Seen()
    server.shutdown()
    server.server_close()


class _WithoutEnd(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    _piece = b"10000\r\n" + b"x" * 65_536 + b"\r\n"

    def do_GET(self) -> None:
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        # Far more than the buffers between the two ends can hold.
        with suppress(OSError):
            while self.server.pieces < 6_000:  # type: ignore[attr-defined]
                self.wfile.write(self._piece)
                self.server.pieces += 1  # type: ignore[attr-defined]
        self.close_connection = True

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def endless_server() -> Iterator[Any]:
    """A server whose responses are endless for a test: 400 MB."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _WithoutEnd)
    server.status, server.pieces = 404, 0  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    class Server:
        url = f"http://127.0.0.1:{server.server_port}"

        def answer_with(self, status: int) -> None:
            server.status = status  # type: ignore[attr-defined]

        @property
        def megabytes(self) -> float:
            """The number of bytes sent."""
            return server.pieces * 65_536 / 1e6  # type: ignore[attr-defined, no-any-return]

    yield Server()
    server.shutdown()
    server.server_close()
