"""
The source of a mapped bracket, if it comes from the list over which the bracket is mapped.

A map index then does not identify the source: after a clear, the list can have another order or length. The
tasks of the index read the new list, so what they push must go to the source in that list, or nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_coveo.bracket.errors import MappedSourceChanged

if TYPE_CHECKING:
    from airflow_provider_coveo.state.ledger import BracketRecord

#: The fields of a provider task that identify its source. They follow the bracket's.
IDENTITY_FIELDS: Final = ("source_id", "coveo_conn_id", "organization_id")


def expanded_fields(opening: object) -> tuple[str, ...]:
    """
    Return the fields that identify a bracket's source and come from the expansion of a mapped task group.

    :param opening: The bracket's ``open``, whose fields are not rendered yet.
    """
    return tuple(name for name in IDENTITY_FIELDS if _is_of_expansion(getattr(opening, name, None)))


def _is_of_expansion(value: Any) -> bool:
    """Return whether a value differs by map index: an argument of the group, or a result of a task in it."""
    if type(value).__name__ == "MappedArgument":
        return True
    references = getattr(value, "iter_references", None)
    if references is None:
        return False
    return any(task.get_closest_mapped_task_group() is not None for task, _ in references())


def changed_fields(record: BracketRecord, rendered: dict[str, object]) -> list[str]:
    """
    Return the fields whose value is no longer that with which a bracket opened its source.

    :param record: The bracket's record.
    :param rendered: The values of its fields that come from the expansion.
    """
    if not record.is_pinned:
        return []
    return [name for name, value in rendered.items() if value is not None and value != getattr(record, name)]


def source_changed(
    action: str, record: BracketRecord, rendered: dict[str, object], names: Sequence[str], remedy: str
) -> MappedSourceChanged:
    """
    Return the error that a map index now has another source.

    :param action: What was attempted.
    :param record: The bracket's record.
    :param rendered: The values of its fields that come from the expansion.
    :param names: The fields that changed.
    :param remedy: What to do.
    """
    now = ", ".join(f"{name} {rendered[name]!r}" for name in names)
    return MappedSourceChanged(
        f"Could not {action}: this map index of the bracket opened source {record.source_id!r}, and now has "
        f"{now}. Nothing was sent. Likely cause: the list over which the bracket is mapped has another order "
        f"or length since a task was cleared. Remedy: {remedy}"
    )
