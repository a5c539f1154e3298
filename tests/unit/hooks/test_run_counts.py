"""The item counts that a task saves for its pushes, in an XCom and in its assets' events."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_coveo.coveo.errors import CoveoError
from airflow_provider_coveo.hooks import run_records
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE
from tests.unit.conftest import Variables
from tests.unit.running_task import Task

NAME = f"acme/{SOURCE}"


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch, variables: Variables) -> Task:
    running = Task(f"coveo://acme/{SOURCE}", "s3://elsewhere")
    monkeypatch.setattr(run_records, "get_current_context", lambda: running.context)
    return running


def items(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"documentId": f"product://{number}", "data": "x", **fields} for number in range(count)]


def test_a_push_is_counted(coveo: Simulator, hook: CoveoPushHook, task: Task) -> None:
    bad = {"documentId": "no uri"}
    hook.push_items(SOURCE, [*items(3), bad], delete=["product://1"], on_invalid="skip")
    expected = {"accepted": 3, "deleted": 1, "refused": 1}
    assert task.pushed == {NAME: expected}
    assert task.events[f"coveo://acme/{SOURCE}"].extra == expected
    assert task.events["s3://elsewhere"].extra == {}


def test_the_pushes_of_a_task_are_added_up_by_source(
    coveo: Simulator, hook: CoveoPushHook, task: Task
) -> None:
    coveo.add_source("other")
    hook.push_items(SOURCE, items(2))
    CoveoPushHook().push_items(SOURCE, items(3))
    hook.push_items("other", items(1))
    assert task.pushed[NAME]["accepted"] == 5
    assert task.pushed["acme/other"]["accepted"] == 1
    assert task.events[f"coveo://acme/{SOURCE}"].extra["accepted"] == 5


@pytest.mark.parametrize("next_one", [("push", 2), ("push", 1), ("another", 1)])
def test_another_attempt_and_another_task_start_at_zero(
    coveo: Simulator, hook: CoveoPushHook, task: Task, next_one: tuple[str, int]
) -> None:
    hook.push_items(SOURCE, items(2))
    task.context["ti"] = task.instance(*next_one)
    hook.push_items(SOURCE, items(1))
    assert task.pushed == {NAME: {"accepted": 1, "deleted": 0, "refused": 0}}


def test_a_push_that_fails_counts_with_what_was_accepted_before(
    coveo: Simulator, hook: CoveoPushHook, task: Task
) -> None:
    with pytest.raises(CoveoError) as raised:
        hook.push_items(SOURCE, [*items(2, text="x" * 900), {"documentId": "no uri"}], batch_bytes=1024)
    assert raised.value.accepted is not None
    assert task.pushed[NAME]["accepted"] == raised.value.accepted["accepted_adds"] == 1


def test_a_push_whose_input_fails_counts_with_what_was_accepted_before(
    coveo: Simulator, hook: CoveoPushHook, task: Task
) -> None:
    def broken_off() -> Any:
        yield from items(3, text="x" * 900)
        raise RuntimeError("the database is away")

    with pytest.raises(RuntimeError):
        hook.push_items(SOURCE, broken_off(), batch_bytes=1024)
    assert task.pushed[NAME]["accepted"] == 3 - 1


@pytest.mark.parametrize("broken", ["xcom_push", "outlet_events"])
def test_a_count_that_cannot_be_saved_does_not_fail_the_push(
    coveo: Simulator, hook: CoveoPushHook, task: Task, broken: str
) -> None:
    task.refuse(broken)
    assert hook.push_items(SOURCE, items(1))["accepted_adds"] == 1


def test_outside_a_task_no_counts_are_saved(
    coveo: Simulator, hook: CoveoPushHook, variables: Variables
) -> None:
    assert hook.push_items(SOURCE, items(1))["accepted_adds"] == 1


@pytest.mark.parametrize("uris", [(), ("coveo://acme/another",), ("coveo://other/acme-products",)])
def test_an_asset_of_another_source_gets_no_counts(
    coveo: Simulator, hook: CoveoPushHook, monkeypatch: pytest.MonkeyPatch, variables: Variables, uris: Any
) -> None:
    running = Task(*uris)
    monkeypatch.setattr(run_records, "get_current_context", lambda: running.context)
    hook.push_items(SOURCE, items(1))
    assert all(event.extra == {} for event in running.events.values())
    assert running.pushed[NAME]["accepted"] == 1
