"""A DAG's callbacks, which close a bracket's source if the run ended without its own tasks doing so."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from airflow_provider_coveo.bracket.closing import close_source, hook_of, left_to, may_be_active
from airflow_provider_coveo.bracket.members import UpdateTasks, each_map_index, mapped_group_id, member_ids
from airflow_provider_coveo.bracket.version_0_1 import record_of_0_1
from airflow_provider_coveo.coveo.errors import CoveoError
from airflow_provider_coveo.state.airflow_runs import (
    FINISHED_STATES,
    PENDING_STATES,
    callbacks_can_query,
    callbacks_can_read,
    callbacks_see_runs,
    run_facts,
    task_states,
)
from airflow_provider_coveo.state.ledger import BracketRecord, Holder, Phase, read_bracket
from airflow_provider_coveo.state.liveness import TaskStatesCheck
from airflow_provider_coveo.state.run_marks import OPENING_XCOM_KEY

if TYPE_CHECKING:
    from typing import TypeAlias

    from airflow.providers.common.compat.sdk import DAG, Context

    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

    _Callbacks: TypeAlias = Callable[[Context], None] | Iterable[Callable[[Context], None]]

log = logging.getLogger(__name__)

#: By default, the DAG processor gives a file and all its callbacks 50 seconds.
_BUDGET_SECONDS: Final = 30.0
#: The maximum time for a request to Coveo, and the minimum that is reserved for the last one.
_MAX_SECONDS: Final = 20.0
_MIN_SECONDS: Final = 3.0
#: Until the scheduler handles it, a cleared run looks like one that ended.
_CHECKS: Final = 4
_SECONDS_BETWEEN_CHECKS: Final = 1.0
#: The maximum difference between the clocks of a worker and a scheduler.
_CLOCK_SKEW: Final = 2.0
#: How long the process of a marked `open` task can survive, with Airflow's default heartbeats.
_LINGERING_SECONDS: Final = 10.0
#: The number of remaining map indexes that are listed.
_MAX_NAMED: Final = 20


class _FailureCallback:
    """
    The failure and success callback of a DAG that sends IDLE for each bracket that its own tasks left open.

    One instance handles all brackets of a DAG, and runs before all other callbacks, because the DAG processor
    gives all of them one time limit. It does not touch a source that a bracket of another run owns by then.
    Before it waits for a request that may arrive late, it closes all sources.
    """

    def __init__(self) -> None:
        self.brackets: list[UpdateTasks] = []

    def __repr__(self) -> str:
        """Return the names of the brackets, because Airflow logs each callback."""
        return f"push_source_update({', '.join(tasks.open for tasks in self.brackets)})"

    def __call__(self, context: Context) -> None:
        if context.get("reason") == "success" and not callbacks_can_read():
            # Otherwise `airflow dags test` of Airflow 3 would warn about every successful run.
            return
        dag = context["dag"]
        run_id = str(context["run_id"])
        until = time.monotonic() + _BUDGET_SECONDS
        ended = []
        check = TaskStatesCheck()
        for position, tasks in enumerate(self.brackets):
            try:
                shares = len(self.brackets) - position
                run = _EndedRun(dag, run_id, tasks, _ended_at(context), until, shares, check)
                run.close()
                ended.append(run)
            except Exception as error:
                # For example, callbacks can query nothing in `airflow dags test` of Airflow 3.
                log.warning(
                    "Could not check whether run %r of DAG %r left a source open: %s: %s. Check "
                    "whether task %r succeeded; `airflow dags test` of Airflow 3 can't check it",
                    run_id,
                    dag.dag_id,
                    type(error).__name__,
                    error,
                    tasks.close,
                )
        for run in ended:
            run.look_once_more()


class _EndedRun:
    """One bracket of a run that has ended, as far as its callback knows."""

    def __init__(
        self,
        dag: DAG,
        run_id: str,
        tasks: UpdateTasks,
        ended_at: float,
        until: float,
        shares: int,
        still_live: TaskStatesCheck,
    ) -> None:
        self._dag = dag
        self._dag_id = dag.dag_id
        self._run_id = run_id
        self._tasks = tasks
        self._ended_at = ended_at
        self._until = until
        self._shares = shares
        self._still_live = still_live
        self._unconcluded: list[tuple[Holder, BracketRecord]] = []

    def close(self) -> None:
        """
        Close what the bracket left open; in a mapped bracket, for each map index.

        The DAG processor kills a file's callbacks that take too long, including those of later brackets. So
        if there are many map indexes, it closes only as many as the bracket's share of the time allows.
        """
        now = time.monotonic()
        until = now + max(0.0, self._until - now) / self._shares
        left = []
        for position, holder in enumerate(self._holders()):
            if position and time.monotonic() > until:
                left.append(str(holder.map_index))
                if callbacks_can_query():
                    continue
                # There, each further one needs another query.
                left[0] += " and those after it"
                break
            try:
                self._close_one(holder)
            except Exception as error:
                if holder.map_index < 0:
                    raise
                log.warning("The source of %s may still be open: %s: %s", holder, type(error).__name__, error)
        if left:
            log.warning(
                "Out of time before the sources of all map indexes of %s in run %r of DAG %r were closed. "
                "Not checked: %s. The watchdog (CloseAbandonedPushSourcesOperator) closes any active source",
                self._tasks.open,
                self._run_id,
                self._dag_id,
                ", ".join(left[:_MAX_NAMED])
                + f" and {len(left) - _MAX_NAMED} more" * (len(left) > _MAX_NAMED),
            )

    def _holders(self) -> Iterator[Holder]:
        opening = self._tasks.open
        is_mapped = self._dag.has_task(opening) and mapped_group_id(self._dag.get_task(opening)) is not None
        return each_map_index(Holder(self._dag_id, self._run_id, opening), is_mapped=is_mapped)

    def _close_one(self, holder: Holder) -> None:
        record = read_bracket(holder) or self._record_of_0_1(holder)
        if record is None or not record.is_pinned or record.phase is Phase.REJECTED:
            return
        if record.phase is Phase.CLOSED and record.is_concluded:
            return
        if self._goes_on(holder, record):
            log.info(
                "Run %r of DAG %r continues, and will close its source itself", self._run_id, self._dag_id
            )
            return
        if left_to(holder, record, self._still_live) is not None:
            return
        if record.phase is not Phase.CLOSED:
            log.warning(
                "Source %s was left open by %s, whose own tasks did not close it; closing it",
                record.source_id,
                holder,
            )
            self._send(holder, record)
        if not record.is_concluded:
            self._unconcluded.append((holder, record))

    def look_once_more(self) -> None:
        """
        Close a source again if the request of an `open` in progress arrived after ``IDLE``.

        Its task was marked. Airflow then ends its process, which may have just sent its request.
        """
        self._shares = 1
        for holder, record in self._unconcluded:
            try:
                self._look_once_more(holder, record)
            except Exception as error:
                log.warning("The source of %s may still be open: %s: %s", holder, type(error).__name__, error)

    def _look_once_more(self, holder: Holder, record: BracketRecord) -> None:
        current = read_bracket(holder) or record
        lingers = current.closed_at + _LINGERING_SECONDS - time.time()
        seconds = min(lingers, _LINGERING_SECONDS, self._seconds_left() - _MIN_SECONDS)
        if seconds > 0:
            time.sleep(seconds)
            current = read_bracket(holder) or record
        if current.is_concluded or current.phase is Phase.LEFT:
            return
        # Another task of the bracket, which was cleared meanwhile, may have opened the source since.
        if current.opening == record.opening and may_be_active(self._hook(current), current.source_id):
            log.warning("Source %s is active again after it was closed for %s", current.source_id, holder)
            self._send(holder, replace(current, is_concluded=True))

    def _send(self, holder: Holder, record: BracketRecord) -> None:
        hook = self._hook(record)
        try:
            closing = close_source(hook, holder, record, self._still_live, self._hook)
        except CoveoError as error:
            log.warning("%s The watchdog (CloseAbandonedPushSourcesOperator) can still close it", error)
            return
        if closing.left_for is not None:
            log.info("Source %s is owned by %s; leaving it open", record.source_id, closing.left_for)

    def _goes_on(self, holder: Holder, record: BracketRecord) -> bool:
        """
        Return whether the run was cleared in the meantime, so that it closes its source itself.

        On Airflow 3, a callback can't query a run's state, only the states of tasks. For a short time, those
        of a cleared run look like those of a run that ended. And a run can fail while one of its tasks is
        running, whose bracket Airflow then never closes.
        """
        if callbacks_see_runs():
            return run_facts(self._dag_id, self._run_id).is_active
        if not callbacks_can_query():
            return 0 < self._ended_at < record.opened_at
        # These times are from a worker and a scheduler. A run is unlikely to end just as it opens the source.
        opened_since = 0 < self._ended_at < record.opened_at + _CLOCK_SKEW
        tasks = self._tasks
        own = [tasks.begin, tasks.open, tasks.close, tasks.outcome]
        member = member_ids(self._dag, self._tasks)
        for check in range(_CHECKS):
            if check:
                time.sleep(_SECONDS_BETWEEN_CHECKS)
            found = task_states(self._dag_id, self._run_id, [*own, *member])
            states = [found[task_id].get(holder.map_index) for task_id in own]
            if PENDING_STATES.intersection(states):
                return True
            is_over = all(state in FINISHED_STATES for state in states[2:])
            works = any(state in PENDING_STATES for name in member for state in found[name].values())
            if works:
                # A task that was cleared alone, whose run will call this again; or one that outlives its run.
                return is_over or opened_since
            if is_over:
                return False
        return False

    def _record_of_0_1(self, holder: Holder) -> BracketRecord | None:
        if not callbacks_can_query():
            return None
        from airflow.providers.common.compat.sdk import XCom

        opened = XCom.get_one(
            key=OPENING_XCOM_KEY,
            dag_id=holder.dag_id,
            task_id=holder.open_task_id,
            run_id=holder.run_id,
            map_index=holder.map_index,
        )
        return record_of_0_1(holder, opened, None) if isinstance(opened, dict) and opened else None

    def _hook(self, record: BracketRecord) -> CoveoPushHook:
        from airflow_provider_coveo.coveo.retries import RetryPolicy

        seconds = max(_MIN_SECONDS, min(_MAX_SECONDS, self._seconds_left()))
        return hook_of(
            record,
            retry=RetryPolicy(total_seconds=seconds),
            timeout=min(10, seconds),
            call_interval=0,
            caller="push_source_update.last_resort",
        )

    def _seconds_left(self) -> float:
        """Return the rest of the bracket's share of the time."""
        return (self._until - time.monotonic()) / self._shares


