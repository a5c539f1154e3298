"""A sensor's counts of items that Coveo's pipeline rejected, for the page and for assets."""

from __future__ import annotations

import pickle
import time

import pytest

from airflow_provider_coveo.coveo.errors import ItemsRefusedError, error_from_json, error_to_json
from airflow_provider_coveo.hooks import run_records
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE
from tests.unit.conftest import Variables
from tests.unit.running_task import Task
from tests.unit.sensors.test_coveo_push import WAYS, indexed_sensor, items, outcome
from tests.unit.triggers.helpers import fired

pytestmark = pytest.mark.usefixtures("connect")

NAME = f"acme/{SOURCE}"
ASSET = f"coveo://acme/{SOURCE}"


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch, variables: Variables) -> Task:
    running = Task(ASSET, "coveo://acme/another")
    monkeypatch.setattr(run_records, "get_current_context", lambda: running.context)
    return running


def reject_two(coveo: Simulator) -> None:
    coveo.reject_item("product://3", "PROCESSING", "REJECTED", "unreadable")
    coveo.reject_item("product://7", "CONSUMING", "ERROR", "no permissions")


def next_task(task: Task) -> None:
    """Let another task run, which has no XComs."""
    task.context["ti"], task.xcoms = task.instance("wait"), {}
    for event in task.events.values():
        event.extra.clear()


@WAYS
@pytest.mark.parametrize("fails", [False, True])
def test_rejected_items_are_counted_whether_or_not_the_task_fails(
    coveo: Simulator, hook: CoveoPushHook, task: Task, deferrable: bool, fails: bool
) -> None:
    reject_two(coveo)
    result = hook.push_items(SOURCE, items(10))
    next_task(task)
    sensor = indexed_sensor(result, max_refused=1 if fails else 2, deferrable=deferrable)
    if fails:
        with pytest.raises(ItemsRefusedError):
            outcome(sensor)
    else:
        outcome(sensor)
    assert task.pushed == {NAME: {"rejected": 2}}
    assert task.events[ASSET].extra == {"rejected": 2}
    assert task.events["coveo://acme/another"].extra == {}


@WAYS
def test_if_nothing_is_rejected_nothing_is_recorded(
    coveo: Simulator, hook: CoveoPushHook, task: Task, deferrable: bool
) -> None:
    result = hook.push_items(SOURCE, items(2))
    next_task(task)
    outcome(indexed_sensor(result, deferrable=deferrable))
    assert task.xcoms == {}


@WAYS
def test_rejected_batches_are_counted_as_batches(
    coveo: Simulator, hook: CoveoPushHook, task: Task, deferrable: bool
) -> None:
    result = hook.push_items(SOURCE, items(3))
    file_id = hook.client.containers.upload(b"no json", "Could not upload").file_id
    path = f"/push/v1/organizations/acme/sources/{SOURCE}/documents/batch"
    hook.client.containers.submit(path, file_id, "Could not push")
    next_task(task)
    with pytest.raises(ItemsRefusedError):
        outcome(indexed_sensor({**result, "accepted_adds": 7}, deferrable=deferrable))
    assert task.pushed == {NAME: {"rejected_batches": 1}}


def test_a_task_that_pushes_and_waits_has_both_counts(
    coveo: Simulator, hook: CoveoPushHook, task: Task
) -> None:
    reject_two(coveo)
    outcome(indexed_sensor(hook.push_items(SOURCE, items(10)), max_refused=2))
    assert task.pushed == {NAME: {"accepted": 10, "deleted": 0, "refused": 0, "rejected": 2}}


@pytest.mark.parametrize("broken", ["xcom_push", "outlet_events"])
def test_a_count_that_cannot_be_recorded_does_not_change_the_result(
    coveo: Simulator, hook: CoveoPushHook, task: Task, broken: str
) -> None:
    reject_two(coveo)
    result = hook.push_items(SOURCE, items(10))
    next_task(task)
    task.refuse(broken)
    assert outcome(indexed_sensor(result, max_refused=2))["refused"] == 2
    with pytest.raises(ItemsRefusedError):
        outcome(indexed_sensor(result))


def test_a_triggerer_and_a_worker_can_have_different_versions_of_the_provider(
    coveo: Simulator, hook: CoveoPushHook, task: Task
) -> None:
    reject_two(coveo)
    result = hook.push_items(SOURCE, items(10))
    next_task(task)
    sensor = indexed_sensor(result, deferrable=True)
    event = fired(
        sensor._trigger(
            coveo_conn_id="coveo_default",
            organization_id=None,
            poke_interval=0.05,
            give_up_at=time.time() + 60,
            silent_fail=False,
        )
    )
    # An earlier version creates its error from all of this.
    known = {"status_code", "error_code", "request_id", "answer", "cause", "remedy", "retry_after", "note"}
    assert event["error"].keys() == known | {"error", "tried", "accepted"}
    assert event.pop("rejected") == {"rejected": 2}
    with pytest.raises(ItemsRefusedError):
        sensor.execute_complete({}, event)
    assert task.xcoms == {}


def test_an_error_keeps_the_counts_between_processes() -> None:
    error = ItemsRefusedError("Could not", rejected={"rejected": 2})
    for again in (pickle.loads(pickle.dumps(error)), error_from_json(error_to_json(error))):
        assert again.rejected == {"rejected": 2}
