"""
The tasks of a bracket around a content update, as ``push_source_update`` puts them together.

They are not for use by themselves: each relies on the wiring that the task group gives them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSkipException,
)

from airflow_provider_coveo.coveo.errors import (
    AccessDeniedError,
    AuthenticationError,
    CertificateError,
    CoveoConfigurationError,
    CoveoError,
    CoveoInputError,
    InvalidParameterError,
    InvalidRequestError,
    NotFoundError,
    OrganizationPausedError,
    SourceDoesNotExistError,
)
from airflow_provider_coveo.operators.base import (
    _checked,
    _CoveoPushOperator,
    _time_delta_trigger,
    _without_none,
)
from airflow_provider_coveo.operators.coveo_push import SetPushSourceStatusOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_coveo.run_state import Holder

#: The XCom by which the opening task says, before its request, what it is about to open.
OPENING_XCOM_KEY: Final = "coveo_opening"
_FIRST_CUT_OFF: Final = "first_cut_off"
_KNOWN_FROM_THE_START: Final = "known_from_the_start"
_MAY_BE_OPEN: Final = "may_be_open"

#: The errors after which it is sure that a status was not set.
_NEVER_CARRIED_OUT: Final = (
    AccessDeniedError,
    AuthenticationError,
    CertificateError,
    CoveoInputError,
    InvalidParameterError,
    InvalidRequestError,
    NotFoundError,
    OrganizationPausedError,
    SourceDoesNotExistError,
)

#: The states in which the last task of a bracket does not wait for others of its tasks any longer.
_NOT_WAITING_STATES: Final = frozenset(
    {"running", "success", "failed", "upstream_failed", "skipped", "removed"}
)


class PushSourceUpdateFailed(AirflowFailException):
    """Raised by the last task of a bracket whose update did not go well, so that the run shows it."""


class PushSourceUpdateNotBracketed(AirflowFailException):
    """Raised before a task works in a closed bracket that nothing would close again."""


class PushSourceInUse(AirflowFailException):
    """Raised by the opening task of an exclusive bracket when its source did not become free in time."""


class NothingWasPushed(AirflowFailException):
    """Raised instead of deleting old items after an update that pushed no item."""


class UnknownFirstOpening(AirflowFailException):
    """Raised instead of deleting old items when it isn't known since when the run has been pushing."""


@dataclass(frozen=True)
class UpdateTasks:
    """
    The IDs of a bracket's tasks.

    :param begin: The setup without effect that keeps the teardowns alive where ``open`` fails.
    :param open: The setup that sets the active status.
    :param close: The teardown that sets ``IDLE``.
    :param outcome: The teardown that makes the run tell the truth.
    """

    NAMES: ClassVar = ("begin", "open", "close", "outcome")

    begin: str
    open: str
    close: str
    outcome: str


