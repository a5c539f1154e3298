"""The bracket around a content update: the source is active while it runs, and IDLE after it."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final, ParamSpec

from airflow.providers.common.compat.sdk import TaskGroup, get_current_context

from airflow_provider_coveo.bracket.callbacks import attach_callbacks
from airflow_provider_coveo.bracket.deadline import add_deadline
from airflow_provider_coveo.bracket.delete_task import DeleteOldItemsOfUpdateOperator
from airflow_provider_coveo.bracket.end_tasks import (
    ClosePushSourceUpdateOperator,
    JudgePushSourceUpdateOperator,
    PushSourceUpdateDone,
)
from airflow_provider_coveo.bracket.members import (
    UpdateTasks,
    bracket_role,
    failure_is_ignored,
    listed,
    mapped_group_id,
)
from airflow_provider_coveo.bracket.open_task import OpenPushSourceUpdateOperator, validate_deleting_status
from airflow_provider_coveo.bracket.reopening import (
    IDENTITY_FIELDS,
    _Reopening,
    pre_execute_of,
    reopen_if_closed,
    set_pre_execute,
    tasks_of,
)
from airflow_provider_coveo.coveo.endpoints import validate_source_id
from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.ordering_ids import validate_queue_delay
from airflow_provider_coveo.coveo.statuses import validate_active_status
from airflow_provider_coveo.operators.base import _given_connection, _validate_duration

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Asset, Context
    from airflow.providers.standard.operators.empty import EmptyOperator
else:
    try:
        from airflow.providers.standard.operators.empty import EmptyOperator
    except ImportError:  # Airflow 2.11 without the standard provider
        from airflow.operators.empty import EmptyOperator

P = ParamSpec("P")

#: What the bracket's tasks take from default_args: who is responsible and is told, where a task can run, and
#: the connection. Anything else is meant for the DAG's work, and could keep the bracket from closing.
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
        "coveo_conn_id",
        "organization_id",
    }
)
#: What those take besides that come before the source is active: how they are retried, and when they run.
_ALLOWED_BEFORE_OPENING: Final = _ALLOWED_DEFAULT_ARGS | {
    "retries",
    "retry_delay",
    "retry_exponential_backoff",
    "max_retry_delay",
    "on_retry_callback",
    "pool",
    "pool_slots",
    "priority_weight",
    "weight_rule",
}
#: By which a task waits for the run before its own.
_WAITING_FOR_THE_PAST: Final = ("depends_on_past", "wait_for_downstream")

_MAX_TRY: Final = timedelta(minutes=30)


class OverlappingRunsWarning(UserWarning):
    """Given where two runs of a DAG could update one source at the same time and close it for each other."""


class _PushSourceUpdateBegin(EmptyOperator):
    """The first task of a bracket, which does nothing: it lets the teardowns run if ``open`` fails."""

    bracket_role: ClassVar[str] = "begin"
    custom_operator_name = "PushSourceUpdateBegin"


class PushSourceUpdate(TaskGroup):
    """
    The task group that ``push_source_update`` makes.

    Its tasks are ``begin`` (a setup without effect), ``open`` (sets the active status), the user's tasks,
    ``delete_old_items`` if it was asked for, ``close`` (sets ``IDLE``), ``outcome`` (fails if any of them
    failed) and ``done`` (what ``update >> after`` waits for).

    :param update: What was asked for.
    :param kwargs: What Airflow's task group takes.
    """

    open: OpenPushSourceUpdateOperator
    close: ClosePushSourceUpdateOperator

    def __init__(self, *, update: push_source_update, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._update = update
        self._members: set[str] = set()
        #: Those of them that were not created in the group, with the edges that they were given for it.
        self._from_outside: dict[str, set[str]] = {}
        self._own_task_ids: set[str] = set()
        self._followers: list[Any] = []
        self._is_completing = False
        self._is_wiring = False
        self._is_entered = False
        self._makes_own_tasks = False
        #: The edges to the bracket's own tasks that members were given, by member.
        self._given_edges: dict[str, set[str]] = {}

    def add(self, task: Any) -> Any:
        """Add a task; refuse one whose ID is that of one of the bracket's own."""
        if not self._makes_own_tasks and getattr(task, "node_id", None) in self._reserved_ids():
            raise CoveoInputError(
                f"The bracket {self.group_id!r} can't hold a task named {task.node_id!r}",
                cause="it is the name of one of the bracket's own tasks",
                remedy="Rename the task, or give the bracket a group_id of its own (and leave "
                "prefix_group_id as it is)",
            )
        return super().add(task)

    def _reserved_ids(self) -> set[str]:
        names = {*UpdateTasks.NAMES, "done", *["delete_old_items"] * self._update.delete_old_items}
        child_id: Callable[[str], str] = self.child_id
        return {child_id(name) for name in names}

    @property
    def ordering_id(self) -> Any:
        """The cut-off of the run's first opening, as an XComArg: epoch milliseconds by Coveo's clock."""
        output: Any = self.open.output
        return output["ordering_id"]

    def __enter__(self) -> PushSourceUpdate:
        super().__enter__()
        self._is_entered = True
        try:
            self._make_opening()
        except BaseException:
            # Python calls no __exit__ then, and all later tasks of the process would land in this group.
            super().__exit__(None, None, None)  # type: ignore[no-untyped-call]
            raise
        return self

    def _make_opening(self) -> None:
        update = self._update
        child_id: Callable[[str], str] = self.child_id
        self._tasks = UpdateTasks(*map(child_id, UpdateTasks.NAMES))
        common: dict[str, Any] = {
            "source_id": update.source_id,
            **_given_connection(update.coveo_conn_id, update.organization_id),
            "update_tasks": self._tasks,
            # Longer than the hook's retry limit; it ends an attempt whose response never comes to its end.
            "execution_timeout": _MAX_TRY,
        }
        self._common = common
        with self._own_tasks_only_take(_ALLOWED_BEFORE_OPENING):
            begin = _PushSourceUpdateBegin(
                task_id="begin", trigger_rule="all_success", execution_timeout=None
            )
            self._begin = begin
            self.open = OpenPushSourceUpdateOperator(
                task_id="open",
                status=update.status,
                exclusive=update.exclusive,
                exclusive_timeout=update.exclusive_timeout.total_seconds(),
                poll_interval=update.poll_interval.total_seconds(),
                deletes_old_items=update.delete_old_items,
                trigger_rule="all_success",
                **{**common, "execution_timeout": _MAX_TRY + update.exclusive_timeout},
            )
        begin >> self.open
        self.open.on_member_added = self._on_member_added
        self.open.on_complete = self._reject_unfinished

    @contextmanager
    def _own_tasks_only_take(self, allowed: frozenset[str]) -> Iterator[None]:
        """Let the tasks that are created now take nothing else from default_args."""
        dag: Any = self.dag
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
                f"The bracket {self.group_id!r} can't create its tasks: {error}",
                cause="a task in it has the name of one of the bracket's own: begin, open, delete_old_items, "
                "close, outcome or done",
                remedy="Rename that task, or give the bracket a group_id of its own (and leave "
                "prefix_group_id as it is)",
            ) from None
        finally:
            self._makes_own_tasks = False
            dag.default_args, self.default_args = kept

    def _on_member_added(self, task: Any) -> None:
        # Inside the `with`, what is wired below `open` is looked at once, at its end.
        if self._own_task_ids:
            self._join(task)
            self._complete()

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
            # Airflow then asks for what is below it, and hears if it was never given a closing.
            self.open.is_setup = True
            super().__exit__(exc_type, exc_value, traceback)  # type: ignore[no-untyped-call]
        if exc_type is None:
            for follower, edge_modifier in self._followers:
                self.set_downstream(follower, edge_modifier)

    # --- what follows, said inside the `with` already ---

    def set_downstream(self, task_or_task_list: Any, edge_modifier: Any = None) -> None:
        """Have tasks follow the bracket."""
        if edge_modifier is not None and any(edge_modifier is each for each in self.open.labels):
            # Behind a label Airflow takes the group for the task; `update.open >> Label() >> task` is meant.
            self.open.set_downstream(task_or_task_list, edge_modifier)
        elif self._own_task_ids:
            super().set_downstream(task_or_task_list, edge_modifier)
        else:
            self._followers.append((task_or_task_list, edge_modifier))

    def set_upstream(self, task_or_task_list: Any, edge_modifier: Any = None) -> None:
        """Have the bracket follow tasks."""
        labels = self.close.labels if self._own_task_ids else []
        if edge_modifier is not None and any(edge_modifier is each for each in labels):
            self.close.set_upstream(task_or_task_list, edge_modifier)
        else:
            super().set_upstream(task_or_task_list, edge_modifier)

    def update_relative(self, other: Any, upstream: bool = True, edge_modifier: Any = None) -> None:
        """Note what is wired to the group."""
        if self._own_task_ids or upstream:
            super().update_relative(other, upstream, edge_modifier)
        elif not any(other is follower for follower, _ in self._followers):
            self._followers.append((other, edge_modifier))

    def get_leaves(self) -> Generator[Any, None, None]:
        """Return what ends the group: nothing yet inside the ``with``."""
        if self._own_task_ids:
            yield from super().get_leaves()

    # --- the wiring ---

    def _wire_tasks(self) -> None:
        update, dag = self._update, self.dag
        begin, opening = self._begin, self.open
        before = opening.get_flat_relative_ids(upstream=True)
        work = [task for task in self if task.task_id not in {begin.task_id, opening.task_id} | before]
        self._reject_what_can_not_work(work)
        self._reject_what_stands_before_as_well()
        inside = {task.task_id for task in work}
        self._inside = inside
        roots = [task for task in work if task.upstream_task_ids.isdisjoint(inside | {opening.task_id})]
        for task in roots:
            opening >> task
        closing_common = {
            **self._common,
            "retries": update.close_retries,
            "retry_delay": update.close_retry_delay,
            "retry_exponential_backoff": True,
            "max_retry_delay": timedelta(minutes=15),
        }
        fail_fast = getattr(dag, "fail_fast", False) or getattr(dag, "fail_stop", False)
        self._delete: DeleteOldItemsOfUpdateOperator | None = None
        with self._own_tasks_only_take(_ALLOWED_DEFAULT_ARGS):
            self.close = ClosePushSourceUpdateOperator(task_id="close", **closing_common)
            # It succeeds only if every task of the bracket did and IDLE was sent, or nothing was opened.
            outcome = JudgePushSourceUpdateOperator(
                task_id="outcome", outlets=update.outlets, **closing_common
            )
            # Airflow allows no other rule in a DAG that fails fast; there, a skipped task skips `done` too.
            done = PushSourceUpdateDone(
                task_id="done",
                update_tasks=self._tasks,
                trigger_rule="all_success" if fail_fast else "none_failed",
                retries=update.close_retries,
            )
            if update.delete_old_items:
                self._delete = DeleteOldItemsOfUpdateOperator(
                    task_id="delete_old_items",
                    queue_delay=update.queue_delay,
                    allow_empty=update.allow_empty,
                    trigger_rule="all_success",
                    **self._common,
                )
        self._outcome, self._done = outcome, done
        if self._delete is not None:
            self._delete >> done
        self.close.as_teardown(setups=[begin, opening])
        outcome.as_teardown(setups=begin, on_failure_fail_dagrun=True)
        self.close >> outcome
        # Not below `outcome`, whose failure would then fail no run. It closes what is open by then itself.
        self.close >> done
        if self._delete is not None:
            self._let_reopen(self._delete)
            self._delete >> self.close
            self._delete >> outcome
        self._own_task_ids = {
            task.task_id
            for task in (begin, opening, self.close, outcome, done, self._delete)
            if task is not None
        }
        for task in [*work, *self._directly_below_open()]:
            self._join(task)
        self.close.on_member_added = self._join_above
        done.on_follower_added = self._on_follower_added
        opening.on_complete = self._complete_for_good
        self._add_deadline()
        self._is_wiring = True
        self._complete()
        self._is_wiring = False
        self._warn_of_overlap()

    def _add_deadline(self) -> None:
        after = self._update.close_overdue_after
        if after is None:
            return
        is_mapped = mapped_group_id(self.open) is not None
        try:
            add_deadline(self.dag, self._tasks, after, is_mapped=is_mapped)
        except ImportError:
            raise CoveoInputError(
                f"The bracket {self.group_id!r} can't have close_overdue_after",
                cause="this Airflow has no deadline alerts; 3.1 is the first one that does",
                remedy="Leave it out, and run the watchdog (CloseAbandonedPushSourcesOperator) instead",
            ) from None

    def _directly_below_open(self) -> list[Any]:
        below = self.open.downstream_task_ids - self._own_task_ids
        return [self.dag.get_task(task_id) for task_id in sorted(below)]

    def _join(self, task: Any) -> None:
        """
        Make a task one of the bracket's: the closing, and the deletion of old items, wait for it.

        Also called for tasks from outside the group that are wired below ``open`` or above ``close``.
        """
        if not hasattr(task, "task_id"):
            for inner in tasks_of(task):
                self._join(inner)
            return
        if task.task_id in self._own_task_ids or task.task_id in self._members:
            return
        if bracket_role(task):
            self._reject_bracket_inside()
        if (group := mapped_group_id(self.open)) is not None and mapped_group_id(task) != group:
            raise CoveoInputError(
                f"Task {task.task_id!r} can't belong to the bracket {self.group_id!r}",
                cause=f"the bracket is mapped, and the task stands outside of its task group {group!r}",
                remedy="Create the task in that group, or wire it before or after it",
            )
        before = set(task.downstream_task_ids)
        self._members.add(task.task_id)
        self._let_reopen(task)
        self._wire(task)
        if task.task_id not in self._inside:
            given = (set(task.downstream_task_ids) - before) & self._own_task_ids
            self._from_outside[task.task_id] = given
            self._watch(task)

    def _wire(self, task: Any) -> None:
        if task.is_setup:
            # A setup right above a teardown would become that teardown's own.
            return
        before = set(task.downstream_task_ids)
        task >> self.close
        task >> self._outcome
        if not failure_is_ignored(task):
            task >> self._done
            if self._delete is not None:
                task >> self._delete
        given = (set(task.downstream_task_ids) - before) & self._own_task_ids
        self._given_edges.setdefault(task.task_id, set()).update(given)

    def _take_back_edges(self) -> None:
        """Take back what a member was given that has become a setup or a teardown since."""
        for task_id, given in self._given_edges.items():
            task = self.dag.get_task(task_id)
            if task.is_setup:
                wrong = set(given)
            elif failure_is_ignored(task):
                wrong = given - {self.close.task_id, self._outcome.task_id}
            else:
                continue
            for own_task_id in wrong:
                task.downstream_task_ids.discard(own_task_id)
                self.dag.get_task(own_task_id).upstream_task_ids.discard(task_id)
            given -= wrong

    def _join_above(self, task: Any) -> None:
        """Make a task that is wired above ``close`` one of the bracket's, and have it wait for ``open``."""
        tasks = [task] if hasattr(task, "task_id") else tasks_of(task)
        before = self.open.get_flat_relative_ids(upstream=True)
        for joining in tasks:
            # What the opening needs, the closing may need as well.
            if joining.task_id in before | self._own_task_ids | self._members:
                continue
            self._join(joining)
            if joining.upstream_task_ids.isdisjoint({other.task_id for other in tasks}):
                self.open >> joining
        self._complete()

    def _on_follower_added(self, task: Any) -> None:
        self._complete()

    def _watch(self, task: Any) -> None:
        """Take note when a task from outside, or one above it, is wired below another one."""
        todo = [task]
        while todo:
            watched = todo.pop()
            if isinstance(watched.upstream_task_ids, _WatchedIds):
                watched.upstream_task_ids.callbacks.add(self._complete)
            else:
                watched.upstream_task_ids = _WatchedIds(watched.upstream_task_ids, self._complete)
            known = self._own_task_ids | self._inside
            todo += [
                above
                for task_id in watched.upstream_task_ids - known
                if (above := self.dag.get_task(task_id)) is not None
                and self._complete not in getattr(above.upstream_task_ids, "callbacks", ())
            ]

    def _complete(self) -> None:
        """
        Bring the bracket up to what the graph has become: who belongs to it, and who comes after it.

        Airflow builds a DAG edge by edge, and asks for its setups once it is complete. This is called for
        both, so that it holds in every order.
        """
        if self._is_completing:
            return
        self._is_completing = True
        try:
            self._take_back_edges()
            self._let_go_of_what_comes_after()
            self._join_what_lies_between()
            self._reject_what_stands_before_as_well()
            self._check_first_tasks()
            if not self._is_wiring:
                self._wait_for_the_past()
            attach_callbacks(self.dag, self._tasks)
            self._done.is_followed = bool(self._done.downstream_task_ids)
        finally:
            self._is_completing = False

    def _complete_for_good(self) -> None:
        """Bring the bracket up to the whole graph, which Airflow is about to check."""
        if self._is_completing:
            return
        self._take_in_late_tasks()
        self._complete()
        self._reject_setups_that_nothing_waits_for()

    def _take_in_late_tasks(self) -> None:
        """Take in what was put into the group behind the `with`, by ``task_group=update``."""
        known = self._own_task_ids | self._members | self._inside
        late = {task.task_id: task for task in self if task.task_id not in known}
        closing = {self.close.task_id, self._outcome.task_id, self._done.task_id}
        before = self.open.get_flat_relative_ids(upstream=True)
        for task_id, task in late.items():
            if task_id in before or self._comes_after(task_id, closing):
                continue
            if task.upstream_task_ids.isdisjoint(self._members | late.keys()):
                self.open >> task
            self._join(task)

    def _reject_setups_that_nothing_waits_for(self) -> None:
        for task_id in sorted(self._members):
            task = self.dag.get_task(task_id)
            if task.is_setup and self.close.task_id not in task.get_flat_relative_ids(upstream=False):
                raise CoveoInputError(
                    f"No task of the bracket {self.group_id!r} follows the setup {task_id!r}",
                    cause="nothing waits for a setup but the tasks below it, so the source would be closed "
                    "while it works",
                    remedy="Wire a task of the bracket below it, or don't make it a setup",
                )

    def _let_go_of_what_comes_after(self) -> None:
        """Let go of a task that came in by the cut-off that it is given, and turns out to come after."""
        closing = {self.close.task_id, self._outcome.task_id, self._done.task_id}
        followers = set().union(*(self.dag.get_task(own).downstream_task_ids for own in closing))
        if not followers - self._own_task_ids:
            return
        for task_id in sorted(self._members):
            if not self._comes_after(task_id, closing):
                continue
            given = self._from_outside.get(task_id)
            task = self.dag.get_task(task_id)
            if given is None or (task.downstream_task_ids & closing) - given:
                raise CoveoInputError(
                    f"Task {task_id!r} is in the bracket {self.group_id!r}, and wired after it as well",
                    cause="it would wait for the end of the bracket, which waits for the task",
                    remedy="Create it outside of the `with` block and wire it by `update >> task`; or leave "
                    "that wiring out",
                )
            self._members.discard(task_id)
            del self._from_outside[task_id]
            set_pre_execute(task, pre_execute_of(task))
            for own_task_id in given:
                task.downstream_task_ids.discard(own_task_id)
                self.dag.get_task(own_task_id).upstream_task_ids.discard(task_id)

    def _comes_after(self, task_id: str, closing: set[str]) -> bool:
        seen: set[str] = set()
        todo = [task_id]
        while todo:
            for above in self.dag.get_task(todo.pop()).upstream_task_ids:
                if above in closing:
                    return True
                if above not in seen and above not in self._own_task_ids:
                    seen.add(above)
                    todo.append(above)
        return False

    def _join_what_lies_between(self) -> None:
        below = self.open.get_flat_relative_ids(upstream=False)
        above = self.close.get_flat_relative_ids(upstream=True)
        for task_id in sorted((below & above) - self._own_task_ids - self._members):
            self._join(self.dag.get_task(task_id))

    def _reject_what_stands_before_as_well(self) -> None:
        before = self.open.get_flat_relative_ids(upstream=True) - {self._begin.task_id}
        both = before & (self._own_task_ids | self._members)
        both |= {task.task_id for task in self if task.task_id in task.upstream_task_ids}
        if both:
            raise CoveoInputError(
                f"The bracket {self.group_id!r} would wait for itself: {listed(both)} would have to end "
                "before it begins",
                cause="a task inside or after the bracket is wired before it as well",
                remedy="Leave that wiring out",
            )

    def _check_first_tasks(self) -> None:
        for task in self._directly_below_open():
            by_default = self._is_wiring and task.trigger_rule in self._default_trigger_rules()
            if task.task_id not in self._members or task.is_teardown or by_default:
                continue
            if task.trigger_rule != "all_success":
                raise CoveoInputError(
                    f"Task {task.task_id!r} is a first task of the bracket {self.group_id!r}, and has the "
                    f"trigger rule {getattr(task.trigger_rule, 'value', task.trigger_rule)!r}",
                    cause="Airflow runs a task right below a setup by the rule 'all_success' only",
                    remedy="Leave the rule out; or put a task without one before it inside the bracket, such "
                    "as an EmptyOperator; or have what decides about it come before the bracket: "
                    "`decision >> update`",
                )

    def _default_trigger_rules(self) -> set[Any]:
        """Return the rules of default_args, whose first task may get another before the DAG is checked."""
        dag: Any = self.dag
        given = [(each or {}).get("trigger_rule") for each in (dag.default_args, self.default_args)]
        return {rule for rule in given if rule is not None}

    def _wait_for_the_past(self) -> None:
        """
        Have the bracket wait for the run before, if a task in it does.

        Else the source is opened, and is active for as long as that task waits, which may be for ever.
        """
        waiting = [
            task
            for task_id in self._members
            if any(getattr(task := self.dag.get_task(task_id), name, None) for name in _WAITING_FOR_THE_PAST)
        ]
        self._begin.depends_on_past = self._begin.wait_for_downstream = bool(waiting)
        if waiting:
            self._begin.ignore_first_depends_on_past = any(
                getattr(task, "ignore_first_depends_on_past", None) for task in waiting
            )

    def _let_reopen(self, task: Any) -> None:
        """Have a task check, before it works, whether its bracket is open."""
        if getattr(task, "inherits_from_empty_operator", False):
            return
        follows = [name for name in IDENTITY_FIELDS if _same_template(task, self.open, name)]
        set_pre_execute(task, _Reopening(self._tasks, pre_execute_of(task), follows))

    def _reject_what_can_not_work(self, work: list[Any]) -> None:
        if not work:
            raise CoveoInputError(
                f"The bracket {self.group_id!r} holds no task",
                remedy="Create the tasks that push inside the `with` block",
            )
        if any(bracket_role(task) for task in work):
            self._reject_bracket_inside()

    def _reject_unfinished(self) -> None:
        """Reject a DAG whose `with` block ended with an error that its author caught: nothing would close."""
        if not self._own_task_ids and not self._is_entered:
            raise CoveoInputError(
                f"The bracket {self.group_id!r} has no closing, because its `with` block ended with an error",
                cause="the DAG file caught that error and went on",
                remedy="Let the error through, or catch it inside the block",
            )

    def _reject_bracket_inside(self) -> None:
        raise CoveoInputError(
            f"The bracket {self.group_id!r} holds another bracket",
            cause="the inner one's closing would end the activity of the outer one",
            remedy="Put them one after the other, or side by side in a TaskGroup",
        )

    def _warn_of_overlap(self) -> None:
        if self.dag.max_active_runs == 1 or self._update.exclusive:
            return
        warnings.warn(
            f"Runs of DAG {self.dag.dag_id!r} may overlap (max_active_runs is {self.dag.max_active_runs}), "
            f"and then close the source of bracket {self.group_id!r} for each other: a source's status is "
            "not a lock. Set max_active_runs=1 on the DAG, or exclusive=True on the bracket.",
            OverlappingRunsWarning,
            stacklevel=4,
        )


