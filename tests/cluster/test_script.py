"""scripts/cluster leaves nothing behind, however it ended."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from airflow_client import AirflowError

from tests.cluster.conftest import PATIENCE, ROOT, new_folder, run_cluster


def processes_of(folder: Path) -> list[psutil.Process]:
    """Return the live processes whose working folder is in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(folder):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_start_that_is_killed_can_be_stopped(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = new_folder(tmp_path_factory)
    start = subprocess.Popen([sys.executable, ROOT / "scripts/cluster", f"--folder={folder}", "start"])
    until = time.monotonic() + PATIENCE
    while not (folder / "pids/airflow-init.json").exists():
        assert start.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    start.kill()
    start.wait()
    # As if it had been killed before it recorded the process that it started.
    for name in ("postgres", "redis", "airflow-init"):
        (folder / f"pids/{name}.json").unlink()
    assert {"postgres", "redis-server"} <= {process.name() for process in processes_of(folder)}

    run_cluster(folder, "stop")

    assert processes_of(folder) == []
    assert not folder.exists()
    run_cluster(folder, "stop")


def test_invalid_commands_are_rejected_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(AirflowError, match="no cluster in"):
        run_cluster(tmp_path, "status")
    (tmp_path / "something").touch()
    with pytest.raises(AirflowError, match="is not empty; run scripts"):
        run_cluster(tmp_path, "start")
    with pytest.raises(AirflowError, match="does not contain a cluster"):
        run_cluster(tmp_path, "stop")
    assert (tmp_path / "something").exists()
    with pytest.raises(AirflowError, match="does not have the form NAME=VALUE"):
        run_cluster(tmp_path, "set", "name")
    ports = {"postgres": 1, "redis": 2, "airflow-apiserver": 3, "coveo-simulator": 4, "airflow-scheduler": 5}
    secrets = dict.fromkeys(
        [
            *("AIRFLOW_ADMIN_PASSWORD", "POSTGRES_PASSWORD", "REDIS_PASSWORD", "FERNET_KEY", "JWT_SECRET"),
            *("API_SECRET_KEY", "COVEO_SIMULATOR_API_KEY", "AIRFLOW_CONN_COVEO_DEFAULT"),
        ],
        "x",
    )
    settings = {"ports": ports, "secrets": secrets, "workers": None, "env": {}, "dags": None}
    (tmp_path / "cluster.json").write_text(json.dumps(settings))
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    with pytest.raises(AirflowError, match="unknown component airflow-worker; use one of postgres, redis"):
        run_cluster(tmp_path, "kill", "airflow-worker")
    with pytest.raises(AirflowError, match="redis is not running"):
        run_cluster(tmp_path, "kill", "redis", "--signal=TERM")
