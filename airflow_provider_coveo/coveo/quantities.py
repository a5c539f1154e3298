"""Numbers with their nouns, and times from now, for messages."""

from __future__ import annotations

from datetime import datetime, timedelta


def quantity(number: int, singular: str, plural: str = "") -> str:
    """
    Return a number with its noun: ``1 item``, ``2,000 items``.

    :param number: The number.
    :param singular: The noun in the singular.
    :param plural: The noun in the plural. Default: the singular with an ``s``.
    """
    return f"{number:,} {noun_for(number, singular, plural)}"


def noun_for(number: int, singular: str, plural: str = "") -> str:
    """
    Return the form of a noun, or of a verb, that fits a number.

    :param number: The number.
    :param singular: The form for 1.
    :param plural: The form for other numbers. Default: the singular with an ``s``.
    """
    return singular if number == 1 else plural or f"{singular}s"


def next_day_in_words(now: datetime) -> str:
    """Return when a daily quota renews, as text: Coveo documents only that it does so the next day."""
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    minutes = int((midnight - now).total_seconds() // 60)
    return f"renews the next day, which in UTC begins in {minutes // 60} h {minutes % 60} min"
