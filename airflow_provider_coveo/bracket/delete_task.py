"""The task of a bracket that deletes the items that the update did not push again."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, ClassVar, Final

from airflow.providers.common.compat.sdk import AirflowSkipException

try:
    from airflow.sdk.exceptions import AirflowRescheduleException
except ImportError:  # before Airflow 3.2
    from airflow.exceptions import AirflowRescheduleException

from airflow_provider_coveo.bracket.deletion_limit import (
    items_of_dry_runs,
    number_of_documents,
    reject_too_many_deletions,
)
from airflow_provider_coveo.bracket.dry_runs import is_dry
from airflow_provider_coveo.bracket.errors import (
    NothingWasPushed,
    SharedByMapIndexes,
    UnknownFirstOpening,
)
from airflow_provider_coveo.bracket.expansion import indexes_of_source
from airflow_provider_coveo.bracket.members import (
    failure_is_ignored,
    is_mapped_task,
    listed,
    members,
    opening_of,
    operator_class,
)
from airflow_provider_coveo.bracket.run_identity import record_of_run
from airflow_provider_coveo.bracket.same_source import brackets_beside
from airflow_provider_coveo.bracket.task_base import _UpdateOperator
from airflow_provider_coveo.coveo.max_deleted import MaxDeleted
from airflow_provider_coveo.coveo.quantities import quantity
from airflow_provider_coveo.operators.base import _checked
from airflow_provider_coveo.operators.only_changes import reject_deletion_by_time
from airflow_provider_coveo.state.airflow_runs import FINISHED_STATES, TaskStates, task_states
from airflow_provider_coveo.state.ledger import SourceLedger, read_bracket
from airflow_provider_coveo.state.run_marks import current_run

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from typing_extensions import Unpack

    from airflow_provider_coveo.bracket.arguments import UpdateTaskArguments
    from airflow_provider_coveo.coveo.results import OldItemsResult
    from airflow_provider_coveo.state.airflow_types import Operator
    from airflow_provider_coveo.state.ledger import Holder
    from airflow_provider_coveo.state.run_records import RunRecord

#: The interval between two checks of a teardown; 3.0 treats a shorter reschedule as a killed task.
_BETWEEN_CHECKS: Final = timedelta(seconds=10)
_CHECKS: Final = 12
#: The states of a successful task; after a clear, the list over which it is mapped can be shorter.
_DONE: Final = frozenset({"success", "removed"})
#: The states of an `open` that opens no other source next.
_HAS_A_SOURCE: Final = FINISHED_STATES | {"deferred"}


class DeleteOldItemsOfUpdateOperator(_UpdateOperator):
    """
    Delete the items that the update did not push again, after every task of the bracket succeeded.

    :param update_tasks: The bracket's tasks.
    :param queue_delay: Minutes that Coveo waits before it deletes. (templated)
    :param allow_empty: Whether to delete even if there is no record that the run pushed an item.
    :param max_deleted: The maximum number of items to delete: an integer or a share. Default any. (templated)
    """

    bracket_role: ClassVar[str] = "delete_old_items"
    template_fields: Sequence[str] = (*_UpdateOperator.template_fields, "queue_delay", "max_deleted")

    def __init__(
        self,
        *,
        queue_delay: int | str = 15,
        allow_empty: bool = False,
        max_deleted: int | str | None = None,
        **kwargs: Unpack[UpdateTaskArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.max_deleted = max_deleted
        # A template that renders to None must not lift the limit.
        self._has_limit = max_deleted is not None
        self.queue_delay = queue_delay
        self.allow_empty = allow_empty

    def execute(self, context: Context) -> OldItemsResult | dict[str, object]:
        """Delete old items by the cut-off of the run's first `open`."""
        limit = _checked(MaxDeleted.parse, self.max_deleted) if self._has_limit else None
        if is_dry(context, self.update_tasks):
            return self._estimate(context, limit)
        holder = self._holder(context)
        record = record_of_run(context, self.update_tasks)
        if record is None or not record.is_pinned:
            raise UnknownFirstOpening(
                f"Old items of source {self.source_id!r} stay: there is no record that this run opened the "
                "source. Likely cause: its open task was marked by hand, or the record was deleted. Remedy: "
                "The next run deletes them; or reset the source by hand."
            )
        self._use_source_of(record)
        every = list(members(context["task"], self.update_tasks))
        in_state = self._states_after_teardowns(context, every)
        not_successful = sorted(
            task_id for task_id, by_index in in_state.items() if set(by_index.values()) - _DONE
        )
        if not_successful:
            raise AirflowSkipException(
                f"Old items of source {self.source_id!r} stay: not every task of the update succeeded "
                f"({', '.join(not_successful)})."
            )
        run = SourceLedger(record.organization_id).run(
            record.source_id, holder.dag_id, holder.run_id, current_run(context)
        )
        self._reject_a_shared_source(context, holder, run)
        beside = brackets_beside(context, self.update_tasks, self.source_id, run.brackets)
        if beside.keep:
            raise AirflowSkipException(
                f"Old items of source {self.source_id!r} stay: another bracket of this run updates it, and "
                f"has not ended yet, or not well ({listed(beside.keep)}). The last one that has "
                "delete_old_items deletes them."
            )
        if beside.work:
            self.log.info("Waiting for %s, which updates the same source", listed(beside.work))
            raise AirflowRescheduleException(datetime.now(timezone.utc) + _BETWEEN_CHECKS)
        _checked(lambda tasks: reject_deletion_by_time(self, self.source_id, tasks), run.only_changes)
        if not self.allow_empty and not run.accepted:
            self._reject_after_an_empty_update(context, every, in_state)
        why_unknown = record.why_unknown or run.why_unknown
        known = [at for at in (record.first_cut_off_ms, run.first_cut_off_ms) if at is not None]
        if why_unknown or not known:
            raise UnknownFirstOpening(
                f"Old items of source {self.source_id!r} stay: the time of the run's first push is unknown, "
                f"so a cut-off could delete what the run itself pushed. Cause: "
                f"{why_unknown or 'there is no record of a cut-off'}. Remedy: The next run deletes them; or "
                "reset the source by hand."
            )
        if limit is not None:
            reject_too_many_deletions(context, self.hook, self.source_id, limit)
        return self.hook.delete_old_items(self.source_id, min(known), queue_delay=self.queue_delay)

    def _reject_a_shared_source(self, context: Context, holder: Holder, run: RunRecord) -> None:
        """Keep the items that another map index of the bracket pushed before, or has not pushed yet."""
        others = self._other_indexes_with_source(context, holder)
        if others is None:
            others = _other_indexes_of_source(self.source_id, holder, run)
        if not others:
            return
        which = ", ".join(map(str, sorted([holder.map_index, *others])))
        raise SharedByMapIndexes(
            f"Old items of source {self.source_id!r} stay: several map indexes of the bracket update it "
            f"({which}), and each would delete what the others have not pushed yet. "
            "Remedy: Map the bracket over its sources; and map the pushes to one source inside the bracket."
        )

    def _other_indexes_with_source(self, context: Context, holder: Holder) -> list[int] | None:
        """Return the other map indexes with the same source, ``None`` if only their records can tell."""
        if holder.map_index < 0:
            return None
        states = task_states(holder.dag_id, holder.run_id, [holder.open_task_id])[holder.open_task_id]
        indexes = [index for index in states if index >= 0]
        opening = opening_of(context, self.update_tasks)
        same = indexes_of_source(context, opening, self.source_id, indexes)
        if same is None:
            return None
        return [index for index in same - {holder.map_index} if states[index] not in {"removed", "skipped"}]

    def _estimate(self, context: Context, limit: MaxDeleted | None) -> dict[str, object]:
        """Return the number of items that would be deleted, if it is known, and delete nothing."""
        pushed = items_of_dry_runs(context, self.source_id)
        total = number_of_documents(self.hook, self.source_id)
        result: dict[str, object] = {"source_id": self.source_id, "dry_run": True, "adds": pushed}
        if total is None:
            self.log.info("Dry run, nothing was sent. The run would push %s", quantity(pushed, "item"))
            return result
        deleted = max(0, total - pushed)
        self.log.info(
            "Dry run, nothing was sent. Source %s has %s, and the run would push %d: at least %d would "
            "be deleted",
            self.source_id,
            quantity(total, "item"),
            pushed,
            deleted,
        )
        if limit is not None and not limit.allows(deleted, total):
            self.log.warning("The update would fail: max_deleted allows %s", limit)
        return {**result, "number_of_documents": total, "deleted": deleted}

    def _states_after_teardowns(self, context: Context, every: Sequence[Operator]) -> TaskStates:
        """
        Return the states of all members, after the author's own teardowns among them have ended.

        They are not upstream of this task: otherwise, a failed teardown would prevent it, and fail a run that
        Airflow treats as successful.
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
        # A long wait must not occupy a worker.
        raise AirflowRescheduleException(datetime.now(timezone.utc) + _BETWEEN_CHECKS)

    def _reject_after_an_empty_update(
        self, context: Context, every: Iterable[Operator], in_state: TaskStates
    ) -> None:
        """Check the results of the push tasks, as 0.1.0 did, whose tasks may be part of the run."""
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
                f"Old items of source {self.source_id!r} stay: it is unknown whether the update pushed an "
                f"item, because {listed(silent)} saved no result (do_xcom_push=False). Remedy: Remove "
                "do_xcom_push=False, or pass allow_empty=True if an empty source is intended."
            )
        raise NothingWasPushed(
            f"Old items of source {self.source_id!r} stay: there is no record that the update pushed an "
            "item to this source, and deleting all others would empty it. Likely cause: there was nothing to "
            "push; the tasks pushed to another source; or they push by other means than this provider. "
            "Remedy: Correct the source_id of the tasks or of the bracket; push with this provider's tasks "
            "or CoveoPushHook; or pass allow_empty=True if an empty source is intended, or if other tools "
            "push."
        )


def _other_indexes_of_source(source_id: str, holder: Holder, run: RunRecord) -> list[int]:
    """Return the other map indexes that update the source, but not those that now have another one."""
    opened = {index for task_id, index in run.brackets if task_id == holder.open_task_id}
    others = sorted(opened - {holder.map_index})
    if not others:
        return []
    states = task_states(holder.dag_id, holder.run_id, [holder.open_task_id])[holder.open_task_id]
    found = []
    for index in others:
        # After a clear, the list can be shorter.
        if states.get(index, "removed") == "removed":
            continue
        record = read_bracket(replace(holder, map_index=index))
        of_record = "" if record is None else record.waiting_for or record.source_id
        if of_record not in {"", source_id}:
            continue
        if states[index] not in _HAS_A_SOURCE:
            # It was cleared, and opens what the list contains now. A long wait must not occupy a worker.
            raise AirflowRescheduleException(datetime.now(timezone.utc) + _BETWEEN_CHECKS)
        found.append(index)
    return found


def _keeps_its_result(task: Operator) -> bool:
    if is_mapped_task(task):
        return bool(task.partial_kwargs.get("do_xcom_push", True))
    return bool(task.do_xcom_push)
