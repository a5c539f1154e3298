"""The check of each task in a bracket before it runs: it ensures that the source is open."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from airflow.providers.common.compat.sdk import TaskGroup

from airflow_provider_coveo.bracket.closing import hook_of
from airflow_provider_coveo.bracket.dry_runs import enter_member, is_dry
from airflow_provider_coveo.bracket.errors import PushSourceInUse, PushSourceUpdateNotBracketed
from airflow_provider_coveo.bracket.expansion import IDENTITY_FIELDS, changed_fields, source_changed
from airflow_provider_coveo.bracket.members import (
    UpdateTasks,
    holder_of_update,
    is_exclusive,
    is_mapped_task,
    members_outside,
    opening_of,
    running_task,
    states,
)
from airflow_provider_coveo.bracket.opening import (
    OpenedByAnotherTaskError,
    Opening,
    SourceBusyError,
    close_what_a_deleted_run_left,
)
from airflow_provider_coveo.bracket.run_identity import read_bracket_of_run
from airflow_provider_coveo.bracket.version_0_1 import record_before_this_version
from airflow_provider_coveo.state.airflow_runs import (
    FINISHED_STATES,
    is_temporary_run,
    map_index_of,
    record_poke,
)
from airflow_provider_coveo.state.ledger import (
    BracketRecord,
    Holder,
    Phase,
    write_bracket,
)
from airflow_provider_coveo.state.moved_sources import OpenedSource, keep_to_sources
from airflow_provider_coveo.state.run_marks import current_run, mark_of, was_cleared

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
    from airflow_provider_coveo.state.airflow_types import Operator, Wirable

log = logging.getLogger(__name__)

#: The states in which the last task of a bracket no longer waits for its other tasks.
_NOT_WAITING_STATES: Final = FINISHED_STATES | {"running"}


@dataclass(frozen=True)
class _Check:
    """
    The check of one bracket.

    :param update_tasks: The bracket's tasks.
    :param follows: The fields with the same templates as the bracket's, which must have the same values.
    :param expanded: The fields of the bracket that come from the expansion of a mapped task group.
    """

    update_tasks: UpdateTasks
    follows: tuple[str, ...] = ()
    expanded: tuple[str, ...] = ()

    def run(self, context: Context) -> OpenedSource | None:
        """Open the bracket if it is closed, and use the source that its run opened; return that source."""
        found, of_a_deleted_run = read_bracket_of_run(context, self.update_tasks)
        if self.expanded and found is not None:
            self._reject_another_source(context, found)
        if of_a_deleted_run is not None:
            close_what_a_deleted_run_left(holder_of_update(context, self.update_tasks), of_a_deleted_run)
        record = _open_if_needed(context, self.update_tasks, found)
        if record is None or not record.is_pinned:
            return None
        self._follow(context, record)
        opening = opening_of(context, self.update_tasks)
        return OpenedSource(
            record.organization_id, record.source_id, opening.task_id, lambda: _named_now(opening, context)
        )

    def _reject_another_source(self, context: Context, record: BracketRecord) -> None:
        """Fail if the map index has another source by now: the task reads the input of that one."""
        opening, fields = opening_of(context, self.update_tasks), self.expanded
        task = running_task(context)
        rendered: dict[str, object] = {name: getattr(task, name) for name in fields if name in self.follows}
        if was_cleared(context):
            # Without a clear, the task reads the same list as `open`, which needs no further query.
            others = [name for name in fields if name not in rendered]
            rendered.update({name: _rendered(opening, name, context) for name in others})
        changed = changed_fields(record, rendered)
        if changed:
            raise source_changed(
                f"run task {task.task_id!r}",
                record,
                rendered,
                changed,
                f"Clear {self.update_tasks.open} with it; sort the list, so that its order stays the same.",
            )

    def _follow(self, context: Context, record: BracketRecord) -> None:
        """Set the task's fields to the source that the run opened, whatever the templates render to now."""
        task = running_task(context)
        for name in self.follows:
            pinned, rendered = getattr(record, name), getattr(task, name, None)
            if rendered != pinned and not (name != "source_id" and rendered is None):
                log.warning(
                    "%s now renders to %r; using %r, with which this run opened the source",
                    name,
                    rendered,
                    pinned,
                )
                setattr(task, name, pinned)
                task.__dict__.pop("hook", None)


