"""
A fake Coveo that accepts everything unseen, so that benchmarks measure only the client.

It runs in its own process, on a loopback port: ``python receiver.py [--latency SECONDS]`` prints its address.
``GET /count`` returns and resets the number of requests and bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import urllib.request
from types import TracebackType
from typing import Any


class _Connection(asyncio.Protocol):
    """One connection, with one request after the other."""

    latency = 0.0
    requests = 0
    bytes_received = 0
    url = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._head = b""
        self._body_left = 0
        self._answer = b""

    def data_received(self, data: bytes) -> None:
        while data:
            if self._body_left:
                taken = min(self._body_left, len(data))
                self._body_left -= taken
                data = data[taken:]
                if not self._body_left:
                    self._reply()
                continue
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data, self._head = self._head[:end], self._head[end + 4 :], b""
            self._begin(head)
            if not self._body_left:
                self._reply()

    def _begin(self, head: bytes) -> None:
        request_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self._body_left = int(headers.get("content-length", 0))
        method, target, _ = request_line.split(" ")
        cls = type(self)
        if headers.get("expect"):
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if target == "/count":
            body = json.dumps({"requests": cls.requests, "bytes": cls.bytes_received}).encode()
            cls.requests = cls.bytes_received = 0
            self._answer = _answer(200, body)
            return
        cls.requests += 1
        cls.bytes_received += self._body_left
        path = target.partition("?")[0]
        if path.endswith("/files"):
            described = {
                "uploadUri": f"{cls.url}/bucket/{cls.requests}?X-Amz-Signature=0",
                "fileId": str(cls.requests),
                "requiredHeaders": {
                    "x-amz-server-side-encryption": "AES256",
                    "Content-Type": "application/octet-stream",
                },
            }
            self._answer = _answer(201, json.dumps(described).encode())
        elif path.startswith("/bucket"):
            self._answer = _answer(200, b"")
        elif path.endswith("/status"):
            self._answer = _answer(201, b"{}")
        elif method == "GET":
            self._answer = _answer(200, b"{}")
        else:
            self._answer = _answer(202, b"{}")

    def _reply(self) -> None:
        if self.latency:
            asyncio.get_running_loop().call_later(self.latency, self._transport.write, self._answer)
        else:
            self._transport.write(self._answer)


def _answer(status: int, body: bytes) -> bytes:
    return (
        f"HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\nX-Request-ID: 0\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def _serve(latency: float) -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0)
    _Connection.latency = latency
    _Connection.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    sys.stdout.write(_Connection.url + "\n")
    sys.stdout.flush()
    await server.serve_forever()


class Receiver:
    """
    The receiver in another process. Use it as a context manager.

    :param latency: Seconds between the end of a request and its response.
    """

    def __init__(self, latency: float = 0.0) -> None:
        self._latency = latency

    def __enter__(self) -> Receiver:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--latency", str(self._latency)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait()

    def count(self) -> dict[str, int]:
        """Return the number of requests and bytes since the last call."""
        with urllib.request.urlopen(f"{self.url}/count") as answer:  # noqa: S310 - loopback
            counted: dict[str, int] = json.load(answer)
        return counted


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=0.0)
    asyncio.run(_serve(parser.parse_args().latency))
