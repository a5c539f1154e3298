from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.coveo.max_invalid import MaxInvalid


@pytest.mark.parametrize(
    ("value", "keeps_them", "invalid", "total", "allowed"),
    [
        (None, False, 100, 100, True),
        (None, False, 101, 10**9, False),
        (None, True, 10**9, 10**9, True),
        ("", True, 10**9, 10**9, True),
        (0, True, 1, 100, False),
        ("5", True, 5, 5, True),
        (5, True, 6, 100, False),
        ("1%", False, 10, 1_000, True),
        ("1%", False, 11, 1_000, False),
        (" 0.1 % ", True, 1, 1_000, True),
        ("0%", True, 1, 10**9, False),
        ("100%", False, 7, 7, True),
    ],
)
def test_the_limit_is_a_number_or_a_percentage(
    value: Any, keeps_them: bool, invalid: int, total: int, allowed: bool
) -> None:
    assert MaxInvalid.parse(value, keeps_them=keeps_them).allows(invalid, total) is allowed


def test_a_percentage_applies_during_a_push_only_after_enough_items() -> None:
    limit = MaxInvalid.parse("1%")
    # The first ones may all be invalid.
    assert limit.allows_so_far(100, 100)
    assert not limit.allows_so_far(101, 101)
    assert limit.allows_so_far(1_000, 100_000)
    assert not limit.allows_so_far(1_001, 100_000)


@pytest.mark.parametrize("value", [-1, "-1", "1.5", 1.5, True, "101%", "-1%", "%", "many", [1]])
def test_any_other_value_is_rejected(value: Any) -> None:
    with pytest.raises(CoveoInputError, match="Invalid max_invalid"):
        MaxInvalid.parse(value)
