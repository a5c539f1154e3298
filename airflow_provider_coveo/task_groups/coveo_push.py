"""The bracket around a content update: the source is active while it runs, and IDLE afterward."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, ParamSpec

from airflow.providers.common.compat.sdk import TaskGroup, get_current_context

from airflow_provider_coveo.bracket.deadline import add_deadline
from airflow_provider_coveo.bracket.delete_task import DeleteOldItemsOfUpdateOperator
from airflow_provider_coveo.bracket.empty_tasks import _PushSourceUpdateBegin, _PushSourceUpdateBranchEnd
from airflow_provider_coveo.bracket.end_tasks import (
    ClosePushSourceUpdateOperator,
    JudgePushSourceUpdateOperator,
    PushSourceUpdateDone,
)
from airflow_provider_coveo.bracket.members import UpdateTasks, bracket_role, mapped_group_id
from airflow_provider_coveo.bracket.open_task import OpenPushSourceUpdateOperator
from airflow_provider_coveo.bracket.parameters import (
    is_template,
    validate_deleting_status,
    validate_deletion_limit,
    validate_flag,
)
from airflow_provider_coveo.bracket.reopening import reopen_if_closed
from airflow_provider_coveo.bracket.wiring import BracketWiring, OwnTasks, reject_bracket_inside, reject_cycle
from airflow_provider_coveo.coveo.endpoints import validate_source_id
from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.flags import parse_flag
from airflow_provider_coveo.coveo.ordering_ids import validate_queue_delay
from airflow_provider_coveo.coveo.statuses import validate_active_status
from airflow_provider_coveo.operators.base import _given_connection, _validate_duration

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Asset, BaseOperator, Context, EdgeModifier, XComArg
    from typing_extensions import Unpack

    from airflow_provider_coveo.state.airflow_types import Node, Operator, Wirable, Wirables
    from airflow_provider_coveo.task_groups.arguments import NamedGroupArguments, UpdateArguments

P = ParamSpec("P")

#: The default_args that apply to the bracket's tasks: owner, notifications, execution environment,
#: connection, and the order among waiting tasks, so that with "upstream" an open bracket ends before others
#: begin. Others are meant for the DAG's own tasks, and could prevent the bracket from closing.
_ALLOWED_DEFAULT_ARGS: Final = frozenset(
    {
        "owner",
        "email",
        "email_on_failure",
        "email_on_retry",
        "on_failure_callback",
        "queue",
        "executor",
        "executor_config",
        "run_as_user",
        "weight_rule",
        "coveo_conn_id",
        "organization_id",
    }
)
#: Further default_args for the tasks that run before the source is active: retries and scheduling.
_ALLOWED_BEFORE_OPENING: Final = _ALLOWED_DEFAULT_ARGS | {
    "retries",
    "retry_delay",
    "retry_exponential_backoff",
    "max_retry_delay",
    "on_retry_callback",
    "pool",
    "pool_slots",
    "priority_weight",
}

_MAX_TRY: Final = timedelta(minutes=30)


class OverlappingRunsWarning(UserWarning):
    """Two runs of a DAG could update one source at the same time, and close it for each other."""


class PushSourceUpdate(TaskGroup):
    """
    The task group that ``push_source_update`` creates.

    Its tasks are ``begin`` (a setup without effect), ``open`` (sets the active status), the user's tasks,
    ``delete_old_items`` if requested, ``close`` (sets ``IDLE``), ``outcome`` (fails if any of them failed)
    and
    ``done`` (the task that ``update >> after`` waits for).

    :param update: The parameters of the bracket.
    :param kwargs: Arguments of Airflow's task group.
    """

    open: OpenPushSourceUpdateOperator
    close: ClosePushSourceUpdateOperator

    def __init__(self, *, update: push_source_update, **kwargs: Unpack[NamedGroupArguments]) -> None:
        super().__init__(**kwargs)
        self._update = update
        #: The edges, once the ``with`` block has ended.
        self._wiring: BracketWiring | None = None
        self._followers: list[tuple[Wirables, EdgeModifier | None]] = []
        self._is_entered = False
        self._makes_own_tasks = False

    def add(self, task: Node) -> Node:
        """Add a task; reject one that has the ID of one of the bracket's own tasks."""
        if not self._makes_own_tasks and getattr(task, "node_id", None) in self._reserved_ids():
            raise CoveoInputError(
                f"Could not add task {task.node_id!r} to the bracket {self.group_id!r}",
                cause="one of the bracket's own tasks has this name",
                remedy="Rename the task, or set a different group_id on the bracket (without changing "
                "prefix_group_id)",
            )
        return super().add(task)

    def _reserved_ids(self) -> set[str]:
        names = {*UpdateTasks.NAMES, "done", *["delete_old_items"] * self._update.delete_old_items}
        child_id: Callable[[str], str] = self.child_id
        return {child_id(name) for name in names}

    @property
    def ordering_id(self) -> XComArg:
        """The cut-off of the run's first ``open`` as an XComArg, in epoch milliseconds on Coveo's clock."""
        # Airflow's annotation does not declare that it has keys.
        output: Any = self.open.output
        ordering_id: XComArg = output["ordering_id"]
        return ordering_id

    def __enter__(self) -> PushSourceUpdate:
        super().__enter__()
        self._is_entered = True
        try:
            self._make_opening()
        except BaseException:
            # In that case Python doesn't call __exit__, and all later tasks would join this group.
            super().__exit__(None, None, None)  # type: ignore[no-untyped-call]
            raise
        return self

    def _make_opening(self) -> None:
        update = self._update
        child_id: Callable[[str], str] = self.child_id
        self._tasks = UpdateTasks(*map(child_id, UpdateTasks.NAMES))
        common: dict[str, Any] = {
            # Outside of `with DAG`, only the group knows it.
            "dag": self.dag,
            "source_id": update.source_id,
            **_given_connection(update.coveo_conn_id, update.organization_id),
            "update_tasks": self._tasks,
            # Longer than the hook's retry limit; it ends an attempt whose response never completes.
            "execution_timeout": _MAX_TRY,
        }
        self._common = common
        with self._own_tasks_only_take(_ALLOWED_BEFORE_OPENING):
            begin = _PushSourceUpdateBegin(
                task_id="begin", dag=self.dag, trigger_rule="all_success", execution_timeout=None
            )
            self._begin = begin
            self.open = OpenPushSourceUpdateOperator(
                task_id="open",
                status=update.status,
                exclusive=update.exclusive,
                exclusive_timeout=update.exclusive_timeout.total_seconds(),
                poll_interval=update.poll_interval.total_seconds(),
                deletes_old_items=update.delete_old_items,
                dry_run=update.dry_run,
                trigger_rule="all_success",
                **{**common, "execution_timeout": _MAX_TRY + update.exclusive_timeout},
            )
        begin >> self.open
        self.open.on_member_added = self._on_member_added
        self.open.on_complete = self._reject_unfinished

    @contextmanager
    def _own_tasks_only_take(self, allowed: frozenset[str]) -> Iterator[None]:
        """Apply only the allowed default_args to the tasks that are created in the block."""
        dag = self.dag
        kept = dag.default_args, self.default_args
        dag.default_args, self.default_args = (
            {name: value for name, value in (each or {}).items() if name in allowed} for each in kept
        )
        self._makes_own_tasks = True
        try:
            yield
        except Exception as error:
            if type(error).__name__ != "DuplicateTaskIdFound":
                raise
            raise CoveoInputError(
                f"Could not create the tasks of the bracket {self.group_id!r}: {error}",
                cause="a task in it has the name of one of the bracket's own: begin, open, delete_old_items, "
                "close, outcome or done",
                remedy="Rename that task, or set a different group_id on the bracket (without changing "
                "prefix_group_id)",
            ) from None
        finally:
            self._makes_own_tasks = False
            dag.default_args, self.default_args = kept

    def _on_member_added(self, task: Wirable) -> None:
        # Tasks that are wired below `open` inside the `with` block are handled once, at its end.
        if self._wiring is not None:
            self._wiring.join_below(task)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if exc_type is None:
                self._wire_tasks()
        finally:
            self._is_entered = False
            # Airflow then requests its downstream tasks, which fails if the bracket was never closed.
            self.open.is_setup = True
            super().__exit__(exc_type, exc_value, traceback)  # type: ignore[no-untyped-call]
        if exc_type is None:
            for follower, edge_modifier in self._followers:
                self.set_downstream(follower, edge_modifier)

    # --- tasks that follow the bracket, even if wired inside the `with` block ---

    def set_downstream(self, task_or_task_list: Wirables, edge_modifier: EdgeModifier | None = None) -> None:
        """Run tasks after the bracket."""
        if edge_modifier is not None and any(edge_modifier is each for each in self.open.labels):
            # After a label, Airflow passes the group instead of the task: `update.open >> Label() >> task`.
            self.open.set_downstream(task_or_task_list, edge_modifier)
        elif self._wiring is not None:
            super().set_downstream(task_or_task_list, edge_modifier)
        else:
            self._followers.append((task_or_task_list, edge_modifier))

    def set_upstream(self, task_or_task_list: Wirables, edge_modifier: EdgeModifier | None = None) -> None:
        """Run the bracket after tasks."""
        labels = self.close.labels if self._wiring is not None else []
        if edge_modifier is not None and any(edge_modifier is each for each in labels):
            self.close.set_upstream(task_or_task_list, edge_modifier)
        else:
            super().set_upstream(task_or_task_list, edge_modifier)

    def update_relative(
        self, other: Wirable, upstream: bool = True, edge_modifier: EdgeModifier | None = None
    ) -> None:
        """Record the tasks that are wired to the group."""
        if self._wiring is not None or upstream:
            super().update_relative(other, upstream, edge_modifier)
        elif not any(other is follower for follower, _ in self._followers):
            self._followers.append((other, edge_modifier))

    def get_leaves(self) -> Generator[BaseOperator, None, None]:
        """Return the last tasks of the group: none yet inside the ``with`` block."""
        if self._wiring is not None:
            yield from super().get_leaves()

    # --- the wiring ---

    def _wire_tasks(self) -> None:
        begin, opening = self._begin, self.open
        before = opening.get_flat_relative_ids(upstream=True)
        work = [task for task in self if task.task_id not in {begin.task_id, opening.task_id} | before]
        self._reject_what_can_not_work(work)
        reject_cycle(self, opening, begin, set())
        inside = {task.task_id for task in work}
        for task in work:
            if task.upstream_task_ids.isdisjoint(inside | {opening.task_id}):
                opening >> task
        own = self._make_closing()
        self.close = own.close
        wiring = BracketWiring(self, own, self._tasks, inside, self._make_branch_end)
        _wire_own_tasks(own, wiring)
        self._wiring = wiring
        wiring.take_in(work)
        self._add_deadline()
        wiring.complete_block()
        self._warn_of_overlap()

    def _make_closing(self) -> OwnTasks:
        update = self._update
        closing_common = {
            **self._common,
            "retries": update.close_retries,
            "retry_delay": update.close_retry_delay,
            "retry_exponential_backoff": True,
            "max_retry_delay": timedelta(minutes=15),
        }
        delete: DeleteOldItemsOfUpdateOperator | None = None
        with self._own_tasks_only_take(_ALLOWED_DEFAULT_ARGS):
            close = ClosePushSourceUpdateOperator(task_id="close", **closing_common)
            # It succeeds only if every task of the bracket did and IDLE was sent, or nothing was opened.
            outcome = JudgePushSourceUpdateOperator(
                task_id="outcome", outlets=update.outlets, **closing_common
            )
            # A fail-fast DAG allows no other rule; there, a skipped task also skips `done`.
            done = PushSourceUpdateDone(
                task_id="done",
                dag=self.dag,
                update_tasks=self._tasks,
                trigger_rule="all_success" if self._is_fail_fast() else "none_failed",
                retries=update.close_retries,
            )
            if update.delete_old_items:
                delete = DeleteOldItemsOfUpdateOperator(
                    task_id="delete_old_items",
                    queue_delay=update.queue_delay,
                    allow_empty=update.allow_empty,
                    max_deleted=update.max_deleted,
                    trigger_rule="all_success",
                    **self._common,
                )
        return OwnTasks(self._begin, self.open, close, outcome, done, delete)

    def _is_fail_fast(self) -> bool:
        """Return whether the DAG is fail-fast; Airflow then allows only one trigger rule."""
        return bool(getattr(self.dag, "fail_fast", False) or getattr(self.dag, "fail_stop", False))

    def _make_branch_end(self, label: str) -> BaseOperator:
        with self._own_tasks_only_take(_ALLOWED_DEFAULT_ARGS):
            return _PushSourceUpdateBranchEnd(
                task_id=label,
                dag=self.dag,
                task_group=self,
                trigger_rule="all_success" if self._is_fail_fast() else "all_done",
            )

    def _add_deadline(self) -> None:
        after = self._update.close_overdue_after
        if after is None:
            return
        is_mapped = mapped_group_id(self.open) is not None
        try:
            add_deadline(self.dag, self._tasks, after, is_mapped=is_mapped)
        except ImportError:
            raise CoveoInputError(
                f"Could not set close_overdue_after on the bracket {self.group_id!r}",
                cause="this Airflow version has no deadline alerts, which require 3.1 or later",
                remedy="Leave it out, and run the watchdog (CloseAbandonedPushSourcesOperator) instead",
            ) from None

    def _reject_what_can_not_work(self, work: list[Operator]) -> None:
        if not work:
            raise CoveoInputError(
                f"The bracket {self.group_id!r} contains no task",
                remedy="Create the tasks that push inside the `with` block",
            )
        if any(bracket_role(task) for task in work):
            reject_bracket_inside(self)
        above: TaskGroup | None = self
        while above is not None and (above := above.parent_group) is not None:
            # Airflow 3.4 has loops, whose class is not public, and a group has only a proxy of its parent.
            if above.__class__.__name__ == "LoopTaskGroup":
                raise CoveoInputError(
                    f"The bracket {self.group_id!r} is in the task loop {above.group_id!r}",
                    cause="an iteration starts before the previous one has finished its last tasks, so its "
                    "source would be closed",
                    remedy="Move the loop into the bracket",
                )

    def _reject_unfinished(self) -> None:
        """Reject a DAG that caught an error of its `with` block: nothing would close the source."""
        if self._wiring is None and not self._is_entered:
            raise CoveoInputError(
                f"The bracket {self.group_id!r} has no close task, because its `with` block raised an error",
                cause="the DAG file caught that error and continued",
                remedy="Let the error propagate, or catch it inside the block",
            )

    def _warn_of_overlap(self) -> None:
        if self.dag.max_active_runs == 1 or self._update.exclusive:
            return
        warnings.warn(
            f"Runs of DAG {self.dag.dag_id!r} can overlap (max_active_runs is {self.dag.max_active_runs}), "
            f"and close the source of bracket {self.group_id!r} for each other: a source's status is not a "
            "lock. Set max_active_runs=1 on the DAG, or exclusive=True on the bracket.",
            OverlappingRunsWarning,
            stacklevel=4,
        )


