"""Unusual wirings of brackets."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, TaskGroup

from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.task_groups.coveo_push import push_source_update
from tests.conftest import SOURCE
from tests.unit.task_groups.test_coveo_push import stored
from tests.unit.task_groups.test_coveo_push_tasks import Work

try:
    from airflow.sdk import Label
except ImportError:  # Airflow 2.11
    from airflow.utils.edgemodifier import Label


def a_dag() -> DAG:
    return DAG("d", start_date=datetime(2025, 1, 1), schedule=None, max_active_runs=1)


def checked(dag: DAG) -> Any:
    dag.validate()
    return stored(dag)


@pytest.mark.parametrize("wiring", ["below", "below_list", "between", "above_reversed"])
def test_a_label_on_an_edge_changes_nothing(wiring: str) -> None:
    with a_dag() as dag:
        with push_source_update(source_id=SOURCE, delete_old_items=True) as update:
            Work(task_id="work")
        joined = Work(task_id="joined")
        if wiring == "below":
            update.open >> Label("x") >> joined
        elif wiring == "below_list":
            update.open >> Label("x") >> [joined]
        elif wiring == "between":
            update.open >> Label("x") >> joined >> Label("y") >> update.close
        else:
            update.close << Label("x") << joined
    found = checked(dag).get_task("joined")
    assert found.upstream_task_ids == {update.open.task_id}
    assert update.close.task_id in found.downstream_task_ids


def test_a_list_of_a_groups_tasks_wired_with_a_label_counts_as_the_group() -> None:
    """Airflow's own rule, by which a list is the same as the group; the guide mentions it."""
    with a_dag() as dag:
        with push_source_update(source_id=SOURCE) as update:
            Work(task_id="work")
        [update.open] >> Label("x") >> Work(task_id="after")
    after = checked(dag).get_task("after")
    assert after.upstream_task_ids == {f"{update.group_id}.done"}
    assert not after.downstream_task_ids


def test_three_brackets_in_a_group_are_numbered() -> None:
    with a_dag() as dag, TaskGroup("all"):
        for _ in range(3):
            with push_source_update(source_id=SOURCE):
                Work(task_id="work")
    names = ["push_source_update", "push_source_update__1", "push_source_update__2"]
    assert set(checked(dag).task_ids) >= {f"all.{name}.work" for name in names}


@pytest.mark.parametrize("error", [KeyError, None])
def test_a_bracket_whose_block_failed_is_rejected_even_if_the_error_was_caught(error: Any) -> None:
    with a_dag() as dag:
        try:
            with push_source_update(source_id=SOURCE):
                if error is not None:
                    Work(task_id="work")
                    raise error
        except (KeyError, CoveoInputError):
            pass
        Work(task_id="another")
    with pytest.raises(CoveoInputError, match="has no close task"):
        dag.validate()


@pytest.mark.parametrize("wiring", ["itself", "round", "member", "close", "member_inside"])
def test_a_bracket_that_would_wait_for_itself_is_rejected(wiring: str) -> None:
    def build() -> None:
        with a_dag() as dag:
            with push_source_update(source_id=SOURCE) as update:
                work = Work(task_id="work")
                if wiring == "member_inside":
                    work >> update
                    Work(task_id="more")
            if wiring == "itself":
                update >> update
            elif wiring == "round":
                other = Work(task_id="other")
                other >> update >> other
            elif wiring == "member":
                work >> update
            elif wiring == "close":
                update.close >> update.open
        dag.validate()

    with pytest.raises(CoveoInputError, match="would wait for itself"):
        build()


@pytest.mark.parametrize("name", ["begin", "open", "delete_old_items", "close", "outcome", "done"])
@pytest.mark.parametrize("prefixes", [True, False])
def test_a_task_with_an_id_that_the_bracket_uses_is_rejected_by_name(name: str, prefixes: bool) -> None:
    with (
        a_dag(),
        pytest.raises(CoveoInputError, match=rf"\b{name}'.*Rename the task"),
        push_source_update(source_id=SOURCE, delete_old_items=True, prefix_group_id=prefixes),
    ):
        Work(task_id=name)


