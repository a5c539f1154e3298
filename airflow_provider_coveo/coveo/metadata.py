"""Metadata of items: the values that Coveo's fields can hold, and conversions of others."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Final
from uuid import UUID

from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.nanoseconds import datetime_text, duration_text, nanoseconds_of, time_text

#: Coveo's fields hold 64-bit integers.
MIN_INT: Final = -(2**63)
MAX_INT: Final = 2**63 - 1
#: Types of metadata values that are sent unchanged, if the encoder accepts them.
PLAIN_TYPES: Final = frozenset({str, bool})
#: The most digits of PostgreSQL's numeric; an exponent can expand to more than memory can hold.
_MAX_DIGITS: Final = 131_072 + 16_383
#: Floats of fewer than 64 bits, by their size in bytes: the codec, the number of digits that always survive a
#: conversion to them and back, and the smallest number for which they do.
_NARROW_FLOATS: Final = {2: (struct.Struct("<e"), 3, 2.0**-14), 4: (struct.Struct("<f"), 6, 2.0**-126)}
_CONTAINERS: Final = (Mapping, list, tuple, set, frozenset, bytes, bytearray, memoryview)


def validate_metadata(key: str, value: object) -> object:
    """
    Return the value of a field as it is sent; the same object if it needs no change.

    :param key: The field.
    :param value: A string, a number, a boolean, a time, an object that converts to one of these, or a list of
        them. An instance of a subclass is sent as the base type's value, whatever its methods return.
    :raises CoveoInputError: if no field can hold it, or it can't be read.
    """
    try:
        value = _of_numpy(key, value)
        if isinstance(value, (list, tuple)):
            entries = plain_list(value)
            sent = [_metadata_scalar(key, entry) for entry in entries]
            # Returning an unchanged list itself avoids a copy of the item.
            unchanged = type(value) is list and all(
                new is old for new, old in zip(sent, entries, strict=True)
            )
            return value if unchanged else sent
        return _metadata_scalar(key, value)
    except (CoveoInputError, MemoryError):
        raise
    except Exception as problem:
        raise unreadable(f"the value of {short_repr(key)}", problem) from None


def validate_list(key: str, value: Sequence[object]) -> object:
    """
    Do the same as :func:`validate_metadata`, for a list that is encoded as UTF-8 next.

    :param key: The field.
    :param value: The list.
    :raises CoveoInputError: if no field can hold it.
    """
    # The encoder detects texts that UTF-8 can't express.
    return value if PLAIN_TYPES.issuperset(map(type, value)) else validate_metadata(key, value)


def metadata_as_text(name: str, value: object, *, in_id: bool = False) -> str:
    """
    Return a value as a part of a composed text: as metadata sends it, without quotes.

    :param name: The value's name.
    :param value: A value that :func:`validate_metadata` accepts, except for a list.
    :param in_id: Whether the text is the ID of an item. An ID rejects floats and booleans: a 4711 that
        arrives as 4711.0, as from a column that once held NULL, would become another item.
    :raises CoveoInputError: if no field can hold it, or it can't be a part of the text.
    """
    if type(value) is str:
        return value
    sent = validate_metadata(name, value)
    if type(sent) is str:
        return sent
    if type(sent) is list or (in_id and type(sent) in {bool, float}):
        raise CoveoInputError(
            f"the value of {short_repr(name)} is a {type_name(value)}, which can't be part of "
            + ("an ID" if in_id else "a text"),
            remedy="Convert it to text or to an integer earlier, for example in the query",
        )
    if type(sent) is bool:
        return "true" if sent else "false"
    # By now, an integer has 64 bits at most.
    return format(Decimal(repr(sent)), "f")


def shortest_float(value: float, size: int) -> float:
    """
    Return the number with the fewest digits that identifies a float of 32 or 16 bits.

    Widening ``0.1`` to 64 bits would make it 0.10000000149011612, with digits that no one entered.

    :param value: The float's exact value.
    :param size: The size of the float in bytes: 4 or 2.
    """
    if not math.isfinite(value):
        return value
    codec, digits, smallest = _NARROW_FLOATS[size]
    exact = codec.pack(value)
    for count in range(digits if abs(value) >= smallest else 1, digits + 4):
        shorter = float(f"{value:.{count}g}")
        try:
            if codec.pack(shorter) == exact:
                return shorter
        except OverflowError:
            # Rounded up, it exceeds the largest float of that size.
            continue
    return value


def plain_text(text: str) -> str:
    """
    Return a text as exactly a ``str``, whatever a subclass overrides.

    :param text: The text.
    """
    return text if type(text) is str else str.__str__(text)


def plain_list(entries: list[object] | tuple[object, ...]) -> list[object] | tuple[object, ...]:
    """
    Return a list or a tuple as exactly that type, whatever a subclass overrides.

    :param entries: The list.
    """
    if type(entries) is list or type(entries) is tuple:
        return entries
    return list.copy(entries) if isinstance(entries, list) else tuple.__getitem__(entries, slice(None))


def type_name(value: object) -> str:
    """
    Return the name of a value's class.

    :param value: The value.
    """
    name: str = type.__dict__["__name__"].__get__(type(value))
    return name


def unreadable(what: str, problem: Exception) -> CoveoInputError:
    """
    Return the error for an object that raised an exception of its own while it was read.

    :param what: The object, for the message.
    :param problem: The exception.
    """
    if isinstance(problem, RecursionError):
        return CoveoInputError(f"{what} is nested too deeply", remedy="Flatten it")
    return CoveoInputError(
        f"{what} can't be read: {short_repr(problem)}",
        remedy="Leave it out, or convert it to a plain value where it is created",
    )


def _of_numpy(key: str, value: object) -> object:
    """Convert a scalar or an array of numpy or pandas to Python's types; return anything else unchanged."""
    if type(value) in PLAIN_TYPES or not (hasattr(value, "dtype") and hasattr(value, "tolist")):
        return value
    kind = getattr(value.dtype, "kind", "")
    if kind == "M" and getattr(value.dtype, "tz", None) is None:
        raise CoveoInputError(
            f"the time {short_repr(key)} has no time zone",
            remedy="Use an aware datetime, for example pandas.Timestamp(value, tz='UTC')",
        )
    if kind == "m":
        # For some units, tolist() returns a bare number whose unit is lost.
        raise CoveoInputError(
            f"the value of {short_repr(key)} is a {type_name(value)}",
            remedy="Use a datetime.timedelta, or a number of seconds",
        )
    plain = value.tolist()
    if kind == "f" and (size := getattr(value.dtype, "itemsize", 8)) in _NARROW_FLOATS:
        return _shortest_floats(plain, size)
    return plain


