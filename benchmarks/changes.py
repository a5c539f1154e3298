"""
Measure the cost of pushing only changes.

    python benchmarks/changes.py [--items 1000000] [--latency 0.05]   # compare, in one run
    python benchmarks/changes.py --memory 1000000 10000000            # memory and snapshots at two sizes
    python benchmarks/changes.py --formats                            # SQLite and two other formats

Items have 2 KB each. Since the last push, 1 % of them changed and 0.5 % are gone. Each push is a new process.
It sends to a receiver on loopback, in another process, which ignores the content and can delay each response.
The items are generated as fast as a file of them can be read. `digest` only reads, validates and digests
them; `increment` reads and pushes only what changed, with a cursor. Because the machine may be busy, CPU
seconds are shown as well as wall time. Memory is the peak above the memory of the imports. With --memory, the
items are short.
"""

from __future__ import annotations

import argparse
import bisect
import dbm
import hashlib
import json
import mmap
import os
import random
import re
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.receiver import Receiver
from benchmarks.worker import report, run_worker

_WORDS = ("anvil", "rocket", "skates", "dehydrated", "boulders", "giant", "rubber", "band", "instant", "hole")
_TEXTS = 64
LONG, SHORT = 1_640, 40
_TEMPLATE = (
    b'{"documentId":"https://shop.example.com/products/%08d","title":"Product %d","data":"%s",'
    b'"date":"2026-11-24T08:00:00Z","fileExtension":".txt","brand":"ACME","price":%d.25,"instock":true,'
    b'"categories":["tools","toys"],"language":"en"}\n'
)


def lines(count: int, version: int, size: int) -> Iterator[bytes]:
    """
    Yield items as lines of JSON.

    :param count: The number of items in the first version.
    :param version: 1, or 2 for the second one, of which 1 % changed and 0.5 % are gone.
    :param size: The bytes of text in an item.
    """
    texts = _texts(size)
    for number in range(count):
        price = number % 1000
        if version == 2:
            if number % 200 == 1:
                continue
            price += number % 100 == 0
        yield _TEMPLATE % (number, number, texts[number % _TEXTS], price)


def changed(cursor: Any, count: int, size: int) -> Iterator[Any]:
    """
    Yield what changed from the first version to the second one, as an origin reports it.

    :param cursor: Moves with each row.
    :param count: The number of items in the first version.
    :param size: The bytes of text in an item.
    """
    from airflow_provider_coveo.coveo.items import Delete

    texts = _texts(size)
    for at in range(cursor.since, count, 100):
        cursor.advance(at)
        yield _TEMPLATE % (at, at, texts[at % _TEXTS], at % 1000 + 1)
        if at % 200 == 0:
            yield Delete(f"https://shop.example.com/products/{at + 1:08d}")


