"""The bracket's own tasks, executed one by one with a Coveo at the socket and a simulated run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import airflow.providers.common.compat.sdk as sdk
import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowSkipException, BaseOperator, XCom

from airflow_provider_coveo.assets.coveo_push import push_source_asset
from airflow_provider_coveo.bracket import callbacks, opening, waiting
from airflow_provider_coveo.coveo.errors import CoveoError, CoveoInputError
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.operators.coveo_push_update import (
    NothingWasPushed,
    PushSourceUpdateFailed,
    PushSourceUpdateNotBracketed,
    UnknownFirstOpening,
)
from airflow_provider_coveo.simulator import Simulator
from airflow_provider_coveo.state import airflow_runs, liveness
from airflow_provider_coveo.state.airflow_runs import RunFacts
from airflow_provider_coveo.state.ledger import (
    BracketRecord,
    Holder,
    Phase,
    SourceLedger,
    SourceRecord,
    read_bracket,
    write_bracket,
)
from airflow_provider_coveo.task_groups.coveo_push import (
    PushSourceUpdate,
    ensure_source_open,
    push_source_update,
)
from tests.conftest import SOURCE
from tests.unit.conftest import Variables

pytestmark = pytest.mark.usefixtures("connect")


class Work(BaseOperator):
    pushes_items = True

    def execute(self, context: Any) -> None:
        pass


class Run:
    """A run of a DAG, as its tasks see it: XComs, Variables, states, and the task state store."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        self.xcoms: dict[tuple[str, str], Any] = {}
        self.kept: dict[str, dict[str, Any]] = {}
        self.states: dict[str, str] = {}
        variables = Variables()
        self.variables = variables.values
        self.state = self.state_of_later = "running"
        #: The states of the tasks of any other run.
        self.states_of_later: dict[str, str | None] = {"push_source_update.work": "running"}
        monkeypatch.setattr(sdk, "Variable", variables, raising=False)
        monkeypatch.setattr(airflow_runs, "_task_instance_states", self.task_instance_states)
        for module in (liveness, callbacks):
            monkeypatch.setattr(module, "run_facts", self.run_facts)
        monkeypatch.setattr(callbacks, "_SECONDS_BETWEEN_CHECKS", 0.01)
        monkeypatch.setattr(callbacks, "_LINGERING_SECONDS", 0.01)
        monkeypatch.setattr(opening, "_SETTLE_SECONDS", 0.01)
        monkeypatch.setattr(XCom, "get_one", self.get_one)
        monkeypatch.setattr("airflow.__version__", "3.3.2")
        with DAG("d", start_date=datetime(2025, 1, 1), schedule=None, max_active_runs=1) as dag:
            with push_source_update(**{"source_id": SOURCE, **options}) as update:
                Work(task_id="work")
            update >> Work(task_id="after")
            Work(task_id="elsewhere")
        self.dag = dag
        self.update: PushSourceUpdate = update

    def run_facts(self, dag_id: str, run_id: str) -> RunFacts:
        return RunFacts(self.state if run_id == "r" else self.state_of_later, False)

    def task_instance_states(self, dag_id: str, run_id: str, task_ids: Any, **_: Any) -> Any:
        if run_id != "r":
            later = self.states_of_later
            return [(name, -1, later.get(name)) for name in (task_ids or later) if later]
        return [(task_id, -1, self.states.get(task_id)) for task_id in task_ids or self.dag.task_ids]

    def get_one(self, *, key: str, task_id: str, **_: Any) -> Any:
        return self.xcoms.get((task_id, key))

    def task(self, name: str) -> Any:
        return self.dag.get_task(name if self.dag.has_task(name) else f"{self.update.group_id}.{name}")

    def context(self, name: str, *, max_tries: int = 0) -> Any:
        task = self.task(name)

        def pull(task_ids: str, key: str = "return_value", map_indexes: Any = None) -> Any:
            return self.xcoms.get((task_ids, key))

        def push(key: str, value: Any) -> None:
            assert value is not None, "Airflow 3.0 can't save it"
            self.xcoms[task.task_id, key] = value

        ti = SimpleNamespace(
            dag_id="d",
            run_id="r",
            task_id=task.task_id,
            map_index=-1,
            max_tries=max_tries,
            xcom_pull=pull,
            xcom_push=push,
        )
        store = self.kept.setdefault(task.task_id, {})
        return {
            "ti": ti,
            "task": task,
            "dag": self.dag,
            "run_id": "r",
            "task_state_store": SimpleNamespace(
                get=store.get, set=store.__setitem__, delete=lambda key: store.pop(key, None)
            ),
        }

    def execute(self, name: str, *, max_tries: int = 0) -> Any:
        """Execute a task, and record its outcome."""
        task = self.task(name)
        if name in {"close", "outcome", "done"}:
            # Airflow starts these once their upstream tasks have ended.
            for above in task.get_flat_relative_ids(upstream=True):
                self.states.setdefault(above, "skipped" if above.endswith(".open") else "success")
        try:
            result = task.execute(self.context(name, max_tries=max_tries))
        except AirflowSkipException:
            self.states[task.task_id] = "skipped"
            raise
        except Exception:
            self.states[task.task_id] = "failed"
            raise
        self.xcoms[task.task_id, "return_value"] = result
        for key, value in result.items() if task.multiple_outputs else ():
            assert value is not None, f"Airflow 3.0 can't save the output {key}"
        self.states[task.task_id] = "success"
        return result

    def clear(self, name: str) -> None:
        """Clear a task, which deletes its XComs."""
        task_id = self.task(name).task_id
        self.states.pop(task_id, None)
        for key in [key for key in self.xcoms if key[0] == task_id]:
            del self.xcoms[key]

    def held_by_another_run(self) -> None:
        later = SourceRecord("d", "later", self.update.open.task_id, opening="later")
        SourceLedger("acme").hold(SOURCE, later)

    def fail(self) -> None:
        """End the run, skip its remaining tasks, and call the failure callbacks of the DAG."""
        self.state = "failed"
        for task_id in self.dag.task_ids:
            self.states.setdefault(task_id, "skipped")
        self.call_back()

    def succeed(self) -> None:
        """End the run, and call the success callbacks of the DAG."""
        self.state = "success"
        self.call_back(self.dag.on_success_callback)

    def call_back(self, kind: Any = None) -> None:
        for callback in kind or self.dag.on_failure_callback:
            callback({"dag": self.dag, "run_id": "r"})


