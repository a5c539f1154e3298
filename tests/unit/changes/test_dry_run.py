"""A dry run that compares: it reports changes, and leaves the snapshot and all records unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_coveo.coveo.errors import CoveoError
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE
from tests.unit.changes.conftest import Push, items
from tests.unit.conftest import Variables

pytestmark = pytest.mark.usefixtures("connect", "variables")

KINDS = ("added", "updated", "deleted", "unchanged")


def files(tmp_path: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def kinds(result: dict[str, Any]) -> tuple[int, ...]:
    return tuple(result[kind] for kind in KINDS)


def test_a_dry_run_reports_the_changes_and_the_next_push_pushes_them(
    coveo: Simulator, push: Push, tmp_path: Path, variables: Variables
) -> None:
    push(items(1, 2, 3, 4, 5))
    before = (files(tmp_path), dict(variables.values), len(coveo.requests), coveo.items(SOURCE))
    dry = push(items(1, 2, 3, 6, _2="y"), dry_run=True)
    assert kinds(dry) == (1, 1, 2, 2)
    assert (dry["adds"], dry["deletes"], dry["batches"], dry["full_because"]) == (2, 2, 1, None)
    assert files(tmp_path) == before[0]
    assert variables.values == before[1]
    assert {request.operation for request in coveo.requests[before[2] :]} <= {"limit", "list_fields"}
    assert coveo.items(SOURCE) == before[3]

    real = push(items(1, 2, 3, 6, _2="y"))
    assert kinds(real) == kinds(dry)
    assert (real["bytes"], real["batches"]) == (dry["bytes"], dry["batches"])


def test_the_first_dry_run_creates_no_snapshot(
    coveo: Simulator, push: Push, tmp_path: Path, variables: Variables
) -> None:
    dry = push(items(1, 2), dry_run=True)
    assert (kinds(dry), dry["full_because"]) == ((2, 0, 0, 0), "there is no snapshot yet")
    assert (files(tmp_path), variables.values, coveo.items(SOURCE)) == ({}, {}, {})


def test_a_dry_run_reads_the_progress_of_a_failed_push_and_keeps_it(
    coveo: Simulator, push: Push, tmp_path: Path, variables: Variables
) -> None:
    push(items(*range(10)))
    changed = items(*range(10), data="y")
    coveo.faults.answer(400, operation="batch", error_code="INVALID_JSON", times=None, after=1)
    with pytest.raises(CoveoError):
        push(changed, run_id="again")
    coveo.faults.clear()
    before = (files(tmp_path), dict(variables.values))
    assert len(before[0]) > 1
    dry = push(changed, run_id="again", dry_run=True)
    assert dry["unchanged"] > 0
    assert (files(tmp_path), variables.values) == before
    assert kinds(push(changed, run_id="again")) == kinds(dry)


def test_a_dry_run_reports_too_many_deletions_as_a_problem(coveo: Simulator, push: Push) -> None:
    push(items(*range(10)))
    dry = push(items(1), dry_run=True, max_deleted="20%")
    (problem,) = dry["problems"]
    assert "the input lacks 9 of the 10 items" in problem
    assert len(coveo.items(SOURCE)) == 10
