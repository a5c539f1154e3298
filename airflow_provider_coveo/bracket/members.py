"""The tasks of a bracket, derived from the graph, and their states in a run."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final

from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.state.airflow_runs import (
    TaskStates,
    callbacks_can_query,
    map_index_of,
    task_states,
)
from airflow_provider_coveo.state.ledger import Holder, read_bracket

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import DAG, Context, MappedOperator
    from typing_extensions import TypeIs

    from airflow_provider_coveo.state.airflow_types import Operator, Wirable

#: The maximum number of tasks outside the bracket's group that its record lists.
_MAX_OUTSIDE: Final = 50
#: The number of consecutive map indexes without a record after which no more are expected.
_MAX_GAP: Final = 100


@dataclass(frozen=True)
class UpdateTasks:
    """
    The IDs of a bracket's tasks.

    :param begin: The setup without effect that lets the teardowns run if ``open`` fails.
    :param open: The setup that sets the active status.
    :param close: The teardown that sets ``IDLE``.
    :param outcome: The teardown that fails the run if a task of the bracket failed.
    """

    NAMES: ClassVar = ("begin", "open", "close", "outcome")

    begin: str
    open: str
    close: str
    outcome: str


def bracket_role(task: object) -> str:
    """
    Return the role of a bracket's own task, such as ``open``; an empty string for any other task.

    :param task: The task, mapped or not.
    """
    return str(getattr(operator_class(task), "bracket_role", ""))


def operator_class(task: object) -> type[object]:
    """
    Return the class of a task's operator, even if the task is mapped.

    :param task: The task.
    """
    found = getattr(task, "operator_class", None)
    return found if isinstance(found, type) else type(task)


def is_task(node: Wirable) -> TypeIs[Operator]:
    """
    Return whether a node is a task, and not a group or a result.

    :param node: The node of the DAG.
    """
    return hasattr(node, "task_id")


def is_mapped_task(task: Operator) -> TypeIs[MappedOperator]:
    """
    Return whether a task is mapped.

    :param task: The task.
    """
    return hasattr(task, "partial_kwargs")


def dag_of(task: Operator) -> DAG:
    """
    Return the DAG of a task of a bracket, which always has one.

    :param task: The task, mapped or not.
    """
    dag = task.dag
    if dag is None:
        raise CoveoInputError(f"Task {task.task_id!r} is in no DAG", remedy="Create the bracket in a DAG")
    return dag


def running_task(context: Context) -> Operator:
    """
    Return the task that runs, with its rendered fields. On Airflow 3.0, the context has an unrendered copy.

    :param context: Its context.
    """
    return getattr(context["ti"], "task", None) or context["task"]


def opening_of(context: Context, update_tasks: UpdateTasks) -> Operator:
    """
    Return a bracket's ``open``.

    :param context: The context of one of its tasks.
    :param update_tasks: The bracket's tasks.
    """
    return dag_of(context["task"]).get_task(update_tasks.open)


def is_exclusive(opening: Operator) -> bool:
    """
    Return whether a bracket is exclusive.

    :param opening: Its ``open``.
    """
    return bool(opening.exclusive)  # type: ignore[union-attr]


def member_ids(dag: DAG, update_tasks: UpdateTasks) -> list[str]:
    """
    Return the tasks between a bracket's ``open`` and its ``close``, wherever they were created.

    :param dag: The DAG.
    :param update_tasks: The bracket's tasks.
    """
    below = dag.get_task(update_tasks.open).get_flat_relative_ids(upstream=False)
    above = dag.get_task(update_tasks.close).get_flat_relative_ids(upstream=True)
    return sorted(task_id for task_id in below & above if not bracket_role(dag.get_task(task_id)))


def members(task: Operator, update_tasks: UpdateTasks) -> Iterator[Operator]:
    """
    Yield the tasks between a bracket's ``open`` and its ``close``.

    :param task: One of the bracket's tasks.
    :param update_tasks: The bracket's tasks.
    """
    dag = dag_of(task)
    for task_id in member_ids(dag, update_tasks):
        yield dag.get_task(task_id)


def members_outside(task: Operator, update_tasks: UpdateTasks) -> tuple[str, ...]:
    """
    Return a bracket's members whose IDs don't show that they belong to its task group, up to 50.

    :param task: One of the bracket's tasks.
    :param update_tasks: The bracket's tasks.
    """
    group = update_tasks.open.removesuffix("open")
    found = (name for name in member_ids(dag_of(task), update_tasks) if not name.startswith(group))
    return tuple(itertools.islice(found, _MAX_OUTSIDE))


def own_tasks(task: Operator, update_tasks: UpdateTasks) -> Iterator[Operator]:
    """
    Yield the bracket's own tasks whose failures fail the run.

    :param task: One of the bracket's tasks.
    :param update_tasks: The bracket's tasks.
    """
    dag = dag_of(task)
    yield dag.get_task(update_tasks.open)
    yield dag.get_task(update_tasks.close)
    for task_id in dag.get_task(update_tasks.close).upstream_task_ids:
        upstream = dag.get_task(task_id)
        if bracket_role(upstream) == "delete_old_items":
            yield upstream


def failure_is_ignored(task: Operator) -> bool:
    """
    Return whether a task can fail without failing the run: Airflow's own rule for teardowns.

    :param task: The task, not one of the bracket's own.
    """
    return bool(task.is_teardown and not task.on_failure_fail_dagrun)


def holder_of_update(context: Context, update_tasks: UpdateTasks) -> Holder:
    """
    Return the bracket of this run as the owner of its source.

    :param context: The context of one of its tasks.
    :param update_tasks: The bracket's tasks.
    """
    task_instance = context["ti"]
    return Holder(
        task_instance.dag_id,
        task_instance.run_id,
        update_tasks.open,
        bracket_map_index(context, update_tasks),
    )


def bracket_map_index(context: Context, update_tasks: UpdateTasks) -> int:
    """
    Return the map index of a bracket for one of its tasks: -1 unless the whole bracket is mapped.

    A task in a mapped task group *inside* the bracket has its own map index, which is unrelated to the
    bracket.

    :param context: The context of the task.
    :param update_tasks: The bracket's tasks.
    """
    group = mapped_group_id(opening_of(context, update_tasks))
    return map_index_of(context) if group is not None else -1


def mapped_group_id(task: Operator) -> str | None:
    """
    Return the mapped task group that contains a task, ``None`` if there is none.

    :param task: The task.
    """
    group = task.get_closest_mapped_task_group()
    return None if group is None else str(group.group_id)


def each_map_index(holder: Holder, *, is_mapped: bool) -> Iterator[Holder]:
    """
    Yield a bracket of a run, or each of its map indexes if the whole bracket is mapped. Not for tasks.

    :param holder: The bracket.
    :param is_mapped: Whether it is mapped.
    """
    if not is_mapped:
        yield holder
    elif callbacks_can_query():
        for map_index in task_states(holder.dag_id, holder.run_id, [holder.open_task_id])[
            holder.open_task_id
        ]:
            yield replace(holder, map_index=map_index)
    else:
        # Their number is unknown, and those that never began to open have no record.
        gap = 0
        for map_index in itertools.count():
            one = replace(holder, map_index=map_index)
            gap = gap + 1 if read_bracket(one) is None else 0
            if gap > _MAX_GAP:
                return
            if not gap:
                yield one


def states(context: Context, update_tasks: UpdateTasks, task_ids: Iterable[str]) -> TaskStates:
    """
    Return the states of some of a bracket's tasks in this run; in a mapped bracket, of its map index only.

    :param context: The context of one of its tasks.
    :param update_tasks: The bracket's tasks.
    :param task_ids: The tasks.
    """
    task_instance = context["ti"]
    dag = dag_of(context["task"])
    found = task_states(task_instance.dag_id, task_instance.run_id, task_ids)
    group = mapped_group_id(dag.get_task(update_tasks.open))
    if group is None:
        return found
    own = map_index_of(context)
    return {
        task_id: {i: state for i, state in by_index.items() if i == own}
        if mapped_group_id(dag.get_task(task_id)) == group
        else by_index
        for task_id, by_index in found.items()
    }


def listed(names: Iterable[str], most: int = 20) -> str:
    """
    Return a list of names as text, truncated if there are many.

    :param names: The names.
    :param most: The number of names to list. Default 20.
    """
    every = sorted(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
