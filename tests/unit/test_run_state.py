from __future__ import annotations

import json
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_coveo.run_state import (
    RUNS_REMEMBERED,
    Holder,
    MadeSource,
    RunState,
    retry_series,
    take_over_content,
)
from tests.unit.conftest import Variables


def context(run_id: str = "run", map_index: int = -1, task_id: str = "task", max_tries: int = 0) -> Any:
    return {
        "ti": SimpleNamespace(
            dag_id="dag", task_id=task_id, run_id=run_id, map_index=map_index, max_tries=max_tries
        )
    }


def test_the_task_state_store_is_used_if_it_exists(variables: Variables) -> None:
    store: dict[str, Any] = {}
    accessor = SimpleNamespace(get=store.get, set=store.__setitem__)
    RunState({**context(), "task_state_store": accessor}).set("key", 5)
    assert store == {"key": 5}
    assert RunState({**context(), "task_state_store": accessor}).get("key") == 5
    assert variables.values == {}


def test_without_the_store_only_later_attempts_of_the_same_run_find_a_value(variables: Variables) -> None:
    RunState(context("run-1")).set("key", 5)
    assert RunState(context("run-1")).get("key") == 5
    assert RunState(context("run-1")).get("other") is None
    assert RunState(context("run-2")).get("key") is None
    assert RunState(context("run-1", map_index=3)).get("key") is None
    assert RunState(context("run-1", task_id="other")).get("key") is None


def test_a_run_can_save_several_values(variables: Variables) -> None:
    RunState(context()).set("a", 1)
    RunState(context()).set("b", [2])
    RunState(context()).set("a", 3)
    assert (RunState(context()).get("a"), RunState(context()).get("b")) == (3, [2])


def test_only_values_of_the_last_runs_are_kept(variables: Variables) -> None:
    for number in range(RUNS_REMEMBERED * 2):
        RunState(context(f"run-{number}")).set("key", number)
    (value,) = variables.values.values()
    assert len(json.loads(value)) == RUNS_REMEMBERED
    assert RunState(context(f"run-{RUNS_REMEMBERED * 2 - 1}")).get("key") == RUNS_REMEMBERED * 2 - 1
    assert RunState(context("run-0")).get("key") is None


def test_names_of_variables_are_limited_in_length_and_remain_distinct(variables: Variables) -> None:
    RunState(context(task_id="x" * 250)).set("key", 1)
    RunState(context(task_id="x" * 249 + "y")).set("key", 2)
    assert all(len(name) <= 250 for name in variables.values)
    assert RunState(context(task_id="x" * 250)).get("key") == 1


def test_a_clear_starts_a_new_retry_series() -> None:
    assert retry_series(context(max_tries=2)) == retry_series(context(max_tries=2))
    assert retry_series(context(max_tries=2)) != retry_series(context(max_tries=5))


def test_deleting_the_last_value_deletes_the_variable(variables: Variables) -> None:
    RunState(context()).set("a", 1)
    RunState(context()).set("b", 2)
    RunState(context("other")).set("a", 3)
    RunState(context()).delete("a")
    assert (RunState(context()).get("a"), RunState(context()).get("b")) == (None, 2)
    RunState(context()).delete("b")
    RunState(context()).delete("b")
    assert RunState(context("other")).get("a") == 3
    RunState(context("other")).delete("a")
    assert variables.values == {}


def test_a_run_keeps_its_record_as_writer_until_another_run_takes_over(variables: Variables) -> None:
    mine = take_over_content("acme", "books", "dag", "run-1")
    assert take_over_content("acme", "books", "dag", "run-1") == mine
    assert take_over_content("acme", "films", "dag", "run-2") != mine
    assert take_over_content("acme", "books", "dag", "run-1") == mine
    theirs = take_over_content("acme", "books", "dag", "run-2")
    again = take_over_content("acme", "books", "dag", "run-1")
    assert len({mine, theirs, again}) == 3


def test_a_record_deleted_by_hand_counts_as_a_new_change(variables: Variables) -> None:
    mine = take_over_content("acme", "books", "dag", "run-1")
    variables.values.clear()
    assert take_over_content("acme", "books", "dag", "run-1") != mine


def test_tasks_of_one_run_that_start_at_the_same_time_get_the_same_record(
    variables: Variables, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = variables.set

    def another_is_faster(key: str, value: Any, **more: Any) -> None:
        write(key, {**value, "since": "theirs"}, **more)
        raise RuntimeError("duplicate key value violates unique constraint")

    monkeypatch.setattr(variables, "set", another_is_faster)
    assert take_over_content("acme", "books", "dag", "run-1") == "theirs"


def test_tasks_that_reopen_a_bracket_at_the_same_time_own_the_source(
    variables: Variables, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = variables.set

    def another_is_faster(key: str, value: Any, **more: Any) -> None:
        write(key, value, **more)
        raise RuntimeError("duplicate key value violates unique constraint")

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no database")

    monkeypatch.setattr(variables, "set", another_is_faster)
    mine = Holder("dag", "run-1", "open")
    mine.take("acme", "books")
    assert Holder.of_source("acme", "books") == mine

    monkeypatch.setattr(variables, "set", refuse)
    with pytest.raises(RuntimeError, match="no database"):
        Holder("dag", "run-2", "open").take("acme", "books")


def test_a_change_that_cannot_be_recorded_is_an_error(
    variables: Variables, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no database")

    take_over_content("acme", "books", "dag", "run-1")
    monkeypatch.setattr(variables, "set", refuse)
    with pytest.raises(RuntimeError, match="no database"):
        take_over_content("acme", "books", "dag", "run-2")


def test_a_previous_owner_does_not_release_the_source_of_the_current_one(variables: Variables) -> None:
    first, second = Holder("dag", "run-1", "update.open"), Holder("dag", "run-2", "update.open")
    first.take("acme", "acme-products")
    second.take("acme", "acme-products")
    first.release("acme", "acme-products")
    assert Holder.of_source("acme", "acme-products") == second
    second.release("acme", "acme-products")
    assert Holder.of_source("acme", "acme-products") is None


def test_unknown_fields_in_a_record_of_a_later_version_are_ignored(variables: Variables) -> None:
    holder = Holder("dag", "run-1", "update.open", 3)
    holder.take("acme", "acme-products")
    (name,) = variables.values
    variables.values[name] = json.dumps({**asdict(holder), "since_ms": 5, "others": [{"dag_id": "x"}]})
    assert Holder.of_source("acme", "acme-products") == holder

    variables.values[name] = json.dumps({"since_ms": 5})
    assert Holder.of_source("acme", "acme-products") is None


def test_unknown_fields_in_the_record_of_a_created_source_are_ignored(variables: Variables) -> None:
    made = MadeSource(name="books", since=1)
    made.keep("acme")
    (name,) = variables.values
    variables.values[name] = json.dumps({**asdict(made), "made_by": "dag"})
    assert MadeSource.named("acme", "books") == made
