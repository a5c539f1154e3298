"""Input that is not an item but another known format: its name, and the fix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from airflow_provider_coveo.coveo.errors import CoveoInputError

_BULK_ACTIONS: Final = frozenset({"index", "create", "update", "delete"})


def other_format(properties: Mapping[str, object]) -> tuple[str, str] | None:
    """
    Return the format of an object without a ``documentId`` and the fix, ``None`` for an unknown format.

    :param properties: The object's members.
    """
    lists = {key.lower() for key, value in properties.items() if isinstance(value, (list, tuple))}
    objects = {key.lower() for key, value in properties.items() if isinstance(value, Mapping)}
    if lists & {"addorupdate", "delete"}:
        return (
            "the body of a whole batch",
            "Pass each entry of addOrUpdate as an item, and each entry of delete as a Delete",
        )
    if len(properties) == 1 and objects & _BULK_ACTIONS:
        return (
            "an action line of Elasticsearch's bulk format",
            "Remove such lines, and add a documentId to each document, as in elastic://products/4711",
        )
    if "_source" in objects or (len(properties) <= 2 and "doc" in objects):
        inner = "_source" if "_source" in objects else "doc"
        return (
            "a document in Elasticsearch's format",
            f"Pass the object under {inner}, and add a documentId, as in elastic://products/4711",
        )
    if "identity" in objects or lists & {"members", "mappings", "deleted"}:
        return "a security identity, or a batch of them", "Use PushSecurityIdentitiesOperator"
    return None


#: White space and invisible characters, as spreadsheets and joined files leave them around names.
_AROUND: Final = " \t\r\n\v\f\xa0\u200b\u2060\ufeff"


def padded_key(key: str, known: Mapping[str, str]) -> str | None:
    """
    Return the known key that a key would be without the white space around it, ``None`` if there is none.

    :param key: The key.
    :param known: The known keys, by their lower case.
    """
    bare = key.strip(_AROUND)
    return known.get(bare.lower()) if len(bare) < len(key) else None


def reject_padded_key(key: str, known: Mapping[str, str]) -> None:
    """
    Reject a key with white space around a known one: Coveo would ignore it.

    :param key: The key.
    :param known: The known keys, by their lower case.
    :raises CoveoInputError: if it is such a key.
    """
    meant = padded_key(key, known)
    if meant is not None:
        raise CoveoInputError(
            f"the key {ascii(key)[:50]} is not {meant}: white space or an invisible character is around it",
            remedy="Remove that where the item is created",
        )
