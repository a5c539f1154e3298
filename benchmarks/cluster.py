"""
Measure how long a cluster takes to start and to finish its first run, and the memory of its components.

    .venv/cluster/bin/python benchmarks/cluster.py

It starts the services of docker-compose.yml with scripts/cluster, runs the example of a full rebuild, and
stops them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from airflow_client import AirflowClient  # noqa: E402


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="coveo-cluster-") as name:
        # PostgreSQL's user must be able to traverse it.
        Path(name).chmod(0o711)
        folder = Path(name) / "cluster"

        def cluster(*arguments: str) -> str:
            command = [sys.executable, str(ROOT / "scripts/cluster"), f"--folder={folder}", *arguments]
            return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

        began = time.monotonic()
        try:
            cluster("start")
            healthy = time.monotonic() - began
            info = json.loads(cluster("info"))
            credentials = (info["username"], info["password"])
            airflow = AirflowClient(info["url"], Path(info["task_logs"]), credentials=credentials)
            airflow.sign_in()
            run_id = airflow.trigger("coveo_full_rebuild")
            state = airflow.wait_for_run("coveo_full_rebuild", run_id, timeout=600)
            over = time.monotonic() - began
            status = cluster("status")
        finally:
            cluster("stop")
    print(
        f"all health checks passed after {healthy:.0f} s; the first run ended ({state}) after {over:.0f} s\n"
    )
    print(status)


if __name__ == "__main__":
    main()
