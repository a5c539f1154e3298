"""The checks before a release, and the workflows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matrix
import pytest
import release
import yaml

from airflow_provider_coveo import __version__

WORKFLOWS = {path.stem: path for path in (matrix.PROJECT / ".github" / "workflows").glob("*.yml")}
GOOD = """# Changelog

## [Unreleased]

## [1.2.0] - 2026-01-31

### Added

- A thing.

## [1.1.0] - 2025-12-31

- Another.
"""


def test_a_changelog_with_the_version_is_accepted() -> None:
    assert list(release.wrong_in_changelog(GOOD, "1.2.0")) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[1.2.0]", "[1.3.0]", "The newest version in CHANGELOG.md is 1.3.0, not 1.2.0"),
        (" - 2026-01-31", "", "no date such as 2025-12-31 for 1.2.0, but nothing"),
        ("2026-01-31", "soon", "no date such as 2025-12-31 for 1.2.0, but soon"),
        ("### Added\n\n- A thing.\n", "", "has no entries for 1.2.0"),
        ("[Unreleased]\n", "[Unreleased]\n\n- Forgotten.\n", "still has entries under Unreleased"),
    ],
)
def test_an_incomplete_changelog_blocks_a_release(old: str, new: str, said: str) -> None:
    (found,) = release.wrong_in_changelog(GOOD.replace(old, new), "1.2.0")
    assert said in found


def test_a_cell_that_has_not_passed_on_its_airflow_blocks_a_release(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(matrix, "RESULTS", tmp_path / "results.json")
    lines = matrix.read_matrix()["airflow"]
    for cell in matrix.cells():
        if cell.may_fail:
            continue
        airflow = lines[cell.airflow]["version"] if cell.airflow else "2.11.0"
        matrix._keep(matrix.Result(cell.name, cell.python, airflow, "passed", 1, 1, 1, "2026-01-01"))
    assert list(release.wrong_in_matrix()) == []

    results = matrix.read_results()
    matrix._keep(replace(results["3.11-3.0"], verdict="failed"))
    matrix._keep(replace(results["3.11-3.3"], airflow="3.3.0"))
    assert list(release.wrong_in_matrix()) == [
        "Cell 3.11-3.0 has not passed: make test-matrix CELLS=3.11-3.0",
        f"Cell 3.11-3.3 passed on Airflow 3.3.0, but {lines['3.3']['version']} is pinned now",
    ]


def test_a_tag_of_another_version_blocks_a_release() -> None:
    assert f"The tag is v99, but the package's version is {__version__}" in list(release.wrong("v99"))
    assert not any("tag" in found for found in release.wrong(f"v{__version__}"))


def test_the_changelog_in_the_repository_is_valid() -> None:
    """Otherwise, the workflow would reject a tag."""
    text = re.sub(r"## \[Unreleased\].*?(?=^## )", "", release.CHANGELOG.read_text(), flags=re.M | re.S)
    assert list(release.wrong_in_changelog(text, __version__)) == []


def workflow(name: str) -> Any:
    return yaml.safe_load(WORKFLOWS[name].read_text())


def test_the_workflow_tests_the_cells_of_the_matrix() -> None:
    jobs = workflow("test")["jobs"]
    (_, step) = jobs["cells"]["steps"]
    command = step["run"].split("$(")[1].split(")")[0].split()
    printed = subprocess.check_output([sys.executable, *command[1:]], cwd=matrix.PROJECT, text=True)
    assert printed.count("\n") == 1
    assert [cell["name"] for cell in json.loads(printed)] == [cell.name for cell in matrix.cells()]
    assert jobs["cell"]["strategy"]["matrix"]["cell"] == "${{ fromJSON(needs.cells.outputs.cells) }}"
    assert jobs["cell"]["continue-on-error"] == "${{ matrix.cell.may_fail }}"


def test_only_a_tested_and_checked_build_is_published() -> None:
    jobs = workflow("release")["jobs"]
    assert jobs["publish"]["needs"] == ["test", "build"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert all("id-token" not in job["permissions"] for name, job in jobs.items() if name != "publish")
    commands = [step["run"] for step in jobs["build"]["steps"] if "run" in step]
    assert any(command.startswith("make check-version TAG=") for command in commands)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_pinned_to_commits_and_jobs_have_few_permissions(name: str) -> None:
    used = re.findall(r"uses: (\S+)(.*)", WORKFLOWS[name].read_text())
    assert used
    for action, comment in used:
        assert action.startswith("./") or re.search(r"@[0-9a-f]{40}$", action), action
        assert action.startswith("./") or re.fullmatch(r" # v\d+\.\d+\.\d+", comment), action
    described = workflow(name)
    assert described["permissions"] == {}
    assert described["concurrency"]["group"]
    for job in described["jobs"].values():
        assert set(job["permissions"].items()) <= {("contents", "read"), ("id-token", "write")}
