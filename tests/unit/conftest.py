from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fresh import FreshPython, RunFresh

#: The imports of DAG files and Airflow itself before they import this package.
AIRFLOW_ALONE = """
import airflow.providers.common.compat.sdk as sdk
from airflow.triggers.base import BaseTrigger
for name in ("Asset", "BaseNotifier", "BaseOperator", "BaseOperatorLink", "BaseSensorOperator", "DAG",
             "DecoratedOperator", "PokeReturnValue", "TaskGroup", "XCom", "XComArg", "conf",
             "task_decorator_factory"):
    getattr(sdk, name)
try:
    import airflow.providers.standard.operators.empty
except ImportError:
    import airflow.operators.empty
# On 3.x it has asked what there is.
known = {"airflow_provider_coveo", "airflow_provider_coveo.get_provider_info"}
assert not [name for name in sys.modules if name.startswith("airflow_provider_coveo") and name not in known]
"""


class Variables:
    """A replacement for Airflow Variables, as far as the modules under test use them."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def get(self, key: str, deserialize_json: bool = False) -> Any:
        if key not in self.values:
            raise KeyError(f"Variable {key} does not exist")
        return json.loads(self.values[key]) if deserialize_json else self.values[key]

    def set(self, key: str, value: Any, description: str | None = None, serialize_json: bool = False) -> None:
        # Like Airflow 3.3, which accepts only strings unless it has to serialize to JSON.
        assert serialize_json or isinstance(value, str)
        self.values[key] = json.dumps(value) if serialize_json else value

    def delete(self, key: str) -> None:
        del self.values[key]


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> Variables:
    import airflow.providers.common.compat.sdk as sdk

    fake = Variables()
    monkeypatch.setattr(sdk, "Variable", fake, raising=False)
    return fake


@pytest.fixture(scope="session")
def _fresh_python() -> Iterator[FreshPython]:
    with FreshPython(AIRFLOW_ALONE) as python:
        yield python


@pytest.fixture
def run_fresh(_fresh_python: FreshPython) -> RunFresh:
    """Run a script in a process that has imported Airflow, but not this package."""
    return _fresh_python.run
