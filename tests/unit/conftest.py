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
        return json.loads(self.values[key]) if deserialize_json else self.values[key]

    def set(self, key: str, value: Any, description: str | None = None, serialize_json: bool = False) -> None:
        # As Airflow 3.3 does, which takes nothing but texts where it isn't told to make JSON.
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
