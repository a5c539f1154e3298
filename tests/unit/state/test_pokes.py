"""The pokes of sensors in reschedule mode, as another run's task sees them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import XCom

from airflow_provider_coveo.state import airflow_runs
from airflow_provider_coveo.state.airflow_runs import callbacks_see_runs, latest_pokes, record_poke
from tests.unit.metadata_database import AT, metadata_database


@pytest.mark.skipif(not callbacks_see_runs(), reason="Only tasks of Airflow 2 read the database.")
def test_on_airflow_2_each_reschedule_of_the_run_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with metadata_database(tmp_path / "airflow.db", monkeypatch, "task_reschedule") as database:
        waiting: dict[str, str | None] = {"u.wait": "up_for_reschedule"}
        seen = [latest_pokes("d", "r", waiting)]
        for number, run in enumerate(["r", "another", "r"]):
            end = AT + timedelta(minutes=number)
            row = {"dag_id": "d", "run_id": run, "task_id": "u.wait", "map_index": -1, "try_number": 1}
            times = {"start_date": AT, "end_date": end, "reschedule_date": end, "duration": 1}
            database.add("task_reschedule", {"id": number + 1, **row, **times})
            seen.append(latest_pokes("d", "r", waiting))
        assert seen[1] == seen[2]
        assert len({str(each) for each in seen}) == 3
        database.statements.clear()
        assert latest_pokes("d", "r", {"u.wait": "success"}) == []
        assert not database.statements


@pytest.mark.parametrize(("task_id", "map_index"), [("u.wait", -1), ("u.wait_2", -1), ("u.wait", 2)])
def test_on_airflow_3_the_records_of_rescheduled_tasks_are_read(
    monkeypatch: pytest.MonkeyPatch, task_id: str, map_index: int
) -> None:
    name = f"{task_id}_{map_index}" if map_index >= 0 else task_id
    kept: dict[tuple[str, int], Any] = {}
    context: Any = {
        "ti": SimpleNamespace(
            xcom_push=lambda key, value: kept.update({(f"{task_id} {key}", map_index): value})
        )
    }
    monkeypatch.setattr(airflow_runs, "_runtime_task_instance", lambda: SimpleNamespace())
    monkeypatch.setattr(
        XCom,
        "get_one",
        lambda *, key, task_id, map_index, **_: kept.get((f"{task_id} {key}", map_index)),
    )
    record_poke({**context, "task_reschedule_count": 0})
    assert not kept
    before = latest_pokes("d", "r", {name: "up_for_reschedule"})
    record_poke({**context, "task_reschedule_count": 3})
    assert latest_pokes("d", "r", {name: "up_for_reschedule"}) != before
    assert latest_pokes("d", "r", {name: "success"}) == []


def test_a_poke_that_cannot_be_recorded_fails_nothing() -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("no XCom backend")

    context: Any = {"ti": SimpleNamespace(xcom_push=refuse), "task_reschedule_count": 1}
    record_poke(context)
