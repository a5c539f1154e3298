"""The tasks that end a bracket: they close its source, check its tasks, and release its followers."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Final

from airflow.providers.common.compat.sdk import AirflowNotFoundException, AirflowSkipException, BaseOperator

from airflow_provider_coveo.bracket.closing import (
    MAX_LINGERING,
    Closing,
    close_source,
    hook_of,
    left_to,
    may_be_active,
)
from airflow_provider_coveo.bracket.deletion_limit import pulled
from airflow_provider_coveo.bracket.dry_runs import is_dry
from airflow_provider_coveo.bracket.edges import as_list, labels_among
from airflow_provider_coveo.bracket.errors import PushSourceUpdateFailed
from airflow_provider_coveo.bracket.members import (
    UpdateTasks,
    failure_is_ignored,
    holder_of_update,
    is_exclusive,
    listed,
    members,
    opening_of,
    own_tasks,
    states,
)
from airflow_provider_coveo.bracket.run_identity import read_bracket_of_run, record_of_run
from airflow_provider_coveo.bracket.task_base import _UpdateOperator
from airflow_provider_coveo.bracket.version_0_1 import record_before_this_version
from airflow_provider_coveo.bracket.waiting import wait_for_unfinished
from airflow_provider_coveo.coveo.errors import CoveoConfigurationError, CoveoError
from airflow_provider_coveo.operators.dry_run import leave_assets_alone
from airflow_provider_coveo.state.airflow_runs import TaskStates, instance_name, is_temporary_run
from airflow_provider_coveo.state.ledger import BracketRecord, Holder, Phase, SourceLedger, read_bracket
from airflow_provider_coveo.state.records import PUSHED_XCOM_KEY

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, EdgeModifier
    from typing_extensions import Unpack

    from airflow_provider_coveo.operators.arguments import TaskArguments
    from airflow_provider_coveo.state.airflow_types import Operator, Wirable, Wirables

_IS_CLOSED: Final = "The source is closed"


class ClosePushSourceUpdateOperator(_UpdateOperator):
    """
    Close a bracket: set the status to ``IDLE``.

    It does not touch the source if the bracket opened nothing, or if another live bracket owns the source and
    will close it.

    :param update_tasks: The bracket's tasks.
    """

    bracket_role: ClassVar[str] = "close"
    works_unrendered: ClassVar[bool] = True
    shallow_copy_attrs: Sequence[str] = ("on_member_added", "labels")

    #: Called with each task that is wired above this one.
    on_member_added: Callable[[Wirable], None] | None = None

    @functools.cached_property
    def labels(self) -> list[EdgeModifier]:
        """The labels of edges that end here."""
        return []

    def update_relative(
        self, other: Wirable, upstream: bool = True, edge_modifier: EdgeModifier | None = None
    ) -> None:
        """Add a task that is wired upstream of ``close`` to the bracket."""
        super().update_relative(other, upstream, edge_modifier)
        if upstream and self.on_member_added is not None:
            self.on_member_added(other)

    def set_upstream(self, task_or_task_list: Wirables, edge_modifier: EdgeModifier | None = None) -> None:
        """Add tasks that are wired upstream of ``close`` to the bracket."""
        self.labels.extend(labels_among(task_or_task_list))
        super().set_upstream(task_or_task_list, edge_modifier)
        if self.on_member_added is not None:
            for task in as_list(task_or_task_list):
                self.on_member_added(task)

    def execute(self, context: Context) -> dict[str, object]:
        """Set ``IDLE``."""
        record = _opened(self, context)
        if record is None:
            self.log.info("This run opened nothing, so there is nothing to close")
            self._give_up_claim(context)
            return self._nothing_sent()
        above = [task.task_id for task in members(context["task"], self.update_tasks)]
        wait_for_unfinished(self._states(context, [self.update_tasks.open, *above]))
        if self._is_closed(context, record):
            self.log.info("Nothing has opened the source since it was closed, so there is nothing to close")
            return self._nothing_sent()
        result = _close(self, context, record).result
        return self._nothing_sent() if result is None else dict(result)

    def _is_closed(self, context: Context, record: BracketRecord) -> bool:
        """Return whether nothing has opened the source since it was closed; its status is someone else's."""
        if record.phase is Phase.CLOSED:
            return record.is_concluded
        return left_to(self._holder(context), record) is not None

    def _give_up_claim(self, context: Context) -> None:
        """Release the claim of an exclusive `open` that was killed before it opened the source."""
        if not is_exclusive(opening_of(context, self.update_tasks)):
            return
        # Later checks of the claim find that its run has ended.
        with suppress(Exception):
            ledger, mine = SourceLedger(self.hook.organization_id), self._holder(context)
            holders = ledger.holders(self.source_id)
            if any(holder.is_claim and holder.bracket == mine for holder in holders):
                ledger.release(self.source_id, mine, holders)

    def _nothing_sent(self) -> dict[str, object]:
        return {"source_id": self.source_id, "status": None, "ordering_id": None, "request_id": None}


