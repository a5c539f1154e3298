"""Which tasks of a DAG may change the content of a source, so that an attempt knows what may have changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_coveo.coveo.errors import CoveoError

if TYPE_CHECKING:
    import logging

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook


class _Writer(Protocol):
    """An operator that changes the content of a source."""

    source_id: str

    @property
    def hook(self) -> CoveoPushHook: ...

    @property
    def log(self) -> logging.Logger: ...


#: The trigger rules by which a task does not run below one that failed.
_NOT_AFTER_A_FAILURE = frozenset({"all_success", "all_skipped", "none_failed", "none_failed_min_one_success"})


def _has_mark(task: Any, attribute: str) -> bool:
    """Return what a task's class says of itself, also where the task is mapped."""
    return bool(getattr(task, attribute, getattr(getattr(task, "operator_class", None), attribute, False)))


def may_run_after_a_failure(failed: Any) -> Iterator[Any]:
    """Yield the tasks downstream of one that may run although it failed."""
    # Below a teardown, such as a bracket's own tasks, what runs is what did not fail.
    below = [task for task in failed.get_flat_relatives(upstream=False) if not task.is_teardown]
    todo = [task for task in below if task.trigger_rule not in _NOT_AFTER_A_FAILURE]
    seen: set[str] = set()
    while todo:
        task = todo.pop()
        if task.task_id not in seen:
            seen.add(task.task_id)
            todo += task.downstream_list
            yield task


def may_change_content(task: Any, source_id: str) -> bool:
    """Say whether a task, mapped or not, may push to a source or delete from it."""
    if not (_has_mark(task, "pushes_items") or _has_mark(task, "removes_items")):
        return False
    its_source_id = getattr(task, "source_id", None) or getattr(task, "partial_kwargs", {}).get("source_id")
    # Where it is a template, nothing is known.
    return not isinstance(its_source_id, str) or "{" in its_source_id or its_source_id == source_id


def note_content_change(operator: _Writer, context: Context) -> str | None:
    """
    Note that this run changes the source's content from here on.

    :return: Since when, in a form that tells it from any other time; ``None`` where it can't be noted.
    """
    if "ti" not in context:
        # Executed by hand, so there is no run.
        return None
    from airflow_provider_coveo.coveo.endpoints import validate_source_id
    from airflow_provider_coveo.state.ledger import SourceLedger

    task_instance: Any = context["ti"]
    operator.hook.task_context = context
    try:
        source_id, ledger = (
            validate_source_id(operator.source_id),
            SourceLedger(operator.hook.organization_id),
        )
        return ledger.content_changed(
            source_id,
            task_instance.dag_id,
            task_instance.run_id,
            pushes=_has_mark(operator, "pushes_items"),
        )
    except CoveoError:
        # The hook says so, and better, once it is called.
        return None
    except Exception as problem:
        operator.log.warning(
            "It can't be noted that this run changes the content of source %s, so that a try of this task "
            "or another run's may not go on where an earlier one failed: %r",
            operator.source_id,
            problem,
        )
        return None
