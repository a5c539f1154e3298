"""The bracket around a content update: the source is active while it runs, and IDLE after it."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec

from airflow.providers.common.compat.sdk import TaskGroup, get_current_context

from airflow_provider_coveo.coveo.endpoints import checked_source_id
from airflow_provider_coveo.coveo.errors import CoveoInputError, shown
from airflow_provider_coveo.coveo.ordering_ids import checked_queue_delay
from airflow_provider_coveo.coveo.statuses import checked_active_status
from airflow_provider_coveo.operators.base import _checked_duration, _given_connection
from airflow_provider_coveo.operators.coveo_push_update import (
    OPENING_XCOM_KEY,
    ClosePushSourceUpdateOperator,
    DeleteOldItemsOfUpdateOperator,
    JudgePushSourceUpdateOperator,
    OpenPushSourceUpdateOperator,
    UpdateTasks,
    as_list,
    reopen_if_closed,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Asset, Context
    from airflow.providers.standard.operators.empty import EmptyOperator
else:
    try:
        from airflow.providers.standard.operators.empty import EmptyOperator
    except ImportError:  # Airflow 2.11 without the standard provider
        from airflow.operators.empty import EmptyOperator

P = ParamSpec("P")
log = logging.getLogger(__name__)


#: What a DAG's default_args say is meant for its work, and could keep the bracket from closing.
_OWN_WAY: dict[str, Any] = {
    "depends_on_past": False,
    "wait_for_downstream": False,
    "execution_timeout": None,
    "do_xcom_push": True,
}


_LONGEST_TRY = timedelta(minutes=30)


class OverlappingRunsWarning(UserWarning):
    """Given where two runs of a DAG could update one source at the same time and close it for each other."""


class PushSourceUpdateDone(EmptyOperator):
    """The last task of a bracket, which does nothing: what follows the bracket waits for it."""

    shallow_copy_attrs: Sequence[str] = ("followed",)
    #: Called with each task that is wired below this one.
    followed: Callable[[Any], None] | None = None

    def update_relative(self, other: Any, upstream: bool = True, edge_modifier: Any = None) -> None:
        """Take note of a task that follows the bracket."""
        super().update_relative(other, upstream, edge_modifier)
        if not upstream and self.followed is not None:
            self.followed(other)

    def set_downstream(self, task_or_task_list: Any, edge_modifier: Any = None) -> None:
        """Take note of tasks that follow the bracket."""
        super().set_downstream(task_or_task_list, edge_modifier)
        if self.followed is not None:
            for task in as_list(task_or_task_list):
                self.followed(task)


class PushSourceUpdate(TaskGroup):
    """
    The task group that ``push_source_update`` makes.

    Its tasks are ``begin`` (a setup without effect), ``open`` (sets the active status), the user's tasks,
    ``delete_old_items`` where it was asked for, ``close`` (sets ``IDLE``), ``outcome`` (fails if any of them
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
        self._own_task_ids: set[str] = set()

    @property
    def ordering_id(self) -> Any:
        """The cut-off of the run's first opening, as an XComArg: epoch milliseconds by Coveo's clock."""
        output: Any = self.open.output
        return output["ordering_id"]

    def __enter__(self) -> PushSourceUpdate:
        super().__enter__()
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
            **_OWN_WAY,
            # Longer than the hook is patient; it ends a try whose answer never comes to its end.
            "execution_timeout": _LONGEST_TRY,
        }
        self._common = common
        begin = EmptyOperator(task_id="begin", trigger_rule="all_success", **_OWN_WAY)
        self._begin = begin
        self.open = OpenPushSourceUpdateOperator(
            task_id="open",
            status=update.status,
            exclusive=update.exclusive,
            exclusive_timeout=update.exclusive_timeout.total_seconds(),
            poll_interval=update.poll_interval.total_seconds(),
            trigger_rule="all_success",
            **{**common, "execution_timeout": _LONGEST_TRY + update.exclusive_timeout},
        )
        begin >> self.open
        self.open.joined = self._joined

    def _joined(self, task: Any) -> None:
        # Inside the `with`, what is wired below `open` is looked at once, at its end.
        if self._own_task_ids:
            self._join(task)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if exc_type is None:
                self._seal()
        finally:
            super().__exit__(exc_type, exc_value, traceback)  # type: ignore[no-untyped-call]

    # --- the wiring ---

    def _seal(self) -> None:
        update, dag = self._update, self.dag
        begin, opening = self._begin, self.open
        work = [task for task in self if task.task_id not in {begin.task_id, opening.task_id}]
        self._refuse_what_can_not_work(work)
        inside = {task.task_id for task in work}
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
        self.close = ClosePushSourceUpdateOperator(task_id="close", **closing_common)
        self.close.joined = self._join_above
        # It succeeds only where the source was opened, every task of the bracket went well and IDLE was sent.
        outcome = JudgePushSourceUpdateOperator(task_id="outcome", outlets=update.outlets, **closing_common)
        fail_fast = getattr(dag, "fail_fast", False) or getattr(dag, "fail_stop", False)
        # Airflow allows no other rule in a DAG that fails fast; there, a skipped task skips `done` as well.
        done = PushSourceUpdateDone(
            task_id="done", trigger_rule="all_success" if fail_fast else "none_failed", **_OWN_WAY
        )
        done.followed = self._followed
        self._outcome, self._done = outcome, done
        self._delete: DeleteOldItemsOfUpdateOperator | None = None
        if update.delete_old_items:
            self._delete = DeleteOldItemsOfUpdateOperator(
                task_id="delete_old_items",
                queue_delay=update.queue_delay,
                allow_empty=update.allow_empty,
                trigger_rule="all_success",
                **self._common,
            )
            self._delete >> done
        self.close.as_teardown(setups=[begin, opening])
        outcome.as_teardown(setups=begin, on_failure_fail_dagrun=True)
        self.close >> outcome
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
        for task in work:
            self._join(task)
        _append_failure_callback(dag, _LastResort(self._tasks))
        self._warn_of_overlap()

    def _join(self, task: Any) -> None:
        """
        Make a task one of the bracket's: the closing, and the deletion of old items, wait for it.

        Also called for tasks from outside the group that are wired below ``open`` or above ``close``.
        """
        if not hasattr(task, "task_id"):
            for inner in _tasks_of(task):
                self._join(inner)
            return
        if task.task_id in self._own_task_ids or task.task_id in self._members:
            return
        self._members.add(task.task_id)
        self._let_reopen(task)
        if task.is_setup:
            # A setup right above a teardown would become that teardown's own.
            return
        task >> self.close
        task >> self._outcome
        if task.is_teardown and not task.on_failure_fail_dagrun:
            return
        task >> self._done
        if self._delete is not None:
            task >> self._delete

    def _join_above(self, task: Any) -> None:
        """Make a task that is wired above ``close`` one of the bracket's, and have it wait for ``open``."""
        if not self._own_task_ids:
            return
        tasks = [task] if hasattr(task, "task_id") else list(_tasks_of(task))
        before = self.open.get_flat_relative_ids(upstream=True)
        for joining in tasks:
            # What the opening needs, the closing may need as well.
            if joining.task_id in before | self._own_task_ids | self._members:
                continue
            self._join(joining)
            if joining.upstream_task_ids.isdisjoint({other.task_id for other in tasks}):
                self.open >> joining

    def _followed(self, task: Any) -> None:
        """Let go of a task that came in by the cut-off that it is given, and turns out to come after."""
        for following in [task] if hasattr(task, "task_id") else _tasks_of(task):
            if following.task_id not in self._members:
                continue
            self._members.discard(following.task_id)
            _set_pre_execute(following, _pre_execute_of(following))
            for own_task_id in self._own_task_ids - {self.open.task_id}:
                following.downstream_task_ids.discard(own_task_id)
                self.dag.get_task(own_task_id).upstream_task_ids.discard(following.task_id)

    def _let_reopen(self, task: Any) -> None:
        """Have a task look, before it works, whether its bracket was closed already."""
        if getattr(task, "inherits_from_empty_operator", False):
            return
        _set_pre_execute(task, _Reopening(self._tasks, _pre_execute_of(task)))

    def _refuse_what_can_not_work(self, work: list[Any]) -> None:
        if not work:
            raise CoveoInputError(
                f"The bracket {self.group_id!r} holds no task",
                remedy="Create the tasks that push inside the `with` block",
            )
        for task in work:
            if isinstance(task, OpenPushSourceUpdateOperator):
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
        outlets: Sequence[Asset] = (),
        group_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        if not _is_template(source_id):
            checked_source_id(source_id)
        if not _is_template(status):
            checked_active_status(status)
        if not _is_template(queue_delay):
            checked_queue_delay(queue_delay)
        self.source_id = source_id
        self.status = status
        self.coveo_conn_id = coveo_conn_id
        self.organization_id = organization_id
        self.delete_old_items = _checked_truth("delete_old_items", delete_old_items)
        self.queue_delay = queue_delay
        self.allow_empty = _checked_truth("allow_empty", allow_empty)
        self.exclusive = _checked_truth("exclusive", exclusive)
        self.exclusive_timeout = _checked_duration("exclusive_timeout", exclusive_timeout)
        self.poll_interval = _checked_duration("poll_interval", poll_interval)
        if isinstance(close_retries, bool) or not isinstance(close_retries, int) or close_retries < 0:
            raise CoveoInputError(f"close_retries is {shown(close_retries)}", remedy="Give 0 or more")
        self.close_retries = close_retries
        self.close_retry_delay = _checked_duration("close_retry_delay", close_retry_delay)
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
        return PushSourceUpdate(
            update=self, group_id=group_id, add_suffix_on_collision=True, **self._group_kwargs
        )


