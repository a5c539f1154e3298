"""Branches inside a bracket: what they skip must not be what closes the source."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskGroup, task

from airflow_provider_coveo.bracket.branches import can_skip_followers
from airflow_provider_coveo.task_groups.coveo_push import push_source_update
from tests.conftest import SOURCE
from tests.unit.task_groups.test_bracket_odd_wirings import a_dag, checked
from tests.unit.task_groups.test_coveo_push_tasks import Work

try:
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.providers.standard.operators.latest_only import LatestOnlyOperator
    from airflow.providers.standard.operators.python import BranchPythonOperator, ShortCircuitOperator
except ImportError:  # Airflow 2.11 without the standard provider
    from airflow.operators.empty import EmptyOperator
    from airflow.operators.latest_only import LatestOnlyOperator
    from airflow.operators.python import BranchPythonOperator, ShortCircuitOperator

ENDING = {f"push_source_update.{name}" for name in ("close", "outcome", "done")}


class Numbered(Work):
    def __init__(self, *, number: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.number = number


@task.branch
def decorated(number: int = 0) -> None:
    return None


def a_branch(kind: str) -> Any:
    if kind == "latest_only":
        return LatestOnlyOperator(task_id="choose")
    if kind == "short_circuit":
        return ShortCircuitOperator(task_id="choose", python_callable=bool)
    if kind == "operator":
        return BranchPythonOperator(task_id="choose", python_callable=lambda: None)
    if kind == "mapped":
        return decorated.override(task_id="choose").expand(number=[1, 2])
    return decorated.override(task_id="choose")()


KINDS = ["decorated", "operator", "mapped", "latest_only", "short_circuit"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_branch_is_not_directly_before_the_tasks_that_end_the_bracket(kind: str) -> None:
    with a_dag() as dag, push_source_update(source_id=SOURCE, delete_old_items=True):
        a_branch(kind) >> [Work(task_id="one"), Work(task_id="two")]
    found = checked(dag)
    names = {"choose", "one", "two", "begin", "open", "delete_old_items", "close", "outcome", "done"}
    assert set(found.task_ids) == {f"push_source_update.{name}" for name in names}
    branch = found.get_task("push_source_update.choose")
    assert not branch.downstream_task_ids & ENDING
    assert "push_source_update.delete_old_items" in branch.downstream_task_ids
    assert branch.get_flat_relative_ids(upstream=False) >= ENDING


@pytest.mark.parametrize("kind", KINDS)
def test_the_bracket_waits_for_a_last_branch_through_a_task_of_its_own(kind: str) -> None:
    with a_dag() as dag:
        with push_source_update(source_id=SOURCE) as update:
            Work(task_id="work") >> a_branch(kind)
        update >> Work(task_id="after")
    dag.validate()
    found = checked(dag)
    branch, end = found.get_task("push_source_update.choose"), "push_source_update.choose_ended"
    assert branch.downstream_task_ids == {end}
    assert found.get_task(end).downstream_task_ids == ENDING - {"push_source_update.done"}
    assert found.get_task("push_source_update.work").downstream_task_ids == {branch.task_id, *ENDING}
    assert found.get_task("after").upstream_task_ids == {"push_source_update.done"}


@pytest.mark.parametrize(
    "how", ["another_upstream", "a_mapped_follower", "a_setup", "only_behind_the_bracket", "wired_to_close"]
)
def test_a_task_after_a_branch_that_could_end_before_it_does_not_suffice(how: str) -> None:
    with a_dag() as dag:
        with push_source_update(source_id=SOURCE) as update:
            branch = a_branch("decorated")
            if how == "another_upstream":
                # If `other` fails, Airflow ends `both` while the branch still works.
                [branch, Work(task_id="other")] >> Work(task_id="both")
            elif how == "a_mapped_follower":
                branch >> Numbered.partial(task_id="each").expand(number=[1, 2])
            elif how == "a_setup":
                other, both = Work(task_id="other"), Work(task_id="both")
                branch >> EmptyOperator(task_id="make").as_setup() >> both
                other >> both
        after = Work(task_id="after")
        update >> after
        if how == "only_behind_the_bracket":
            branch >> after
        elif how == "wired_to_close":
            branch >> update.close
    found = checked(dag)
    branch = found.get_task("push_source_update.choose")
    assert "push_source_update.choose_ended" in branch.downstream_task_ids
    assert not branch.downstream_task_ids & ENDING


def test_a_branch_after_a_branch_and_one_from_outside_are_waited_for() -> None:
    with a_dag() as dag:
        with TaskGroup("elsewhere"):
            outer = decorated.override(task_id="choose")()
        with push_source_update(source_id=SOURCE) as update:
            first = decorated.override(task_id="first")()
            first >> decorated.override(task_id="second")() >> Work(task_id="work")
        update.open >> outer >> update.close
        late = decorated.override(task_id="late", task_group=update)()
        first >> late
        update.close >> Work(task_id="after_close")
    found = checked(dag)
    assert {name for name in found.task_ids if name.endswith("_ended")} == {
        "push_source_update.elsewhere__choose_ended",
        "push_source_update.late_ended",
    }
    for name in ("elsewhere.choose", "push_source_update.first", "push_source_update.second"):
        assert not found.get_task(name).downstream_task_ids & ENDING
    assert "push_source_update.close" in found.get_task("after_close").upstream_task_ids


def test_a_fail_fast_dag_may_have_a_last_branch() -> None:
    dag = a_dag()
    dag.fail_fast = dag.fail_stop = True
    with dag, push_source_update(source_id=SOURCE):
        a_branch("decorated")
    assert "push_source_update.choose_ended" in checked(dag).task_ids


def test_only_tasks_that_can_skip_others_count() -> None:
    with a_dag():
        assert not can_skip_followers(Work(task_id="work"))
        assert not can_skip_followers(EmptyOperator(task_id="empty"))
        assert not can_skip_followers(Numbered.partial(task_id="each").expand(number=[1]))


@pytest.mark.parametrize("where", ["in the bracket", "elsewhere", "another branch"])
def test_the_task_after_a_branch_has_a_name_that_no_other_task_has(where: str) -> None:
    group = push_source_update(source_id=SOURCE, prefix_group_id=False, group_id="u")
    with a_dag() as dag:
        if where == "elsewhere":
            Work(task_id="choose_ended")
        with group:
            if where == "in the bracket":
                Work(task_id="choose_ended")
            elif where == "another branch":
                decorated.override(task_id="choose_ended")()
            a_branch("operator")
    dag.validate()
    found = checked(dag)
    (end,) = found.get_task("choose").downstream_task_ids
    assert end == "choose_ended2"
    assert found.get_task(end).downstream_task_ids == {"u__close", "u__outcome"} or found.get_task(
        end
    ).downstream_task_ids == {"close", "outcome"}


def test_the_task_after_a_branch_has_a_name_that_airflow_accepts() -> None:
    with a_dag() as dag, push_source_update(source_id=SOURCE):
        names = ["x" * 225 + end for end in ("one", "two")]
        for name in names:
            decorated.override(task_id=name)()
    dag.validate()
    found = checked(dag)
    ends = {next(iter(found.get_task(f"push_source_update.{name}").downstream_task_ids)) for name in names}
    assert len(ends) == 2
    assert all(len(name) <= 250 for name in ends)
