"""``only_changes`` of the operators that push items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from airflow_provider_coveo.airflow_errors import as_non_retryable
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.operators.base import _filled, _flag

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import timedelta

    from airflow_provider_coveo.coveo.only_changes import OnlyChanges
    from airflow_provider_coveo.state.airflow_types import Operator

#: The templated parameters for ``only_changes``.
TEMPLATED: Final = ("only_changes", "max_deleted", "snapshot_path", "on_damaged_snapshot")


class ChangesTask(Protocol):
    """A task that can push only what changed."""

    task_id: str
    source_id: str
    snapshot_path: str | None
    max_deleted: int | str | None
    full_after: timedelta | None
    on_damaged_snapshot: str | None

    def has_dag(self) -> bool:
        """Return whether the task belongs to a DAG."""

    def get_flat_relatives(self, upstream: bool = False) -> Collection[Operator]:
        """Return all tasks upstream or downstream."""


def changes_of(operator: ChangesTask) -> OnlyChanges | None:
    """
    Return the options of a task that pushes only changes, or ``None`` if it pushes everything.

    :param operator: The operator, with rendered parameters.
    :raises CoveoInputError: if old items are deleted by time, which would delete all unchanged items.
    """
    from airflow_provider_coveo.coveo.only_changes import OnlyChanges

    if not _flag(operator, "only_changes"):
        return None
    delete_task_id = _deletion_by_time(operator)
    if delete_task_id is not None:
        raise as_non_retryable(only_changes_error(operator.task_id, delete_task_id))
    given: dict[str, object] = {
        "snapshot_path": operator.snapshot_path,
        "max_deleted": operator.max_deleted,
        "full_after": operator.full_after,
        "on_damaged_snapshot": operator.on_damaged_snapshot,
    }
    return OnlyChanges(**_filled(given))


def only_changes_error(task_id: str, delete_task_id: str) -> CoveoInputError:
    """
    Return the error of a task that pushes only changes although old items are deleted by time.

    :param task_id: The task.
    :param delete_task_id: The task that deletes old items.
    """
    return CoveoInputError(
        f"Task {task_id!r} can't push only changes: {delete_task_id!r} deletes the items that the run did "
        "not push, including all unchanged items",
        cause="only_changes=True within a bracket that has delete_old_items=True, or before a "
        "ResetPushSourceOperator with an ordering_id",
        remedy="Omit that deletion: a push with only_changes itself deletes items missing from its input",
    )


def reject_deletion_by_time(task: Operator, source_id: str, pushed: Collection[str]) -> None:
    """
    Reject a deletion by time in a run that pushed only changes, unless these come after the deletion.

    :param task: The task that deletes.
    :param source_id: The source.
    :param pushed: The tasks that pushed only changes to it.
    :raises CoveoInputError: if there is such a task.
    """
    before = sorted(set(pushed) - task.get_flat_relative_ids(upstream=False)) if pushed else []
    if before:
        raise CoveoInputError(
            f"Could not delete old items of source {source_id!r}: in this run, {before[0]!r} pushed only "
            "what changed, and all unchanged items would be deleted",
            cause="it pushes with only_changes, with a cursor, or by CoveoPushHook().push_items(changes=...)",
            remedy="Omit that deletion, or let the task push everything in this run, such as with "
            "cursor_reset=True",
        )


def _deletion_by_time(task: ChangesTask) -> str | None:
    """Return the downstream task that deletes the source's items by time, or ``None``."""
    if not task.has_dag():
        return None
    for below in task.get_flat_relatives(upstream=False):
        operator_class = getattr(below, "operator_class", None)
        if not isinstance(operator_class, type):
            operator_class = type(below)
        is_of_bracket = getattr(operator_class, "bracket_role", "") == "delete_old_items"
        # Without a cut-off, a reset deletes everything, whoever pushed it and when.
        is_reset = getattr(operator_class, "removes_items", False) and _parameter(below, "ordering_id")
        if (is_of_bracket or is_reset) and may_be_same_source(below, task.source_id):
            return str(below.task_id)
    return None


def _parameter(task: object, name: str) -> object:
    """Return a parameter of a task, mapped or not; ``None`` if it has none."""
    value = getattr(task, name, None)
    return getattr(task, "partial_kwargs", {}).get(name) if value is None else value


def may_be_same_source(task: object, source_id: object) -> bool:
    """
    Return whether a task, mapped or not, may use a source; a template can render to any.

    :param task: The task.
    :param source_id: The source.
    """
    other = _parameter(task, "source_id")
    literal = [each for each in (other, source_id) if isinstance(each, str) and "{" not in each]
    return len(literal) < 2 or literal[0] == literal[1]


def pushes_only_changes(task: object) -> bool:
    """
    Return whether a literal parameter of a task, mapped or not, says that it pushes only changes.

    :param task: The task.
    """
    value = _parameter(task, "only_changes")
    return value is True or (isinstance(value, str) and value.strip().lower() == "true")
