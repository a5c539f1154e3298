"""
The updates for the tests of faults: brackets whose pushes run on several workers until they are released.

A run's conf names its source, and the file whose existence releases its pushes. Each part is a separate task,
and pushes the same items in each try.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_coveo.sensors.coveo_push import PushSourceStatusSensor
from airflow_provider_coveo.task_groups.coveo_push import push_source_update

PARTS = 3
ITEMS_OF_A_PART = 30
#: Each item is a separate batch.
BATCH_BYTES = 1024
#: The maximum seconds that a push waits for its release, longer than any test.
MAX_HOLD = 240


def update(dag_id: str, **of_a_push: Any) -> DAG:
    """Create the DAG of an update."""
    with DAG(
        dag_id, schedule=None, start_date=datetime(2025, 1, 1), catchup=False, max_active_runs=16
    ) as dag:

        @task.coveo_push(source_id="{{ params.source }}", batch_bytes=BATCH_BYTES, **of_a_push)
        def push_part(part: int, params: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
            assert params is not None
            release = Path(params["release"])
            until = time.monotonic() + MAX_HOLD
            for number in range(ITEMS_OF_A_PART):
                yield {"documentId": f"part://{part}/{number}", "data": "x" * BATCH_BYTES}
                if not release.exists():
                    time.sleep(0.2)
            while not release.exists() and time.monotonic() < until:
                time.sleep(0.2)

        with push_source_update(
            source_id="{{ params.source }}",
            status="REBUILD",
            delete_old_items=True,
            queue_delay=0,
        ):
            push_part.expand(part=list(range(PARTS)))
    return dag


def waiting_update(dag_id: str) -> DAG:
    """Create the DAG of an update that waits, between two pushes, until another source is IDLE."""
    with DAG(dag_id, schedule=None, start_date=datetime(2025, 1, 1), catchup=False) as dag:

        @task.coveo_push(source_id="{{ params.source }}")
        def push_one(name: str) -> list[dict[str, Any]]:
            return [{"documentId": f"one://{name}", "data": name}]

        with push_source_update(source_id="{{ params.source }}", delete_old_items=True, queue_delay=0):
            wait = PushSourceStatusSensor(
                task_id="wait",
                source_id="{{ params.awaited }}",
                deferrable=True,
                poke_interval=1,
                timeout=600,
            )
            (
                push_one.override(task_id="before")("before")
                >> wait
                >> push_one.override(task_id="after")("after")
            )
    return dag


tried_once = update("tried_once", retries=0)
tried_again = update("tried_again", retries=1, retry_delay=timedelta(seconds=1))
waiting = waiting_update("waiting")
