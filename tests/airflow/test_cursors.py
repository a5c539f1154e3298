"""Cursors on a real scheduler: what runs read if they succeed, fail, are retried or cleared."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from local_airflow import LocalAirflow

from airflow_provider_coveo.simulator import Simulator

pytestmark = pytest.mark.timeout(900)

SOURCE = "cursor-products"
TASKS = ("rows", "code", "block")

DAG_FILE = """
from datetime import datetime
import json

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_coveo.cursors.coveo_push import coveo_cursor
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.operators.coveo_push import SqlToCoveoPushOperator


def changed(cursor, name):
    with open({path!r}) as lines:
        for number, at in map(json.loads, lines):
            if at > cursor.since:
                cursor.advance(at)
                yield {{"documentId": f"{{name}}://{{number}}", "data": f"{{number}} at {{at}}"}}


with DAG("cursors", schedule=None, start_date=datetime(2025, 1, 1), max_active_runs=1):
    SqlToCoveoPushOperator(
        task_id="rows", source_id={source!r}, sql_conn_id="shop",
        sql="SELECT number, at FROM change WHERE at > %(since)s ORDER BY at",
        columns={{"documentId": "rows://{{number}}", "data": "{{number}} at {{at}}"}},
        cursor_column="at", cursor_start=0,
    )

    @task.coveo_push(source_id={source!r})
    def code():
        yield from changed(coveo_cursor(start=0), "code")

    @task
    def block():
        with coveo_cursor(start=0, source_id={source!r}) as cursor:
            since = cursor.since
            result = CoveoPushHook().push_items({source!r}, changed(cursor, "block"))
        return {{**result, "since": since}}

    code()
    block()
"""


def test_runs_push_changed_rows_and_a_cleared_run_starts_from_its_own_cursor(
    local_airflow: LocalAirflow,
    coveo_server: Simulator,
    shop: Callable[[str], None],
    tmp_path: Path,
) -> None:
    path = tmp_path / "changes.ndjson"
    coveo_server.add_source(SOURCE)
    shop("CREATE TABLE change (number int, at int);")
    local_airflow.write_dag("cursors.py", DAG_FILE.format(path=str(path), source=SOURCE))
    changes: list[tuple[int, int]] = []

    def change(number: int, at: int) -> None:
        changes.append((number, at))
        path.write_text("".join(f"{json.dumps(each)}\n" for each in changes))
        shop(f"INSERT INTO change VALUES ({number}, {at});")  # noqa: S608

    def run() -> str:
        run_id = local_airflow.trigger("cursors")
        local_airflow.wait_for_run("cursors", run_id, timeout=240)
        return run_id

    def pushed(run_id: str, task: str) -> int:
        result: dict[str, Any] = local_airflow.xcom("cursors", run_id, task)
        return int(result["accepted_adds"])

    for number in (1, 2, 3):
        change(number, number)
    first = run()
    assert [pushed(first, task) for task in TASKS] == [3, 3, 3]

    change(4, 4)
    # One attempt of each task fails; its retry reads the same.
    fault = coveo_server.faults.answer(413, operation="batch", source=SOURCE, times=len(TASKS))
    assert local_airflow.wait_for_run("cursors", local_airflow.trigger("cursors"), timeout=240) == "failed"
    assert fault.used == len(TASKS)
    change(5, 5)
    second = run()
    assert [pushed(second, task) for task in TASKS] == [2, 2, 2]

    local_airflow.clear_tasks("cursors", first, list(TASKS), downstream=False)
    for task in TASKS:
        local_airflow.wait_for_task("cursors", first, task, {"success"}, 240, try_number=2)
    # From the start, like the run's first attempt, and with all current rows.
    assert [pushed(first, task) for task in TASKS] == [5, 5, 5]
    local_airflow.wait_for_run("cursors", first, timeout=240)
    third = run()
    assert [pushed(third, task) for task in TASKS] == [0, 0, 0]
    ids = {f"{task}://{number}" for task in TASKS for number, _ in changes}
    assert set(coveo_server.items(SOURCE)) == ids
