"""Two workers use one snapshot in turn."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from celery import Celery

from tests.cluster.conftest import PATIENCE, RunningCluster

pytestmark = pytest.mark.timeout(1800)

QUEUE = "default"
ITEMS = 1_000


@contextmanager
def only(cluster: RunningCluster, worker: str) -> Iterator[None]:
    """Let only one worker take queued tasks."""
    settings = json.loads((cluster.folder / "cluster.json").read_text())
    password, port = settings["secrets"]["REDIS_PASSWORD"], settings["ports"]["redis"]
    with Celery(broker=f"redis://:{password}@127.0.0.1:{port}/0") as celery:
        others = [name for answer in celery.control.ping(timeout=5) for name in answer if worker not in name]
        assert len(others) == 1
        celery.control.cancel_consumer(QUEUE, destination=others, reply=True, timeout=5)
        try:
            cluster.wait_until(
                lambda: celery.control.inspect(others, timeout=5).active_queues() == {others[0]: []},
                PATIENCE,
                f"only {worker} takes tasks",
            )
            yield
        finally:
            celery.control.add_consumer(QUEUE, destination=others, reply=True, timeout=5)


def test_alternating_workers_push_only_changes(cluster: RunningCluster, tmp_path: Path) -> None:
    source, workers = f"source-{time.time_ns()}", tmp_path / "workers"
    cluster.coveo.add_source(source)
    index = {f"a://{number}": "first" for number in range(ITEMS)}
    pushed = []
    turns = (("airflow-worker-1", ITEMS), ("airflow-worker-2", 10), ("airflow-worker-1", 1))
    for worker, changed in turns:
        index |= {f"a://{number}": f"by {worker}, {changed}" for number in range(changed)}
        content = tmp_path / f"{changed}.json"
        content.write_text(json.dumps(index))
        with only(cluster, worker):
            conf = {"source": source, "snapshot_path": str(tmp_path / "snapshots")}
            run_id = cluster.trigger("changes", {**conf, "content": str(content), "workers": str(workers)})
            assert cluster.wait_for_run("changes", run_id, PATIENCE) == "success"
        result = cluster.xcom("changes", run_id, "update.push")
        pushed.append((result["accepted_adds"], result["accepted_deletes"], result["unchanged"]))
        assert {name: item["data"] for name, item in cluster.coveo.items(source).items()} == {
            # The first push deletes no items that it does not know.
            "old://1": "old",
            **index,
        }
    assert pushed == [(ITEMS, 0, 0), (10, 0, ITEMS - 10), (1, 0, ITEMS - 1)]
    assert workers.read_text().split() == [worker for worker, _ in turns]
    assert cluster.coveo.statuses(source) == ["REFRESH", "IDLE"] * len(turns)
