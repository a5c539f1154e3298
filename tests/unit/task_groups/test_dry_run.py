"""A bracket in a dry run: it opens nothing, and its tasks can't send anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_coveo.assets.coveo_push import push_source_asset
from airflow_provider_coveo.bracket.dry_runs import enter_member
from airflow_provider_coveo.bracket.errors import (
    DryRunNotPossible,
    PushSourceUpdateFailed,
    UnknownFirstOpening,
)
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.operators.coveo_push import PushItemsOperator
from airflow_provider_coveo.simulator import Simulator
from airflow_provider_coveo.state import dry_tasks
from airflow_provider_coveo.state.ledger import Holder
from airflow_provider_coveo.task_groups.coveo_push import ensure_source_open, push_source_update
from tests.conftest import SOURCE
from tests.unit.task_groups.test_coveo_push_tasks import Run

pytestmark = pytest.mark.usefixtures("connect")

TEMPLATE = "{{ params.dry_run }}"
READS = {"source", "list_fields", "limit", "light_source"}


class DryRun(Run):
    """A run whose tasks are rendered, with the run's params."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, params: Any = None, **options: Any) -> None:
        super().__init__(monkeypatch, **{"dry_run": TEMPLATE, **options})
        self.params = {"dry_run": True} if params is None else params
        self._monkeypatch = monkeypatch

    def context(self, name: str, **more: Any) -> Any:
        context = {**super().context(name, **more), "params": self.params}
        self._monkeypatch.setattr(dry_tasks, "get_current_context", lambda: context)
        return context

    def execute(self, name: str, **more: Any) -> Any:
        task = self.task(name)
        if hasattr(task, "is_dry_run"):
            given = task.is_dry_run
            task.is_dry_run = task.render_template(given, {"params": self.params})
            try:
                return super().execute(name, **more)
            finally:
                task.is_dry_run = given
        return super().execute(name, **more)

    def work_succeeds(self) -> None:
        self.states[self.task("work").task_id] = "success"

    def enter(self, name: str) -> None:
        """Run the part of a member before its work."""
        self.task(name)._pre_execute_hook(self.context(name))


@pytest.fixture(autouse=True)
def _no_task_is_marked() -> Iterator[None]:
    yield
    dry_tasks._dry.clear()
    dry_tasks._deleting.clear()


@pytest.fixture
def a_dry_run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., DryRun]:
    return lambda **options: DryRun(monkeypatch, **options)


def assert_nothing_happened(coveo: Simulator, run: Run) -> None:
    assert {request.operation for request in coveo.requests} <= READS
    assert coveo.statuses(SOURCE) == []
    assert run.variables == {}


@pytest.mark.parametrize("options", [{}, {"exclusive": True}, {"delete_old_items": True}])
def test_a_dry_run_opens_closes_deletes_and_records_nothing(
    coveo: Simulator, a_dry_run: Callable[..., DryRun], options: Any
) -> None:
    run = a_dry_run(**options)
    opened = run.execute("open")
    assert opened == {"source_id": SOURCE, "status": "REBUILD", "dry_run": True}
    run.enter("work")
    run.work_succeeds()
    if "delete_old_items" in options:
        assert run.execute("delete_old_items")["dry_run"] is True
    run.task("close").execute(run.context("close"))
    run.execute("outcome")
    run.succeed()
    assert_nothing_happened(coveo, run)


def test_tasks_after_a_dry_run_are_skipped(coveo: Simulator, a_dry_run: Callable[..., DryRun]) -> None:
    run = a_dry_run()
    run.execute("open")
    run.work_succeeds()
    run.execute("outcome")
    with pytest.raises(AirflowSkipException, match="this run opened nothing"):
        run.execute("done")


def test_a_failure_in_a_dry_run_fails_the_run_and_sends_nothing(
    coveo: Simulator, a_dry_run: Callable[..., DryRun]
) -> None:
    run = a_dry_run()
    run.execute("open")
    run.states["push_source_update.work"] = "failed"
    with pytest.raises(PushSourceUpdateFailed):
        run.execute("outcome")
    run.fail()
    assert_nothing_happened(coveo, run)


