"""A key that can only push: what it can do works; otherwise, the error names the missing privilege."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator

import airflow_provider_coveo
from airflow_provider_coveo.coveo.errors import AccessDeniedError
from airflow_provider_coveo.coveo.ordering_ids import now_ms
from airflow_provider_coveo.decorators.coveo_push import _CoveoPushDecoratedOperator
from airflow_provider_coveo.operators import coveo_push, coveo_push_update, coveo_source
from airflow_provider_coveo.operators.base import _CoveoOperator
from airflow_provider_coveo.sensors import coveo_push as sensors
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE
from tests.unit.conftest import Variables
from tests.unit.task_groups.test_coveo_push_tasks import Run

ITEMS = [{"documentId": "product://1", "data": "x"}]
IDENTITY = {"identity": {"name": "asmith", "type": "USER"}}
PUSHED = {"source_id": SOURCE, "accepted_adds": 1, "ordering_id": now_ms() - 600_000}

#: Operators that work with the key: the class, its parameters, and the part of its result that proves it.
WORKS: list[tuple[type, dict[str, Any], Any]] = [
    (coveo_push.SetPushSourceStatusOperator, {"status": "REBUILD"}, ("status", "REBUILD")),
    # The log says that it did not check whether a product manages the source.
    (coveo_push.ResetPushSourceOperator, {}, ("queue_delay", 15)),
    (coveo_push.PushItemsOperator, {"items": ITEMS}, ("accepted_adds", 1)),
    (coveo_push.DeleteItemsOperator, {"document_ids": ["product://1"]}, ("accepted_deletes", 1)),
    (coveo_push.RepushRejectedItemsOperator, {"path": "rejected.ndjson"}, ("accepted_adds", 1)),
    (coveo_push.SqlToCoveoPushOperator, {"sql": "SELECT", "sql_conn_id": "any"}, ("accepted_adds", 1)),
    (
        coveo_push.PushSecurityIdentitiesOperator,
        {"provider_id": "provider", "members": [IDENTITY], "delete_old": True},
        ("accepted_members", 1),
    ),
    (
        _CoveoPushDecoratedOperator,
        {"python_callable": lambda: ITEMS, "op_args": (), "op_kwargs": {}},
        ("accepted_adds", 1),
    ),
]
#: Operators that fail with the key, and the privilege that the error names.
REFUSED: list[tuple[type, dict[str, Any], str]] = [
    (coveo_push.CloseAbandonedPushSourcesOperator, {}, "Sources: View"),
    (coveo_push.CloseAbandonedPushSourcesOperator, {"source_ids": [SOURCE]}, "Sources: View"),
    (
        coveo_source.CreatePushSourceOperator,
        {"source_name": "new", "visibility": "SHARED"},
        "lacks the privilege to view sources.*Sources: View and Create,",
    ),
    (coveo_push.CreateFieldsOperator, {"fields": {"price": "DOUBLE"}}, "Fields: View"),
    (coveo_source.DeletePushSourceOperator, {"source_name": SOURCE}, "Sources: View and Edit"),
    (
        coveo_source.RecreatePushSourceOperator,
        {"new_name": "new"},
        "Sources: View, Edit and Create, and Organization: View",
    ),
    (sensors.PushSourceStatusSensor, {"statuses": "IDLE"}, "Sources: View"),
    (sensors.PushApiQuotaSensor, {"items": 1}, "Organization: View"),
    (sensors.PushedItemsIndexedSensor, {"result": PUSHED}, "Organization: View"),
]
#: The bracket, which has a separate test below.
BRACKET = {
    coveo_push_update.OpenPushSourceUpdateOperator,
    coveo_push_update.DeleteOldItemsOfUpdateOperator,
    coveo_push_update.ClosePushSourceUpdateOperator,
    coveo_push_update.JudgePushSourceUpdateOperator,
}


@pytest.fixture(autouse=True)
def _push_only(
    connect: Callable[..., None],
    coveo: Simulator,
    variables: Variables,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    connect(password=coveo.push_only_key)
    monkeypatch.chdir(tmp_path)
    rejected = {"index": 0, "document_id": "product://1", "rule": "any", "item": ITEMS[0]}
    Path("rejected.ndjson").write_text(json.dumps(rejected))
    # The rows of a query; no database is needed for this.
    monkeypatch.setattr(
        "airflow_provider_coveo.content.query.read_query",
        lambda *args, **kwargs: (item for item in ITEMS),
    )


def execute(operator: type[Any], values: dict[str, Any]) -> Any:
    if "source_id" in operator.template_fields:
        values = {"source_id": SOURCE, **values}
    ti = SimpleNamespace(max_tries=0, dag_id="d", task_id="t", run_id="r", map_index=-1, start_date=None)
    task = operator(task_id="t", **values)
    if issubclass(operator, sensors._CoveoSensor):
        task.timeout = timedelta(seconds=0).total_seconds()
    return task.execute({"ti": ti, "task": task})


def test_every_operator_and_sensor_is_tested_here() -> None:
    for module in pkgutil.walk_packages(
        airflow_provider_coveo.__path__, f"{airflow_provider_coveo.__name__}."
    ):
        if any(room in module.name for room in (".operators.", ".sensors.", ".decorators.")):
            importlib.import_module(module.name)

    def below(base: type) -> set[type]:
        return {base}.union(*(below(derived) for derived in base.__subclasses__()))

    concrete = {
        operator
        for operator in below(_CoveoOperator)
        if operator.__module__.startswith(airflow_provider_coveo.__name__)
        and (not operator.__name__.startswith("_") or operator is _CoveoPushDecoratedOperator)
    }
    tried = {case[0] for case in [*WORKS, *REFUSED]} | BRACKET
    assert {operator.__name__ for operator in concrete - tried} == set()


@pytest.mark.parametrize(("operator", "values", "shows"), WORKS)
def test_operators_that_need_only_to_push_work_completely(
    coveo: Simulator, operator: type[BaseOperator], values: dict[str, Any], shows: tuple[str, Any]
) -> None:
    result = execute(operator, values)
    assert result[shows[0]] == shows[1]
    # A request without the privilege is sent at most once, and does not stop the task.
    assert [request.status for request in coveo.requests].count(403) <= 1


@pytest.mark.parametrize(("operator", "values", "privilege"), REFUSED)
def test_other_operators_fail_at_once_and_name_the_missing_privilege(
    coveo: Simulator, operator: type[BaseOperator], values: dict[str, Any], privilege: str
) -> None:
    with pytest.raises(AccessDeniedError, match=privilege) as refused:
        execute(operator, values)
    assert isinstance(refused.value, AirflowFailException)
    assert "like any push-only key" in str(refused.value)
    assert "use a connection whose key has" in str(refused.value)
    # Nothing was changed, and nothing was requested twice.
    assert [request.status for request in coveo.requests if not request.path.endswith("/status")] == [403]


def test_the_bracket_needs_no_more_than_a_push_only_key(
    coveo: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(monkeypatch, delete_old_items=True, allow_empty=True)
    for task in ("open", "work", "delete_old_items", "close", "outcome"):
        run.execute(task)
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]
    assert "olderthan" in {request.operation for request in coveo.requests}