def test_an_id_that_the_bracket_uses_only_with_an_option_is_free_without_it() -> None:
    with a_dag() as dag, push_source_update(source_id=SOURCE):
        Work(task_id="delete_old_items")
    assert "push_source_update.delete_old_items" in checked(dag).task_ids


@pytest.mark.parametrize("kept", [True, False])
def test_members_that_become_setup_and_teardown_after_the_block_keep_that_role(kept: bool) -> None:
    with a_dag() as dag:
        with push_source_update(source_id=SOURCE, delete_old_items=True) as update:
            first, work, last = Work(task_id="first"), Work(task_id="work"), Work(task_id="last")
            first >> work >> last
        last.as_teardown(setups=first, on_failure_fail_dagrun=kept)
    found = checked(dag)
    own = {task_id.rpartition(".")[2]: task_id for task_id in found.task_ids}
    assert found.get_task(first.task_id).downstream_task_ids == {work.task_id, last.task_id}
    below = {own["close"], own["outcome"], *([own["done"], own["delete_old_items"]] if kept else [])}
    assert found.get_task(last.task_id).downstream_task_ids == below
    assert own["close"] in found.get_task(work.task_id).downstream_task_ids
    assert first.task_id not in found.get_task(update.close.task_id).upstream_task_ids


@pytest.mark.parametrize("wiring", ["alone", "below", "in_a_group", "two"])
def test_a_task_that_is_added_to_the_group_after_the_block_is_a_member(wiring: str) -> None:
    with a_dag() as dag:
        with push_source_update(source_id=SOURCE, delete_old_items=True) as update:
            work = Work(task_id="work")
        if wiring == "in_a_group":
            with TaskGroup("inner", parent_group=update):
                late = Work(task_id="late")
        else:
            late = Work(task_id="late", task_group=update)
        if wiring == "below":
            work >> late
        if wiring == "two":
            late >> Work(task_id="later", task_group=update)
    found = checked(dag).get_task(late.task_id)
    above = {work.task_id} if wiring == "below" else {update.open.task_id}
    assert found.upstream_task_ids == above
    names = {task_id.rpartition(".")[2] for task_id in found.downstream_task_ids}
    assert names >= {"close", "outcome", "done", "delete_old_items"}
    if wiring == "two":
        later = checked(dag).get_task(f"{update.group_id}.later")
        assert later.upstream_task_ids == {late.task_id}
        assert update.close.task_id in later.downstream_task_ids


def test_a_task_in_the_group_that_follows_the_bracket_is_rejected() -> None:
    with a_dag() as dag:
        with push_source_update(source_id=SOURCE) as update:
            Work(task_id="work")
        update >> Work(task_id="late", task_group=update)
    with pytest.raises(CoveoInputError, match="would wait for itself"):
        dag.validate()


@pytest.mark.parametrize("beside", [True, False])
def test_a_setup_that_nothing_waits_for_is_rejected(beside: bool) -> None:
    with a_dag() as dag, push_source_update(source_id=SOURCE):
        Work(task_id="make_room").as_setup()
        if beside:
            Work(task_id="work")
    with pytest.raises(CoveoInputError, match=r"follows the setup '.*make_room'.*Wire a task"):
        dag.validate()


@pytest.mark.parametrize("order", ["work first", "close first", "two brackets"])
def test_a_task_with_a_rule_may_stand_between_a_member_and_close(order: str) -> None:
    with a_dag() as dag:
        with push_source_update(source_id=SOURCE, group_id="u") as update:
            work = Work(task_id="work")
        if order == "two brackets":
            with push_source_update(source_id="acme-books", group_id="v") as other:
                other_work = Work(task_id="work")
        clean = Work(task_id="clean", trigger_rule="all_done")
        if order == "close first":
            clean >> update.close
            work >> clean
        elif order == "two brackets":
            [work, other_work] >> clean
            clean >> [update.close, other.close]
        else:
            work >> clean >> update.close
    dag.validate()
    found = checked(dag)
    above = {"u.work", "v.work"} if order == "two brackets" else {"u.work"}
    assert found.get_task("clean").upstream_task_ids == above
    assert found.get_task("clean").downstream_task_ids >= {"u.close", "u.outcome"}
