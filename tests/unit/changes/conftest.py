from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_coveo.operators.coveo_push import PushItemsOperator
from tests.conftest import SOURCE
from tests.unit.hooks.conftest import logged

__all__ = ["logged"]


@pytest.fixture
def dag() -> Iterator[DAG]:
    with DAG("d", schedule=None, start_date=datetime(2025, 1, 1)) as dag:
        yield dag


@pytest.fixture(autouse=True)
def _without_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def items(*numbers: int, data: str = "x", **changed: str) -> list[dict[str, Any]]:
    """Return items by number, some with other content, as in ``_3="y"``."""
    return [
        {"documentId": f"a://{number}", "data": changed.get(f"_{number}", data) * 300} for number in numbers
    ]


Push = Callable[..., dict[str, Any]]


@pytest.fixture
def push(dag: DAG, tmp_path: Path) -> Push:
    """Push items like a task's run, with only_changes."""
    runs = iter(range(1_000_000))

    def _push(
        content: Any,
        *,
        run_id: str | None = None,
        map_index: int = -1,
        parts: int | None = None,
        name: str = "t",
        **options: Any,
    ) -> dict[str, Any]:
        options = {
            "source_id": SOURCE,
            "only_changes": True,
            "snapshot_path": str(tmp_path / "snapshots"),
            "batch_bytes": 1024,
            "upload_concurrency": 1,
            "check_quota": False,
            "max_deleted": "100%",
            **options,
        }
        number = next(runs)
        operator = PushItemsOperator(task_id=f"t{number}", items=content, **options)
        ti = SimpleNamespace(
            max_tries=0,
            try_number=1,
            dag_id="d",
            task_id=name,
            run_id=run_id or f"r{number}",
            map_index=map_index,
        )
        store: dict[str, Any] = {}
        context: Any = {
            "params": {},
            "ti": ti,
            "task": operator,
            "expanded_ti_count": parts,
            "task_state_store": SimpleNamespace(
                get=lambda key, default=None: store.get(key, default), set=store.__setitem__, delete=store.pop
            ),
        }
        operator.render_template_fields(context)
        return operator.execute(context)

    return _push