class _UpdateOperator(_CoveoPushOperator):
    """What the bracket's tasks share: they know the others."""

    def __init__(self, *, update_tasks: UpdateTasks, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.update_tasks = update_tasks

    def _holder(self, context: Context) -> Holder:
        return holder_of_update(context, self.update_tasks)

    def _is_held(self, holder: Holder) -> bool:
        from airflow_provider_coveo.run_state import Holder

        return Holder.of_source(self.hook.organization_id, self.source_id) == holder


class OpenPushSourceUpdateOperator(_UpdateOperator, SetPushSourceStatusOperator):
    """
    Open a bracket: set the active status, and keep the cut-off of the run's first opening.

    :param update_tasks: The bracket's tasks.
    :param exclusive: Whether to wait while the source shows an activity that this run did not start.
    :param exclusive_timeout: Seconds to wait for that at most.
    :param poll_interval: Seconds between two looks.
    """

    shallow_copy_attrs: Sequence[str] = ("joined",)
    #: Called with each task that is wired below this one.
    joined: Callable[[Any], None] | None = None

    def __init__(
        self,
        *,
        exclusive: bool = False,
        exclusive_timeout: float = 3600,
        poll_interval: float = 60,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.exclusive = exclusive
        self.exclusive_timeout = exclusive_timeout
        self.poll_interval = poll_interval

    def update_relative(self, other: Any, upstream: bool = True, edge_modifier: Any = None) -> None:
        """Take a task that is wired below the opening into the bracket."""
        super().update_relative(other, upstream, edge_modifier)
        if not upstream and self.joined is not None:
            self.joined(other)

    def set_downstream(self, task_or_task_list: Any, edge_modifier: Any = None) -> None:
        """Take tasks that are wired below the opening into the bracket."""
        super().set_downstream(task_or_task_list, edge_modifier)
        if self.joined is not None:
            for task in as_list(task_or_task_list):
                self.joined(task)

    def execute(self, context: Context) -> dict[str, Any]:
        """Wait for the source where that is asked for, then open the bracket."""
        from airflow_provider_coveo.run_state import RunState

        state = RunState(context)
        if state.get(_KNOWN_FROM_THE_START) is None:
            # Nothing is known of earlier tries: there was none, unless the task was cleared.
            was_cleared = context["ti"].max_tries > (context["task"].retries or 0)
            state.set(_KNOWN_FROM_THE_START, not was_cleared)
        return self._open_when_free(context, waiting_since=time.time())

    def execute_complete(
        self, context: Context, event: Any = None, waiting_since: float | None = None
    ) -> dict[str, Any]:
        """Look again after a wait."""
        return self._open_when_free(context, waiting_since=waiting_since or time.time())

    def _open_when_free(self, context: Context, waiting_since: float) -> dict[str, Any]:
        self._refuse_what_can_not_be_opened()
        holder = self._holder(context)
        if self.exclusive and not self._is_held(holder) and self._is_in_use():
            self._wait_or_give_up(waiting_since)
        return self._open(context, holder)

    def _open(self, context: Context, holder: Holder) -> dict[str, Any]:
        from airflow_provider_coveo.run_state import RunState, callbacks_may_ask, take_over_content

        state = RunState(context)
        organization_id = self.hook.organization_id
        first_cut_off = state.get(_FIRST_CUT_OFF)
        may_be_open_already = bool(state.get(_MAY_BE_OPEN))
        state.set(_MAY_BE_OPEN, True)
        # From here on the closing must follow, so all that it and the last resort go by is there first.
        holder.take(organization_id, self.source_id)
        opening = {
            "source_id": self.source_id,
            "organization_id": organization_id,
            "coveo_conn_id": self.coveo_conn_id,
            "status": self.status,
        }
        context["ti"].xcom_push(key=OPENING_XCOM_KEY, value=opening)
        if not callbacks_may_ask():
            # The last resort can't read the XCom there.
            state.set(OPENING_XCOM_KEY, opening)
        try:
            result = self.hook.set_source_status(self.source_id, self.status)
        except CoveoError as error:
            if isinstance(error, _NEVER_CARRIED_OUT) and not may_be_open_already:
                # There is nothing to close, and an IDLE would end the activity of whoever uses the source.
                state.set(_MAY_BE_OPEN, False)
                # Not None, which Airflow 3.0 can't keep.
                context["ti"].xcom_push(key=OPENING_XCOM_KEY, value={})
                state.delete(OPENING_XCOM_KEY)
                holder.release(organization_id, self.source_id)
            raise
        take_over_content(organization_id, self.source_id, holder.dag_id, holder.run_id)
        if first_cut_off is None and state.get(_KNOWN_FROM_THE_START):
            first_cut_off = result["ordering_id"]
            state.set(_FIRST_CUT_OFF, first_cut_off)
        return _without_none({**result, "ordering_id": first_cut_off})

    def _refuse_what_can_not_be_opened(self) -> None:
        from airflow_provider_coveo.coveo.endpoints import checked_source_id
        from airflow_provider_coveo.coveo.statuses import checked_active_status

        _checked(checked_source_id, self.source_id)
        _checked(checked_active_status, self.status)

    def _is_in_use(self) -> bool:
        from airflow_provider_coveo.coveo.sources import is_active

        return is_active(self.hook.get_source(self.source_id))

    def _wait_or_give_up(self, waiting_since: float) -> None:
        from airflow_provider_coveo.run_state import Holder

        other = Holder.of_source(self.hook.organization_id, self.source_id)
        who = str(other) if other else "something outside this provider"
        left = waiting_since + self.exclusive_timeout - time.time()
        if left <= 0:
            raise PushSourceInUse(
                f"Source {self.source_id!r} still shows an activity that this run did not start, after "
                f"{self.exclusive_timeout:g} s. Likely cause: {who} is updating it, or left it open. Remedy: "
                "Wait for that, raise exclusive_timeout, or close the source if nobody updates it."
            )
        self.log.info(
            "Source %s is in use by %s; looking again in %g s.", self.source_id, who, self.poll_interval
        )
        self.defer(
            trigger=_time_delta_trigger(timedelta(seconds=min(self.poll_interval, left))),
            method_name="execute_complete",
            kwargs={"waiting_since": waiting_since},
        )


class DeleteOldItemsOfUpdateOperator(_UpdateOperator):
    """
    Delete what the update did not push again, once every task of the bracket succeeded.

    :param update_tasks: The bracket's tasks.
    :param queue_delay: Minutes that Coveo waits before it deletes. (templated)
    :param allow_empty: Whether to delete even where the provider's own push tasks pushed nothing at all.
    """

    template_fields: Sequence[str] = (*_CoveoPushOperator.template_fields, "queue_delay")

    def __init__(self, *, queue_delay: int | str = 15, allow_empty: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.queue_delay = queue_delay
        self.allow_empty = allow_empty

    def execute(self, context: Context) -> dict[str, Any]:
        """Delete old items by the cut-off of the run's first opening."""
        members = list(_members(context["task"], self.update_tasks))
        states = _states(context, [task.task_id for task in members])
        not_successful = sorted(
            task_id for task_id, by_index in states.items() if set(by_index.values()) - {"success"}
        )
        if not_successful:
            raise AirflowSkipException(
                f"Old items of source {self.source_id!r} stay: not every task of the update succeeded "
                f"({', '.join(not_successful)})."
            )
        if not self.allow_empty:
            self._refuse_after_an_empty_update(context, members, states)
        opened = _pull(context, self.update_tasks.open, "return_value") or {}
        if opened.get("ordering_id") is None:
            raise UnknownFirstOpening(
                f"Old items of source {self.source_id!r} stay: the task was cleared, and when the run opened "
                "the source for the first time is no longer known, so a cut-off could delete what the run "
                "itself pushed. Remedy: The next run deletes them; or reset the source by hand."
            )
        return self.hook.delete_old_items(self.source_id, opened["ordering_id"], queue_delay=self.queue_delay)

    def _refuse_after_an_empty_update(
        self, context: Context, members: Iterable[Any], states: dict[str, dict[int, str | None]]
    ) -> None:
        pushes = [task for task in members if _class_attribute(task, "pushes_items", False)]
        if not pushes:
            return
        accepted = 0
        for task in pushes:
            for map_index in states[task.task_id]:
                result = context["ti"].xcom_pull(task_ids=task.task_id, map_indexes=map_index)
                accepted += result.get("accepted_adds", 0) if isinstance(result, dict) else 0
        silent = [task.task_id for task in pushes if not _keeps_its_result(task)]
        if accepted == 0 and silent:
            raise NothingWasPushed(
                f"Old items of source {self.source_id!r} stay: whether the update pushed any item is not "
                f"known, because {_listed(silent)} kept no result (do_xcom_push=False). Remedy: Let these "
                "tasks keep it; or pass allow_empty=True where an empty source is right."
            )
        if accepted == 0:
            raise NothingWasPushed(
                f"Old items of source {self.source_id!r} stay: the update pushed no item, and deleting all "
                "others would empty the source. Remedy: Pass allow_empty=True where an empty source is right."
            )


class _ClosingOperator(_UpdateOperator):
    """What the bracket's teardowns share: they go by what was opened, whatever templates say by now."""

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:
        """Render the templates; one that can't be rendered must not keep a source open."""
        try:
            super().render_template_fields(context, jinja_env)
        except Exception:
            self.log.warning("Not rendered, going by what was opened.", exc_info=True)
            self.source_id = ""

    def _find_what_was_opened(self, context: Context) -> bool:
        """Take source and connection from the opening; say whether there was one."""
        opened = _pull(context, self.update_tasks.open, OPENING_XCOM_KEY)
        if opened:
            self.source_id, self.coveo_conn_id = opened["source_id"], opened["coveo_conn_id"]
            self.organization_id = opened["organization_id"]
            # The one that is there already was made by what the templates say.
            self.__dict__.pop("hook", None)
            return True
        # An opening that was cleared, and died before it said what it was about to open, is still on record.
        if not self.source_id:
            return False
        try:
            return self._is_held(self._holder(context))
        except (AirflowNotFoundException, CoveoConfigurationError) as error:
            self.log.info("There is no connection by which anything could have been opened: %s", error)
            return False

    def _other_run_at_work(self, context: Context) -> Holder | None:
        """Return the bracket of another run that has opened the source since, and will close it itself."""
        from airflow_provider_coveo.run_state import Holder, is_run_working

        try:
            other = Holder.of_source(self.hook.organization_id, self.source_id)
            own = self._holder(context)
            if other is None or (other.dag_id, other.run_id) == (own.dag_id, own.run_id):
                return None
            return other if is_run_working(other.dag_id, other.run_id) else None
        except Exception:
            # An IDLE too many does less harm than one too few.
            self.log.warning("Can't tell whether another run holds the source open.", exc_info=True)
            return None


class ClosePushSourceUpdateOperator(_ClosingOperator):
    """
    Close a bracket: set the status to ``IDLE``.

    It leaves the source alone if the bracket was never opened, or if another run that is at work has opened
    the source since: that run closes it.

    :param update_tasks: The bracket's tasks.
    """

    shallow_copy_attrs: Sequence[str] = ("joined",)

    #: Called with each task that is wired above this one.
    joined: Callable[[Any], None] | None = None

    def update_relative(self, other: Any, upstream: bool = True, edge_modifier: Any = None) -> None:
        """Take a task that is wired above the closing into the bracket."""
        super().update_relative(other, upstream, edge_modifier)
        if upstream and self.joined is not None:
            self.joined(other)

    def set_upstream(self, task_or_task_list: Any, edge_modifier: Any = None) -> None:
        """Take tasks that are wired above the closing into the bracket."""
        super().set_upstream(task_or_task_list, edge_modifier)
        if self.joined is not None:
            for task in as_list(task_or_task_list):
                self.joined(task)

    def execute(self, context: Context) -> dict[str, Any]:
        """Set ``IDLE``."""
        if not self._find_what_was_opened(context):
            self.log.info("Nothing was opened by this run, so nothing is closed.")
            return self._nothing_sent()
        if other := self._other_run_at_work(context):
            self.log.warning("Source %s is left open for %s, which closes it.", self.source_id, other)
            return self._nothing_sent()
        result = self.hook.set_source_status(self.source_id, "IDLE")
        self._holder(context).release(self.hook.organization_id, self.source_id)
        return result

    def _nothing_sent(self) -> dict[str, Any]:
        return {"source_id": self.source_id, "status": None, "ordering_id": None, "request_id": None}


class JudgePushSourceUpdateOperator(_ClosingOperator):
    """
    Fail if any task of the bracket failed, so that the run's state tells the truth.

    A task that re-opened the bracket after its closing task had run is followed by this one, which then
    closes the source again before it judges.

    :param update_tasks: The bracket's tasks.
    """

    def execute(self, context: Context) -> dict[str, Any]:
        """Close what is still open, then judge."""
        closed = self._close_what_is_still_open(context)
        tasks = [
            *_members(context["task"], self.update_tasks),
            *_own_tasks(context["task"], self.update_tasks),
        ]
        judged = [task.task_id for task in tasks if not _failure_is_ignored(task, self.update_tasks)]
        in_state: dict[str | None, list[str]] = {}
        for task_id, by_index in _states(context, judged).items():
            for map_index, state in by_index.items():
                name = f"{task_id}[{map_index}]" if map_index >= 0 else task_id
                in_state.setdefault(state, []).append(name)
        failed, blocked = in_state.get("failed", []), in_state.get("upstream_failed", [])
        if failed or blocked:
            what = f"{_listed(failed)} failed" if failed else f"{_listed(blocked)} could not run"
            how_it_is_left = "The source is closed" if closed else "The source could not be closed"
            if closed and (other := self._other_run_at_work(context)):
                how_it_is_left = f"The source is left open for {other}"
            raise PushSourceUpdateFailed(
                f"The update of source {self.source_id!r} did not go well: {what}. {how_it_is_left}; see the "
                "logs of these tasks."
            )
        return {"source_id": self.source_id, "tasks": len(judged)}

    def _close_what_is_still_open(self, context: Context) -> bool:
        """Send ``IDLE`` where the bracket is open; say whether it is closed now."""
        holder = self._holder(context)
        if not self._find_what_was_opened(context) or not self._is_held(holder):
            return True
        self.log.info("Source %s is still open: closing it.", self.source_id)
        try:
            self.hook.set_source_status(self.source_id, "IDLE")
        except CoveoError as error:
            close = self.update_tasks.close
            if _states(context, [close])[close].get(_map_index(context, close)) != "failed":
                raise
            # The closing task used up its patience already: the run may show now that it failed.
            self.log.warning("%s", error)
            return False
        holder.release(self.hook.organization_id, self.source_id)
        return True


def holder_of_update(context: Context, update_tasks: UpdateTasks) -> Holder:
    """
    Return how the bracket of this run is named as the holder of its source.

    :param context: The context of one of its tasks.
    :param update_tasks: The bracket's tasks.
    """
    from airflow_provider_coveo.run_state import Holder

    task_instance: Any = context["ti"]
    return Holder(
        task_instance.dag_id,
        task_instance.run_id,
        update_tasks.open,
        _map_index(context, update_tasks.open),
    )


def reopen_if_closed(context: Context, update_tasks: UpdateTasks) -> bool:
    """
    Open a bracket again if its closing task has run; its last task then closes it once more.

    That is what a clear of "only failed" tasks leads to: the work runs again, and neither the opening nor
    the closing task does.

    :param context: The context of the task that is about to work.
    :param update_tasks: The bracket's tasks.
    :return: Whether the source was opened again.
    :raises PushSourceUpdateNotBracketed: if the last task has run as well, or never waited for this one, so
        that nothing would close the source again.
    """
    task_instance: Any = context["ti"]
    states = _states(context, [update_tasks.close, update_tasks.outcome])
    map_index = _map_index(context, update_tasks.open)
    if states[update_tasks.close].get(map_index) not in {"success", "failed"}:
        return False
    opened = _pull(context, update_tasks.open, OPENING_XCOM_KEY)
    if not opened:
        return False
    is_waited_for = update_tasks.outcome in context["task"].get_flat_relative_ids(upstream=False)
    if not is_waited_for or states[update_tasks.outcome].get(map_index) in _NOT_WAITING_STATES:
        raise PushSourceUpdateNotBracketed(
            f"Task {task_instance.task_id!r} would work on source {opened['source_id']!r} while it is IDLE, "
            "and no task would close the source again. Likely cause: the task was cleared without its "
            "bracket, or does not belong to it. Remedy: Clear it with “Only Failed” switched off, which "
            "clears the bracket with it; or wire it above update.close."
        )
    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
    from airflow_provider_coveo.run_state import take_over_content

    organization_id, source_id = opened["organization_id"], opened["source_id"]
    hook = CoveoPushHook(
        opened["coveo_conn_id"], organization_id=organization_id, caller="push_source_update"
    )
    holder = holder_of_update(context, update_tasks)
    holder.take(organization_id, source_id)
    hook.set_source_status(source_id, opened["status"])
    take_over_content(organization_id, source_id, holder.dag_id, holder.run_id)
    return True


def _members(task: Any, update_tasks: UpdateTasks) -> Iterator[Any]:
    """Yield the tasks between a bracket's opening and its closing, wherever they were created."""
    dag = task.dag
    below = dag.get_task(update_tasks.open).get_flat_relative_ids(upstream=False)
    above = dag.get_task(update_tasks.close).get_flat_relative_ids(upstream=True)
    for task_id in sorted(below & above):
        member = dag.get_task(task_id)
        if not issubclass(_operator_class(member), _UpdateOperator):
            yield member


def _own_tasks(task: Any, update_tasks: UpdateTasks) -> Iterator[Any]:
    dag = task.dag
    yield dag.get_task(update_tasks.open)
    yield dag.get_task(update_tasks.close)
    for task_id in dag.get_task(update_tasks.close).upstream_task_ids:
        upstream = dag.get_task(task_id)
        if issubclass(_operator_class(upstream), DeleteOldItemsOfUpdateOperator):
            yield upstream


def _failure_is_ignored(task: Any, update_tasks: UpdateTasks) -> bool:
    # Airflow's own rule: a teardown that fails does not fail the run unless it is told to.
    return bool(task.is_teardown and not task.on_failure_fail_dagrun and task.task_id != update_tasks.close)


def _states(context: Context, task_ids: Iterable[str]) -> dict[str, dict[int, str | None]]:
    """Return the states of some tasks of this run, in a mapped bracket those of its own map index."""
    from airflow_provider_coveo.run_state import task_states

    task_instance: Any = context["ti"]
    states = task_states(task_instance.dag_id, task_instance.run_id, task_ids)
    if context["task"].get_closest_mapped_task_group() is None:
        return states
    own = task_instance.map_index
    return {task_id: {i: s for i, s in by_index.items() if i == own} for task_id, by_index in states.items()}


def _pull(context: Context, task_id: str, key: str) -> Any:
    """Return an XCom of one of the bracket's own tasks."""
    task_instance: Any = context["ti"]
    return task_instance.xcom_pull(task_ids=task_id, key=key, map_indexes=_map_index(context, task_id))


def _map_index(context: Context, task_id: str) -> int:
    """Return the map index of one of the bracket's own tasks: this one's in a mapped bracket, else -1."""
    task, task_instance = cast("tuple[Any, Any]", (context["task"], context["ti"]))
    mapped = task.dag.get_task(task_id).get_closest_mapped_task_group() is not None
    return int(task_instance.map_index) if mapped else -1


def _operator_class(task: Any) -> type[Any]:
    operator_class = getattr(task, "operator_class", None)
    return operator_class if isinstance(operator_class, type) else type(task)


def _class_attribute(task: Any, name: str, default: Any) -> Any:
    return getattr(_operator_class(task), name, default)


def _keeps_its_result(task: Any) -> bool:
    partial = getattr(task, "partial_kwargs", None)
    return bool(task.do_xcom_push if partial is None else partial.get("do_xcom_push", True))


def _listed(names: Sequence[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(sorted(names)[:most]) + more


def as_list(task_or_task_list: Any) -> list[Any]:
    """
    Return what the wiring methods of Airflow take as a list.

    :param task_or_task_list: A task, or several.
    """
    return list(task_or_task_list) if isinstance(task_or_task_list, (list, tuple)) else [task_or_task_list]
