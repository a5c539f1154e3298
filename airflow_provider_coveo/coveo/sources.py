"""What the Source API takes and says of a source, in the words that the provider needs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Final

from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.statuses import SourceStatus

#: Who sees the items of a source: those that each item's permissions name, everybody, or those that the
#: source names. See https://docs.coveo.com/en/1779/.
VISIBILITIES: Final = ("SECURED", "SHARED", "PRIVATE")

#: What the platform calls the three kinds of updates.
_BY_REFRESH_TYPE: Final = {
    "REBUILD": SourceStatus.REBUILD,
    "FULL_REFRESH": SourceStatus.REFRESH,
    "INCREMENTAL_REFRESH": SourceStatus.INCREMENTAL,
}
#: States that a source does not leave by itself, and what to do about them.
_TROUBLE: Final = {
    "ERROR": "is in error",
    "PAUSED_ON_ERROR": "was paused by Coveo because of errors",
    "DISABLED": "is disabled",
    "DELETING": "is being deleted",
}


def validate_source_name(name: object) -> str:
    """
    Return the name of a source if it can be one.

    :param name: The name.
    :raises CoveoInputError: if it is no text, or empty, has spaces around it or control characters in it, or
        is what a template renders to where there is nothing.
    """
    is_line = isinstance(name, str) and name and name == name.strip() and name.isprintable()
    rendered_to_nothing = name is None or name == "None"
    if is_line and not rendered_to_nothing:
        return str(name)
    raise CoveoInputError(
        f"{short_repr(name)} can't be the name of a source",
        cause="a template rendered to nothing" if rendered_to_nothing else "",
        remedy="Give one line of text without spaces around it",
    )


def validate_visibility(visibility: object) -> str:
    """
    Return a ``sourceVisibility`` in Coveo's spelling.

    :param visibility: ``SECURED``, ``SHARED`` or ``PRIVATE``, in any case.
    :raises CoveoInputError: if there is no such one.
    """
    wanted = visibility.strip().upper() if isinstance(visibility, str) else visibility
    if wanted in VISIBILITIES:
        return str(wanted)
    raise CoveoInputError(
        f"{short_repr(visibility)} is not the visibility of a source",
        remedy=f"Use one of {', '.join(VISIBILITIES)}",
    )


def is_active(source: Mapping[str, Any]) -> bool:
    """
    Say whether a source shows an activity, such as a rebuild that was begun and not ended.

    :param source: The model that ``GET /rest/organizations/{org}/sources/{source}`` answers.
    """
    return _status(source).get("type") == "REFRESHING"


def push_status(source: Mapping[str, Any]) -> SourceStatus | None:
    """
    Return the status of a source in the Push API's words, ``None`` where it is in a state without one.

    :param source: The source, as ``get_source`` of the hook returns it.
    """
    status = _status(source)
    if status.get("type") in {"IDLE", "PUSH_READY"}:
        return SourceStatus.IDLE
    return _BY_REFRESH_TYPE.get(str(status.get("refreshType"))) if is_active(source) else None


def status_in_words(source: Mapping[str, Any]) -> str:
    """
    Return the status of a source as a message shows it.

    :param source: The source, as ``get_source`` of the hook returns it.
    """
    status, words = push_status(source), _status(source)
    if status is not None:
        return str(status)
    state = words.get("extendedCurrentStatus") or words.get("type")
    return " ".join(str(part) for part in (state, words.get("refreshType")) if part) or "unknown"


def unusable_reason(source: Mapping[str, Any]) -> str | None:
    """
    Say what is wrong with a source that no waiting mends; ``None`` where nothing is.

    :param source: The source, as ``get_source`` of the hook returns it.
    """
    status = _status(source)
    state = next(
        (status[key] for key in ("extendedCurrentStatus", "type") if status.get(key) in _TROUBLE), None
    )
    if state is None:
        return None
    last = (source.get("information") or {}).get("lastOperation") or {}
    codes = (status.get("pausedOnErrorCode"), status.get("statusMessage"), last.get("errorCode"))
    said = ", ".join(dict.fromkeys(str(code) for code in codes if code))
    return f"{_TROUBLE[state]} ({said})" if said else _TROUBLE[state]


def active_since_ms(source: Mapping[str, Any]) -> int | None:
    """
    Return when the running activity began, in epoch milliseconds; ``None`` where that isn't said.

    :param source: The source, as ``get_source`` of the hook returns it.
    """
    status = _status(source)
    for key in ("createdDate", "timestamp"):
        moment = _epoch_ms(status.get(key))
        if moment is not None:
            return moment
    return None


def managed_by(source: Mapping[str, Any]) -> str | None:
    """
    Return which of Coveo's products pushes to the source, ``None`` where it is the customer's own.

    :param source: The source, as ``get_source`` of the hook returns it.
    """
    if source.get("sourceType") == "SITECORE":
        return "Coveo for Sitecore"
    if source.get("crawlerInstanceType") == "CRAWLING_MODULE" or source.get("onPremisesEnabled"):
        return "the Coveo Crawling Module"
    return None


def is_being_deleted(source: Mapping[str, Any]) -> bool:
    """
    Say whether Coveo has begun to delete the source.

    :param source: The source, as ``get_source`` of the hook returns it.
    """
    return _status(source).get("extendedCurrentStatus") == "DELETING"


def created_ms(source: Mapping[str, Any]) -> int | None:
    """
    Return when the source was created, in epoch milliseconds; ``None`` where that isn't said.

    :param source: The source, as ``get_source`` of the hook returns it.
    """
    return _epoch_ms(source.get("createdDate"))


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


# The names that 0.1 documented.
checked_source_name = validate_source_name
checked_visibility = validate_visibility
trouble = unusable_reason
