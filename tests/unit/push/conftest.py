from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_coveo.simulator import Simulator
from tests.openapi import find_openapi_directory
from tests.strict_coveo import StrictCoveo
from tests.unit.hooks.conftest import logged

__all__ = ["logged"]

#: The simulator's names of operations, by method and declared path after the organization.
OPERATIONS = {
    "POST /sources/{sourceId}/status": "status",
    "PUT /sources/{sourceId}/documents": "item",
    "DELETE /sources/{sourceId}/documents": "delete",
    "DELETE /sources/{sourceId}/documents/olderthan": "olderthan",
    "PUT /sources/{sourceId}/documents/batch": "batch",
    "POST /files": "files",
    "PUT upload": "upload",
    "PUT /providers/{providerId}/permissions": "identity",
    "PUT /providers/{providerId}/mappings": "alias",
    "DELETE /providers/{providerId}/permissions": "disable_identity",
    "PUT /providers/{providerId}/permissions/batch": "identity_batch",
    "DELETE /providers/{providerId}/permissions/olderthan": "identity_olderthan",
}


class Judged:
    """The strict receiver with the methods of the simulator that tests need."""

    def __init__(self, strict: StrictCoveo) -> None:
        self.strict = strict
        self.url = strict.url
        self.organization = "acme"

    def connection_json(self, *, push_only: bool = False) -> str:
        return json.dumps(
            {
                "conn_type": "coveo",
                "login": self.organization,
                "password": "some-key",
                "host": self.url,
                "extra": json.dumps({"platform_host": self.url}),
            }
        )

    @property
    def undocumented(self) -> list[str]:
        return self.strict.objections

    @property
    def requests(self) -> list[Any]:
        return [
            SimpleNamespace(
                operation=OPERATIONS.get(
                    call.operation.replace("/push/v1/organizations/{organizationId}", "")
                ),
                method=call.request.method,
                path=call.request.target.partition("?")[0],
                query=call.query,
                headers={name.lower(): value for name, value in call.request.headers},
                body=call.request.body,
                status=call.status,
            )
            for call in self.strict.calls
        ]

    def items(self, source_id: str) -> Mapping[str, dict[str, Any]]:
        return self.strict.items()

    def reset(self) -> None:
        self.strict.reset()

    def add_source(self, source_id: str) -> None:
        """Do nothing: the receiver accepts any source."""


@pytest.fixture(scope="session")
def _running_strict() -> Iterator[StrictCoveo | None]:
    directory = find_openapi_directory()
    if directory is None:
        yield None
        return
    with StrictCoveo(directory) as strict:
        yield strict


@pytest.fixture
def strict_coveo(_running_strict: StrictCoveo | None) -> Iterator[StrictCoveo]:
    """The receiver that is based on Coveo's OpenAPI files; a test fails if it objects."""
    from airflow_provider_coveo.coveo.throttle import call_throttle

    if _running_strict is None:
        pytest.skip("Coveo's OpenAPI files are not at hand")
    _running_strict.reset()
    call_throttle.cache_clear()
    yield _running_strict
    assert _running_strict.objections == []


@pytest.fixture
def coveo(request: pytest.FixtureRequest, coveo: Simulator) -> Any:
    """The simulator, or the test's parameter instead."""
    if getattr(request, "param", "simulator") == "simulator":
        return coveo
    return Judged(request.getfixturevalue("strict_coveo"))
