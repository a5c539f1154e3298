"""Pushes that end at 90 %, on a real scheduler: the next try sends only the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest
from airflow_client import AirflowError
from local_airflow import LocalAirflow

from airflow_provider_coveo.simulator import Simulator

pytestmark = pytest.mark.timeout(900)

BATCHES, ACCEPTED = 60, 54
#: Two of these fit into a batch of 2,000 bytes.
ITEMS = [{"documentId": f"a://{number:03}", "data": f"{number} {'x' * 900}"} for number in range(2 * BATCHES)]

DAG_FILE = """
from datetime import datetime, timedelta
import json

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_coveo.operators.coveo_push import PushItemsOperator, SqlToCoveoPushOperator

default_args = {{
    "retries": 1, "retry_delay": timedelta(0), "batch_bytes": 2000, "upload_concurrency": 1,
}}
with DAG("resume", schedule=None, start_date=datetime(2025, 1, 1), default_args=default_args):
    for name in ["file-killed", "file-worker-killed", "file-cleared"]:
        PushItemsOperator(task_id=name, source_id="resume-" + name, path={path!r})
    PushItemsOperator(task_id="file-failed", source_id="resume-file-failed", path={path!r}, retries=0)
    PushItemsOperator(task_id="file-anew", source_id="resume-file-anew", path={path!r}, resume=False)
    SqlToCoveoPushOperator(
        task_id="sql-killed", source_id="resume-sql-killed", sql_conn_id="shop",
        sql='SELECT id AS "documentId", content AS data FROM item ORDER BY id',
    )

    @task.coveo_push(source_id="resume-decorated-killed")
    def decorated_killed():
        with open({path!r}) as lines:
            yield from map(json.loads, lines)

    decorated_killed.override(task_id="decorated-killed")()
