"""The statuses of a Push source and what Coveo's Administration Console calls them."""

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

    The console shows other names than the API takes, and two of them are swapped in meaning
    (``REFRESH`` is shown as *Rescan*, ``INCREMENTAL`` as *Refresh*), so messages give both.
    See https://docs.coveo.com/en/35/.
    """

    REBUILD = "REBUILD"
    REFRESH = "REFRESH"
    INCREMENTAL = "INCREMENTAL"
    IDLE = "IDLE"

    @property
    def console_name(self) -> str:
        """What the Sources page of the Administration Console shows."""
        return _CONSOLE_NAMES[self.value]

    @property
    def resource_cost(self) -> str | None:
        """What Coveo says that an update of this kind typically costs, ``None`` for ``IDLE``."""
        return _RESOURCE_COSTS.get(self.value)

    def __str__(self) -> str:
        return f"{self.value} (shown as {self.console_name!r})"

    @property
    def is_active(self) -> bool:
        """Whether the status says that a content update is under way."""
        return self is not SourceStatus.IDLE

    @classmethod
    def parse(cls, value: object) -> SourceStatus:
        """
        Return the status that ``value`` names, in any case.

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
            f"{short_repr(value)} is not a status of a Push source",
            remedy=f"Use one of {offered}.",
        )


def validate_active_status(value: object) -> SourceStatus:
    """
    Return the status that ``value`` names, if it can begin an update.

    :param value: A status, or its name in any case.
    :raises CoveoInputError: if it is ``IDLE``, or no status.
    """
    status = SourceStatus.parse(value)
    if status.is_active:
        return status
    raise CoveoInputError("IDLE ends an update", remedy="Begin it with REBUILD, REFRESH or INCREMENTAL")


# The names that 0.1 documented.
checked_active_status = validate_active_status
