"""
Memory of a whole push from files with items of 200 MB among normal ones, also of items that Coveo rejects.

    python benchmarks/large_items.py

Each run is a process of its own, and pushes to a receiver in another process. Memory is the peak above what
the imports and a first push need; seconds are those of the processor.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.receiver import Receiver
from benchmarks.worker import report, run_worker

LARGE = 200_000_000
TOO_LARGE = 300_000_000
_LOREM = "lorem ipsum dolor sit amet " * 60


def _normal(first: int) -> Iterator[dict[str, Any]]:
    for number in range(first, first + 5_000):
        yield {"documentId": f"product://{number}", "title": f"Title {number}", "data": _LOREM}


def _among_normal(*large: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from _normal(0)
    for number, item in enumerate(large, 1):
        yield {"documentId": f"large://{number}", **item}
        yield from _normal(number * 5_000)


CASES: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "normal items": lambda: _among_normal(*[{"data": ""}] * 3),
    "three of 200 MB of text": lambda: _among_normal(*[{"data": "x" * LARGE}] * 3),
    "three of 200 MB in Base64": lambda: _among_normal(
        *[{"compressedBinaryData": base64.b64encode(bytes(LARGE // 4 * 3)).decode()}] * 3
    ),
    "three of 200 MB of metadata": lambda: _among_normal(*[{"data": "", "text": "x" * LARGE}] * 3),
    "three of 200 MB, invalid": lambda: _among_normal(*[{"data": "", "a": {}, "text": "x" * LARGE}] * 3),
    "one of 300 MB": lambda: _among_normal({"data": "x" * TOO_LARGE}),
}


def _write(items: Iterator[dict[str, Any]], folder: Path) -> list[Path]:
    paths = [folder / "items.json", folder / "items.ndjson"]
    with paths[0].open("w") as array, paths[1].open("w") as lines:
        separator = "["
        for item in items:
            text = json.dumps(item)
            array.write(separator + text)
            lines.write(text + "\n")
            separator = ",\n"
        array.write("]")
    return paths


def _peak() -> int:
    """Return how many KiB of memory the process had at most."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


def _worker(url: str, path: str, on_invalid: str) -> None:
    os.environ["AIRFLOW_CONN_COVEO_DEFAULT"] = json.dumps(
        {"conn_type": "coveo", "login": "acme", "password": "key", "host": url}
    )
    from airflow_provider_coveo.content.files import read_files
    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

    hook = CoveoPushHook()
    hook.push_items("acme-products", [b'{"documentId": "a://0", "data": "x"}'])
    # As of now: a process begins with the peak of the one that it was forked from.
    Path("/proc/self/clear_refs").write_text("5")
    before, began = _peak(), time.process_time()
    try:
        result = hook.push_items("acme-products", read_files(path), on_invalid=on_invalid)
        ended = f"{result['accepted_adds']:,} accepted, {result['invalid']} rejected"
    except Exception as error:
        ended = f"{type(error).__name__}: …{str(error).partition('rejected')[0][-150:]}"
    report(
        {
            "seconds": time.process_time() - began,
            "megabytes": (_peak() - before) * 1024 / 1e6,
            "ended": ended,
        }
    )


def measure(url: str, path: Path, on_invalid: str) -> dict[str, Any]:
    """Push a file in a process of its own, and return its peak of memory and how it ended."""
    command = [sys.executable, __file__, "--worker", url, str(path), on_invalid]
    return run_worker(command)


def main() -> None:
    """Measure each case as an array and as lines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worker", nargs=3, metavar=("URL", "FILE", "ON_INVALID"))
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    arguments = parser.parse_args()
    if arguments.worker:
        _worker(*arguments.worker)
        return
    with tempfile.TemporaryDirectory() as folder, Receiver() as receiver:
        for case in arguments.cases:
            for path in _write(CASES[case](), Path(folder)):
                for on_invalid in ("fail", "skip"):
                    found = measure(receiver.url, path, on_invalid)
                    print(
                        f"{case:28} {path.suffix:7} {on_invalid:4} {found['megabytes']:6,.0f} MB "
                        f"{found['seconds']:6.1f} s   {found['ended']}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
