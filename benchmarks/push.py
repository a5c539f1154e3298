"""
Push the same items through this provider, through the two published clients, and as raw bytes.

    python benchmarks/push.py --clients FOLDER --install     # once: install the clients into a folder
    python benchmarks/push.py --clients FOLDER               # the comparison
    python benchmarks/push.py --scale                        # this provider only, at three sizes

All of them push to one receiver on loopback, in another process, which ignores the content. Each run is also
a new process. The clock starts before the file of items is opened and stops when everything is accepted; it
does not include imports. The candidates alternate, and the median counts. Memory is the peak above the memory
of the imports.

The floor uploads the same bytes in containers of 5 MiB, like the npm client, over one connection, without
reading, validating or encoding anything.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.receiver import Receiver
from benchmarks.worker import report, run_worker

_WORDS = [
    *("anvil", "rocket", "skates", "dehydrated", "boulders", "giant", "rubber", "band", "instant", "hole"),
    *("bird", "seed", "spring", "powered", "boots", "tornado", "jet", "propelled", "unicycle", "glue"),
]
_FLOOR_BATCH = 5 * 1024 * 1024
CANDIDATES = ("floor", "lines", "dicts", "npm", "pypi")
_TITLES = {
    "floor": "floor: raw bytes",
    "lines": "this provider, NDJSON lines",
    "dicts": "this provider, dicts",
    "npm": "npm @coveo/push-api-client",
    "pypi": "PyPI coveo-push-api-client.py",
}

_NPM_WORKER = """
const [url, file] = process.argv.slice(2);
const realFetch = globalThis.fetch;
globalThis.fetch = (target, options) =>
  realFetch(String(target).replace('https://api.cloud.coveo.com', url), options);
const {PushSource} = require('@coveo/push-api-client');
const peak = () => Number(/VmHWM:\\s+(\\d+)/.exec(require('fs').readFileSync('/proc/self/status'))[1]);
const before = peak();
const start = process.hrtime.bigint();
(async () => {
  const source = new PushSource('key', 'acme');
  await source.batchUpdateDocumentsFromFiles('acme-products', [file], {createFields: false})
    .onBatchError((error) => { throw error; })
    .batch();
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  const megabytes = (peak() - before) / 1024;
  console.log('RESULT ' + JSON.stringify({seconds, megabytes}));
})();
"""

_PYPI_WORKER = """
import json, re, sys, time
from push_api_clientpy import *
from push_api_clientpy.documentbuilder import DocumentBuilder
from push_api_clientpy.platformclient import PlatformClient
from push_api_clientpy.source import BatchUpdate, Source
url, file = sys.argv[1:]
PlatformClient._PlatformClient__basePushURL = lambda self: f"{url}/push/v1/organizations/acme"
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = peak()
start = time.perf_counter()
documents = []
with open(file, "rb") as lines:
    for line in lines:
        item = json.loads(line)
        document = DocumentBuilder(item.pop("documentId"), item.pop("title")).withData(item.pop("data"))
        document.withDate(item.pop("date")).withClickableUri(item.pop("clickableuri"))
        document.withFileExtension(item.pop("fileExtension")).withMetadata(item)
        documents.append(document)
