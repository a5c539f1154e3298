"""Records as JSON that other versions wrote, or will read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final, TypeVar

T = TypeVar("T")

#: The XCom in which a task keeps how many items it pushed, by source.
PUSHED_XCOM_KEY: Final = "coveo_pushed"

_NUMBERS: Final[dict[str, Any]] = {"int": int, "float": (int, float)}


def from_record(record_type: type[T], value: Any) -> T | None:
    """
    Return a record with the fields that this version knows, ``None`` if one that it needs is missing.

    A later version may store more in the same Variable, and both may be at work during an upgrade. A value
    that the field can't have was edited by hand: then nothing of the record is believed.

    :param record_type: The dataclass.
    :param value: What was read.
    """
    if not isinstance(value, Mapping):
        return None
    known = {field.name: str(field.type) for field in fields(record_type)}  # type: ignore[arg-type]
    given = {name: each for name, each in value.items() if name in known}
    if not all(_fits(known[name], each) for name, each in given.items()):
        return None
    try:
        return record_type(**given)
    except TypeError:
        return None


def _fits(annotation: str, value: Any) -> bool:
    """Return whether JSON may hold a value for a field, by the field's annotation as it is written."""
    return any(_is_a(each.strip(), value) for each in annotation.split("|"))


def _is_a(name: str, value: Any) -> bool:
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
