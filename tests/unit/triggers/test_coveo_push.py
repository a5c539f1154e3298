"""Triggers on an event loop: requests, shared sessions, cleanup, and waiting."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_coveo import __version__
from airflow_provider_coveo.coveo.calls import source_call
from airflow_provider_coveo.coveo.errors import (
    AuthenticationError,
    CertificateError,
    CoveoConfigurationError,
    CoveoError,
    NoAnswerError,
    NotFoundError,
    RedirectError,
    ServiceError,
    TooManyRequestsError,
    UnexpectedAnswerError,
)
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.hooks import metrics
from airflow_provider_coveo.hooks.async_client import CoveoAsyncClient
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.simulator import Simulator
from airflow_provider_coveo.transports import aiohttp_transport
from airflow_provider_coveo.triggers import coveo_push as triggers
from airflow_provider_coveo.triggers.coveo_push import (
    PushApiQuotaTrigger,
    PushedItemsIndexedTrigger,
    PushSourceStatusTrigger,
)
from tests.conftest import SOURCE
from tests.fresh import RunFresh
from tests.unit.triggers.helpers import fired, made_again

pytestmark = pytest.mark.usefixtures("connect")

SENTINEL = "xxSENTINEL-0045-48e1-953c-3addd1ee4457"
HOW = {"coveo_conn_id": "coveo_default", "poke_interval": 0.05, "give_up_at": 2_000_000_000.0}
TRIGGERS = [
    PushSourceStatusTrigger(source_id=SOURCE, statuses=["IDLE", "REBUILD"], organization_id="acme", **HOW),
    PushedItemsIndexedTrigger(
        source_id=SOURCE,
        operations=5,
        started=1_700_000_000_000,
        max_refused=1,
        settle_seconds=60.0,
        refusals=["ERROR"],
        silent_fail=True,
        repeated=2,
        adds=3,
        children=1,
        earlier=4,
        repeated_children=1,
        on_repeated="warn",
        quiet_seconds=5.0,
        **HOW,
    ),
    PushApiQuotaTrigger(items=100, **HOW),
]


def ask_for_source(retry: RetryPolicy | None = None) -> dict[str, Any]:
    """Request a source on a separate event loop, with a temporary client."""

    async def ask() -> dict[str, Any]:
        patience = RetryPolicy(total_seconds=5, first_wait=0.01, longest_wait=0.05)
        async with CoveoAsyncClient("coveo_default", caller="Tester", retry=retry or patience) as client:
            settings = await client.settings()
            return await client.call(source_call(settings.organization_id, SOURCE))

    return asyncio.run(ask())


# --- serialization for the triggerer ---


@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda trigger: type(trigger).__name__)
def test_a_trigger_survives_airflow_s_serialization(trigger: Any) -> None:
    parameters = trigger.serialize()[1]
    try:
        from airflow.sdk.serde import deserialize, serialize
    except ImportError:  # before Airflow 3.2
        from airflow.models.trigger import Trigger

        serialize = Trigger.encrypt_kwargs if hasattr(Trigger, "encrypt_kwargs") else Trigger._encrypt_kwargs
        deserialize = Trigger._decrypt_kwargs

    assert deserialize(serialize(parameters)) == parameters
    assert made_again(trigger).serialize() == trigger.serialize()
    assert made_again(trigger).wait() == trigger.wait()


def test_serialized_triggers_contain_no_secret(connect: Callable[..., None]) -> None:
    connect(password=SENTINEL)
    for trigger in TRIGGERS:
        assert SENTINEL not in json.dumps(trigger.serialize()) + repr(vars(trigger))


# --- requests ---


def test_requests_contain_the_key_and_name_the_caller(coveo: Simulator) -> None:
    home = Path(os.environ["HOME"])
    (home / ".netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    (home / ".netrc").chmod(0o600)
    assert ask_for_source()["id"] == SOURCE
    (request,) = coveo.requests
    assert request.path == f"/rest/organizations/acme/sources/{SOURCE}"
    assert request.headers["authorization"] == f"Bearer {coveo.api_key}"
    assert request.headers["accept"] == "application/json"
    assert re.fullmatch(
        rf"airflow-provider-coveo/{re.escape(__version__)} airflow/\S+ python/\S+ caller/Tester",
        request.headers["user-agent"],
    )


def test_a_trigger_sends_the_same_requests_as_the_hook(coveo: Simulator, hook: CoveoPushHook) -> None:
    hook.push_items(SOURCE, [{"documentId": "product://1", "data": "text"}])
    started = int(time.time() * 1000) - 5000
    trigger = PushedItemsIndexedTrigger(
        source_id=SOURCE,
        operations=1,
        started=started,
        max_refused=0,
        settle_seconds=0,
        refusals=["ERROR"],
        **HOW,
    )
    hook.poll(trigger.wait())
    fired(trigger)
    first, second = (
        [one for one in coveo.requests if one.operation == "log_counts"][at:][:2] for at in (0, 2)
    )
    for by_hook, by_trigger in zip(first, second, strict=True):
        assert (by_hook.path, by_hook.body) == (by_trigger.path, by_trigger.body)
        assert by_hook.raw_query[:35] == by_trigger.raw_query[:35]
        own = {"user-agent", "accept-encoding", "connection", "content-length", "host"}
        assert {name: value for name, value in by_hook.headers.items() if name not in own} == {
            name: value for name, value in by_trigger.headers.items() if name not in own
        }


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_temporary_error_is_retried_until_it_is_over(coveo: Simulator, status: int) -> None:
    fault = coveo.faults.answer(status, operation="source", times=2)
    assert ask_for_source()["id"] == SOURCE
    assert fault.used == 2


def test_dropped_connections_and_truncated_responses_are_retried(coveo: Simulator) -> None:
    coveo.faults.drop(operation="source", times=3)
    coveo.faults.truncate(operation="source")
    assert ask_for_source()["id"] == SOURCE


def test_a_retry_waits_for_retry_after(coveo: Simulator) -> None:
    coveo.faults.answer(429, headers={"Retry-After": "1"}, operation="source")
    started = time.monotonic()
    ask_for_source()
    assert time.monotonic() - started >= 1


@pytest.mark.parametrize(
    ("fault", "error_class", "words"),
    [
        ({"status": 429, "headers": {"Retry-After": "3000"}}, TooManyRequestsError, "returned 429"),
        ({"status": 503, "headers": {"Retry-After": "3000"}}, ServiceError, "returned 503"),
        ({"status": 401, "error_code": "INVALID_TOKEN"}, AuthenticationError, "INVALID_TOKEN"),
        ({"status": 200, "body": "<html>", "content_type": "text/html"}, UnexpectedAnswerError, "a web page"),
        ({"status": 200, "body": "[]"}, UnexpectedAnswerError, "not a JSON object with id"),
    ],
)
def test_the_client_of_triggers_raises_the_same_errors_as_the_hook(
    coveo: Simulator, fault: dict[str, Any], error_class: type[CoveoError], words: str
) -> None:
    for ask in (ask_for_source, lambda: CoveoPushHook().get_source(SOURCE)):
        coveo.faults.answer(**fault, operation="source", times=None)
        with pytest.raises(error_class, match=words) as raised:
            ask()
        assert raised.value.tried == f"Could not read source {SOURCE!r}"


def test_a_redirect_is_an_error_and_is_not_followed(coveo: Simulator) -> None:
    coveo.faults.redirect(f"{coveo.url}/elsewhere", operation="source")
    with pytest.raises(RedirectError):
        ask_for_source()
    assert len(coveo.requests) == 1


def test_an_endless_response_is_not_read_completely(
    connect: Callable[..., None], endless_server: Any
) -> None:
    connect(host=endless_server.url)
    with pytest.raises(NotFoundError, match="returned 404") as raised:
        ask_for_source()
    assert len(str(raised.value)) < 1000
    assert endless_server.megabytes < 50


def test_the_timeout_of_the_connection_applies_to_requests(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    connect(extra=json.dumps({"timeout": "5,0.2"}))
    coveo.faults.stall(60, operation="source", times=None)
    started = time.monotonic()
    with pytest.raises(NoAnswerError, match="Timeout"):
        ask_for_source(RetryPolicy(total_seconds=0))
    assert time.monotonic() - started < 50


def test_an_unreachable_host_is_an_error_that_names_it(connect: Callable[..., None]) -> None:
    connect(host="http://127.0.0.1:9")
    with pytest.raises(NoAnswerError, match=r"127\.0\.0\.1:9"):
        ask_for_source(RetryPolicy(total_seconds=0))


def test_requests_use_the_proxy_of_the_connection_or_the_environment_except_for_no_proxy(
    coveo: Simulator, connect: Callable[..., None], proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked_by_proxy() -> bool:
        before = len(proxy.request_lines)
        with suppress(CoveoError):
            ask_for_source(RetryPolicy(total_seconds=0))
        return len(proxy.request_lines) > before

    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    assert asked_by_proxy()
    assert proxy.request_lines[-1].startswith(f"GET {coveo.url}/rest/organizations/acme/sources/")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert not asked_by_proxy()
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("HTTP_PROXY")
    assert not asked_by_proxy()
    connect(extra=json.dumps({"proxies": proxy.url}))
    assert asked_by_proxy()
    connect(extra=json.dumps({"proxies": "socks5://127.0.0.1:9"}))
    with pytest.raises(CoveoConfigurationError, match=r"socks5.*deferrable=False"):
        ask_for_source()


def test_a_certificate_is_verified_as_the_connection_specifies(
    connect: Callable[..., None], tls_server: Any, tmp_path: Any
) -> None:
    def ask(verify: Any) -> None:
        connect(host=tls_server.url, extra=json.dumps({"verify": verify}))
        with suppress(UnexpectedAnswerError):
            ask_for_source(RetryPolicy(total_seconds=0))

    with pytest.raises(CertificateError, match="CERTIFICATE_VERIFY_FAILED"):
        ask(True)
    assert tls_server.requests == 0
    for seen, verify in enumerate((tls_server.certificate, False), start=1):
        with suppress(CoveoError):
            ask(verify)
        assert tls_server.requests == seen
    (tmp_path / "no-certificate.pem").write_text("nothing")
    with pytest.raises(
        CoveoConfigurationError, match=r"Could not use the connection's verify '.*no-certificate\.pem'"
    ):
        ask(str(tmp_path / "no-certificate.pem"))


def test_if_a_key_is_replaced_while_a_trigger_waits_the_new_one_is_read(
    coveo: Simulator, connect: Callable[..., None], hook: CoveoPushHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook.set_source_status(SOURCE, "REBUILD")

    async def wait() -> Any:
        trigger = made_again(PushSourceStatusTrigger(source_id=SOURCE, statuses=["IDLE"], **HOW))
        waiting = asyncio.create_task(trigger.run().__anext__())
        while sum(one.operation == "source" for one in coveo.requests) < 2:
            await asyncio.sleep(0.01)
        monkeypatch.setattr(coveo, "api_key", "xx-new-key")
        connect()
        CoveoPushHook().set_source_status(SOURCE, "IDLE")
        return (await asyncio.wait_for(waiting, 90)).payload

    assert asyncio.run(wait())["outcome"] == "there"


def test_a_key_that_is_no_longer_valid_is_an_error_event(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    connect(password="xx-wrong-key")
    event = fired(TRIGGERS[0])
    assert (event["outcome"], event["error"]["error"]) == ("error", "AuthenticationError")
    # The connection was read again, and has the same key.
    assert [request.status for request in coveo.requests] == [401]


def test_neither_the_key_nor_a_proxy_s_password_shows_in_an_event_or_a_log(
    coveo: Simulator, connect: Callable[..., None], logged: Callable[[], str], proxy: Any
) -> None:
    connect(
        password=SENTINEL,
        extra=json.dumps({"proxies": proxy.url.replace("//", f"//user:{SENTINEL}@"), "timeout": "1"}),
    )
    shown = repr(fired(TRIGGERS[0]))
    connect(password=SENTINEL, host="http://127.0.0.1:9")
    with pytest.raises(NoAnswerError) as raised:
        ask_for_source(RetryPolicy(total_seconds=0))
    shown += repr(raised.value) + logged()
    assert "Could not read" in shown
    assert SENTINEL not in shown


def test_requests_are_counted_like_those_of_the_hook(
    coveo: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: Counter[str] = Counter()
    statistics = SimpleNamespace(incr=lambda name, count, tags: counted.update({name: count}))
    monkeypatch.setattr(metrics, "_stats", lambda: statistics)
    coveo.faults.answer(503, operation="source")
    # Not a connection that closes before the response, because aiohttp itself retries that once.
    coveo.faults.truncate(operation="source")
    ask_for_source()
    assert counted == {
        "coveo.requests": 3,
        "coveo.requests.503": 1,
        "coveo.requests.NoAnswerError": 1,
        "coveo.requests.200": 1,
        "coveo.retries": 2,
    }


# --- waiting ---


def test_a_trigger_polls_no_more_often_than_its_interval(coveo: Simulator, hook: CoveoPushHook) -> None:
    hook.set_source_status(SOURCE, "REBUILD")
    how = {**HOW, "poke_interval": 0.2, "give_up_at": time.time() + 1.1}
    event = fired(PushSourceStatusTrigger(source_id=SOURCE, statuses=["IDLE"], **how))
    assert event["outcome"] == "too_late"
    assert "is REBUILD" in event["words"]
    assert 1 <= sum(one.operation == "source" for one in coveo.requests) <= 7


def test_triggers_that_start_together_do_not_poll_together(coveo: Simulator, hook: CoveoPushHook) -> None:
    hook.set_source_status(SOURCE, "REBUILD")
    trigger = PushSourceStatusTrigger(source_id=SOURCE, statuses=["IDLE"], **{**HOW, "poke_interval": 2})

    def looks() -> list[int]:
        return [one.at for one in coveo.requests if one.operation == "source"]

    async def begin() -> None:
        waiting = [asyncio.create_task(made_again(trigger).run().__anext__()) for _ in range(40)]
        while len(looks()) < 40:
            await asyncio.sleep(0.01)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)

    asyncio.run(begin())
    # They are spread over the two seconds; all at once would take a fraction of one.
    assert looks()[39] - looks()[0] > 1000


@pytest.mark.parametrize(("status", "outcome"), [("REBUILD", "too_late"), ("IDLE", "there")])
def test_a_trigger_that_restarts_too_late_polls_once_more(
    coveo: Simulator, hook: CoveoPushHook, status: str, outcome: str
) -> None:
    hook.set_source_status(SOURCE, status)
    how = {**HOW, "poke_interval": 1000, "give_up_at": time.time() - 100}
    event = fired(PushSourceStatusTrigger(source_id=SOURCE, statuses=["IDLE"], **how))
    assert event["outcome"] == outcome
    assert sum(one.operation == "source" for one in coveo.requests) == 1


def test_the_last_poll_is_canceled_if_it_takes_too_long(
    coveo: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triggers, "LAST_LOOK_SECONDS", 0.1)
    coveo.faults.stall(30, operation="source", times=None)
    how = {**HOW, "give_up_at": time.time() + 0.3}
    event = fired(PushSourceStatusTrigger(source_id=SOURCE, statuses=["IDLE"], **how))
    assert event["outcome"] == "too_late"


def test_triggers_share_a_session_and_the_last_one_closes_it(coveo: Simulator, hook: CoveoPushHook) -> None:
    hook.set_source_status(SOURCE, "REBUILD")
    sessions: set[int] = set()

    async def wait() -> list[Any]:
        trigger = PushSourceStatusTrigger(source_id=SOURCE, statuses=["IDLE"], **HOW)
        waiting = [asyncio.create_task(made_again(trigger).run().__anext__()) for _ in range(50)]
        while sum(one.operation == "source" for one in coveo.requests) < 200:
            await asyncio.sleep(0.01)
            for shared in aiohttp_transport._shared_sessions.values():
                sessions.update(id(transport.session) for transport in shared.values())
        for task in waiting[10:]:
            task.cancel()
        await asyncio.wait(waiting[10:])
        hook.set_source_status(SOURCE, "IDLE")
        events = await asyncio.gather(*waiting[:10])
        del waiting
        gc.collect()
        # The loop closes those that are garbage-collected.
        until = time.monotonic() + 200
        while aiohttp_transport._shared_sessions[asyncio.get_running_loop()]:
            assert time.monotonic() < until
            await asyncio.sleep(0.01)
        return events

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        events = asyncio.run(wait())
        gc.collect()
    assert [event.payload["outcome"] for event in events] == ["there"] * 10
    assert len(sessions) == 1


def test_a_canceled_trigger_leaves_no_connection_open(coveo: Simulator) -> None:
    coveo.faults.stall(20, operation="source", times=None)
    seen = SimpleNamespace(session=None)

    async def wait() -> None:
        run = made_again(TRIGGERS[0]).run()
        waiting = asyncio.create_task(run.__anext__())
        while not coveo.faults.active or not coveo.faults.active[0].used:
            await asyncio.sleep(0.01)
        (transport,) = aiohttp_transport._shared_sessions[asyncio.get_running_loop()].values()
        seen.session = transport.session
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        assert seen.session.closed
        assert aiohttp_transport._shared_sessions[asyncio.get_running_loop()] == {}

    asyncio.run(wait())


def test_the_modules_of_a_trigger_are_imported_in_another_thread(
    coveo: Simulator, run_fresh: RunFresh
) -> None:
    script = """
import asyncio, sys, threading
from airflow_provider_coveo.triggers.coveo_push import PushSourceStatusTrigger

class Watch:
    loaded = {}

    def find_spec(self, name, path=None, target=None):
        self.loaded.setdefault(name, threading.current_thread() is threading.main_thread())

async def first_event():
    how = {"coveo_conn_id": "coveo_default", "poke_interval": 0, "give_up_at": 0}
    trigger = PushSourceStatusTrigger(source_id="acme-products", statuses=["IDLE"], **how)
    async for event in trigger.run():
        return event.payload["outcome"]

sys.meta_path.insert(0, Watch())
assert asyncio.run(first_event()) == "there"
assert Watch.loaded["aiohttp"] is False, Watch.loaded
"""
    done = run_fresh(script)
    assert done.returncode == 0, done.stdout + done.stderr