answer = Source("key", "acme").batchUpdateDocuments("acme-products", BatchUpdate(documents, []))
assert answer.status_code == 202
seconds = time.perf_counter() - start
megabytes = (peak() - before) / 1024
print("RESULT " + json.dumps({"seconds": seconds, "megabytes": megabytes}))
"""


def make_item(number: int, generator: random.Random) -> dict[str, Any]:
    """Return an item of about 2 KB: a product with a page of text and a dozen properties."""
    return {
        "documentId": f"https://shop.example.com/products/{number}",
        "title": f"Product {number}",
        "data": " ".join(generator.choices(_WORDS, k=245)),
        "date": "2026-11-24T08:00:00Z",
        "clickableuri": f"https://shop.example.com/products/{number}?ref=search",
        "fileExtension": ".txt",
        "sku": f"SKU-{number:08}",
        "brand": "ACME",
        "price": round(number * 1.01, 2),
        "quantity": number % 1000,
        "instock": number % 3 > 0,
        "categories": ["tools", "toys"],
        "language": "en",
    }


def write_items(folder: Path, count: int) -> dict[str, Path]:
    """Write the items as JSON Lines, and as a JSON array for the npm client."""
    generator = random.Random(1)  # noqa: S311 - the same items each time
    lines = [
        json.dumps(make_item(number, generator), separators=(",", ":"), ensure_ascii=False)
        for number in range(count)
    ]
    paths = {"lines": folder / "items.ndjson", "array": folder / "items.json"}
    paths["lines"].write_text("\n".join(lines) + "\n")
    paths["array"].write_text("[" + ",".join(lines) + "]")
    return paths


# --- the candidates in this environment's Python ---


def _peak() -> int:
    """Return the peak memory of this process in KiB (``getrusage`` includes the parent's)."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def _measured(work: Callable[[], None]) -> None:
    before = _peak()
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    megabytes = (_peak() - before) / 1024
    report({"seconds": seconds, "megabytes": megabytes})


def _floor(url: str, file: str) -> None:
    import http.client
    from urllib.parse import urlsplit

    def work() -> None:
        connection = http.client.HTTPConnection(urlsplit(url).netloc)

        def call(method: str, path: str, body: bytes | None = None) -> bytes:
            connection.request(method, path, body)
            return connection.getresponse().read()

        with Path(file).open("rb") as content:
            while batch := content.read(_FLOOR_BATCH):
                container = json.loads(call("POST", "/push/v1/organizations/acme/files"))
                target = urlsplit(container["uploadUri"])
                call("PUT", f"{target.path}?{target.query}", batch)
                path = "/push/v1/organizations/acme/sources/acme-products/documents/batch?fileId="
                call("PUT", path + container["fileId"])

    _measured(work)


def _ours(url: str, file: str, as_dicts: bool, repeat: int, options: dict[str, Any]) -> None:
    os.environ["AIRFLOW_CONN_COVEO_DEFAULT"] = json.dumps(
        {"conn_type": "coveo", "login": "acme", "password": "key", "host": url}
    )
    import msgspec

    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

    def push() -> None:
        with ExitStack() as files:
            parts = (files.enter_context(Path(file).open("rb", buffering=1 << 20)) for _ in range(repeat))
            lines = next(parts) if repeat == 1 else itertools.chain.from_iterable(parts)
            items = map(msgspec.json.Decoder().decode, lines) if as_dicts else lines
            hook.push_items("acme-products", items, **options)

    hook = CoveoPushHook()
    # One push beforehand, to exclude one-time imports and reads.
    hook.push_items("acme-products", [{"documentId": "a://0", "data": "x"}])
    _measured(push)


# --- runs ---


def _run_candidate(name: str, url: str, files: dict[str, Path], clients: Path | None) -> dict[str, float]:
    if name == "npm":
        assert clients is not None
        return run_worker(
            [
                "node",
                "--max-old-space-size=4096",
                str(clients / "npm" / "worker.js"),
                url,
                str(files["array"]),
            ]
        )
    if name == "pypi":
        assert clients is not None
        python = str(clients / "py" / "bin" / "python")
        return run_worker([python, str(clients / "worker.py"), url, str(files["lines"])])
    return run_worker([sys.executable, __file__, "--worker", name, url, str(files["lines"])])


def install(folder: Path) -> None:
    """Install the published clients into a folder."""
    (folder / "npm").mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "py")], check=True)
    pip = [str(folder / "py" / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "coveo-push-api-client.py"], check=True)
    npm = shutil.which("npm") or "npm"
    # The client needs tslib, but does not declare it.
    subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "@coveo/push-api-client", "tslib"],
        cwd=folder / "npm",
        check=True,
    )


