"""
Measure how long the page *Push sources* takes for the rows of 500 sources, in Airflow's server and database.

    AIRFLOW__CORE__LOAD_EXAMPLES=False .venv/airflow-3/bin/python benchmarks/push_sources.py

A signed-in admin requests the rows over HTTP from the app as Airflow mounts it, on Airflow 3.1 or later. Each
source has an open record, and ten runs with a bracket each. Wall time is only meaningful on an idle machine,
so the load is printed with it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SOURCES = 500
RUNS = 10
TIMES = 9
ORGANIZATION = "acme"


def _environment(home: str) -> dict[str, str]:
    return {
        **os.environ,
        "AIRFLOW_HOME": home,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__AUTH_MANAGER": (
            "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
        ),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
    }


def _fill() -> None:
    """Create the records, runs, tasks and counts."""
    from datetime import datetime, timedelta, timezone

    from airflow.models.dag import DagModel
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import insert

    from airflow_provider_coveo.state.ledger import Holder, bracket_variable

    now = datetime.now(timezone.utc)
    with create_session() as session:
        session.add(DagBundleModel(name="b"))
        session.flush()
        variables: list[dict[str, Any]] = []
        runs: list[dict[str, Any]] = []
        for number in range(SOURCES):
            dag_id, source_id = f"dag_{number}", f"source-{number}"
            session.add(
                DagModel(dag_id=dag_id, bundle_name="b", is_paused=False, is_stale=False, fileloc="f")
            )
            named = {"organization_id": ORGANIZATION, "source_id": source_id}
            content: dict[str, Any] = {**named, "runs": []}
            for run in range(RUNS):
                run_id, began = f"run_{run}", now - timedelta(hours=RUNS - run)
                runs.append({"dag_id": dag_id, "run_id": run_id, "began": began})
                content["runs"].append(
                    {"dag_id": dag_id, "run_id": run_id, "accepted": True, "brackets": [["update.open", -1]]}
                )
                is_last = run == RUNS - 1
                bracket = {
                    **named,
                    "coveo_conn_id": "coveo_default",
                    "status": "REBUILD",
                    "phase": "open" if is_last else "closed",
                    "opened_at": began.timestamp(),
                    "closed_at": 0.0 if is_last else began.timestamp() + 600,
                }
                variables.append(
                    {"key": bracket_variable(Holder(dag_id, run_id, "update.open")), "val": bracket}
                )
            opened = {**named, "dag_id": dag_id, "run_id": f"run_{RUNS - 1}", "open_task_id": "update.open"}
            variables += [
                {"key": f"coveo_content__{ORGANIZATION}__{source_id}", "val": content},
                {
                    "key": f"coveo_open__{ORGANIZATION}__{source_id}",
                    "val": {
                        **opened,
                        "since_ms": int(now.timestamp() * 1000),
                        "status": "REBUILD",
                        "others": [],
                    },
                },
            ]
        session.flush()
        table: Any = Variable.__table__
        for variable in variables:
            # Encrypted, as Airflow saves Variables.
            its = Variable(key=variable["key"], val=json.dumps(variable["val"]))
            session.execute(
                insert(table), {"key": its.key, "val": its._val, "is_encrypted": its.is_encrypted}
            )
    _fill_runs(runs)


def _fill_runs(runs: list[dict[str, Any]]) -> None:
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from airflow.utils.types import DagRunType
    from sqlalchemy import insert

    rows: Any = DagRun.__table__
    with create_session() as session:
        session.execute(
            insert(rows),
            [
                {
                    "dag_id": run["dag_id"],
                    "run_id": run["run_id"],
                    "run_type": DagRunType.MANUAL,
                    "state": "running" if run["run_id"] == f"run_{RUNS - 1}" else "success",
                    "run_after": run["began"],
                    "start_date": run["began"],
                    "logical_date": run["began"],
                }
                for run in runs
            ],
        )


def _serve_and_measure() -> None:
    import httpx
    import uvicorn

    _fill()
    from airflow.api_fastapi.app import create_app

    from airflow_provider_coveo.links.push_sources_page import URL_PREFIX

    server = uvicorn.Server(uvicorn.Config(create_app(), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.1)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False) as client:
        token = client.get("/auth/token").raise_for_status().json()["access_token"]
        client.cookies.set("_token", token)
        walls, processors, size = [], [], 0
        for _ in range(TIMES):
            began, used = time.perf_counter(), time.process_time()
            response = client.get(f"{URL_PREFIX}/sources").raise_for_status()
            walls.append(time.perf_counter() - began)
            processors.append(time.process_time() - used)
            size = len(response.content)
            rows = len(response.json()["rows"])
    server.should_exit = True
    thread.join(10)
    print(f"{rows} sources, {RUNS} runs each, {size:,} bytes; load {os.getloadavg()[0]:.1f}")
    for name, seconds in (("wall", walls), ("processor", processors)):
        print(
            f"  {name:9} first {seconds[0]:.2f} s, then median {statistics.median(seconds[1:]):.2f} s, "
            f"at most {max(seconds[1:]):.2f} s"
        )


def main() -> None:
    """Create a database, and measure in a new process that uses it."""
    with tempfile.TemporaryDirectory() as home:
        environment = _environment(home)
        airflow = str(Path(sys.executable).with_name("airflow"))
        subprocess.run([airflow, "db", "migrate"], env=environment, check=True, capture_output=True)
        subprocess.run([sys.executable, __file__, "measure"], env=environment, check=True)


if __name__ == "__main__":
    _serve_and_measure() if len(sys.argv) > 1 else main()
