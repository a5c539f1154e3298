"""One real Airflow and one simulated Coveo for all tests here, started on first use."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from local_airflow import LocalAirflow
from local_postgres import LocalPostgres, find_postgres
from process_keeper import Keeper

from airflow_provider_coveo.simulator import Simulator

#: The time in which Airflow detects a dead task or scheduler; by default up to five minutes.
QUICK = {
    "scheduler": {
        "task_instance_heartbeat_timeout": 30,
        "scheduler_zombie_task_threshold": 30,
        "scheduler_health_check_threshold": 15,
        "orphaned_tasks_check_interval": 15,
        "task_instance_heartbeat_timeout_detection_interval": 5,
        "zombie_detection_interval": 5,
    },
}

EXAMPLES = Path(__file__).resolve().parents[2] / "dags_examples"


@pytest.fixture(scope="session")
def coveo_server() -> Iterator[Simulator]:
    """The running Airflow's Coveo. Each test adds its own source."""
    with Simulator(organization="acme") as simulator:
        yield simulator


# It ends with the tests of this folder, as an idle Airflow uses a twentieth of a core.
@pytest.fixture(scope="package")
def local_airflow(
    coveo_server: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalAirflow]:
    """The Airflow of this virtualenv, with the examples and the DAGs that tests add to its folder."""
    dags_folder = tmp_path_factory.mktemp("dags")
    shutil.copytree(EXAMPLES, dags_folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    env = {"AIRFLOW_CONN_COVEO_DEFAULT": coveo_server.connection_json()}
    # All tasks of the largest run at a time, because test_resume blocks all of them.
    config = {**QUICK, "core": {"parallelism": 8}}
    with LocalAirflow(dags_folder, env=env, config=config) as airflow:
        yield airflow


@pytest.fixture(scope="package")
def shop(local_airflow: LocalAirflow) -> Iterator[Callable[[str], None]]:
    """A PostgreSQL with the Airflow connection ``shop``, and a function that runs a script in it."""
    server = LocalPostgres("shop")
    keeper = Keeper(server.folder)
    process = server.launch()
    keeper.end_with_us(process, server=True)

    def run(script: str) -> None:
        command = [find_postgres() / "psql", "-h", server.folder, "-U", "postgres", "-q", "shop"]
        subprocess.run(command, input=script, text=True, check=True, cwd=server.folder)

    try:
        server.create_database()
        described = {"conn_type": "postgres", "login": "postgres", "schema": "shop"}
        local_airflow.rest(
            "POST", "/connections", {"connection_id": "shop", **described, "host": str(server.folder)}
        )
        yield run
    finally:
        keeper.close()
        process.wait(timeout=120)