def compare(folder: Path, clients: Path | None, count: int, runs: int, latency: float) -> None:
    """Print a table of all candidates."""
    names = [name for name in CANDIDATES if clients is not None or name not in {"npm", "pypi"}]
    if clients is not None:
        (clients / "npm" / "worker.js").write_text(_NPM_WORKER)
        (clients / "worker.py").write_text(_PYPI_WORKER)
    files = write_items(folder, count)
    megabytes = files["lines"].stat().st_size / 1e6
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with Receiver(latency) as receiver:
        for _ in range(runs):
            for name in names:
                receiver.count()
                result = _run_candidate(name, receiver.url, files, clients)
                results[name].append({**result, **receiver.count()})
    print(f"\n{count:,} items, {megabytes:.0f} MB, {latency * 1000:.0f} ms of latency, median of {runs} runs")
    print(f"{'':32}{'seconds':>9}{'items/s':>10}{'MB/s':>7}{'peak MB':>9}{'requests':>10}{'x floor':>9}")
    medians = {name: statistics.median(run["seconds"] for run in results[name]) for name in names}
    for name in names:
        seconds = medians[name]
        peak = statistics.median(run["megabytes"] for run in results[name])
        requests = statistics.median(run["requests"] for run in results[name])
        print(
            f"{_TITLES[name]:32}{seconds:9.2f}{count / seconds:10,.0f}{megabytes / seconds:7.0f}{peak:9.0f}"
            f"{requests:10.0f}{seconds / medians['floor']:9.1f}"
        )
    others = [name for name in names if name in {"npm", "pypi"}]
    if others:
        faster = min(others, key=lambda name: medians[name])
        for name in ("lines", "dicts"):
            print(
                f"{_TITLES[name]}: {medians[faster] / medians[name]:.1f} times as fast as {_TITLES[faster]}"
            )


def scale(folder: Path, counts: list[int], latencies: list[float], options: dict[str, Any]) -> None:
    """Print a table of this provider only, at several sizes."""
    unit = 10_000
    files = write_items(folder, unit)
    megabytes = files["lines"].stat().st_size / 1e6
    print(
        f"\n{'items':>10}{'latency':>9}{'seconds':>9}{'items/s':>10}{'MB/s':>7}{'peak MB':>9}{'requests':>10}"
    )
    for latency in latencies:
        with Receiver(latency) as receiver:
            for count in counts:
                receiver.count()
                worker = [sys.executable, __file__, "--worker", "lines", receiver.url, str(files["lines"])]
                result = run_worker(
                    [*worker, "--repeat", str(max(1, count // unit)), "--options", json.dumps(options)]
                )
                seconds = result["seconds"]
                print(
                    f"{count:10,}{latency * 1000:6.0f} ms{seconds:9.2f}{count / seconds:10,.0f}"
                    f"{megabytes * count / unit / seconds:7.0f}{result['megabytes']:9.0f}"
                    f"{receiver.count()['requests']:10}"
                )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=Path, help="the folder for the published clients")
    parser.add_argument("--install", action="store_true", help="only install them there")
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds of delay at the receiver")
    parser.add_argument("--scale", action="store_true", help="this provider only, at three sizes")
    parser.add_argument("--counts", default="10000,100000,1000000")
    parser.add_argument("--latencies", default="0,0.05")
    parser.add_argument("--options", default="{}", help="arguments of push_items, as JSON")
    parser.add_argument("--worker", nargs=3, metavar=("NAME", "URL", "FILE"), help=argparse.SUPPRESS)
    parser.add_argument("--repeat", type=int, default=1, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        name, url, file = given.worker
        if name == "floor":
            _floor(url, file)
        else:
            _ours(url, file, name == "dicts", given.repeat, json.loads(given.options))
        return
    if given.install:
        install(given.clients)
        return
    with tempfile.TemporaryDirectory() as folder:
        if given.scale:
            counts = [int(count) for count in given.counts.split(",")]
            latencies = [float(latency) for latency in given.latencies.split(",")]
            scale(Path(folder), counts, latencies, json.loads(given.options))
        else:
            compare(Path(folder), given.clients, given.items, given.runs, given.latency)


if __name__ == "__main__":
    main()
