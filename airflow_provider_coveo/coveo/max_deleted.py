"""How many items may be deleted because they are missing: a number, or a share such as ``"5%"``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.integers import parse_int

_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,9})?)\s*%")


@dataclass(frozen=True)
class MaxDeleted:
    """
    How many items may be deleted.

    :param count: How many, ``None`` where it is a share.
    :param percent: Which share of all, in percent; ``None`` where it is a number.
    """

    count: int | None = None
    percent: Decimal | None = None

    @classmethod
    def parse(cls, value: object) -> MaxDeleted:
        """
        Return what a parameter asks for.

        :param value: An integer, zero or more, or a text such as ``"5%"``, up to 100%.
        :raises CoveoInputError: if it is neither.
        """
        if isinstance(value, str) and (share := _SHARE.fullmatch(value.strip())) is not None:
            percent = Decimal(share[1])
            if percent <= 100:
                return cls(percent=percent)
        else:
            count = parse_int(value)
            if count is not None and count >= 0:
                return cls(count=count)
        raise CoveoInputError(
            f"Invalid max_deleted: {short_repr(value)}",
            remedy="Give an integer, zero or more, or a share from '0%' to '100%'",
        )

    def allows(self, deleted: int, total: int) -> bool:
        """
        Say whether so many items may be deleted.

        :param deleted: How many.
        :param total: Of how many.
        """
        if self.percent is None:
            return deleted <= (self.count or 0)
        return 100 * deleted <= self.percent * total

    def __str__(self) -> str:
        """Return it as it is written."""
        return f"{self.count:,}" if self.percent is None else f"{self.percent}%"
