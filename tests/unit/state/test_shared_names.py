"""The states of many tasks take one query, unless two of them share a name in Airflow's response."""

from __future__ import annotations

import pytest

from airflow_provider_coveo.state.airflow_runs import _without_shared_names


@pytest.mark.parametrize(
    ("task_ids", "groups"),
    [
        (["open", "work1", "work2", "close"], [["open", "work1", "work2", "close"]]),
        (["push", "push_1", "close"], [["push", "close"], ["push_1"]]),
        (["push_1_2", "push_1", "push"], [["push"], ["push_1"], ["push_1_2"]]),
        (["push_1", "other"], [["push_1", "other"]]),
        ([], [[]]),
    ],
)
def test_tasks_are_grouped_unless_they_share_a_name(task_ids: list[str], groups: list[list[str]]) -> None:
    found = _without_shared_names(task_ids)
    assert sorted(map(sorted, found)) == sorted(map(sorted, groups))
