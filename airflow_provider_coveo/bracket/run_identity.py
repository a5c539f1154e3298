"""A bracket's record in its run, unless that belongs to a deleted run with the same ID."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from airflow_provider_coveo.bracket.members import UpdateTasks, holder_of_update
from airflow_provider_coveo.bracket.version_0_1 import OPENING_XCOM_KEY, record_before_this_version
from airflow_provider_coveo.state.ledger import BracketRecord, read_bracket
from airflow_provider_coveo.state.run_marks import is_another_run, mark_of
from airflow_provider_coveo.state.task_store import was_cleared

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)

#: The maximum difference between the clocks of a worker and a scheduler.
_CLOCK_SKEW: Final = 2.0


def is_of_a_deleted_run(context: Context, record: BracketRecord) -> bool:
    """
    Return whether a record belongs to a deleted run with the same ID as the current one.

    A record without a mark is recognized by its time: before its first pass began, a run opened nothing.

    :param context: The context of one of the bracket's tasks.
    :param record: The record.
    """
    mark = mark_of(context)
    if mark is None:
        return False
    if record.mark is not None:
        return is_another_run(record.mark, mark)
    is_first_pass = mark.clears == 0 and not was_cleared(context)
    return is_first_pass and 0 < record.opened_at < mark.began - _CLOCK_SKEW


def read_bracket_of_run(context: Context, update_tasks: UpdateTasks) -> tuple[BracketRecord | None, bool]:
    """
    Return the record of a bracket, ``None`` if this run has none; and whether a deleted run with its ID has.

    Airflow deletes a run's XComs with the run. So if there is the one in which ``open`` announces what it
    opens, this run opened the source, whatever else has changed.

    :param context: The context of one of the bracket's tasks, but not of its ``open``.
    :param update_tasks: The bracket's tasks.
    """
    holder = holder_of_update(context, update_tasks)
    record = read_bracket(holder)
    if record is None or not is_of_a_deleted_run(context, record):
        return record, False
    announced = context["ti"].xcom_pull(
        task_ids=update_tasks.open, key=OPENING_XCOM_KEY, map_indexes=holder.map_index
    )
    if isinstance(announced, dict) and announced.get("source_id"):
        return record, False
    log.info("A deleted run with the ID of this one opened source %s; this one did not", record.source_id)
    return None, True


def record_of_run(context: Context, update_tasks: UpdateTasks) -> BracketRecord | None:
    """
    Return the record of a bracket in this run, of 0.1.0 if it opened the bracket; ``None`` if there is none.

    :param context: The context of one of the bracket's tasks, but not of its ``open``.
    :param update_tasks: The bracket's tasks.
    """
    return read_bracket_of_run(context, update_tasks)[0] or record_before_this_version(context, update_tasks)
