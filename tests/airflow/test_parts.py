"""The records of a mapped task's snapshots on a real scheduler: one a part, as many as there are parts."""

from __future__ import annotations

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


def one(number):
    return [{{"documentId": f"part://{{number}}", "data": "x"}}]


with DAG("parts", schedule=None, start_date=datetime(2025, 1, 1), max_active_runs=1):
    @task
    def contents(params):
        return [one(number) for number in range(params["parts"])]

    @task(trigger_rule="all_done")
    def counted():
        name = {variable!r}
        return next(iter(Variable.get(name, deserialize_json=True)["tasks"].values()))

    pushed = PushItemsOperator.partial(
        task_id="push", source_id={source!r}, only_changes=True, snapshot_path={path!r}, max_deleted="100%"
    ).expand(items=contents())
    pushed >> counted()
"""


def test_records_follow_the_number_of_parts(
    local_airflow: LocalAirflow, coveo_server: Simulator, tmp_path: Path
) -> None:
    coveo_server.add_source(SOURCE)
    variable = f"coveo_parts__acme__{SOURCE}"
    file = DAG_FILE.format(source=SOURCE, path=str(tmp_path), variable=variable)
    local_airflow.write_dag("parts.py", file)

    def run(parts: int) -> Any:
        run_id = local_airflow.trigger("parts", {"parts": parts})
        assert local_airflow.wait_for_run("parts", run_id, timeout=240) == "success"
        return local_airflow.xcom("parts", run_id, "counted")

    assert run(3) == 3
    assert run(1) == 1
