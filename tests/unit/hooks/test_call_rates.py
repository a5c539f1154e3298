"""Many tasks, each in a separate process, share an organization's call limit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from airflow_provider_coveo.coveo.errors import NoAnswerError, TooManyRequestsError
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE

#: A slot of an Airflow pool: one task after the other, each in a forked process.
_SLOT = """
import json, os, sys
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

item = {"documentId": "page://home", "data": "x"}
tasks = {
    "open": lambda hook, source: hook.set_source_status(source, "REFRESH"),
    "push": lambda hook, source: hook.push_items(source, [item]),
    "close": lambda hook, source: hook.set_source_status(source, "IDLE"),
}
print("ready", flush=True)
for line in sys.stdin:
    told = json.loads(line)
    os.environ["AIRFLOW_CONN_COVEO_DEFAULT"] = told["connection"]
    policy = RetryPolicy(**told["policy"])
    failed = 0
    for source in told["sources"]:
        for task in tasks.values():
            child = os.fork()
            if not child:
                try:
                    task(CoveoPushHook(retry=policy), source)
                except BaseException as error:
                    print(error, file=sys.stderr, flush=True)
                    os._exit(1)
                os._exit(0)
            failed += os.waitpid(child, 0)[1] != 0
    print("failed", failed, flush=True)