def attach_callbacks(dag: DAG, update_tasks: UpdateTasks) -> None:
    """
    Have a DAG's callbacks close a bracket, before all others that the DAG has; safe to call again.

    :param dag: The DAG.
    :param update_tasks: The bracket's tasks.
    """
    present = [_as_list(dag.on_failure_callback), _as_list(dag.on_success_callback)]
    ours = next((each for each in itertools.chain(*present) if isinstance(each, _FailureCallback)), None)
    ours = ours or _FailureCallback()
    if update_tasks not in ours.brackets:
        ours.brackets.append(update_tasks)
    failure, success = present
    dag.on_failure_callback = [ours, *(each for each in failure if each is not ours)]
    dag.on_success_callback = [ours, *(each for each in success if each is not ours)]
    # Both Airflow lines call callbacks only if these are set, which happens when the DAG is created.
    dag.has_on_failure_callback = dag.has_on_success_callback = True


def warn_if_replaced(dag: DAG, update_tasks: UpdateTasks, source_id: str) -> None:
    """
    Log a warning if a DAG no longer has the callbacks of a bracket.

    A cluster policy can replace them. Airflow applies policies after it has checked the DAG, so nothing can
    insert the callbacks again.

    :param dag: The DAG.
    :param update_tasks: The bracket's tasks.
    :param source_id: The bracket's source.
    """
    for present in (dag.on_failure_callback, dag.on_success_callback):
        ours = (each for each in _as_list(present) if isinstance(each, _FailureCallback))
        if not any(update_tasks in each.brackets for each in ours):
            log.warning(
                "Something replaced the callbacks of DAG %r after Airflow checked it. Likely cause: a "
                "cluster policy (dag_policy in airflow_local_settings.py). If the bracket's tasks can't "
                "close source %s, only the watchdog can. Remedy: Have the policy keep the callbacks that it "
                "finds",
                dag.dag_id,
                source_id,
            )
            return


def _as_list(callbacks: _Callbacks | None) -> list[Callable[[Context], None]]:
    if not callbacks:
        return []
    return list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]


def _ended_at(context: Context) -> float:
    """Return the end of the run in epoch seconds, 0 if Airflow does not record it."""
    ended_at = getattr(context.get("dag_run"), "end_date", None)
    return float(ended_at.timestamp()) if ended_at is not None else 0.0
