"""A push of only changes in a bracket, which can't be combined with deleting old items by time."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.operators.coveo_push import (
    PushItemsOperator,
    ResetPushSourceOperator,
    SqlToCoveoPushOperator,
)
from airflow_provider_coveo.operators.only_changes import changes_of
from airflow_provider_coveo.simulator import Simulator
from airflow_provider_coveo.task_groups.coveo_push import push_source_update
from tests.conftest import SOURCE
from tests.unit.changes.conftest import items

pytestmark = pytest.mark.filterwarnings(
    "ignore::airflow_provider_coveo.task_groups.coveo_push.OverlappingRunsWarning"
)


def rejected() -> Any:
    return pytest.raises(CoveoInputError, match="can't push only changes")


def push(**options: Any) -> PushItemsOperator:
    return PushItemsOperator(
        **{"task_id": "push", "source_id": SOURCE, "items": items(1), "only_changes": True, **options}
    )


def test_only_changes_in_a_bracket_that_deletes_by_time_is_rejected_when_the_dag_is_parsed(dag: DAG) -> None:
    with rejected(), push_source_update(source_id=SOURCE, delete_old_items=True):
        push()


def test_only_changes_of_a_decorated_or_mapped_task_is_rejected_too(dag: DAG) -> None:
    @task.coveo_push(source_id=SOURCE, only_changes=True)
    def decorated(number: int) -> Any:
        yield from items(number)

    with rejected(), push_source_update(source_id=SOURCE, delete_old_items=True, group_id="a"):
        decorated(1)
    with rejected(), push_source_update(source_id=SOURCE, delete_old_items=True, group_id="b"):
        decorated.expand(number=[1, 2])


def test_only_changes_of_a_task_that_joins_the_bracket_from_outside_is_rejected_too(dag: DAG) -> None:
    outside = push()
    with push_source_update(source_id=SOURCE, delete_old_items=True) as update:
        push(task_id="other", only_changes=False)
    with rejected():
        update.open >> outside


def test_only_changes_without_the_deletion_or_for_another_source_is_accepted(dag: DAG) -> None:
    with push_source_update(source_id=SOURCE, status="REFRESH"):
        push()
    with push_source_update(source_id="other", delete_old_items=True, group_id="b"):
        push(task_id="of_another_source")
        push(task_id="of_this", source_id="other", only_changes=False)


@pytest.mark.usefixtures("connect", "variables")
def test_a_rendered_template_is_checked_before_anything_is_sent(coveo: Simulator, dag: DAG) -> None:
    with push_source_update(source_id="{{ params.source }}", delete_old_items=True):
        operator = push(source_id="{{ params.source }}", only_changes="{{ params.only }}")
    operator.render_template_fields({"params": {"source": SOURCE, "only": True}})  # type: ignore[arg-type]
    with rejected():
        operator.execute({})
    assert coveo.requests == []


@pytest.mark.usefixtures("connect", "variables")
@pytest.mark.parametrize("is_mapped", [True, False])
def test_only_changes_before_a_reset_with_a_cut_off_is_rejected(
    coveo: Simulator, dag: DAG, is_mapped: bool
) -> None:
    operator = push()
    after: dict[str, Any] = {"task_id": "delete_old", "ordering_id": "{{ ti.xcom_pull('rebuild') }}"}
    if is_mapped:
        operator >> ResetPushSourceOperator.partial(**after).expand(source_id=[SOURCE])
    else:
        operator >> ResetPushSourceOperator(source_id=SOURCE, **after)
    with rejected():
        operator.execute({})
    assert coveo.requests == []


@pytest.mark.usefixtures("connect", "variables")
@pytest.mark.parametrize("after", [{"source_id": "other", "ordering_id": 1}, {"source_id": SOURCE}])
def test_only_changes_before_another_reset_is_accepted(dag: DAG, after: dict[str, Any]) -> None:
    operator = push()
    operator >> ResetPushSourceOperator(task_id="reset", **after)
    assert changes_of(operator) is not None


def test_only_changes_cannot_be_combined_with_a_cursor(dag: DAG) -> None:
    operator = SqlToCoveoPushOperator(
        task_id="t", source_id=SOURCE, sql="x", sql_conn_id="c", cursor_column="u", only_changes=True
    )
    with pytest.raises(CoveoInputError, match="only_changes and cursor_column"):
        operator.execute({})
