"""Metadata of items: the values that Coveo's fields can hold, and what others are sent as."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final

import msgspec

from airflow_provider_coveo.coveo.errors import CoveoInputError, shown

#: Coveo's fields hold whole numbers of 64 bits.
SMALLEST_INT: Final = -(2**63)
LARGEST_INT: Final = 2**63 - 1
#: The types of metadata values that are sent as they are, if the encoder takes them.
PLAIN_TYPES: Final = frozenset({str, bool})


def checked_metadata(key: str, value: object) -> Any:
    """
    Return the value of a field as it is sent; the very same object where it needs no change.

    :param key: The field.
    :param value: A string, a number, a boolean, a time, what stands for one of these, or a list of them.
    :raises CoveoInputError: if no field can hold it.
    """
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        value = _of_numpy(key, value)
    if isinstance(value, (list, tuple)):
        sent = [_metadata_scalar(key, entry) for entry in value]
        # What needs no change is returned as it is, which spares a copy of the item.
        unchanged = type(value) is list and all(new is old for new, old in zip(sent, value, strict=True))
        return value if unchanged else sent
    return _metadata_scalar(key, value)


def checked_list(key: str, value: list[Any]) -> Any:
    """
    Do what :func:`checked_metadata` does, for a list that will be encoded as UTF-8 next.

    :param key: The field.
    :param value: The list.
    :raises CoveoInputError: if no field can hold it.
    """
    # Texts that can't be expressed in UTF-8 are left to the encoder.
    return value if PLAIN_TYPES.issuperset(map(type, value)) else checked_metadata(key, value)


def _of_numpy(key: str, value: Any) -> Any:
    """Return a scalar or an array of numpy as Python's own."""
    if getattr(value.dtype, "kind", "") in "mM":
        raise CoveoInputError(
            f"the time {shown(key)} has no time zone",
            remedy="Use an aware datetime, for example pandas.Timestamp(value, tz='UTC')",
        )
    return value.tolist()


def _metadata_scalar(key: str, value: object) -> Any:
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        value = _of_numpy(key, value)
    if isinstance(value, str):
        return checked_text(value if type(value) is str else "".join(value), key)
    if isinstance(value, bool):
        return value
    if isinstance(value, float):
        return _number(key, value if type(value) is float else float(value))
    if isinstance(value, int) and type(value) is int:
        return _whole_number(key, value)
    if isinstance(value, datetime):
        return _time(key, value)
    if isinstance(value, date):
        return value.isoformat()
    if value is None or isinstance(
        value, (Mapping, list, tuple, set, frozenset, bytes, bytearray, memoryview)
    ):
        raise CoveoInputError(
            f"the value of {shown(key)} is {'None' if value is None else 'a ' + type(value).__name__}",
            remedy="Metadata holds strings, numbers, booleans, times and lists of these; leave out what has "
            "no value; see https://docs.coveo.com/en/162/",
        )
    return _metadata_scalar_of_a_library(key, value)


def _time(key: str, value: datetime) -> str:
    offset = value.utcoffset()
    if offset is None:
        raise CoveoInputError(
            f"the time {shown(key)} has no time zone",
            remedy="Use an aware datetime, for example datetime.now(timezone.utc)",
        )
    if offset % timedelta(minutes=1):
        # Zones from before there were time zones have seconds, for which ISO 8601 has no place.
        try:
            value = value.astimezone(timezone.utc)
        except OverflowError:
            raise CoveoInputError(
                f"the time {shown(key)} ({value}) can't be told in UTC",
                remedy="Leave out a time that stands for none",
            ) from None
    return value.isoformat()


def _metadata_scalar_of_a_library(key: str, value: object) -> Any:
    """Return an enum, a Decimal, a UUID and the like as what it stands for."""
    if isinstance(value, Decimal) and not value.is_finite():
        raise CoveoInputError(f"{shown(key)} is {value}, which is no number that a field can hold")
    try:
        sent = msgspec.to_builtins(value)
    except (TypeError, ValueError, OverflowError):
        sent = None
    if type(sent) in {str, bool, int, float}:
        return _metadata_scalar(key, sent)
    raise CoveoInputError(
        f"the value of {shown(key)} is of type {type(value).__name__}, not JSON",
        remedy="Metadata holds strings, numbers, booleans, times and lists of these",
    )


def _number(key: str, value: float) -> float:
    if not math.isfinite(value):
        raise CoveoInputError(f"{shown(key)} is {value}, which JSON does not know")
    return value


def _whole_number(key: str, value: int) -> int:
    if not SMALLEST_INT <= value <= LARGEST_INT:
        raise CoveoInputError(
            f"the number {shown(key)} does not fit into the 64 bits that Coveo's fields have"
        )
    return value


def checked_text(text: str, key: str) -> str:
    """
    Return a text if UTF-8 can express it.

    :param text: The text.
    :param key: What it is, for the error.
    :raises CoveoInputError: if it can't.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise CoveoInputError(
            f"{shown(key)} holds half of a surrogate pair, which UTF-8 can't express",
            remedy="Decode the original bytes with the right encoding",
        ) from None
    return text
