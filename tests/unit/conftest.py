from __future__ import annotations

import json
from typing import Any

import pytest


class Variables:
    """Airflow Variables, as far as the module under test goes: here it is the border that matters."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def get(self, key: str, deserialize_json: bool = False) -> Any:
        if key not in self.values:
            raise KeyError(f"Variable {key} does not exist")
        return json.loads(self.values[key])

    def set(self, key: str, value: Any, description: str | None = None, serialize_json: bool = False) -> None:
        assert serialize_json
        self.values[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        del self.values[key]


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> Variables:
    import airflow.providers.common.compat.sdk as sdk

    fake = Variables()
    monkeypatch.setattr(sdk, "Variable", fake, raising=False)
    return fake
