"""If the pipeline rejects items of a push of changes, the next one pushes them again."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from airflow_provider_coveo.coveo.errors import ItemsRefusedError
from airflow_provider_coveo.sensors.coveo_push import PushedItemsIndexedSensor
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import index_now
from tests.unit.changes.conftest import Push, items

pytestmark = pytest.mark.usefixtures("connect", "variables")


@pytest.mark.parametrize("max_refused", [0, 5])
@pytest.mark.parametrize("passed", [lambda result: result, lambda result: [result], str, json.dumps])
def test_the_sensor_removes_rejected_items_from_the_snapshot(
    coveo: Simulator, push: Push, max_refused: int, passed: Callable[[Any], Any]
) -> None:
    push(items(1, 2, 3))
    coveo.reject_item("a://2", "PROCESSING", "REJECTED", "unreadable")
    result = push(items(1, 2, 3, _2="y", _3="y"))
    index_now(coveo)
    sensor = PushedItemsIndexedSensor(
        task_id="s", result=passed(result), max_refused=max_refused, settle_time=0
    )
    with nullcontext() if max_refused else pytest.raises(ItemsRefusedError):
        sensor.poke({})
    again = push(items(1, 2, 3, _2="y", _3="y"))
    assert (again["updated"], again["unchanged"]) == (1, 2)