class JudgePushSourceUpdateOperator(_UpdateOperator):
    """
    Fail if any task of the bracket failed, so that the run fails too.

    It follows any task that reopened the bracket after its ``close`` had run, and closes the source again
    before it checks the tasks.

    :param update_tasks: The bracket's tasks.
    """

    bracket_role: ClassVar[str] = "outcome"
    works_unrendered: ClassVar[bool] = True

    def execute(self, context: Context) -> dict[str, object]:
        """Close the source if it is still open, then check the tasks."""
        tasks = [
            *(task for task in members(context["task"], self.update_tasks) if not failure_is_ignored(task)),
            *own_tasks(context["task"], self.update_tasks),
        ]
        judged = [task.task_id for task in tasks]
        found = self._states(context, judged)
        self._wait_for_unfinished(context, found)
        how_it_is_left = self._close_what_is_still_open(context, found)
        failed, blocked = _in_state(found, "failed"), _in_state(found, "upstream_failed")
        if failed or blocked:
            # Failed tasks may have been cleared while this one closed the source.
            self._wait_for_unfinished(context, self._states(context, judged))
            what = f"{listed(failed)} failed" if failed else f"{listed(blocked)} could not run"
            logs = "log of this task" if len(failed or blocked) == 1 else "logs of these tasks"
            raise PushSourceUpdateFailed(
                f"The update of source {self.source_id!r} failed: {what}. {how_it_is_left}. Remedy: See the "
                f"{logs}."
            )
        if is_dry(context, self.update_tasks):
            leave_assets_alone(context)
        elif self.outlets and how_it_is_left != _IS_CLOSED:
            # DAGs that are scheduled on them expect a source that is IDLE, as followers of `done` do.
            self.log.warning("%s, so no asset event is emitted", how_it_is_left)
            leave_assets_alone(context)
        elif self.outlets:
            self._tell_assets(context, judged)
        return {"source_id": self.source_id, "tasks": len(judged)}

    def _wait_for_unfinished(self, context: Context, found: TaskStates) -> None:
        if not is_temporary_run(str(context["ti"].run_id)):
            wait_for_unfinished(found)

    def _tell_assets(self, context: Context, judged: Iterable[str]) -> None:
        """Add the numbers of pushed items to the events of the bracket's assets."""
        from airflow_provider_coveo.hooks.run_records import tell_assets

        counts: dict[str, dict[str, int]] = {}
        try:
            for pushed in pulled(context, judged, PUSHED_XCOM_KEY):
                for name, its in (pushed if isinstance(pushed, dict) else {}).items():
                    organization_id, _, source_id = str(name).partition("/")
                    added = counts.setdefault(f"coveo://{organization_id.lower()}/{source_id}", {})
                    for kind, count in its.items():
                        added[kind] = added.get(kind, 0) + count
            tell_assets(context, counts)
        except Exception:
            self.log.warning("Could not add the numbers of pushed items to the asset events", exc_info=True)

    def _close_what_is_still_open(self, context: Context, found: TaskStates) -> str:
        """Send ``IDLE`` if the bracket is open; return how the source is left, in words."""
        record = _opened(self, context)
        if record is None:
            return "This run did not open the source"
        holder = self._holder(context)
        other = left_to(holder, record)
        if other is not None:
            return f"The source was left open for {other}"
        if record.phase is Phase.CLOSED:
            index = holder.map_index
            if record.is_concluded or found[self.update_tasks.open].get(index) == "success":
                return _IS_CLOSED
            record = self._look_once_more(holder, record)
            if record.phase is Phase.CLOSED:
                return _IS_CLOSED
        self.log.info("Source %s is still open: closing it", self.source_id)
        try:
            closing = _close(self, context, record)
        except CoveoError as error:
            if found[self.update_tasks.close].get(holder.map_index) != "failed":
                raise
            # `close` has already used its retries, so the run can fail now.
            self.log.warning("%s", error)
            return "The source could not be closed"
        return _IS_CLOSED if closing.left_for is None else f"The source is left open for {closing.left_for}"

    def _look_once_more(self, holder: Holder, record: BracketRecord) -> BracketRecord:
        """
        Check whether a request of `open` arrived after ``IDLE``.

        `open` was killed or marked in the middle of its request. Its process can survive for some seconds,
        and the result of the request is unknown.
        """
        lingers = record.closed_at + MAX_LINGERING - time.time()
        if lingers > 0:
            self.log.info("`open` was ended in the middle of its request; checking again in %.0f s", lingers)
            time.sleep(lingers)
        current = read_bracket(holder) or record
        if current.is_concluded:
            return current
        if not may_be_active(self.hook, self.source_id):
            return replace(current, phase=Phase.CLOSED)
        return replace(current, phase=Phase.UNSURE, is_concluded=True)


