"""One simulator for this directory, set back for each test, and each exchange held against the contracts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_coveo.simulator import Simulator
from tests.conftest import wait_for_what_is_under_way
from tests.openapi import load_contracts
from tests.simulator.client import SOURCE, Client


@pytest.fixture(scope="session")
def running() -> Iterator[Simulator]:
    with Simulator(organization="acme", sources=(SOURCE,)) as simulator:
        yield simulator


@pytest.fixture
def tolerated() -> list[str]:
    """Words of the violations that a test commits on purpose, and Coveo lets pass."""
    return []


@pytest.fixture
def coveo(running: Simulator, tolerated: list[str]) -> Iterator[Simulator]:
    """A simulator as at its start; whatever it answers must be what Coveo's files declare."""
    running.reset()
    yield running
    wait_for_what_is_under_way(running)
    contracts = load_contracts()
    if contracts is None:
        return
    violations: list[str] = []
    for exchange in running.requests:
        if exchange.operation:
            violations += contracts.check_response(exchange)
        if 0 < exchange.status < 400:
            violations += contracts.check_request(exchange)
    assert [one for one in violations if not any(words in one for words in tolerated)] == []


@pytest.fixture
def client(coveo: Simulator) -> Client:
    """Somebody whose key may do everything."""
    return Client(coveo, coveo.api_key)


@pytest.fixture
def pusher(coveo: Simulator) -> Client:
    """Somebody whose key may push and nothing else."""
    return Client(coveo, coveo.push_only_key)
