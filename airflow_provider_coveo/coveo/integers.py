"""Whole numbers as users give them: as such, or as a template renders them."""

from __future__ import annotations

from contextlib import suppress


def parse_int(value: object) -> int | None:
    """
    Return a whole number, or the one whose digits stand in a string; ``None`` for anything else.

    :param value: What was given. ``True`` is no number, nor is ``3.0``.
    """
    if isinstance(value, str):
        text = value.strip()
        if text.isascii() and text.isdigit():
            # Python reads no number of thousands of digits.
            with suppress(ValueError):
                return int(text)
        return None
    return value if isinstance(value, int) and not isinstance(value, bool) else None
