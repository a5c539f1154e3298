"""The Source API's parameters, and readers of its model of a source."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timezone
from typing import Final

from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.iso8601 import parse_iso8601
from airflow_provider_coveo.coveo.statuses import SourceStatus

#: Who can see the items of a source: the identities in each item's permissions, everybody, or the identities
#: that the source names. See https://docs.coveo.com/en/1779/.
VISIBILITIES: Final = ("SECURED", "SHARED", "PRIVATE")

#: The platform's names for the three kinds of updates.
_BY_REFRESH_TYPE: Final = {
    "REBUILD": SourceStatus.REBUILD,
    "FULL_REFRESH": SourceStatus.REFRESH,
    "INCREMENTAL_REFRESH": SourceStatus.INCREMENTAL,
}
#: States that a source does not leave by itself, as messages describe them.
_UNUSABLE_STATES: Final = {
    "ERROR": "is in error",
    "PAUSED_ON_ERROR": "was paused by Coveo because of errors",
    "DISABLED": "is disabled",
    "DELETING": "is being deleted",
}


def validate_source_name(name: object) -> str:
    """
    Return a valid source name.

    :param name: The name.
    :raises CoveoInputError: if it is not a string, is empty, has surrounding spaces or control characters, or
        is ``None``, which an empty template can render to.
    """
    is_line = isinstance(name, str) and name and name == name.strip() and name.isprintable()
    rendered_to_nothing = name is None or name == "None"
    if is_line and not rendered_to_nothing:
        return str(name)
    raise CoveoInputError(
        f"Invalid source name: {short_repr(name)}",
        cause="a template rendered to nothing" if rendered_to_nothing else "",
        remedy="Pass one line of text without surrounding spaces",
    )


def validate_visibility(visibility: object) -> str:
    """
    Return a ``sourceVisibility`` in Coveo's spelling.

    :param visibility: ``SECURED``, ``SHARED`` or ``PRIVATE``, in any case.
    :raises CoveoInputError: if it is anything else.
    """
    wanted = visibility.strip().upper() if isinstance(visibility, str) else visibility
    if wanted in VISIBILITIES:
        return str(wanted)
    raise CoveoInputError(
        f"Invalid visibility: {short_repr(visibility)}",
        remedy=f"Use one of {', '.join(VISIBILITIES)}",
    )


def is_active(source: Mapping[str, object]) -> bool:
    """
    Return whether a source shows an activity, such as a rebuild that has not ended.

    :param source: The model that ``GET /rest/organizations/{org}/sources/{source}`` returns.
    """
    return _status(source).get("type") == "REFRESHING"


def push_status(source: Mapping[str, object]) -> SourceStatus | None:
    """
    Return the status of a source in the Push API's terms, ``None`` if its state has no equivalent.

    :param source: The source, as ``get_source`` of the hook returns it.
    """
    status = _status(source)
    if status.get("type") in ("IDLE", "PUSH_READY"):
        return SourceStatus.IDLE
    return _BY_REFRESH_TYPE.get(str(status.get("refreshType"))) if is_active(source) else None


def status_in_words(source: Mapping[str, object]) -> str:
    """
    Return the status of a source as a message shows it.

    :param source: The source, as ``get_source`` of the hook returns it.
    """
    status, model = push_status(source), _status(source)
    if status is not None:
        return str(status)
    state = model.get("extendedCurrentStatus") or model.get("type")
    return " ".join(str(part) for part in (state, model.get("refreshType")) if part) or "unknown"


def unusable_reason(source: Mapping[str, object]) -> str | None:
    """
    Return the reason why a source is unusable and stays so without help; ``None`` if it is usable.

    :param source: The source, as ``get_source`` of the hook returns it.
    """
    status = _status(source)
    state = next(
        (
            state
            for key in ("extendedCurrentStatus", "type")
            if isinstance(state := status.get(key), str) and state in _UNUSABLE_STATES
        ),
        None,
    )
    if state is None:
        return None
    last = _member(_member(source, "information"), "lastOperation")
    codes = (status.get("pausedOnErrorCode"), status.get("statusMessage"), last.get("errorCode"))
    details = ", ".join(dict.fromkeys(str(code) for code in codes if code))
    return f"{_UNUSABLE_STATES[state]} ({details})" if details else _UNUSABLE_STATES[state]


def active_since_ms(source: Mapping[str, object]) -> int | None:
    """
    Return the start of the current activity in epoch milliseconds, ``None`` if Coveo doesn't report it.

    :param source: The source, as ``get_source`` of the hook returns it.
    """
    status = _status(source)
    for key in ("createdDate", "timestamp"):
        started_ms = _epoch_ms(status.get(key))
        if started_ms is not None:
            return started_ms
    return None


def managed_by(source: Mapping[str, object]) -> str | None:
    """
    Return the Coveo product that pushes to the source, or ``None`` if no product does.

    :param source: The source, as ``get_source`` of the hook returns it.
    """
    if source.get("sourceType") == "SITECORE":
        return "Coveo for Sitecore"
    if source.get("crawlerInstanceType") == "CRAWLING_MODULE" or source.get("onPremisesEnabled"):
        return "the Coveo Crawling Module"
    return None


def is_being_deleted(source: Mapping[str, object]) -> bool:
    """
    Return whether Coveo has begun to delete the source.

    :param source: The source, as ``get_source`` of the hook returns it.
    """
    return _status(source).get("extendedCurrentStatus") == "DELETING"


def number_of_items(source: Mapping[str, object]) -> object:
    """
    Return the number of a source's items, ``None`` if Coveo doesn't report it.

    :param source: The source, as ``get_source`` of the hook returns it.
    """
    return _member(source, "information").get("numberOfDocuments")


def created_ms(source: Mapping[str, object]) -> int | None:
    """
    Return the source's creation time in epoch milliseconds, ``None`` if Coveo doesn't report it.

    :param source: The source, as ``get_source`` of the hook returns it.
    """
    return _epoch_ms(source.get("createdDate"))


def _status(source: Mapping[str, object]) -> Mapping[str, object]:
    return _member(_member(source, "information"), "sourceStatus")


def _member(value: Mapping[str, object], name: str) -> Mapping[str, object]:
    """Return a member that is an object, an empty one if it is missing."""
    member = value.get(name)
    return member if isinstance(member, Mapping) else {}


def _epoch_ms(value: object) -> int | None:
    # The OpenAPI file declares dates as strings; the API is known to return epoch milliseconds as well.
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, str):
        try:
            moment = parse_iso8601(value)
        except ValueError:
            return None
        return int((moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp() * 1000)
    return None


# Names that 0.1 documented.
checked_source_name = validate_source_name
checked_visibility = validate_visibility
trouble = unusable_reason
