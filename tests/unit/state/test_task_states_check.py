"""The check of other brackets in a callback: none is judged by a single look."""

from __future__ import annotations

import pytest

from airflow_provider_coveo.state import liveness
from airflow_provider_coveo.state.ledger import SourceRecord


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(liveness, "time", clock)
    monkeypatch.setattr(liveness, "callbacks_see_runs", lambda: False)
    monkeypatch.setattr(liveness, "callbacks_can_query", lambda: True)
    monkeypatch.setattr(liveness, "is_over", lambda holder: False)

    def states(dag_id: str, run_id: str, *, can_count: bool) -> dict[str, str]:
        between_two_tasks = run_id == "r" and (clock.now < 0.5 or 10 <= clock.now < 10.5)
        return {"task": "success" if between_two_tasks or run_id == "dead" else "running"}

    monkeypatch.setattr(liveness, "all_task_states", states)
    return clock


def test_a_gap_between_two_tasks_is_none_that_lasts_since_the_check_for_another_bracket(clock: Clock) -> None:
    gap, other = SourceRecord("d", "r", "open"), SourceRecord("d", "s", "open")
    check = liveness.TaskStatesCheck()
    assert next(liveness.live_among([gap, other], check)) is other
    clock.now = 10.0
    assert list(liveness.live_among([gap], check)) == [gap]


def test_only_the_first_of_many_brackets_waits_to_find_out_that_a_run_is_idle(clock: Clock) -> None:
    check = liveness.TaskStatesCheck()
    for index in range(100):
        assert not list(liveness.live_among([SourceRecord("d", "dead", "open", index)], check))
    assert clock.now == 2.0
