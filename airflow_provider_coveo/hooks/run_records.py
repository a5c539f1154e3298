"""What the hook records of the run that uses it: that Coveo accepted an item of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import get_current_context

from airflow_provider_coveo.state.ledger import SourceLedger

if TYPE_CHECKING:
    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

log = logging.getLogger(__name__)


def record_accepted(hook: CoveoPushHook, source_id: str) -> None:
    """
    Record that the running task's run pushed an item to a source, once for each hook.

    A bracket deletes old items only of a source to which its run is known to have pushed. Outside a task
    there is no run, and nothing is recorded.

    :param hook: The hook.
    :param source_id: The source.
    """
    if source_id in hook.recorded_sources:
        return
    try:
        context: Any = get_current_context()
        task_instance = context["ti"]
        run = (str(task_instance.dag_id), str(task_instance.run_id))
    except Exception:
        # No task is running; which error says so depends on Airflow's version.
        return
    try:
        SourceLedger(hook.organization_id).accepted(source_id, *run)
    except Exception as error:
        log.warning(
            "Could not record that run %r of DAG %r pushed to source %s; a bracket around it will not delete "
            "old items: %r",
            run[1],
            run[0],
            source_id,
            error,
        )
        return
    hook.recorded_sources.add(source_id)
