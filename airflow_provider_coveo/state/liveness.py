"""Whether a bracket that holds a source open is still at work, and closes it by itself."""

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

#: How often, and how far apart, a run is looked at whose DAG may be paused as far as Airflow tells.
_CHECKS: Final = 3
_SECONDS_BETWEEN_CHECKS: Final = 1.0


def is_live(holder: SourceRecord) -> bool:
    """
    Return whether one of a bracket's own tasks, or of its members, can still act by itself; asked by a task.

    It goes by the bracket's ``close`` and ``outcome`` rather than by its run, which may go on for hours. If
    the DAG is paused, or if Airflow can't say whether it is (3.0 and 3.1), the bracket is at work while a
    task of its run is, or is about to be.

    :param holder: The bracket.
    """
    facts = run_facts(holder.dag_id, holder.run_id)
    if not facts.is_active or is_over(holder):
        return False
    if facts.is_paused is False and not facts.is_gone:
        return True
    if facts.is_paused is None and not facts.is_gone:
        return _goes_on(holder)
    return bool(WORKING_STATES.intersection(all_task_states(holder.dag_id, holder.run_id).values()))


def _goes_on(holder: SourceRecord) -> bool:
    """Return whether a task works or is about to; between two tasks, none is for a moment."""
    for check in range(_CHECKS):
        if check:
            time.sleep(_SECONDS_BETWEEN_CHECKS)
        if PENDING_STATES.intersection(all_task_states(holder.dag_id, holder.run_id).values()):
            return True
    return False


def is_over(holder: SourceRecord) -> bool:
    """
    Return whether the tasks that close a bracket are at their end.

    :param holder: The bracket.
    """
    closing = [holder.task_id("close"), holder.task_id("outcome")]
    states = task_states(holder.dag_id, holder.run_id, closing)
    if not all(states[task_id].get(holder.map_index) in FINISHED_STATES for task_id in closing):
        return False
    if holder.reopened_by is None:
        return True
    # Others may have been cleared as well as the task that opened it again, and the run's end closes it.
    every = all_task_states(holder.dag_id, holder.run_id)
    return not PENDING_STATES.intersection(every.values())


def seems_live(holder: SourceRecord) -> bool:
    """
    Return whether a bracket is at work as far as a DAG's callback can tell.

    On Airflow 3 a callback can't see the state of a run. It then takes a bracket for being at work as long as
    its ``close`` or ``outcome`` is not at its end: if that is wrong, the bracket's own callback closes it. On
    3.0 a callback sees nothing at all.

    :param holder: The bracket.
    """
    if callbacks_see_runs():
        return is_live(holder)
    return not (callbacks_can_query() and is_over(holder))