class _Reopening:
    """
    A task's ``pre_execute`` that opens its brackets if they are closed, then calls the original one.

    :param checks: The checks of the brackets to which the task belongs.
    :param then: The ``pre_execute`` that the DAG's author set.
    """

    def __init__(self, checks: Sequence[_Check], then: Callable[[Context], None] | None) -> None:
        self.checks = tuple(checks)
        self.then = then

    def __call__(self, context: Context) -> None:
        opened: list[OpenedSource | None] = []
        if not enter_member(context, *(check.update_tasks for check in self.checks)):
            opened = [check.run(context) for check in self.checks]
        keep_to_sources(context["ti"], [each for each in opened if each is not None])
        record_poke(context)
        if self.then is not None:
            self.then(context)


def reopen_if_closed(context: Context, update_tasks: UpdateTasks) -> bool:
    """
    Open a bracket if it is closed, or was never opened because its ``open`` was marked by hand.

    This happens after a clear without the bracket's own tasks: a member runs again, but neither ``open`` nor
    ``close`` does. The bracket's last task closes the source again. If that does not run again either, the
    DAG's callback closes it when the run ends.

    :param context: The context of the task that is about to run.
    :param update_tasks: The bracket's tasks.
    :return: Whether the source was opened.
    :raises PushSourceUpdateNotBracketed: if nothing would close the source again.
    :raises PushSourceInUse: if the bracket is exclusive and another one uses the source.
    """
    if is_dry(context, update_tasks):
        return False
    before, _ = read_bracket_of_run(context, update_tasks)
    after = _open_if_needed(context, update_tasks, before)
    return after is not None and after.opening != (before.opening if before is not None else "")


def _open_if_needed(
    context: Context, update_tasks: UpdateTasks, found: BracketRecord | None
) -> BracketRecord | None:
    holder = holder_of_update(context, update_tasks)
    record = found or record_before_this_version(context, update_tasks)
    if record is None or not record.is_pinned or record.phase is Phase.REJECTED:
        record = record or BracketRecord(mark=mark_of(context))
        return _open_instead(context, update_tasks, holder, record)
    if record.phase in {Phase.OPENING, Phase.OPEN, Phase.UNSURE}:
        return _work_in_open_bracket(context, holder, record)
    return _reopen(context, update_tasks, holder, record)


def _work_in_open_bracket(context: Context, holder: Holder, record: BracketRecord) -> BracketRecord:
    if record.first_cut_off_ms is None and not record.why_unknown:
        # `open` was marked by hand before it had ended.
        record = _without_cut_off(holder, record, "a task ran before the bracket's open had ended")
    if record.reopened_by is not None and record.reopened_by != _name_of(context):
        # The task that reopened it may have been killed before its request; repeating that is harmless.
        hook_of(record).set_source_status(record.source_id, record.status)
    return record


def _open_instead(
    context: Context, update_tasks: UpdateTasks, holder: Holder, record: BracketRecord
) -> BracketRecord | None:
    """Open a bracket if its ``open`` was marked as success without opening the source."""
    if is_temporary_run(holder.run_id):
        return None
    if not record.why_unknown:
        record = _without_cut_off(
            holder, record, "a task ran although the bracket's open had not opened the source"
        )
    opening = opening_of(context, update_tasks)
    state = states(context, update_tasks, [update_tasks.open])[update_tasks.open].get(holder.map_index)
    if state != "success":
        return None
    log.warning("Task %s opened nothing and was marked as success: opening the source now", update_tasks.open)
    if not record.is_pinned:
        identity = _identity(opening, context)
        hook = hook_of(identity)
        record = replace(record, status=str(_rendered(opening, "status", context)))
        source_id, coveo_conn_id = identity.source_id, identity.coveo_conn_id
    else:
        hook, source_id, coveo_conn_id = hook_of(record), record.source_id, record.coveo_conn_id
    return _send(context, update_tasks, holder, record, hook, source_id, coveo_conn_id)


def _reopen(
    context: Context, update_tasks: UpdateTasks, holder: Holder, record: BracketRecord
) -> BracketRecord:
    task_instance = context["ti"]
    is_waited_for = update_tasks.outcome in context["task"].get_flat_relative_ids(upstream=False)
    if not is_waited_for or is_temporary_run(holder.run_id):
        raise PushSourceUpdateNotBracketed(
            f"Task {task_instance.task_id!r} would update source {record.source_id!r} while it is IDLE, and "
            "no task would close the source again. Likely cause: the task does not belong to the bracket, or "
            "runs in `airflow tasks test`. Remedy: Wire it upstream of update.close, or clear it in the run."
        )
    opened = _send(
        context, update_tasks, holder, record, hook_of(record), record.source_id, record.coveo_conn_id
    )
    log.info("The bracket had been closed; source %s is open again", record.source_id)
    outcome = states(context, update_tasks, [update_tasks.outcome])[update_tasks.outcome]
    if outcome.get(holder.map_index) in _NOT_WAITING_STATES:
        log.info(
            "Task %s has run already and was not cleared: the DAG's callback closes the source when the run "
            "ends, and a failure of this task does not fail the run",
            update_tasks.outcome,
        )
    return opened


