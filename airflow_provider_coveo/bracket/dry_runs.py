"""
The dry run of a bracket: it opens nothing and records nothing, and its tasks must not change anything at
Coveo.

An XCom of ``open`` stores whether the run is dry, because a template may render to something else later.
After a bracket has opened its source, its run can no longer become dry: start a new run.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from airflow_provider_coveo.bracket.errors import DryRunNotPossible
from airflow_provider_coveo.bracket.members import (
    UpdateTasks,
    bracket_map_index,
    holder_of_update,
    listed,
    opening_of,
    running_task,
)
from airflow_provider_coveo.coveo.flags import parse_flag
from airflow_provider_coveo.operators.base import _checked
from airflow_provider_coveo.state.dry_tasks import mark_task

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_coveo.state.airflow_types import Operator
    from airflow_provider_coveo.state.ledger import BracketRecord

log = logging.getLogger(__name__)

#: The XCom of ``open`` that shows whether the run is dry. It is written only if ``dry_run`` is not False.
DRY_RUN_XCOM_KEY: Final = "coveo_dry_run"


def is_dry(context: Context, update_tasks: UpdateTasks) -> bool:
    """
    Return whether the run of a bracket is dry.

    :param context: The context of one of its tasks.
    :param update_tasks: The bracket's tasks.
    """
    opening = opening_of(context, update_tasks)
    given = getattr(opening, "is_dry_run", False)
    if given is False:
        return False
    said = said_dry(context, opening, bracket_map_index(context, update_tasks))
    if isinstance(said, bool):
        return said
    # `open` was marked by hand.
    return _checked(_parse, opening.render_template(given, context))


def said_dry(context: Context, opening: Operator, map_index: int) -> object:
    """
    Return whether a bracket's ``open`` has said in this run that it is dry; ``None`` if it said nothing.

    :param context: The context of a task in the run.
    :param opening: The bracket's ``open``.
    :param map_index: The bracket's map index, or -1.
    """
    return context["ti"].xcom_pull(task_ids=opening.task_id, key=DRY_RUN_XCOM_KEY, map_indexes=map_index)


def reject_after_opening(record: BracketRecord | None) -> None:
    """
    Reject a dry run if the same run has already opened the source.

    :param record: The bracket's record in the run.
    :raises DryRunNotPossible: if it has.
    """
    if record is None or not record.is_pinned:
        return
    raise DryRunNotPossible(
        f"Could not start a dry run on source {record.source_id!r}: this run opened it before, when dry_run "
        "was false. Likely cause: the template of dry_run now renders to another value, and a task was "
        "cleared. Remedy: Start a new run for the dry run; this run's close task sets the source to IDLE."
    )


def enter_member(context: Context, *brackets: UpdateTasks) -> bool:
    """
    Prepare a task of a bracket before it runs, and return whether the run is dry.

    In a dry run, every request that would change something at Coveo fails in this task. In a bracket that
    deletes old items, a dry run of a push does: what it does not push would be deleted.

    :param context: The task's context.
    :param brackets: The tasks of each bracket to which the task belongs.
    :raises DryRunNotPossible: if the run is dry, but the task has its own ``dry_run``, which is off; or if
        only some of the brackets do a dry run.
    """
    task = running_task(context)
    dry = [each for each in brackets if is_dry(context, each)]
    if dry and len(dry) < len(brackets):
        wet = [each.open for each in brackets if each not in dry]
        raise DryRunNotPossible(
            f"Could not run task {task.task_id!r}: it belongs to several brackets, and only some of them do "
            f"a dry run: that of {listed(each.open for each in dry)} does, that of {listed(wet)} does not; "
            "nothing was sent. Remedy: Pass the same dry_run to these brackets, or create a task for each."
        )
    deleting = [
        holder_of_update(context, each)
        for each in brackets
        if not dry and getattr(opening_of(context, each), "deletes_old_items", False)
    ]
    mark_task(context["ti"], is_dry=bool(dry), deleting=deleting)
    if not dry:
        return False
    own = getattr(task, "is_dry_run", None)
    if own is not None and not _checked(_parse, own):
        raise DryRunNotPossible(
            f"Could not run task {task.task_id!r}: its bracket does a dry run, but its own dry_run is false; "
            "nothing was sent. Remedy: Pass the same dry_run to the bracket and to its tasks, for example "
            'with default_args={"dry_run": …}.'
        )
    log.info("The bracket does a dry run: requests of this task that would change something at Coveo fail")
    return True


def _parse(value: object) -> bool:
    return parse_flag("dry_run", value)
