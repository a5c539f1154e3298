"""
The source of a mapped bracket, if it comes from the list over which the bracket is mapped.

A map index then does not identify the source: after a clear, the list can have another order or length. The
tasks of the index read the new list, so what they push must go to the source in that list, or nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_coveo.bracket.errors import MappedSourceChanged
from airflow_provider_coveo.bracket.members import mapped_group_id

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_coveo.state.airflow_types import Operator
    from airflow_provider_coveo.state.ledger import BracketRecord

#: The fields of a provider task that identify its source. They follow the bracket's.
IDENTITY_FIELDS: Final = ("source_id", "coveo_conn_id", "organization_id")
#: The names in a template whose values depend on the map index.
_OF_A_MAP_INDEX: Final = re.compile(r"\b(ti|task_instance|task_instance_key_str|map_index)\b")


def expanded_fields(opening: Operator) -> tuple[str, ...]:
    """
    Return the fields that identify a bracket's source and depend on the map index of a mapped task group.

    :param opening: The bracket's ``open``, whose fields are not rendered yet.
    """
    if mapped_group_id(opening) is None:
        return ()
    return tuple(name for name in IDENTITY_FIELDS if _is_of_expansion(getattr(opening, name, None)))


def _is_of_expansion(value: object) -> bool:
    """Return whether a value differs by map index: of the group's arguments, a task in it, or a template."""
    if isinstance(value, str):
        return "{" in value and _OF_A_MAP_INDEX.search(value) is not None
    if _is_argument(value):
        return True
    references = getattr(value, "iter_references", None)
    if references is None:
        return False
    return any(task.get_closest_mapped_task_group() is not None for task, _ in references())


def _is_argument(value: object) -> bool:
    """Return whether a value is an argument of the mapped task group."""
    return type(value).__name__ == "MappedArgument"


def indexes_of_source(
    context: Context, opening: Operator, source_id: str, indexes: Iterable[int]
) -> set[int] | None:
    """
    Return the map indexes of a bracket whose source is the given one, also if they have not opened it yet.

    ``None`` if a task in the group, or a template, computes the source for each map index.

    :param context: The context of one of the bracket's tasks, or of a task in its run.
    :param opening: The bracket's ``open``, whose fields are not rendered.
    :param source_id: The source.
    :param indexes: All map indexes of the bracket.
    """
    value = getattr(opening, "source_id", None)
    if value is None or not _is_of_expansion(value):
        return set(indexes)
    if not _is_argument(value):
        return None
    values, key = value._input.value, value._key
    stride = 1
    if isinstance(values, Mapping):
        # Of `expand`: a list for each argument. The last argument changes first.
        names = [_resolved(each, context) for each in _resolved(values[key], context)]
        for later in list(values)[list(values).index(key) + 1 :]:
            stride *= len(_resolved(values[later], context))
    else:
        # Of `expand_kwargs`: the arguments of each map index.
        names = [_resolved(each, context).get(key) for each in _resolved(values, context)]
    if source_id not in names:
        return None
    return {index for index in indexes if names[index // stride % len(names)] == source_id}


def _resolved(value: object, context: Context) -> Any:
    """Return a value, or the result of a task for which it stands."""
    resolve = getattr(value, "resolve", None)
    if resolve is None:
        return value
    found = resolve(context)
    # The results of a mapped task: otherwise, each of them would be another request.
    return found[:] if type(found).__name__ == "LazyXComSequence" else found


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