def _send(
    context: Context,
    update_tasks: UpdateTasks,
    holder: Holder,
    record: BracketRecord,
    hook: CoveoPushHook,
    source_id: str,
    coveo_conn_id: str,
) -> BracketRecord:
    opening = opening_of(context, update_tasks)
    try:
        return Opening(
            hook=hook,
            bracket=holder,
            record=record,
            source_id=source_id,
            coveo_conn_id=coveo_conn_id,
            status=record.status,
            exclusive=is_exclusive(opening),
            reopened_by=_name_of(context),
            members_outside=members_outside(context["task"], update_tasks),
            this_run=current_run(context),
        ).run()[1]
    except OpenedByAnotherTaskError as opened:
        return _work_in_open_bracket(context, holder, opened.record)
    except SourceBusyError as busy:
        in_use = PushSourceInUse(
            f"Could not open source {source_id!r} again: it is in use by {busy}, and the bracket is "
            "exclusive. Remedy: Clear the task after that update has ended."
        )
    raise in_use


def _without_cut_off(holder: Holder, record: BracketRecord, why: str) -> BracketRecord:
    """Record that the time before the run's first push can no longer be established."""
    record = replace(record, why_unknown=why)
    write_bracket(holder, record)
    return record


def _name_of(context: Context) -> tuple[str, int]:
    return str(context["ti"].task_id), map_index_of(context)


def _named_now(opening: Operator, context: Context) -> tuple[str, str]:
    """Return the organization and the source that a bracket would open now."""
    identity = _identity(opening, context)
    return hook_of(identity).organization_id, identity.source_id


def _identity(opening: Operator, context: Context) -> BracketRecord:
    """Return a record of what a bracket's parameters name now."""
    rendered = {name: _rendered(opening, name, context) for name in IDENTITY_FIELDS}
    return BracketRecord(
        source_id=str(rendered["source_id"]),
        coveo_conn_id=str(rendered["coveo_conn_id"]),
        organization_id=str(rendered["organization_id"] or ""),
    )


def _rendered(task: Operator, name: str, context: Context) -> object:
    value = getattr(task, name)
    return task.render_template(value, context) if value is not None else None


def add_check(
    task: Operator, update_tasks: UpdateTasks, follows: Sequence[str], expanded: tuple[str, ...] = ()
) -> None:
    """
    Make a task check, before it runs, that a bracket is open, besides the other brackets that it belongs to.

    :param task: The task, mapped or not.
    :param update_tasks: The bracket's tasks.
    :param follows: The fields with the same templates as the bracket's.
    :param expanded: The fields of the bracket that come from the expansion of a mapped task group.
    """
    checks, then = _checks_of(task)
    # A task created in one bracket and wired into it twice would otherwise check twice.
    others = [check for check in checks if check.update_tasks != update_tasks]
    _set_pre_execute(task, _Reopening([*others, _Check(update_tasks, tuple(follows), expanded)], then))


def remove_check(task: Operator, update_tasks: UpdateTasks) -> None:
    """
    Remove a bracket's check from a task, but not those of other brackets.

    :param task: The task, mapped or not.
    :param update_tasks: The bracket's tasks.
    """
    checks, then = _checks_of(task)
    others = [check for check in checks if check.update_tasks != update_tasks]
    _set_pre_execute(task, _Reopening(others, then) if others else then)


def _checks_of(task: Operator) -> tuple[Sequence[_Check], Callable[[Context], None] | None]:
    """Return the checks of a task, mapped or not, and the ``pre_execute`` that the DAG's author set."""
    found: Callable[[Context], None] | None
    found = task.partial_kwargs.get("pre_execute") if is_mapped_task(task) else task._pre_execute_hook
    return (found.checks, found.then) if isinstance(found, _Reopening) else ((), found)


def _set_pre_execute(task: Operator, hook: Callable[[Context], None] | None) -> None:
    if is_mapped_task(task):
        task.partial_kwargs["pre_execute"] = hook
    else:
        task._pre_execute_hook = hook


def tasks_of(group: Wirable) -> Sequence[Operator]:
    """
    Return the tasks of a task group, or of the result of a decorated task.

    :param group: The group.
    """
    return list(iter(group) if isinstance(group, TaskGroup) else group.roots)
