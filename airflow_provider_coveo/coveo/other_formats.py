"""What is given in the place of an item, but stands for something else: named, with what to give instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_BULK_ACTIONS: Final = frozenset({"index", "create", "update", "delete"})


def other_format(properties: Mapping[str, Any]) -> tuple[str, str] | None:
    """
    Return what an object without a ``documentId`` is, and what to give instead; ``None`` if it can't be told.

    :param properties: The object's members.
    """
    lists = {key.lower() for key, value in properties.items() if isinstance(value, (list, tuple))}
    objects = {key.lower() for key, value in properties.items() if isinstance(value, Mapping)}
    if lists & {"addorupdate", "delete"}:
        return (
            "the body of a whole batch",
            "Give each entry of addOrUpdate as an item of its own, and each of delete as a Delete",
        )
    if len(properties) == 1 and objects & _BULK_ACTIONS:
        return (
            "a line of Elasticsearch's bulk format that says what to do with the next line",
            "Leave such lines out, and give each document a documentId, as in elastic://products/4711",
        )
    if "_source" in objects or (len(properties) <= 2 and "doc" in objects):
        inner = "_source" if "_source" in objects else "doc"
        return (
            "a document in the form of Elasticsearch",
            f"Take what is under {inner}, and give it a documentId, as in elastic://products/4711",
        )
    if "identity" in objects or lists & {"members", "mappings", "deleted"}:
        return "a security identity, or a batch of them", "Use PushSecurityIdentitiesOperator"
    return None
