"""
The keyword arguments that the bracket's tasks pass on to their base classes.

They exist for type checkers and editors only, so no module imports them when it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_coveo.operators.arguments import SourceArguments

if TYPE_CHECKING:
    from airflow_provider_coveo.bracket.members import UpdateTasks


class UpdateTaskArguments(SourceArguments, total=False):
    """The arguments of each task of a bracket."""

    update_tasks: UpdateTasks
