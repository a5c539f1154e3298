"""The memory of a push does not depend on the amount of data."""

from __future__ import annotations

import json
import subprocess
import sys

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


def _peak(url: str, items: int) -> float:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, url, str(items)], capture_output=True, text=True, timeout=300
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
