"""``check_fields`` without a value: each way to push takes that for the default, at the socket."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.operators import coveo_push as operators
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE

pytestmark = pytest.mark.usefixtures("connect", "variables")

ITEM = {"documentId": "product://1", "data": "x", "weight": 1}

Push = Callable[..., dict[str, Any]]


def run(operator: Any, check: Any) -> dict[str, Any]:
    store: dict[str, Any] = {}
    ti = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1, max_tries=0, try_number=1)
    context: Any = {
        "params": {"check": check},
        "ti": ti,
        "task": operator,
        "task_state_store": SimpleNamespace(
            get=lambda key, default=None: store.get(key, default), set=store.__setitem__, delete=store.pop
        ),
    }
    operator.render_template_fields(context)
    result: dict[str, Any] = operator.execute(context)
    return result


def by_hook(tmp_path: Path, check: Any, **options: Any) -> dict[str, Any]:
    return CoveoPushHook().push_items(SOURCE, [ITEM], **options)  # type: ignore[return-value]


def by_items(tmp_path: Path, check: Any, **options: Any) -> dict[str, Any]:
    return run(operators.PushItemsOperator(task_id="t", source_id=SOURCE, items=[ITEM], **options), check)


def by_file(tmp_path: Path, check: Any, **options: Any) -> dict[str, Any]:
    path = tmp_path / "items.ndjson"
    path.write_text(json.dumps(ITEM))
    return run(operators.PushItemsOperator(task_id="t", source_id=SOURCE, path=str(path), **options), check)


def by_function(tmp_path: Path, check: Any, **options: Any) -> dict[str, Any]:
    with DAG("d", schedule=None, start_date=datetime(2025, 1, 1)) as dag:

        @task.coveo_push(source_id=SOURCE, **options)
        def push() -> Any:
            yield ITEM

        push()
    return run(dag.get_task("push"), check)


def by_rejected(tmp_path: Path, check: Any, **options: Any) -> dict[str, Any]:
    path = tmp_path / "rejected.ndjson"
    path.write_text(json.dumps({"index": 0, "document_id": "product://1", "reason": "x", "item": ITEM}))
    return run(
        operators.RepushRejectedItemsOperator(task_id="t", source_id=SOURCE, path=str(path), **options), check
    )


WAYS = [by_hook, by_items, by_file, by_function, by_rejected]
VALUES = [None, "", "  "]
CASES = [
    *((way, value) for way in WAYS for value in VALUES),
    # The hook renders no templates.
    *((way, "{{ params.check or '' }}") for way in WAYS if way is not by_hook),
]


@pytest.mark.parametrize(("push", "value"), CASES, ids=lambda each: getattr(each, "__name__", repr(each)))
@pytest.mark.parametrize("dry_run", [False, True])
def test_no_value_means_the_default(
    coveo: Simulator, tmp_path: Path, push: Push, value: Any, dry_run: bool
) -> None:
    result = push(tmp_path, None, check_fields=value, dry_run=dry_run)
    is_checked = any(request.operation == "list_fields" for request in coveo.requests)
    assert is_checked is dry_run
    assert result.get("unknown_fields") == (["weight"] if dry_run else None)


def test_every_operator_with_check_fields_is_tested() -> None:
    have = {
        name
        for name in operators.__all__
        if "check_fields" in getattr(getattr(operators, name), "template_fields", ())
    }
    # The last one in test_sql.py, which has a database.
    assert have == {"PushItemsOperator", "RepushRejectedItemsOperator", "SqlToCoveoPushOperator"}
