"""The number of items that a bracket would delete by time, and its limit."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from airflow_provider_coveo.bracket.errors import TooManyDeletions
from airflow_provider_coveo.bracket.members import bracket_role, operator_class
from airflow_provider_coveo.coveo.errors import AccessDeniedError
from airflow_provider_coveo.coveo.max_deleted import MaxDeleted
from airflow_provider_coveo.coveo.quantities import quantity
from airflow_provider_coveo.state.records import PUSHED_XCOM_KEY

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

log = logging.getLogger(__name__)


def reject_too_many_deletions(
    context: Context, hook: CoveoPushHook, source_id: str, limit: MaxDeleted
) -> None:
    """
    Reject a deletion by time that would delete too many items.

    The estimate is the number of the source's items minus those that Coveo accepted from the run. An item
    that was accepted twice counts twice, so the estimate can be too low, but never too high.

    :param context: The context of the bracket's ``delete_old_items``.
    :param hook: The hook to read the source with.
    :param source_id: The source.
    :param limit: The number of items that can be deleted.
    :raises TooManyDeletions: if it would delete more.
    """
    total = number_of_documents(hook, source_id)
    if total is None:
        log.warning("Could not check max_deleted; deleting old items")
        return
    accepted = accepted_items(context, hook.organization_id, source_id)
    deleted = max(0, total - accepted)
    if limit.allows(deleted, total):
        log.info(
            "The run pushed %s to source %s, which has %d: at least %d will be deleted, and "
            "max_deleted allows %s",
            quantity(accepted, "item"),
            source_id,
            total,
            deleted,
            limit,
        )
        return
    raise TooManyDeletions(
        f"Old items of source {source_id!r} stay: the run pushed {quantity(accepted, 'item')}, and the "
        f"source has {total:,}, so at least {deleted:,} ({100 * deleted / total:.1f}%) would be deleted; "
        f"max_deleted allows {limit}. Likely cause: the input was incomplete; or items were pushed "
        "one by one or by other tools, which are not counted. Remedy: Check the input, and start a new run. "
        "If the deletion is intended, raise max_deleted, and clear delete_old_items and its downstream tasks."
    )


def number_of_documents(hook: CoveoPushHook, source_id: str) -> int | None:
    """
    Return the number of a source's items in the index, ``None`` if Coveo does not report it.

    :param hook: The hook to read the source with.
    :param source_id: The source.
    """
    try:
        source = hook.get_source(source_id)
    except AccessDeniedError:
        log.warning(
            "The API key lacks the privilege to view source %s, so its number of items is unknown",
            source_id,
        )
        return None
    information = source.get("information")
    number = information.get("numberOfDocuments") if isinstance(information, Mapping) else None
    if type(number) is int and number >= 0:
        return number
    log.warning("Coveo does not report the number of items in source %s", source_id)
    return None


def accepted_items(context: Context, organization_id: str, source_id: str) -> int:
    """
    Return the number of items that Coveo accepted for a source from this run's earlier tasks.

    :param context: The context of the bracket's ``delete_old_items``.
    :param organization_id: The organization.
    :param source_id: The source.
    """
    task = context["task"]
    before = [each.task_id for each in task.get_flat_relatives(upstream=True) if not bracket_role(each)]
    name = f"{organization_id}/{source_id}"
    total = 0
    for pushed in pulled(context, sorted(set(before)), PUSHED_XCOM_KEY):
        counts = pushed.get(name) if isinstance(pushed, Mapping) else None
        number = counts.get("accepted") if isinstance(counts, Mapping) else None
        total += number if type(number) is int else 0
    return total


def items_of_dry_runs(context: Context, source_id: str) -> int:
    """
    Return the number of items that the tasks before this one would have pushed to a source.

    :param context: The context of the bracket's ``delete_old_items``.
    :param source_id: The source.
    """
    task = context["task"]
    before = {
        each.task_id
        for each in task.get_flat_relatives(upstream=True)
        if getattr(operator_class(each), "pushes_items", False)
    }
    total = 0
    for result in pulled(context, sorted(before), "return_value"):
        if isinstance(result, Mapping) and result.get("dry_run") and result.get("source_id") == source_id:
            adds = result.get("adds")
            total += adds if type(adds) is int else 0
    return total


def pulled(context: Context, task_ids: Iterable[str], key: str) -> list[object]:
    """
    Return the XComs of tasks; for mapped tasks, those of each map index.

    :param context: The context of the current task.
    :param task_ids: The tasks.
    :param key: The key.
    """
    task_instance = context["ti"]
    found: list[object] = []
    for task_id in task_ids:
        value = task_instance.xcom_pull(task_ids=task_id, key=key)
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
            found.append(value)
        else:
            found += value
    return found
