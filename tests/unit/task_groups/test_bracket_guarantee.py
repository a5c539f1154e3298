"""The guarantees of a bracket's records, with a Coveo at the socket and a simulated run."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import airflow.providers.common.compat.sdk as sdk
import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException, TaskDeferred
from asgiref.sync import async_to_sync

from airflow_provider_coveo.bracket import deadline, delete_task, end_tasks, opening
from airflow_provider_coveo.bracket.closing import close_source
from airflow_provider_coveo.bracket.errors import (
    NothingWasPushed,
    PushSourceInUse,
    PushSourceUpdateFailed,
    PushSourceUpdateNotBracketed,
    UnknownFirstOpening,
)
from airflow_provider_coveo.bracket.reopening import _Check, _Reopening
from airflow_provider_coveo.coveo.errors import AccessDeniedError, CoveoError, CoveoInputError
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.simulator import Simulator
from airflow_provider_coveo.state import ledger as ledger_module
from airflow_provider_coveo.state import variables as variables_module
from airflow_provider_coveo.state.ledger import Holder, Phase, SourceLedger, SourceRecord, read_bracket
from airflow_provider_coveo.task_groups.coveo_push import push_source_update
from tests.conftest import SOURCE
from tests.unit.task_groups.test_coveo_push import stored
from tests.unit.task_groups.test_coveo_push_tasks import Run, Work

pytestmark = pytest.mark.usefixtures("connect")

OTHER = "acme-books"


@pytest.fixture
def a_run(monkeypatch: pytest.MonkeyPatch, coveo: Simulator) -> Callable[..., Run]:
    coveo.add_source(OTHER)
    return lambda **options: Run(monkeypatch, **options)


def deletions(coveo: Simulator) -> list[str]:
    return [request.path.split("/")[-3] for request in coveo.requests if request.operation == "olderthan"]


def push_as(run: Run, task: str, source: str = SOURCE, monkeypatch: Any = None) -> None:
    """Push an item from a task through the hook."""
    context = run.context(task)
    monkeypatch.setattr(
        "airflow_provider_coveo.hooks.run_records.get_current_context", lambda: context, raising=True
    )
    CoveoPushHook().add_or_update_item(source, {"documentId": f"https://example.com/{task}", "data": "x"})
    run.states[run.task(task).task_id] = "success"


def begin_work(run: Run, task: str = "work") -> None:
    """Run the part of a task's process before its own work."""
    run.task(task)._pre_execute_hook(run.context(task))


def bracket_of(run: Run) -> Any:
    return read_bracket(Holder("d", "r", run.update.open.task_id))


# --- the first cut-off: taken before the run's first push, or unknown ---


