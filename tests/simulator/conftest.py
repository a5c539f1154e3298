"""One simulator for this directory; each test resets it, and each exchange is validated."""

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
    """Words of the violations that a test makes on purpose, and that Coveo accepts."""
    return []


@pytest.fixture
def coveo(running: Simulator, tolerated: list[str]) -> Iterator[Simulator]:
    """A simulator in its initial state; its responses must match Coveo's files."""
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
    """A client whose key has all privileges."""
    return Client(coveo, coveo.api_key)


@pytest.fixture
def pusher(coveo: Simulator) -> Client:
    """A client whose key can only push."""
    return Client(coveo, coveo.push_only_key)
