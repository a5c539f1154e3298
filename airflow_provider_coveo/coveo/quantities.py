"""Numbers with their nouns, for messages."""

from __future__ import annotations


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
