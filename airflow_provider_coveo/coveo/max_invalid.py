"""The limit for skipped invalid items: a number, a share such as ``"1%"``, or unlimited."""

from __future__ import annotations

from typing import Final, NamedTuple

from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.integers import parse_int
from airflow_provider_coveo.coveo.max_deleted import MaxDeleted

#: The default maximum number of invalid items to skip, if they are not written to a file.
DEFAULT_MAX_INVALID: Final = 100
#: Until this many items are read, a share is a share of this number.
_MIN_READ: Final = 10_000


class MaxInvalid(NamedTuple):
    """
    The limit for invalid items that a push skips.

    :param limit: The number or share, or ``None`` for no limit.
    """

    limit: MaxDeleted | None

    @classmethod
    def parse(cls, value: object, *, keeps_them: bool = False) -> MaxInvalid:
        """
        Parse the parameter.

        :param value: An integer, zero or more, or a text such as ``"1%"``; ``None`` for the default.
        :param keeps_them: Whether the items are written to a file, so that the default is no limit. Default
            ``False``.
        :raises CoveoInputError: if it is none of these.
        """
        if value is None or value == "":
            return cls(None if keeps_them else MaxDeleted(number=DEFAULT_MAX_INVALID))
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
        """Whether the limit is a share."""
        return self.limit is not None and self.limit.percent is not None

    def allows_so_far(self, invalid: int, read: int) -> bool:
        """
        Return whether to continue reading.

        :param invalid: The number of invalid items read.
        :param read: The number of items read.
        """
        return self.allows(invalid, max(read, _MIN_READ))

    def allows(self, invalid: int, total: int) -> bool:
        """
        Return whether the limit allows a number of skipped items.

        :param invalid: The number of invalid items.
        :param total: The number of all items.
        """
        return self.limit is None or self.limit.allows(invalid, total)

    def __str__(self) -> str:
        """Return the limit in the form of the parameter."""
        return str(self.limit)
