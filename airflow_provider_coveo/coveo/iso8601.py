"""Times in ISO 8601, in every form that Coveo and users write."""

from __future__ import annotations

import re
from datetime import datetime


def parse_iso8601(text: str) -> datetime:
    """
    Parse a time. Python 3.10 itself supports neither ``Z`` nor fractions of arbitrary length.

    :param text: The time, such as ``2026-01-31T08:00:00.123456789Z``. Digits beyond microseconds are dropped.
    :raises ValueError: if it is not a time.
    """
    fraction = re.sub(r"\.\d+", lambda found: f"{found[0]:0<7}"[:7], text)
    return datetime.fromisoformat(re.sub("[Zz]$", "+00:00", fraction))
