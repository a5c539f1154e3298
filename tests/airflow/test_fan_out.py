"""Many sources in one run, in a pool with few slots, while Coveo limits the calls."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from local_airflow import LocalAirflow

from airflow_provider_coveo.simulator import Simulator
from benchmarks.fan_out import DAG_ID, POOL, most_open

pytestmark = pytest.mark.timeout(900)

SLOTS = 3
#: More than can be open at a time.
BRANCHES = 8
_numbers = itertools.count(1)


@pytest.fixture
def sources(coveo_server: Simulator) -> Iterator[list[str]]:
    number = next(_numbers)
    source_ids = [f"acme-branch-{number}-{branch}" for branch in range(BRANCHES)]
    for source_id in source_ids:
        coveo_server.add_source(source_id)
    yield source_ids
    coveo_server.faults.clear()
    coveo_server.call_limit, coveo_server.retry_after = None, False
    for source_id in source_ids:
        coveo_server.remove_source(source_id)


@pytest.fixture
def few_slots(local_airflow: LocalAirflow) -> Iterator[None]:
    def set_slots(slots: int) -> None:
        pool = {"name": POOL, "slots": slots, "include_deferred": False}
        local_airflow.rest("PATCH", f"/pools/{POOL}?update_mask=slots", pool)

    set_slots(SLOTS)
    yield
    set_slots(128)


@pytest.mark.usefixtures("few_slots")
def test_each_of_many_sources_is_closed_by_its_own_bracket_even_if_others_fail(
    local_airflow: LocalAirflow, coveo_server: Simulator, sources: list[str]
) -> None:
    refused, *good = sources
    coveo_server.faults.answer(403, operation="item", source=refused, times=None)
    # Fewer than the tasks make, even slow ones, so that they have to wait; Coveo sends Retry-After.
    coveo_server.call_limit, coveo_server.retry_after = (2, 15), True

    def the_limit_was_met() -> bool:
        return any(call.status == 429 for call in coveo_server.requests if call.path.startswith("/push/"))

    run_id = local_airflow.trigger(DAG_ID, {"source_ids": [*sources, "no-such-source"]})
    coveo_server.wait_for(the_limit_was_met, timeout=240)
    # To keep the test short.
    coveo_server.call_limit = None
    state = local_airflow.wait_for_run(DAG_ID, run_id, timeout=600)

    assert state == "failed"
    assert coveo_server.statuses(refused) == ["REFRESH", "IDLE"]
    for source_id in good:
        assert [event["event"] for event in coveo_server.timeline(source_id)] == ["status", "push", "status"]
        assert coveo_server.statuses(source_id) == ["REFRESH", "IDLE"]
    failed = {
        name for name, task in local_airflow.task_states(DAG_ID, run_id).items() if task.state == "failed"
    }
    # Only the intended tasks failed, and each of the two runs' outcomes shows it.
    assert failed == {
        "update.refresh.push_one[0]", "update.refresh.outcome[0]",
        f"update.refresh.open[{BRANCHES}]", f"update.refresh.outcome[{BRANCHES}]",
    }  # fmt: skip
    # An open bracket takes precedence over one that is not.
    assert most_open([coveo_server.timeline(source_id) for source_id in sources]) <= 2 * SLOTS
