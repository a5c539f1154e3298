"""Parse JSON the way Coveo does: keys are case-insensitive, and duplicate keys are an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NoReturn


class RepeatedKeys(dict[str, object]):
    """A JSON object in which a key occurs twice, ignoring case."""


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    decoded = dict(pairs)
    if len({key.lower() for key in decoded}) != len(pairs):
        return RepeatedKeys(pairs)
    return decoded


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def decode(body: bytes) -> object:
    """
    Decode ``body``; an object with a duplicate key becomes a :class:`RepeatedKeys`.

    :raises ValueError: if it is not JSON in UTF-8.
    """
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_reject_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def has_repeated_keys(value: object) -> bool:
    """Whether ``value`` is or contains an object with a duplicate key."""
    if isinstance(value, RepeatedKeys):
        return True
    if isinstance(value, dict):
        return any(has_repeated_keys(part) for part in value.values())
    if isinstance(value, list):
        return any(has_repeated_keys(part) for part in value)
    return False


def member(value: Mapping[str, object], name: str) -> object:
    """Return the member ``name`` of an object in any case, ``None`` if it is missing."""
    if name in value:
        return value[name]
    lowered = name.lower()
    return next((part for key, part in value.items() if key.lower() == lowered), None)
