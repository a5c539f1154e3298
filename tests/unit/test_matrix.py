"""The declared support matches the results, and the results match the declared versions."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import matrix
import pytest

CONSTRAINTS = sorted((matrix.PROJECT / "constraints").glob("*.txt"))


@pytest.mark.parametrize("page", matrix.PAGES, ids=lambda page: page.name)
def test_a_page_s_table_shows_exactly_the_passed_cells(page: Path) -> None:
    before, after = matrix.around_table(page)
    shown = page.read_text()[len(before) : -len(after)]
    assert matrix.table() in shown, "run `python scripts/matrix.py tables`"


def test_the_table_distinguishes_passed_failed_and_untried_cells(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(matrix, "RESULTS", tmp_path / "results.json")
    well = matrix.Result("3.11-3.0", "3.11.7", "3.0.6", "passed", 1000, 4, 300, "2026-01-01")
    matrix._keep(well)
    matrix._keep(replace(well, cell="3.10-3.0", python="3.10.13", verdict="failed"))
    matrix._keep(replace(well, cell="lowest", python="3.10.13", airflow="2.11.0"))
    lines = matrix.table().splitlines()
    column = [title.strip() for title in lines[0].split("|")].index("Airflow 3.0.6")
    marks = {line.split("|")[1].strip(): line.split("|")[column].strip() for line in lines[2:6]}
    assert marks == {
        "Python 3.10": "**not passed**",
        "Python 3.11": "yes",
        "Python 3.12": "not tried",
        "Python 3.13": "no",
    }
    assert lines[-1].endswith("that the package's metadata allows (2.11.0 on Python 3.10).")


def test_only_the_last_result_of_a_cell_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(matrix, "RESULTS", tmp_path / "results.json")
    first = matrix.Result("3.11-3.0", "3.11.7", "3.0.6", "failed", 999, 4, 300, "2026-01-01")
    matrix._keep(first)
    matrix._keep(replace(first, cell="3.10-2.11"))
    matrix._keep(replace(first, verdict="passed"))
    kept = matrix.read_results()
    assert list(kept) == ["3.10-2.11", "3.11-3.0"]
    assert kept["3.11-3.0"].verdict == "passed"


def test_a_failure_on_the_next_airflow_is_allowed_unless_that_cell_is_requested(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def verdict(cell: matrix.Cell) -> matrix.Result:
        said = "failed" if cell.name == "next" else "passed"
        airflow = "3.4.0b2" if cell.name == "next" else "3.3.2"
        return matrix.Result(cell.name, cell.python, airflow, said, 1, 1, 1, "2026-01-01")

    monkeypatch.setattr(matrix, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(matrix, "_run_cell", verdict)
    monkeypatch.setattr(matrix, "write_tables", lambda: None)
    assert [cell.name for cell in matrix.cells() if cell.may_fail] == ["next"]
    assert matrix.run([]) == 0
    assert matrix.run(["next"]) == 1
    assert "3.4.0b2" not in matrix.table()


def test_each_cell_has_its_constraints_and_they_pin_its_airflow() -> None:
    lines = matrix.read_matrix()["airflow"]
    for cell in matrix.cells():
        if cell.constraints is None:
            continue
        pinned = (matrix.PROJECT / cell.constraints).read_text()
        version = lines[cell.airflow]["version"] if cell.airflow else lowest_airflow()
        assert f"\napache-airflow=={version}\n" in pinned, cell.name


def lowest_airflow() -> str:
    setup = (matrix.PROJECT / "setup.cfg").read_text()
    found = re.search(r"^ *apache-airflow>=(\S+)$", setup, re.MULTILINE)
    assert found is not None
    return found[1]


def test_the_lowest_versions_are_those_in_the_metadata() -> None:
    """Otherwise, the lowest supported versions would never be tested."""
    setup = (matrix.PROJECT / "setup.cfg").read_text()
    of_users = setup[setup.index("install_requires") : setup.index("\ndev =")]
    pinned = dict(
        line.split("==")
        for line in (matrix.PROJECT / "constraints" / "lowest.txt").read_text().splitlines()
        if "==" in line
    )
    floors = re.findall(r"^ +([\w-]+)>=([\d.]+)", of_users, re.MULTILINE)
    assert len(floors) >= 10
    for name, floor in floors:
        assert re.fullmatch(rf"{re.escape(floor)}(\.0)*", pinned[name.lower()]), name


def test_the_python_versions_are_those_in_the_metadata() -> None:
    setup = (matrix.PROJECT / "setup.cfg").read_text()
    classified = re.findall(r"Python :: (3\.\d+)$", setup, re.MULTILINE)
    assert matrix.read_matrix()["pythons"] == classified
    assert {cell.python for cell in matrix.cells()} == set(classified)


@pytest.mark.parametrize("path", CONSTRAINTS, ids=lambda path: path.name)
def test_constraints_contain_no_urls(path: Path) -> None:
    pinned = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!-]+( ; .*)?", line) for line in pinned)
    assert "://" not in path.read_text()
