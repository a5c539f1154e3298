"""What the hook's records need of the hook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from airflow.providers.common.compat.sdk import get_current_context

from airflow_provider_coveo.coveo.connection import ConnectionSettings

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class RecordingHook(Protocol):
    """The part of ``CoveoPushHook`` that the records of a run use."""

    #: The sources of which the running task's run has recorded that Coveo accepted an item.
    recorded_sources: set[str]
    #: The context of the task that uses the hook, if it is not the one that Airflow executes.
    task_context: Context | None
    #: The change of each source's content that the hook recorded last.
    last_changes: dict[str, str]

    @property
    def log(self) -> Any:
        """The log."""

    @property
    def organization_id(self) -> str:
        """The organization that the hook works on."""

    @property
    def settings(self) -> ConnectionSettings:
        """The connection's settings."""


def task_context(hook: RecordingHook) -> Context | None:
    """
    Return the context of the task that uses a hook, ``None`` outside a task.

    :param hook: The hook.
    """
    context = hook.task_context
    if context is None:
        try:
            context = get_current_context()
        except Exception:
            # No task is executed; which error says so depends on Airflow's version.
            return None
    return context if "ti" in context else None
