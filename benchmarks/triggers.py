"""
Measure the cost of many tasks that wait for Coveo in one triggerer.

    python benchmarks/triggers.py                          # 1,000 triggers, compared to a single one
    python benchmarks/triggers.py --interval 10 --seconds 20

Each line is a new process that works like a triggerer: it creates the triggers from their serialized form and
runs them on one event loop. Each waits for a source to become IDLE. They poll a simulator in another process,
over https on loopback, whose source stays in a rebuild. The last line shows the benefit of a shared session.

Memory is that of the triggers, above the memory of the imports. CPU is the share of one core. “Late” is the
longest delay of another callback on the event loop, during the start of the triggers and after it; Airflow
warns above 200 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from local_certificate import write_certificate

from benchmarks.worker import report, run_worker

_SOURCE = "acme-products"
_KEY = "xx00000000-0000-4000-8000-000000000000"
_TITLES = {
    "alone": "one alone",
    "shared": "{count:,} triggers",
    "own": "{count:,} triggers, one session each",
}


# --- the waiting process ---


class _Loop:
    """Measures the delay of the event loop."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def watch(self) -> None:
        """Record the longest delay, until cancelled."""
        while True:
            due = time.perf_counter() + 0.02
            await asyncio.sleep(0.02)
            self.worst = max(self.worst, time.perf_counter() - due)

    def taken(self) -> float:
        """Return the longest delay since the last call, in milliseconds."""
        worst, self.worst = self.worst, 0.0
        return worst * 1000


def _resident() -> float:
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _give_each_its_own_session(transport: Any) -> None:
    @asynccontextmanager
    async def own_session(verify: Any) -> AsyncIterator[Any]:
        context = await asyncio.to_thread(transport._tls_context, verify)
        connector = transport.aiohttp.TCPConnector(ssl=context)
        async with transport.aiohttp.ClientSession(connector=connector) as session:
            yield session

    transport._shared_session = own_session


def _serialized_trigger(interval: float) -> tuple[str, dict[str, Any]]:
    from airflow_provider_coveo.triggers.coveo_push import PushSourceStatusTrigger

    return PushSourceStatusTrigger(
        source_id=_SOURCE,
        statuses=["IDLE"],
        coveo_conn_id="coveo_default",
        poke_interval=interval,
        give_up_at=time.time() + 86_400,
    ).serialize()


async def _wait(count: int, interval: float, seconds: float) -> dict[str, float]:
    from airflow_provider_coveo.transports.aiohttp_transport import AiohttpTransport

    path, parameters = _serialized_trigger(interval)
    module, _, name = path.rpartition(".")
    trigger_class = getattr(importlib.import_module(module), name)
    answers = 0
    send = AiohttpTransport.send

    async def counted(self: Any, *arguments: Any) -> Any:
        nonlocal answers
        answer = await send(self, *arguments)
        answers += 1
        return answer

    AiohttpTransport.send = counted  # type: ignore[method-assign]
    loop = _Loop()
    watch = asyncio.create_task(loop.watch())
    before = _resident()
    running = [asyncio.create_task(anext(trigger_class(**parameters).run())) for _ in range(count)]
    # In the first interval, each of them reads its connection and polls for the first time.
    await asyncio.sleep(interval * 1.1)
    late_at_start, answers = loop.taken(), 0
    cpu, began = _cpu_seconds(), time.perf_counter()
    await asyncio.sleep(seconds)
    elapsed = time.perf_counter() - began
    result = {
        "megabytes": _resident() - before,
        "cpu": (_cpu_seconds() - cpu) / elapsed,
        "requests": answers / elapsed,
        "late_at_start": late_at_start,
        "late": loop.taken(),
        "waiting": sum(not task.done() for task in running),
    }
    for task in [watch, *running]:
        task.cancel()
    await asyncio.gather(watch, *running, return_exceptions=True)
    return result


def _worker(kind: str, count: int, interval: float, seconds: float) -> None:
    from airflow_provider_coveo.transports import aiohttp_transport

    if kind == "own":
        _give_each_its_own_session(aiohttp_transport)
    result = asyncio.run(_wait(count, interval, seconds))
    report(result)


# --- the Coveo that they poll ---


@contextmanager
def _simulator(folder: Path) -> Iterator[dict[str, str]]:
    """Run a simulator in another process, and yield the environment with its connection."""
    certificate, key = write_certificate(folder)
    serve = (
        "import sys, threading; from airflow_provider_coveo.simulator import Simulator\n"
        "from airflow_provider_coveo.coveo.statuses import SourceStatus\n"
        f"s = Simulator(sources=({_SOURCE!r},), api_key={_KEY!r}, tls=tuple(sys.argv[1:]))\n"
        "s.start()\n"
        f"s.state.set_status({_SOURCE!r}, SourceStatus.REBUILD, 'request')\n"
        "print(s.url, flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", serve, str(certificate), str(key)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        connection = {
            "conn_type": "coveo",
            "login": "acme",
            "password": _KEY,
            "host": process.stdout.readline().strip(),
            # In addition to the usual certificates, so that as many are loaded as in production.
            "extra": json.dumps({"verify": str(_with_the_usual_ones(certificate))}),
        }
        yield {**os.environ, "AIRFLOW_CONN_COVEO_DEFAULT": json.dumps(connection)}
    finally:
        process.kill()
        process.wait()


def _with_the_usual_ones(certificate: Path) -> Path:
    from requests.utils import DEFAULT_CA_BUNDLE_PATH

    bundle = certificate.with_name("bundle.pem")
    bundle.write_text(Path(DEFAULT_CA_BUNDLE_PATH).read_text() + certificate.read_text())
    return bundle


def compare(count: int, interval: float, seconds: float) -> None:
    """Print a line for each kind of trigger."""
    print(f"polling every {interval:g} s, with two requests; measured for {seconds:g} s\n")
    print(f"{'':36}{'MB':>7}{'CPU':>8}{'requests/s':>12}{'ms/request':>12}{'late at start':>15}{'late':>9}")
    with tempfile.TemporaryDirectory() as folder, _simulator(Path(folder)) as environment:
        for kind, triggers in (("alone", 1), ("shared", count), ("own", count)):
            worker = [sys.executable, __file__, "--worker", kind, "--triggers", str(triggers)]
            options = ["--interval", str(interval), "--seconds", str(seconds)]
            result = run_worker([*worker, *options], env=environment)
            if result["waiting"] != triggers:
                raise RuntimeError(f"{triggers - result['waiting']} triggers stopped waiting")
            each = result["cpu"] / result["requests"] * 1000 if result["requests"] else 0.0
            print(
                f"{_TITLES[kind].format(count=triggers):36}{result['megabytes']:7.1f}{result['cpu']:8.2%}"
                f"{result['requests']:12.2f}{each:12.1f}{result['late_at_start']:12.0f} ms"
                f"{result['late']:6.0f} ms"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--triggers", type=int, default=1000)
    parser.add_argument("--interval", type=float, default=60.0, help="seconds between two polls")
    parser.add_argument("--seconds", type=float, default=60.0, help="the duration of the measurement")
    parser.add_argument("--worker", choices=list(_TITLES), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        _worker(given.worker, given.triggers, given.interval, given.seconds)
    else:
        compare(given.triggers, given.interval, given.seconds)


if __name__ == "__main__":
    main()
