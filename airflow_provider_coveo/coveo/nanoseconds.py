"""Times with nanoseconds; Python's own types end at microseconds."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from operator import index
from typing import Final

from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr

#: The lengths in ISO 8601 up to the microseconds; the zone follows.
_DATETIME_LENGTH: Final = len("2026-01-31T08:00:00.123456")
_TIME_LENGTH: Final = len("08:00:00.123456")
_NS_PER_SECOND: Final = 10**9


class NanosecondDatetime(datetime):
    """A datetime with nanoseconds beyond its microseconds, from 0 to 999, with the names that pandas uses."""

    nanosecond = 0

    def isoformat(self, sep: str = "T", timespec: str = "auto") -> str:
        """Return all digits unless a unit is chosen."""
        if timespec != "auto":
            return super().isoformat(sep, timespec)
        return datetime_text(self, self.nanosecond).replace("T", sep, 1)


class NanosecondTime(time):
    """A time of day with nanoseconds beyond its microseconds, from 0 to 999."""

    nanosecond = 0

    def isoformat(self, timespec: str = "auto") -> str:
        """Return all digits unless a unit is chosen."""
        return time_text(self, self.nanosecond) if timespec == "auto" else super().isoformat(timespec)


class NanosecondTimedelta(timedelta):
    """A duration with nanoseconds beyond its microseconds, from 0 to 999, with the names that pandas uses."""

    nanoseconds = 0


def with_nanoseconds(value: datetime | time | timedelta, nanoseconds: int) -> datetime | time | timedelta:
    """
    Return a time with nanoseconds; the same object if there are none.

    :param value: The time.
    :param nanoseconds: The nanoseconds beyond its microseconds, from 0 to 999.
    """
    if not nanoseconds:
        return value
    if isinstance(value, datetime):
        moment = NanosecondDatetime.combine(value.date(), value.timetz()).replace(fold=value.fold)
        moment.nanosecond = nanoseconds
        return moment
    if isinstance(value, time):
        clock = NanosecondTime(
            value.hour, value.minute, value.second, value.microsecond, value.tzinfo, fold=value.fold
        )
        clock.nanosecond = nanoseconds
        return clock
    duration = NanosecondTimedelta(value.days, value.seconds, value.microseconds)
    duration.nanoseconds = nanoseconds
    return duration


def nanoseconds_of(key: str, value: datetime | time | timedelta) -> int:
    """
    Return the nanoseconds of a time beyond its microseconds, from 0 to 999.

    Subclasses store them next to the value that Python's own methods use: as ``nanosecond`` or
    ``nanoseconds`` (pandas), or as all digits of the second (Google's clients).

    :param key: The field, for error messages.
    :param value: The time.
    :raises CoveoInputError: if Python's type can't hold it, such as a pandas year above 9999.
    """
    base = next(kind for kind in (datetime, time, timedelta) if isinstance(value, kind))
    if type(value) is base:
        return 0
    name = "nanoseconds" if base is timedelta else "nanosecond"
    microsecond = getattr(base, "microseconds" if base is timedelta else "microsecond").__get__(value)
    try:
        nanoseconds = index(getattr(value, name, 0))
    except TypeError:
        nanoseconds = -1
    if nanoseconds >= 1000 and nanoseconds // 1000 == microsecond:
        nanoseconds %= 1000
    if not 0 <= nanoseconds < 1000 or not fits(value):
        raise CoveoInputError(
            f"the time {short_repr(key)} ({short_repr(value)}) is out of the range of Python's "
            f"{base.__name__}",
            remedy="Leave it out if it means “no time”, or convert it to text",
        )
    return nanoseconds


def fits(value: datetime | time | timedelta) -> bool:
    """
    Return whether Python's own type can hold the value of its subclass.

    :param value: The time.
    """
    if isinstance(value, datetime):
        # Beyond the years 1 to 9999, pandas leaves another year in the base class.
        return bool(value.year == datetime.year.__get__(value))
    if isinstance(value, timedelta):
        # Beyond a billion days, pandas leaves zero there.
        return bool(abs(value.total_seconds() - timedelta.total_seconds(value)) < 1)
    return True


def datetime_text(value: datetime, nanoseconds: int) -> str:
    """
    Return a datetime in ISO 8601, with nine digits after the second if it has nanoseconds.

    :param value: The datetime.
    :param nanoseconds: The nanoseconds beyond its microseconds.
    """
    if not nanoseconds:
        return datetime.isoformat(value)
    return _with_digits(datetime.isoformat(value, timespec="microseconds"), _DATETIME_LENGTH, nanoseconds)


def time_text(value: time, nanoseconds: int) -> str:
    """
    Return a time of day in ISO 8601, with nine digits after the second if it has nanoseconds.

    :param value: The time.
    :param nanoseconds: The nanoseconds beyond its microseconds.
    """
    if not nanoseconds:
        return time.isoformat(value)
    return _with_digits(time.isoformat(value, "microseconds"), _TIME_LENGTH, nanoseconds)


def duration_text(value: timedelta, nanoseconds: int) -> str:
    """
    Return a duration in ISO 8601: days, and seconds with as many digits as it has.

    :param value: The duration.
    :param nanoseconds: The nanoseconds beyond its microseconds.
    """
    days, seconds, microseconds = (
        getattr(timedelta, part).__get__(value) for part in ("days", "seconds", "microseconds")
    )
    total = ((days * 86_400 + seconds) * 1_000_000 + microseconds) * 1000 + nanoseconds
    whole, fraction = divmod(abs(total), _NS_PER_SECOND)
    days, seconds = divmod(whole, 86_400)
    text = f"{'-' * (total < 0)}P" + f"{days}D" * bool(days)
    if not seconds and not fraction:
        return text if days else "P0D"
    digits = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"{text}T{seconds}{digits}S"


def _with_digits(text: str, length: int, nanoseconds: int) -> str:
    return f"{text[:length]}{nanoseconds:03d}{text[length:]}"
