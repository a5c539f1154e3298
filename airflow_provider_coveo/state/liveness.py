"""Checks whether a bracket that owns a source is still running, and will close it by itself."""

from __future__ import annotations

import time
from typing import Final

from airflow_provider_coveo.state.airflow_runs import (
    FINISHED_STATES,
    PENDING_STATES,
    WORKING_STATES,
    all_task_states,
    callbacks_can_query,
    callbacks_see_runs,
    run_facts,
    task_states,
)
from airflow_provider_coveo.state.ledger import SourceRecord

#: The number of checks of a run whose DAG might be paused, and the interval between them.
_CHECKS: Final = 3
_SECONDS_BETWEEN_CHECKS: Final = 1.0


def is_live(holder: SourceRecord) -> bool:
    """
    Return whether a bracket is live: one of its own tasks or members can still run. For tasks only.

    It depends on the bracket's ``close`` and ``outcome`` rather than on its run, which can continue for
    hours. If the DAG is paused, or if Airflow can't report whether it is (3.0 and 3.1), the bracket is live
    while a task of its run is running or about to run.

    :param holder: The bracket.
    """
    facts = run_facts(holder.dag_id, holder.run_id)
    if not facts.is_active or is_over(holder):
        return False
    if facts.is_paused is False and not facts.is_gone:
        return True
    if facts.is_paused is None and not facts.is_gone:
        return _has_pending_task(holder)
    return bool(WORKING_STATES.intersection(all_task_states(holder.dag_id, holder.run_id).values()))


def _has_pending_task(holder: SourceRecord) -> bool:
    """Return whether a task is running or about to run. Several checks cover the gap between two tasks."""
    for check in range(_CHECKS):
        if check:
            time.sleep(_SECONDS_BETWEEN_CHECKS)
        if PENDING_STATES.intersection(all_task_states(holder.dag_id, holder.run_id).values()):
            return True
    return False


def is_over(holder: SourceRecord) -> bool:
    """
    Return whether a bracket has ended: the tasks that close it, and all others that could still push.

    If someone marks ``close`` and ``outcome`` while other tasks of the bracket are pending, these still work,
    and the DAG's callback closes the source when the run ends.

    :param holder: The bracket.
    """
    closing = [holder.task_id("close"), holder.task_id("outcome")]
    states = task_states(holder.dag_id, holder.run_id, closing)
    if not all(states[task_id].get(holder.map_index) in FINISHED_STATES for task_id in closing):
        return False
    every = all_task_states(holder.dag_id, holder.run_id)
    return not any(may_still_work(holder, name) for name, state in every.items() if state in PENDING_STATES)


def may_still_work(holder: SourceRecord, task_name: str) -> bool:
    """
    Return whether a pending task keeps a bracket alive whose ``close`` and ``outcome`` have ended.

    If a member reopened the bracket, every task counts: more tasks may have been cleared than that one, and
    the run's end closes the source.

    :param holder: The bracket.
    :param task_name: The unique name of the task instance in the run.
    """
    return holder.reopened_by is not None or holder.has_member(task_name)


def seems_live(holder: SourceRecord) -> bool:
    """
    Return whether a bracket is live, as far as a DAG's callback can tell.

    On Airflow 3, a callback can't query the state of a run. It then treats a bracket as live until its
    ``close`` and ``outcome`` have ended: if that is wrong, the bracket's own callback closes it. On 3.0, a
    callback can query nothing.

    :param holder: The bracket.
    """
    if callbacks_see_runs():
        return is_live(holder)
    return not (callbacks_can_query() and is_over(holder))
