"""The memory of a push does not depend on the amount of data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from benchmarks.receiver import Receiver

_SCRIPT = """
import json, os, re, sys

os.environ["AIRFLOW_CONN_COVEO_DEFAULT"] = json.dumps(
    {"conn_type": "coveo", "login": "acme", "password": "key", "host": sys.argv[1]}
)
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

hook = CoveoPushHook()
hook.push_items("acme-products", [{"documentId": "a://0", "data": "first, so that all is imported"}])
before = peak()
text = "x" * 1900
items = ({"documentId": f"product://{n}", "data": text, "price": n} for n in range(int(sys.argv[2])))
hook.push_items("acme-products", items, batch_bytes=2_000_000)
print("MB", (peak() - before) / 1024)
"""


_LARGE_ITEMS = """
import json, os, re, sys
from pathlib import Path

os.environ["AIRFLOW_CONN_COVEO_DEFAULT"] = json.dumps(
    {"conn_type": "coveo", "login": "acme", "password": "key", "host": sys.argv[1]}
)
from airflow_provider_coveo.content.files import read_files
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

hook = CoveoPushHook()
hook.push_items("acme-products", [b'{"documentId": "a://0", "data": "first, so that all is imported"}'])
Path("/proc/self/clear_refs").write_text("5")
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = peak()
result = hook.push_items("acme-products", read_files(sys.argv[2]), on_invalid="skip", batch_bytes=1_000_000)
assert (result["accepted_adds"], result["invalid"]) == (24, 1), result
print("MB", (peak() - before) / 1024)
"""


def _peak(url: str, items: int) -> float:
    return _run(_SCRIPT, url, str(items))


def _run(script: str, *arguments: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("MB"))
    return float(json.loads(line.split()[1]))


def test_ten_times_the_items_need_no_more_memory() -> None:
    # Slow enough for the maximum number of batches in flight, in both cases.
    with Receiver(latency=0.03) as receiver:
        few, many = _peak(receiver.url, 15_000), _peak(receiver.url, 150_000)
    # Four batches of 2 MB in flight, and one in progress, which needs twice its size while it is joined; the
    # input is 300 MB.
    assert many < 25
    # The allocator may keep memory for a few more; the input adds nothing.
    assert many < few + 10


@pytest.mark.parametrize("suffix", ["json", "ndjson"])
def test_a_push_holds_one_large_item_at_a_time(tmp_path: Path, suffix: str) -> None:
    # 20 MB each: content for a container of its own, metadata, and an item that is invalid.
    large = [{"data": 1}, {"text": 1}, {"text": 1, "nested": {}}, {"data": 1}, {"text": 1}]
    with (tmp_path / f"items.{suffix}").open("w") as file:
        for number in range(25):
            item = large[number // 5] if number % 5 == 0 else {"data": "small"}
            item = {key: "x" * 20_000_000 if value == 1 else value for key, value in item.items()}
            text = json.dumps({"documentId": f"a://{number}", **item})
            file.write(("[,"[number > 0] if suffix == "json" else "") + text + "\n")
        file.write("]" * (suffix == "json"))
    with Receiver(latency=0.2) as receiver:
        # One is read and encoded in three to four copies.
        assert _run(_LARGE_ITEMS, receiver.url, str(tmp_path / f"items.{suffix}")) < 5.5 * 20


_PARQUET = """
import re, sys
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from airflow_provider_coveo.content.files import read_files

path = sys.argv[1] + "/first.parquet"
parquet.write_table(pa.table({"documentId": ["a://0"], "data": ["first, so that all is imported"]}), path)
assert len(list(read_files(path))) == 1
Path("/proc/self/clear_refs").write_text("5")
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = peak()
assert sum(len(row["data"]) for row in read_files(sys.argv[2])) == int(sys.argv[3])
print("MB", (peak() - before) / 1024)
"""


def test_a_row_group_of_parquet_is_not_held_in_memory(tmp_path: Path) -> None:
    path, size, total = tmp_path / "rows.parquet", 1_000, 0
    schema = pa.schema([("documentId", pa.string()), ("data", pa.string())])
    with parquet.ParquetWriter(path, schema, use_dictionary=False, compression="none") as writer:
        ids = [f"a://{number}" for number in range(100_000)]
        data = [f"{number:>{size}}" for number in range(100_000)]
        writer.write_table(pa.table([ids, data], schema=schema), row_group_size=100_000)
        total = size * len(ids)
    assert parquet.ParquetFile(path).num_row_groups == 1
    assert _run(_PARQUET, str(tmp_path), str(path), str(total)) < 50


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_long_texts_that_parquet_stores_once_are_not_all_held_in_memory(
    tmp_path: Path, compression: str
) -> None:
    path, text = tmp_path / "rows.parquet", "x" * 1_000_000
    table = {"documentId": [f"a://{number}" for number in range(600)], "data": [text] * 600}
    parquet.write_table(pa.table(table), path, row_group_size=600, compression=compression)
    assert path.stat().st_size < 2_000_000
    assert _run(_PARQUET, str(tmp_path), str(path), str(600 * len(text))) < 350
