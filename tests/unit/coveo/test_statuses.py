from __future__ import annotations

import pytest

from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.coveo.statuses import SourceStatus


@pytest.mark.parametrize("value", ["REBUILD", "rebuild", "Rebuild", " rebuild ", SourceStatus.REBUILD])
def test_a_status_is_accepted_in_any_case(value: str) -> None:
    assert SourceStatus.parse(value) is SourceStatus.REBUILD


@pytest.mark.parametrize(
    ("status", "console_name", "cost"),
    [
        ("REBUILD", "Rebuild", "high"),
        ("REFRESH", "Rescan", "moderate"),
        ("INCREMENTAL", "Refresh", "low"),
        ("IDLE", "Ready to receive content", None),
    ],
)
def test_each_status_has_the_name_and_the_cost_that_coveo_gives_it(
    status: str, console_name: str, cost: str | None
) -> None:
    parsed = SourceStatus.parse(status)
    assert parsed.console_name == console_name
    assert parsed.resource_cost == cost
    assert parsed.is_active is (status != "IDLE")
    assert console_name in str(parsed)


@pytest.mark.parametrize("value", ["RESCAN", "", "rebuilding", None, 3, "IDLE;"])
def test_the_error_of_an_invalid_status_lists_the_four_statuses(value: object) -> None:
    with pytest.raises(CoveoInputError) as refused:
        SourceStatus.parse(value)
    for status in SourceStatus:
        assert status.value in str(refused.value)
        assert status.console_name in str(refused.value)
