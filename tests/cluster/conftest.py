"""One cluster for all tests here, started by scripts/cluster, with functions to inspect and control it."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from airflow_client import AirflowClient, AirflowError

from tests.cluster.dags.cluster_updates import ITEMS_OF_A_PART, PARTS

ROOT = Path(__file__).resolve().parents[2]
#: The maximum wait of a test in seconds, on a busy machine.
PATIENCE = 300

#: Settings for what Airflow detects late by default: after 300, 10, 300, 30 and 30 seconds.
QUICK = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    # The parts of two updates fill two workers, but do not fit on one.
    "AIRFLOW__CELERY__WORKER_CONCURRENCY": str(PARTS),
}


class Coveo:
    """
    A client for the control API of the cluster's simulator.

    :param info: the output of `scripts/cluster info`.
    """

    def __init__(self, info: dict[str, Any]) -> None:
        trusted = ssl.create_default_context(cafile=info["certificate"])
        self._http = httpx.Client(base_url=info["simulator"], verify=trusted, trust_env=False, timeout=30)
        self._push = "/push/v1/organizations/acme/sources"
        self._authorization = {"Authorization": f"Bearer {info['api_key']}"}

    def add_source(self, source: str) -> None:
        """Add a source that already contains an item."""
        self._ask("POST", "/_simulator/sources", json={"id": source})
        self._ask(
            "PUT",
            f"{self._push}/{source}/documents",
            params={"documentId": "old://1"},
            json={"data": "old"},
            headers=self._authorization,
        )

    def set_status(self, source: str, status: str) -> None:
        """Set a source's status, as someone else does."""
        self._ask(
            "POST",
            f"{self._push}/{source}/status",
            params={"statusType": status},
            headers=self._authorization,
        )

    def timeline(self, source: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._ask("GET", "/_simulator/timeline", params={"source": source})
        return found

    def statuses(self, source: str) -> list[str]:
        return [event["status"] for event in self.timeline(source) if event["event"] == "status"]

    def items(self, source: str) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self._ask("GET", "/_simulator/items", params={"source": source})
        return found

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        answer = self._http.request(method, path, **options)
        answer.raise_for_status()
        return answer.json() if answer.content else None


class RunningCluster(AirflowClient):
    """
    A running cluster, and its Airflow.

    :param folder: the folder of the cluster.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.info: dict[str, Any] = json.loads(self.command("info"))
        credentials = (self.info["username"], self.info["password"])
        super().__init__(self.info["url"], Path(self.info["task_logs"]), credentials=credentials)
        self.poll_interval = 0.5
        #: The components that were restarted because they had exited.
        self.restarted: list[str] = []
        self._stopped: set[str] = set()
        self.coveo = Coveo(self.info)
        self.wait_until(self._signed_in, PATIENCE, "the API server lets us in")

    def command(self, *arguments: str) -> str:
        """Run scripts/cluster, and return its output."""
        return run_cluster(self.folder, *arguments)

    def kill(self, component: str, *options: str) -> None:
        """Kill a component, which stays down until it is started again."""
        self._stopped.add(component)
        self.command("kill", component, *options)

    def up(self) -> None:
        """Start the components that are down."""
        self._stopped.clear()
        self.command("up")

    def look_after_components(self) -> None:
        """Restart the components that have exited, as Compose does with its restart policy."""
        for component in self.info["lasting"]:
            if component not in self._stopped and not self.is_running(component):
                self.restarted.append(component)
                self.command("up", component)

    def status(self) -> dict[str, dict[str, Any]]:
        """Return the output of `status`, by component."""
        return {each["component"]: each for each in json.loads(self.command("status", "--json"))}

    def is_running(self, component: str) -> bool:
        pid = json.loads((self.folder / f"pids/{component}.json").read_text())["pid"]
        return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE

    def log(self, component: str) -> str:
        return (Path(self.info["logs"]) / f"{component}.log").read_text(errors="replace")

    def log_tails(self) -> str:
        tails = []
        for path in sorted(Path(self.info["logs"]).glob("*.log")):
            last = path.read_text(errors="replace").splitlines()[-15:]
            tails.append("\n".join([f"--- {path.stem}", *last]))
        return "\n".join(tails)

    def worker_of(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
        """Return the worker of a running task."""
        session = os.getsid(self.task_pid(dag_id, run_id, task_id, map_index))
        (component,) = [
            path.stem
            for path in (self.folder / "pids").glob("*.json")
            if json.loads(path.read_text())["pid"] == session
        ]
        return component

    def _signed_in(self) -> bool:
        self.sign_in()
        return True


def run_cluster(folder: Path, *arguments: str) -> str:
    """Run scripts/cluster on a folder, and return its output."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/cluster", f"--folder={folder}", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise AirflowError(f"scripts/cluster {' '.join(arguments)}: {done.stderr[-20_000:]}")
    return done.stdout


class Update:
    """
    A run of one of the DAGs of ``dags/cluster_updates.py``.

    :param cluster: the cluster that runs it.
    :param dag_id: its DAG.
    :param source: its source.
    :param release: the file that releases its pushes.
    :param conf: further keys of its conf.
    """

    def __init__(self, cluster: RunningCluster, dag_id: str, source: str, release: Path, **conf: str) -> None:
        self.cluster = cluster
        self.dag_id = dag_id
        self.source = source
        self._release = release
        cluster.coveo.add_source(source)
        cluster.wait_for_dag(dag_id, PATIENCE)
        self.run_id = cluster.trigger(dag_id, {"source": source, "release": str(release), **conf})

    def wait_until_all_parts_push(self) -> None:
        """Wait until each part is in the middle of its push."""

        def in_the_middle() -> bool:
            pushed = [name for name in self.cluster.coveo.items(self.source) if name.startswith("part://")]
            return all(
                sum(name.startswith(f"part://{part}/") for name in pushed) >= 3 for part in range(PARTS)
            )

        self.cluster.wait_until(in_the_middle, PATIENCE, f"all parts of {self.source} push")

    def workers(self) -> list[str]:
        """Return the worker of each part."""
        return [
            self.cluster.worker_of(self.dag_id, self.run_id, "push_source_update.push_part", part)
            for part in range(PARTS)
        ]

    def release(self) -> None:
        """Let the pushes finish."""
        self._release.touch()

    def wait_for_end(self) -> str:
        """Wait until the run is over, and return its state."""
        return self.cluster.wait_for_run(self.dag_id, self.run_id, PATIENCE)

    def parts(self) -> list[tuple[str | None, int]]:
        """Return the state and try number of each part's push."""
        states = self.cluster.task_states(self.dag_id, self.run_id)
        return [tuple(states[f"push_source_update.push_part[{part}]"]) for part in range(PARTS)]

    def result(self, part: int) -> dict[str, Any]:
        """Return the result of a part's push."""
        found: dict[str, Any] = self.cluster.xcom(
            self.dag_id, self.run_id, "push_source_update.push_part", map_index=part
        )
        return found

    def log(self, part: int, try_number: int = 1) -> str:
        return self.cluster.task_log(
            self.dag_id, self.run_id, "push_source_update.push_part", part, try_number
        )

    def pushes_after_idle(self) -> list[dict[str, Any]]:
        """Return what was pushed after the source was IDLE."""
        timeline = self.cluster.coveo.timeline(self.source)
        closed = max(
            number
            for number, event in enumerate(timeline)
            if event["event"] == "status" and event["status"] == "IDLE"
        )
        return [event for event in timeline[closed:] if event["event"] in ("push", "batch", "delete")]


def items_of(part: int) -> set[str]:
    """Return the IDs of the items that a part pushes."""
    return {f"part://{part}/{number}" for number in range(ITEMS_OF_A_PART)}


def new_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a name for a cluster's folder. PostgreSQL's user can't access pytest's own."""
    return tmp_path_factory.getbasetemp().parents[1] / f"coveo-cluster-test-{time.time_ns()}"


@pytest.fixture(scope="session")
def _started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    folder = new_folder(tmp_path_factory)
    settings = [f"--env={name}={value}" for name, value in QUICK.items()]
    try:
        run_cluster(folder, "start", f"--dags={Path(__file__).parent / 'dags'}", *settings)
        yield RunningCluster(folder)
    finally:
        run_cluster(folder, "stop")
        assert not folder.exists()


@pytest.fixture
def cluster(_started: RunningCluster) -> Iterator[RunningCluster]:
    """The cluster; after a test, the components that it stopped are started again."""
    _started.restarted.clear()
    yield _started
    _started.up()


@pytest.fixture
def update(cluster: RunningCluster, tmp_path: Path) -> Iterator[Callable[..., Update]]:
    """Start an update of a separate source; pushes that are still held after the test are released."""
    started: list[Update] = []

    def start(dag_id: str, **conf: str) -> Update:
        source = f"source-{time.time_ns()}"
        started.append(Update(cluster, dag_id, source, tmp_path / f"{source}.release", **conf))
        return started[-1]

    yield start
    for each in started:
        each.release()
        each.wait_for_end()
