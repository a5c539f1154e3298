"""
The wiring of a bracket: the tasks that belong to it, their edges, and the graphs that it rejects.

Airflow builds a DAG edge by edge, and a task can be wired into a bracket, or after it, at any time. So
:class:`BracketWiring` watches the edges, and updates the bracket whenever the graph changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from airflow_provider_coveo.bracket.branches import can_skip_followers, cut, is_waited_for
from airflow_provider_coveo.bracket.callbacks import attach_callbacks
from airflow_provider_coveo.bracket.delete_task import DeleteOldItemsOfUpdateOperator
from airflow_provider_coveo.bracket.end_tasks import (
    ClosePushSourceUpdateOperator,
    JudgePushSourceUpdateOperator,
    PushSourceUpdateDone,
)
from airflow_provider_coveo.bracket.expansion import IDENTITY_FIELDS
from airflow_provider_coveo.bracket.members import (
    UpdateTasks,
    bracket_role,
    failure_is_ignored,
    is_task,
    listed,
    mapped_group_id,
)
from airflow_provider_coveo.bracket.only_changes import reject_only_changes
from airflow_provider_coveo.bracket.open_task import OpenPushSourceUpdateOperator
from airflow_provider_coveo.bracket.parameters import is_template
from airflow_provider_coveo.bracket.reopening import (
    add_check,
    remove_check,
    tasks_of,
)
from airflow_provider_coveo.coveo.errors import CoveoInputError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskGroup

    from airflow_provider_coveo.state.airflow_types import Operator, Wirable

#: The options that make a task wait for the previous run.
_WAITING_FOR_THE_PAST: Final = ("depends_on_past", "wait_for_downstream")
#: The maximum length of a task ID that leaves room for a number after it; Airflow's is 250.
_MAX_ID_LENGTH: Final = 246


class OwnTasks(NamedTuple):
    """
    The tasks that a bracket adds to those in it.

    :param begin: The setup without effect that lets the teardowns run if ``open`` fails.
    :param open: The setup that sets the active status.
    :param close: The teardown that sets ``IDLE``.
    :param outcome: The teardown that fails the run if a task of the bracket failed.
    :param done: The task for which tasks after the bracket wait.
    :param delete: The task that deletes old items, if requested.
    """

    begin: BaseOperator
    open: OpenPushSourceUpdateOperator
    close: ClosePushSourceUpdateOperator
    outcome: JudgePushSourceUpdateOperator
    done: PushSourceUpdateDone
    delete: DeleteOldItemsOfUpdateOperator | None = None

    @property
    def ids(self) -> set[str]:
        """Their IDs."""
        return {task.task_id for task in self if task is not None}


class BracketWiring:
    """
    The edges of one bracket.

    :param group: The bracket's task group.
    :param own: The bracket's own tasks, wired to each other.
    :param update_tasks: Their IDs.
    :param inside: The tasks that were created in the group.
    :param make_branch_end: Create the task that the bracket waits for after a branch, by its ID in the group.
    """

    def __init__(
        self,
        group: TaskGroup,
        own: OwnTasks,
        update_tasks: UpdateTasks,
        inside: Iterable[str],
        make_branch_end: Callable[[str], BaseOperator],
    ) -> None:
        self._group = group
        self._name = group.group_id
        self._dag = group.dag
        self._own = own
        self._own_task_ids = own.ids
        self._update_tasks = update_tasks
        self._inside = set(inside)
        self._make_branch_end = make_branch_end
        #: The tasks between branches and the bracket's own tasks, by the branch.
        self._branch_ends: dict[str, BaseOperator] = {}
        self._members: set[str] = set()
        #: Members that were created outside of the group, with their added edges.
        self._from_outside: dict[str, set[str]] = {}
        #: The edges that were added from members to the bracket's own tasks.
        self._given_edges: dict[str, set[str]] = {}
        #: The members that depend on the previous run, and whether they ignore that in their first run.
        self._depending_on_past: dict[str, bool] = {}
        #: The members from outside that follow ``open`` because they were wired above ``close``.
        self._opened_for: set[str] = set()
        self._is_completing = False
        self._is_block_ending = False
        self._is_final = False

    def take_in(self, tasks: Iterable[Operator]) -> None:
        """
        Add tasks to the bracket at the end of its ``with`` block, and watch later wiring.

        :param tasks: The tasks that were created in the group.
        """
        for task in [*tasks, *self._directly_below_open()]:
            self._join(task)
        self._own.close.on_member_added = self._join_above
        self._own.done.on_follower_added = lambda _: self._complete()
        self._own.open.on_complete = self._complete_for_good

    def complete_block(self) -> None:
        """Update the bracket at the end of its ``with`` block; the DAG may continue."""
        self._is_block_ending = True
        self._complete()
        self._is_block_ending = False

    def join_below(self, task: Wirable) -> None:
        """
        Add a task that is wired downstream of ``open`` to the bracket.

        :param task: The task, or a group of tasks.
        """
        self._join(task)
        self._complete()

    def let_reopen(self, task: Operator) -> None:
        """
        Make a task check, before it runs, that its bracket is open.

        :param task: The task, mapped or not.
        """
        if getattr(task, "inherits_from_empty_operator", False):
            return
        follows = [name for name in IDENTITY_FIELDS if _same_template(task, self._own.open, name)]
        expanded = getattr(self._own.open, "expanded_fields", ())
        add_check(task, self._update_tasks, follows, expanded)

    def _directly_below_open(self) -> list[Operator]:
        below = self._own.open.downstream_task_ids - self._own_task_ids
        return [self._dag.get_task(task_id) for task_id in sorted(below)]

    def _join(self, task: Wirable) -> None:
        """
        Add a task to the bracket: ``close`` and ``delete_old_items`` wait for it.

        Also called for tasks from outside the group that are wired between ``open`` and ``close``.
        """
        if not is_task(task):
            for inner in tasks_of(task):
                self._join(inner)
            return
        if task.task_id in self._own_task_ids or task.task_id in self._members:
            return
        if bracket_role(task):
            reject_bracket_inside(self._group)
        if (group := mapped_group_id(self._own.open)) is not None and mapped_group_id(task) != group:
            raise CoveoInputError(
                f"Could not add task {task.task_id!r} to the bracket {self._name!r}",
                cause=f"the bracket is mapped, and the task is outside of its task group {group!r}",
                remedy="Create the task in that group, or wire it before or after it",
            )
        if self._own.delete is not None:
            reject_only_changes(task, self._own.delete)
        before = set(task.downstream_task_ids)
        self._members.add(task.task_id)
        self.let_reopen(task)
        self._wire(task)
        if task.task_id not in self._inside:
            given = (set(task.downstream_task_ids) - before) & self._own_task_ids
            self._from_outside[task.task_id] = given
            self._watch(task)

    def _wire(self, task: Operator) -> None:
        if task.is_setup:
            # A setup directly upstream of a teardown would become that teardown's setup.
            return
        before = set(task.downstream_task_ids)
        task >> self._own.close
        task >> self._own.outcome
        if not failure_is_ignored(task):
            task >> self._own.done
            if self._own.delete is not None:
                task >> self._own.delete
        given = (set(task.downstream_task_ids) - before) & self._own_task_ids
        self._given_edges.setdefault(task.task_id, set()).update(given)

    def _join_above(self, task: Wirable) -> None:
        """Add a task that is wired upstream of ``close`` to the bracket, and make it wait for ``open``."""
        tasks = [task] if is_task(task) else tasks_of(task)
        before = self._own.open.get_flat_relative_ids(upstream=True)
        for joining in tasks:
            # A task that `open` depends on may be upstream of `close` as well.
            if joining.task_id in before | self._own_task_ids | self._members:
                continue
            self._join(joining)
            if joining.upstream_task_ids.isdisjoint({other.task_id for other in tasks}):
                self._opened_for.add(joining.task_id)
                self._own.open >> joining
        self._complete()

    def _watch(self, task: Operator) -> None:
        """Watch the upstream edges of a task from outside, and of the tasks before it."""
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
                if (above := self._dag.get_task(task_id)) is not None
                and self._complete not in getattr(above.upstream_task_ids, "callbacks", ())
            ]

    def _complete(self) -> None:
        """
        Update the bracket to the current graph: its members, and the tasks after it.

        Airflow builds a DAG edge by edge, and checks its setups once it is complete. This is called in both
        cases, so the order of the wiring doesn't matter.
        """
        if self._is_completing:
            return
        self._is_completing = True
        try:
            self._take_back_edges()
            self._let_go_of_what_comes_after()
            self._join_what_lies_between()
            reject_cycle(self._group, self._own.open, self._own.begin, self._own_task_ids | self._members)
            self._check_first_tasks()
            self._reject_members_that_wait_for_nothing()
            self._note_who_depends_on_past()
            if not self._is_block_ending:
                self._wait_for_the_past()
            attach_callbacks(self._dag, self._update_tasks)
            self._own.done.is_followed = bool(self._own.done.downstream_task_ids)
        finally:
            self._is_completing = False

    def _complete_for_good(self) -> None:
        """Update the bracket to the complete graph, which Airflow is about to check."""
        if self._is_completing:
            return
        self._take_in_late_tasks()
        self._is_final = True
        self._complete()
        self._is_final = False
        self._reject_setups_that_nothing_waits_for()
        self._keep_branches_from_skipping()
        self._let_only_the_bracket_wait_for_the_past()

    # --- the members of the bracket ---

    def _take_in_late_tasks(self) -> None:
        """Add the tasks that joined the group after the `with` block, by ``task_group=update``."""
        known = self._own_task_ids | self._members | self._inside
        late = {task.task_id: task for task in self._group if task.task_id not in known}
        closing = {self._own.close.task_id, self._own.outcome.task_id, self._own.done.task_id}
        before = self._own.open.get_flat_relative_ids(upstream=True)
        for task_id, task in late.items():
            if task_id in before or self._comes_after(task_id, closing):
                continue
            if task.upstream_task_ids.isdisjoint(self._members | late.keys()):
                self._own.open >> task
            self._join(task)

    def _join_what_lies_between(self) -> None:
        below = self._own.open.get_flat_relative_ids(upstream=False)
        above = self._own.close.get_flat_relative_ids(upstream=True)
        for task_id in sorted((below & above) - self._own_task_ids - self._members):
            self._join(self._dag.get_task(task_id))

    def _let_go_of_what_comes_after(self) -> None:
        """Remove a task that joined by using the cut-off, but comes after the bracket."""
        closing = {self._own.close.task_id, self._own.outcome.task_id, self._own.done.task_id}
        followers = set().union(*(self._dag.get_task(own).downstream_task_ids for own in closing))
        if not followers - self._own_task_ids:
            return
        for task_id in sorted(self._members):
            if not self._comes_after(task_id, closing):
                continue
            given = self._from_outside.get(task_id)
            task = self._dag.get_task(task_id)
            if given is None or (task.downstream_task_ids & closing) - given:
                raise CoveoInputError(
                    f"Task {task_id!r} is in the bracket {self._name!r}, and is also wired after it",
                    cause="it would wait for the end of the bracket, which waits for the task",
                    remedy="Create it outside of the `with` block and wire it with `update >> task`, or "
                    "remove that wiring",
                )
            self._members.discard(task_id)
            del self._from_outside[task_id]
            remove_check(task, self._update_tasks)
            for own_task_id in given:
                task.downstream_task_ids.discard(own_task_id)
                self._dag.get_task(own_task_id).upstream_task_ids.discard(task_id)

    def _comes_after(self, task_id: str, closing: set[str]) -> bool:
        seen: set[str] = set()
        todo = [task_id]
        while todo:
            for above in self._dag.get_task(todo.pop()).upstream_task_ids:
                if above in closing:
                    return True
                if above not in seen and above not in self._own_task_ids:
                    seen.add(above)
                    todo.append(above)
        return False

    def _take_back_edges(self) -> None:
        """Remove added edges that a member no longer needs, because of what became of it, or of its place."""
        for task_id in self._opened_for & self._members:
            task = self._dag.get_task(task_id)
            # After another member, it may have a trigger rule, which a first task may not have.
            if task.trigger_rule != "all_success" and task.upstream_task_ids & self._members:
                cut(self._own.open, task)
        for task_id, given in self._given_edges.items():
            task = self._dag.get_task(task_id)
            if task.is_setup:
                wrong = set(given)
            elif failure_is_ignored(task):
                wrong = given - {self._own.close.task_id, self._own.outcome.task_id}
            else:
                continue
            for own_task_id in wrong:
                task.downstream_task_ids.discard(own_task_id)
                self._dag.get_task(own_task_id).upstream_task_ids.discard(task_id)
            given -= wrong

    def _keep_branches_from_skipping(self) -> None:
        """Separate the tasks that can skip those directly after them from the tasks that end the bracket."""
        own = self._own
        self._is_completing = True
        try:
            for task_id in sorted(self._members):
                task = self._dag.get_task(task_id)
                if task.is_setup or not can_skip_followers(task):
                    continue
                if task_id not in self._branch_ends and not is_waited_for(
                    self._dag, task, self._members, self._own_task_ids
                ):
                    self._add_branch_end(task)
                # `delete_old_items` can be skipped, and needs to know of a failure before that.
                for ending in (own.close, own.outcome, own.done):
                    cut(task, ending)
        finally:
            self._is_completing = False

    def _add_branch_end(self, task: Operator) -> None:
        end = self._make_branch_end(self._name_of_branch_end(task))
        self._branch_ends[task.task_id] = end
        self._own_task_ids.add(end.task_id)
        task >> end
        end >> self._own.close
        end >> self._own.outcome

    def _name_of_branch_end(self, task: Operator) -> str:
        """Return an ID in the group that no task has, and that Airflow accepts."""
        label = task.task_id.removeprefix(f"{self._name}.").replace(".", "__")
        too_long = len(self._group.child_id(f"{label}_ended")) - _MAX_ID_LENGTH
        if too_long > 0:
            digest = hashlib.sha256(label.encode()).hexdigest()[:8]
            label = f"{label[: -too_long - len(digest) - 1]}_{digest}"
        names = (f"{label}_ended{number}" for number in ("", *range(2, 1000)))
        return next(name for name in names if not self._dag.has_task(self._group.child_id(name)))

    def _wait_for_the_past(self) -> None:
        """
        Make the bracket wait for the previous run if one of its tasks does.

        Otherwise the source is active while that task waits, possibly forever.
        """
        waiting = self._members & self._depending_on_past.keys()
        below = self._own.open.downstream_task_ids
        ignores_first = any(self._depending_on_past[task_id] for task_id in waiting)
        # Between the two tasks, the previous run may be cleared and fail.
        for task in (self._own.begin, self._own.open):
            task.depends_on_past = task.wait_for_downstream = bool(waiting)
            if waiting:
                task.ignore_first_depends_on_past = ignores_first
        if any(failure_is_ignored(self._dag.get_task(name)) for name in self._members & below):
            self._own.open.wait_for_downstream = False

    def _note_who_depends_on_past(self) -> None:
        for task_id in self._members:
            task = self._dag.get_task(task_id)
            if any(getattr(task, name, None) for name in _WAITING_FOR_THE_PAST):
                ignores_first = bool(getattr(task, "ignore_first_depends_on_past", None))
                self._depending_on_past[task_id] = ignores_first

    def _let_only_the_bracket_wait_for_the_past(self) -> None:
        """
        Let no member wait for the previous run once the source is open.

        The bracket has waited for the success of the previous run's bracket. A member can still wait for what
        that success doesn't include: a teardown whose failure Airflow ignores, a task after the bracket, a
        task that the previous run did not have, or one that was cleared since.
        """
        for task_id in self._members & self._depending_on_past.keys():
            task = self._dag.get_task(task_id)
            task.depends_on_past = task.wait_for_downstream = False

    # --- graphs that can't work ---

    def _reject_setups_that_nothing_waits_for(self) -> None:
        for task_id in sorted(self._members):
            task = self._dag.get_task(task_id)
            if task.is_setup and self._own.close.task_id not in task.get_flat_relative_ids(upstream=False):
                raise CoveoInputError(
                    f"No task of the bracket {self._name!r} follows the setup {task_id!r}",
                    cause="only downstream tasks wait for a setup, so the source would be closed while it "
                    "runs",
                    remedy="Wire a task of the bracket downstream of it, or don't make it a setup",
                )

    def _reject_members_that_wait_for_nothing(self) -> None:
        for task_id in sorted(self._members):
            task = self._dag.get_task(task_id)
            if task.trigger_rule == "always" and not self._is_rule_by_default(task):
                raise CoveoInputError(
                    f"Task {task_id!r} belongs to the bracket {self._name!r}, and has the trigger rule "
                    "'always'",
                    cause="Airflow would run it as soon as the run starts, before the source is open",
                    remedy="Use 'all_done', with which it waits for the tasks before it, whether they "
                    "succeed or not; or move it out of the bracket",
                )

    def _check_first_tasks(self) -> None:
        for task in self._directly_below_open():
            if task.task_id not in self._members or task.is_teardown or self._is_rule_by_default(task):
                continue
            if task.task_id in self._opened_for and not self._is_final:
                # It can still be wired after another member.
                continue
            if task.trigger_rule != "all_success":
                raise CoveoInputError(
                    f"Task {task.task_id!r} is a first task of the bracket {self._name!r}, and has the "
                    f"trigger rule {getattr(task.trigger_rule, 'value', task.trigger_rule)!r}",
                    cause="Airflow runs a task directly after a setup only with the rule 'all_success'",
                    remedy="Remove the rule; or put a task without one before it inside the bracket, such as "
                    "an EmptyOperator; or move the decision before the bracket: `decision >> update`",
                )

    def _is_rule_by_default(self, task: Operator) -> bool:
        """Return whether a rule can be from default_args, and so can still change before the final check."""
        if not self._is_block_ending:
            return False
        given = [
            (each or {}).get("trigger_rule") for each in (self._dag.default_args, self._group.default_args)
        ]
        return task.trigger_rule in {rule for rule in given if rule is not None}


class _WatchedIds(set[str]):
    """A set of task IDs that calls back when an ID is added."""

    def __init__(self, ids: Iterable[str], callback: Callable[[], None]) -> None:
        super().__init__(ids)
        self.callbacks = {callback}

    def add(self, task_id: str) -> None:
        """Add an ID."""
        if task_id not in self:
            super().add(task_id)
            self._call()

    def update(self, *others: Iterable[str]) -> None:
        """Add several IDs."""
        super().update(*others)
        self._call()

    def _call(self) -> None:
        for callback in tuple(self.callbacks):
            callback()

    def __reduce__(self) -> tuple[type[set[str]], tuple[list[str]]]:
        # A copy of the DAG is complete, so nothing needs watching.
        return set, (list(self),)


def _same_template(task: Operator, opening: Operator, name: str) -> bool:
    """Return whether a task's field has the same template as the bracket's ``open``."""
    partial = getattr(task, "partial_kwargs", None)
    its = getattr(task, name, None) if partial is None else partial.get(name)
    given = getattr(opening, name, None)
    if its is None or given is None or not is_template(given):
        return False
    return type(its) is type(given) and bool(its == given)


def reject_bracket_inside(group: TaskGroup) -> NoReturn:
    """
    Reject a bracket that contains another one.

    :param group: The outer bracket's task group.
    """
    raise CoveoInputError(
        f"The bracket {group.group_id!r} contains another bracket",
        cause="closing the inner bracket would end the activity of the outer one",
        remedy="Run them one after the other, or side by side in a TaskGroup",
    )


def reject_cycle(group: TaskGroup, opening: Operator, begin: Operator, belonging: set[str]) -> None:
    """
    Reject a bracket that would wait for itself.

    :param group: Its task group.
    :param opening: Its ``open`` task.
    :param begin: Its first task.
    :param belonging: The other tasks that belong to it.
    """
    both = (opening.get_flat_relative_ids(upstream=True) - {begin.task_id}) & belonging
    both |= {task.task_id for task in group if task.task_id in task.upstream_task_ids}
    if both:
        raise CoveoInputError(
            f"The bracket {group.group_id!r} would wait for itself: {listed(both)} would have to end "
            "before it begins",
            cause="a task inside or after the bracket is also wired before it",
            remedy="Remove that wiring",
        )
