"""A deadline alert that closes an overdue bracket, even if nothing else in Airflow handles its run."""

from __future__ import annotations

import asyncio
import importlib
import logging
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from airflow_provider_coveo.bracket.closing import close_source, hook_of
from airflow_provider_coveo.bracket.members import UpdateTasks, each_map_index
from airflow_provider_coveo.state.airflow_runs import (
    WORKING_STATES,
    all_task_states,
)
from airflow_provider_coveo.state.ledger import Holder, Phase, read_bracket
from airflow_provider_coveo.state.liveness import TaskStatesCheck
from airflow_provider_coveo.threads import in_thread

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import DAG

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_CHECKS: Final = 60.0
#: The number of consecutive checks without a running task after which the bracket counts as abandoned: after
#: three minutes.
_IDLE_CHECKS: Final = 4
#: The same if a task waits for its retry or to be rescheduled: after an hour. If the DAG is paused, it waits
#: forever, and the triggerer can't query that.
_WAITING_CHECKS: Final = 61
#: The time for which a run that continues after its deadline is monitored.
_LONGEST: Final = timedelta(days=2)


async def close_overdue(
    open_task_id: str, is_mapped: bool, context: Mapping[str, object] | None = None, **_: object
) -> None:
    """
    Close the source of a bracket whose run is overdue, once no task of the run is running.

    Airflow's triggerer awaits it after the deadline, even if the DAG is paused, deleted or can't be imported.
    If tasks of the run are running, it checks again every minute for two days. If a task waits for its retry
    or to be rescheduled, it waits for an hour.

    :param open_task_id: The bracket's ``open`` task.
    :param is_mapped: Whether the whole bracket is mapped.
    :param context: Airflow's data about the run.
    """
    given = (context or {}).get("dag_run")
    run = given if isinstance(given, Mapping) else {}
    dag_id, run_id = str(run.get("dag_id", "")), str(run.get("dag_run_id", ""))
    overdue = _OverdueBracket(Holder(dag_id, run_id, open_task_id), is_mapped=is_mapped)
    until = time.monotonic() + _LONGEST.total_seconds()
    idle, limit = 0, 0
    while time.monotonic() < until:
        open_ones = await in_thread(overdue.still_open)
        if not open_ones:
            return
        before, limit = limit, await in_thread(overdue.idle_limit)
        idle = (idle if limit == before else 0) + 1
        if limit and idle >= limit:
            await in_thread(overdue.close, open_ones)
            return
        await asyncio.sleep(_SECONDS_BETWEEN_CHECKS)


class _OverdueBracket:
    def __init__(self, holder: Holder, *, is_mapped: bool) -> None:
        self._holder = holder
        self._is_mapped = is_mapped

    def still_open(self) -> list[Holder]:
        """Return the bracket, or those of its map indexes, that may have left their source active."""
        found = []
        for holder in self._holders():
            record = read_bracket(holder)
            if record is not None and (record.may_be_open or not record.is_concluded):
                found.append(holder)
        return found

    def idle_limit(self) -> int:
        """Return after how many checks like this one the bracket is abandoned; 0 if a task is running."""
        states = set(all_task_states(self._holder.dag_id, self._holder.run_id).values())
        if WORKING_STATES & states:
            return 0
        return _WAITING_CHECKS if states & {"up_for_retry", "up_for_reschedule"} else _IDLE_CHECKS

    def close(self, holders: list[Holder]) -> None:
        """Close the sources."""
        for holder in holders:
            record = read_bracket(holder)
            if record is None or record.phase is Phase.CLOSED:
                continue
            log.warning(
                "Source %s is overdue, and no task of %s is running; closing it", record.source_id, holder
            )
            hook = hook_of(record, caller="push_source_update.deadline")
            try:
                close_source(hook, holder, record, TaskStatesCheck())
            except Exception as error:
                log.warning("The source of %s may still be open: %s: %s", holder, type(error).__name__, error)

    def _holders(self) -> list[Holder]:
        return list(each_map_index(self._holder, is_mapped=self._is_mapped))


def add_deadline(dag: DAG, update_tasks: UpdateTasks, after: timedelta, *, is_mapped: bool) -> None:
    """
    Add a deadline alert for a bracket's run.

    :param dag: The DAG. Its own deadline alerts stay.
    :param update_tasks: The bracket's tasks.
    :param after: The time after the run was queued.
    :param is_mapped: Whether the whole bracket is mapped.
    :raises ImportError: before Airflow 3.1, which has no deadline alerts.
    """
    deadline = importlib.import_module("airflow.sdk.definitions.deadline")
    try:
        callback_class = importlib.import_module("airflow.sdk.definitions.callback").AsyncCallback
    except ImportError:
        # 3.1 defines it in the module of the alert.
        callback_class = deadline.AsyncCallback
    alert = deadline.DeadlineAlert(
        reference=deadline.DeadlineReference.DAGRUN_QUEUED_AT,
        interval=after,
        callback=callback_class(
            close_overdue, kwargs={"open_task_id": update_tasks.open, "is_mapped": is_mapped}
        ),
    )
    present = getattr(dag, "deadline", None) or []
    dag.deadline = [*(present if isinstance(present, list) else [present]), alert]