def _is_template(value: object) -> bool:
    """Say whether a value is known only when the task runs: a template, or another task's output."""
    return "{" in value if isinstance(value, str) else not isinstance(value, (int, float, bytes, type(None)))


def _checked_truth(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise CoveoInputError(
        f"{name} is {shown(value)}",
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


class _Reopening:
    """A task's ``pre_execute`` that opens its bracket again where it was closed, then does what was there."""

    def __init__(self, update_tasks: UpdateTasks, then: Callable[[Any], None] | None) -> None:
        self._update_tasks = update_tasks
        self._then = then

    def __call__(self, context: Context) -> None:
        if reopen_if_closed(context, self._update_tasks):
            log.info("The bracket had been closed; the source is open again.")
        if self._then is not None:
            self._then(context)


def _pre_execute_of(task: Any) -> Callable[[Any], None] | None:
    partial = getattr(task, "partial_kwargs", None)
    found = task._pre_execute_hook if partial is None else partial.get("pre_execute")
    # A task created in one bracket and wired into it twice would otherwise look twice.
    return found._then if isinstance(found, _Reopening) else found


def _set_pre_execute(task: Any, hook: Callable[[Any], None] | None) -> None:
    partial = getattr(task, "partial_kwargs", None)
    if partial is None:
        task._pre_execute_hook = hook
    else:
        partial["pre_execute"] = hook


def _tasks_of(group: Any) -> Iterable[Any]:
    """Return the tasks of a task group, or of what a decorated task returns."""
    tasks: Iterable[Any] = iter(group) if isinstance(group, TaskGroup) else group.roots
    return tasks


class _LastResort:
    """
    A DAG's failure callback that sends IDLE where a bracket was opened and its closing task did not close it.

    It runs in the DAG processor. Whoever holds the source open by then is left alone unless it is this run,
    so a bracket that a later run opened is never closed.
    """

    def __init__(self, update_tasks: UpdateTasks) -> None:
        self._update_tasks = update_tasks

    def __call__(self, context: Context) -> None:
        dag_id = context["dag"].dag_id
        run_id = str(context["run_id"])
        try:
            self._close_what_is_open(dag_id, run_id)
        except Exception as error:
            # `airflow dags test` of Airflow 3, for one, lets callbacks ask nothing.
            log.warning(
                "The last resort could not see whether run %r of DAG %r left a source open: %s: %s. "
                "Look whether task %r succeeded. `airflow dags test` of Airflow 3 lets no callback see it.",
                run_id,
                dag_id,
                type(error).__name__,
                error,
                self._update_tasks.close,
            )

    def _close_what_is_open(self, dag_id: str, run_id: str) -> None:
        from airflow_provider_coveo.run_state import (
            callbacks_may_ask,
            is_run_over,
            task_states,
            values_in_variables,
        )

        tasks = self._update_tasks
        if not callbacks_may_ask():
            # Nor can it be seen whether the run was cleared in the meantime and goes on.
            kept = values_in_variables(dag_id, tasks.open, run_id, OPENING_XCOM_KEY)
            map_indexes, opening = list(kept), kept.get
        elif is_run_over(dag_id, run_id, [tasks.close, tasks.outcome]):
            map_indexes = list(task_states(dag_id, run_id, [tasks.open])[tasks.open])
            opening = functools.partial(self._opening_in_xcom, dag_id, run_id)
        else:
            log.info("Run %r of DAG %r goes on, and closes its source itself.", run_id, dag_id)
            return
        for map_index in map_indexes:
            try:
                self._close(dag_id, run_id, map_index, opening(map_index))
            except Exception:
                # In a mapped bracket, the others' sources are still to be closed.
                log.exception("The source of task %s[%d] may still be open.", tasks.open, map_index)

    def _opening_in_xcom(self, dag_id: str, run_id: str, map_index: int) -> Any:
        from airflow.providers.common.compat.sdk import XCom

        return XCom.get_one(
            key=OPENING_XCOM_KEY,
            dag_id=dag_id,
            task_id=self._update_tasks.open,
            run_id=run_id,
            map_index=map_index,
        )

    def _close(self, dag_id: str, run_id: str, map_index: int, opened: Any) -> None:
        from airflow_provider_coveo.coveo.retries import RetryPolicy
        from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
        from airflow_provider_coveo.run_state import Holder

        if not opened:
            return
        organization_id, source_id = opened["organization_id"], opened["source_id"]
        this = Holder(dag_id, run_id, self._update_tasks.open, map_index)
        holder = Holder.of_source(organization_id, source_id)
        if holder != this:
            if holder is not None:
                log.info("Source %s is held open by %s, and is left alone.", source_id, holder)
            return
        log.warning(
            "Source %s was left open by %s: its closing task did not close it, so it is closed from here.",
            source_id,
            this,
        )
        hook = CoveoPushHook(
            opened["coveo_conn_id"],
            organization_id=organization_id,
            # The DAG processor gives a file and its callbacks 50 seconds by default.
            retry=RetryPolicy(total_seconds=20),
            timeout=10,
            call_interval=0,
            caller="push_source_update.last_resort",
        )
        hook.set_source_status(source_id, "IDLE")
        this.release(organization_id, source_id)


def _append_failure_callback(dag: Any, callback: Callable[[Any], None]) -> None:
    present = dag.on_failure_callback
    callbacks = list(present) if isinstance(present, (list, tuple)) else [present] if present else []
    dag.on_failure_callback = [*callbacks, callback]
    # Both Airflow lines decide by this whether to call any; they set it when the DAG is made.
    dag.has_on_failure_callback = True
