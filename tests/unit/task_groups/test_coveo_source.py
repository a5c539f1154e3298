"""Recreating a source as a DAG: in order whatever the DAG's defaults, and with an approval on both lines."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowFailException,
    AirflowSkipException,
    BaseOperator,
    Param,
    TaskGroup,
)

from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.operators.coveo_source import DeletePushSourceOperator, RecreatePushSourceOperator
from airflow_provider_coveo.task_groups.coveo_source import (
    ApproveByParamOperator,
    RecreatePushSource,
    recreate_push_source,
)

try:
    from airflow.providers.standard.operators.hitl import ApprovalOperator
except Exception:  # Airflow 2.11 has no such module, and 3.0 refuses it with an error of its own
    ApprovalOperator = None

asks = pytest.mark.skipif(ApprovalOperator is None, reason="this Airflow can't ask for an approval")
can_not_ask = pytest.mark.skipif(ApprovalOperator is not None, reason="this Airflow asks for the approval")


def dag_with(**values: Any) -> tuple[DAG, RecreatePushSource]:
    defaults = values.pop("default_args", {})
    params = values.pop("params", {})
    with DAG(
        "d", schedule=None, start_date=datetime(2025, 1, 1), default_args=defaults, params=params
    ) as dag:
        group = recreate_push_source(
            **{
                "source_id": "{{ var.value.source }}",
                "new_name": "new",
                "source_id_variable": "source",
                **values,
            }
        )
    return dag, group


def test_the_tasks_run_in_order() -> None:
    dag, group = dag_with()
    assert isinstance(group, TaskGroup)
    assert isinstance(group.recreate, RecreatePushSourceOperator)
    assert isinstance(group.delete_old, DeletePushSourceOperator)
    assert group.recreate.task_id == "recreate_push_source.recreate"
    assert group.recreate.downstream_task_ids >= {group.approve.task_id}
    assert group.approve.downstream_task_ids == {group.delete_old.task_id}
    assert group.delete_old.upstream_task_ids == {group.approve.task_id, group.recreate.task_id}
    assert len(dag.tasks) == 3


def test_the_old_source_is_taken_from_the_result_of_recreate_and_not_from_the_variable() -> None:
    _, group = dag_with()
    for value, key in (
        (group.delete_old.source_id, "source_id"),
        (group.delete_old.source_name, "source_name"),
    ):
        assert (value.operator, value.key) == (group.recreate, key)  # type: ignore[attr-defined]
    assert (group.new_source_id.operator, group.new_source_id.key) == (group.recreate, "new_source_id")


def test_default_args_let_nothing_run_before_the_approval() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, group = dag_with(
            default_args={
                "trigger_rule": "all_done",
                "depends_on_past": True,
                "execution_timeout": timedelta(seconds=1),
                "do_xcom_push": False,
            }
        )
    for task in (group.approve, group.delete_old):
        assert task.trigger_rule == "all_success"
        assert not task.depends_on_past
    if ApprovalOperator is not None:
        # It would limit the time for the approval.
        assert group.approve.execution_timeout is group.approve.response_timeout is None
    assert group.recreate.do_xcom_push
    # No second copy is created at the same time.
    assert group.recreate.max_active_tis_per_dag == 1


def test_the_operator_s_arguments_are_passed_on_to_it() -> None:
    values: dict[str, Any] = {
        "source_id": "some-id",
        "new_name": "{{ params.x }}",
        "source_id_variable": "other",
        "confirm_timeout": timedelta(minutes=1),
        "poll_interval": timedelta(seconds=5),
        "deferrable": True,
        "coveo_conn_id": "conn",
        "organization_id": "org",
    }
    item = {"documentId": "a://1", "data": "x"}
    _, group = dag_with(**values, test_item=item, group_id="g", tooltip="What it does")
    for name, value in values.items():
        assert getattr(group.recreate, name) == value
    assert group.recreate.test_item.value == item
    assert (group.delete_old.coveo_conn_id, group.delete_old.organization_id) == ("conn", "org")
    assert (group.group_id, group.tooltip) == ("g", "What it does")


def test_the_connection_can_be_set_in_default_args() -> None:
    _, group = dag_with(default_args={"coveo_conn_id": "coveo_eu", "organization_id": "acme-eu"})
    for task in (group.recreate, group.delete_old):
        assert (task.coveo_conn_id, task.organization_id) == ("coveo_eu", "acme-eu")  # type: ignore[attr-defined]


def test_a_dag_can_have_several_groups_with_tasks_in_between() -> None:
    with DAG("d", schedule=None, start_date=datetime(2025, 1, 1)) as dag:
        first = recreate_push_source(source_id="a", new_name="a2")
        second = recreate_push_source(source_id="b", new_name="b2")
        fill = BaseOperator(task_id="fill")
        after = BaseOperator(task_id="after")
        first.recreate >> fill >> first.approve
        first >> after
    assert second.group_id != first.group_id
    assert fill.downstream_task_ids == {first.approve.task_id}
    assert after.upstream_task_ids == {first.delete_old.task_id}
    assert len(dag.tasks) == 8


@asks
def test_the_deletion_waits_for_an_approval_if_airflow_supports_it() -> None:
    dag, group = dag_with()
    assert isinstance(group.approve, ApprovalOperator)
    assert not dict(dag.params)
    assert group.approve.response_timeout is None

    class TaskInstance:
        def xcom_pull(self, task_ids: str) -> dict[str, Any]:
            assert task_ids == group.recreate.task_id
            return {
                "source_id": "old-id",
                "source_name": "Old",
                "new_source_id": "new-id",
                "new_source_name": "New",
                "number_of_items": 42,
                "managed_by": "Coveo for Sitecore",
            }

    group.approve.render_template_fields({"ti": TaskInstance()})  # type: ignore[typeddict-item]
    body = group.approve.body  # type: ignore[attr-defined]
    assert "**Old** (`old-id`)" in body
    assert "42 items" in body
    assert "**New** (`new-id`)" in body
    assert "Coveo for Sitecore manages the old source" in body


@can_not_ask
def test_a_param_approves_the_deletion_if_airflow_supports_no_approvals() -> None:
    dag, group = dag_with()
    assert isinstance(group.approve, ApproveByParamOperator)
    assert dict(dag.params) == {"delete_old_source": ""}
    dag, _ = dag_with(params={"approve": Param("x", type="string")}, approval_param="approve")
    assert dict(dag.params) == {"approve": "x"}


@pytest.mark.parametrize("given", [{}, {"approve": ""}, {"approve": None}])
def test_without_approval_the_deletion_is_skipped(given: dict[str, Any]) -> None:
    task = ApproveByParamOperator(task_id="t", param="approve", source_name="Old")
    with pytest.raises(AirflowSkipException, match='"approve": "Old"'):
        task.execute({"params": given})  # type: ignore[typeddict-item]


def test_an_approval_that_names_another_source_fails() -> None:
    task = ApproveByParamOperator(task_id="t", param="approve", source_name="Old")
    with pytest.raises(CoveoInputError, match="'old'") as refused:
        task.execute({"params": {"approve": "old"}})  # type: ignore[typeddict-item]
    assert isinstance(refused.value, AirflowFailException)
    assert task.execute({"params": {"approve": "Old"}}) == "Old"  # type: ignore[typeddict-item]


def test_parsing_sends_no_request(connect: Callable[..., None], coveo: Any) -> None:
    dag_with()
    assert coveo.requests == []
