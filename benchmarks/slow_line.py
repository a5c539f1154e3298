"""
Push over a slow line: check that it succeeds with the defaults, and measure how much of the line it uses.

    python benchmarks/slow_line.py                 # 2 Mbit/s with batches of 2 MiB, 16 Mbit/s with 64 MiB
    python benchmarks/slow_line.py --full          # 2 Mbit/s with the default batches of 12 MiB, too

The line is a receiver in another process, with TLS and a token bucket that all of its connections share. It
ends by itself after ``--seconds``. The ratio is the size of the pushed JSON, divided by the capacity of the
line from the first byte of an upload to the last one. Its difference from 1 is time in which the line was
idle or carried data twice. Creating the first items is not included.

Two batches of 64 MiB take 67 s at 16 Mbit/s; three of 12 MiB take 151 s at 2 Mbit/s. The timeouts are the
provider's own: a connection within 10 s, and 60 s of silence.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from local_certificate import write_certificate

MIB = 1024 * 1024
#: The bytes that the line delivers at once.
_PIECE = 8 * 1024
#: The receive buffer of each connection in bytes, small because a real line also holds little data.
_WINDOW = 64 * 1024
_ENOUGH = 0.8


class _Line:
    """A token bucket for the bytes of all connections."""

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._free_at = 0.0
        self.began: float | None = None
        self.ended = 0.0

    async def carry(self, size: int) -> None:
        now = time.monotonic()
        if self.began is None:
            self.began = now
        # The bucket holds a quarter of a second, so that a late wake-up wastes no capacity.
        self._free_at = max(self._free_at, now - 0.25) + size / self._rate
        await asyncio.sleep(max(0.0, self._free_at - now))
        self.ended = time.monotonic()


async def _serve(arguments: argparse.Namespace) -> None:
    line = _Line(arguments.mbit * 1e6 / 8)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(arguments.certificate, arguments.key)
    received = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                target = head.split(b" ", 2)[1].partition(b"?")[0]
                left = _content_length(head)
                is_upload = target.startswith(b"/bucket")
                while left:
                    piece = await reader.read(min(left, _PIECE))
                    if not piece:
                        return
                    left -= len(piece)
                    if is_upload:
                        received += len(piece)
                        await line.carry(len(piece))
                writer.write(_reply(target, line, received, url))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context, limit=_WINDOW)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    print(url, flush=True)
    await asyncio.sleep(arguments.seconds)


def _content_length(head: bytes) -> int:
    for field in head.split(b"\r\n")[1:]:
        name, _, value = field.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


def _reply(target: bytes, line: _Line, received: int, url: str) -> bytes:
    if target.startswith(b"/bucket"):
        return _response(200, b"")
    if target == b"/line":
        seconds = 0.0 if line.began is None else line.ended - line.began
        return _response(200, json.dumps({"seconds": seconds, "bytes": received}).encode())
    if target.endswith(b"/files"):
        described = {
            "uploadUri": f"{url}/bucket/1?X-Amz-Signature=0",
            "fileId": "1",
            "requiredHeaders": {"Content-Type": "application/octet-stream"},
        }
        return _response(201, json.dumps(described).encode())
    return _response(202, b"{}")


def _response(status: int, body: bytes) -> bytes:
    kind = b"Content-Type: application/json\r\n" if body else b""
    return b"HTTP/1.1 %d OK\r\n%sContent-Length: %d\r\n\r\n%s" % (status, kind, len(body), body)


def _items(size: int) -> Iterator[dict[str, Any]]:
    text = "x" * 20_000
    for number in range(size // 20_060):
        yield {"documentId": f"product://{number:08}", "data": text}


def _push(mbit: float, batch: int, batches: int, seconds: float) -> bool:
    """Push some batches, print the result, and return whether it is good enough."""
    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

    with tempfile.TemporaryDirectory() as folder:
        certificate, key = write_certificate(Path(folder))
        command = [sys.executable, __file__, "--serve", "--mbit", str(mbit), "--seconds", str(seconds)]
        with subprocess.Popen(
            [*command, "--certificate", str(certificate), "--key", str(key)],
            stdout=subprocess.PIPE,
            text=True,
        ) as receiver:
            assert receiver.stdout is not None
            try:
                os.environ["AIRFLOW_CONN_COVEO_DEFAULT"] = json.dumps(
                    {
                        "conn_type": "coveo",
                        "login": "acme",
                        "password": "xx-key",
                        "host": receiver.stdout.readline().strip(),
                        "extra": {"verify": "false"},
                    }
                )
                hook = CoveoPushHook()
                result = hook.push_items("acme-products", _items(batch * batches), batch_bytes=batch)
                line = hook.get_conn().get(f"{hook.settings.push_url}/line", timeout=30, verify=False).json()
            finally:
                receiver.terminate()
    ratio = result["bytes"] * 8 / (mbit * 1e6 * line["seconds"])
    print(
        f"{mbit:g} Mbit/s, batches of {batch / MIB:g} MiB: {result['batches']} batches, "
        f"{result['bytes'] / 1e6:.1f} MB in {line['seconds']:.1f} s, {ratio:.0%} of the line; sent "
        f"{line['bytes'] / max(1, result['bytes']):.2f} times",
        flush=True,
    )
    return bool(ratio >= _ENOUGH and result["accepted_adds"] > 0)


def main() -> int:
    """Run the benchmark, or the receiver."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--full", action="store_true", help="push batches of 12 MiB over 2 Mbit/s, too")
    parser.add_argument("--seconds", type=float, default=900.0, help="the lifetime of the receiver")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--mbit", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--certificate", help=argparse.SUPPRESS)
    parser.add_argument("--key", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(_serve(arguments))
        return 0
    runs = [(2.0, 2 * MIB, 3), (16.0, 64 * MIB, 2)]
    if arguments.full:
        runs.append((2.0, 12 * MIB, 3))
    return 0 if all(_push(*run, arguments.seconds) for run in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
