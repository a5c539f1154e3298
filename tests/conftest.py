"""What all tests share: an Airflow home of their own, and one simulator that is set back for each test."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

# Before anything imports Airflow, which reads these once.
if "AIRFLOW_HOME" not in os.environ:
    os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="coveo-tests-")
    atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

import pytest

from airflow_provider_coveo.simulator import Simulator

SOURCE = "acme-products"


@pytest.fixture(scope="session")
def _running_simulator() -> Iterator[Simulator]:
    with Simulator(organization="acme", sources=(SOURCE,)) as simulator:
        yield simulator


@pytest.fixture
def coveo(_running_simulator: Simulator) -> Iterator[Simulator]:
    """A Coveo organization without history; every exchange of the test is held against Coveo's OpenAPI."""
    from tests.openapi import load_contracts

    _running_simulator.reset()
    yield _running_simulator
    contracts = load_contracts()
    if contracts is not None:
        violations = [
            f"{exchange.method} {exchange.path}: {violation}"
            for exchange in _running_simulator.requests
            if not exchange.fault
            for violation in contracts.check(exchange)
        ]
        assert not violations, "\n".join(violations)


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
    """Point the connection ``coveo_default`` to the simulator, with other fields where they are given."""

    def _connect(**fields: Any) -> None:
        described = {**json.loads(coveo.connection_json()), **fields}
        monkeypatch.setenv("AIRFLOW_CONN_COVEO_DEFAULT", json.dumps(described))

    _connect()
    return _connect


@pytest.fixture
def hook(connect: Callable[..., None]) -> Any:
    """A hook whose retries don't make a test wait."""
    from airflow_provider_coveo.coveo.retries import RetryPolicy
    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

    return CoveoPushHook(retry=RetryPolicy(total_seconds=5, first_wait=0.01, longest_wait=0.05))