def _shortest_floats(value: object, size: int) -> object:
    if type(value) is list:
        return [_shortest_floats(entry, size) for entry in value]
    return shortest_float(value, size) if type(value) is float else value


def _metadata_scalar(key: str, value: object) -> object:
    kind = type(value)
    if kind is str:
        return validate_text(value, key)  # type: ignore[arg-type]
    if kind is bool:
        return value
    if kind is float:
        return _number(key, value)  # type: ignore[arg-type]
    if kind is int:
        return _whole_number(key, value)  # type: ignore[arg-type]
    if isinstance(value, Enum):
        return _metadata_scalar(key, value._value_)
    if isinstance(value, str):
        return validate_text(plain_text(value), key)
    value = _of_numpy(key, value)
    if isinstance(value, float):
        return _number(key, float.__float__(value))
    if isinstance(value, int):
        return value if type(value) is bool else _whole_number(key, int.__index__(value))
    if type(value) is str:
        return validate_text(value, key)
    if isinstance(value, (date, time, timedelta)):
        return _time(key, value)
    if isinstance(value, Decimal):
        return _decimal(key, value)
    if isinstance(value, UUID):
        return UUID.__str__(value)
    if value is None or isinstance(value, _CONTAINERS):
        raise CoveoInputError(
            f"the value of {short_repr(key)} is {'None' if value is None else 'a ' + type_name(value)}",
            remedy="Metadata can hold strings, numbers, booleans, times and lists of these; leave out keys "
            "without a value; see https://docs.coveo.com/en/162/",
        )
    raise CoveoInputError(
        f"the value of {short_repr(key)} is of type {type_name(value)}, which JSON can't hold",
        remedy="Metadata can hold strings, numbers, booleans, times and lists of these",
    )


def _time(key: str, value: date | time | timedelta) -> str:
    """Return a datetime, date, time or duration in ISO 8601, ignoring what a subclass overrides."""
    if isinstance(value, datetime):
        return _moment(key, value)
    if isinstance(value, date):
        return date.isoformat(value)
    nanoseconds = nanoseconds_of(key, value)
    if isinstance(value, time):
        text = time_text(value, nanoseconds)
        return text[:-6] + "Z" if text.endswith("+00:00") else text
    return duration_text(value, nanoseconds)


def _moment(key: str, value: datetime) -> str:
    if type_name(value) == "NaTType":
        raise CoveoInputError(f"the time {short_repr(key)} is NaT (not a time)", remedy="Leave it out")
    nanoseconds = nanoseconds_of(key, value)
    if type(value) is not datetime:
        value = datetime.combine(datetime.date(value), datetime.timetz(value))
    offset = value.utcoffset()
    if offset is None:
        raise CoveoInputError(
            f"the time {short_repr(key)} has no time zone",
            remedy="Use an aware datetime, for example datetime.now(timezone.utc); in a Parquet file or a "
            "query, convert the column to a type with a time zone, or to text",
        )
    if offset % timedelta(minutes=1):
        # Offsets from before standard time have seconds, which ISO 8601 can't express.
        try:
            value = value.astimezone(timezone.utc)
        except OverflowError:
            raise CoveoInputError(
                f"the time {short_repr(key)} ({value}) can't be converted to UTC",
                remedy="Leave it out if it means “no time”",
            ) from None
    return datetime_text(value, nanoseconds)


_NO_NUMBER: Final = "Leave it out, or pass null (None) in the column of a table or a query"


def _decimal(key: str, value: Decimal) -> str:
    if not Decimal.is_finite(value):
        raise CoveoInputError(
            f"{short_repr(key)} is {Decimal.__str__(value)}, which no field can hold", remedy=_NO_NUMBER
        )
    _, digits, exponent = Decimal.as_tuple(value)
    assert isinstance(exponent, int)
    if len(digits) + abs(exponent) > _MAX_DIGITS:
        raise CoveoInputError(f"the number {short_repr(key)} has more than {_MAX_DIGITS:,} digits")
    return Decimal.__format__(value, "f")


def _number(key: str, value: float) -> float:
    if not math.isfinite(value):
        raise CoveoInputError(f"{short_repr(key)} is {value}, which JSON can't express", remedy=_NO_NUMBER)
    return value


def _whole_number(key: str, value: int) -> int:
    if not MIN_INT <= value <= MAX_INT:
        raise CoveoInputError(f"the number {short_repr(key)} does not fit into the 64 bits of Coveo's fields")
    return value


def validate_text(text: str, key: str) -> str:
    """
    Return a text if UTF-8 can express it.

    :param text: The text.
    :param key: Its name in the error.
    :raises CoveoInputError: if it can't.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        raise CoveoInputError(
            f"{short_repr(key)} contains half of a surrogate pair, which UTF-8 can't express",
            remedy="Decode the original bytes with the right encoding",
        ) from None
    return text
