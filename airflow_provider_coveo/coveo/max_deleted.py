"""The limit for deletions of missing items: a number, or a share such as ``"5%"``."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final, NamedTuple

from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.integers import parse_int

_SHARE: Final = r"(\d{1,3}(?:\.\d{1,9})?)\s*%"


class MaxDeleted(NamedTuple):
    """
    The limit for deletions.

    :param number: The maximum number, or ``None`` if the limit is a share.
    :param percent: The maximum share in percent, or ``None`` if the limit is a number.
    """

    number: int | None = None
    percent: Decimal | None = None

    @classmethod
    def parse(cls, value: object) -> MaxDeleted:
        """
        Parse the parameter.

        :param value: An integer, zero or more, or a text such as ``"5%"``, up to 100%.
        :raises CoveoInputError: if it is neither.
        """
        if isinstance(value, str) and (share := re.fullmatch(_SHARE, value.strip())) is not None:
            percent = Decimal(share[1])
            if percent <= 100:
                return cls(percent=percent)
        else:
            number = parse_int(value)
            if number is not None and number >= 0:
                return cls(number=number)
        raise CoveoInputError(
            f"Invalid max_deleted: {short_repr(value)}",
            remedy="Pass an integer, zero or more, or a share from '0%' to '100%'",
        )

    def allows(self, deleted: int, total: int) -> bool:
        """
        Return whether the limit allows a number of deletions.

        :param deleted: The number of deletions.
        :param total: The number of all items.
        """
        if self.percent is None:
            return deleted <= (self.number or 0)
        return 100 * deleted <= self.percent * total

    def __str__(self) -> str:
        """Return the limit in the form of the parameter."""
        return f"{self.number:,}" if self.percent is None else f"{self.percent}%"
