"""
The tasks of a bracket around a content update, as ``push_source_update`` puts them together.

They are not for use by themselves: each relies on the wiring that the task group gives them.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from airflow.providers.common.compat.sdk import (
    AirflowNotFoundException,
    AirflowSkipException,
    BaseOperator,
)

try:
    from airflow.sdk.exceptions import AirflowRescheduleException
except ImportError:  # before Airflow 3.2
    from airflow.exceptions import AirflowRescheduleException

from airflow_provider_coveo.bracket.closing import (
    Closing,
    close_source,
    hook_of,
    may_be_active,
    other_at_work,
)
from airflow_provider_coveo.bracket.errors import (
    NothingWasPushed,
    PushSourceInUse,
    PushSourceUpdateFailed,
    PushSourceUpdateNotBracketed,
    UnknownFirstOpening,
)
from airflow_provider_coveo.bracket.members import (
    UpdateTasks,
    failure_is_ignored,
    holder_of_update,
    listed,
    members,
    operator_class,
    own_tasks,
    states,
)
from airflow_provider_coveo.bracket.opening import Opening, SourceBusyError
from airflow_provider_coveo.bracket.waiting import wait_for_unfinished
from airflow_provider_coveo.coveo.errors import CoveoConfigurationError, CoveoError
from airflow_provider_coveo.operators.base import (
    _checked,
    _CoveoPushOperator,
    _time_delta_trigger,
    _without_none,
)
from airflow_provider_coveo.operators.coveo_push import SetPushSourceStatusOperator
from airflow_provider_coveo.state.airflow_runs import (
    FINISHED_STATES,
    TaskStates,
    is_temporary_run,
    task_states,
)
from airflow_provider_coveo.state.ledger import (
    BracketRecord,
    Holder,
    Phase,
    SourceLedger,
    read_bracket,
    write_bracket,
)
from airflow_provider_coveo.state.records import PUSHED_XCOM_KEY
from airflow_provider_coveo.state.task_store import RunState, retry_series, was_cleared

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

#: The XCom by which 0.1.0's opening task says what it is about to open. It is still written, so that a run
#: whose tasks run on different versions of the provider is closed by any of them.
OPENING_XCOM_KEY: Final = "coveo_opening"
#: The values that 0.1.0's opening task kept.
_FIRST_CUT_OFF_OF_0_1: Final = "first_cut_off"
_KNOWN_FROM_THE_START_OF_0_1: Final = "known_from_the_start"

#: How long the process of a task that was marked or cleared may go on: with Airflow's default heartbeats up
#: to 8 seconds, and on 2.11 up to 26 if it was marked as success.
_MAX_LINGERING: Final = 30.0
#: How far apart the clocks of a worker and a scheduler may be.
_CLOCK_SKEW: Final = 2.0
#: How much later than its limit a wait ends that no triggerer looks after.
_GRACE: Final = timedelta(minutes=1)
#: How long to wait for a teardown before checking again; 3.0 takes less for a task that was killed.
_BETWEEN_CHECKS: Final = timedelta(seconds=10)
_CHECKS: Final = 12


class _UpdateOperator(_CoveoPushOperator):
    """What the bracket's tasks share: they know the others."""

    #: Which of the bracket's tasks it is.
    bracket_role: ClassVar[str] = ""

    def __init__(self, *, update_tasks: UpdateTasks, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.update_tasks = update_tasks

    def _holder(self, context: Context) -> Holder:
        return holder_of_update(context, self.update_tasks)

    def _states(self, context: Context, task_ids: Iterable[str]) -> TaskStates:
        return states(context, self.update_tasks, task_ids)

    def _go_by(self, record: BracketRecord) -> None:
        """Use the source and the connection that the run's first opening pinned."""
        rendered = self.coveo_conn_id
        self.source_id, self.coveo_conn_id = record.source_id, record.coveo_conn_id
        self.organization_id = record.organization_id
        # The one that is there already was made by what the templates say.
        self.__dict__.pop("hook", None)
        if rendered == record.coveo_conn_id:
            return
        try:
            self.hook.settings  # noqa: B018 - it reads the connection
        except AirflowNotFoundException:
            self.log.warning(
                "Connection %r, which opened source %s, does not exist any more; using %r",
                record.coveo_conn_id,
                record.source_id,
                rendered,
            )
            self.coveo_conn_id = rendered
            self.__dict__.pop("hook", None)


class OpenPushSourceUpdateOperator(_UpdateOperator, SetPushSourceStatusOperator):
    """
    Open a bracket: set the active status, and record the cut-off of the run's first opening.

    :param update_tasks: The bracket's tasks.
    :param exclusive: Whether to wait while anybody else uses the source.
    :param exclusive_timeout: Seconds to wait for that at most.
    :param poll_interval: Seconds between two checks.
    :param deletes_old_items: Whether the bracket deletes old items.
    """

    bracket_role: ClassVar[str] = "open"
    shallow_copy_attrs: Sequence[str] = ("joined", "complete", "labels")
    #: Called with each task that is wired below this one.
    joined: Callable[[Any], None] | None = None
    #: Called when Airflow checks the DAG, which is then complete.
    complete: Callable[[], None] | None = None

    def __init__(
        self,
        *,
        exclusive: bool = False,
        exclusive_timeout: float = 3600,
        poll_interval: float = 60,
        deletes_old_items: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.exclusive = exclusive
        self.exclusive_timeout = exclusive_timeout
        self.poll_interval = poll_interval
        self.deletes_old_items = deletes_old_items

    @functools.cached_property
    def labels(self) -> list[Any]:
        """The labels of edges that begin here."""
        return []

    def update_relative(self, other: Any, upstream: bool = True, edge_modifier: Any = None) -> None:
        """Take a task that is wired below the opening into the bracket."""
        super().update_relative(other, upstream, edge_modifier)
        if not upstream and self.joined is not None:
            self.joined(other)

    def set_downstream(self, task_or_task_list: Any, edge_modifier: Any = None) -> None:
        """Take tasks that are wired below the opening into the bracket."""
        self.labels.extend(labels_among(task_or_task_list))
        super().set_downstream(task_or_task_list, edge_modifier)
        if self.joined is not None:
            for task in as_list(task_or_task_list):
                self.joined(task)

    @property
    def downstream_list(self) -> Iterable[Any]:
        """The tasks directly below: what Airflow checks of every setup, before anything else of the DAG."""
        if self.complete is not None:
            self.complete()
        return super().downstream_list

    def execute(self, context: Context) -> dict[str, Any]:
        """Wait for the source if that is asked for, then open the bracket."""
        if is_temporary_run(str(context["ti"].run_id)):
            raise PushSourceUpdateNotBracketed(
                f"Source {self.source_id!r} is not opened: this is the temporary run of `airflow tasks "
                "test`, which is deleted before anything could close the source. Remedy: Use `airflow dags "
                "test`, which runs the whole bracket."
            )
        record = read_bracket(self._holder(context))
        if record is None or _is_of_a_deleted_run(context, record):
            record = self._first_record(context)
            write_bracket(self._holder(context), record)
        return self._open_when_free(context, record)

    def execute_complete(
        self, context: Context, event: Any = None, waiting_since: float | None = None
    ) -> dict[str, Any]:
        """Check again after a wait."""
        record = read_bracket(self._holder(context)) or self._first_record(context)
        return self._open_when_free(context, record, waiting_since)

    def _first_record(self, context: Context) -> BracketRecord:
        """Return what is known if no record of the bracket exists."""
        if not was_cleared(context):
            return BracketRecord()
        state = RunState(context)
        first_cut_off = state.get(_FIRST_CUT_OFF_OF_0_1)
        if first_cut_off is not None:
            return BracketRecord(first_cut_off_ms=int(first_cut_off))
        if state.get(_KNOWN_FROM_THE_START_OF_0_1):
            return BracketRecord()
        return BracketRecord(
            why_unknown="the task was cleared, and no record says when the run first opened the source"
        )

    def _open_when_free(
        self, context: Context, record: BracketRecord, waiting_since: float | None = None
    ) -> dict[str, Any]:
        if record.is_pinned:
            self._keep_to_the_source_of_the_run(record)
        self._reject_what_can_not_be_opened()
        record = self._with_what_other_brackets_know(context, record)
        try:
            result, opened = Opening(
                hook=self.hook,
                bracket=self._holder(context),
                record=record,
                source_id=self.source_id,
                coveo_conn_id=self.coveo_conn_id,
                status=self.status,
                exclusive=self.exclusive,
                announce=lambda opening: self._announce(context, opening),
            ).run()
        except SourceBusyError as busy:
            self._wait_or_give_up(context, record, busy, waiting_since)
        except CoveoError:
            current = read_bracket(self._holder(context))
            if current is not None and current.phase is Phase.REJECTED:
                # Not None, which Airflow 3.0 can't store.
                context["ti"].xcom_push(key=OPENING_XCOM_KEY, value={})
            raise
        return _without_none({**result, "ordering_id": opened.first_cut_off_ms})

    def _keep_to_the_source_of_the_run(self, record: BracketRecord) -> None:
        rendered = (self.source_id, self.organization_id or record.organization_id)
        self._go_by(record)
        if rendered != (record.source_id, record.organization_id):
            self.log.warning(
                "The templates name source %r of organization %r now; this run opened source %r of "
                "organization %r first, and keeps to it. A new run goes to the other one.",
                *rendered,
                record.source_id,
                record.organization_id,
            )

    def _with_what_other_brackets_know(self, context: Context, record: BracketRecord) -> BracketRecord:
        """
        Return the record with the cut-off of other brackets of this run that opened the same source.

        The source's own record has it too, unless it was deleted, or thirty other runs worked on the source.
        """
        if record.first_cut_off_ms is not None or record.why_unknown:
            return record
        others = [
            task
            for task in cast("Any", context["task"]).dag.tasks
            if operator_class(task).__dict__.get("bracket_role") == self.bracket_role
            and task.task_id != self.task_id
        ]
        if not others:
            return record
        run = self._holder(context)
        found = task_states(run.dag_id, run.run_id, [task.task_id for task in others])
        known: list[int] = []
        for task in others:
            for map_index, state in found[task.task_id].items():
                other = Holder(run.dag_id, run.run_id, task.task_id, map_index)
                its = read_bracket(other) or self._record_of_other(context, other)
                if its is None or (its.organization_id, its.source_id) != (
                    self.hook.organization_id,
                    self.source_id,
                ):
                    continue
                if its.first_cut_off_ms is not None:
                    known.append(its.first_cut_off_ms)
                elif its.why_unknown or (its.phase is Phase.CLOSED and state == "success"):
                    why = its.why_unknown or f"it is not on record when {task.task_id} opened the source"
                    return replace(record, why_unknown=why)
        return replace(record, first_cut_off_ms=min(known)) if known else record

    def _record_of_other(self, context: Context, other: Holder) -> BracketRecord | None:
        task_instance: Any = context["ti"]

        def pull(key: str) -> Any:
            return task_instance.xcom_pull(task_ids=other.open_task_id, key=key, map_indexes=other.map_index)

        opened = pull(OPENING_XCOM_KEY)
        if not isinstance(opened, dict) or not opened.get("source_id"):
            return None
        return record_of_0_1(other, opened, pull("return_value"))

    def _announce(self, context: Context, opening: BracketRecord) -> None:
        described = {
            "source_id": opening.source_id,
            "organization_id": opening.organization_id,
            "coveo_conn_id": opening.coveo_conn_id,
            "status": opening.status,
        }
        context["ti"].xcom_push(key=OPENING_XCOM_KEY, value=described)

    def _reject_what_can_not_be_opened(self) -> None:
        from airflow_provider_coveo.coveo.endpoints import validate_source_id
        from airflow_provider_coveo.coveo.statuses import validate_active_status

        _checked(validate_source_id, self.source_id)
        _checked(validate_active_status, self.status)
        if self.deletes_old_items:
            _checked(check_deletes_with, self.status)

    def _wait_or_give_up(
        self, context: Context, record: BracketRecord, busy: SourceBusyError, waiting_since: float | None
    ) -> None:
        series, now = retry_series(context), time.time()
        if waiting_since is None:
            waited = record.waiting
            # A retry goes on waiting; a clear begins anew.
            waiting_since = waited[1] if waited is not None and waited[0] == series else now
        if record.waiting != (series, waiting_since):
            write_bracket(self._holder(context), replace(record, waiting=(series, waiting_since)))
        left = waiting_since + self.exclusive_timeout - now
        if left <= 0:
            raise PushSourceInUse(
                f"Source {self.source_id!r} still shows an activity that this run did not start, after "
                f"{self.exclusive_timeout:g} s. Likely cause: {busy} is updating it, or left it open. "
                "Remedy: Wait for that, raise exclusive_timeout, or close the source if nobody updates it."
            )
        self.log.info(
            "Source %s is in use by %s; checking again in %g s", self.source_id, busy, self.poll_interval
        )
        self.defer(
            trigger=_time_delta_trigger(timedelta(seconds=min(self.poll_interval, left))),
            method_name="execute_complete",
            kwargs={"waiting_since": waiting_since},
            # Without a triggerer nothing else would end the wait.
            timeout=timedelta(seconds=max(left, self.poll_interval)) + _GRACE,
        )


class DeleteOldItemsOfUpdateOperator(_UpdateOperator):
    """
    Delete what the update did not push again, once every task of the bracket succeeded.

    :param update_tasks: The bracket's tasks.
    :param queue_delay: Minutes that Coveo waits before it deletes. (templated)
    :param allow_empty: Whether to delete even if the run is not known to have pushed an item to the source.
    """

    bracket_role: ClassVar[str] = "delete_old_items"
    template_fields: Sequence[str] = (*_CoveoPushOperator.template_fields, "queue_delay")

    def __init__(self, *, queue_delay: int | str = 15, allow_empty: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.queue_delay = queue_delay
        self.allow_empty = allow_empty

    def execute(self, context: Context) -> dict[str, Any]:
        """Delete old items by the cut-off of the run's first opening."""
        holder = self._holder(context)
        record = read_bracket(holder) or record_before_this_version(context, self.update_tasks)
        if record is None or not record.is_pinned:
            raise UnknownFirstOpening(
                f"Old items of source {self.source_id!r} stay: it is not on record that this run opened the "
                "source. Likely cause: its open task was marked by hand, or the record was deleted. Remedy: "
                "The next run deletes them; or reset the source by hand."
            )
        self._go_by(record)
        every = list(members(context["task"], self.update_tasks))
        in_state = self._states_after_teardowns(context, every)
        not_successful = sorted(
            task_id for task_id, by_index in in_state.items() if set(by_index.values()) - {"success"}
        )
        if not_successful:
            raise AirflowSkipException(
                f"Old items of source {self.source_id!r} stay: not every task of the update succeeded "
                f"({', '.join(not_successful)})."
            )
        run = SourceLedger(record.organization_id).run(record.source_id, holder.dag_id, holder.run_id)
        if not self.allow_empty and not run.accepted:
            self._reject_after_an_empty_update(context, every, in_state)
        why_unknown = record.why_unknown or run.why_unknown
        known = [at for at in (record.first_cut_off_ms, run.first_cut_off_ms) if at is not None]
        if why_unknown or not known:
            raise UnknownFirstOpening(
                f"Old items of source {self.source_id!r} stay: since when the run has been pushing is not "
                f"known, so a cut-off could delete what the run itself pushed. Cause: "
                f"{why_unknown or 'no cut-off is on record'}. Remedy: The next run deletes them; or reset "
                "the source by hand."
            )
        return self.hook.delete_old_items(self.source_id, min(known), queue_delay=self.queue_delay)

    def _states_after_teardowns(self, context: Context, every: Sequence[Any]) -> TaskStates:
        """
        Return the states of all members, once the teardowns of the DAG's author among them have ended.

        They are not wired above this task: it would not run then if one failed, and would fail a run that
        Airflow takes for a success.
        """
        teardowns = [task.task_id for task in every if failure_is_ignored(task)]
        for check in range(_CHECKS):
            if check:
                time.sleep(_BETWEEN_CHECKS.total_seconds())
            found = self._states(context, [task.task_id for task in every])
            working = [name for name in teardowns if not set(found[name].values()) <= FINISHED_STATES]
            if not working:
                return found
            self.log.info("Waiting for %s", listed(working))
        # It takes long, so this does not hold a worker.
        raise AirflowRescheduleException(datetime.now(timezone.utc) + _BETWEEN_CHECKS)

    def _reject_after_an_empty_update(
        self, context: Context, every: Iterable[Any], in_state: TaskStates
    ) -> None:
        """Go by what the push tasks returned, as 0.1.0 did and its tasks may in a run under way."""
        pushes = [task for task in every if getattr(operator_class(task), "pushes_items", False)]
        for task in pushes:
            for map_index in in_state[task.task_id]:
                result = context["ti"].xcom_pull(task_ids=task.task_id, map_indexes=map_index)
                if (
                    isinstance(result, dict)
                    and result.get("accepted_adds")
                    and result.get("source_id", self.source_id) == self.source_id
                ):
                    return
        silent = [task.task_id for task in pushes if not _keeps_its_result(task)]
        if silent:
            raise NothingWasPushed(
                f"Old items of source {self.source_id!r} stay: whether the update pushed any item is not "
                f"known, because {listed(silent)} kept no result (do_xcom_push=False). Remedy: Let these "
                "tasks keep it; or pass allow_empty=True where an empty source is right."
            )
        raise NothingWasPushed(
            f"Old items of source {self.source_id!r} stay: as far as is on record, the update pushed no item "
            "to this source, and deleting all others would empty it. Likely cause: there was nothing to "
            "push; the tasks pushed to another source; or they push by other means than this provider. "
            "Remedy: Push with this provider's tasks or CoveoPushHook; or pass allow_empty=True where an "
            "empty source is right, or where other tools push."
        )


class _ClosingOperator(_UpdateOperator):
    """What the bracket's closing tasks share: they go by what was opened, whatever templates say by now."""

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:
        """Render the templates; one that can't be rendered must not keep a source open."""
        try:
            super().render_template_fields(context, jinja_env)
        except Exception:
            self.log.warning("Template rendering failed; using the values from `open`", exc_info=True)
            self.source_id = ""

    def _opened(self, context: Context) -> BracketRecord | None:
        """Return what was opened, and go by it; ``None`` if nothing was, as far as is known."""
        holder = self._holder(context)
        record = read_bracket(holder)
        if record is None:
            record = record_before_this_version(context, self.update_tasks)
            record = record or self._record_of_holder(holder)
        if record is None or not record.is_pinned or record.phase is Phase.REJECTED:
            return None
        self._go_by(record)
        return record

    def _record_of_holder(self, holder: Holder) -> BracketRecord | None:
        """Return what the source itself says of an opening that was cleared and died before it said more."""
        if not self.source_id:
            return None
        try:
            organization_id = self.hook.organization_id
        except (AirflowNotFoundException, CoveoConfigurationError) as error:
            self.log.info("There is no connection by which anything could have been opened: %s", error)
            return None
        holders = SourceLedger(organization_id).holders(self.source_id)
        if not any(each.bracket == holder for each in holders):
            return None
        return BracketRecord(
            organization_id=organization_id,
            source_id=self.source_id,
            coveo_conn_id=self.coveo_conn_id,
            phase=Phase.UNSURE,
            why_unknown="no record says when the run first opened the source",
        )

    def _close(self, context: Context, record: BracketRecord) -> Closing:
        closing = close_source(self.hook, self._holder(context), record)
        if closing.left_for is not None:
            self.log.warning(
                "Source %s is left open for %s, which closes it", self.source_id, closing.left_for
            )
        return closing


class ClosePushSourceUpdateOperator(_ClosingOperator):
    """
    Close a bracket: set the status to ``IDLE``.

    It leaves the source alone if the bracket opened nothing, or if another bracket that is at work holds the
    source: that one closes it.

    :param update_tasks: The bracket's tasks.
    """

    bracket_role: ClassVar[str] = "close"
    shallow_copy_attrs: Sequence[str] = ("joined", "labels")

    #: Called with each task that is wired above this one.
    joined: Callable[[Any], None] | None = None

    @functools.cached_property
    def labels(self) -> list[Any]:
        """The labels of edges that end here."""
        return []

    def update_relative(self, other: Any, upstream: bool = True, edge_modifier: Any = None) -> None:
        """Take a task that is wired above the closing into the bracket."""
        super().update_relative(other, upstream, edge_modifier)
        if upstream and self.joined is not None:
            self.joined(other)

    def set_upstream(self, task_or_task_list: Any, edge_modifier: Any = None) -> None:
        """Take tasks that are wired above the closing into the bracket."""
        self.labels.extend(labels_among(task_or_task_list))
        super().set_upstream(task_or_task_list, edge_modifier)
        if self.joined is not None:
            for task in as_list(task_or_task_list):
                self.joined(task)

    def execute(self, context: Context) -> dict[str, Any]:
        """Set ``IDLE``."""
        record = self._opened(context)
        if record is None:
            self.log.info("Nothing was opened by this run, so nothing is closed.")
            self._give_up_claim(context)
            return self._nothing_sent()
        above = [task.task_id for task in members(context["task"], self.update_tasks)]
        wait_for_unfinished(self._states(context, [self.update_tasks.open, *above]))
        return self._close(context, record).result or self._nothing_sent()

    def _give_up_claim(self, context: Context) -> None:
        """Take back what an exclusive opening claimed that was killed before it opened the source."""
        if not context["task"].dag.get_task(self.update_tasks.open).exclusive:  # type: ignore[union-attr]
            return
        # Whoever meets the claim later finds that its run is over.
        with suppress(Exception):
            SourceLedger(self.hook.organization_id).release(self.source_id, self._holder(context))

    def _nothing_sent(self) -> dict[str, Any]:
        return {"source_id": self.source_id, "status": None, "ordering_id": None, "request_id": None}


class JudgePushSourceUpdateOperator(_ClosingOperator):
    """
    Fail if any task of the bracket failed, so that the run's state tells the truth.

    A task that re-opened the bracket after its ``close`` had run is followed by this one, which then closes
    the source again before it judges.

    :param update_tasks: The bracket's tasks.
    """

    bracket_role: ClassVar[str] = "outcome"

    def execute(self, context: Context) -> dict[str, Any]:
        """Close what is still open, then judge."""
        tasks = [
            *(task for task in members(context["task"], self.update_tasks) if not failure_is_ignored(task)),
            *own_tasks(context["task"], self.update_tasks),
        ]
        judged = [task.task_id for task in tasks]
        found = self._states(context, judged)
        if not is_temporary_run(str(context["ti"].run_id)):
            wait_for_unfinished(found)
        closed, left_for = self._close_what_is_still_open(context, found)
        in_state: dict[str | None, list[str]] = {}
        for task_id, by_index in found.items():
            for map_index, state in by_index.items():
                name = f"{task_id}[{map_index}]" if map_index >= 0 else task_id
                in_state.setdefault(state, []).append(name)
        failed, blocked = in_state.get("failed", []), in_state.get("upstream_failed", [])
        if failed or blocked:
            what = f"{listed(failed)} failed" if failed else f"{listed(blocked)} could not run"
            how_it_is_left = "The source is closed" if closed else "The source could not be closed"
            if left_for is not None:
                how_it_is_left = f"The source is left open for {left_for}"
            raise PushSourceUpdateFailed(
                f"The update of source {self.source_id!r} failed: {what}. {how_it_is_left}; see the logs of "
                "these tasks."
            )
        if self.outlets:
            self._tell_assets(context, judged)
        return {"source_id": self.source_id, "tasks": len(judged)}

    def _tell_assets(self, context: Context, judged: Iterable[str]) -> None:
        """Put how many items the bracket's tasks pushed into the events of the bracket's assets."""
        from airflow_provider_coveo.hooks.run_records import tell_assets

        counts: dict[str, dict[str, int]] = {}
        try:
            for pushed in self._pulled(context, list(judged)):
                for name, its in (pushed if isinstance(pushed, dict) else {}).items():
                    organization_id, _, source_id = str(name).partition("/")
                    added = counts.setdefault(f"coveo://{organization_id.lower()}/{source_id}", {})
                    for kind, count in its.items():
                        added[kind] = added.get(kind, 0) + count
            tell_assets(cast("Any", context), counts)
        except Exception:
            self.log.warning("Could not tell the assets how many items were pushed", exc_info=True)

    def _pulled(self, context: Context, task_ids: list[str]) -> list[Any]:
        """Return what the tasks kept of their pushes, of mapped ones that of each map index."""
        task_instance: Any = context["ti"]
        found: list[Any] = []
        for task_id in task_ids:
            pulled = task_instance.xcom_pull(task_ids=task_id, key=PUSHED_XCOM_KEY)
            found += [pulled] if isinstance(pulled, dict) else list(pulled or ())
        return found

    def _close_what_is_still_open(self, context: Context, found: TaskStates) -> tuple[bool, Holder | None]:
        """Send ``IDLE`` if the bracket is open; return whether it is closed, and for whom it is left."""
        record = self._opened(context)
        if record is None:
            return True, None
        holder = self._holder(context)
        if record.phase is Phase.LEFT and (other := other_at_work(holder, record)) is not None:
            return True, other
        if record.phase is Phase.CLOSED:
            index = holder.map_index
            if record.is_concluded or found[self.update_tasks.open].get(index) == "success":
                return True, None
            record = self._look_once_more(holder, record)
            if record.phase is Phase.CLOSED:
                return True, None
        self.log.info("Source %s is still open: closing it", self.source_id)
        try:
            closing = self._close(context, record)
        except CoveoError as error:
            if found[self.update_tasks.close].get(holder.map_index) != "failed":
                raise
            # `close` used up its retries already: the run may show now that it failed.
            self.log.warning("%s", error)
            return False, None
        return True, closing.left_for

    def _look_once_more(self, holder: Holder, record: BracketRecord) -> BracketRecord:
        """
        Find out whether a request of the opening arrived after ``IDLE``.

        The opening was killed or marked in the middle of its request. Its process may live on for some
        seconds, and nobody hears what becomes of the request.
        """
        lingers = record.closed_at + _MAX_LINGERING - time.time()
        if lingers > 0:
            self.log.info("The opening was ended in the middle of its request; checking in %.0f s", lingers)
            time.sleep(lingers)
        current = read_bracket(holder) or record
        if current.is_concluded:
            return current
        if not may_be_active(self.hook, self.source_id):
            return replace(current, phase=Phase.CLOSED)
        return replace(current, phase=Phase.UNSURE, is_concluded=True)


class PushSourceUpdateDone(BaseOperator):
    """
    The last task of a bracket: what follows the bracket waits for it.

    It runs only if a task follows: it then checks that Coveo accepted this run's ``IDLE``.

    :param update_tasks: The bracket's tasks.
    """

    bracket_role: ClassVar[str] = "done"
    shallow_copy_attrs: Sequence[str] = ("followed",)
    #: Called with each task that is wired below this one.
    followed: Callable[[Any], None] | None = None
    #: Whether a task follows the bracket.
    is_followed: bool = False

    def __init__(self, *, update_tasks: UpdateTasks, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.update_tasks = update_tasks

    @property
    def inherits_from_empty_operator(self) -> bool:
        """Whether Airflow's scheduler completes the task by itself, without a worker."""
        return not self.is_followed

    def update_relative(self, other: Any, upstream: bool = True, edge_modifier: Any = None) -> None:
        """Note a task that follows the bracket."""
        super().update_relative(other, upstream, edge_modifier)
        if not upstream:
            self.is_followed = True
            if self.followed is not None:
                self.followed(other)

    def set_downstream(self, task_or_task_list: Any, edge_modifier: Any = None) -> None:
        """Note tasks that follow the bracket."""
        super().set_downstream(task_or_task_list, edge_modifier)
        self.is_followed = True
        if self.followed is not None:
            for task in as_list(task_or_task_list):
                self.followed(task)

    def execute(self, context: Context) -> None:
        """Skip what follows unless this run opened the source and Coveo accepted its ``IDLE``."""
        holder = holder_of_update(context, self.update_tasks)
        record = read_bracket(holder) or record_before_this_version(context, self.update_tasks)
        opening = self.update_tasks.open
        # In a run that was cleared, the record may be that of the pass before.
        is_skipped = states(context, self.update_tasks, [opening])[opening].get(holder.map_index) == "skipped"
        if record is None or not record.is_pinned or record.phase is Phase.REJECTED or is_skipped:
            raise AirflowSkipException("What follows the bracket is skipped: this run opened nothing.")
        if record.may_be_open:
            # A task of the bracket was marked by hand before it could close it.
            left_for = close_source(hook_of(record), holder, record).left_for
            record = replace(record, phase=Phase.CLOSED if left_for is None else Phase.LEFT)
        if record.phase is Phase.LEFT:
            raise AirflowSkipException(
                f"What follows the bracket is skipped: source {record.source_id!r} was left open for another "
                "bracket that is at work, so this run did not set it to IDLE."
            )


def check_deletes_with(status: object) -> str:
    """
    Return a status with which old items may be deleted.

    :param status: The status.
    :raises CoveoInputError: if it is ``INCREMENTAL``.
    """
    from airflow_provider_coveo.coveo.errors import CoveoInputError

    if str(status).strip().upper() == "INCREMENTAL":
        raise CoveoInputError(
            "Invalid delete_old_items: True with status INCREMENTAL",
            cause="an incremental update pushes only what changed, so this would delete all that did not",
            remedy="Delete single items by their IDs, or use REBUILD and push everything",
        )
    return str(status)


def record_before_this_version(context: Context, update_tasks: UpdateTasks) -> BracketRecord | None:
    """
    Return what 0.1.0's opening said, in a run that was under way during the upgrade.

    :param context: The context of one of the bracket's tasks.
    :param update_tasks: The bracket's tasks.
    """
    task_instance: Any = context["ti"]
    holder = holder_of_update(context, update_tasks)

    def pull(key: str) -> Any:
        return task_instance.xcom_pull(task_ids=update_tasks.open, key=key, map_indexes=holder.map_index)

    opened = pull(OPENING_XCOM_KEY)
    if not isinstance(opened, dict) or not opened.get("source_id"):
        return None
    return record_of_0_1(holder, opened, pull("return_value"))


def record_of_0_1(holder: Holder, opened: dict[str, Any], result: Any) -> BracketRecord:
    """
    Return the record of a bracket that 0.1.0 opened.

    :param holder: The bracket.
    :param opened: What its ``open`` said that it opens.
    :param result: What its ``open`` returned.
    """
    organization_id, source_id = str(opened["organization_id"]), str(opened["source_id"])
    holders = SourceLedger(organization_id).holders(source_id)
    first = result.get("ordering_id") if isinstance(result, dict) else None
    return BracketRecord(
        organization_id=organization_id,
        source_id=source_id,
        coveo_conn_id=str(opened["coveo_conn_id"]),
        status=str(opened.get("status", "")),
        # 0.1.0 deleted the record with the closing.
        phase=Phase.OPEN if any(each.bracket == holder for each in holders) else Phase.CLOSED,
        first_cut_off_ms=None if first is None else int(first),
    )


def _keeps_its_result(task: Any) -> bool:
    partial = getattr(task, "partial_kwargs", None)
    return bool(task.do_xcom_push if partial is None else partial.get("do_xcom_push", True))


def _is_of_a_deleted_run(context: Context, record: BracketRecord) -> bool:
    """
    Return whether a record is that of a run that was deleted, and had the ID of the present one.

    Records are named after the run's ID, which is all that every process knows. The first attempt of a run's
    first opening can't have opened anything before its run began.

    :param context: The context of the bracket's ``open``.
    :param record: The record.
    """
    run: Any = context.get("dag_run")
    began = getattr(run, "start_date", None)
    is_first = getattr(context["ti"], "try_number", 0) == 1 and not was_cleared(context)
    if not is_first or began is None or getattr(run, "clear_number", None) != 0:
        return False
    return 0 < record.opened_at < float(began.timestamp()) - _CLOCK_SKEW


def labels_among(task_or_task_list: Any) -> list[Any]:
    """
    Return those that are labels of edges among what is wired to a task.

    :param task_or_task_list: What is wired.
    """
    return [each for each in as_list(task_or_task_list) if hasattr(each, "add_edge_info")]


def as_list(task_or_task_list: Any) -> list[Any]:
    """
    Return what the wiring methods of Airflow take as a list.

    :param task_or_task_list: A task, or several.
    """
    return list(task_or_task_list) if isinstance(task_or_task_list, (list, tuple)) else [task_or_task_list]
