"""Records as JSON that other versions wrote, or will read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any, Final, TypeVar

T = TypeVar("T")

#: The XCom in which a task keeps how many items it pushed, by source.
PUSHED_XCOM_KEY: Final = "coveo_pushed"

_NUMBERS: Final[dict[str, Any]] = {"int": int, "float": (int, float)}


def from_record(record_type: type[T], value: object) -> T | None:
    """
    Return a record with the fields that this version knows, ``None`` if one that it needs is missing.

    A later version may store more in the same Variable, and both may be at work during an upgrade. A value
    that the field can't have was edited by hand: then nothing of the record is believed.

    :param record_type: The dataclass.
    :param value: What was read.
    """
    if not isinstance(value, Mapping):
        return None
    known = _kinds(record_type)  # type: ignore[arg-type]
    given = {name: each for name, each in value.items() if name in known}
    if not all(_fits(known[name], each) for name, each in given.items()):
        return None
    try:
        return record_type(**given)
    except TypeError:
        return None


@cache
def _kinds(record_type: type[Any]) -> dict[str, tuple[str, ...]]:
    """Return the fields of a record, each with what JSON may hold for it, by its annotation."""
    return {
        field.name: tuple(each.strip() for each in str(field.type).split("|"))
        for field in fields(record_type)
    }


def _fits(kinds: tuple[str, ...], value: object) -> bool:
    return any(_is_a(each, value) for each in kinds)


def _is_a(name: str, value: object) -> bool:
    if name == "None":
        return value is None
    if name.startswith("tuple"):
        return isinstance(value, (list, tuple))
    if name == "bool":
        return isinstance(value, bool)
    if name in _NUMBERS:
        return isinstance(value, _NUMBERS[name]) and not isinstance(value, bool)
    # All others are texts, as an enumeration's values are.
    return isinstance(value, str)


def as_pair(value: object) -> Any:
    """
    Return what JSON made a list of as the pair that it was, ``None`` if it is none.

    :param value: What was read.
    """
    return tuple(value) if isinstance(value, (list, tuple)) and len(value) == 2 else None
