"""The records of a mapped task's snapshots on a real scheduler: one for each part."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from local_airflow import LocalAirflow

from airflow_provider_coveo.simulator import Simulator

pytestmark = pytest.mark.timeout(900)

SOURCE = "parts-products"

DAG_FILE = """
from datetime import datetime

from airflow.providers.common.compat.sdk import DAG, Variable, task

from airflow_provider_coveo.operators.coveo_push import PushItemsOperator


def one(number, data):
    return [{{"documentId": f"part://{{number}}", "data": data}}]


with DAG("parts", schedule=None, start_date=datetime(2025, 1, 1), max_active_runs=1):
    @task
    def contents(params):
        return [one(number, params.get("data", "x")) for number in range(params["parts"])]

    @task(trigger_rule="all_done")
    def counted():
        name = {variable!r}
        return next(iter(Variable.get(name, deserialize_json=True)["tasks"].values()))

    pushed = PushItemsOperator.partial(
        task_id="push", source_id={source!r}, only_changes=True, snapshot_path={path!r}, max_deleted="100%"
    ).expand(items=contents())
    pushed >> counted()
"""

OLD = "the snapshot is older than the last push of this task"


def test_the_records_of_parts_match_their_number_and_detect_a_restored_snapshot(
    local_airflow: LocalAirflow, coveo_server: Simulator, tmp_path: Path
) -> None:
    coveo_server.add_source(SOURCE)
    variable = f"coveo_parts__acme__{SOURCE}"
    snapshots, backup = tmp_path / "snapshots", tmp_path / "backup"
    file = DAG_FILE.format(source=SOURCE, path=str(snapshots), variable=variable)
    local_airflow.write_dag("parts.py", file)

    def run(parts: int, data: str = "x") -> tuple[Any, list[str | None]]:
        run_id = local_airflow.trigger("parts", {"parts": parts, "data": data})
        assert local_airflow.wait_for_run("parts", run_id, timeout=240) == "success"
        results = [local_airflow.xcom("parts", run_id, "push", map_index=number) for number in range(parts)]
        count = local_airflow.xcom("parts", run_id, "counted")
        return count, [result["full_because"] for result in results]

    first = "there is no snapshot yet"
    assert run(3) == (3, [first] * 3)
    shutil.copytree(snapshots, backup)
    assert run(1, "y") == (1, [None])
    shutil.rmtree(snapshots)
    shutil.copytree(backup, snapshots)
    assert run(1) == (1, [OLD])
    assert {item["data"] for item in coveo_server.items(SOURCE).values()} == {"x"}