def _wire_own_tasks(own: OwnTasks, wiring: BracketWiring) -> None:
    """Wire the bracket's own tasks to each other."""
    if own.delete is not None:
        own.delete >> own.done
    own.close.as_teardown(setups=[own.begin, own.open])
    own.outcome.as_teardown(setups=own.begin, on_failure_fail_dagrun=True)
    own.close >> own.outcome
    # Not below `outcome`, whose failure would then not fail the run. `done` closes an open source itself.
    own.close >> own.done
    if own.delete is not None:
        wiring.let_reopen(own.delete)
        own.delete >> own.close
        own.delete >> own.outcome


class push_source_update:  # noqa: N801 - it reads as what it does, in a `with` and as a decorator
    """
    Bracket a content update of a Push source.

    .. code-block:: python

        with push_source_update(source_id="acme-products", status="REBUILD", delete_old_items=True) as update:
            push_catalog()

    The bracket sets the source to ``status`` before its tasks start, and to ``IDLE`` after all of them have
    ended in any way: success, failure, skip, kill, retry, clear, or a run that is marked by hand. Failures
    stay visible: the run fails. ``update >> after`` runs ``after`` once ``IDLE`` was sent and no task of the
    bracket failed. As a decorator, it applies to a function that creates the tasks; each call of the function
    is a bracket, named after the function.

    Tasks that were created elsewhere belong to the bracket if they are wired below ``update.open`` or above
    ``update.close``. As a last safeguard, a callback of the DAG sends ``IDLE`` when the run fails. See
    https://docs.coveo.com/en/35/.

    :param source_id: The ID of the Push source. (templated)
    :param status: ``REBUILD``, ``REFRESH`` or ``INCREMENTAL``, in any case. Default ``REBUILD``. (templated)
    :param coveo_conn_id: The Coveo connection. Default: the DAG's ``default_args``, or ``coveo_default``.
        (templated)
    :param organization_id: The organization, if it differs from the connection's. Default: the DAG's
        ``default_args``. (templated)
    :param delete_old_items: Whether to delete the items that the run did not push again, after every task in
        the bracket succeeded (none was skipped). The cut-off is the time of the run's first ``open``,
        whatever is cleared later. Default ``False``.
    :param queue_delay: The minutes, 0 or more, that Coveo waits before it deletes. Default 15. (templated)
    :param allow_empty: Whether to delete old items even if the provider's push tasks pushed nothing, which
        empties the source. Default ``False``.
    :param max_deleted: The maximum number of items that ``delete_old_items`` can delete: an integer, or a
        share of the source's items such as ``"20%"``. If the run pushed so few items that more would be
        deleted, nothing is deleted, and the task fails. It needs a key that can view the source; without one,
        the task logs that and deletes. Default ``None``: any number. (templated)
    :param dry_run: Whether to open, close, delete and record nothing. The tasks inside run, and need their
        own
        ``dry_run`` if they push. Tasks after the bracket are skipped. Default ``False``. (templated)
    :param exclusive: Whether to wait, without occupying a worker, while the source shows an activity that
        the bracket did not start. It needs a key that can view it, and a triggerer. Default ``False``.
    :param exclusive_timeout: The time to wait for that before the update fails. Default one hour.
    :param poll_interval: The interval between two polls of the source. Default one minute.
    :param close_retries: The number of retries of ``close``; with the delays below, they take more than two
        hours. Default 12.
    :param close_retry_delay: The first delay between two attempts; it doubles, up to 15 minutes. Default one
        minute.
    :param close_overdue_after: The time after its run was queued when a bracket becomes overdue. Its source
        is then closed once no task of the run has run for three minutes, or for an hour if one waits for its
        retry, by a deadline alert in Airflow's triggerer, even if the DAG is paused, deleted or can't be
        imported. It needs Airflow 3.1 or later and a triggerer. Default ``None``: the watchdog handles such
        brackets.
    :param outlets: The assets that the update refreshes, such as the source's own asset from
        :func:`~airflow_provider_coveo.assets.coveo_push.push_source_asset`. DAGs that are scheduled on them
        run after the update succeeded and ``IDLE`` was sent, but not after a failure, or if the whole bracket
        was skipped. Default none.
    :param group_id: The task group's ID. Default ``push_source_update``, with a numeric suffix if a DAG has
        several.
    :param kwargs: Other arguments of a ``TaskGroup``, such as ``tooltip`` or ``default_args``.
    :raises CoveoInputError: when the DAG is parsed, if the bracket is empty or contains another one, or if a
        parameter that is not a template is invalid.
    """

    def __init__(
        self,
        *,
        source_id: object,
        status: Any = "REBUILD",
        coveo_conn_id: str | None = None,
        organization_id: str | None = None,
        delete_old_items: bool = False,
        queue_delay: int | str = 15,
        allow_empty: bool = False,
        max_deleted: int | str | None = None,
        dry_run: bool | str = False,
        exclusive: bool = False,
        exclusive_timeout: timedelta = timedelta(hours=1),
        poll_interval: timedelta = timedelta(minutes=1),
        close_retries: int = 12,
        close_retry_delay: timedelta = timedelta(minutes=1),
        close_overdue_after: timedelta | None = None,
        outlets: Sequence[Asset] = (),
        group_id: str | None = None,
        **kwargs: Unpack[UpdateArguments],
    ) -> None:
        if not is_template(source_id):
            validate_source_id(source_id)
        if not is_template(status):
            validate_active_status(status)
        if not is_template(queue_delay):
            validate_queue_delay(queue_delay)
        self.source_id = source_id
        self.status = status
        self.coveo_conn_id = coveo_conn_id
        self.organization_id = organization_id
        self.delete_old_items = validate_flag("delete_old_items", delete_old_items)
        if self.delete_old_items and not is_template(status):
            validate_deleting_status(status)
        self.queue_delay = queue_delay
        self.allow_empty = validate_flag("allow_empty", allow_empty)
        validate_deletion_limit(max_deleted, source_id, deletes=self.delete_old_items)
        self.max_deleted = max_deleted
        if not is_template(dry_run):
            parse_flag("dry_run", dry_run)
        self.dry_run = dry_run
        self.exclusive = validate_flag("exclusive", exclusive)
        self.exclusive_timeout = _validate_duration("exclusive_timeout", exclusive_timeout)
        self.poll_interval = _validate_duration("poll_interval", poll_interval)
        if isinstance(close_retries, bool) or not isinstance(close_retries, int) or close_retries < 0:
            raise CoveoInputError(
                f"Invalid close_retries: {short_repr(close_retries)}", remedy="Use an integer of 0 or more"
            )
        self.close_retries = close_retries
        self.close_retry_delay = _validate_duration("close_retry_delay", close_retry_delay)
        self.close_overdue_after = (
            None
            if close_overdue_after is None
            else _validate_duration("close_overdue_after", close_overdue_after)
        )
        self.outlets = list(outlets)
        self.group_id = group_id
        self._group_kwargs = kwargs
        self._group: PushSourceUpdate | None = None

    def __enter__(self) -> PushSourceUpdate:
        self._group = self._new_group(self.group_id or "push_source_update")
        return self._group.__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._group is not None
        self._group.__exit__(exc_type, exc_value, traceback)

    def __call__(self, function: Callable[P, object]) -> Callable[P, PushSourceUpdate]:
        """Decorate a function that creates the tasks."""

        @functools.wraps(function)
        def bracket(*args: P.args, **kwargs: P.kwargs) -> PushSourceUpdate:
            with self._new_group(self.group_id or function.__name__) as group:
                function(*args, **kwargs)
            return group

        return bracket

    def _new_group(self, group_id: str) -> PushSourceUpdate:
        options = self._group_kwargs.copy()
        adds_numbers = options.pop("add_suffix_on_collision", True)
        # Airflow adds suffixes as well, but incorrectly for groups inside another group.
        numbered = (f"{group_id}__{number}" for number in range(1, 1000))
        for name in itertools.chain([group_id], numbered):
            try:
                return PushSourceUpdate(update=self, group_id=name, **options)
            except Exception as error:
                if type(error).__name__ != "DuplicateTaskIdFound" or not adds_numbers:
                    raise
        raise CoveoInputError(f"The DAG has too many groups named {group_id!r}", remedy="Set a group_id")


