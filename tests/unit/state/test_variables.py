"""Reading Variables: current values, and an unresponsive API server does not count as a missing record."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_coveo.state import variables
from tests.unit.conftest import Variables

pytest.importorskip("airflow.sdk", reason="Airflow 2 reads the metadata database")


class Supervisor:
    """Airflow 3's client for the API server in a task."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.answers: list[Any] = []

    def send(self, message: Any) -> Any:
        from airflow.sdk.execution_time.comms import ErrorResponse, VariableResult

        if self.answers:
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        kind = type(message).__name__
        if kind == "PutVariable":
            self.values[message.key] = message.value
            return None
        if kind == "DeleteVariable":
            self.values.pop(message.key, None)
            return None
        if message.key not in self.values:
            return ErrorResponse(error=_error_type().VARIABLE_NOT_FOUND)
        return VariableResult(key=message.key, value=self.values[message.key])


def _error_type() -> Any:
    return importlib.import_module("airflow.sdk.exceptions").ErrorType


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    fake = Supervisor()
    monkeypatch.setattr(variables, "supervisor", lambda: fake)
    return fake


def test_a_value_can_be_read_until_it_is_deleted(supervisor: Supervisor) -> None:
    assert variables.read_variable("coveo_x") is None
    variables.write_variable("coveo_x", {"a": [1]}, "a test")
    assert variables.read_variable("coveo_x") == {"a": [1]}
    variables.delete_variable("coveo_x")
    variables.delete_variable("coveo_x")
    assert variables.read_variable("coveo_x") is None


def test_an_error_of_the_api_server_does_not_count_as_a_missing_record(supervisor: Supervisor) -> None:
    from airflow.sdk.execution_time.comms import ErrorResponse

    supervisor.answers = [ErrorResponse(error=_error_type().API_SERVER_ERROR)]
    with pytest.raises(Exception, match="API_SERVER_ERROR"):
        variables.read_variable("coveo_x")


def test_a_write_that_the_api_server_rejects_is_an_error(supervisor: Supervisor) -> None:
    supervisor.values["coveo_x"] = '"before"'
    supervisor.answers = [RuntimeError("503")]
    variables.write_variable("coveo_x", "after", "the first attempt is lost, the second one is not")
    assert variables.read_variable("coveo_x") == "after"

    read = supervisor.send

    def rejecting(message: Any) -> Any:
        if type(message).__name__ == "PutVariable":
            raise RuntimeError("503")
        return read(message)

    supervisor.send = rejecting  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="503"):
        variables.write_variable("coveo_x", "later", "a test")


def test_the_response_to_another_request_is_not_accepted(supervisor: Supervisor) -> None:
    """After a timeout interrupted a request, its process gets each response one request too late."""
    from airflow.sdk.execution_time.comms import VariableResult

    supervisor.values["coveo_x"] = "5"
    supervisor.answers = [VariableResult(key="coveo_w", value="4")]
    assert variables.read_variable("coveo_x") == 5
    supervisor.answers = [VariableResult(key="coveo_w", value="4")] * 9
    with pytest.raises(RuntimeError, match="responses are for other requests"):
        variables.read_variable("coveo_x")


def test_airflow_s_cache_is_bypassed(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Variables()
    monkeypatch.setattr(variables, "_variable_class", lambda: fake)
    forgotten: list[str] = []
    cache = SimpleNamespace(SecretCache=SimpleNamespace(invalidate_variable=forgotten.append))
    monkeypatch.setattr(importlib, "import_module", lambda name: cache)
    variables.read_variable("coveo_x")
    assert forgotten == ["coveo_x"]
    variables.write_variable("coveo_x", 1, "a test")
    assert forgotten == ["coveo_x", "coveo_x"]


@pytest.mark.parametrize("text", ["", "{", "no json", "[1,"])
def test_text_that_was_edited_by_hand_counts_as_missing(supervisor: Supervisor, text: str) -> None:
    supervisor.values["coveo_x"] = text
    assert variables.read_variable("coveo_x") is None
    assert variables.read_text("coveo_x") == text
