"""The arguments that Airflow passes to the methods that wire tasks."""

from __future__ import annotations

from typing import Any


def labels_among(task_or_task_list: Any) -> list[Any]:
    """
    Return the edge labels among the objects that are wired to a task.

    :param task_or_task_list: The objects.
    """
    return [each for each in as_list(task_or_task_list) if hasattr(each, "add_edge_info")]


def as_list(task_or_task_list: Any) -> list[Any]:
    """
    Return the argument of Airflow's wiring methods as a list.

    :param task_or_task_list: A task, or several.
    """
    return list(task_or_task_list) if isinstance(task_or_task_list, (list, tuple)) else [task_or_task_list]
