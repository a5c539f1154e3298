"""A dry run moves no cursor, and writes no file of rejected items."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_coveo.simulator import Simulator
from tests.unit.conftest import Variables
from tests.unit.push.test_cursor_pushes import Shop, run, shop, titles

__all__ = ["shop"]

pytestmark = pytest.mark.usefixtures("connect")


def value_of(variables: Variables) -> Any:
    (cursor,) = (json.loads(value) for name, value in variables.values.items() if "coveo_cursor" in name)
    return cursor["value"]


def test_the_push_after_a_dry_run_reads_the_same_rows(
    coveo: Simulator, shop: Shop, variables: Variables
) -> None:
    shop.put(1, "Anvil", 10)
    run("run-1")
    shop.put(2, "Skates", 20)
    before = value_of(variables)
    dry = run("run-2", params={"dry_run": True}, dry_run="{{ params.dry_run }}")
    assert (dry["dry_run"], dry["adds"]) == (True, 1)
    assert value_of(variables) == before
    assert titles(coveo) == {"1": "Anvil"}
    assert run("run-3")["accepted_adds"] == 1
    assert titles(coveo) == {"1": "Anvil", "2": "Skates"}


def test_the_first_dry_run_leaves_the_cursor_without_a_value(
    coveo: Simulator, shop: Shop, variables: Variables
) -> None:
    shop.put(1, "Anvil", 10)
    assert run("run-1", dry_run=True)["adds"] == 1
    assert value_of(variables) is None
    assert run("run-2")["accepted_adds"] == 1


def test_a_dry_run_writes_no_file_of_rejected_items(
    coveo: Simulator, shop: Shop, variables: Variables, tmp_path: Path
) -> None:
    path = tmp_path / "rejected.ndjson"
    shop.put(1, "Anvil", 10)
    columns = {"documentId": "{name}", "title": "name", "data": "name"}
    dry = run("run-1", columns=columns, on_invalid="skip", rejected_path=str(path), dry_run=True)
    assert (dry["adds"], dry["invalid"], dry["problems"]) == (0, 1, [])
    assert not path.exists()
