"""A task that belongs to two brackets, which updates both sources: each bracket checks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_coveo.bracket import dry_runs, reopening
from airflow_provider_coveo.bracket.dry_runs import enter_member
from airflow_provider_coveo.bracket.errors import DryRunNotPossible
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.hooks.dry_runs import reject_dry_push, reject_in_dry_run
from airflow_provider_coveo.state import dry_tasks, ledger
from airflow_provider_coveo.state.ledger import BracketRecord, Holder
from airflow_provider_coveo.task_groups.coveo_push import _updates_around, push_source_update
from tests.unit.task_groups.test_bracket_odd_wirings import a_dag, checked
from tests.unit.task_groups.test_coveo_push_tasks import Work


class Sourced(Work):
    template_fields = ("source_id",)

    def __init__(self, *, source_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source_id = source_id


def shared(
    pre_execute: Callable[[Any], None] | None = None, *, is_mapped: bool = False, **options: Any
) -> tuple[DAG, Any, Any, Any]:
    """Create two brackets, and a task of the first that is wired into the second, too."""
    with a_dag() as dag:
        with push_source_update(source_id="one", group_id="one", **options) as one:
            if is_mapped:
                both = Sourced.partial(task_id="both", pre_execute=pre_execute).expand(source_id=["a"])
            else:
                both = Work(task_id="both", pre_execute=pre_execute)
        with push_source_update(source_id="two", group_id="two") as two:
            Work(task_id="work")
        two.open >> both >> two.close
    return dag, one, two, both


def hook_of(task: Any) -> Any:
    return task.partial_kwargs["pre_execute"] if hasattr(task, "partial_kwargs") else task._pre_execute_hook


def brackets_of(task: Any) -> list[str]:
    return [check.update_tasks.open for check in hook_of(task).checks]


@pytest.mark.parametrize("is_mapped", [False, True])
def test_both_brackets_check_the_task_and_the_authors_function_runs_once(
    monkeypatch: pytest.MonkeyPatch, is_mapped: bool
) -> None:
    seen: list[str] = []
    dag, *_, both = shared(lambda _: seen.append("author"), is_mapped=is_mapped)
    dag.validate()
    assert brackets_of(both) == ["one.open", "two.open"]
    monkeypatch.setattr(reopening, "enter_member", lambda *_: False)
    monkeypatch.setattr(reopening, "read_bracket_of_run", lambda *_: (None, None))
    monkeypatch.setattr(reopening, "_open_if_needed", lambda _, tasks, __: seen.append(tasks.open))
    hook_of(both)({"ti": SimpleNamespace(dag_id="d", run_id="r", task_id="both")})
    assert seen == ["one.open", "two.open", "author"]
    assert {each.open for each in _updates_around(both)} == {"one.open", "two.open"}


def test_a_task_between_two_others_of_another_bracket_belongs_to_both() -> None:
    with a_dag() as dag:
        with push_source_update(source_id="one", group_id="one"):
            first, last = Work(task_id="first"), Work(task_id="last")
        with push_source_update(source_id="two", group_id="two"):
            both = Work(task_id="both")
        first >> both >> last
    assert checked(dag)
    assert sorted(brackets_of(both)) == ["one.open", "two.open"]
    assert brackets_of(first) == ["one.open"]


def test_a_bracket_that_lets_go_of_a_task_leaves_the_check_of_the_other() -> None:
    with a_dag() as dag:
        with push_source_update(source_id="one", group_id="one") as one:
            Work(task_id="work")
        with push_source_update(source_id="two", group_id="two"):
            late = Work(task_id="late")
        # It uses the cut-off, but comes after the first bracket.
        one.open >> late
        assert sorted(brackets_of(late)) == ["one.open", "two.open"]
        one >> late
    assert checked(dag)
    assert brackets_of(late) == ["two.open"]


def test_each_bracket_sets_only_the_fields_that_have_its_template(monkeypatch: pytest.MonkeyPatch) -> None:
    records = {
        name: BracketRecord(source_id=name, organization_id="acme", coveo_conn_id=name)
        for name in ("one", "two")
    }
    monkeypatch.setattr(reopening, "enter_member", lambda *_: False)
    monkeypatch.setattr(reopening, "read_bracket_of_run", lambda *_: (None, None))
    monkeypatch.setattr(
        reopening, "_open_if_needed", lambda _, tasks, __: records[tasks.open.partition(".")[0]]
    )
    monkeypatch.setattr(BracketRecord, "is_pinned", True)
    with a_dag():
        with push_source_update(source_id="{{ var.value.one }}", group_id="one"):
            both = Sourced(task_id="both", source_id="{{ var.value.one }}")
        with push_source_update(source_id="{{ var.value.two }}", group_id="two") as two:
            Work(task_id="work")
        two.open >> both >> two.close
    both.source_id = "changed"
    both._pre_execute_hook({"task": both, "ti": SimpleNamespace(dag_id="d", run_id="r", task_id="both")})
    assert both.source_id == "one"


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., bool]]:
    """Enter a task of two brackets, of which some do a dry run."""
    dag, one, two, both = shared(delete_old_items=True)
    ti = type(
        "TI", (), {"dag_id": "d", "run_id": "r", "task_id": both.task_id, "map_index": -1, "task": both}
    )()
    context = {"ti": ti, "task": both}
    monkeypatch.setattr(dry_tasks, "get_current_context", lambda: context)

    def enter(*dry: str) -> bool:
        monkeypatch.setattr(dry_runs, "is_dry", lambda _, tasks: tasks.open.partition(".")[0] in dry)
        return enter_member(context, one._tasks, two._tasks)  # type: ignore[arg-type]

    yield enter
    dry_tasks._dry.clear()
    dry_tasks._deleting.clear()
    del dag


def test_a_dry_push_is_rejected_if_any_of_the_brackets_deletes(
    entered: Callable[..., bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only bracket one deletes: a dry run of a push to its source would let it delete the items."""
    assert not entered()
    assert dry_tasks.deleting_brackets() == (Holder("d", "r", "one.open", -1),)
    monkeypatch.setattr(ledger, "read_bracket", lambda _: BracketRecord(source_id="one"))
    with pytest.raises(CoveoInputError, match="Could not do a dry run of a push to source 'one'"):
        reject_dry_push("one")
    reject_dry_push("two")


def test_a_task_of_dry_brackets_sends_nothing(entered: Callable[..., bool]) -> None:
    assert entered("one", "two")
    assert not dry_tasks.deleting_brackets()
    with pytest.raises(CoveoInputError, match="does a dry run"):
        reject_in_dry_run("PUT", "/documents")


@pytest.mark.parametrize("dry", ["one", "two"])
def test_a_task_of_a_dry_and_of_another_bracket_fails_before_it_sends(
    entered: Callable[..., bool], dry: str
) -> None:
    other = "two" if dry == "one" else "one"
    with pytest.raises(DryRunNotPossible, match=rf"that of {dry}\.open does, that of {other}\.open does not"):
        entered(dry)
