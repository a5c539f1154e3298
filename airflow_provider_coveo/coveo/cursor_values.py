"""Values of cursors: compared, moved back by a lag, and saved as JSON without loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Final, TypeAlias
from uuid import UUID

from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.metadata import plain_text, type_name
from airflow_provider_coveo.coveo.nanoseconds import fits

CursorValue: TypeAlias = datetime | date | int | Decimal | float | str | bytes | UUID

#: The default lag for timestamps: rows that commit this much later than their timestamp are still read.
DEFAULT_LAG: Final = timedelta(minutes=5)
_MAX_TEXT: Final = 1_000
#: A timestamp without a zone may be in any zone; the earliest zone is this far ahead of UTC.
_FIRST_ZONE: Final = timedelta(hours=14)

_KINDS: Final = {
    "timestamp": "a timestamp with a time zone",
    "naive timestamp": "a timestamp without a time zone",
    "date": "a date",
    "number": "a number",
    "text": "a text",
    "bytes": "bytes",
    "uuid": "a UUID",
}


def validate_cursor_value(value: object, name: str) -> CursorValue:
    """
    Return a value that a cursor can hold, as an instance of a built-in type.

    :param value: The value. A timestamp keeps its offset, but loses fractions of a microsecond.
    :param name: The name of the value, for error messages.
    :raises CoveoInputError: if its type has no usable order, or it is not a value.
    """
    plain: CursorValue | None = None
    if isinstance(value, datetime):
        # pandas.NaT is a datetime that differs from itself.
        if value == value and fits(value):
            plain = datetime.fromisoformat(datetime.isoformat(value))
    elif isinstance(value, date):
        plain = date.fromisoformat(date.isoformat(value))
    elif isinstance(value, str):
        plain = plain_text(value)
    elif isinstance(value, (bytes, bytearray, memoryview)):
        plain = bytes(value)
    elif isinstance(value, UUID):
        plain = UUID(int=value.int)
    elif isinstance(value, Decimal):
        plain = Decimal(value) if value.is_finite() else None
    elif isinstance(value, int) and not isinstance(value, bool):
        plain = int(value)
    elif isinstance(value, float) and math.isfinite(value):
        plain = float(value)
    if plain is None or (isinstance(plain, (str, bytes)) and len(plain) > _MAX_TEXT):
        raise CoveoInputError(
            f"{name} has the value {short_repr(value)} ({type_name(value)}), which a cursor can't use",
            remedy="Use a column of timestamps, dates, numbers, or short texts that only grow",
        )
    return plain


def kind_of(value: CursorValue) -> str:
    """
    Return the kind of a value: values of the same kind can be compared.

    :param value: The value.
    """
    if isinstance(value, datetime):
        return "naive timestamp" if value.tzinfo is None else "timestamp"
    if isinstance(value, date):
        return "date"
    if isinstance(value, str):
        return "text"
    if isinstance(value, bytes):
        return "bytes"
    return "uuid" if isinstance(value, UUID) else "number"


def describe_kind(value: CursorValue) -> str:
    """
    Describe the kind of a value.

    :param value: The value.
    """
    return _KINDS[kind_of(value)]


def is_later(value: CursorValue, other: CursorValue | None) -> bool:
    """
    Return whether a value comes after another one of its kind; each comes after ``None``.

    :param value: The value.
    :param other: The other one.
    """
    # Python can compare timestamps with different offsets, and numbers of different types.
    return other is None or bool(value > other)  # type: ignore[operator]


def is_in_the_future(value: CursorValue, now: datetime | None = None) -> bool:
    """
    Return whether a value is a time in the future.

    :param value: The value. A time without a zone must be in the future in all zones.
    :param now: The current time, with a zone. Default: the time on this machine's clock.
    """
    now = datetime.now(timezone.utc) if now is None else now
    latest = (now.astimezone(timezone.utc) + _FIRST_ZONE).replace(tzinfo=None)
    if isinstance(value, datetime):
        return value > now if value.tzinfo is not None else value > latest
    return isinstance(value, date) and value > latest.date()


def validate_lag(lag: object) -> timedelta | Decimal | None:
    """
    Return the lag by which a cursor is moved back before a read.

    :param lag: A ``timedelta``, a number or its digits (seconds for times), or ``None`` for the default.
    :raises CoveoInputError: if it is none of these, or below zero.
    """
    if lag is None or lag == "":
        return None
    if isinstance(lag, timedelta):
        parsed: timedelta | Decimal | None = lag if lag >= timedelta(0) else None
    else:
        parsed = None
        if isinstance(lag, (int, float, Decimal, str)) and not isinstance(lag, bool):
            try:
                number = Decimal(str(lag).strip())
            except ArithmeticError:
                number = Decimal(-1)
            parsed = number if number.is_finite() and number >= 0 else None
    if parsed is None:
        raise CoveoInputError(
            f"Invalid lag: {short_repr(lag)}",
            remedy="Pass a timedelta, or a number of zero or more: seconds for times",
        )
    return parsed


def minus_lag(value: CursorValue, lag: timedelta | Decimal | None, name: str) -> CursorValue:
    """
    Return a value moved back by a lag, for rows that come late.

    :param value: The value.
    :param lag: The lag, as :func:`validate_lag` returns it. ``None`` means five minutes for timestamps, one
        day for dates, and nothing for other kinds.
    :param name: The name of the cursor, for error messages.
    :raises CoveoInputError: if the lag does not fit the kind of the value.
    """
    if isinstance(value, date):
        span = DEFAULT_LAG if lag is None else lag
        try:
            if isinstance(span, Decimal):
                span = timedelta(seconds=float(span))
            if not isinstance(value, datetime):
                # Later rows of the same day have the same date.
                span = timedelta(days=math.ceil(span / timedelta(days=1)))
            return value - span
        except OverflowError:
            return datetime.min.replace(tzinfo=value.tzinfo) if isinstance(value, datetime) else date.min
    if lag is None or not lag:
        return value
    if isinstance(lag, timedelta) or isinstance(value, (str, bytes, UUID)):
        raise CoveoInputError(
            f"The cursor {name} is {describe_kind(value)}, which can't be moved back by a lag of {lag}",
            remedy="Omit lag, or pass a timedelta for times, a number for numbers",
        )
    if isinstance(value, float):
        return value - float(lag)
    if isinstance(value, int) and lag == int(lag):
        return value - int(lag)
    return Decimal(value) - lag


def cursor_to_json(value: CursorValue) -> dict[str, str]:
    """
    Return a value as small JSON; :func:`cursor_from_json` restores it.

    :param value: The value.
    """
    if isinstance(value, datetime):
        return {"type": "timestamp", "value": value.isoformat()}
    if isinstance(value, date):
        return {"type": "date", "value": value.isoformat()}
    if isinstance(value, bytes):
        return {"type": "bytes", "value": value.hex()}
    names = {str: "text", UUID: "uuid", int: "int", Decimal: "decimal", float: "float"}
    return {"type": names[type(value)], "value": repr(value) if type(value) is float else str(value)}


def cursor_from_json(described: object) -> CursorValue | None:
    """
    Restore a value from the JSON of :func:`cursor_to_json`. Return ``None`` if the JSON is invalid.

    :param described: The JSON. Somebody may have edited it.
    """
    if not isinstance(described, Mapping) or not isinstance(described.get("value"), (str, int, float)):
        return None
    text = str(described["value"])
    readers: dict[str, Callable[[], CursorValue]] = {
        "timestamp": lambda: datetime.fromisoformat(text.replace("Z", "+00:00")),
        "date": lambda: date.fromisoformat(text),
        "bytes": lambda: bytes.fromhex(text),
        "text": lambda: text,
        "uuid": lambda: UUID(text),
        "int": lambda: int(text),
        "decimal": lambda: Decimal(text),
        "float": lambda: float(text),
    }
    reader = readers.get(str(described.get("type")))
    if reader is None:
        return None
    try:
        return validate_cursor_value(reader(), "the cursor")
    except (ValueError, ArithmeticError):
        return None
