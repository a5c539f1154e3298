"""Operators that send nothing in a dry run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, task

from airflow_provider_coveo.assets.coveo_push import push_source_asset
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.operators.coveo_push import (
    DeleteItemsOperator,
    PushItemsOperator,
    PushSecurityIdentitiesOperator,
    ResetPushSourceOperator,
    SetPushSourceStatusOperator,
)
from airflow_provider_coveo.sensors.coveo_push import PushedItemsIndexedSensor
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE
from tests.unit.conftest import Variables

pytestmark = pytest.mark.usefixtures("connect")

READS = {"limit", "list_fields", "light_source"}
ITEMS = [{"documentId": "a://1", "data": "x"}, {"documentId": "a://2", "data": "y", "weight": 1}]


@pytest.fixture
def dag() -> Iterator[DAG]:
    with DAG("d", schedule=None, start_date=datetime(2025, 1, 1)) as dag:
        yield dag


def run(operator: Any, dry_run: Any = True) -> Any:
    """Render and execute, like a worker."""
    operator = getattr(operator, "operator", operator)
    context = {"params": {"dry_run": dry_run}, "task": operator}
    operator.render_template_fields(context)
    result = operator.execute(context)
    assert json.loads(json.dumps(result)) == result
    return result


OPERATORS: dict[str, Callable[..., Any]] = {
    "items": lambda **more: PushItemsOperator(task_id="t", source_id=SOURCE, items=ITEMS, **more),
    "delete": lambda **more: DeleteItemsOperator(
        task_id="t", source_id=SOURCE, document_ids=["a://1"], **more
    ),
    "status": lambda **more: SetPushSourceStatusOperator(
        task_id="t", source_id=SOURCE, status="rebuild", **more
    ),
    "reset": lambda **more: ResetPushSourceOperator(task_id="t", source_id=SOURCE, **more),
    "identities": lambda **more: PushSecurityIdentitiesOperator(
        task_id="t",
        provider_id="provider",
        members=[{"identity": {"name": "a", "type": "USER"}}],
        delete_old=True,
        **more,
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("dry_run", [True, "true", "{{ params.dry_run }}"])
def test_nothing_is_sent_and_the_result_says_so(
    coveo: Simulator, dag: DAG, variables: Variables, name: str, dry_run: Any
) -> None:
    result = run(OPERATORS[name](dry_run=dry_run))
    assert result["dry_run"] is True
    assert {request.operation for request in coveo.requests} <= READS
    assert coveo.items(SOURCE) == {}
    assert variables.values == {}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("dry_run", [False, "False", "{{ params.dry_run }}"])
def test_without_dry_run_the_request_is_sent(
    coveo: Simulator, dag: DAG, variables: Variables, name: str, dry_run: Any
) -> None:
    result = run(OPERATORS[name](dry_run=dry_run), dry_run=False)
    assert "dry_run" not in result
    assert not {request.operation for request in coveo.requests} <= READS


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("value", [None, "", "maybe"])
def test_a_dry_run_value_that_renders_to_neither_true_nor_false_sends_nothing_and_is_not_retried(
    coveo: Simulator, dag: DAG, name: str, value: Any
) -> None:
    with pytest.raises(AirflowFailException, match="Invalid dry_run") as raised:
        run(OPERATORS[name](dry_run="{{ params.dry_run }}"), dry_run=value)
    assert isinstance(raised.value, CoveoInputError)
    assert coveo.requests == []


def test_default_args_set_dry_run_for_every_task(coveo: Simulator) -> None:
    defaults = {"dry_run": "{{ params.dry_run }}", "source_id": SOURCE}
    with DAG("d", schedule=None, start_date=datetime(2025, 1, 1), default_args=defaults):

        @task.coveo_push
        def push() -> Iterator[dict[str, Any]]:
            yield from ITEMS

        pushed = push()
        removed = DeleteItemsOperator(task_id="removed", document_ids=["a://9"])
    result = run(pushed)
    assert (result["adds"], result["unknown_fields"]) == (2, ["weight"])
    assert run(removed)["deletes"] == 1
    assert coveo.items(SOURCE) == {}


def test_a_dry_reset_without_a_cut_off_from_a_dry_status_change_sends_nothing(
    coveo: Simulator, dag: DAG
) -> None:
    operator = ResetPushSourceOperator(
        task_id="t",
        source_id=SOURCE,
        ordering_id=SetPushSourceStatusOperator(task_id="s", source_id=SOURCE, status="REBUILD").output[
            "ordering_id"
        ],
        dry_run=True,
    )
    operator.ordering_id = None
    result = operator.execute({"params": {}, "task": operator})
    assert (result["dry_run"], type(result["ordering_id"])) == (True, int)
    assert {request.operation for request in coveo.requests} <= READS


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_dry_run_creates_no_asset_event(
    coveo: Simulator, dag: DAG, variables: Variables, dry_run: bool
) -> None:
    asset = push_source_asset(source_id=SOURCE, organization_id="acme")
    operator = OPERATORS["items"](outlets=[asset], dry_run=dry_run)
    run(operator)
    assert bool(operator.outlets) is not dry_run


def test_airflows_own_dry_run_still_works(dag: DAG) -> None:
    operator = OPERATORS["items"](dry_run=True)
    assert callable(operator.dry_run)
    operator.dry_run()


def test_a_sensor_does_not_wait_after_a_dry_run(coveo: Simulator, dag: DAG) -> None:
    pushed = run(OPERATORS["items"](dry_run=True))
    before = len(coveo.requests)
    sensor = PushedItemsIndexedSensor(task_id="s", result=pushed, deferrable=False)
    assert sensor.poke({}).is_done
    assert len(coveo.requests) == before
