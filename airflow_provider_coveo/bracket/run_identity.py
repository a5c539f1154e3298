"""A bracket's record in its run, unless that belongs to a deleted run with the same ID."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from airflow_provider_coveo.bracket.members import UpdateTasks, holder_of_update
from airflow_provider_coveo.bracket.version_0_1 import record_before_this_version
from airflow_provider_coveo.state.ledger import BracketRecord, Holder, read_bracket
from airflow_provider_coveo.state.run_marks import CurrentRun, current_run, is_another_run

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)

#: The maximum difference between the clocks of a worker and a scheduler.
_CLOCK_SKEW: Final = 2.0


def is_of_a_deleted_run(context: Context, record: BracketRecord) -> bool | None:
    """
    Return whether a record belongs to a deleted run with the ID of this one; ``None`` if nothing tells.

    :param context: The context of the bracket's ``open``.
    :param record: The record.
    """
    run = current_run(context)
    if run is None:
        return False
    if record.mark is None:
        return not run.was_continued and _opened_before(record, run)
    answer = is_another_run(record.mark, run.mark)
    if answer is not None:
        return answer
    if run.was_continued:
        return False
    # In a run that was cleared, `open` may have been marked by hand before it ever ran.
    return None if run.was_cleared_since(record.mark) else True


def _opened_before(record: BracketRecord, run: CurrentRun) -> bool:
    """Return whether a record without a mark is older than the first pass of a run, which opened nothing."""
    return run.mark.clears == 0 and 0 < record.opened_at < run.mark.began - _CLOCK_SKEW


def read_record_in_run(context: Context, holder: Holder) -> tuple[BracketRecord | None, BracketRecord | None]:
    """
    Return the record of a bracket, ``None`` if this run has none; and that of a deleted run with its ID.

    Airflow deletes a run's XComs with the run. So if there is the one in which ``open`` announces what it
    opens, this run opened the source, whatever else has changed.

    :param context: The context of a task, but not of the bracket's ``open``.
    :param holder: The bracket.
    """
    record, run = read_bracket(holder), current_run(context)
    if record is None or run is None:
        return record, None
    if record.mark is None:
        may_be_another = _opened_before(record, run)
    else:
        answer = is_another_run(record.mark, run.mark)
        # A new run that was cleared has its own record since its `open` worked.
        may_be_another = answer or (answer is None and not run.was_cleared_since(record.mark))
    if not may_be_another or run.has_opened(holder.open_task_id, holder.map_index, record.source_id):
        return record, None
    log.info("A deleted run with the ID of this one opened source %s; this one did not", record.source_id)
    return None, record


def read_bracket_of_run(
    context: Context, update_tasks: UpdateTasks
) -> tuple[BracketRecord | None, BracketRecord | None]:
    """
    Return the record of a task's bracket, as :func:`read_record_in_run` does.

    :param context: The context of one of the bracket's tasks, but not of its ``open``.
    :param update_tasks: The bracket's tasks.
    """
    return read_record_in_run(context, holder_of_update(context, update_tasks))


def record_of_run(context: Context, update_tasks: UpdateTasks) -> BracketRecord | None:
    """
    Return the record of a bracket in this run, of 0.1.0 if it opened the bracket; ``None`` if there is none.

    :param context: The context of one of the bracket's tasks, but not of its ``open``.
    :param update_tasks: The bracket's tasks.
    """
    return read_bracket_of_run(context, update_tasks)[0] or record_before_this_version(context, update_tasks)
