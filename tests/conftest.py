"""Fixtures of all tests: a separate Airflow home, and one simulator that each test resets."""

from __future__ import annotations

import atexit
import http.client
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# Set before anything imports Airflow, which reads them once.
if "AIRFLOW_HOME" not in os.environ:
    os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="coveo-tests-")
    atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

import pytest
from local_certificate import write_certificate

from airflow_provider_coveo.simulator import Simulator

SOURCE = "acme-products"


@pytest.fixture(scope="session")
def _running_simulator() -> Iterator[Simulator]:
    with Simulator(organization="acme", sources=(SOURCE,)) as simulator:
        yield simulator


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The files of a self-signed certificate for this machine and Coveo's hosts, and of its key."""
    return write_certificate(tmp_path_factory.mktemp("tls"), ["localhost", "*.cloud.coveo.com"])


@pytest.fixture
def coveo(_running_simulator: Simulator) -> Iterator[Simulator]:
    """A Coveo organization without history; every exchange is validated against Coveo's OpenAPI files."""
    from airflow_provider_coveo.coveo.throttle import call_throttle
    from tests.openapi import load_contracts

    _running_simulator.reset()
    call_throttle.cache_clear()
    yield _running_simulator
    wait_for_what_is_under_way(_running_simulator)
    contracts = load_contracts()
    if contracts is not None:
        violations = [
            f"{exchange.method} {exchange.path}: {violation}"
            for exchange in _running_simulator.requests
            if not exchange.fault
            for violation in contracts.check(exchange)
        ]
        assert not violations, "\n".join(violations)


def wait_for_what_is_under_way(simulator: Simulator) -> None:
    """
    Wait for the requests that a failed push leaves in flight, because it waits for no upload.

    Otherwise, such a request has no response yet when the test checks it, or it arrives in the next test. The
    same applies to a request that its client gave up before a busy simulator handled it.
    """
    # Only a stalled request takes longer.
    until = time.monotonic() + 2
    for thread in threading.enumerate():
        if thread.name.startswith("coveo-upload"):
            thread.join(max(0, until - time.monotonic()))
    # The simulator handles requests in order, so this one is the last.
    last = http.client.HTTPConnection(urlsplit(simulator.url).netloc, timeout=60)
    with closing(last):
        last.request("GET", f"/_simulator/requests?since={2**31}")
        last.getresponse().read()
    with simulator.state.changed:
        simulator.state.changed.wait_for(
            lambda: all(exchange.status or exchange.fault for exchange in simulator.requests), 60
        )


def index_now(simulator: Simulator) -> None:
    """Let the pipeline process what it delays by ``indexing_delay``, without changing Coveo's clock."""
    seconds = simulator.indexing_delay
    simulator.clock.shift(seconds=-seconds)
    simulator.clock.advance(seconds=seconds)


def keep_off_midnight(simulator: Simulator) -> None:
    """Keep the day on Coveo's clock, and so the daily quota, from ending during a test of the quota."""
    # Never ahead of the worker's clock, like most real ones.
    since_midnight = simulator.clock.now() % 86_400
    if since_midnight > 86_400 - 600:
        simulator.clock.shift(minutes=-20)


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for name in list(os.environ):
        if name.lower() in {"http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.delenv("NETRC", raising=False)


@pytest.fixture
def connect(coveo: Simulator, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Point the connection ``coveo_default`` to the simulator, with the given fields replaced."""

    def _connect(**fields: Any) -> None:
        described = json.loads(coveo.connection_json())
        if "host" in fields:
            # Its extra would still set the simulator as the platform's host.
            del described["extra"]
        described |= fields
        monkeypatch.setenv("AIRFLOW_CONN_COVEO_DEFAULT", json.dumps(described))

    _connect()
    return _connect


@pytest.fixture
def hook(connect: Callable[..., None]) -> Any:
    """A hook whose retries don't delay a test."""
    from airflow_provider_coveo.coveo.retries import RetryPolicy
    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

    return CoveoPushHook(retry=RetryPolicy(total_seconds=5, first_wait=0.01, longest_wait=0.05))