@pytest.fixture
def a_run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    return lambda **options: Run(monkeypatch, **options)


# --- `open` and `close` ---


def test_the_source_is_closed_and_no_longer_recorded_as_held(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run(status="refresh")
    run.execute("open")
    assert Holder.of_source("acme", SOURCE) is not None
    run.execute("close")

    assert coveo.statuses(SOURCE) == ["REFRESH", "IDLE"]
    assert Holder.of_source("acme", SOURCE) is None


def test_a_callback_closes_a_source_that_the_request_of_an_ended_open_task_opens_late(
    coveo: Simulator, a_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, hook = a_run(), CoveoPushHook()
    monkeypatch.setattr(callbacks, "_LINGERING_SECONDS", 4.0)
    run.execute("open")
    holder = Holder("d", "r", run.update.open.task_id)
    record = read_bracket(holder)
    assert record is not None
    write_bracket(holder, replace(record, phase=Phase.OPENING, is_concluded=False))

    # The hook's first request is slower than later ones.
    hook.get_source(SOURCE)

    def open_late() -> None:
        deadline = time.monotonic() + 10
        while coveo.statuses(SOURCE)[-1] != "IDLE" and time.monotonic() < deadline:
            time.sleep(0.01)
        hook.set_source_status(SOURCE, "REBUILD")

    late = threading.Thread(target=open_late)
    late.start()
    run.fail()
    late.join()
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE", "REBUILD", "IDLE"]


@pytest.mark.parametrize("closing", ["close", "outcome", "done"])
@pytest.mark.parametrize("state", ["queued", "running", "up_for_retry"])
def test_a_closing_task_waits_for_a_task_that_was_cleared_meanwhile(
    coveo: Simulator, a_run: Callable[..., Run], closing: str, state: str
) -> None:
    run = a_run()
    run.execute("open")
    run.states["push_source_update.work"] = state
    with pytest.raises(waiting.AirflowRescheduleException):
        run.execute(closing)
    assert coveo.statuses(SOURCE) == ["REBUILD"]

    run.states["push_source_update.work"] = "success"
    run.execute(closing)
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


@pytest.mark.parametrize("state", ["running", "queued"])
def test_a_source_that_another_run_has_opened_since_is_left_open_for_that_run(
    coveo: Simulator, a_run: Callable[..., Run], state: str
) -> None:
    run = a_run()
    run.execute("open")
    run.held_by_another_run()
    run.state_of_later = state
    assert run.execute("close")["status"] is None

    assert coveo.statuses(SOURCE) == ["REBUILD"]
    run.states["push_source_update.work"] = "failed"
    with pytest.raises(PushSourceUpdateFailed, match="left open for run 'later' of DAG 'd'"):
        run.execute("outcome")


def test_a_source_is_closed_if_the_run_that_opened_it_last_has_ended(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run()
    run.execute("open")
    run.held_by_another_run()
    run.state_of_later = "failed"
    run.execute("close")

    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


def test_a_source_is_closed_if_airflow_cannot_report_the_run_that_holds_it(
    coveo: Simulator, a_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_answer(dag_id: str, run_id: str) -> Any:
        raise RuntimeError("API server: 503")

    run = a_run()
    run.execute("open")
    run.held_by_another_run()
    monkeypatch.setattr(liveness, "run_facts", no_answer)
    run.execute("close")

    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


def test_a_source_that_was_never_opened_is_not_closed(coveo: Simulator, a_run: Callable[..., Run]) -> None:
    run = a_run()
    assert run.execute("close")["status"] is None
    run.execute("outcome")

    assert coveo.requests == []


@pytest.mark.parametrize(("field", "value"), [("source_id", None), ("coveo_conn_id", "coveo_nowhere")])
def test_close_does_not_retry_for_a_source_that_cannot_have_been_opened(
    coveo: Simulator, a_run: Callable[..., Run], field: str, value: Any
) -> None:
    run = a_run()
    for name in ("close", "outcome"):
        setattr(run.task(name), field, value)
    run.execute("close")
    run.execute("outcome")

    assert coveo.requests == []


def test_a_source_is_closed_even_if_its_open_task_left_no_result(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run()
    run.execute("open")
    run.clear("open")
    run.execute("close")

    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


def test_the_close_task_closes_the_opened_source_even_if_its_template_renders_to_another_one(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run()
    run.execute("open")
    run.update.close.source_id = "another-source"
    run.execute("close")

    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


def test_the_close_task_uses_the_connection_that_opened_the_source(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run()
    run.execute("open")
    for name in ("close", "outcome"):
        task = run.task(name)
        task.coveo_conn_id = "coveo_nowhere"
        # Like the links before the task works.
        assert task.hook.coveo_conn_id == "coveo_nowhere"
    run.execute("close")
    run.execute("outcome")

    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


def test_a_template_that_cannot_be_rendered_does_not_keep_a_source_open(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run()
    run.execute("open")
    run.update.close.source_id = "{{ nothing.of.the.kind }}"
    run.update.close.render_template_fields(run.context("close"))
    run.execute("close")

    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


def test_the_outcome_task_names_the_task_that_failed(a_run: Callable[..., Run]) -> None:
    run = a_run()
    run.execute("open")
    run.states["push_source_update.work"] = "failed"
    run.execute("close")

    with pytest.raises(PushSourceUpdateFailed, match=r"push_source_update\.work failed"):
        run.execute("outcome")


def test_the_outcome_task_names_the_task_that_could_not_run_if_none_failed(a_run: Callable[..., Run]) -> None:
    run = a_run()
    run.execute("open")
    run.states["push_source_update.work"] = "upstream_failed"
    run.execute("close")

    with pytest.raises(PushSourceUpdateFailed, match=r"push_source_update\.work could not run"):
        run.execute("outcome")


def test_the_outcome_task_does_not_report_a_source_as_closed_that_the_run_did_not_open(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run()
    run.states["push_source_update.open"] = "failed"
    with pytest.raises(PushSourceUpdateFailed, match=r"\.open failed\. This run did not open the source"):
        run.execute("outcome")
    assert coveo.statuses(SOURCE) == []


def test_the_outcome_task_repeats_and_reports_a_failed_close(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run()
    run.execute("open")
    run.states |= {"push_source_update.work": "success", "push_source_update.close": "failed"}

    with pytest.raises(PushSourceUpdateFailed, match=r"\.close failed\. The source is closed"):
        run.execute("outcome")
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


def test_an_exclusive_open_task_does_not_wait_for_a_source_that_its_own_run_opened(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run(exclusive=True)
    run.execute("open")
    run.clear("open")
    # Its response was lost, so it is retried.
    run.execute("open")
    run.execute("close")

    assert coveo.statuses(SOURCE) == ["REBUILD", "REBUILD", "IDLE"]


# --- deleting old items ---


def deleting(run: Run) -> Any:
    run.xcoms["push_source_update.work", "return_value"] = {"accepted_adds": 1}
    run.states["push_source_update.work"] = "success"
    return run.execute("delete_old_items")


def test_the_cut_off_of_the_first_open_survives_any_number_of_clears(
    a_run: Callable[..., Run],
) -> None:
    run = a_run(delete_old_items=True, queue_delay=0)
    first = run.execute("open")["ordering_id"]
    for max_tries in (1, 2):
        run.clear("open")
        assert run.execute("open", max_tries=max_tries)["ordering_id"] == first

    assert deleting(run)["ordering_id"] == first


def test_nothing_is_deleted_if_the_record_of_the_first_open_is_lost(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run(delete_old_items=True, queue_delay=0)
    run.execute("open")
    run.kept.clear()
    run.variables.clear()
    run.clear("open")
    run.execute("open", max_tries=1)

    with pytest.raises(UnknownFirstOpening):
        deleting(run)
    assert "olderthan" not in [exchange.operation for exchange in coveo.requests]


def test_an_exclusive_open_task_that_timed_out_and_was_cleared_counts_as_the_first_one(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run(delete_old_items=True, queue_delay=0, exclusive=True)
    run.update.open.exclusive_timeout = 0
    coveo.state.set_status(SOURCE, _status("REBUILD"), "somebody-else")
    with pytest.raises(Exception, match="still shows an activity"):
        run.execute("open")
    coveo.state.set_status(SOURCE, _status("IDLE"), "somebody-else")
    opened = run.execute("open", max_tries=1)

    assert opened["ordering_id"] is not None
    assert deleting(run)["ordering_id"] == opened["ordering_id"]


def _status(name: str) -> Any:
    from airflow_provider_coveo.coveo.statuses import SourceStatus

    return SourceStatus[name]


def test_nothing_is_deleted_after_an_update_that_pushed_nothing(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run(delete_old_items=True, queue_delay=0)
    run.execute("open")
    run.states["push_source_update.work"] = "success"
    run.xcoms["push_source_update.work", "return_value"] = {"accepted_adds": 0}

    with pytest.raises(NothingWasPushed, match="allow_empty=True"):
        run.execute("delete_old_items")
    assert "olderthan" not in [exchange.operation for exchange in coveo.requests]


def test_if_a_task_keeps_no_result_the_error_names_its_do_xcom_push(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run(delete_old_items=True, queue_delay=0)
    run.execute("open")
    run.states["push_source_update.work"] = "success"
    run.task("work").do_xcom_push = False

    with pytest.raises(NothingWasPushed, match=r"because push_source_update\.work .*do_xcom_push"):
        run.execute("delete_old_items")
    assert "olderthan" not in [exchange.operation for exchange in coveo.requests]


@pytest.mark.parametrize("state", ["skipped", "failed", "upstream_failed", None])
def test_nothing_is_deleted_unless_every_task_succeeded(a_run: Callable[..., Run], state: Any) -> None:
    run = a_run(delete_old_items=True, queue_delay=0)
    run.execute("open")
    run.states["push_source_update.work"] = state

    with pytest.raises(AirflowSkipException, match=r"push_source_update\.work"):
        run.execute("delete_old_items")


# --- opening again ---


def closed_with_work_cleared(run: Run) -> None:
    run.execute("open")
    run.execute("close")
    run.states["push_source_update.work"] = "running"


def test_a_task_that_runs_in_a_closed_bracket_reopens_it_and_the_outcome_task_closes_it(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run()
    closed_with_work_cleared(run)
    run.task("work")._pre_execute_hook(run.context("work"))
    run.states["push_source_update.work"] = "success"
    run.execute("outcome")

    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE", "REBUILD", "IDLE"]


def test_a_task_reopens_the_source_after_its_close_task_failed(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run()
    run.execute("open")
    coveo.faults.answer(403, operation="status", status_type="IDLE")
    with pytest.raises(CoveoError):
        run.execute("close")
    assert ensure_source_open(run.context("work")) is True

    assert coveo.statuses(SOURCE) == ["REBUILD", "REBUILD"]


def test_users_tasks_can_reopen_the_source_themselves(coveo: Simulator, a_run: Callable[..., Run]) -> None:
    run = a_run()
    run.execute("open")
    assert ensure_source_open(run.context("work")) is False
    run.execute("close")
    assert ensure_source_open(run.context("work")) is True

    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE", "REBUILD"]


@pytest.mark.parametrize("state", ["running", "success", "failed"])
def test_a_task_that_was_cleared_alone_opens_the_source_and_the_end_of_the_run_closes_it(
    coveo: Simulator, a_run: Callable[..., Run], state: str
) -> None:
    """Airflow 3.1 and 3.2 don't clear setups and teardowns with it."""
    run = a_run()
    closed_with_work_cleared(run)
    run.states["push_source_update.outcome"] = state
    assert ensure_source_open(run.context("work")) is True
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE", "REBUILD"]

    run.states |= {"push_source_update.work": "success", "push_source_update.outcome": "success"}
    run.succeed()
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE", "REBUILD", "IDLE"]


def test_a_task_after_the_bracket_does_not_open_its_source(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run()
    closed_with_work_cleared(run)

    with pytest.raises(PushSourceUpdateNotBracketed):
        ensure_source_open(run.context("after"))
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


def test_a_task_outside_of_any_bracket_fails_with_an_error_that_says_so(a_run: Callable[..., Run]) -> None:
    with pytest.raises(CoveoInputError, match="is not downstream of a bracket"):
        ensure_source_open(a_run().context("elsewhere"))


# --- errors before `open` ---


@pytest.mark.parametrize(
    ("field", "value"),
    [("status", "REBIULD"), ("status", "IDLE"), ("source_id", "None"), ("source_id", "a/b")],
)
def test_an_update_that_cannot_be_opened_neither_opens_nor_closes_anything(
    coveo: Simulator, a_run: Callable[..., Run], field: str, value: str
) -> None:
    run = a_run()
    setattr(run.task("open"), field, value)
    with pytest.raises(CoveoInputError):
        run.execute("open")
    run.execute("close")
    with pytest.raises(PushSourceUpdateFailed):
        run.execute("outcome")

    assert coveo.requests == []
    assert not any(name.startswith("coveo_open") for name in run.variables)


def test_a_run_that_opens_a_bracket_counts_as_changing_the_source_s_content(
    a_run: Callable[..., Run],
) -> None:
    """A failed push of another run must not resume where it failed."""
    run = a_run()
    ledger = SourceLedger("acme")
    another = ledger.content_changed(SOURCE, "another", "r")
    run.execute("open")
    ours = ledger.content_changed(SOURCE, "d", "r")
    run.execute("close")
    assert ledger.content_changed(SOURCE, "d", "r") == ours
    assert ledger.content_changed(SOURCE, "another", "r") != another


@pytest.mark.parametrize("status", [400, 401, 403, 404, 412])
def test_a_source_is_not_closed_if_coveo_rejected_open_since_another_run_may_use_it(
    coveo: Simulator, a_run: Callable[..., Run], status: int
) -> None:
    coveo.faults.answer(status, operation="status", status_type="REBUILD")
    run = a_run()
    with pytest.raises(CoveoError):
        run.execute("open")
    run.execute("close")

    assert [request.query["statusType"] for request in coveo.requests] == ["REBUILD"]
    assert not any(name.startswith("coveo_open") for name in run.variables)


def test_a_source_is_closed_if_a_rejected_open_follows_one_that_may_have_been_applied(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run()
    coveo.faults.answer(503, applied=True, headers={"Retry-After": "3000"}, operation="status")
    coveo.faults.answer(403, operation="status")
    for _ in range(2):
        with pytest.raises(CoveoError):
            run.execute("open")
    run.execute("close")

    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


# --- the failure callback ---


def test_the_failure_callback_ignores_the_call_interval(
    coveo: Simulator, a_run: Callable[..., Run], connect: Callable[..., None]
) -> None:
    run = a_run()
    run.execute("open")
    connect(extra={"call_interval": 30})
    started = time.monotonic()
    run.fail()

    assert time.monotonic() - started < 28
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


def test_the_failure_callback_retries_for_no_longer_than_a_callback_may_run(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run()
    run.execute("open")
    coveo.faults.answer(503, headers={"Retry-After": "30"}, operation="status")
    started = time.monotonic()
    run.fail()

    assert time.monotonic() - started < 28
    assert coveo.statuses(SOURCE) == ["REBUILD"]
    run.call_back()
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


@pytest.mark.parametrize("task", ["begin", "open", "close", "outcome"])
def test_a_callback_does_not_close_the_source_of_a_run_that_was_cleared_before_it_ran(
    coveo: Simulator, a_run: Callable[..., Run], task: str
) -> None:
    run = a_run()
    run.execute("open")
    run.states[f"push_source_update.{task}"] = "scheduled"
    run.call_back()

    assert coveo.statuses(SOURCE) == ["REBUILD"]


@pytest.mark.parametrize(
    ("seconds_ago", "statuses"), [(0, ["REBUILD"]), (60, ["REBUILD"]), (-60, ["REBUILD", "IDLE"])]
)
def test_a_late_callback_does_not_close_a_source_that_a_later_pass_of_the_run_opened(
    coveo: Simulator, a_run: Callable[..., Run], seconds_ago: float, statuses: list[str]
) -> None:
    run = a_run()
    run.execute("open")
    run.states |= {"push_source_update.open": "success", "push_source_update.work": "running"}
    run.state = "running" if seconds_ago >= 0 else "failed"
    ended = datetime.now(timezone.utc) - timedelta(seconds=seconds_ago)
    for callback in run.dag.on_success_callback:  # type: ignore[union-attr]
        callback({"dag": run.dag, "run_id": "r", "dag_run": SimpleNamespace(end_date=ended)})

    assert coveo.statuses(SOURCE) == statuses


def test_a_callback_closes_the_source_of_a_failed_run_although_one_of_its_tasks_is_running(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    """A task marked by hand can fail a run at once; its other tasks then have no state."""
    run = a_run()
    run.execute("open")
    run.state = "failed"
    run.states["push_source_update.work"] = "running"
    run.call_back()

    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


def test_a_callback_that_cannot_query_the_run_logs_one_line(
    coveo: Simulator,
    a_run: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def no_supervisor(*_: Any) -> Any:
        raise NameError("name 'SUPERVISOR_COMMS' is not defined")

    run = a_run()
    run.execute("open")
    monkeypatch.setattr(sdk.Variable, "get", no_supervisor)
    run.call_back()

    assert coveo.statuses(SOURCE) == ["REBUILD"]
    [line] = [record.getMessage() for record in caplog.records if "left a source open" in record.getMessage()]
    assert "SUPERVISOR_COMMS" in line
    assert "Check whether task 'push_source_update.close' succeeded; `airflow dags test`" in line
    assert "\n" not in line


def test_a_callback_uses_variables_if_airflow_3_0_does_not_respond(
    coveo: Simulator, a_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run()
    context = run.context

    def without_a_store(*args: Any, **options: Any) -> Any:
        return {**context(*args, **options), "task_state_store": None}

    def no_answer(*_: Any, **__: Any) -> Any:
        pytest.fail("a callback that asks this waits until it is killed")

    monkeypatch.setattr(run, "context", without_a_store)
    monkeypatch.setattr("airflow.__version__", "3.0.6")
    run.execute("open")
    monkeypatch.setattr(airflow_runs, "_task_instance_states", no_answer)
    monkeypatch.setattr(callbacks, "callbacks_see_runs", lambda: False)
    monkeypatch.setattr(XCom, "get_one", no_answer)
    run.call_back()
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]

    run.call_back()
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


@pytest.mark.parametrize(
    ("work", "statuses"),
    [
        ("skipped", ["REBUILD", "IDLE"]),
        # Only it was cleared, after all others had ended, and its callback runs again.
        ("scheduled", ["REBUILD"]),
    ],
)
def test_a_callback_leaves_the_source_open_for_a_task_that_was_cleared_alone(
    coveo: Simulator, a_run: Callable[..., Run], work: str, statuses: list[str]
) -> None:
    run = a_run()
    run.execute("open")
    for name in ("close", "outcome"):
        run.states[f"push_source_update.{name}"] = "success"
    run.states["push_source_update.work"] = work
    run.state = "failed" if work == "skipped" else "running"
    run.call_back()
    assert coveo.statuses(SOURCE) == statuses


def test_a_callback_does_not_close_a_source_whose_open_was_rejected(
    coveo: Simulator, a_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    coveo.faults.answer(403, operation="status", status_type="REBUILD")
    run = a_run()
    monkeypatch.setattr("airflow.__version__", "3.0.6")
    with pytest.raises(CoveoError):
        run.execute("open")
    run.call_back()
    assert [request.query["statusType"] for request in coveo.requests] == ["REBUILD"]


def test_a_source_that_was_left_open_is_closed_when_the_run_fails(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run()
    run.execute("open")
    run.fail()

    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]
    assert Holder.of_source("acme", SOURCE) is None


def test_a_source_that_was_closed_is_not_closed_again_when_the_run_fails(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run()
    run.execute("open")
    run.execute("close")
    run.fail()

    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


def test_a_source_that_a_later_run_opened_is_left_alone_when_the_run_fails(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run()
    run.execute("open")
    run.held_by_another_run()
    run.fail()

    assert coveo.statuses(SOURCE) == ["REBUILD"]


@pytest.mark.parametrize(
    "states", [{}, {"push_source_update.work": "failed", "push_source_update.close": None}]
)
def test_dead_brackets_on_record_do_not_keep_a_callback_of_airflow_3_from_closing_in_time(
    coveo: Simulator,
    a_run: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
    states: dict[str, str | None],
) -> None:
    run = a_run()
    waits: list[float] = []
    monkeypatch.setattr(liveness, "time", SimpleNamespace(sleep=waits.append, monotonic=lambda: sum(waits)))
    for module in (callbacks, liveness):
        monkeypatch.setattr(module, "callbacks_see_runs", lambda: False)
    run.states_of_later = states
    run.execute("open")
    run.held_by_another_run()
    opened = SourceLedger("acme").holders(SOURCE)
    for number in range(15):
        SourceLedger("acme").hold(SOURCE, replace(opened[0], run_id=f"dead {number}"))
    run.fail()

    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]
    assert sum(waits) <= 5


def test_a_callback_of_airflow_3_leaves_the_source_to_a_bracket_that_is_between_two_tasks(
    coveo: Simulator, a_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run()

    def next_task(_: float) -> None:
        run.states_of_later["push_source_update.work"] = "scheduled"

    monkeypatch.setattr(liveness, "time", SimpleNamespace(sleep=next_task, monotonic=time.monotonic))
    for module in (callbacks, liveness):
        monkeypatch.setattr(module, "callbacks_see_runs", lambda: False)
    run.states_of_later = {"push_source_update.open": "success", "push_source_update.work": None}
    run.execute("open")
    run.held_by_another_run()
    run.fail()

    assert coveo.statuses(SOURCE) == ["REBUILD"]


def test_if_one_source_of_a_mapped_bracket_cannot_be_closed_the_others_still_are(
    coveo: Simulator, a_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run()
    opening = run.update.open.task_id
    opened = BracketRecord(organization_id="acme", phase=Phase.OPEN, first_cut_off_ms=1)
    for index, (conn_id, source) in enumerate(
        [("coveo_nowhere", "no-such-source"), ("coveo_default", SOURCE)]
    ):
        write_bracket(
            Holder("d", "r", opening, index), replace(opened, coveo_conn_id=conn_id, source_id=source)
        )
    monkeypatch.setattr(callbacks, "mapped_group_id", lambda task: "each")
    monkeypatch.setattr(
        airflow_runs,
        "_task_instance_states",
        lambda _dag, _run, names, **_: [(name, index, "skipped") for name in names for index in (0, 1)],
    )
    run.fail()

    assert coveo.statuses(SOURCE) == ["IDLE"]


@pytest.mark.parametrize("version", ["3.3.2", "3.0.6"])
def test_a_callback_logs_the_map_indexes_that_it_had_no_time_to_check(
    coveo: Simulator,
    a_run: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    version: str,
) -> None:
    run = a_run()
    monkeypatch.setattr("airflow.__version__", version)
    opening = run.update.open.task_id
    opened = BracketRecord(
        organization_id="acme", phase=Phase.OPEN, coveo_conn_id="coveo_default", source_id=SOURCE
    )
    indexes = range(40)
    for index in indexes:
        write_bracket(Holder("d", "r", opening, index), opened)
    monkeypatch.setattr(callbacks, "mapped_group_id", lambda task: "each")
    for module in (callbacks, liveness):
        monkeypatch.setattr(module, "callbacks_see_runs", lambda: False)
    monkeypatch.setattr(
        airflow_runs,
        "_task_instance_states",
        lambda _dag, _run, names, **_: [(name, index, "skipped") for name in names for index in indexes],
    )
    monkeypatch.setattr(callbacks, "_BUDGET_SECONDS", 0.0)
    run.fail()

    assert coveo.statuses(SOURCE) == ["IDLE"]
    named = "1, 2, 3" if version == "3.3.2" else "1 and those after it"
    assert f"Not checked: {named}" in caplog.text
    assert ("19 more" in caplog.text) is (version == "3.3.2")


def test_a_run_that_fails_before_it_opened_anything_sends_nothing(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    a_run().fail()

    assert coveo.requests == []


# --- the events of its assets ---


def test_the_event_of_the_bracket_s_asset_has_the_counts_of_its_pushes(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    asset, other = (
        push_source_asset(source_id=SOURCE, organization_id="acme"),
        sdk.Asset("coveo://acme/other"),
    )
    run = a_run(outlets=[asset, other])
    run.execute("open")
    run.execute("work")
    run.xcoms[run.task("work").task_id, "coveo_pushed"] = [
        {f"acme/{SOURCE}": {"accepted": 2, "deleted": 1}},
        {f"acme/{SOURCE}": {"accepted": 3}, "acme/elsewhere": {"accepted": 9}},
    ]
    run.execute("close")
    events = {asset.uri: SimpleNamespace(extra={"mine": 1}), other.uri: SimpleNamespace(extra={})}

    class Events:
        def __getitem__(self, outlet: Any) -> Any:
            return events[outlet.uri]

    context = {**run.context("outcome"), "outlet_events": Events()}
    run.task("outcome").execute(context)
    assert events[asset.uri].extra == {"mine": 1, "accepted": 5, "deleted": 1}
    assert events[other.uri].extra == {}


@pytest.mark.parametrize(
    "pushed", [None, "x", [None], {"acme/acme-products": None}, {"acme/acme-products": 3}]
)
def test_unreadable_counts_do_not_fail_the_bracket(
    coveo: Simulator, a_run: Callable[..., Run], pushed: Any
) -> None:
    run = a_run(outlets=[push_source_asset(source_id=SOURCE, organization_id="acme")])
    run.execute("open")
    run.execute("work")
    run.xcoms[run.task("work").task_id, "coveo_pushed"] = pushed
    run.execute("close")
    assert run.execute("outcome")["source_id"] == SOURCE


def test_no_asset_event_is_emitted_while_the_source_is_left_open_for_another_bracket(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run(outlets=[push_source_asset(source_id=SOURCE, organization_id="acme")])
    run.execute("open")
    run.execute("work")
    SourceLedger("acme").hold(SOURCE, SourceRecord("another", "its_run", "update.open", status="REFRESH"))
    run.execute("close")
    run.execute("outcome")
    assert coveo.statuses(SOURCE) == ["REBUILD"]
    assert run.task("outcome").outlets == []
