"""The receiving end of Airflow's metrics."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from types import TracebackType

_MARK = b"mark"


class Daemon:
    """The sums of this provider's counters, with tags, as a StatsD daemon computes them."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._address = self._socket.getsockname()
        self.port: int = self._address[1]
        self._counted: Counter[str] = Counter()
        self._marked = threading.Event()
        # The kernel buffers only a few hundred unread packets, and drops the others.
        self._thread = threading.Thread(target=self._receive, daemon=True)

    def __enter__(self) -> Daemon:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._send(b"")
        self._thread.join(timeout=100)
        self._socket.close()

    def counters(self) -> Counter[str]:
        """Return the counters of everything sent before this call."""
        self._marked.clear()
        self._send(_MARK)
        assert self._marked.wait(timeout=100)
        return Counter(self._counted)

    def _send(self, packet: bytes) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(packet, self._address)

    def _receive(self) -> None:
        while packet := self._socket.recv(65_536):
            if packet == _MARK:
                self._marked.set()
                continue
            for line in packet.decode().splitlines():
                name, _, value = line.partition(":")
                if name.startswith("airflow.coveo."):
                    self._counted[name.removeprefix("airflow.")] += int(value.removesuffix("|c"))
