"""The receiving end of Airflow's metrics."""

from __future__ import annotations

import socket
from collections import Counter
from types import TracebackType


class Daemon:
    """What a StatsD daemon has summed up."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]

    def __enter__(self) -> Daemon:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def counters(self) -> Counter[str]:
        """Return the counters of what has arrived, tags and all."""
        self.socket.settimeout(0)
        found: Counter[str] = Counter()
        while True:
            try:
                packet = self.socket.recv(65_536).decode()
            except BlockingIOError:
                return found
            for line in packet.splitlines():
                name, _, value = line.partition(":")
                if name.startswith("airflow.coveo."):
                    found[name.removeprefix("airflow.")] += int(value.removesuffix("|c"))