def _texts(size: int) -> list[bytes]:
    generator = random.Random(1)  # noqa: S311 - the same items each time
    return [" ".join(generator.choices(_WORDS, k=size // 6)).encode() for _ in range(_TEXTS)]


def _peak() -> int:
    """Return the peak memory of this process in KiB."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


class _Variables:
    """Airflow Variables in a file, so that no database is needed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _read(self) -> dict[str, Any]:
        return json.loads(self._path.read_text()) if self._path.exists() else {}

    def get(self, key: str, deserialize_json: bool = False) -> Any:
        """Return a value."""
        value = self._read()[key]
        return json.loads(value) if deserialize_json else value

    def set(self, key: str, value: Any, *, serialize_json: bool = False, **options: Any) -> None:
        """Save a value."""
        value = json.dumps(value) if serialize_json else value
        self._path.write_text(json.dumps({**self._read(), key: value}))

    def delete(self, key: str) -> None:
        """Delete a value."""
        self._path.write_text(json.dumps({k: v for k, v in self._read().items() if k != key}))


def _digest(count: int, version: int, size: int) -> dict[str, Any]:
    """Only read, validate and digest the items."""
    from airflow_provider_coveo.coveo.item_encoding import ItemEncoder

    encoder, group, held = ItemEncoder(), [], 0
    sha256, digested = hashlib.sha256, 0

    def take() -> None:
        nonlocal digested
        assert encoder.encode_chunk(group) is not None
        digested += len([sha256(text.strip()).digest()[:16] for text in group])
        group.clear()

    for line in lines(count, version, size):
        if held + len(line) > 512 * 1024:
            take()
            held = 0
        group.append(line)
        held += len(line)
    take()
    return {"accepted_adds": 0, "digested": digested}


def work(kind: str, url: str, folder: Path, count: int, size: int) -> None:
    """Run one candidate in this process, and print its cost."""
    os.environ["AIRFLOW_CONN_COVEO_DEFAULT"] = json.dumps(
        {"conn_type": "coveo", "login": "acme", "password": "key", "host": url}
    )
    import airflow.providers.common.compat.sdk as sdk

    from airflow_provider_coveo.coveo.only_changes import OnlyChanges
    from airflow_provider_coveo.cursors.coveo_push import coveo_cursor
    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

    sdk.Variable = _Variables(folder / "variables.json")  # type: ignore[misc,assignment]
    ti = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=1, max_tries=0)
    hook = CoveoPushHook()

    def push(name: str, items: Any, *, compares: bool) -> Any:
        changes = OnlyChanges(str(folder / "snapshots"), name=name) if compares else None
        return hook.push_items(f"acme-{name}", items, changes=changes)

    def push_increment(name: str, number: int) -> Any:
        sdk.get_current_context = lambda: {"ti": ti}  # type: ignore[assignment,typeddict-item]
        with coveo_cursor(name, source_id=f"acme-{name}", start=0) as cursor:
            return hook.push_items(f"acme-{name}", changed(cursor, number, size))

    # Don't measure one-time imports and reads.
    push("first", [{"documentId": "a://0", "data": "x"}], compares=True)
    if kind == "increment":
        push_increment("first", 1)
    before, start, cpu = _peak(), time.perf_counter(), time.process_time()
    version = 1 if kind in {"first", "full"} else 2
    if kind == "digest":
        result = _digest(count, version, size)
    elif kind == "increment":
        result = push_increment("catalog", count)
    else:
        result = push("catalog", lines(count, version, size), compares=kind != "full")
    told = {
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        "megabytes": (_peak() - before) / 1024,
        **{key: value for key, value in result.items() if key != "invalid_items"},
    }
    report(told)


def run(kind: str, receiver: Receiver, folder: Path, count: int, size: int) -> dict[str, Any]:
    """Run one candidate in a new process."""
    receiver.count()
    command = [sys.executable, __file__, "--work", kind, receiver.url, str(folder), str(count), str(size)]
    return {**run_worker(command), **receiver.count()}


def snapshot_bytes(folder: Path) -> int:
    """Return the size of the catalog's snapshot."""
    (path,) = (folder / "snapshots").glob("*/*/catalog/snapshot")
    return path.stat().st_size


def compare(count: int, latency: float) -> dict[str, dict[str, Any]]:
    """
    Compare a full push with a push of only the changes.

    :param count: The number of items.
    :param latency: Seconds before each response.
    """
    with Receiver(latency) as receiver, tempfile.TemporaryDirectory() as folder:
        found = {}
        for kind in ("full", "first", "digest", "changes", "increment"):
            found[kind] = run(kind, receiver, Path(folder), count, LONG)
            _print(kind, found[kind], count)
        id_bytes = len("https://shop.example.com/products/00000000")
        found["changes"]["per_item"] = snapshot_bytes(Path(folder)) / (count - count // 200) - id_bytes
    full, changes, digest = found["full"], found["changes"], found["digest"]
    # The first batch is the item that each process pushes beforehand.
    shares = {
        key: changes[key] / full[key] for key in ("accepted_adds", "bytes", "batches", "seconds", "cpu")
    }
    print(
        f"compared to a full push: {shares['accepted_adds']:.2%} of the items, "
        f"{shares['bytes']:.2%} of the bytes, "
        f"{shares['batches']:.2%} of the batches, {shares['seconds']:.2f} of the time, "
        f"{shares['cpu']:.2f} of the CPU\n"
        f"compared to reading, validating and digesting: {changes['seconds'] / digest['seconds']:.2f} times "
        f"the time, {changes['cpu'] / digest['cpu']:.2f} times the CPU\n"
        f"snapshot: {changes['per_item']:.1f} bytes per item and its ID"
    )
    return found


def measure_memory(counts: list[int]) -> list[dict[str, Any]]:
    """
    Compare the memory of pushes of short items, of which 1 % have changed.

    :param counts: The numbers of items.
    """
    found = []
    for count in counts:
        with Receiver() as receiver, tempfile.TemporaryDirectory() as folder:
            for kind in ("first", "changes"):
                one = run(kind, receiver, Path(folder), count, SHORT)
                one["snapshot"] = snapshot_bytes(Path(folder))
                _print(f"{kind} {one['snapshot'] / 1e6:,.0f} MB snapshot", one, count)
            found.append(one)
    return found


def _print(kind: str, one: dict[str, Any], count: int) -> None:
    print(
        f"{kind:>10} of {count:,}: {one['seconds']:.1f} s, {one['cpu']:.1f} s CPU, "
        f"{one['megabytes']:.1f} MB; {one.get('accepted_adds', 0):,} items, "
        f"{one.get('accepted_deletes', 0):,} deletions, "
        f"{one.get('batches', 0):,} batches, {one.get('bytes', 0) / 1e6:,.1f} MB",
        flush=True,
    )


# --- other formats of snapshots ---


def compare_formats(count: int = 1_000_000, group: int = 256) -> None:
    """
    Look up all items, in order and in random order, in SQLite, a sorted file of fixed records, and a dbm.

    :param count: The number of items.
    :param group: The number of items per lookup.
    """
    ids = [f"https://shop.example.com/products/{number:08d}" for number in range(count)]
    shuffled = random.Random(2).sample(ids, count)  # noqa: S311
    with tempfile.TemporaryDirectory() as folder:
        formats: dict[str, Callable[[Path, list[str]], Callable[[list[str]], int]]] = {
            "SQLite": _sqlite,
            "sorted file": _sorted_file,
            "dbm": _dbm,
        }
        for name, make in formats.items():
            path = Path(folder) / make.__name__
            start = time.process_time()
            look_up = make(path, ids)
            made = time.process_time() - start
            size = sum(each.stat().st_size for each in Path(folder).glob(f"{path.name}*"))
            times = []
            for order in (ids, shuffled):
                start = time.process_time()
                known = sum(look_up(order[first : first + group]) for first in range(0, count, group))
                assert known == count
                times.append((time.process_time() - start) / count * 1e6)
            print(
                f"{name:>12}: created in {made:.1f} s, {size / count - len(ids[0]):.1f} bytes per item "
                f"and its ID, {times[0]:.2f} us per lookup in order, {times[1]:.2f} us in random order",
                flush=True,
            )


def _sqlite(path: Path, ids: list[str]) -> Callable[[list[str]], int]:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = OFF")
    database.execute("PRAGMA synchronous = OFF")
    database.execute("PRAGMA cache_size = -12288")
    database.execute("CREATE TABLE items(id TEXT PRIMARY KEY, digest BLOB, number INTEGER) WITHOUT ROWID")
    database.execute("BEGIN")
    rows = ((each, os.urandom(16), number) for number, each in enumerate(ids))
    database.executemany("INSERT INTO items VALUES (?, ?, ?)", rows)
    database.execute("COMMIT")

    def look_up(group: list[str]) -> int:
        marks = ",".join("?" * len(group))
        query = f"SELECT id, digest, number FROM items WHERE id IN ({marks})"  # noqa: S608
        return len({row[0]: row[1:] for row in database.execute(query, group)})

    return look_up


def _sorted_file(path: Path, ids: list[str]) -> Callable[[list[str]], int]:
    """Sorted records of the digests of an ID and its item; the IDs are in another file."""
    hashed = sorted(hashlib.sha256(each.encode()).digest()[:16] for each in ids)
    path.write_bytes(b"".join(key + os.urandom(20) for key in hashed))
    path.with_suffix(".ids").write_text("\n".join(ids))
    with path.open("rb") as file:
        records = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def look_up(group: list[str]) -> int:
        found = 0
        for each in group:
            key = hashlib.sha256(each.encode()).digest()[:16]
            at = bisect.bisect_left(range(len(ids)), key, key=lambda n: records[36 * n : 36 * n + 16])
            found += records[36 * at : 36 * at + 16] == key
        return found

    return look_up


def _dbm(path: Path, ids: list[str]) -> Callable[[list[str]], int]:
    database = dbm.open(str(path), "n")  # noqa: SIM115 - it stays open
    for number, each in enumerate(ids):
        database[each] = os.urandom(16) + number.to_bytes(4, "little")
    database.close()
    database = dbm.open(str(path), "r")  # noqa: SIM115 - it stays open
    return lambda group: sum(database[each] is not None for each in group)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--memory", type=int, nargs="+")
    parser.add_argument("--formats", action="store_true")
    parser.add_argument("--work", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        kind, url, folder, count, size = given.work
        work(kind, url, Path(folder), int(count), int(size))
    elif given.formats:
        compare_formats(given.items)
    elif given.memory:
        measure_memory(given.memory)
    else:
        compare(given.items, given.latency)


if __name__ == "__main__":
    main()
