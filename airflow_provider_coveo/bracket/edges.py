"""The arguments that Airflow passes to the methods that wire tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TypeGuard

    from airflow.providers.common.compat.sdk import EdgeModifier

    from airflow_provider_coveo.state.airflow_types import Wirable, Wirables


def labels_among(task_or_task_list: Wirables) -> list[EdgeModifier]:
    """
    Return the edge labels among the objects that are wired to a task.

    :param task_or_task_list: The objects.
    """
    return [each for each in as_list(task_or_task_list) if _is_label(each)]


def _is_label(each: Wirable) -> TypeGuard[EdgeModifier]:
    return hasattr(each, "add_edge_info")


def as_list(task_or_task_list: Wirables) -> list[Wirable]:
    """
    Return the argument of Airflow's wiring methods as a list.

    :param task_or_task_list: A task, or several.
    """
    return list(task_or_task_list) if isinstance(task_or_task_list, Sequence) else [task_or_task_list]
