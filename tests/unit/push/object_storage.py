"""An S3 over a socket, behind a proxy that breaks the requests that a test selects."""

from __future__ import annotations

import http.client
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


@dataclass
class Request:
    """
    A request through the proxy.

    :param method: Its method.
    :param path: Its path, with the query.
    """

    method: str
    path: str

    @property
    def is_listing(self) -> bool:
        """Whether it lists keys."""
        return self.method == "GET" and "list-type=2" in self.path

    @property
    def is_read(self) -> bool:
        """Whether it reads an object."""
        return self.method == "GET" and not self.is_listing


@dataclass
class Storage:
    """
    The storage.

    :param client: A client that bypasses the proxy.
    :param fault: The fault for a request: a status to return, a negative number of bytes after which the
        response breaks off, or ``None`` for no fault.
    :param seen: All requests.
    """

    client: Any
    fault: Callable[[Request], int | None] = lambda request: None
    seen: list[Request] = field(default_factory=list)

    def put(self, key: str, content: bytes) -> None:
        """Write an object into the bucket ``bucket``."""
        self.client.put_object(Bucket="bucket", Key=key, Body=content)

    def has(self, key: str) -> bool:
        """Return whether an object exists in the bucket ``bucket``."""
        return "Contents" in self.client.list_objects_v2(Bucket="bucket", Prefix=key, MaxKeys=1)

    def has_bucket(self, name: str) -> bool:
        """Return whether a bucket exists."""
        return any(bucket["Name"] == name for bucket in self.client.list_buckets()["Buckets"])

    def clear(self) -> None:
        """Delete all faults, and all objects in the bucket ``bucket``."""
        self.fault = lambda request: None
        self.seen.clear()
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket="bucket"):
            if entries := [{"Key": entry["Key"]} for entry in page.get("Contents", [])]:
                self.client.delete_objects(Bucket="bucket", Delete={"Objects": entries})


@contextmanager
def running_storage() -> Iterator[tuple[Storage, str]]:
    """Run both, and yield the storage with the URL of the proxy."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    client.create_bucket(Bucket="bucket")
    storage = Storage(client)
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), _proxy(storage, f"{host}:{port}"))
    proxy.daemon_threads = True
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield storage, f"http://127.0.0.1:{proxy.server_address[1]}"
    finally:
        proxy.shutdown()
        proxy.server_close()
        server.stop()


def _proxy(storage: Storage, behind: str) -> type[BaseHTTPRequestHandler]:
    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            request = Request(self.command, self.path)
            storage.seen.append(request)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = storage.fault(request)
            if fault is not None and fault > 0:
                self._answer(fault, {}, f"<Error><Code>{_CODES.get(fault, 'Error')}</Code></Error>".encode())
                return
            connection = http.client.HTTPConnection(behind, timeout=30)
            left_out = {"host", "expect"}
            headers = {name: value for name, value in self.headers.items() if name.lower() not in left_out}
            connection.request(self.command, self.path, body or None, headers={**headers, "Host": behind})
            answer = connection.getresponse()
            content = answer.read()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
            length = int(answer.headers.get("Content-Length") or len(content))
            self._answer(answer.status, kept, content, length, -fault if fault else None)
            connection.close()

        def _answer(
            self,
            status: int,
            headers: dict[str, str],
            content: bytes,
            length: int | None = None,
            cut: int | None = None,
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content) if length is None else length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[:cut])
            if cut is not None:
                self.close_connection = True

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    return Proxy


_CODES = {403: "AccessDenied", 503: "SlowDown"}


def connection_to(url: str) -> str:
    """Return an Airflow connection to a storage, without retries."""
    import json

    return json.dumps(
        {
            "conn_type": "aws",
            "login": "key",
            "password": "secret",
            "extra": {
                "endpoint_url": url,
                "region_name": "us-east-1",
                "config_kwargs": {"retries": {"total_max_attempts": 1}, "s3": {"addressing_style": "path"}},
            },
        }
    )
