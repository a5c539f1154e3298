"""Integers in user input: as an ``int``, or as the string to which a template renders."""

from __future__ import annotations

from contextlib import suppress


def parse_int(value: object) -> int | None:
    """
    Return an integer, or parse a string of digits; return ``None`` for anything else.

    :param value: The input. Neither ``True`` nor ``3.0`` is an integer.
    """
    if isinstance(value, str):
        text = value.strip()
        if text.isascii() and text.isdigit():
            # Python rejects numbers of thousands of digits.
            with suppress(ValueError):
                return int(text)
        return None
    return value if isinstance(value, int) and not isinstance(value, bool) else None
