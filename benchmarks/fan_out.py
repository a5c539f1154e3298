"""
Update many sources with one DAG on a real Airflow, while Coveo limits the calls in five minutes.

    python benchmarks/fan_out.py                          # 200 sources, on this virtualenv's Airflow
    python benchmarks/fan_out.py --call-interval 5        # space calls out, so that none is rate-limited
    python benchmarks/fan_out.py --python .venv/airflow-2/bin/python
    python benchmarks/fan_out.py --cluster FOLDER         # on the Celery workers of scripts/cluster

It runs the example DAG ``coveo_many_sources`` in a pool with ``--slots`` against a simulator with
``--limit``. It prints the duration, the calls that arrived, and the memory of all Airflow processes. It fails
if a task fails, if a source was not opened, pushed to and closed exactly once, or if more calls arrived in
any window than the limit plus one per slot.

On a cluster, the interval between calls is that of the cluster's connection.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import httpx
import psutil
from airflow_client import AirflowClient
from local_airflow import LocalAirflow
from process_keeper import pids_of_sessions

from airflow_provider_coveo.simulator import Simulator

ROOT = Path(__file__).resolve().parents[1]
DAG_ID = "coveo_many_sources"
POOL = "default_pool"
SECONDS_BETWEEN_SAMPLES = 5.0


class Coveo:
    """
    A client for a simulator's control API, in this or another process.

    :param url: its address.
    :param verify: its certificate, if it uses https.
    """

    def __init__(self, url: str, verify: str | bool = True) -> None:
        self._http = httpx.Client(base_url=url, verify=verify, trust_env=False, timeout=60)

    def ask(self, method: str, what: str, body: Any = None) -> Any:
        """Call the control API."""
        answer = self._http.request(method, f"/_simulator/{what}", json=body)
        answer.raise_for_status()
        return answer.json() if answer.content else None


class Memory:
    """
    The memory of some processes in MB (PSS, which counts shared pages once), sampled every few seconds.

    :param sessions: returns their sessions.
    """

    def __init__(self, sessions: Callable[[], Collection[int]]) -> None:
        self.before = self._now(sessions())
        self.samples: list[float] = []
        self._sessions = sessions
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_SAMPLES):
            self.samples.append(self._now(self._sessions()))

    @staticmethod
    def _now(sessions: Collection[int]) -> float:
        total = 0
        for pid in pids_of_sessions(sessions):
            with suppress(psutil.Error):
                total += psutil.Process(pid).memory_full_info().pss
        return total / 1e6


@contextmanager
def local(python: str, slots: int, call_interval: float) -> Iterator[tuple[AirflowClient, Coveo, Any]]:
    """Start an Airflow and a simulator on this machine."""
    with ExitStack() as started:
        simulator = started.enter_context(Simulator(sources=()))
        connection = json.loads(simulator.connection_json())
        connection["extra"] = {"call_interval": call_interval}
        airflow = started.enter_context(
            LocalAirflow(
                ROOT / "dags_examples",
                python=python,
                env={"AIRFLOW_CONN_COVEO_DEFAULT": json.dumps(connection), "PYTHONPATH": str(ROOT)},
                config={"core": {"parallelism": slots + 2}},
            )
        )
        yield airflow, Coveo(simulator.url), lambda: [each.pid for each in airflow.processes.values()]


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[AirflowClient, Coveo, Any]]:
    """Use the cluster that scripts/cluster started."""
    command = [sys.executable, str(ROOT / "scripts" / "cluster"), "--folder", str(folder), "info"]
    info = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    airflow = AirflowClient(
        info["url"], Path(info["task_logs"]), credentials=(info["username"], info["password"])
    )
    airflow.sign_in()

    def sessions() -> list[int]:
        return [json.loads(path.read_text())["pid"] for path in (folder / "pids").glob("airflow-*.json")]

    yield airflow, Coveo(info["simulator"], info["certificate"]), sessions


def fullest_window(arrived: Collection[int], seconds: float) -> int:
    """Return the maximum number of calls within a number of seconds; ``moments`` are in milliseconds."""
    moments = sorted(arrived)
    most = first = 0
    for last, moment in enumerate(moments):
        while moment - moments[first] >= seconds * 1000 - 1:
            first += 1
        most = max(most, last - first + 1)
    return most


def most_open(timelines: Collection[list[dict[str, Any]]]) -> int:
    """Return the maximum number of sources that were active at the same time."""
    changes = sorted(
        (event["at"], -1 if event["status"] == "IDLE" else 1)
        for timeline in timelines
        for event in timeline
        if event["event"] == "status"
    )
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def run(
    airflow: AirflowClient, coveo: Coveo, sessions: Any, given: argparse.Namespace
) -> tuple[dict[str, Any], list[str]]:
    """Run the DAG once; return the figures and the problems."""
    airflow.poll_interval = 1
    source_ids = [f"acme-source-{number}" for number in range(given.sources)]
    coveo.ask("POST", "reset")
    for source_id in source_ids:
        coveo.ask("POST", "sources", {"id": source_id})
    coveo.ask("POST", "limits", {"call_limit": given.limit, "retry_after": given.retry_after})
    airflow.wait_for_dag(DAG_ID, 120)
    pool = {"name": POOL, "slots": given.slots, "include_deferred": False}
    airflow.rest("PATCH", f"/pools/{POOL}?update_mask=slots", pool)
    with Memory(sessions) as memory:
        began = time.monotonic()
        run_id = airflow.trigger(DAG_ID, {"source_ids": source_ids})
        state = airflow.wait_for_run(DAG_ID, run_id, timeout=given.patience)
        seconds = time.monotonic() - began
    tasks = airflow.task_instances(DAG_ID, run_id)
    calls = [call for call in coveo.ask("GET", "requests?since=0") if call["path"].startswith("/push/")]
    timelines = {source_id: coveo.ask("GET", f"timeline?source={source_id}") for source_id in source_ids}
    limit, window = given.limit
    fullest = fullest_window([call["at"] for call in calls], window)
    figures = {
        "sources": given.sources,
        "slots": given.slots,
        "state": state,
        "seconds": round(seconds),
        "tasks": len(tasks),
        "tries": sum(max(1, task["try_number"] or 0) for task in tasks),
        "calls": len(calls),
        "by operation": dict(Counter(call["operation"] for call in calls)),
        "refused": sum(call["status"] == 429 for call in calls),
        "limit": f"{limit} in {window:g} s",
        "fullest window": fullest,
        "max. open sources": most_open(timelines.values()),
        "MB before": round(memory.before),
        "MB median": round(statistics.median(memory.samples)) if memory.samples else None,
        "MB peak": round(max(memory.samples, default=memory.before)),
    }
    wrong = [
        f"{task['task_id']}[{task['map_index']}] is {task['state']}"
        for task in tasks
        if task["state"] not in {"success", "removed"}
    ]
    for source_id, timeline in timelines.items():
        seen = [event.get("status", event["event"]) for event in timeline]
        if seen != ["REFRESH", "push", "IDLE"]:
            wrong.append(f"{source_id} saw {seen}")
    if fullest > limit + given.slots:
        wrong.append(f"{fullest} calls in {window:g} s, but the limit is {limit} with {given.slots} slots")
    return figures, wrong


def _limit(text: str) -> tuple[int, float]:
    calls, _, seconds = text.partition("/")
    return int(calls), float(seconds)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sources", type=int, default=200)
    parser.add_argument("--slots", type=int, default=4, help="of the pool")
    parser.add_argument("--limit", type=_limit, default=(250, 300.0), metavar="CALLS/SECONDS")
    parser.add_argument("--retry-after", action="store_true", help="whether Coveo sends Retry-After")
    parser.add_argument("--call-interval", type=float, default=0.0, help="the connection's")
    parser.add_argument("--python", default=sys.executable, help="the interpreter with the Airflow to run")
    parser.add_argument(
        "--cluster", type=Path, metavar="FOLDER", help="the folder of a running scripts/cluster"
    )
    parser.add_argument("--patience", type=float, default=7200.0, help="the run's timeout in seconds")
    given = parser.parse_args()
    there = cluster(given.cluster) if given.cluster else local(given.python, given.slots, given.call_interval)
    with there as (airflow, coveo, sessions):
        figures, wrong = run(airflow, coveo, sessions, given)
    for name, figure in figures.items():
        print(f"{name:20} {figure}")
    print("\n".join(wrong) or "All brackets are closed, and the calls stayed within the limit.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
