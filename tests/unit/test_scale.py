"""docs/scale.md contains the model's results, and the model's number of calls is correct."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_coveo.simulator import Simulator
from airflow_provider_coveo.task_groups.coveo_push import push_source_update
from benchmarks import scale
from tests.conftest import SOURCE


def test_the_document_has_the_tables_that_the_script_generates() -> None:
    document = scale.DOCUMENT.read_text()
    assert scale.with_tables(document) == document, "python benchmarks/scale.py --write"


@pytest.mark.parametrize(
    ("items", "item_bytes", "batch_bytes"), [(100, 500, 5000), (9, 400, 4096), (1, 300, 9000)]
)
def test_the_model_counts_the_calls_that_a_push_makes(
    coveo: Simulator, hook: Any, items: int, item_bytes: int, batch_bytes: int
) -> None:
    lines = [scale.item(number, item_bytes) for number in range(items)]
    result = hook.push_items(SOURCE, lines, batch_bytes=batch_bytes)
    calls = [call for call in coveo.requests if call.path.startswith("/push/")]
    assert len(calls) == scale.calls_of(items, item_bytes, batch_bytes)
    assert result["batches"] == len(scale.batches_of(items, item_bytes, batch_bytes))


def test_rate_limited_tasks_exceed_the_limit_by_no_more_than_their_slots() -> None:
    run = scale.Rebuild(slots=7, batch_bytes=1024 * 1024, items=2_000_000, items_per_shard=100_000).simulate()
    assert run.refused > 0
    assert run.fullest_window <= scale.CALLS_PER_FIVE_MINUTES + 7
    assert run.accepted == 2_000_000


def test_with_a_call_interval_no_call_is_rate_limited() -> None:
    slots, limit = 5, scale.CALLS_PER_FIVE_MINUTES
    run = scale.Rebuild(
        slots=slots,
        batch_bytes=1024 * 1024,
        items=2_000_000,
        items_per_shard=100_000,
        call_interval=300 * slots / (limit - slots),
    ).simulate()
    assert run.refused == 0
    assert run.fullest_window <= limit


def test_a_run_stops_when_the_calls_of_a_day_are_used_up() -> None:
    run = scale.Rebuild(slots=4, item_bytes=50_000, items=3_000_000).simulate()
    assert run.stopped_by == "the calls of a day"
    assert max(run.calls_of_day.values()) == scale.CALLS_PER_DAY
    assert run.accepted < 3_000_000


def test_the_code_in_the_document_creates_a_mapped_bracket() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", scale.DOCUMENT.read_text(), flags=re.DOTALL)
    with DAG("rebuild", start_date=datetime(2025, 1, 1), schedule=None, max_active_runs=1) as dag:
        exec(code, {"task": task, "push_source_update": push_source_update})  # noqa: S102
    pushing: Any = dag.get_task("push_source_update.push_part")
    assert pushing.partial_kwargs["pool"] == "coveo"
    assert len(pushing.op_kwargs_expand_input.value["part"]) == scale.ITEMS / scale.ITEMS_PER_SHARD
