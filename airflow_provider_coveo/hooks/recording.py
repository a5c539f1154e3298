"""The part of the hook that its records need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from airflow.providers.common.compat.sdk import get_current_context

from airflow_provider_coveo.coveo.connection import ConnectionSettings

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class RecordingHook(Protocol):
    """The part of ``CoveoPushHook`` that the records of a run use."""

    #: The sources for which it is already recorded that Coveo accepted an item from the task's run.
    recorded_sources: set[str]
    #: The context of the task that uses the hook, if it differs from the task that Airflow executes.
    task_context: Context | None
    #: The last change that the hook recorded, by source.
    last_changes: dict[str, str]

    @property
    def log(self) -> Any:
        """The logger."""

    @property
    def organization_id(self) -> str:
        """The ID of the organization that requests go to."""

    @property
    def settings(self) -> ConnectionSettings:
        """The connection's settings."""


def task_context(hook: RecordingHook) -> Context | None:
    """
    Return the context of the task that uses a hook, or ``None`` outside a task.

    :param hook: The hook.
    """
    context = hook.task_context
    if context is None:
        try:
            context = get_current_context()
        except Exception:
            # No task is running; the type of the error depends on Airflow's version.
            return None
    return context if "ti" in context else None
