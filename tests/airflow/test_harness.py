"""The local Airflow behaves as its tests require, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
from airflow_client import AirflowClient, AirflowError
from local_airflow import LocalAirflow

pytestmark = pytest.mark.timeout(900)

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
DAG_ID = "interrupted"
DAG_FILE = """
from datetime import datetime
import time

from airflow.providers.common.compat.sdk import DAG, task

with DAG("interrupted", schedule=None, start_date=datetime(2025, 1, 1)):

    @task
    def work(params=None):
        print("at work", flush=True)
        if not params.get("short"):
            time.sleep(600)

    @task(trigger_rule="all_done")
    def mapped(number):
        print("mapped", number)
        return {"number": number}

    work() >> mapped.expand(number=[0, 1])
"""


@pytest.fixture(scope="module")
def airflow(local_airflow: LocalAirflow) -> LocalAirflow:
    local_airflow.write_dag("interrupted.py", DAG_FILE)
    return local_airflow


def start_working(airflow: LocalAirflow) -> str:
    """Trigger a run; return its ID once its first task is working."""
    run_id = airflow.trigger(DAG_ID)
    airflow.wait_for_task(DAG_ID, run_id, "work", {"running"})
    airflow.wait_until(
        lambda: "at work" in airflow.task_log(DAG_ID, run_id, "work"), 120, "the task is at work"
    )
    return run_id


def test_a_successful_run_has_logs_and_xcoms_of_each_mapped_task(airflow: LocalAirflow) -> None:
    run_id = airflow.trigger(DAG_ID, {"short": True})

    assert airflow.wait_for_run(DAG_ID, run_id) == "success"
    states = airflow.task_states(DAG_ID, run_id)
    assert {name: state.state for name, state in states.items()} == dict.fromkeys(
        ["work", "mapped[0]", "mapped[1]"], "success"
    )
    assert airflow.xcom(DAG_ID, run_id, "mapped", map_index=1) == {"number": 1}
    assert "mapped 1" in airflow.task_log(DAG_ID, run_id, "mapped", map_index=1)
    assert airflow.task_log(DAG_ID, run_id, "mapped", map_index=1, try_number=2) == ""


def test_a_task_that_is_killed_fails_and_runs_again_when_it_is_cleared(airflow: LocalAirflow) -> None:
    run_id = start_working(airflow)

    os.kill(airflow.task_pid(DAG_ID, run_id, "work"), signal.SIGKILL)
    airflow.wait_for_task(DAG_ID, run_id, "work", {"failed"})
    airflow.wait_for_run(DAG_ID, run_id)

    assert "work" in airflow.clear_tasks(DAG_ID, run_id, ["work"], downstream=False)
    airflow.wait_for_task(DAG_ID, run_id, "work", {"running"}, try_number=2)
    airflow.mark_run(DAG_ID, run_id, "failed")
    assert airflow.run_state(DAG_ID, run_id) == "failed"


def test_a_scheduler_that_is_killed_can_be_started_again(airflow: LocalAirflow) -> None:
    run_id = start_working(airflow)

    airflow.kill("scheduler", descendants=True)
    assert "scheduler" not in airflow.processes
    # While no scheduler runs: SQLite locks no rows, so the next one could overwrite this when it adopts its
    # predecessor's runs.
    airflow.mark_task(DAG_ID, run_id, "work", "success")
    airflow.start_component("scheduler")

    assert airflow.wait_for_run(DAG_ID, run_id) == "success"
    airflow.clear_run(DAG_ID, run_id)
    airflow.wait_for_task(DAG_ID, run_id, "work", {"running"}, try_number=2)
    airflow.mark_run(DAG_ID, run_id, "failed")


def test_a_run_of_a_paused_dag_waits(airflow: LocalAirflow) -> None:
    airflow.wait_for_dag(DAG_ID)
    airflow.pause(DAG_ID)
    run_id = airflow.trigger(DAG_ID, {"short": True}, "2025-02-03T04:05:06+00:00", unpause=False)
    assert airflow.run_state(DAG_ID, run_id) == "queued"

    airflow.unpause(DAG_ID)
    assert airflow.wait_for_run(DAG_ID, run_id) == "success"


@pytest.fixture
def answers() -> Iterator[tuple[str, list[tuple[int, bytes]]]]:
    """The address of a server, and its responses in order."""
    prepared: list[tuple[int, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PATCH(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status, body = prepared.pop(0)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PATCH  # noqa: N815 - the name is BaseHTTPRequestHandler's

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", prepared
        server.shutdown()


def test_requests_that_failed_in_airflow_s_database_are_repeated(
    answers: tuple[str, list[tuple[int, bytes]]], tmp_path: Path
) -> None:
    url, prepared = answers
    busy = (500, b'{"detail": {"reason": "Database error"}}')
    client = AirflowClient(url, tmp_path)
    prepared += [busy, busy, (200, b'{"state": "failed"}')]
    assert client.rest("PATCH", "/dags/a/dagRuns/b", {"state": "failed"}) == {"state": "failed"}
    assert prepared == []

    # Some releases don't say why.
    prepared += [(500, b"a fault"), (200, b"{}")]
    assert client.rest("PATCH", "/dags/a/dagRuns/b", {"state": "failed"}) == {}

    for method, others in [("POST", (500, b"a fault")), ("PATCH", (409, b"Database error"))]:
        prepared += [others, (200, b"{}")]
        with pytest.raises(AirflowError):
            client.rest(method, "/dags/a/dagRuns/b", {"state": "failed"})
        prepared.clear()

    prepared += [busy] * 10
    with pytest.raises(AirflowError, match="Database error"):
        client.rest("PATCH", "/dags/a/dagRuns/b", {"state": "failed"})
    assert prepared
    client.close()


KILLED_CALLER = """
import subprocess, sys
from pathlib import Path
from process_keeper import Keeper

keeper = Keeper(Path(sys.argv[1]))
child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'], stdin=sys.stdin)"
process = subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE, start_new_session=True)
keeper.end_with_us(process)
print(process.pid, flush=True)
input()
"""


def test_a_caller_that_is_killed_leaves_no_process_and_no_folder(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    caller = subprocess.Popen(
        [sys.executable, "-c", KILLED_CALLER, home],
        cwd=SCRIPTS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert caller.stdout is not None
    started = psutil.Process(int(caller.stdout.readline()))
    (keeper,) = {*psutil.Process(caller.pid).children()} - {started}

    caller.kill()
    caller.communicate()
    psutil.wait_procs([started, keeper], timeout=120)

    assert not started.is_running()
    assert not keeper.is_running()
    assert not home.exists()
