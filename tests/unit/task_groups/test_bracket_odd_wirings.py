"""Wirings of brackets that few will write."""

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
def test_a_label_at_an_edge_changes_nothing(wiring: str) -> None:
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


def test_three_brackets_in_a_group_are_numbered() -> None:
    with a_dag() as dag, TaskGroup("all"):
        for _ in range(3):
            with push_source_update(source_id=SOURCE):
                Work(task_id="work")
    names = ["push_source_update", "push_source_update__1", "push_source_update__2"]
    assert set(checked(dag).task_ids) >= {f"all.{name}.work" for name in names}


@pytest.mark.parametrize("error", [KeyError, None])
def test_a_bracket_whose_block_failed_is_refused_although_the_error_was_caught(error: Any) -> None:
    with a_dag() as dag:
        try:
            with push_source_update(source_id=SOURCE):
                if error is not None:
                    Work(task_id="work")
                    raise error
        except (KeyError, CoveoInputError):
            pass
        Work(task_id="another")
    with pytest.raises(CoveoInputError, match="has no closing"):
        dag.validate()


@pytest.mark.parametrize("wiring", ["itself", "round", "member", "close", "member_inside"])
def test_a_bracket_that_would_wait_for_itself_is_refused(wiring: str) -> None:
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
