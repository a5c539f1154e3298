"""Checks whether a bracket that owns a source is still running, and will close it by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
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
from airflow_provider_coveo.state.ledger import Phase, SourceRecord, read_bracket

#: The number of checks of a run whose DAG might be paused, and the interval between them.
_CHECKS: Final = 3
_SECONDS_BETWEEN_CHECKS: Final = 1.0
#: The phases of a bracket that no longer closes its source.
_NOT_OPEN: Final = frozenset({Phase.CLOSED, Phase.LEFT, Phase.REJECTED})


def is_live(holder: SourceRecord) -> bool:
    """
    Return whether a bracket is live: one of its own tasks or members can still run. For tasks only.

    :param holder: The bracket.
    """
    return any(live_among([holder]))


def check_run(holder: SourceRecord) -> bool | None:
    """
    Check once whether a bracket is live, for :func:`live_among`. For tasks only.

    It depends on the bracket's ``close`` and ``outcome`` rather than on its run, which can continue for
    hours. If the DAG is paused, or if Airflow can't report whether it is (3.0 and 3.1), the bracket is live
    while a task of its run is running or about to run.

    :param holder: The bracket.
    :return: ``None`` if no task of its run is running or about to run now; it may be between two.
    """
    facts = run_facts(holder.dag_id, holder.run_id)
    if not facts.is_active or _is_over(holder, is_task=True) or _owns_it_no_more(holder):
        return False
    if facts.is_paused is False and not facts.is_gone:
        return True
    states = all_task_states(holder.dag_id, holder.run_id).values()
    if facts.is_paused is None and not facts.is_gone:
        return bool(PENDING_STATES.intersection(states)) or None
    return bool(WORKING_STATES.intersection(states))


def live_among(
    holders: Iterable[SourceRecord], check: Callable[[SourceRecord], bool | None] = check_run
) -> Iterator[SourceRecord]:
    """
    Return the brackets that are live. Several checks cover the gap between two tasks of a run.

    All brackets are checked together, so any number of them takes the time of one.

    :param holders: The brackets.
    :param check: Checks a bracket once, and returns ``None`` if another check could find it live.
    """
    left = list(holders)
    for number in range(_CHECKS):
        if not left:
            return
        if number:
            time.sleep(_SECONDS_BETWEEN_CHECKS)
        undecided = []
        for holder in left:
            result = check(holder)
            if result:
                yield holder
            elif result is None:
                undecided.append(holder)
        left = undecided


def _owns_it_no_more(holder: SourceRecord) -> bool:
    """
    Return whether an entry among the owners of a source is out of date.

    The bracket has closed it, while another one wrote the owners that it had read before. Or it has opened
    another source since, in a run with the ID of a deleted one.
    """
    record = None if holder.is_claim or not holder.opening else read_bracket(holder.bracket)
    return record is not None and (record.opening != holder.opening or record.phase in _NOT_OPEN)


def is_over(holder: SourceRecord) -> bool:
    """
    Return whether a bracket has ended, by :func:`has_ended`. For callbacks that can query.

    :param holder: The bracket. Nothing is known about its run, so tasks without a state don't count.
    """
    return _is_over(holder, is_task=False)


def _is_over(holder: SourceRecord, *, is_task: bool) -> bool:
    # A task has asked whether the run is active, and can count its task instances.
    closing = [holder.task_id("close"), holder.task_id("outcome")]
    states = task_states(holder.dag_id, holder.run_id, closing)
    ends = [states[task_id].get(holder.map_index) for task_id in closing]
    return has_ended(
        holder,
        ends,
        lambda: all_task_states(holder.dag_id, holder.run_id, can_count=is_task).items(),
        in_active_run=is_task,
    )


def has_ended(
    holder: SourceRecord,
    ends: Iterable[str | None],
    find_tasks: Callable[[], Iterable[tuple[str, str | None]]],
    *,
    in_active_run: bool,
) -> bool:
    """
    Return whether a bracket has ended: the tasks that close it, and all others that could still push.

    If someone marks ``close`` and ``outcome`` while other tasks of the bracket are pending, these still work,
    and the DAG's callback closes the source when the run ends. If a member reopened the bracket, every
    pending task counts: more tasks may have been cleared than that one, and the run's end closes the source.

    :param holder: The bracket.
    :param ends: The states of its ``close`` and ``outcome``.
    :param find_tasks: Returns the run's task instances, by their unique names or tasks, and their states.
        It is called only if both have ended.
    :param in_active_run: Whether its run is active. If so, a task without a state is pending, too: it waits
        for its upstream tasks, such as one of several that were cleared. After the run's end, it never runs.
    """
    if not all(state in FINISHED_STATES for state in ends):
        return False
    return not any(
        (state in PENDING_STATES or (state is None and in_active_run))
        and (holder.reopened_by is not None or holder.has_member(name))
        for name, state in find_tasks()
    )


class TaskStatesCheck:
    """
    Checks whether a bracket is live, as far as a DAG's callback or Airflow's triggerer can tell.

    On Airflow 3, these can't query the state of a run. A bracket then is live if its ``close`` and
    ``outcome`` have not ended, and a task of its run is running or about to run: those of a run that has
    ended, or was deleted, never end. On 3.0, a callback can query nothing. It then treats each bracket as
    live: if that is wrong, the bracket's own callback closes it.

    One instance remembers for how long no task of a run has been pending, so that only the first of many
    brackets waits to find out.
    """

    def __init__(self) -> None:
        #: When a run was first seen without such a task, and when last.
        self._idle: dict[tuple[str, str], tuple[float, float]] = {}

    def __call__(self, holder: SourceRecord) -> bool | None:
        """
        Check a bracket once, for :func:`live_among`.

        :param holder: The bracket.
        """
        if callbacks_see_runs():
            return check_run(holder)
        if not callbacks_can_query():
            return True
        if is_over(holder) or _owns_it_no_more(holder):
            return False
        run = holder.dag_id, holder.run_id
        states = all_task_states(*run, can_count=False).values()
        if PENDING_STATES.intersection(states):
            self._idle.pop(run, None)
            return True
        now = time.monotonic()
        since, last = self._idle.get(run, (now, now))
        if now - last > _CHECKS * _SECONDS_BETWEEN_CHECKS:
            # It may have worked between two checks so far apart.
            since = now
        self._idle[run] = since, now
        is_idle = not states or now - since >= (_CHECKS - 1) * _SECONDS_BETWEEN_CHECKS
        return False if is_idle else None
