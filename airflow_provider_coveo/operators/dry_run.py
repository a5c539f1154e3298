"""The parameter ``dry_run`` of operators: their attribute is ``is_dry_run``, as Airflow has that method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_coveo.coveo.flags import parse_flag
from airflow_provider_coveo.operators.base import _checked

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


def runs_dry(is_dry_run: bool | str, context: Context) -> bool:
    """
    Return whether a task must send nothing. In that case, its assets get no events, either.

    :param is_dry_run: The rendered parameter.
    :param context: The task's context.
    :raises CoveoInputError: if it is neither on nor off; the task does not retry.
    """
    if is_dry_run is False:
        return False
    dry = _checked(lambda value: parse_flag("dry_run", value), is_dry_run)
    if dry:
        leave_assets_alone(context)
    return dry


def leave_assets_alone(context: Context) -> None:
    """
    Let a task that succeeds emit no event of its assets, so that nothing is scheduled on them.

    :param context: The task's context.
    """
    task = context.get("task")
    if task is not None:
        task.outlets = []
