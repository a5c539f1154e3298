"""The task that opens a bracket: it waits for the source if necessary, and sets the active status."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar, Final

from airflow_provider_coveo.bracket.callbacks import warn_if_replaced
from airflow_provider_coveo.bracket.closing import MAX_LINGERING
from airflow_provider_coveo.bracket.dry_runs import DRY_RUN_XCOM_KEY, reject_after_opening
from airflow_provider_coveo.bracket.edges import as_list, labels_among
from airflow_provider_coveo.bracket.errors import PushSourceInUse, PushSourceUpdateNotBracketed
from airflow_provider_coveo.bracket.expansion import changed_fields, expanded_fields, source_changed
from airflow_provider_coveo.bracket.members import dag_of, members_outside, operator_class
from airflow_provider_coveo.bracket.opening import (
    Opening,
    SourceBusyError,
    close_what_a_deleted_run_left,
)
from airflow_provider_coveo.bracket.parameters import validate_deleting_status
from airflow_provider_coveo.bracket.run_identity import is_of_a_deleted_run, read_record_in_run
from airflow_provider_coveo.bracket.task_base import _UpdateOperator
from airflow_provider_coveo.bracket.version_0_1 import first_record, record_of_0_1
from airflow_provider_coveo.coveo.endpoints import validate_source_id
from airflow_provider_coveo.coveo.errors import CoveoError
from airflow_provider_coveo.coveo.flags import parse_flag
from airflow_provider_coveo.coveo.statuses import validate_active_status
from airflow_provider_coveo.operators.base import _checked, _time_delta_trigger, _without_none
from airflow_provider_coveo.state.airflow_runs import is_temporary_run, task_states
from airflow_provider_coveo.state.ledger import BracketRecord, Holder, Phase, read_bracket, write_bracket
from airflow_provider_coveo.state.run_marks import OPENING_XCOM_KEY, CurrentRun, current_run
from airflow_provider_coveo.state.task_store import retry_series

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, EdgeModifier
    from typing_extensions import Unpack

    from airflow_provider_coveo.bracket.arguments import UpdateTaskArguments
    from airflow_provider_coveo.state.airflow_types import Operator, Wirable, Wirables

#: The delay after the limit when a wait without a triggerer ends.
_GRACE: Final = timedelta(minutes=1)


class OpenPushSourceUpdateOperator(_UpdateOperator):
    """
    Open a bracket: set the active status, and record the cut-off of the run's first `open`.

    :param update_tasks: The bracket's tasks.
    :param status: The status: ``REBUILD``, ``REFRESH`` or ``INCREMENTAL``. (templated)
    :param exclusive: Whether to wait while anything else uses the source.
    :param exclusive_timeout: The maximum time to wait for that, in seconds.
    :param poll_interval: Seconds between two checks.
    :param deletes_old_items: Whether the bracket deletes old items.
    :param dry_run: Whether to open nothing. (templated)
    """

    bracket_role: ClassVar[str] = "open"
    template_fields: Sequence[str] = (*_UpdateOperator.template_fields, "status", "is_dry_run")
    shallow_copy_attrs: Sequence[str] = ("on_member_added", "on_complete", "labels")
    #: Called with each task that is wired below this one.
    on_member_added: Callable[[Wirable], None] | None = None
    #: Called when Airflow checks the DAG, which is then complete.
    on_complete: Callable[[], None] | None = None

    def __init__(
        self,
        *,
        status: str,
        exclusive: bool = False,
        exclusive_timeout: float = 3600,
        poll_interval: float = 60,
        deletes_old_items: bool = False,
        dry_run: bool | str = False,
        **kwargs: Unpack[UpdateTaskArguments],
    ) -> None:
        # So that `.output["ordering_id"]` works.
        kwargs.setdefault("multiple_outputs", True)
        super().__init__(**kwargs)
        self.status = status
        self.exclusive = exclusive
        self.exclusive_timeout = exclusive_timeout
        self.poll_interval = poll_interval
        self.deletes_old_items = deletes_old_items
        # `dry_run` is a method of Airflow's operators.
        self.is_dry_run = dry_run
        #: The fields whose value depends on the map index, and not only on templates.
        self.expanded_fields = expanded_fields(self)

    @functools.cached_property
    def labels(self) -> list[EdgeModifier]:
        """The labels of edges that begin here."""
        return []

    def update_relative(
        self, other: Wirable, upstream: bool = True, edge_modifier: EdgeModifier | None = None
    ) -> None:
        """Add a task that is wired downstream of ``open`` to the bracket."""
        super().update_relative(other, upstream, edge_modifier)
        if not upstream and self.on_member_added is not None:
            self.on_member_added(other)

    def set_downstream(self, task_or_task_list: Wirables, edge_modifier: EdgeModifier | None = None) -> None:
        """Add tasks that are wired downstream of ``open`` to the bracket."""
        self.labels.extend(labels_among(task_or_task_list))
        super().set_downstream(task_or_task_list, edge_modifier)
        if self.on_member_added is not None:
            for task in as_list(task_or_task_list):
                self.on_member_added(task)

    @property
    def downstream_list(self) -> Iterable[Operator]:
        """The directly downstream tasks, which Airflow checks for every setup before the rest of the DAG."""
        if self.on_complete is not None:
            self.on_complete()
        return super().downstream_list

    def execute(self, context: Context) -> dict[str, object]:
        """Wait for the source if requested, then open the bracket."""
        if self.is_dry_run is not False and self._is_dry(context):
            self._reject_what_can_not_be_opened()
            self.log.info("Dry run, nothing was sent. Source %s would be %s", self.source_id, self.status)
            return {"source_id": self.source_id, "status": self.status, "dry_run": True}
        if is_temporary_run(str(context["ti"].run_id)):
            raise PushSourceUpdateNotBracketed(
                f"Could not open source {self.source_id!r}: this is the temporary run of `airflow tasks "
                "test`, which is deleted before anything could close the source. Remedy: Use `airflow dags "
                "test`, which runs the whole bracket."
            )
        return self._open_when_free(context, self._record_of_this_run(context))

    def _this_run(self, context: Context) -> CurrentRun | None:
        run, own = current_run(context), self._holder(context)
        return None if run is None else replace(run, opens=(own.open_task_id, own.map_index))

    def _record_of_this_run(self, context: Context) -> BracketRecord:
        """Return the bracket's record, which is new if there is none, or only one of a deleted run."""
        before = read_bracket(self._holder(context))
        is_of_another = before is None or is_of_a_deleted_run(context, before)
        if before is not None and is_of_another is False:
            return before
        record = first_record(context)
        if before is not None:
            close_what_a_deleted_run_left(self._holder(context), before, self.hook)
            if is_of_another is None and before.source_id == self.source_id:
                # An earlier cut-off keeps more items.
                record = replace(
                    record, first_cut_off_ms=before.first_cut_off_ms, why_unknown=before.why_unknown
                )
        write_bracket(self._holder(context), record)
        return record

    def _is_dry(self, context: Context) -> bool:
        """Return whether the run is dry, and save that for the bracket's other tasks."""
        dry = _checked(lambda value: parse_flag("dry_run", value), self.is_dry_run)
        if dry:
            record = read_bracket(self._holder(context))
            if record is not None and is_of_a_deleted_run(context, record) is False:
                reject_after_opening(record)
        context["ti"].xcom_push(key=DRY_RUN_XCOM_KEY, value=dry)
        return dry

    def execute_complete(
        self, context: Context, event: object = None, waiting_since: float | None = None
    ) -> dict[str, object]:
        """Check again after a wait."""
        record = read_bracket(self._holder(context)) or first_record(context)
        return self._open_when_free(context, record, waiting_since)

    def _open_when_free(
        self, context: Context, record: BracketRecord, waiting_since: float | None = None
    ) -> dict[str, object]:
        record = self._of_this_source(record)
        if record.is_pinned:
            self._keep_to_the_source_of_the_run(record)
        self._reject_what_can_not_be_opened()
        record = self._with_what_other_brackets_know(context, record)
        warn_if_replaced(context["dag"], self.update_tasks, self.source_id)
        try:
            result, opened = Opening(
                hook=self.hook,
                bracket=self._holder(context),
                record=record,
                source_id=self.source_id,
                coveo_conn_id=self.coveo_conn_id,
                status=self.status,
                exclusive=self.exclusive,
                members_outside=members_outside(context["task"], self.update_tasks),
                announce=lambda opening: self._announce(context, opening),
                this_run=self._this_run(context),
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

    def _of_this_source(self, record: BracketRecord) -> BracketRecord:
        """
        Return the bracket's record; a new one if the map index has another source than when it opened one.

        The run's own record of each source keeps its first cut-off, whichever map index opened it.
        """
        rendered: dict[str, object] = {name: getattr(self, name) for name in self.expanded_fields}
        changed = changed_fields(record, rendered)
        if not changed:
            return record
        # A request that has not ended could still arrive after the bracket's record names another source.
        may_arrive = not record.is_concluded and time.time() < record.closed_at + MAX_LINGERING
        if record.may_be_open or may_arrive:
            raise source_changed(
                "open the source of the bracket",
                record,
                rendered,
                changed,
                "Clear the run again after `close` has set the source to IDLE; sort the list, so that its "
                "order stays the same.",
            )
        self.log.info(
            "This map index opened source %s before; opening %s now", record.source_id, self.source_id
        )
        return BracketRecord(waiting=record.waiting, mark=record.mark)

    def _keep_to_the_source_of_the_run(self, record: BracketRecord) -> None:
        rendered = (self.source_id, self.organization_id or record.organization_id)
        self._use_source_of(record)
        if rendered != (record.source_id, record.organization_id):
            self.log.warning(
                "The templates now render to source %r of organization %r; using source %r of "
                "organization %r, which this run opened first. A new run uses the other one",
                *rendered,
                record.source_id,
                record.organization_id,
            )

    def _with_what_other_brackets_know(self, context: Context, record: BracketRecord) -> BracketRecord:
        """
        Return the record with the cut-off of other brackets of this run that opened the same source.

        The source's own record contains it too, unless that was deleted, or thirty other runs updated the
        source.
        """
        if record.first_cut_off_ms is not None or record.why_unknown:
            return record
        others = [
            task
            for task in dag_of(context["task"]).tasks
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
                its, _ = read_record_in_run(context, other)
                its = its or self._record_of_other(context, other)
                if its is None or (its.organization_id, its.source_id) != (
                    self.hook.organization_id,
                    self.source_id,
                ):
                    continue
                if its.first_cut_off_ms is not None:
                    known.append(its.first_cut_off_ms)
                elif its.why_unknown or (its.phase is Phase.CLOSED and state == "success"):
                    why = its.why_unknown or f"there is no record of when {task.task_id} opened the source"
                    return replace(record, why_unknown=why)
        return replace(record, first_cut_off_ms=min(known)) if known else record

    def _record_of_other(self, context: Context, other: Holder) -> BracketRecord | None:
        task_instance = context["ti"]

        def pull(key: str) -> object:
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
        _checked(validate_source_id, self.source_id)
        _checked(validate_active_status, self.status)
        if self.deletes_old_items:
            _checked(validate_deleting_status, self.status)

    def _wait_or_give_up(
        self, context: Context, record: BracketRecord, busy: SourceBusyError, waiting_since: float | None
    ) -> None:
        series, now = retry_series(context), time.time()
        if waiting_since is None:
            waited = record.waiting
            # A retry continues the wait; a clear starts a new one.
            waiting_since = waited[1] if waited is not None and waited[0] == series else now
        if (record.waiting, record.waiting_for) != ((series, waiting_since), self.source_id):
            # Another task of the bracket may have opened the source since.
            current = read_bracket(self._holder(context)) or record
            waiting = replace(current, waiting=(series, waiting_since), waiting_for=self.source_id)
            write_bracket(self._holder(context), waiting)
        left = waiting_since + self.exclusive_timeout - now
        if left <= 0:
            raise PushSourceInUse(
                f"Source {self.source_id!r} still shows an activity that this bracket did not start, after "
                f"{self.exclusive_timeout:g} s. Likely cause: {busy} is updating it, or left it open. "
                "Remedy: Wait for that, increase exclusive_timeout, or close the source if it is not in use."
            )
        self.log.info(
            "Source %s is in use by %s; checking again in %g s", self.source_id, busy, self.poll_interval
        )
        self.defer(
            trigger=_time_delta_trigger(timedelta(seconds=min(self.poll_interval, left))),
            method_name="execute_complete",
            kwargs={"waiting_since": waiting_since},
            # Without a triggerer, nothing else would end the wait.
            timeout=timedelta(seconds=max(left, self.poll_interval)) + _GRACE,
        )
