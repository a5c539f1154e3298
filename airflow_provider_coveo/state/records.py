"""JSON records that other versions of the provider may have written, or may read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")

#: The XCom in which a task saves the number of items that it pushed, by source.
PUSHED_XCOM_KEY: Final = "coveo_pushed"

_NUMBERS: Final[dict[str, tuple[type, ...]]] = {"int": (int,), "float": (int, float)}


def from_record(record_type: type[T], value: object) -> T | None:
    """
    Return a record with the fields that this version knows, ``None`` if a required one is missing.

    A later version may store more fields in the same Variable, and both versions can run during an upgrade.
    If a field has an invalid value, somebody edited the record by hand, and the whole record is ignored.

    :param record_type: The dataclass.
    :param value: The stored value.
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
def _kinds(record_type: type[DataclassInstance]) -> dict[str, tuple[str, ...]]:
    """Return the fields of a record and the types of their JSON values, from the annotations."""
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
    # All others are strings, like the values of an enumeration.
    return isinstance(value, str)


def as_tuple(value: object, length: int = 2) -> Any:
    """
    Return a tuple that JSON stores as a list, ``None`` for anything else.

    :param value: The stored value.
    :param length: Its length. Default: a pair.
    """
    return tuple(value) if isinstance(value, (list, tuple)) and len(value) == length else None
