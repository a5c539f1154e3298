"""The statuses of a Push source and what Coveo's Administration Console calls them."""

from __future__ import annotations

from enum import Enum

from airflow_provider_coveo.coveo.errors import CoveoInputError


class SourceStatus(str, Enum):
    """
    A status that the Push API accepts for a source.

    The console shows other names than the API takes, and two of them are swapped in meaning
    (``REFRESH`` is shown as *Rescan*, ``INCREMENTAL`` as *Refresh*), so messages give both.
    See https://docs.coveo.com/en/35/.
    """

    console_name: str
    resource_cost: str | None

    REBUILD = ("REBUILD", "Rebuild", "high")
    REFRESH = ("REFRESH", "Rescan", "moderate")
    INCREMENTAL = ("INCREMENTAL", "Refresh", "low")
    IDLE = ("IDLE", "Ready to receive content", None)

    def __new__(cls, value: str, console_name: str, resource_cost: str | None) -> SourceStatus:
        status = str.__new__(cls, value)
        status._value_ = value
        status.console_name = console_name
        status.resource_cost = resource_cost
        return status

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

        :raises CoveoInputError: if it names none of the four.
        """
        if isinstance(value, str):
            try:
                return cls(value.strip().upper())
            except ValueError:
                pass
        offered = ", ".join(f"{status.value} ({status.console_name!r} in the console)" for status in cls)
        raise CoveoInputError(
            f"{value!r} is not a status of a Push source",
            remedy=f"Use one of {offered}.",
        )