class PushSourceUpdateDone(BaseOperator):
    """
    The last task of a bracket, for which the bracket's followers wait.

    It runs only if a task follows: it then checks that Coveo accepted this run's ``IDLE``.

    :param update_tasks: The bracket's tasks.
    """

    bracket_role: ClassVar[str] = "done"
    shallow_copy_attrs: Sequence[str] = ("on_follower_added",)
    #: Called with each task that is wired below this one.
    on_follower_added: Callable[[Wirable], None] | None = None
    #: Whether a task follows the bracket.
    is_followed: bool = False

    def __init__(self, *, update_tasks: UpdateTasks, **kwargs: Unpack[TaskArguments]) -> None:
        super().__init__(**kwargs)
        self.update_tasks = update_tasks

    @property
    def inherits_from_empty_operator(self) -> bool:
        """Whether Airflow's scheduler completes the task by itself, without a worker."""
        return not self.is_followed

    def update_relative(
        self, other: Wirable, upstream: bool = True, edge_modifier: EdgeModifier | None = None
    ) -> None:
        """Record a task that follows the bracket."""
        super().update_relative(other, upstream, edge_modifier)
        if not upstream:
            self.is_followed = True
            if self.on_follower_added is not None:
                self.on_follower_added(other)

    def set_downstream(self, task_or_task_list: Wirables, edge_modifier: EdgeModifier | None = None) -> None:
        """Record tasks that follow the bracket."""
        super().set_downstream(task_or_task_list, edge_modifier)
        self.is_followed = True
        if self.on_follower_added is not None:
            for task in as_list(task_or_task_list):
                self.on_follower_added(task)

    def execute(self, context: Context) -> None:
        """Skip the followers unless this run opened the source and Coveo accepted its ``IDLE``."""
        holder = holder_of_update(context, self.update_tasks)
        record = record_of_run(context, self.update_tasks)
        opening = self.update_tasks.open
        above = list(members(context["task"], self.update_tasks))
        found = states(context, self.update_tasks, [opening, *(task.task_id for task in above)])
        wait_for_unfinished(found)
        self._reject_after_failure(above, found)
        # In a cleared run, the record can belong to the previous pass.
        is_skipped = found[opening].get(holder.map_index) == "skipped"
        if record is None or not record.is_pinned or record.phase is Phase.REJECTED or is_skipped:
            raise AirflowSkipException("Skipping the tasks after the bracket: this run opened nothing")
        if record.may_be_open:
            # A task of the bracket was marked by hand before it could close it.
            left_for = close_source(hook_of(record), holder, record).left_for
            record = replace(record, phase=Phase.CLOSED if left_for is None else Phase.LEFT)
        if record.phase is Phase.LEFT:
            raise AirflowSkipException(
                f"Skipping the tasks after the bracket: source {record.source_id!r} was left open for "
                "another live bracket, so this run did not set it to IDLE"
            )

    def _reject_after_failure(self, above: Iterable[Operator], found: TaskStates) -> None:
        """Fail if a task failed that is not directly upstream, such as a branch: Airflow doesn't tell."""
        judged = {task.task_id: found[task.task_id] for task in above if not failure_is_ignored(task)}
        failed = _in_state(judged, "failed") + _in_state(judged, "upstream_failed")
        if failed:
            raise PushSourceUpdateFailed(
                f"Could not start the tasks after the bracket of {self.update_tasks.open!r}: "
                f"{listed(failed)} failed or could not run. Remedy: See the logs of these tasks."
            )


def _in_state(found: TaskStates, state: str) -> list[str]:
    return [
        instance_name(task_id, map_index)
        for task_id, by_index in found.items()
        for map_index, its in by_index.items()
        if its == state
    ]


def _opened(task: _UpdateOperator, context: Context) -> BracketRecord | None:
    """Return the record of the opened source, and use that source; ``None`` if none is known to be open."""
    holder = task._holder(context)
    record, of_a_deleted_run = read_bracket_of_run(context, task.update_tasks)
    if record is None and of_a_deleted_run is None:
        record = record_before_this_version(context, task.update_tasks)
        record = record or _record_of_holder(task, holder)
    if record is None or not record.is_pinned or record.phase is Phase.REJECTED:
        return None
    task._use_source_of(record)
    return record


def _record_of_holder(task: _UpdateOperator, holder: Holder) -> BracketRecord | None:
    """Return a record from the source's own record, for an `open` that was cleared and then killed."""
    if not task.source_id:
        return None
    try:
        organization_id = task.hook.organization_id
    except (AirflowNotFoundException, CoveoConfigurationError) as error:
        task.log.info("No connection, so nothing can have been opened: %s", error)
        return None
    holders = SourceLedger(organization_id).holders(task.source_id)
    if not any(each.bracket == holder and not each.is_claim for each in holders):
        return None
    return BracketRecord(
        organization_id=organization_id,
        source_id=task.source_id,
        coveo_conn_id=task.coveo_conn_id,
        phase=Phase.UNSURE,
        why_unknown="there is no record of when the run first opened the source",
    )


def _close(task: _UpdateOperator, context: Context, record: BracketRecord) -> Closing:
    closing = close_source(task.hook, task._holder(context), record)
    if closing.left_for is not None:
        task.log.warning("Source %s is left open for %s, which closes it", task.source_id, closing.left_for)
    return closing
