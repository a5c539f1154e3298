"""The statuses of a Push source, and their names in Coveo's Administration Console."""

from __future__ import annotations

from enum import Enum
from typing import Final

from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr

_CONSOLE_NAMES: Final = {
    "REBUILD": "Rebuild",
    "REFRESH": "Rescan",
    "INCREMENTAL": "Refresh",
    "IDLE": "Ready to receive content",
}
_RESOURCE_COSTS: Final = {"REBUILD": "high", "REFRESH": "moderate", "INCREMENTAL": "low"}


class SourceStatus(str, Enum):
    """
    A status that the Push API accepts for a source.

    The console's names differ from the API's, and two of them are easy to confuse: the console shows
    ``REFRESH`` as *Rescan*, and ``INCREMENTAL`` as *Refresh*. So messages show both names.
    See https://docs.coveo.com/en/35/.
    """

    REBUILD = "REBUILD"
    REFRESH = "REFRESH"
    INCREMENTAL = "INCREMENTAL"
    IDLE = "IDLE"

    @property
    def console_name(self) -> str:
        """The status's name on the Sources page of the Administration Console."""
        return _CONSOLE_NAMES[self.value]

    @property
    def resource_cost(self) -> str | None:
        """The typical resource cost of such an update according to Coveo, ``None`` for ``IDLE``."""
        return _RESOURCE_COSTS.get(self.value)

    def __str__(self) -> str:
        return f"{self.value} (shown as {self.console_name!r})"

    @property
    def is_active(self) -> bool:
        """Whether the status shows a content update in progress."""
        return self is not SourceStatus.IDLE

    @classmethod
    def parse(cls, value: object) -> SourceStatus:
        """
        Return the status that ``value`` names, in upper or lower case.

        :param value: A status, or its name.
        :raises CoveoInputError: if it names none of the four.
        """
        if isinstance(value, str):
            try:
                return cls(value.strip().upper())
            except ValueError:
                pass
        offered = ", ".join(f"{status.value} ({status.console_name!r} in the console)" for status in cls)
        raise CoveoInputError(
            f"Invalid status of a Push source: {short_repr(value)}",
            remedy=f"Use one of {offered}.",
        )


def validate_active_status(value: object) -> SourceStatus:
    """
    Return the status that ``value`` names, if it can start an update.

    :param value: A status, or its name in upper or lower case.
    :raises CoveoInputError: if it is ``IDLE``, or not a status.
    """
    status = SourceStatus.parse(value)
    if status.is_active:
        return status
    raise CoveoInputError(
        "Invalid status to start an update: IDLE ends one", remedy="Use REBUILD, REFRESH or INCREMENTAL"
    )


# Names that 0.1 documented.
checked_active_status = validate_active_status