def test_a_dry_run_closes_nothing_that_another_run_has_opened(
    coveo: Simulator, a_dry_run: Callable[..., DryRun]
) -> None:
    run = a_dry_run()
    run.held_by_another_run()
    CoveoPushHook().set_source_status(SOURCE, "REBUILD")
    held = dict(run.variables)
    run.execute("open")
    run.enter("work")
    run.work_succeeds()
    run.task("close").execute(run.context("close"))
    run.execute("outcome")
    run.fail()
    assert coveo.statuses(SOURCE) == ["REBUILD"]
    assert run.variables == held
    holder = Holder.of_source("acme", SOURCE)
    assert holder is not None
    assert holder.run_id == "later"


def test_with_dry_run_off_the_bracket_works_as_usual(
    coveo: Simulator, a_dry_run: Callable[..., DryRun]
) -> None:
    run = a_dry_run(params={"dry_run": False})
    run.execute("open")
    run.enter("work")
    CoveoPushHook().push_items(SOURCE, [{"documentId": "a://1", "data": "x"}])
    run.work_succeeds()
    run.execute("close")
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]
    assert len(coveo.items(SOURCE)) == 1


def test_a_bracket_without_dry_run_neither_reads_nor_writes_an_xcom_about_it(
    coveo: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Xcoms(dict[tuple[str, str], Any]):
        def get(self, key: tuple[str, str], default: Any = None) -> Any:
            read.append(key[1])
            return super().get(key, default)

    read: list[str] = []
    run = Run(monkeypatch)
    run.xcoms = Xcoms()
    run.execute("open")
    run.task("work")._pre_execute_hook(run.context("work"))
    run.execute("close")
    run.execute("outcome")
    assert "coveo_dry_run" not in read
    assert not any(key == "coveo_dry_run" for _, key in run.xcoms)


@pytest.mark.parametrize("value", [None, "", "maybe"])
def test_a_dry_run_value_that_renders_to_neither_true_nor_false_opens_nothing(
    coveo: Simulator, a_dry_run: Callable[..., DryRun], value: Any
) -> None:
    run = a_dry_run(params={"dry_run": value})
    with pytest.raises(CoveoInputError, match="Invalid dry_run"):
        run.execute("open")
    run.task("close").execute(run.context("close"))
    assert_nothing_happened(coveo, run)


def test_an_invalid_dry_run_value_is_rejected_when_the_dag_is_parsed() -> None:
    with pytest.raises(CoveoInputError, match="Invalid dry_run"):
        push_source_update(source_id=SOURCE, dry_run="maybe")


def test_the_dry_run_value_of_a_member_is_read_from_the_running_task(
    coveo: Simulator, a_dry_run: Callable[..., DryRun]
) -> None:
    """Airflow 3.0 renders and runs a copy of the task in the context."""
    run = a_dry_run()
    run.execute("open")
    context = run.context("work")
    context["task"].is_dry_run = "{{ params.dry_run }}"
    context["ti"].task = SimpleNamespace(task_id="work", is_dry_run="True")
    assert enter_member(context, run.update._tasks)
    context["ti"].task.is_dry_run = "False"
    with pytest.raises(DryRunNotPossible, match="its own dry_run is false"):
        enter_member(context, run.update._tasks)
    assert_nothing_happened(coveo, run)


def test_a_member_whose_own_dry_run_is_off_is_rejected_before_it_sends(
    coveo: Simulator, a_dry_run: Callable[..., DryRun]
) -> None:
    run = a_dry_run()
    run.execute("open")
    run.task("work").is_dry_run = "False"
    with pytest.raises(DryRunNotPossible, match="its own dry_run is false"):
        run.enter("work")
    run.task("work").is_dry_run = "True"
    run.enter("work")
    assert_nothing_happened(coveo, run)


@pytest.mark.parametrize(
    "send",
    [
        lambda hook: hook.push_items(SOURCE, [{"documentId": "a://1", "data": "x"}]),
        lambda hook: hook.add_or_update_item(SOURCE, {"documentId": "a://1", "data": "x"}),
        lambda hook: hook.delete_item(SOURCE, "a://1"),
        lambda hook: hook.delete_old_items(SOURCE),
        lambda hook: hook.set_source_status(SOURCE, "IDLE"),
        lambda hook: hook.push_identities("p", members=[{"identity": {"name": "a", "type": "USER"}}]),
        lambda hook: hook.create_fields({"price": "DOUBLE"}),
        lambda hook: hook.delete_source(SOURCE),
        lambda hook: hook.abort_activity(SOURCE, "one"),
    ],
)
def test_the_hook_cannot_send_anything_in_a_dry_run(
    coveo: Simulator, a_dry_run: Callable[..., DryRun], send: Callable[[CoveoPushHook], Any]
) -> None:
    run = a_dry_run()
    run.execute("open")
    run.enter("work")
    with pytest.raises(CoveoInputError, match="the bracket of this task does a dry run"):
        send(CoveoPushHook())
    assert_nothing_happened(coveo, run)


def test_reads_and_dry_pushes_are_possible_in_a_dry_run(
    coveo: Simulator, a_dry_run: Callable[..., DryRun]
) -> None:
    run = a_dry_run()
    run.execute("open")
    run.enter("work")
    hook = CoveoPushHook()
    assert hook.push_items(SOURCE, [{"documentId": "a://1", "data": "x"}], dry_run=True)["adds"] == 1
    assert hook.get_source(SOURCE)["id"] == SOURCE
    assert hook.list_fields()
    assert_nothing_happened(coveo, run)


ITEMS: Any = [{"documentId": "a://1", "data": "x"}]


@pytest.fixture
def a_real_run(a_dry_run: Callable[..., DryRun]) -> Callable[..., DryRun]:
    """Return a function that makes a run that has opened its source, and whose task ``work`` begins."""

    def make(**options: Any) -> DryRun:
        run = a_dry_run(params={"dry_run": False}, **options)
        run.execute("open")
        run.enter("work")
        return run

    return make


def test_a_dry_push_is_rejected_if_its_bracket_would_delete_the_items_that_it_does_not_push(
    coveo: Simulator, a_real_run: Callable[..., DryRun]
) -> None:
    run = a_real_run(delete_old_items=True)
    with pytest.raises(CoveoInputError, match="it would delete the items that are not pushed"):
        CoveoPushHook().push_items(SOURCE, ITEMS, dry_run=True)
    operator = PushItemsOperator(task_id="dry", source_id=SOURCE, items=ITEMS, dry_run=True)
    with pytest.raises(CoveoInputError, match="Pass the same dry_run to push_source_update"):
        operator.execute(run.context("work"))


def test_a_dry_push_is_possible_if_no_bracket_deletes_its_items(
    coveo: Simulator, a_real_run: Callable[..., DryRun]
) -> None:
    run = a_real_run(delete_old_items=True)
    coveo.add_source("another")
    assert CoveoPushHook().push_items("another", ITEMS, dry_run=True)["adds"] == 1
    run.context("elsewhere")
    assert CoveoPushHook().push_items(SOURCE, ITEMS, dry_run=True)["adds"] == 1
    a_real_run()
    assert CoveoPushHook().push_items(SOURCE, ITEMS, dry_run=True)["adds"] == 1


def test_a_task_outside_of_the_bracket_can_still_send_requests(
    coveo: Simulator, a_dry_run: Callable[..., DryRun]
) -> None:
    run = a_dry_run()
    run.execute("open")
    run.enter("work")
    run.context("elsewhere")
    CoveoPushHook().set_source_status(SOURCE, "IDLE")
    assert coveo.statuses(SOURCE) == ["IDLE"]


def test_a_member_never_opens_the_source_of_a_dry_run(
    coveo: Simulator, a_dry_run: Callable[..., DryRun]
) -> None:
    run = a_dry_run()
    run.states[run.task("open").task_id] = "success"  # by hand, so that no XCom tells
    run.enter("work")
    assert ensure_source_open(run.context("work")) is False
    assert_nothing_happened(coveo, run)


def test_the_run_stays_dry_if_the_template_renders_to_something_else_later(
    coveo: Simulator, a_dry_run: Callable[..., DryRun]
) -> None:
    run = a_dry_run()
    run.execute("open")
    run.params = {"dry_run": False}
    run.enter("work")
    with pytest.raises(CoveoInputError, match="does a dry run"):
        CoveoPushHook().set_source_status(SOURCE, "IDLE")
    assert_nothing_happened(coveo, run)


def test_a_run_that_has_opened_its_source_cannot_become_a_dry_run_and_is_closed(
    coveo: Simulator, a_dry_run: Callable[..., DryRun]
) -> None:
    run = a_dry_run(params={"dry_run": False})
    run.execute("open")
    run.params = {"dry_run": True}
    run.clear("open")
    with pytest.raises(DryRunNotPossible, match="this run opened it before"):
        run.execute("open")
    run.states[run.task("work").task_id] = "upstream_failed"
    run.task("close").execute(run.context("close"))
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


def test_a_cleared_dry_run_opens_its_source_but_deletes_nothing_once_dry_run_is_off(
    coveo: Simulator, a_dry_run: Callable[..., DryRun]
) -> None:
    CoveoPushHook().push_items(SOURCE, [{"documentId": "a://old", "data": "x"}])
    run = a_dry_run(delete_old_items=True)
    run.execute("open")
    run.work_succeeds()
    run.execute("delete_old_items")
    run.params = {"dry_run": False}
    for name in ("open", "work", "delete_old_items"):
        run.clear(name)
    # A clear increases the maximum number of tries.
    opened = run.execute("open", max_tries=1)
    assert coveo.statuses(SOURCE) == ["REBUILD"]
    assert "dry_run" not in opened
    run.enter("work")
    CoveoPushHook().push_items(SOURCE, ITEMS)
    run.work_succeeds()
    run.xcoms[run.task("work").task_id, "return_value"] = {"accepted_adds": 1}
    with pytest.raises(UnknownFirstOpening, match="the task was cleared"):
        run.execute("delete_old_items", max_tries=1)
    coveo.clock.advance(minutes=16)
    assert set(coveo.items(SOURCE)) == {"a://old", "a://1"}
    assert "olderthan" not in {request.operation for request in coveo.requests}


def test_a_dry_run_creates_no_asset_event(coveo: Simulator, a_dry_run: Callable[..., DryRun]) -> None:
    run = a_dry_run(outlets=[push_source_asset(organization_id="acme", source_id=SOURCE)])
    run.execute("open")
    run.work_succeeds()
    assert len(run.task("outcome").outlets) == 1
    run.execute("outcome")
    assert run.task("outcome").outlets == []


def test_a_dry_run_reports_how_many_items_it_would_delete(
    coveo: Simulator, a_dry_run: Callable[..., DryRun]
) -> None:
    CoveoPushHook().push_items(SOURCE, [{"documentId": f"a://{n}", "data": "x"} for n in range(10)])
    coveo.requests.clear()
    run = a_dry_run(delete_old_items=True, max_deleted="20%")
    run.execute("open")
    run.work_succeeds()
    run.xcoms[run.task("work").task_id, "return_value"] = {
        "dry_run": True,
        "source_id": SOURCE,
        "adds": 3,
    }
    assert run.execute("delete_old_items") == {
        "source_id": SOURCE,
        "dry_run": True,
        "adds": 3,
        "number_of_documents": 10,
        "deleted": 7,
    }