"""
#: Those whose end Airflow detects late come first.
TASKS = (
    "file-worker-killed", "file-cleared", "file-failed", "file-killed", "sql-killed", "decorated-killed",
    "file-anew",
)  # fmt: skip


@dataclass
class Story:
    """
    One run of the DAG above.

    :param airflow: its Airflow.
    :param coveo: its Coveo.
    :param run_id: its ID.
    """

    airflow: LocalAirflow
    coveo: Simulator
    run_id: str

    def kept(self, task: str) -> int:
        """Return the number of accepted batches that Airflow has recorded for a task."""
        in_variable = tuple(map(int, self.airflow.version.split(".")[:2])) < (3, 3)
        if in_variable:
            path = f"/variables/coveo_state__resume__{task}"
        else:
            run = f"/dags/resume/dagRuns/{quote(self.run_id, safe='')}"
            path = f"{run}/taskInstances/{task}/state-store/coveo_push"
        try:
            value = self.airflow.rest("GET", path)["value"]
        except AirflowError:
            return 0
        if in_variable:
            value = json.loads(value)[self.run_id].get("coveo_push", {"count": 0})
        return int(value["count"])

    @property
    def goes_on_by_itself(self) -> bool:
        """Whether this Airflow retries tasks that were killed, or cleared while running: 3.0 does neither."""
        return not self.airflow.version.startswith("3.0.")

    def kill(self, task: str, *, worker: bool = False) -> None:
        process = psutil.Process(self.airflow.task_pid("resume", self.run_id, task))
        if worker:
            parent = process.parent()
            assert parent is not None
            parent.kill()
        process.kill()

    def clear(self, task: str) -> None:
        self.airflow.clear_tasks("resume", self.run_id, [task], downstream=False)

    def until_done(self, task: str, try_number: int) -> dict[str, Any]:
        self.airflow.wait_for_task("resume", self.run_id, task, {"success"}, 240, try_number=try_number)
        result: dict[str, Any] = self.airflow.xcom("resume", self.run_id, task)
        return result

    def count(self, task: str, operation: str = "batch") -> int:
        """Return the number of requests of a kind from a task to which Coveo responded."""
        return sum(
            request.operation == operation and request.source == f"resume-{task}" and not request.fault
            for request in self.coveo.requests
        )


@pytest.fixture(scope="module")
def story(
    local_airflow: LocalAirflow,
    coveo_server: Simulator,
    shop: Callable[[str], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Story:
    """A run whose tasks all block at the same batch, each until it is ended."""
    path: Path = tmp_path_factory.mktemp("items") / "items.ndjson"
    path.write_text("".join(f"{json.dumps(item)}\n" for item in ITEMS))
    held_up = {}
    for task in TASKS:
        coveo_server.add_source(f"resume-{task}")
        # Also the retries: a push waits a minute for a response, and may be ended later.
        held_up[task] = coveo_server.faults.stall(
            100, applied=False, operation="batch", source=f"resume-{task}", after=ACCEPTED, times=None
        )
    rows = "".join(f"{item['documentId']}\t{item['data']}\n" for item in reversed(ITEMS))
    shop(f"CREATE TABLE item (id text, content text);\nCOPY item FROM STDIN;\n{rows}\\.\n")
    local_airflow.write_dag("resume.py", DAG_FILE.format(path=str(path)))
    story = Story(local_airflow, coveo_server, local_airflow.trigger("resume"))
    for task in TASKS:
        fault = held_up[task]
        local_airflow.wait_until(lambda fault=fault: fault.used, 240, f"{task} is held up")
        if task != "file-anew":
            local_airflow.wait_until(lambda task=task: story.kept(task) == ACCEPTED, 120, f"{task} is kept")
        if task == "file-cleared" and story.goes_on_by_itself:
            fault.times = fault.used
            story.clear(task)
            continue
        if task == "file-anew":
            # This one keeps the run from ending: a task that is cleared while the scheduler finishes its run
            # would never start.
            local_airflow.wait_for_task("resume", story.run_id, "file-failed", {"failed"})
            story.clear("file-failed")
        story.kill(task, worker=task == "file-worker-killed")
        fault.times = fault.used
        if not story.goes_on_by_itself and task not in {"file-worker-killed", "file-failed"}:
            if task == "file-anew":
                local_airflow.wait_for_run("resume", story.run_id)
            else:
                local_airflow.wait_for_task("resume", story.run_id, task, {"failed"})
            story.clear(task)
    return story


def assert_the_index_equals_the_input(story: Story, task: str) -> None:
    items = story.coveo.items(f"resume-{task}")
    assert {name: item["data"] for name, item in items.items()} == {
        item["documentId"]: item["data"] for item in ITEMS
    }


@pytest.mark.parametrize("task", [task for task in reversed(TASKS) if task != "file-anew"])
def test_a_push_that_was_interrupted_at_nine_tenths_sends_only_the_rest(story: Story, task: str) -> None:
    if task == "file-cleared" and not story.airflow.is_airflow_3:
        pytest.skip("Airflow 2.11 lets a task that is cleared while it works go on, or takes it for lost")
    if task == "file-cleared" and not story.goes_on_by_itself:
        pytest.skip("Airflow 3.0 never starts a task again that is cleared while it works")
    result = story.until_done(task, try_number=2)
    assert (result["accepted_adds"], result["batches"]) == (len(ITEMS), BATCHES)
    assert (result["resumed_batches"], result["resumed_entries"]) == (ACCEPTED, 2 * ACCEPTED)
    assert story.count(task) == BATCHES
    assert_the_index_equals_the_input(story, task)
    oldest = min(item["orderingId"] for item in story.coveo.items(f"resume-{task}").values())
    assert result["ordering_id"] <= oldest
    assert story.kept(task) == 0


def test_with_resume_off_everything_is_sent_again(story: Story) -> None:
    result = story.until_done("file-anew", try_number=2)
    assert (result["accepted_adds"], result["resumed_batches"]) == (len(ITEMS), 0)
    assert story.count("file-anew") == ACCEPTED + BATCHES
    assert_the_index_equals_the_input(story, "file-anew")


def test_a_cleared_push_that_succeeded_is_sent_again(story: Story) -> None:
    story.until_done("file-killed", try_number=2)
    # A task that is cleared while the scheduler finishes its run would never start.
    story.airflow.wait_for_run("resume", story.run_id, timeout=240)
    before = story.count("file-killed")
    story.clear("file-killed")
    result = story.until_done("file-killed", try_number=3)
    assert (result["accepted_adds"], result["resumed_batches"]) == (len(ITEMS), 0)
    assert story.count("file-killed") == before + BATCHES
