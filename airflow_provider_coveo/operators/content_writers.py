"""The tasks of a DAG that can change a source's content, and the record of such changes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from airflow_provider_coveo.coveo.endpoints import validate_source_id
from airflow_provider_coveo.coveo.errors import CoveoError
from airflow_provider_coveo.operators.only_changes import may_be_same_source
from airflow_provider_coveo.state.ledger import SourceLedger
from airflow_provider_coveo.state.run_marks import current_run

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
    from airflow_provider_coveo.state.airflow_types import Operator

log = logging.getLogger(__name__)


#: The trigger rules with which a task does not run after a failed one.
_NOT_AFTER_A_FAILURE: Final = frozenset(
    {"all_success", "all_skipped", "none_failed", "none_failed_min_one_success"}
)


def _has_mark(task: object, attribute: str) -> bool:
    """Return whether a task's class has a flag, even if the task is mapped."""
    return bool(getattr(task, attribute, getattr(getattr(task, "operator_class", None), attribute, False)))


def may_run_after_a_failure(failed: Operator) -> Iterator[Operator]:
    """
    Yield the downstream tasks of a task that can run although it failed.

    :param failed: The task, mapped or not.
    """
    # Ignore teardowns, such as a bracket's own tasks: tasks that follow them don't run after a failure.
    below = [task for task in failed.get_flat_relatives(upstream=False) if not task.is_teardown]
    todo = [task for task in below if task.trigger_rule not in _NOT_AFTER_A_FAILURE]
    seen: set[str] = set()
    while todo:
        task = todo.pop()
        if task.task_id not in seen:
            seen.add(task.task_id)
            todo += task.downstream_list
            yield task


def may_change_content(task: object, source_id: str) -> bool:
    """
    Return whether a task can push to a source or delete from it.

    :param task: The task, mapped or not.
    :param source_id: The source.
    """
    changes = _has_mark(task, "pushes_items") or _has_mark(task, "removes_items")
    return changes and may_be_same_source(task, source_id)


def note_content_change(hook: CoveoPushHook, source_id: str, context: Context, *, pushes: bool) -> str | None:
    """
    Record that this run changes the source's content from now on.

    :param hook: The hook that is about to change it.
    :param source_id: The source.
    :param context: The task's context.
    :param pushes: Whether the task adds items.
    :return: A unique identifier of that time; ``None`` if it can't be recorded.
    """
    if "ti" not in context:
        # Executed by hand, so there is no run.
        return None
    task_instance = context["ti"]
    hook.task_context = context
    try:
        ledger = SourceLedger(hook.organization_id)
        return ledger.content_changed(
            validate_source_id(source_id),
            task_instance.dag_id,
            task_instance.run_id,
            current_run(context),
            pushes=pushes,
        )
    except CoveoError:
        # The hook reports the problem in more detail when it is called.
        return None
    except Exception as problem:
        log.warning(
            "Could not record that this run changes the content of source %s; attempts of this task or "
            "another run may push everything instead of resuming: %r",
            source_id,
            problem,
        )
        return None