"""
SLOTS = 3
SOURCES = [f"acme-source-{number}" for number in range(SLOTS)]
#: The limit of calls and its window in seconds: a small version of the five minutes that even a busy machine
#: reaches.
LIMIT = (4, 2.5)
#: Retries for many such windows, as the default does for two of five minutes.
PATIENCE = {"total_seconds": 60, "first_wait": 0.05, "longest_wait": 0.2}


@pytest.fixture(scope="module")
def slots() -> Iterator[list[subprocess.Popen[str]]]:
    command = [sys.executable, "-c", _SLOT]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(SLOTS)
    ]
    for slot in started:
        assert slot.stdout is not None
        assert any(line == "ready\n" for line in iter(slot.stdout.readline, ""))
    yield started
    for slot in started:
        slot.communicate(timeout=60)


@pytest.fixture
def run_pool(
    coveo: Simulator, connect: Callable[..., None], slots: list[subprocess.Popen[str]]
) -> Callable[..., None]:
    """Update all sources in three slots at once; each task must succeed."""
    for source in SOURCES:
        coveo.add_source(source)

    def _run(policy: dict[str, float], **extra: object) -> None:
        connection = json.dumps({**json.loads(coveo.connection_json()), "extra": extra})
        for number, slot in enumerate(slots):
            assert slot.stdin is not None
            told = {"connection": connection, "policy": policy, "sources": SOURCES[number::SLOTS]}
            slot.stdin.write(json.dumps(told) + "\n")
            slot.stdin.flush()
        for slot in slots:
            assert slot.stdout is not None
            lines = iter(slot.stdout.readline, "")
            assert next(line for line in lines if line.startswith("failed")) == "failed 0\n"

    return _run


def calls_and_refusals_in_the_fullest_window(coveo: Simulator, seconds: float) -> tuple[int, int]:
    """Return the maximum number of calls within some seconds, and how many of them were rate-limited."""
    calls = [call for call in coveo.requests if call.path.startswith("/push/")]
    # One millisecond less, because the times are truncated to milliseconds.
    window = seconds * 1000 - 1
    found = []
    for first in calls:
        within = [call for call in calls if first.at <= call.at < first.at + window]
        found.append((len(within), sum(call.status == 429 for call in within)))
    return max(found)


def use_up(coveo: Simulator) -> None:
    """Use up the calls, so that even slow tasks reach the limit."""
    for _ in range(LIMIT[0]):
        CoveoPushHook().set_source_status(SOURCE, "IDLE")


def assert_all_updated(coveo: Simulator) -> None:
    for source in SOURCES:
        assert coveo.statuses(source) == ["REFRESH", "IDLE"]
        assert list(coveo.items(source)) == ["page://home"]


def test_tasks_that_get_no_retry_after_exceed_the_limit_by_no_more_than_their_pools_slots(
    coveo: Simulator, run_pool: Callable[..., None]
) -> None:
    coveo.call_limit, coveo.retry_after = LIMIT, False
    use_up(coveo)
    run_pool({**PATIENCE, "refused_wait": LIMIT[1]})
    assert_all_updated(coveo)
    if all(call.status != 429 for call in coveo.requests):
        pytest.skip("this machine is too busy for the tasks to meet the limit")
    calls, _ = calls_and_refusals_in_the_fullest_window(coveo, LIMIT[1])
    assert calls <= LIMIT[0] + SLOTS


def test_tasks_that_get_a_retry_after_all_succeed(coveo: Simulator, run_pool: Callable[..., None]) -> None:
    coveo.call_limit = LIMIT
    use_up(coveo)
    run_pool(PATIENCE)
    assert_all_updated(coveo)
    if all(call.status != 429 for call in coveo.requests):
        pytest.skip("this machine is too busy for the tasks to meet the limit")


def test_with_a_call_interval_for_the_pool_no_call_is_rate_limited(
    coveo: Simulator, run_pool: Callable[..., None]
) -> None:
    limit, seconds = coveo.call_limit = (8, 1.0)
    run_pool({"total_seconds": 0}, call_interval=seconds * SLOTS / (limit - SLOTS))
    assert_all_updated(coveo)
    calls, refused = calls_and_refusals_in_the_fullest_window(coveo, seconds)
    assert refused == 0
    assert calls <= limit


def test_while_one_call_waits_after_a_429_no_other_thread_sends_one(
    coveo: Simulator, connect: Callable[..., None], logged: Callable[[], str]
) -> None:
    coveo.faults.answer(429, headers={}, operation="status")
    hook = CoveoPushHook(retry=RetryPolicy(total_seconds=10, first_wait=0.01, refused_wait=1))
    refused = threading.Thread(target=hook.set_source_status, args=(SOURCE, "REBUILD"))
    refused.start()
    told = ""

    def waits() -> bool:
        nonlocal told
        told += logged()
        return "Attempt 1 failed; retrying" in told

    # It logs this once the others are paused; a response in flight pauses no one.
    coveo.wait_for(waits)
    # From another hook, since the limiter belongs to the process.
    CoveoPushHook(retry=RetryPolicy(total_seconds=0)).add_or_update_item(
        SOURCE, {"documentId": "a://1", "data": "x"}
    )
    refused.join()
    refusal, *others = coveo.requests
    assert refusal.status == 429
    assert sorted(call.status for call in others) == [201, 202]
    # One millisecond less, because the times are truncated to milliseconds.
    assert all(call.at - refusal.at >= 999 for call in others)


def test_a_killed_task_does_not_wait_for_the_call_interval(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    connect(extra={"call_interval": 30})
    hook = CoveoPushHook()
    started = time.monotonic()
    threading.Timer(0.2, hook.stop).start()
    with pytest.raises(NoAnswerError, match="killed"):
        hook.set_source_status(SOURCE, "IDLE")
    assert time.monotonic() - started < 25
    assert coveo.requests == []


def test_the_call_interval_does_not_apply_to_uploads_and_the_platform_api(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    # Longer than an upload on a busy machine.
    connect(extra={"call_interval": 3})
    hook = CoveoPushHook()
    hook.push_items(SOURCE, [{"documentId": "a://1", "data": "x"}])
    assert hook.get_source(SOURCE)["id"] == SOURCE
    container, upload, batch, source = coveo.requests
    assert [call.operation for call in coveo.requests] == ["files", "upload", "batch", "source"]
    assert upload.at - container.at < 3000 <= batch.at - container.at
    assert source.at - batch.at < 3000


def test_a_policy_that_cannot_wait_the_full_time_retries_a_rate_limited_call_sooner(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    coveo.faults.answer(429, headers={}, times=2, operation="status")
    hook.set_source_status(SOURCE, "IDLE")
    coveo.faults.answer(429, headers={}, times=None, operation="status")
    with pytest.raises(TooManyRequestsError):
        CoveoPushHook(retry=RetryPolicy(total_seconds=0)).set_source_status(SOURCE, "IDLE")


def test_a_forked_process_starts_its_own_call_interval(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    connect(extra={"call_interval": 0.3})
    CoveoPushHook().set_source_status(SOURCE, "REBUILD")
    time.sleep(0.3)
    forked = time.monotonic()
    child = os.fork()
    if not child:
        try:
            CoveoPushHook().set_source_status(SOURCE, "IDLE")
        finally:
            # Whatever the outcome, this process must not continue with the tests.
            os._exit(0)
    os.waitpid(child, 0)
    assert time.monotonic() - forked >= 0.3
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]
