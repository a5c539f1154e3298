"""
The tasks of a bracket that can skip the tasks directly after them, such as branches.

Airflow then skips teardowns too. So such a task must not be directly upstream of the tasks that close the
bracket: they would be skipped while other tasks still work, and would report no failure.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from airflow_provider_coveo.bracket.members import is_mapped_task, mapped_group_id, operator_class

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import DAG

    from airflow_provider_coveo.state.airflow_types import Operator


def can_skip_followers(task: Operator) -> bool:
    """
    Return whether a task can skip the tasks directly after it.

    :param task: The task, mapped or not.
    """
    operator = operator_class(task)
    # The module of Airflow's SkipMixin depends on its version, and the attribute exists since Airflow 3.
    return getattr(operator, "inherits_from_skipmixin", False) is True or any(
        each.__name__ == "SkipMixin" for each in operator.__mro__
    )


def is_waited_for(dag: DAG, task: Operator, members: Collection[str], own: Collection[str]) -> bool:
    """
    Return whether another member of the bracket ends only after a task, so that ``close`` waits for both.

    :param dag: The DAG.
    :param task: The task.
    :param members: The bracket's members.
    :param own: The bracket's own tasks.
    """
    for task_id in task.downstream_task_ids:
        if task_id not in members:
            continue
        follower = dag.get_task(task_id)
        # Beside another task, it could end before: some trigger rules don't wait for all, and a failure of
        # the other one ends it at once. A mapped task without an element ends at once, too.
        is_sole = set(follower.upstream_task_ids) - set(own) == {task.task_id}
        is_together = mapped_group_id(follower) in {None, mapped_group_id(task)}
        if is_sole and is_together and not follower.is_setup and not is_mapped_task(follower):
            return True
    return False


def cut(task: Operator, follower: Operator) -> None:
    """
    Remove the edge between two tasks, if there is one.

    :param task: The upstream task.
    :param follower: The downstream task.
    """
    task.downstream_task_ids.discard(follower.task_id)
    follower.upstream_task_ids.discard(task.task_id)
