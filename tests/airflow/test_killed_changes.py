"""Tasks of a bracket that are killed at each point of a push of changes, on a real scheduler."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import psutil
import pytest
from airflow_client import TaskState
from local_airflow import LocalAirflow

from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.simulator import Simulator

pytestmark = pytest.mark.timeout(900)

#: The points at which the first try of the push is killed.
POINTS = ("download", "compare", "upload", "batch", "deletion", "before-replace", "after-replace")
REBUILD = "killed-delete-old-items"

DAG_FILE = """
from datetime import datetime, timedelta
import os
import signal

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_coveo.content.snapshot_store import SnapshotStore
from airflow_provider_coveo.coveo.containers import Containers
from airflow_provider_coveo.hooks.changes import ChangesPush
from airflow_provider_coveo.operators.coveo_push import PushItemsOperator
from airflow_provider_coveo.task_groups.coveo_push import push_source_update


def items(numbers, changed=()):
    return [
        {{"documentId": f"a://{{number}}", "data": ("new" if number in changed else "old") * 200}}
        for number in numbers
    ]


OLD, NEW = items(range(12)), items(range(2, 14), range(3, 8))


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(point):
    def dies(owner, name, before=False, only=lambda *args: True):
        method = getattr(owner, name)

        def call(*args, **kwargs):
            is_it = only(*args)
            if is_it and before:
                kill()
            result = method(*args, **kwargs)
            if is_it:
                kill()
            return result

        setattr(owner, name, call)

    if point == "download":
        dies(SnapshotStore, "download")
    elif point == "upload":
        dies(Containers, "upload")
    elif point == "batch":
        # Coveo has accepted it, and nobody has taken note of that.
        dies(ChangesPush, "accepted", before=True)
    elif point == "deletion":
        dies(ChangesPush, "accepted", before=True, only=lambda push, batch: batch.counts["delete"])
    elif point in ("before-replace", "after-replace"):
        dies(SnapshotStore, "replace", before=point == "before-replace")


class Killed(PushItemsOperator):
    def execute(self, context):
        self.items = NEW
        if context["ti"].try_number > 1:
            return super().execute(context)
        self.items = OLD
        super().execute(context)
        point = context["params"]["point"]
        kill_at(point)
        self.items = self.until_killed() if point == "compare" else NEW
        return super().execute(context)

    @staticmethod
    def until_killed():
        yield from NEW[:9]
        kill()


with DAG(
    "killed_changes",
    schedule=None,
    start_date=datetime(2025, 1, 1),
    max_active_runs=16,
    default_args={{"retries": 3, "retry_delay": timedelta(0)}},
    params={{"source": "", "point": ""}},
):
    with push_source_update(source_id="{{{{ params.source }}}}", status="REFRESH", group_id="update"):
        Killed(
            task_id="push",
            source_id="{{{{ params.source }}}}",
            items=[],
            only_changes=True,
            snapshot_path={snapshots!r},
            batch_bytes=2000,
            upload_concurrency=1,
        )

with DAG("killed_rebuild", schedule=None, start_date=datetime(2025, 1, 1)) as rebuild:
    with push_source_update(
        source_id={rebuild!r}, status="REBUILD", group_id="update", delete_old_items=True, queue_delay=0
    ):
        PushItemsOperator(task_id="push", source_id={rebuild!r}, items=NEW)
    delete = rebuild.get_task("update.delete_old_items")
    delete.retries, delete.retry_delay = 3, timedelta(0)
"""

#: The final push of the DAGs, by number: changed products among unchanged ones.
INPUT = {f"a://{number}": ("new" if number in range(3, 8) else "old") * 200 for number in range(2, 14)}
GONE = {"a://0", "a://1"}


def is_retried(task: TaskState) -> bool:
    """
    Return whether a task succeeded in a later try.

    On a busy machine, 2.11 counts one kill as two failures: the executor reports it, and so does the search
    for tasks without a heartbeat, whose callback can end the next try.
    """
    return task.state == "success" and task.try_number > 1


def test_after_the_retry_of_a_killed_task_the_index_equals_the_input(
    local_airflow: LocalAirflow, coveo_server: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_COVEO_DEFAULT", coveo_server.connection_json())
    hook = CoveoPushHook()
    sources = {point: f"killed-{point}" for point in POINTS}
    for source in (*sources.values(), REBUILD):
        coveo_server.add_source(source)
    hook.push_items(REBUILD, [{"documentId": "a://0", "data": "old"}])
    # Coveo has accepted the deletion, but the task is killed before the response.
    fault = coveo_server.faults.stall(100, applied=True, operation="olderthan", source=REBUILD)
    content = DAG_FILE.format(snapshots=str(tmp_path / "snapshots"), rebuild=REBUILD)
    local_airflow.write_dag("killed_changes.py", content)

    rebuild = local_airflow.trigger("killed_rebuild")
    runs = {
        point: local_airflow.trigger("killed_changes", {"source": source, "point": point})
        for point, source in sources.items()
    }
    local_airflow.wait_until(lambda: fault.used, 240, "old items are being deleted")
    psutil.Process(local_airflow.task_pid("killed_rebuild", rebuild, "update.delete_old_items")).kill()

    state = local_airflow.wait_for_run("killed_rebuild", rebuild)
    states = local_airflow.task_states("killed_rebuild", rebuild)
    assert state == "success", states
    assert is_retried(states["update.delete_old_items"])
    pushes = {}
    for point, run_id in runs.items():
        assert local_airflow.wait_for_run("killed_changes", run_id) == "success", point
        pushes[point] = local_airflow.task_states("killed_changes", run_id)["update.push"]
        assert is_retried(pushes[point]), point
    now = datetime.now(timezone.utc)
    for source in (*sources.values(), REBUILD):
        assert {name: item["data"] for name, item in coveo_server.items(source).items()} == INPUT, source
        assert coveo_server.statuses(source)[-1] == "IDLE", source
        entries = hook.list_item_logs(source, now - timedelta(hours=1), now, operations=["DELETE"])
        assert {entry["id"] for entry in entries} <= GONE, source
    for point, push in pushes.items():
        if push.try_number > 2:
            # The try before it may still have been pushing.
            continue
        result = local_airflow.xcom("killed_changes", runs[point], "update.push")
        # The second try does not repeat what Coveo accepted from the first one.
        assert result["full_because"] is None, point
        assert result["accepted_adds"] <= 7, point
        if point == "after-replace":
            counts = (result["accepted_adds"], result["accepted_deletes"], result["unchanged"])
            assert counts == (0, 0, 12)
