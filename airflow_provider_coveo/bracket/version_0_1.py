"""The state that 0.1.0's tasks saved, for a run that was active during the upgrade."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from airflow_provider_coveo.bracket.members import UpdateTasks, holder_of_update
from airflow_provider_coveo.state.ledger import BracketRecord, Holder, Phase, SourceLedger
from airflow_provider_coveo.state.run_marks import OPENING_XCOM_KEY, mark_of, was_cleared
from airflow_provider_coveo.state.task_store import RunState

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

#: The values that 0.1.0's `open` task saved.
_FIRST_CUT_OFF: Final = "first_cut_off"
_KNOWN_FROM_THE_START: Final = "known_from_the_start"


def first_record(context: Context) -> BracketRecord:
    """
    Return the initial record of a bracket without one, including what 0.1.0's ``open`` may have saved.

    :param context: The context of the bracket's ``open``.
    """
    record = BracketRecord(mark=mark_of(context))
    if not was_cleared(context):
        return record
    state = RunState(context)
    first_cut_off = state.get(_FIRST_CUT_OFF)
    if first_cut_off is not None:
        return replace(record, first_cut_off_ms=int(first_cut_off))
    if state.get(_KNOWN_FROM_THE_START):
        return record
    why = "the task was cleared, and there is no record of when the run first opened the source"
    return replace(record, why_unknown=why)


def record_before_this_version(context: Context, update_tasks: UpdateTasks) -> BracketRecord | None:
    """
    Return the record of 0.1.0's `open`, in a run that was active during the upgrade.

    :param context: The context of one of the bracket's tasks.
    :param update_tasks: The bracket's tasks.
    """
    task_instance = context["ti"]
    holder = holder_of_update(context, update_tasks)

    def pull(key: str) -> object:
        return task_instance.xcom_pull(task_ids=update_tasks.open, key=key, map_indexes=holder.map_index)

    opened = pull(OPENING_XCOM_KEY)
    if not isinstance(opened, dict) or not opened.get("source_id"):
        return None
    return record_of_0_1(holder, opened, pull("return_value"))


def record_of_0_1(holder: Holder, opened: Mapping[str, object], result: object) -> BracketRecord:
    """
    Return the record of a bracket that 0.1.0 opened.

    :param holder: The bracket.
    :param opened: The XCom of its ``open``.
    :param result: The result of its ``open``.
    """
    organization_id, source_id = str(opened["organization_id"]), str(opened["source_id"])
    holders = SourceLedger(organization_id).holders(source_id)
    first = result.get("ordering_id") if isinstance(result, dict) else None
    return BracketRecord(
        organization_id=organization_id,
        source_id=source_id,
        coveo_conn_id=str(opened["coveo_conn_id"]),
        status=str(opened.get("status", "")),
        # 0.1.0 deleted the record when it closed the source.
        phase=Phase.OPEN
        if any(each.bracket == holder and not each.is_claim for each in holders)
        else Phase.CLOSED,
        first_cut_off_ms=None if first is None else int(first),
    )
