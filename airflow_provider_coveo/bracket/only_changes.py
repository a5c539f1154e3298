"""Rejection of pushes of only changes in a bracket that deletes old items by time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_coveo.operators.only_changes import (
    may_be_same_source,
    only_changes_error,
    pushes_only_changes,
)

if TYPE_CHECKING:
    from airflow_provider_coveo.bracket.delete_task import DeleteOldItemsOfUpdateOperator
    from airflow_provider_coveo.state.airflow_types import Operator


def reject_only_changes(task: Operator, delete_task: DeleteOldItemsOfUpdateOperator) -> None:
    """
    Reject a task of a bracket that deletes old items, if it pushes only changes.

    Templates are checked when the task runs.

    :param task: The task, mapped or not.
    :param delete_task: The task that deletes old items.
    :raises CoveoInputError: if it does.
    """
    if pushes_only_changes(task) and may_be_same_source(task, delete_task.source_id):
        raise only_changes_error(task.task_id, delete_task.task_id)