def test_an_open_task_that_was_marked_and_cleared_sets_no_cut_off_after_the_run_has_pushed(
    coveo: Simulator, a_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(delete_old_items=True, queue_delay=0, exclusive=True)
    coveo.state.set_status(SOURCE, _status("REBUILD"), "somebody-else")
    with pytest.raises(TaskDeferred):
        run.execute("open")
    coveo.state.set_status(SOURCE, _status("IDLE"), "somebody-else")
    run.states[run.update.open.task_id] = "success"
    begin_work(run)
    assert coveo.statuses(SOURCE)[-1] == "REBUILD"
    push_as(run, "work", monkeypatch=monkeypatch)

    run.clear("open")
    run.execute("open", max_tries=1)
    with pytest.raises(UnknownFirstOpening, match="a task ran although the bracket's open had not"):
        run.execute("delete_old_items")
    assert deletions(coveo) == []
    run.execute("close")
    assert coveo.statuses(SOURCE)[-1] == "IDLE"


def _status(name: str) -> Any:
    from airflow_provider_coveo.coveo.statuses import SourceStatus

    return SourceStatus[name]


def test_no_cut_off_is_set_if_the_run_pushed_before_the_bracket(
    coveo: Simulator, a_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(delete_old_items=True, queue_delay=0)
    push_as(run, "elsewhere", monkeypatch=monkeypatch)
    assert "ordering_id" not in run.execute("open")
    push_as(run, "work", monkeypatch=monkeypatch)
    with pytest.raises(UnknownFirstOpening, match="pushed to the source before the bracket opened it"):
        run.execute("delete_old_items")
    assert deletions(coveo) == []


def test_two_brackets_of_a_run_share_the_first_cut_off_of_their_source(
    coveo: Simulator, a_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run()
    with run.dag, push_source_update(source_id=SOURCE, delete_old_items=True, group_id="second"):
        Work(task_id="work2")
    first = run.execute("open")["ordering_id"]
    push_as(run, "work", monkeypatch=monkeypatch)
    run.execute("close")
    assert run.execute("second.open")["ordering_id"] == first
    push_as(run, "second.work2", monkeypatch=monkeypatch)
    assert run.execute("second.delete_old_items")["ordering_id"] == first


def test_a_write_that_airflow_dropped_does_not_move_the_cut_off(
    coveo: Simulator, a_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(delete_old_items=True, queue_delay=0)
    keep = sdk.Variable.set

    def drop(key: str, value: Any, **more: Any) -> None:
        if not (isinstance(value, dict) and (value.get("first_cut_off_ms") or value.get("runs"))):
            keep(key, value, **more)

    monkeypatch.setattr(sdk.Variable, "set", drop)
    run.execute("open")
    monkeypatch.setattr(sdk.Variable, "set", keep)
    begin_work(run)
    push_as(run, "work", monkeypatch=monkeypatch)
    run.clear("open")
    run.execute("open", max_tries=1)
    with pytest.raises(UnknownFirstOpening):
        run.execute("delete_old_items")
    assert deletions(coveo) == []


def test_a_retry_of_the_open_task_before_any_work_still_sets_a_cut_off(
    coveo: Simulator, a_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(delete_old_items=True, queue_delay=0)
    coveo.faults.answer(503, headers={"Retry-After": "3000"}, operation="status")
    with pytest.raises(CoveoError):
        run.execute("open")
    opened = run.execute("open")["ordering_id"]
    push_as(run, "work", monkeypatch=monkeypatch)
    assert run.execute("delete_old_items")["ordering_id"] == opened


# --- a run works on the source that it opened ---


def test_templates_that_later_render_to_another_source_change_nothing_in_the_run(
    coveo: Simulator, a_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(delete_old_items=True, queue_delay=0)
    run.execute("open")
    push_as(run, "work", monkeypatch=monkeypatch)
    for name in ("open", "delete_old_items", "close", "outcome"):
        run.task(name).source_id = OTHER
    run.execute("delete_old_items")
    run.execute("close")
    run.execute("outcome")
    run.clear("open")
    run.execute("open", max_tries=1)
    assert deletions(coveo) == [SOURCE]
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE", "REBUILD"]
    assert coveo.statuses(OTHER) == []


def test_a_task_with_the_same_template_as_the_bracket_uses_the_brackets_source(
    a_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run()
    run.execute("open")
    work = run.task("work")
    work.source_id, work.coveo_conn_id = OTHER, "coveo_default"
    _Reopening(
        [
            _Check(
                run.update._tasks,
                (
                    "source_id",
                    "coveo_conn_id",
                ),
            )
        ],
        None,
    )(run.context("work"))
    assert work.source_id == SOURCE
    work.source_id = OTHER
    _Reopening([_Check(run.update._tasks)], None)(run.context("work"))
    assert work.source_id == OTHER


def test_the_running_task_uses_the_source_of_the_run_even_if_the_context_has_a_copy_of_it(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    """Airflow 3.0 renders and runs a copy of the task in the context."""
    run = a_run()
    run.execute("open")
    context = run.context("work")
    running = SimpleNamespace(task_id="work", source_id="another")
    context["ti"].task = running
    context["task"].source_id = "{{ var.value.source }}"
    _Reopening([_Check(run.update._tasks, ("source_id",))], None)(context)
    assert running.source_id == SOURCE
    assert context["task"].source_id == "{{ var.value.source }}"


def test_a_connection_that_was_renamed_meanwhile_does_not_keep_a_source_open(
    coveo: Simulator, a_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run()
    monkeypatch.setenv("AIRFLOW_CONN_COVEO_OLD", coveo.connection_json())
    run.task("open").coveo_conn_id = "coveo_old"
    run.execute("open")
    monkeypatch.delenv("AIRFLOW_CONN_COVEO_OLD")
    run.execute("close")
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


def test_old_items_are_kept_if_the_run_pushed_to_another_source(
    coveo: Simulator, a_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(delete_old_items=True, queue_delay=0)
    run.execute("open")
    push_as(run, "work", OTHER, monkeypatch=monkeypatch)
    run.xcoms[run.task("work").task_id, "return_value"] = {"source_id": OTHER, "accepted_adds": 5}
    with pytest.raises(NothingWasPushed, match="pushed to another source"):
        run.execute("delete_old_items")
    assert deletions(coveo) == []


# --- owners of sources ---


def test_an_open_task_that_coveo_rejects_keeps_the_record_of_the_run_that_holds_the_source(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run()
    run.held_by_another_run()
    coveo.faults.answer(401, operation="status", status_type="REBUILD")
    with pytest.raises(CoveoError):
        run.execute("open")
    (holder,) = SourceLedger("acme").holders(SOURCE)
    assert holder.run_id == "later"


def test_the_close_task_leaves_the_source_open_for_a_bracket_that_opened_it_before(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run()
    run.held_by_another_run()
    run.execute("open")
    assert run.execute("close")["status"] is None
    assert coveo.statuses(SOURCE) == ["REBUILD"]
    # It has ended without closing, so the last task must close the source.
    run.state_of_later = "failed"
    run.execute("outcome")
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


def test_the_status_of_a_bracket_that_opens_while_another_one_closes_is_set_again(
    coveo: Simulator, a_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run()
    run.execute("open")
    send = CoveoPushHook.set_source_status

    def opened_meanwhile(hook: Any, source_id: str, status: Any) -> Any:
        result = send(hook, source_id, status)
        if status == "IDLE":
            later = SourceRecord("d", "later", "x.open", opening="later", status="REFRESH")
            SourceLedger("acme").hold(SOURCE, later)
        return result

    monkeypatch.setattr(CoveoPushHook, "set_source_status", opened_meanwhile)
    run.execute("close")
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE", "REFRESH"]


def test_if_two_exclusive_brackets_claim_a_source_at_once_the_last_one_opens_it(
    coveo: Simulator, a_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(exclusive=True)

    def another_claims(seconds: float) -> None:
        SourceLedger("acme").hold(SOURCE, SourceRecord("e", "x", "u.open", opening="theirs"), ())

    monkeypatch.setattr(
        opening, "time", SimpleNamespace(sleep=another_claims, time=time.time, monotonic=time.monotonic)
    )
    with pytest.raises(TaskDeferred):
        run.execute("open")
    assert coveo.statuses(SOURCE) == []
    (holder,) = SourceLedger("acme").holders(SOURCE)
    assert holder.dag_id == "e"


def test_a_task_that_gives_up_keeps_the_claim_of_another_task_of_its_bracket(
    coveo: Simulator, a_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(exclusive=True)
    theirs = SourceRecord("d", "r", "push_source_update.open", opening="theirs", is_claim=True)
    minutes = itertools.count()

    def another_task_claims(seconds: float) -> None:
        SourceLedger("acme").hold(SOURCE, theirs, ())

    clock = SimpleNamespace(sleep=another_task_claims, time=time.time, monotonic=lambda: 60.0 * next(minutes))
    monkeypatch.setattr(opening, "time", clock)
    with pytest.raises(TaskDeferred):
        run.execute("open")
    assert SourceLedger("acme").holders(SOURCE) == (theirs,)


def test_an_exclusive_bracket_is_not_reopened_while_another_one_holds_the_source(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run(exclusive=True)
    run.execute("open")
    run.execute("close")
    run.held_by_another_run()
    with pytest.raises(PushSourceInUse, match="'later'"):
        begin_work(run)
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


def test_an_exclusive_bracket_opens_a_source_that_an_ended_bracket_left_active(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run(exclusive=True)
    run.held_by_another_run()
    run.state_of_later = "failed"
    coveo.state.set_status(SOURCE, _status("REBUILD"), "later")
    run.execute("open")
    run.execute("close")
    assert coveo.statuses(SOURCE)[-1] == "IDLE"
    assert SourceLedger("acme").holders(SOURCE) == ()


def test_the_wait_for_a_source_ends_without_a_triggerer(coveo: Simulator, a_run: Callable[..., Run]) -> None:
    run = a_run(exclusive=True)
    run.held_by_another_run()
    with pytest.raises(TaskDeferred) as deferred:
        run.execute("open")
    assert 3600 <= deferred.value.timeout.total_seconds() <= 3700
    # A retry continues waiting instead of starting again.
    run.update.open.exclusive_timeout = 0.1
    time.sleep(0.2)
    with pytest.raises(PushSourceInUse):
        run.execute("open")
    with pytest.raises(PushSourceInUse):
        run.execute("open", max_tries=0)


# --- an `open` that outlives its `close` ---


def test_an_open_task_whose_request_arrives_after_close_closes_the_source_itself(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run()
    # Enough time to close in between.
    coveo.faults.answer(503, headers={"Retry-After": "4"}, operation="status", status_type="REBUILD")
    holder = Holder("d", "r", run.update.open.task_id)

    def close_meanwhile() -> None:
        until = time.monotonic() + 200
        while not coveo.requests and time.monotonic() < until:
            time.sleep(0.01)
        record = read_bracket(holder)
        assert record is not None
        close_source(CoveoPushHook(), holder, record)

    closing = threading.Thread(target=close_meanwhile)
    closing.start()
    with pytest.raises(PushSourceUpdateFailed, match="closed during the request"):
        run.execute("open")
    closing.join(200)
    assert coveo.statuses(SOURCE) == ["IDLE", "REBUILD", "IDLE"]


@pytest.mark.parametrize(("arrives", "statuses"), [(True, ["IDLE", "REBUILD", "IDLE"]), (False, ["IDLE"])])
def test_the_outcome_task_checks_again_if_the_open_task_was_killed_during_its_request(
    coveo: Simulator,
    a_run: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
    arrives: bool,
    statuses: list[str],
) -> None:
    run = a_run()

    def killed(*_: Any) -> Any:
        raise SystemExit

    # Nothing that `open` does after its request has happened.
    monkeypatch.setattr(opening.Opening, "_conclude_failure", lambda *_: None)
    monkeypatch.setattr(end_tasks, "MAX_LINGERING", 0.2)
    with monkeypatch.context() as patch:
        patch.setattr(CoveoPushHook, "set_source_status", killed)
        with pytest.raises(SystemExit):
            run.task("open").execute(run.context("open"))
    run.states[run.update.open.task_id] = "failed"
    run.execute("close")
    if arrives:
        coveo.state.set_status(SOURCE, _status("REBUILD"), "a request that was under way")
    with pytest.raises(PushSourceUpdateFailed, match="The source is closed"):
        run.execute("outcome")
    assert coveo.statuses(SOURCE) == statuses


def test_airflow_tasks_test_opens_nothing(coveo: Simulator, a_run: Callable[..., Run]) -> None:
    run = a_run()
    context = run.context("open")
    context["ti"].run_id = "__airflow_temporary_run_2026-01-01T00:00:00+00:00__"
    with pytest.raises(PushSourceUpdateNotBracketed, match="airflow dags test"):
        run.task("open").execute(context)
    assert coveo.requests == []


# --- tasks after the bracket ---


def test_tasks_after_the_bracket_run_only_if_this_run_opened_and_closed_it(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run()
    with pytest.raises(AirflowSkipException, match="opened nothing"):
        run.execute("done")
    run.execute("open")
    run.held_by_another_run()
    run.execute("close")
    with pytest.raises(AirflowSkipException, match="left open for another live bracket"):
        run.execute("done")


def test_tasks_after_the_bracket_are_skipped_in_a_pass_that_skips_it(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run()
    run.execute("open")
    run.execute("close")
    run.states[run.update.open.task_id] = "skipped"
    with pytest.raises(AirflowSkipException, match="opened nothing"):
        run.execute("done")


def test_the_claim_of_a_killed_open_task_is_released(
    coveo: Simulator, a_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(exclusive=True)

    def killed(*_: Any, **__: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(opening.Opening, "_check_claim", killed)
        patch.setattr(SourceLedger, "release", killed)
        with pytest.raises(SystemExit):
            run.execute("open")
    assert len(SourceLedger("acme").holders(SOURCE)) == 1
    run.execute("close")
    assert SourceLedger("acme").holders(SOURCE) == ()
    assert coveo.statuses(SOURCE) == []


def test_tasks_after_the_bracket_wait_for_idle_even_if_close_was_marked_by_hand(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run()
    run.execute("open")
    run.execute("done")
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


# --- invalid parameters ---


def test_an_incremental_update_that_would_delete_unchanged_items_is_rejected(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run(delete_old_items=True, status="{{ params.status }}")
    run.task("open").status = "Incremental"
    with pytest.raises(CoveoInputError, match="would delete everything else"):
        run.execute("open")
    run.execute("close")
    assert coveo.requests == []


def test_close_and_outcome_send_nothing_if_nothing_was_opened(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run()
    coveo.faults.answer(403, operation="status", status_type="REBUILD")
    with pytest.raises(AccessDeniedError):
        run.execute("open")
    for name in ("close", "outcome"):
        run.task(name).coveo_conn_id = "coveo_nowhere"
    run.execute("close")
    with pytest.raises(PushSourceUpdateFailed, match=r"open failed"):
        run.execute("outcome")
    assert len(coveo.requests) == 1


# --- records of other versions ---


@pytest.mark.parametrize("closed_by", ["close", "outcome", "callback", "member"])
def test_a_run_that_0_1_0_opened_is_closed_by_this_version(
    coveo: Simulator, a_run: Callable[..., Run], closed_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(delete_old_items=True, queue_delay=0)
    coveo.state.set_status(SOURCE, _status("REBUILD"), "0.1.0")
    holder = Holder("d", "r", run.update.open.task_id)
    run.variables[f"coveo_open__acme__{SOURCE}"] = json.dumps(asdict(holder))
    run.variables[f"coveo_content__acme__{SOURCE}"] = json.dumps(
        {"dag_id": "d", "run_id": "r", "since": "abc"}
    )
    run.xcoms[holder.open_task_id, "coveo_opening"] = {
        "source_id": SOURCE,
        "organization_id": "acme",
        "coveo_conn_id": "coveo_default",
        "status": "REBUILD",
    }
    first = int(time.time() * 1000) - 60_000
    run.xcoms[holder.open_task_id, "return_value"] = {"ordering_id": first}
    run.states[holder.open_task_id] = "success"
    begin_work(run)
    push_as(run, "work", monkeypatch=monkeypatch)
    assert run.execute("delete_old_items")["ordering_id"] == first
    if closed_by == "callback":
        run.fail()
    elif closed_by == "member":
        run.execute("close")
        begin_work(run)
        run.execute("outcome")
    else:
        run.execute(closed_by)
    assert coveo.statuses(SOURCE)[-1] == "IDLE"
    assert SourceLedger("acme").holders(SOURCE) == ()


def test_a_bracket_in_a_phase_of_a_later_version_is_closed(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run()
    run.execute("open")
    (name,) = [name for name in run.variables if name.startswith("coveo_bracket")]
    run.variables[name] = json.dumps({**json.loads(run.variables[name]), "phase": "pausing", "more": 1})
    run.execute("close")
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


# --- the number of reads of records ---


def test_a_successful_bracket_reads_records_no_more_often_than_0_1_0_did(
    coveo: Simulator, a_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.1.0 looked up 7 values in Variables and in the task state store, and two XComs."""
    run = a_run(delete_old_items=False)
    reads: list[str] = []
    read = ledger_module.read_variable

    def counted(name: str, **options: Any) -> Any:
        reads.append(name.split("__")[0])
        return read(name, **options)

    for module in (ledger_module, variables_module):
        monkeypatch.setattr(module, "read_variable", counted)
    for name in ("open", "close", "outcome"):
        run.execute(name)
    run.succeed()
    assert bracket_of(run).phase is Phase.CLOSED
    assert len(reads) - 1 <= 9, reads
    assert [request.operation for request in coveo.requests] == ["status", "status"]


def test_the_open_task_logs_that_a_cluster_policy_has_replaced_the_callbacks(
    coveo: Simulator, a_run: Callable[..., Run], caplog: pytest.LogCaptureFixture
) -> None:
    run = a_run()
    run.execute("open")
    assert "cluster policy" not in caplog.text
    run.dag.on_success_callback = [print]
    run.execute("open")
    assert "cluster policy" in caplog.text
    assert coveo.statuses(SOURCE) == ["REBUILD", "REBUILD"]


# --- the deadline ---


@pytest.fixture
def overdue(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    monkeypatch.setattr(deadline, "_SECONDS_BETWEEN_CHECKS", 0.01)

    def pass_deadline() -> None:
        context = {"dag_run": {"dag_id": "d", "dag_run_id": "r"}}
        until = deadline.close_overdue("push_source_update.open", False, context=context)
        asyncio.run(asyncio.wait_for(until, 10))

    return pass_deadline


def test_the_source_of_an_overdue_run_is_closed_once_no_task_is_running(
    coveo: Simulator, a_run: Callable[..., Run], overdue: Callable[[], None]
) -> None:
    run = a_run()
    run.execute("open")
    work = run.task("work").task_id
    run.states[work] = "running"
    threading.Timer(0.5, run.states.pop, [work]).start()
    overdue()
    assert work not in run.states
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (["scheduled"], 4),
        (["up_for_retry"], 61),
        (["up_for_reschedule"], 61),
        (["up_for_retry"] * 10 + ["scheduled", "running", None], 16),
    ],
)
def test_an_overdue_run_may_wait_an_hour_for_a_retry(
    coveo: Simulator,
    a_run: Callable[..., Run],
    overdue: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    work: list[str | None],
    expected: int,
) -> None:
    run = a_run()
    run.execute("open")
    checks: list[str | None] = []

    def next_states(*_: str) -> dict[str, str | None]:
        checks.append(work[min(len(checks), len(work) - 1)])
        return {"work": checks[-1]}

    monkeypatch.setattr(deadline, "all_task_states", next_states)
    monkeypatch.setattr(deadline, "_SECONDS_BETWEEN_CHECKS", 0.0)
    overdue()
    assert len(checks) == expected
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


def test_records_are_read_in_a_thread_that_can_use_the_triggerers_event_loop(
    coveo: Simulator,
    a_run: Callable[..., Run],
    overdue: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Airflow 3.1 sends each request for a Variable by the triggerer's loop.
    loops = set()
    read, get_states = deadline.read_bracket, deadline.all_task_states

    async def note_loop() -> None:
        loops.add(asyncio.get_running_loop())

    def read_by_loop(holder: Holder) -> SourceRecord | None:
        async_to_sync(note_loop)()
        return read(holder)

    def states_by_loop(dag_id: str, run_id: str) -> dict[str, str]:
        async_to_sync(note_loop)()
        return get_states(dag_id, run_id)

    monkeypatch.setattr(deadline, "read_bracket", read_by_loop)
    monkeypatch.setattr(deadline, "all_task_states", states_by_loop)
    a_run().execute("open")
    overdue()
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]
    assert len(loops) == 1


def test_a_source_that_was_closed_or_is_held_by_another_run_is_not_overdue(
    coveo: Simulator, a_run: Callable[..., Run], overdue: Callable[[], None]
) -> None:
    run = a_run()
    overdue()
    run.execute("open")
    run.execute("close")
    overdue()
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]
    run.execute("open")
    run.held_by_another_run()
    overdue()
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE", "REBUILD"]


def test_a_deadline_adds_an_alert_to_the_dag(a_run: Callable[..., Run]) -> None:
    if not hasattr(sdk.DAG, "deadline") and not _has_deadlines():
        with pytest.raises(CoveoInputError, match=r"close_overdue_after.*3\.1"):
            a_run(close_overdue_after=timedelta(hours=6))
        return
    run = a_run(close_overdue_after=timedelta(hours=6))
    found: Any = run.dag.deadline
    (alert,) = found
    assert alert.interval == timedelta(hours=6)
    assert alert.callback.kwargs == {"open_task_id": run.update.open.task_id, "is_mapped": False}
    assert stored(run.dag).dag_id == "d"


def _has_deadlines() -> bool:
    return importlib.util.find_spec("airflow.sdk") is not None and (
        importlib.util.find_spec("airflow.sdk.definitions.deadline") is not None
    )


@pytest.mark.parametrize("value", [timedelta(0), 60, "1h"])
def test_a_deadline_that_is_not_a_positive_timedelta_is_rejected(value: Any) -> None:
    with pytest.raises(CoveoInputError, match="close_overdue_after"):
        push_source_update(source_id=SOURCE, close_overdue_after=value)


# --- a teardown of the DAG's author ---


@pytest.mark.parametrize(("ended", "deletes"), [("success", True), ("failed", False), (None, None)])
def test_old_items_are_deleted_only_after_a_teardown_inside_the_bracket_succeeded(
    coveo: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    ended: str | None,
    deletes: bool | None,
) -> None:
    run = Run(monkeypatch)
    with run.dag, push_source_update(source_id=SOURCE, delete_old_items=True, group_id="g") as update:
        room, clean = Work(task_id="make_room"), Work(task_id="clean_up")
        room >> Work(task_id="work2") >> clean.as_teardown(setups=room)
    # The bracket beside it, on the same source.
    run.states["push_source_update.open"] = run.states["push_source_update.work"] = "skipped"
    run.execute("g.open")
    for name in ("make_room", "work2"):
        push_as(run, f"g.{name}", monkeypatch=monkeypatch)
    monkeypatch.setattr(delete_task, "_BETWEEN_CHECKS", timedelta(seconds=0.05))
    run.states["g.clean_up"] = "running"
    if ended is not None:
        threading.Timer(0.2, run.states.__setitem__, ["g.clean_up", ended]).start()
    if deletes:
        run.execute("g.delete_old_items")
    else:
        expected = AirflowSkipException if ended else delete_task.AirflowRescheduleException
        with pytest.raises(expected):
            run.execute("g.delete_old_items")
    assert deletions(coveo) == [SOURCE] * bool(deletes)
    assert update.dag.get_task("g.clean_up").downstream_task_ids == {"g.close", "g.outcome"}
