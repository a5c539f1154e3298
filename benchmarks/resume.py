"""
Measure the cost of resuming a push that was killed at 90 %.

    python benchmarks/resume.py [--items 10000000] [--at 0.9]

A process pushes small items to a receiver on loopback, and is killed with SIGKILL once that share of them is
accepted. Another one gets the same items and the state that the first one saved, like the next try of an
Airflow task; a file replaces Airflow's database.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.receiver import Receiver


class FileStore(dict[str, Any]):
    """
    The state that Airflow saves for a task, in a file.

    :param path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(json.loads(path.read_text()) if path.exists() else {})
        self._path = path

    def set(self, key: str, value: Any) -> None:
        """Save a value."""
        self[key] = value
        self._write()

    def delete(self, key: str) -> None:
        """Delete a value."""
        self.pop(key, None)
        self._write()

    def _write(self) -> None:
        written = self._path.with_suffix(".new")
        written.write_text(json.dumps(self))
        written.replace(self._path)


@dataclass(frozen=True)
class Try:
    """
    The figures of one process.

    :param items: The number of its accepted items.
    :param requests: The number of its requests.
    :param megabytes: The data that it sent.
    :param seconds: Its duration.
    :param kept: The bytes of state that it saved or, if it finished, found.
    :param result: The result of the push.
    """

    items: int
    requests: int
    megabytes: float
    seconds: float
    kept: int
    result: dict[str, Any]


def measure(
    items: int, at: float, batch_bytes: int | None = None, *, latency: float = 0.0
) -> tuple[Try, Try]:
    """Push, be killed, and push again."""
    with tempfile.TemporaryDirectory() as folder, Receiver(latency) as receiver:
        state = Path(folder) / "state.json"
        arguments = [receiver.url, str(state), str(items), str(batch_bytes or "")]
        first = _one_try(receiver, arguments, state, kill_at=int(items * at))
        return first, _one_try(receiver, arguments, state)


def _one_try(receiver: Receiver, arguments: list[str], state: Path, *, kill_at: int | None = None) -> Try:
    kept = state.stat().st_size if state.exists() else 0
    began = time.monotonic()
    told, tells = os.pipe()
    # A separate pipe, since Airflow can log to standard output.
    worker = subprocess.Popen(
        [sys.executable, __file__, "--worker", *arguments, str(tells)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[tells],
    )
    os.close(tells)
    result: dict[str, Any] = {}
    with os.fdopen(told) as lines:
        for line in lines:
            result = json.loads(line)
            if kill_at is not None and result["accepted_adds"] >= kill_at:
                worker.kill()
                break
    code = worker.wait()
    assert code == (0 if kill_at is None else -9), code
    counted = receiver.count()
    return Try(
        result["accepted_adds"] - result["resumed_entries"],
        counted["requests"],
        counted["bytes"] / 1e6,
        time.monotonic() - began,
        kept if kill_at is None else state.stat().st_size,
        result,
    )


def _work(url: str, state: str, items: str, batch_bytes: str, tells: str) -> None:
    os.environ["AIRFLOW_CONN_COVEO_DEFAULT"] = json.dumps(
        {"conn_type": "coveo", "login": "acme", "password": "key", "host": url}
    )
    from airflow_provider_coveo.coveo.batches import DEFAULT_BATCH_BYTES
    from airflow_provider_coveo.hooks.checkpoint import RunCheckpoint
    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

    context: Any = {"task_state_store": FileStore(Path(state)), "ti": SimpleNamespace(max_tries=1)}

    def tell(result: dict[str, Any]) -> None:
        os.write(int(tells), f"{json.dumps(result)}\n".encode())

    tell(
        CoveoPushHook().push_items(
            "acme-products",
            _items(int(items)),
            batch_bytes=int(batch_bytes or DEFAULT_BATCH_BYTES),
            checkpoint=RunCheckpoint(context, ["resume"], only_retries=False),
            progress=tell,
        )
    )


def _items(count: int) -> Iterator[bytes]:
    for number in range(count):
        yield b'{"documentId":"product://%d","data":"Product %d","price":%d}' % (number, number, number)


def _main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--at", type=float, default=0.9)
    parser.add_argument("--batch-bytes", type=int)
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        _work(*arguments.worker)
        return
    tries = measure(arguments.items, arguments.at, arguments.batch_bytes)
    print(f"{'':<8}{'items':>12}{'requests':>10}{'MB':>8}{'seconds':>9}{'state, bytes':>14}")
    for name, one in zip(("killed", "resumed"), tries, strict=True):
        print(
            f"{name:<8}{one.items:>12,}{one.requests:>10,}{one.megabytes:>8.0f}{one.seconds:>9.1f}{one.kept:>14,}"
        )
    print(f"The second try sent {tries[1].items / arguments.items:.2%} of the items.")


if __name__ == "__main__":
    _main()
