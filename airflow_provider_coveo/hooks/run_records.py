"""Records of the run that uses the hook: whether Coveo accepted an item, and how many."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from airflow.providers.common.compat.sdk import get_current_context

from airflow_provider_coveo.hooks.recording import RecordingHook
from airflow_provider_coveo.state.ledger import SourceLedger
from airflow_provider_coveo.state.records import PUSHED_XCOM_KEY
from airflow_provider_coveo.state.run_marks import current_run

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Asset, Context

log = logging.getLogger(__name__)

#: The name of each count in a push's result. ``unchanged`` exists if the push skips unchanged items.
_COUNTS: Final = {
    "accepted": "accepted_adds",
    "deleted": "accepted_deletes",
    "refused": "invalid",
    "unchanged": "unchanged",
}
#: The counts of what this process's task has pushed, by source, and the task instance.
_pushed: dict[str, dict[str, int]] = {}
_pushed_by: list[object] = []


def record_accepted(hook: RecordingHook, source_id: str) -> None:
    """
    Record that the current run pushed an item to a source, once per hook.

    A bracket deletes a source's old items only if its run is known to have pushed to that source. Outside a
    task there is no run, and nothing is recorded.

    :param hook: The hook.
    :param source_id: The source.
    """
    if source_id in hook.recorded_sources:
        return
    try:
        context = get_current_context()
        task_instance = context["ti"]
        run = (str(task_instance.dag_id), str(task_instance.run_id))
    except Exception:
        # No task is running; the type of the error depends on Airflow's version.
        return
    try:
        SourceLedger(hook.organization_id).accepted(source_id, *run, current_run(context))
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


def record_pushed(hook: RecordingHook, source_id: str, result: Mapping[str, object] | None) -> None:
    """
    Save how many items the running task pushed to a source, in an XCom and in its asset events.

    The counts of the task's pushes are added up. A failed push counts with what was accepted before. Outside
    a task, nothing is saved. A failure to save a count is only logged.

    :param hook: The hook.
    :param source_id: The source.
    :param result: The result of the push, or ``None`` if it is unknown.
    """
    if result is not None:
        _record_counts(hook, source_id, {kind: result.get(key) for kind, key in _COUNTS.items()})


def record_rejected(hook: RecordingHook, source_id: str, counts: Mapping[str, object]) -> None:
    """
    Save how many accepted items Coveo's indexing pipeline rejected, along with the counts of pushes.

    Outside a task, nothing is saved. A failure to save a count is only logged.

    :param hook: The hook.
    :param source_id: The source.
    :param counts: ``rejected``, the number of operations; ``rejected_batches``, the number of whole batches.
    """
    if any(counts.values()):
        _record_counts(hook, source_id, counts)


def _record_counts(hook: RecordingHook, source_id: str, counts: Mapping[str, object]) -> None:
    try:
        context = get_current_context()
        task_instance = context["ti"]
        push = task_instance.xcom_push
    except Exception:
        # No task is running; the type of the error depends on Airflow's version.
        return
    try:
        name = f"{hook.organization_id}/{source_id}"
        added = _added_up(task_instance, name, counts)
        push(key=PUSHED_XCOM_KEY, value={each: dict(its) for each, its in _pushed.items()})
        uri = f"coveo://{hook.organization_id.lower()}/{source_id}"
        tell_assets(context, {uri: added})
    except Exception:
        log.warning("Could not record the number of items for source %s", source_id, exc_info=True)


def _added_up(task_instance: object, name: str, counts: Mapping[str, object]) -> dict[str, int]:
    # A deferred or retried task runs in a new process, except in tests.
    if not any(task_instance is each for each in _pushed_by):
        _pushed.clear()
        _pushed_by[:] = [task_instance]
    added = _pushed.setdefault(name, {})
    for kind, count in counts.items():
        if isinstance(count, int) and not isinstance(count, bool):
            added[kind] = added.get(kind, 0) + count
    return added


def tell_assets(context: Context, counts: Mapping[str, Mapping[str, int]]) -> None:
    """
    Add counts to the running task's asset events; Airflow shows them on the asset's page.

    :param context: The task's context.
    :param counts: The counts, by asset URI.
    """
    outlets: Iterable[Asset] = getattr(context["task"], "outlets", None) or ()
    for outlet in outlets:
        of_this = counts.get(str(getattr(outlet, "uri", "")))
        if of_this:
            context["outlet_events"][outlet].extra.update(of_this)
