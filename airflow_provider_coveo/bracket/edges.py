"""What Airflow passes to the methods by which tasks are wired."""

from __future__ import annotations

from typing import Any


def labels_among(task_or_task_list: Any) -> list[Any]:
    """
    Return those that are labels of edges among what is wired to a task.

    :param task_or_task_list: What is wired.
    """
    return [each for each in as_list(task_or_task_list) if hasattr(each, "add_edge_info")]


def as_list(task_or_task_list: Any) -> list[Any]:
    """
    Return what the wiring methods of Airflow take as a list.

    :param task_or_task_list: A task, or several.
    """
    return list(task_or_task_list) if isinstance(task_or_task_list, (list, tuple)) else [task_or_task_list]
