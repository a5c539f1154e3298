"""The conditions, timeouts and messages of the sensors, in a worker and deferred."""

from __future__ import annotations

import json
import re
import runpy
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)

from airflow_provider_coveo.coveo.errors import (
    AccessDeniedError,
    CoveoInputError,
    IndexingUnknownError,
    ItemsRefusedError,
    NotFoundError,
    OrganizationPausedError,
    ServiceError,
    SourceNotUsableError,
)
from airflow_provider_coveo.coveo.items import Delete
from airflow_provider_coveo.coveo.ordering_ids import now_ms
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.sensors.coveo_push import (
    PushApiQuotaSensor,
    PushedItemsIndexedSensor,
    PushSourceStatusSensor,
)
from airflow_provider_coveo.simulator import Simulator
from airflow_provider_coveo.simulator.items import Rejection
from tests.conftest import SOURCE, index_now, keep_off_midnight
from tests.fresh import RunFresh
from tests.unit.triggers.helpers import fired

pytestmark = pytest.mark.usefixtures("connect")

WAYS = pytest.mark.parametrize("deferrable", [False, True], ids=["in a worker", "deferred"])


def outcome(sensor: Any) -> Any:
    """Execute a sensor's task to its end, including the triggerer if it is deferred."""
    try:
        return sensor.execute({})
    except TaskDeferred as deferred:
        event = fired(deferred.trigger)
        return getattr(sensor, deferred.method_name)({}, event=event, **(deferred.kwargs or {}))


def patient(sensor: Any) -> Any:
    """Set a hook whose retries don't delay a test."""
    sensor.__dict__["hook"] = CoveoPushHook(retry=RetryPolicy(total_seconds=0))
    return sensor


def status_sensor(**arguments: Any) -> Any:
    given = {"task_id": "wait", "source_id": SOURCE, "poke_interval": 0.05, "timeout": 60, **arguments}
    return PushSourceStatusSensor(**given)


def indexed_sensor(result: Any, **arguments: Any) -> Any:
    given = {"task_id": "wait", "poke_interval": 0.05, "timeout": 60, "settle_time": 0, **arguments}
    return PushedItemsIndexedSensor(result=result, **given)


def items(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"documentId": f"product://{number}", "data": "text"} for number in range(first, first + count)]


# --- the status of a source ---


@WAYS
def test_the_status_sensor_waits_until_the_source_is_idle(
    coveo: Simulator, hook: CoveoPushHook, deferrable: bool
) -> None:
    hook.set_source_status(SOURCE, "REBUILD")

    def finish() -> None:
        coveo.wait_for(lambda: sum(one.operation == "source" for one in coveo.requests) >= 2)
        hook.set_source_status(SOURCE, "IDLE")

    other = threading.Thread(target=finish)
    other.start()
    assert outcome(status_sensor(deferrable=deferrable)) == {
        "source_id": SOURCE,
        "status": "IDLE",
        "active_since": None,
    }
    other.join()


@pytest.mark.parametrize(
    ("status", "statuses"),
    [
        ("REBUILD", "rebuild"),
        ("REFRESH", "INCREMENTAL, REFRESH"),
        ("INCREMENTAL", ["REFRESH", "INCREMENTAL"]),
    ],
)
def test_the_status_sensor_accepts_any_of_several_statuses_of_the_push_api(
    coveo: Simulator, hook: CoveoPushHook, status: str, statuses: Any
) -> None:
    hook.set_source_status(SOURCE, status)
    result = outcome(status_sensor(statuses=statuses))
    assert result["status"] == status
    assert result["active_since"] == coveo.activities(SOURCE)[0]["startDate"]


def test_a_source_whose_status_the_platform_calls_idle_is_idle(coveo: Simulator) -> None:
    coveo.set_source_state(SOURCE, "IDLE")
    assert outcome(status_sensor())["status"] == "IDLE"


@WAYS
@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("ERROR", "it is in error"),
        ("PAUSED_ON_ERROR", r"it was paused by Coveo because of errors \(TOO_MANY_ERRORS\)"),
        ("DISABLED", "it is disabled"),
        ("DELETING", "it is being deleted"),
    ],
)
def test_an_unusable_source_fails_the_task_at_once(
    coveo: Simulator, hook: CoveoPushHook, state: str, words: str, deferrable: bool
) -> None:
    sensor = status_sensor(deferrable=deferrable)
    if deferrable:
        hook.set_source_status(SOURCE, "REBUILD")
        with pytest.raises(TaskDeferred) as deferred:
            sensor.execute({})
    coveo.set_source_state(
        SOURCE, state, error_code="TOO_MANY_ERRORS" if state == "PAUSED_ON_ERROR" else None
    )
    conclude = (
        (lambda: sensor.execute_complete({}, fired(deferred.value.trigger)))
        if deferrable
        else (lambda: sensor.execute({}))
    )
    with pytest.raises(SourceNotUsableError, match=words) as raised:
        conclude()
    assert isinstance(raised.value, AirflowFailException)


@pytest.mark.parametrize("state", ["PAUSED", "CREATING"])
def test_the_sensor_waits_for_a_source_that_can_still_become_usable(coveo: Simulator, state: str) -> None:
    coveo.set_source_state(SOURCE, state)
    with pytest.raises(AirflowSensorTimeout):
        outcome(status_sensor(timeout=0))


