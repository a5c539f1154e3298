"""How many invalid items a push skips: a number, a share such as ``"1%"``, or as many as there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.integers import parse_int
from airflow_provider_coveo.coveo.max_deleted import MaxDeleted

#: How many invalid items are skipped at most, unless one says otherwise, or each is kept in a file.
DEFAULT_MAX_INVALID: Final = 100
#: As long as fewer items are read, a share is one of so many.
_MIN_READ: Final = 10_000


@dataclass(frozen=True)
class MaxInvalid:
    """
    How many invalid items a push skips.

    :param limit: The number or share, ``None`` for as many as there are.
    """

    limit: MaxDeleted | None

    @classmethod
    def parse(cls, value: object, *, keeps_them: bool = False) -> MaxInvalid:
        """
        Return what the parameter asks for.

        :param value: An integer, zero or more, or a text such as ``"1%"``; ``None`` for the default.
        :param keeps_them: Whether each of them is kept in a file, so that any number may be skipped. Default
            ``False``.
        :raises CoveoInputError: if it is none of these.
        """
        if value is None or value == "":
            return cls(None if keeps_them else MaxDeleted(count=DEFAULT_MAX_INVALID))
        if parse_int(value) is not None or (isinstance(value, str) and value.strip().endswith("%")):
            try:
                return cls(MaxDeleted.parse(value))
            except CoveoInputError:
                pass
        raise CoveoInputError(
            f"Invalid max_invalid: {short_repr(value)}",
            remedy="Pass an integer, zero or more, or a share from '0%' to '100%'",
        )

    @property
    def is_share(self) -> bool:
        """Whether it is a share."""
        return self.limit is not None and self.limit.percent is not None

    def allows_so_far(self, invalid: int, read: int) -> bool:
        """
        Return whether to go on reading.

        :param invalid: How many of the items that were read are invalid.
        :param read: How many were read.
        """
        return self.allows(invalid, max(read, _MIN_READ))

    def allows(self, invalid: int, total: int) -> bool:
        """
        Return whether so many may be skipped.

        :param invalid: How many are invalid.
        :param total: Of how many.
        """
        return self.limit is None or self.limit.allows(invalid, total)

    def __str__(self) -> str:
        """Return it as it is written."""
        return str(self.limit)