class _WatchedIds(set[str]):
    """IDs of tasks that call back when one is added."""

    def __init__(self, ids: Iterable[str], callback: Callable[[], None]) -> None:
        super().__init__(ids)
        self.callbacks = {callback}

    def add(self, task_id: str) -> None:
        """Add an ID."""
        if task_id not in self:
            super().add(task_id)
            self._call()

    def update(self, *others: Iterable[str]) -> None:
        """Add several."""
        super().update(*others)
        self._call()

    def _call(self) -> None:
        for callback in tuple(self.callbacks):
            callback()

    def __reduce__(self) -> Any:
        # A copy of the DAG is complete, so it watches for nothing.
        return set, (list(self),)


def _same_template(task: Any, opening: Any, name: str) -> bool:
    """Return whether a task names something by the same template as the bracket's ``open``."""
    partial = getattr(task, "partial_kwargs", None)
    its = getattr(task, name, None) if partial is None else partial.get(name)
    given = getattr(opening, name, None)
    if its is None or given is None or not _is_template(given):
        return False
    return type(its) is type(given) and bool(its == given)


class push_source_update:  # noqa: N801 - it reads as what it does, in a `with` and as a decorator
    """
    Bracket a content update of a Push source.

    .. code-block:: python

        with push_source_update(source_id="acme-products", status="REBUILD", delete_old_items=True) as update:
            push_catalog()

    The source is set to ``status`` before the tasks inside begin, and to ``IDLE`` once all of them have
    ended, however they ended: after success, failure, skip, kill, retry, a clear, or a run that was marked by
    hand. A failure stays visible: the run fails. ``update >> after`` runs ``after`` once ``IDLE`` was sent
    and no task of the bracket failed. Used as a decorator, the function makes the tasks, and each call of it
    is a bracket, named after the function.

    Tasks that were created elsewhere belong to the bracket if they are wired below ``update.open`` or above
    ``update.close``. Should all else fail, a callback of the DAG sends ``IDLE`` when the run fails. See
    https://docs.coveo.com/en/35/.

    :param source_id: The ID of the Push source. (templated)
    :param status: ``REBUILD``, ``REFRESH`` or ``INCREMENTAL``, in any case. Default ``REBUILD``. (templated)
    :param coveo_conn_id: The Coveo connection. Default: as the DAG's ``default_args`` say, else
        ``coveo_default``. (templated)
    :param organization_id: The organization, where it is not the connection's. Default: as the DAG's
        ``default_args`` say. (templated)
    :param delete_old_items: Whether to delete, once every task inside succeeded (none skipped), the items
        that the run did not push again. The cut-off is that of the run's first opening, whatever is cleared
        later. Default ``False``.
    :param queue_delay: Minutes, 0 or more, that Coveo waits before it deletes. Default 15. (templated)
    :param allow_empty: Whether to delete old items even where the provider's push tasks pushed nothing at
        all, which empties the source. Default ``False``.
    :param exclusive: Whether to wait, without holding a worker, while the source shows an activity that this
        run did not start. It needs a key that may view the source, and a triggerer. Default ``False``.
    :param exclusive_timeout: How long to wait for that before the update fails. Default one hour.
    :param poll_interval: How long between two looks at the source. Default one minute.
    :param close_retries: How often the closing is retried; with the delays below, for more than two hours.
        Default 12.
    :param close_retry_delay: The first delay between two such tries; it doubles, up to 15 minutes. Default
        one minute.
    :param close_overdue_after: How long after its run was queued a bracket is overdue: its source is then
        closed as soon as no task of the run works any more, by a deadline alert that Airflow's triggerer
        runs, also if the DAG is paused, deleted or can't be imported. Needs Airflow 3.1 or later and a
        triggerer. Default ``None``: that is left to the watchdog.
    :param outlets: The assets that the update brings up to date, such as the source's own by
        :func:`~airflow_provider_coveo.assets.coveo_push.push_source_asset`. DAGs that are scheduled on them
        run once the update went well and ``IDLE`` was sent; after a failure, or where the whole bracket was
        skipped, they don't. Default none.
    :param group_id: The task group's ID. Default ``push_source_update``, with a number behind it where a DAG
        has several.
    :param kwargs: Anything else that a ``TaskGroup`` takes, such as ``tooltip`` or ``default_args``.
    :raises CoveoInputError: when the DAG is parsed, if the bracket is empty or holds another one, or if a
        value that is no template can't be right.
    """

    def __init__(
        self,
        *,
        source_id: Any,
        status: Any = "REBUILD",
        coveo_conn_id: str | None = None,
        organization_id: str | None = None,
        delete_old_items: bool = False,
        queue_delay: int | str = 15,
        allow_empty: bool = False,
        exclusive: bool = False,
        exclusive_timeout: timedelta = timedelta(hours=1),
        poll_interval: timedelta = timedelta(minutes=1),
        close_retries: int = 12,
        close_retry_delay: timedelta = timedelta(minutes=1),
        close_overdue_after: timedelta | None = None,
        outlets: Sequence[Asset] = (),
        group_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        if not _is_template(source_id):
            validate_source_id(source_id)
        if not _is_template(status):
            validate_active_status(status)
        if not _is_template(queue_delay):
            validate_queue_delay(queue_delay)
        self.source_id = source_id
        self.status = status
        self.coveo_conn_id = coveo_conn_id
        self.organization_id = organization_id
        self.delete_old_items = _validate_truth("delete_old_items", delete_old_items)
        if self.delete_old_items and not _is_template(status):
            validate_deleting_status(status)
        self.queue_delay = queue_delay
        self.allow_empty = _validate_truth("allow_empty", allow_empty)
        self.exclusive = _validate_truth("exclusive", exclusive)
        self.exclusive_timeout = _validate_duration("exclusive_timeout", exclusive_timeout)
        self.poll_interval = _validate_duration("poll_interval", poll_interval)
        if isinstance(close_retries, bool) or not isinstance(close_retries, int) or close_retries < 0:
            raise CoveoInputError(f"close_retries is {short_repr(close_retries)}", remedy="Give 0 or more")
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

    def __call__(self, function: Callable[P, Any]) -> Callable[P, PushSourceUpdate]:
        """Use as a decorator of a function that makes the tasks."""

        @functools.wraps(function)
        def bracket(*args: P.args, **kwargs: P.kwargs) -> PushSourceUpdate:
            with self._new_group(self.group_id or function.__name__) as group:
                function(*args, **kwargs)
            return group

        return bracket

    def _new_group(self, group_id: str) -> PushSourceUpdate:
        options = {"add_suffix_on_collision": True, **self._group_kwargs}
        adds_numbers = options.pop("add_suffix_on_collision")
        # Airflow adds numbers as well, but goes wrong with groups inside another group.
        numbered = (f"{group_id}__{number}" for number in range(1, 1000))
        for name in itertools.chain([group_id], numbered):
            try:
                return PushSourceUpdate(update=self, group_id=name, **options)
            except Exception as error:
                if type(error).__name__ != "DuplicateTaskIdFound" or not adds_numbers:
                    raise
        raise CoveoInputError(f"The DAG has too many groups named {group_id!r}", remedy="Give a group_id")


def _is_template(value: object) -> bool:
    """Say whether a value is known only when the task runs: a template, or another task's output."""
    return "{" in value if isinstance(value, str) else not isinstance(value, (int, float, bytes, type(None)))


def _validate_truth(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise CoveoInputError(
        f"{name} is {short_repr(value)}",
        cause="any text counts as true in Python, also one that renders to 'false'",
        remedy=f"Give True or False; {name} shapes the DAG, so it can't be a template",
    )


def ensure_source_open(context: Context | None = None) -> bool:
    """
    Open the source again if this task's bracket has been closed; the bracket's last task closes it once more.

    Every task of a bracket does this before it works. Call it from a task that works on a bracket's source
    without being one of its tasks, or in the middle of long work.

    :param context: The task's context; by default that of the running task.
    :return: Whether the source was opened again.
    :raises CoveoInputError: if the task stands below no bracket.
    :raises PushSourceUpdateNotBracketed: if nothing would close the source again.
    """
    found: Any = get_current_context() if context is None else context
    task = found["task"]
    update_tasks = _update_around(task)
    if update_tasks is not None:
        return reopen_if_closed(found, update_tasks)
    raise CoveoInputError(
        f"Task {task.task_id!r} stands below no bracket, so there is no source to open",
        remedy="Create it inside push_source_update, or wire it below update.open",
    )


def _update_around(task: Any) -> UpdateTasks | None:
    """Return the bracket that a task works in, or else the last one before it."""
    opening = [
        upstream
        for upstream in task.get_flat_relatives(upstream=True)
        if isinstance(upstream, OpenPushSourceUpdateOperator)
    ]
    below = task.get_flat_relative_ids(upstream=False)
    # The brackets that come before this task's own stand above it as well.
    around = [upstream for upstream in opening if upstream.update_tasks.close in below] or opening
    if not around:
        return None
    return max(around, key=lambda upstream: len(upstream.get_flat_relative_ids(upstream=True))).update_tasks