@WAYS
def test_a_paused_organization_fails_the_task_at_once(
    coveo: Simulator, hook: CoveoPushHook, deferrable: bool
) -> None:
    hook.set_source_status(SOURCE, "REBUILD")
    coveo.pause_organization()
    with pytest.raises(OrganizationPausedError, match="'acme' is paused") as raised:
        outcome(status_sensor(deferrable=deferrable))
    assert isinstance(raised.value, AirflowFailException)


def test_an_organization_that_is_being_deleted_fails_the_task_at_once(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    hook.set_source_status(SOURCE, "REBUILD")
    coveo.faults.answer(
        200, body='{"lifeCycleState": "DELETING"}', operation="organization_status", times=None
    )
    for sensor in (status_sensor(), PushApiQuotaSensor(task_id="quota", items=1)):
        with pytest.raises(OrganizationPausedError, match="'acme' is being deleted") as raised:
            outcome(sensor)
        assert isinstance(raised.value, AirflowFailException)


def test_a_server_error_for_the_organization_s_status_fails_the_attempt(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    hook.set_source_status(SOURCE, "REBUILD")
    coveo.faults.answer(503, operation="organization_status", times=None)
    with pytest.raises(ServiceError):
        outcome(patient(status_sensor()))


def test_a_rejected_request_for_the_organization_s_status_is_ignored(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    hook.set_source_status(SOURCE, "REBUILD")
    coveo.faults.answer(404, operation="organization_status", times=None)
    with pytest.raises(AirflowSensorTimeout):
        outcome(status_sensor(timeout=0))


def test_a_deleted_source_fails_the_task_at_once(coveo: Simulator) -> None:
    with pytest.raises(NotFoundError, match="or it was deleted"):
        outcome(status_sensor(source_id="gone"))


def test_the_error_of_a_push_only_key_names_the_privileges_that_the_sensor_needs(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    connect(**json.loads(coveo.connection_json(push_only=True)))
    with pytest.raises(AccessDeniedError, match="Sources: View"):
        outcome(status_sensor())
    with pytest.raises(AccessDeniedError, match="Organization: View"):
        outcome(PushApiQuotaSensor(task_id="quota", items=1))
    result = {"source_id": SOURCE, "accepted_adds": 1, "ordering_id": int(time.time() * 1000) - 1000}
    with pytest.raises(AccessDeniedError, match="Organization: View and Sources: View"):
        outcome(indexed_sensor(result))


@pytest.mark.parametrize("statuses", ["RESCAN", "", [], None, 3, {"IDLE": 1}])
def test_an_invalid_status_is_rejected_before_anything_is_sent(coveo: Simulator, statuses: Any) -> None:
    with pytest.raises(CoveoInputError) as raised:
        outcome(status_sensor(statuses=statuses, deferrable=True))
    assert isinstance(raised.value, AirflowFailException)
    assert coveo.requests == []


# --- timeouts, and alternatives to failing ---


def test_a_deferred_task_that_times_out_reports_its_last_poll(hook: CoveoPushHook) -> None:
    hook.set_source_status(SOURCE, "REBUILD")
    with pytest.raises(AirflowSensorTimeout, match=r"0:00:00.4.* is REBUILD \(shown as 'Rebuild'\) since"):
        outcome(status_sensor(deferrable=True, timeout=0.4))


def test_the_execution_timeout_counts_from_the_start_of_the_task(hook: CoveoPushHook) -> None:
    hook.set_source_status(SOURCE, "REBUILD")
    sensor = status_sensor(deferrable=True, execution_timeout=timedelta(seconds=60))
    started = datetime.now(timezone.utc) - timedelta(seconds=58)
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute({"ti": SimpleNamespace(start_date=started)})
    assert 0 <= deferred.value.trigger.give_up_at - (started.timestamp() + 60) < 30
    assert deferred.value.timeout < timedelta(seconds=63)
    with pytest.raises(
        AirflowTaskTimeout, match=r"execution_timeout of 0:01:00 has passed\. Last poll: Source"
    ):
        sensor.execute_complete({}, fired(deferred.value.trigger), **deferred.value.kwargs)


def test_the_shorter_of_the_two_timeouts_applies(hook: CoveoPushHook) -> None:
    hook.set_source_status(SOURCE, "REBUILD")
    sensor = status_sensor(deferrable=True, timeout=0.4, execution_timeout=timedelta(hours=1))
    with pytest.raises(AirflowSensorTimeout, match=r"timeout of 0:00:00\.4.* has passed"):
        outcome(sensor)


def test_a_deferred_task_has_a_timeout_in_airflow_itself_in_case_no_triggerer_ends_it(
    hook: CoveoPushHook,
) -> None:
    hook.set_source_status(SOURCE, "REBUILD")
    with pytest.raises(TaskDeferred) as deferred:
        status_sensor(deferrable=True, timeout=100).execute({})
    assert timedelta(seconds=100) < deferred.value.timeout < timedelta(seconds=200)


@WAYS
@pytest.mark.parametrize("how", ["soft_fail", "never_fail"])
def test_a_task_can_be_skipped_instead_of_failed(
    coveo: Simulator, hook: CoveoPushHook, deferrable: bool, how: str
) -> None:
    hook.set_source_status(SOURCE, "REBUILD")
    # In a worker, Airflow's never_fail does not apply to timeouts.
    with pytest.raises(AirflowSkipException if deferrable or how == "soft_fail" else AirflowSensorTimeout):
        outcome(status_sensor(deferrable=deferrable, timeout=0.2, **{how: True}))
    coveo.set_source_state(SOURCE, "ERROR")
    with pytest.raises(AirflowSkipException):
        outcome(status_sensor(deferrable=deferrable, **{how: True}))


@WAYS
@pytest.mark.parametrize("how", ["soft_fail", "never_fail"])
def test_a_skipped_task_shows_the_reason(
    coveo: Simulator, logged: Callable[[], str], deferrable: bool, how: str
) -> None:
    coveo.set_source_state(SOURCE, "ERROR")
    with pytest.raises(AirflowSkipException) as skipped:
        outcome(status_sensor(deferrable=deferrable, **{how: True}))
    assert "it is in error" in logged() + str(skipped.value)


def deferred_while(coveo: Simulator, hook: CoveoPushHook, **arguments: Any) -> Any:
    """Defer a sensor, and let the triggerer meet a temporary error."""
    hook.set_source_status(SOURCE, "REBUILD")
    sensor = status_sensor(deferrable=True, **arguments)
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute({})
    coveo.faults.answer(503, headers={"Retry-After": "3000"}, operation="source")
    event = fired(deferred.value.trigger)
    return lambda: sensor.execute_complete({}, event, **deferred.value.kwargs)


def test_a_temporary_error_is_left_to_the_task_s_retries(coveo: Simulator, hook: CoveoPushHook) -> None:
    for arguments in ({}, {"soft_fail": True}):
        with pytest.raises(ServiceError) as raised:
            deferred_while(coveo, hook, **arguments)()
        assert not isinstance(raised.value, AirflowFailException)
        assert (raised.value.status_code, raised.value.retry_after) == (503, 3000)
    with pytest.raises(AirflowSkipException):
        deferred_while(coveo, hook, never_fail=True)()


def test_with_silent_fail_a_temporary_error_does_not_end_the_wait(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    with pytest.raises(AirflowSensorTimeout, match="is REBUILD"):
        # Long enough for another poll after the one with the error.
        deferred_while(coveo, hook, silent_fail=True, timeout=3)()
    coveo.faults.answer(503, operation="source")
    with pytest.raises(TaskDeferred):
        patient(status_sensor(deferrable=True, silent_fail=True)).execute({})


@WAYS
def test_with_silent_fail_a_final_error_still_ends_the_wait(coveo: Simulator, deferrable: bool) -> None:
    with pytest.raises(NotFoundError):
        outcome(status_sensor(source_id="gone", deferrable=deferrable, silent_fail=True))


def test_in_reschedule_mode_a_poll_does_not_depend_on_the_previous_one(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    sensor = status_sensor(mode="reschedule")
    hook.set_source_status(SOURCE, "REBUILD")
    assert sensor.poke({}).is_done is False
    hook.set_source_status(SOURCE, "IDLE")
    done = sensor.poke({})
    assert (done.is_done, done.xcom_value["status"]) == (True, "IDLE")
    assert sensor.reschedule


def test_the_default_of_deferrable_is_airflow_s_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert status_sensor().deferrable is False
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    assert status_sensor().deferrable is True
    assert status_sensor(deferrable=False).deferrable is False


def test_importing_the_sensors_loads_neither_http_libraries_nor_the_hook(
    run_fresh: RunFresh,
) -> None:
    script = """
import sys
from airflow.providers.common.compat.sdk import BaseSensorOperator, PokeReturnValue, XComArg, conf
before = set(sys.modules)
import airflow_provider_coveo.sensors.coveo_push
new = set(sys.modules) - before
assert not [name for name in new if name.split(".")[0] in ("requests", "aiohttp", "urllib3", "tenacity")], new
assert not [name for name in new if ".hooks." in name or ".triggers." in name], new
"""
    done = run_fresh(script)
    assert done.returncode == 0, done.stdout + done.stderr


# --- the indexing of pushed items ---


@WAYS
def test_the_indexing_sensor_waits_until_the_whole_push_is_indexed(
    coveo: Simulator, hook: CoveoPushHook, deferrable: bool
) -> None:
    hook.push_items(SOURCE, items(3))
    coveo.indexing_delay = 600
    result = hook.push_items(SOURCE, items(5, first=1), delete=["product://0", "product://4711"])
    assert len(coveo.items(SOURCE)) < 5

    def finish() -> None:
        # A poll is at most two requests.
        coveo.wait_for(lambda: sum(one.operation == "log_counts" for one in coveo.requests) >= 3)
        index_now(coveo)

    other = threading.Thread(target=finish)
    other.start()
    counted = outcome(indexed_sensor(result, deferrable=deferrable))
    other.join()
    assert len(coveo.items(SOURCE)) == 5
    assert {key: counted[key] for key in ("source_id", "operations", "refused", "skipped")} == {
        "source_id": SOURCE,
        "operations": 7,
        "refused": 0,
        "skipped": 0,
    }
    json.dumps(counted)


@WAYS
def test_three_of_five_thousand_items_rejected_in_different_stages_are_exactly_those_named(
    coveo: Simulator, hook: CoveoPushHook, deferrable: bool
) -> None:
    refused = {
        "product://17": ("CONSUMING", "REJECTED", "no permissions"),
        "product://2500": ("PROCESSING", "ERROR", "unreadable"),
        "product://4999": ("INDEXING", "REJECTED", "too many fields"),
    }
    for document_id, (task, result, reason) in refused.items():
        coveo.reject_item(document_id, task, result, reason)
    coveo.reject_item("product://4000", "MAPPING", "WARNING", "a field is missing")
    pushed = hook.push_items(SOURCE, items(5000), batch_bytes="64000")
    with pytest.raises(ItemsRefusedError, match=r"3 of 5,000 operations on source 'acme-products'") as raised:
        outcome(indexed_sensor(pushed, deferrable=deferrable))
    assert isinstance(raised.value, AirflowFailException)
    head, *rows = raised.value.note.strip().splitlines()
    assert head.split() == ["item", "operation", "task", "result", "reason", "request", "ID"]
    named = {}
    for row in rows:
        document_id, operation, task, result, rest = row.split(None, 4)
        assert operation == "ADD"
        named[document_id] = (task, result, rest.rsplit("  ", 1)[0].strip())
    assert named == refused


def test_a_poll_without_rejections_sends_two_requests(coveo: Simulator, hook: CoveoPushHook) -> None:
    result = hook.push_items(SOURCE, items(10))
    outcome(indexed_sensor(result))
    assert [one.operation for one in coveo.requests if "log" in (one.operation or "")] == ["log_counts"] * 2


def test_rejected_items_up_to_max_refused_are_only_a_warning(
    coveo: Simulator, hook: CoveoPushHook, logged: Callable[[], str]
) -> None:
    coveo.reject_item("product://3", "PROCESSING", "REJECTED", "unreadable")
    result = hook.push_items(SOURCE, items(10))
    for deferrable in (False, True):
        counted = outcome(indexed_sensor(result, max_refused="1", deferrable=deferrable))
        assert (counted["indexed"], counted["refused"]) == (9, 1)
        assert "unreadable" in logged()


def test_many_rejected_items_are_counted_and_the_first_ones_named(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    for number in range(120):
        coveo.reject_item(f"product://{number}", "CONSUMING", "REJECTED", "no permissions")
    result = hook.push_items(SOURCE, items(130))
    with pytest.raises(ItemsRefusedError, match=r"120 of 130 .*\n(.*\n){21}… and 100 more") as raised:
        outcome(indexed_sensor(result))
    assert len(str(raised.value)) < 6000


def test_the_results_that_count_as_rejections_can_be_chosen(coveo: Simulator, hook: CoveoPushHook) -> None:
    coveo.reject_item("product://3", "CONSUMING", "SKIPPED", "nothing new")
    result = hook.push_items(SOURCE, items(10))
    with pytest.raises(ItemsRefusedError, match="nothing new"):
        outcome(indexed_sensor(result))
    counted = outcome(indexed_sensor(result, refused_results="ERROR, REJECTED"))
    assert (counted["indexed"], counted["refused"], counted["skipped"]) == (9, 0, 1)


@WAYS
def test_any_number_of_skipped_items_does_not_hide_a_rejected_one(
    coveo: Simulator, hook: CoveoPushHook, deferrable: bool
) -> None:
    # More than the sensor reads from the logs.
    for number in range(1, 1200):
        coveo.reject_item(f"product://{number}", "CONSUMING", "SKIPPED", "nothing new")
    result = hook.push_items(SOURCE, items(1200))
    counted = outcome(indexed_sensor(result, refused_results="ERROR,REJECTED", deferrable=deferrable))
    assert (counted["indexed"], counted["refused"], counted["skipped"]) == (1, 0, 1199)
    coveo.add_source("other")
    coveo.reject_item("product://0", "PROCESSING", "ERROR", "unreadable")
    result = hook.push_items("other", items(1200))
    with pytest.raises(ItemsRefusedError, match=r"1 of 1,200 .*\n.*\nproduct://0 .*unreadable"):
        outcome(indexed_sensor(result, refused_results="ERROR,REJECTED", deferrable=deferrable))


def test_rejections_beyond_the_number_of_pushed_items_count_as_those_of_others(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    for number in range(5):
        coveo.reject_item(f"product://{number}", "CONSUMING", "REJECTED", "no permissions")
    result = hook.push_items(SOURCE, items(1))
    hook.push_items(SOURCE, items(4, first=1))
    counted = outcome(indexed_sensor(result, max_refused=5))
    assert (counted["indexed"], counted["refused"], counted["others"]) == (0, 5, 4)


def test_an_unreadable_batch_fails_the_task_without_waiting_for_its_items(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    result = hook.push_items(SOURCE, items(3))
    file_id = hook.client.containers.upload(b"no json", "Could not upload").file_id
    path = f"/push/v1/organizations/acme/sources/{SOURCE}/documents/batch"
    hook.client.containers.submit(path, file_id, "Could not push")
    result["accepted_adds"] += 4
    with pytest.raises(ItemsRefusedError, match=rf"whole batches .*\n.*\n{file_id} +BATCH_FILE"):
        outcome(indexed_sensor(result))


def test_one_sensor_waits_for_the_pushes_of_all_mapped_tasks(coveo: Simulator, hook: CoveoPushHook) -> None:
    results = [hook.push_items(SOURCE, items(5, first=5 * number)) for number in range(3)]
    coveo.reject_item("product://20", "CONSUMING", "REJECTED", "of somebody else, later")
    assert outcome(indexed_sensor(results))["operations"] == 15
    coveo.add_source("other")
    results.append(hook.push_items("other", items(1)))
    with pytest.raises(CoveoInputError, match="several sources: acme-products, other"):
        outcome(indexed_sensor(results))


def test_a_source_that_the_result_is_not_of_is_named(coveo: Simulator, hook: CoveoPushHook) -> None:
    result = hook.push_items(SOURCE, items(1))
    with pytest.raises(CoveoInputError, match=r"'other': the result is of source .*source_id=None"):
        outcome(indexed_sensor(result, source_id="other"))


def test_a_sensor_can_be_mapped() -> None:
    with DAG("mapped", schedule=None, start_date=datetime(2025, 1, 1)):
        mapped = PushSourceStatusSensor.partial(task_id="wait", deferrable=True).expand(source_id=["a", "b"])
    assert mapped.operator_class is PushSourceStatusSensor


@pytest.mark.parametrize("event", [None, "done", {}, {"outcome": "fine"}])
def test_an_unexpected_event_does_not_count_as_success(event: Any) -> None:
    with pytest.raises(ValueError, match="sent an unexpected event"):
        status_sensor().execute_complete({}, event)


@pytest.mark.parametrize("written", [json.dumps, repr, lambda result: result])
def test_the_result_can_be_a_template(hook: CoveoPushHook, written: Any) -> None:
    result = hook.push_items(SOURCE, items(2))
    assert outcome(indexed_sensor(written(result), source_id=SOURCE))["operations"] == 2


def test_operations_of_other_pushes_are_reported(
    coveo: Simulator, hook: CoveoPushHook, logged: Callable[[], str]
) -> None:
    result = hook.push_items(SOURCE, items(2))
    hook.push_items(SOURCE, items(3, first=10))
    counted = outcome(indexed_sensor(result))
    assert (counted["operations"], counted["indexed"], counted["others"]) == (2, 2, 3)
    assert "somebody else is pushing to the source" in logged()


def complain(coveo: Simulator, document_id: str, task: str, result: str = "ERROR") -> None:
    """Let a stage log a problem without rejecting the item, as Coveo's extensions can do."""
    source = coveo.state.source(SOURCE)
    coveo.state.log(source, document_id, "ADD", "request", Rejection(task, result, "the extension failed"))


def index_after_what_is_logged(coveo: Simulator) -> None:
    """Let the pipeline finish its work, later than all current log entries."""
    coveo.wait_for(lambda: now_ms() > coveo.state.source(SOURCE).log[-1].at)
    index_now(coveo)


@pytest.mark.parametrize("many", [1, 30])
def test_an_error_of_a_stage_does_not_count_if_the_last_stage_completes(
    coveo: Simulator, hook: CoveoPushHook, many: int
) -> None:
    coveo.indexing_delay = 600
    result = hook.push_items(SOURCE, items(40))
    for number in range(many):
        complain(coveo, f"product://{number}", "EXTENSION")
    index_after_what_is_logged(coveo)
    counted = outcome(indexed_sensor(result))
    assert (counted["indexed"], counted["refused"]) == (40, 0)
    looked_up = [one for one in coveo.requests if "documentId" in one.query]
    assert len(looked_up) == min(many, 20)


def test_a_rejection_counts_although_an_earlier_stage_skipped_the_item(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    coveo.reject_item("product://2", "INDEXING", "ERROR", "too many fields")
    coveo.indexing_delay = 600
    result = hook.push_items(SOURCE, items(5))
    complain(coveo, "product://2", "EXTENSION", "SKIPPED")
    index_after_what_is_logged(coveo)
    with pytest.raises(ItemsRefusedError, match=r"1 of 5 .*\n.*\nproduct://2 .* INDEXING +ERROR +too many"):
        outcome(indexed_sensor(result, refused_results="ERROR"))


def test_a_rejection_after_indexing_counts(coveo: Simulator, hook: CoveoPushHook) -> None:
    result = hook.push_items(SOURCE, items(5))
    coveo.wait_for(lambda: now_ms() > coveo.state.source(SOURCE).log[-1].at)
    complain(coveo, "product://2", "EXTENSION")
    with pytest.raises(ItemsRefusedError, match=r"product://2 .*the extension failed"):
        outcome(indexed_sensor(result))


def test_the_sensor_does_not_wait_for_an_empty_push(coveo: Simulator, hook: CoveoPushHook) -> None:
    result = hook.push_items(SOURCE, [])
    before = len(coveo.requests)
    assert outcome(indexed_sensor(result))["operations"] == 0
    assert len(coveo.requests) == before


@pytest.mark.parametrize("settle_time", [timedelta(minutes=1), 60, "60"])
def test_a_push_that_has_just_ended_is_not_done_before_settle_time(
    hook: CoveoPushHook, settle_time: Any
) -> None:
    result = hook.push_items(SOURCE, items(2))
    with pytest.raises(AirflowSensorTimeout):
        outcome(indexed_sensor(result, settle_time=settle_time, timeout=0))


@WAYS
def test_a_timeout_before_settle_time_says_what_the_sensor_waited_for(
    hook: CoveoPushHook, deferrable: bool, logged: Callable[[], str]
) -> None:
    result = hook.push_items(SOURCE, items(2))
    with pytest.raises(AirflowSensorTimeout) as late:
        outcome(indexed_sensor(result, settle_time=60, timeout=0, deferrable=deferrable))
    said = str(late.value) if deferrable else logged()
    assert re.search(
        r"began less than settle_time \(60 s\) ago: the logs are not requested for another \d+ s", said
    )


def test_a_push_older_than_the_logs_is_an_error(coveo: Simulator) -> None:
    started = int((time.time() - 15 * 86_400) * 1000)
    result = {"source_id": SOURCE, "accepted_adds": 1, "ordering_id": started}
    with pytest.raises(CoveoInputError, match="Coveo keeps logs for 14 days"):
        outcome(indexed_sensor(result))
    assert coveo.requests == []


def test_the_window_of_an_old_push_is_limited_to_seven_days(coveo: Simulator) -> None:
    started = int((time.time() - 10 * 86_400) * 1000)
    with pytest.raises(AirflowSensorTimeout):
        outcome(indexed_sensor({"source_id": SOURCE, "accepted_adds": 1, "ordering_id": started}, timeout=0))


def test_the_timeout_error_counts_items_that_appear_in_no_log(coveo: Simulator, hook: CoveoPushHook) -> None:
    result = {**hook.push_items(SOURCE, items(4)), "accepted_adds": 5}
    with pytest.raises(
        AirflowSensorTimeout, match="Coveo has processed 4 of 5 operations on source acme-products"
    ):
        outcome(indexed_sensor(result, timeout=0.3, deferrable=True))


@pytest.mark.parametrize(
    "result",
    [
        None,
        "",
        "[]",
        "{{ never rendered }}",
        [None],
        {"source_id": SOURCE},
        {"source_id": SOURCE, "accepted_adds": "many"},
        {"source_id": SOURCE, "accepted_adds": 1, "ordering_id": None},
        {"accepted_adds": 1, "ordering_id": 1},
        {"source_id": "no such!", "accepted_adds": 0},
    ],
)
def test_a_value_that_no_push_returns_is_rejected_before_anything_is_sent(
    coveo: Simulator, result: Any
) -> None:
    with pytest.raises(CoveoInputError) as raised:
        outcome(indexed_sensor(result))
    assert isinstance(raised.value, AirflowFailException)
    assert coveo.requests == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_refused": -1},
        {"max_refused": "some"},
        {"max_refused": "²"},
        {"settle_time": -1},
        {"settle_time": "inf"},
        {"settle_time": 1e300},
        {"settle_time": timedelta(days=7)},
        {"settle_time": "1 min"},
        {"refused_results": "WARNING"},
        {"refused_results": []},
    ],
)
def test_an_invalid_parameter_is_rejected_before_anything_is_sent(
    coveo: Simulator, arguments: dict[str, Any]
) -> None:
    with pytest.raises(CoveoInputError, match=r"Remedy: (Give|Pass)"):
        outcome(indexed_sensor({"source_id": SOURCE, "accepted_adds": 0}, **arguments))
    assert coveo.requests == []


# --- the daily quota ---


@WAYS
def test_the_quota_sensor_waits_until_the_quota_is_sufficient(
    coveo: Simulator, hook: CoveoPushHook, deferrable: bool
) -> None:
    keep_off_midnight(coveo)
    coveo.daily_documents = 10
    hook.push_items(SOURCE, items(8))
    sensor = PushApiQuotaSensor(
        task_id="quota", items="3", deferrable=deferrable, poke_interval=0.05, timeout=60
    )

    def renew() -> None:
        coveo.wait_for(lambda: sum(one.operation == "limit" for one in coveo.requests) >= 2)
        coveo.clock.advance(days=1)

    other = threading.Thread(target=renew)
    other.start()
    assert outcome(sensor) == {"limit": 10, "used": 0, "remaining": 10}
    other.join()


def test_a_quota_of_exactly_the_required_items_is_sufficient(coveo: Simulator, hook: CoveoPushHook) -> None:
    keep_off_midnight(coveo)
    coveo.daily_documents = 10
    hook.push_items(SOURCE, items(8))
    assert outcome(PushApiQuotaSensor(task_id="quota", items=2, timeout=0))["remaining"] == 2


def test_the_error_of_an_insufficient_quota_says_when_it_renews(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    keep_off_midnight(coveo)
    coveo.daily_documents = 10
    hook.push_items(SOURCE, items(8))
    with pytest.raises(
        AirflowSensorTimeout, match=r"2 of 10 items .* fewer than the required 3; the quota renews the next"
    ):
        outcome(PushApiQuotaSensor(task_id="quota", items=3, timeout=0, deferrable=True))
    with pytest.raises(AirflowSkipException):
        outcome(PushApiQuotaSensor(task_id="quota", items=3, timeout=0, deferrable=True, soft_fail=True))


def test_more_items_than_a_day_s_quota_fail_the_task_at_once(coveo: Simulator) -> None:
    coveo.daily_documents = 10
    with pytest.raises(CoveoInputError, match="11 items can never be pushed in one day") as raised:
        outcome(PushApiQuotaSensor(task_id="quota", items=11))
    assert isinstance(raised.value, AirflowFailException)


def test_the_quota_sensor_fails_at_once_if_the_organization_is_paused(coveo: Simulator) -> None:
    coveo.pause_organization()
    with pytest.raises(OrganizationPausedError, match="Nothing can be pushed: organization 'acme' is paused"):
        outcome(PushApiQuotaSensor(task_id="quota", items=1))


@pytest.mark.parametrize("wanted", [0, "none", "²", True, 1.5, None])
def test_an_invalid_number_of_items_is_rejected(coveo: Simulator, wanted: Any) -> None:
    with pytest.raises(CoveoInputError, match="Invalid number of items"):
        outcome(PushApiQuotaSensor(task_id="quota", items=wanted))
    assert coveo.requests == []


def test_the_example_s_sensors_check_the_quota_and_the_pushed_items(coveo: Simulator) -> None:
    example = Path(__file__).resolve().parents[3] / "dags_examples" / "coveo_wait_until_indexed.py"
    dag = runpy.run_path(str(example))["dag"]
    quota, indexed = dag.get_task("quota"), dag.get_task("indexed")
    coveo.daily_documents = 2
    with pytest.raises(AirflowSkipException):
        quota.execute({})
    coveo.daily_documents = 3
    quota.execute({})

    indexed.result, indexed.max_refused = CoveoPushHook().push_items(SOURCE, items(3)), 0
    indexed.settle_time = 0
    assert outcome(indexed)["indexed"] == 3


# --- repeated items must not hide missing ones ---

LATER = 600


def pushed_with_a_504(
    coveo: Simulator, *, applied: bool, count: int = 10
) -> tuple[dict[str, Any], Callable[[], None]]:
    """
    Push in two batches: the first one is sent twice, and the second one waits in the pipeline.

    :return: the result, and a function that lets the pipeline process the second batch.
    """
    coveo.faults.answer(504, applied=applied, operation="batch")
    hook = CoveoPushHook(retry=RetryPolicy(total_seconds=30, first_wait=0.01, longest_wait=0.02))

    def hold_up(_: dict[str, Any]) -> None:
        coveo.indexing_delay = LATER

    pushed = [{"documentId": f"product://{number:05}", "data": "x" * 200} for number in range(count)]
    size = len(json.dumps(pushed[0], separators=(",", ":"))) + 1
    result = hook.push_items(SOURCE, pushed, batch_bytes=31 + count // 2 * size, progress=hold_up)
    assert result["batches"] == 2
    assert (result["repeated_batches"], result["repeated_items"]) == (1, count // 2)
    return result, lambda: index_now(coveo)


@WAYS
def test_repeated_log_entries_do_not_count_for_missing_items(
    coveo: Simulator, hook: CoveoPushHook, deferrable: bool, logged: Callable[[], str]
) -> None:
    result, finish = pushed_with_a_504(coveo, applied=True)
    assert len(coveo.items(SOURCE)) == 5
    # The logs show as many operations as were pushed.
    assert sum(record.operation in {"ADD", "UPDATE"} for record in coveo.state.source(SOURCE).log) == 10
    with pytest.raises(AirflowSensorTimeout) as late:
        outcome(indexed_sensor(result, deferrable=deferrable, timeout=0.2))
    said = logged()
    assert "it is unknown whether all of them are processed yet" in said + str(late.value)
    assert "All 10" not in said
    finish()
    counted = outcome(indexed_sensor(result, deferrable=deferrable))
    assert (counted["indexed"], counted["repeated"], counted["others"]) == (10, 5, 0)
    assert "The logs show 5 of them twice, because batches were sent again" in logged()


@WAYS
def test_without_repeated_log_entries_all_different_items_are_enough(
    coveo: Simulator, deferrable: bool
) -> None:
    result, finish = pushed_with_a_504(coveo, applied=False)
    finish()
    counted = outcome(indexed_sensor(result, deferrable=deferrable))
    assert (counted["indexed"], counted["repeated"], counted["others"]) == (10, 0, 0)


@WAYS
def test_an_unknown_outcome_fails_once_the_logs_have_no_new_entries(
    coveo: Simulator, deferrable: bool
) -> None:
    result, finish = pushed_with_a_504(coveo, applied=False, count=2400)
    finish()
    # Too many to look up, and 1200 of them may be repeats.
    with pytest.raises(AirflowSensorTimeout):
        outcome(indexed_sensor(result, deferrable=deferrable, timeout=0.1))
    with pytest.raises(IndexingUnknownError, match="on_repeated='warn'") as raised:
        outcome(indexed_sensor(result, deferrable=deferrable, quiet_time=0))
    assert isinstance(raised.value, AirflowFailException)


@WAYS
def test_an_unknown_outcome_only_warns_with_on_repeated_warn(
    coveo: Simulator, deferrable: bool, logged: Callable[[], str]
) -> None:
    result, finish = pushed_with_a_504(coveo, applied=False, count=2400)
    finish()
    sensor = indexed_sensor(result, deferrable=deferrable, quiet_time="0", on_repeated="Warn")
    assert outcome(sensor)["operations"] == 2400
    assert "it is unknown whether all of them are processed" in logged()
    assert "All 2,400" not in logged()


def test_deletions_do_not_count_as_additions(coveo: Simulator, hook: CoveoPushHook) -> None:
    coveo.indexing_delay = LATER
    result = hook.push_items(SOURCE, items(3))
    coveo.indexing_delay = 0
    hook.push_items(SOURCE, [], delete=[f"other://{number}" for number in range(3)])
    with pytest.raises(AirflowSensorTimeout):
        outcome(indexed_sensor(result, timeout=0.2))
    coveo.indexing_delay = LATER
    index_now(coveo)
    assert outcome(indexed_sensor(result))["operations"] == 3


def test_items_deleted_as_children_do_not_count_as_operations(coveo: Simulator, hook: CoveoPushHook) -> None:
    result = hook.push_items(SOURCE, [], delete=[Delete("file://a", delete_children=True)])
    assert result["deletes_with_children"] == 1
    coveo.indexing_delay = LATER
    more = hook.push_items(SOURCE, [], delete=["file://c"])
    coveo.indexing_delay = 0
    # Coveo may log each item that is deleted like this.
    source = coveo.state.source(SOURCE)
    coveo.state.log(source, "file://a/b", "DELETE_AND_CHILDREN", "request")
    with pytest.raises(AirflowSensorTimeout):
        outcome(indexed_sensor([result, more], timeout=0.2))
    coveo.indexing_delay = LATER
    index_now(coveo)
    assert outcome(indexed_sensor([result, more]))["operations"] == 2


@pytest.mark.parametrize("names", [("file://a/b", "file://a/c"), ("other://b", "other://c")])
def test_items_deleted_as_children_do_not_count_as_repeats(coveo: Simulator, names: tuple[str, ...]) -> None:
    """Two items are missing, two appear twice, and two appear because a deletion included them."""
    coveo.faults.answer(504, applied=True, operation="batch")
    hook = CoveoPushHook(retry=RetryPolicy(total_seconds=30, first_wait=0.01, longest_wait=0.02))
    first = hook.push_items(SOURCE, items(2))
    folder = hook.push_items(SOURCE, [], delete=[Delete("file://a", delete_children=True)])
    coveo.indexing_delay = LATER
    more = hook.push_items(SOURCE, items(2, 2))
    coveo.indexing_delay = 0
    source = coveo.state.source(SOURCE)
    for name in names:
        coveo.state.log(source, name, "DELETE_AND_CHILDREN", "request")
    with pytest.raises(AirflowSensorTimeout):
        outcome(indexed_sensor([first, folder, more], timeout=0.2))
    coveo.indexing_delay = LATER
    index_now(coveo)
    assert outcome(indexed_sensor([first, folder, more]))["operations"] == 5


def test_an_operation_sent_and_rejected_twice_counts_as_one_rejection(coveo: Simulator) -> None:
    coveo.reject_item("product://00001", "CONSUMING", "REJECTED", "no permissions")
    result, finish = pushed_with_a_504(coveo, applied=True)
    finish()
    counted = outcome(indexed_sensor(result, max_refused=1))
    assert (counted["indexed"], counted["refused"], counted["repeated"]) == (9, 1, 5)


@WAYS
def test_operations_of_a_cleared_task_do_not_count_for_its_next_push(
    coveo: Simulator, hook: CoveoPushHook, deferrable: bool, logged: Callable[[], str]
) -> None:
    result = {**hook.push_items(SOURCE, items(5)), "earlier_items": 5}
    with pytest.raises(AirflowSensorTimeout):
        outcome(indexed_sensor(result, deferrable=deferrable, timeout=0.2))
    assert "All 5" not in logged()
    # Either the rest appears, too, or no more entries come.
    assert outcome(indexed_sensor(result, deferrable=deferrable, quiet_time=0))["indexed"] == 5
    hook.push_items(SOURCE, items(5))
    assert outcome(indexed_sensor(result, deferrable=deferrable))["others"] == 5


def test_a_push_result_of_version_0_1_can_still_be_read(hook: CoveoPushHook) -> None:
    result = hook.push_items(SOURCE, items(2), delete=["a://1"])
    for key in ("repeated_batches", "repeated_items", "earlier_items", "deletes_with_children"):
        del result[key]
    assert outcome(indexed_sensor(result))["operations"] == 3


@pytest.mark.parametrize(
    "arguments", [{"on_repeated": "shrug"}, {"on_repeated": None}, {"quiet_time": -1}, {"quiet_time": "soon"}]
)
def test_other_invalid_parameters_are_rejected(coveo: Simulator, arguments: dict[str, Any]) -> None:
    result = {"source_id": SOURCE, "accepted_adds": 1, "ordering_id": 1}
    with pytest.raises(CoveoInputError, match=next(iter(arguments))):
        outcome(indexed_sensor(result, **arguments))
    assert coveo.requests == []
