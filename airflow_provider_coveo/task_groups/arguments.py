"""
The keyword arguments that task groups pass on to Airflow's ``TaskGroup``.

They exist for type checkers and editors only, so no module imports them when it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import DAG, TaskGroup


class GroupArguments(TypedDict, total=False):
    """The arguments of a task group, without its ID and what prevents a second one with the same ID."""

    #: Airflow 3.0 and later.
    group_display_name: str
    prefix_group_id: bool
    parent_group: TaskGroup | None
    dag: DAG
    #: A dict; Airflow declares no type for it.
    default_args: Any
    tooltip: str
    #: Airflow 3.3 and later.
    doc_md: str | None
    ui_color: str
    ui_fgcolor: str


class UpdateArguments(GroupArguments, total=False):
    """The arguments of a bracket's task group, without its ID."""

    add_suffix_on_collision: bool


class NamedGroupArguments(UpdateArguments, total=False):
    """All arguments of a task group."""

    group_id: str | None
