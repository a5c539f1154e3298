"""
Compare two ways to find the objects of a JSON array: this provider's scanner, and ijson with its C parser.

    pip install ijson
    python benchmarks/json_arrays.py

Each run is a new process. Seconds are CPU time; memory is the peak above the memory of the imports. ijson
returns Python objects, which must be encoded again. That changes the notation of numbers and loses duplicate
keys. ``basic_parse`` keeps both, as events.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

CANDIDATES = ("scanner", "ijson_items", "ijson_basic_parse")
_LOREM = "lorem ipsum dolor sit amet " * 20


def _array(items: Iterator[str], path: Path) -> None:
    with path.open("w") as file:
        separator = "["
        for item in items:
            file.write(separator + item)
            separator = ",\n"
        file.write("]")


def _usual() -> Iterator[str]:
    for number in range(60_000):
        yield json.dumps(
            {
                "documentId": f"product://{number}",
                "title": f'Title "{number}"',
                "data": _LOREM,
                "price": number * 1.5,
                "tags": ["a", "b", "c"],
                "nested": {"x": 1, "y": "z"},
            }
        )


def _tiny() -> Iterator[str]:
    return (f'{{"documentId":"{number}"}}' for number in range(500_000))


def _escapes() -> Iterator[str]:
    return (json.dumps({"documentId": str(number), "data": '\n"\\\t' * 2_000}) for number in range(3_000))


def _large() -> Iterator[str]:
    yield json.dumps({"documentId": "a", "data": "x" * 50_000_000})


def _items_of_200_mb() -> Iterator[str]:
    yield from (json.dumps({"documentId": str(number), "data": "x" * 200_000_000}) for number in range(3))


def _above_the_limit() -> Iterator[str]:
    # A file container can hold 256 MB, so Coveo can't accept this item.
    yield json.dumps({"documentId": "a", "data": "x" * 600_000_000})


def _large_of_escapes() -> Iterator[str]:
    yield json.dumps({"documentId": "a", "data": '"' * 20_000_000})


def _unescaped_quote() -> Iterator[str]:
    yield '{"documentId": "a", "data": "5" pipe"}'
    yield from (json.dumps({"documentId": str(number), "data": _LOREM}) for number in range(56_000))


CASES: dict[str, Callable[[], Iterator[str]]] = {
    "60,000 items of 700 bytes": _usual,
    "500,000 items of 22 bytes": _tiny,
    "3,000 items of 8,000 escapes": _escapes,
    "one item of 50 MB": _large,
    "three items of 200 MB": _items_of_200_mb,
    "one item of 600 MB, above Coveo's limit": _above_the_limit,
    "one item of 20,000,000 escapes": _large_of_escapes,
    "one unescaped quote, then 32 MiB": _unescaped_quote,
}


def _read(candidate: str, path: str) -> int:
    if candidate == "scanner":
        from airflow_provider_coveo.content.json_objects import objects

        with Path(path).open("rb") as file:
            return sum(1 for _ in objects(io.BufferedReader(file, 1024 * 1024)))  # type: ignore[arg-type]
    import ijson.backends.yajl2_c as ijson
    import msgspec

    with Path(path).open("rb") as file:
        if candidate == "ijson_items":
            return sum(bool(msgspec.json.encode(item)) for item in ijson.items(file, "item"))
        return sum(event == "start_map" for event, _ in ijson.basic_parse(file))


def _peak() -> int:
    """Return the peak memory of the process in KiB."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


def _worker(candidate: str, path: str) -> None:
    if candidate == "scanner":
        import_module("airflow_provider_coveo.content.json_objects")
    else:
        import_module("ijson.backends.yajl2_c")
        import_module("msgspec")
    # The difference from now on, because a forked process inherits its parent's peak.
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak()
    began = time.process_time()
    try:
        found = f"{_read(candidate, path):,} objects"
    except Exception as error:
        found = f"{type(error).__name__}: {str(error)[:60]}"
    seconds = time.process_time() - began
    memory = (_peak() - before) / 1024
    print(f"{seconds:8.2f} s {memory:8.0f} MiB   {found}")


def main() -> None:
    """Measure each candidate with each file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.json"
        for case, items in CASES.items():
            _array(items(), path)
            print(f"{case} ({path.stat().st_size / 1e6:,.0f} MB)", flush=True)
            for candidate in CANDIDATES:
                print(f"  {candidate:18}", end="", flush=True)
                subprocess.run([sys.executable, __file__, candidate, str(path)], check=False)


if __name__ == "__main__":
    _worker(*sys.argv[1:]) if len(sys.argv) > 1 else main()