def ensure_source_open(context: Context | None = None) -> bool:
    """
    Open the source again if this task's bracket has been closed; the bracket's last task closes it again.

    Every task of a bracket does this before it runs. Call this function from a task that updates a bracket's
    source without belonging to the bracket, or in the middle of a long task.

    :param context: The task's context; by default, that of the running task.
    :return: Whether the source was opened again.
    :raises CoveoInputError: if the task is not downstream of a bracket.
    :raises PushSourceUpdateNotBracketed: if nothing would close the source again.
    """
    found = get_current_context() if context is None else context
    task = found["task"]
    if around := _updates_around(task):
        reopened = [reopen_if_closed(found, update_tasks) for update_tasks in around]
        return any(reopened)
    raise CoveoInputError(
        f"Task {task.task_id!r} is not downstream of a bracket, so there is no source to open",
        remedy="Create it inside push_source_update, or wire it below update.open",
    )


def _updates_around(task: Operator) -> list[UpdateTasks]:
    """Return the brackets that a task belongs to, or else the last one before it."""
    opening = [
        upstream
        for upstream in task.get_flat_relatives(upstream=True)
        if isinstance(upstream, OpenPushSourceUpdateOperator)
    ]
    below = task.get_flat_relative_ids(upstream=False)
    # Brackets before this task's own bracket are upstream of it as well.
    around = [upstream.update_tasks for upstream in opening if upstream.update_tasks.close in below]
    if around or not opening:
        return around
    last = max(opening, key=lambda upstream: len(upstream.get_flat_relative_ids(upstream=True)))
    return [last.update_tasks]
