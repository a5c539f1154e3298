"""What the Source API says of a source, in the words that the provider needs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any


def is_active(source: Mapping[str, Any]) -> bool:
    """
    Say whether a source shows an activity, such as a rebuild that was begun and not ended.

    :param source: The model that ``GET /rest/organizations/{org}/sources/{source}`` answers.
    """
    return _status(source).get("type") == "REFRESHING"


def active_since_ms(source: Mapping[str, Any]) -> int | None:
    """Return when the running activity began, in epoch milliseconds; ``None`` where that isn't said."""
    status = _status(source)
    for key in ("createdDate", "timestamp"):
        moment = _epoch_ms(status.get(key))
        if moment is not None:
            return moment
    return None


def _status(source: Mapping[str, Any]) -> Mapping[str, Any]:
    return (source.get("information") or {}).get("sourceStatus") or {}


def _epoch_ms(value: object) -> int | None:
    # The OpenAPI file declares dates as strings; the API is known to answer epoch milliseconds as well.
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
        except ValueError:
            return None
        return int((moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp() * 1000)
    return None
