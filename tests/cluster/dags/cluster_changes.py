"""
A push of only the changes since the previous run, which may have been on another worker.

A run's conf names its source, the folder for snapshots, a file with the content by ID, and the file to which
the run writes its worker's name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_coveo.task_groups.coveo_push import push_source_update

with DAG("changes", schedule=None, start_date=datetime(2025, 1, 1), catchup=False, max_active_runs=1):

    @task.coveo_push(
        source_id="{{ params.source }}", only_changes=True, snapshot_path="{{ params.snapshot_path }}"
    )
    def push(params: dict[str, Any]) -> Iterator[dict[str, Any]]:
        # By name, because all workers of the test are on one machine.
        with Path(params["workers"]).open("a") as file:
            file.write(os.environ["HOSTNAME"] + "\n")
        for document_id, data in json.loads(Path(params["content"]).read_text()).items():
            yield {"documentId": document_id, "data": data}

    with push_source_update(source_id="{{ params.source }}", status="REFRESH", group_id="update"):
        push()
