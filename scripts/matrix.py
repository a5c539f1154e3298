"""Test the project with its supported Pythons and Airflow lines, and the lowest and newest dependencies.

    matrix.py run                        run all cells, or some: run 3.12-3.2 lowest
    matrix.py cells                      print the cells as JSON, for a workflow
    matrix.py constraints                pin the cells' dependencies (make constraints)
    matrix.py tables                     update the tables of results in README.md and docs/

``constraints/matrix.json`` defines the cells. Each cell is a virtualenv that runs all tests without a running
Airflow, and those marked ``smoke`` on a real one. The results are saved in ``docs/compatibility.json`` until
the same cell runs again.

An old Airflow does not run with the newest dependencies (3.0's API server fails with today's FastAPI). So
``as_of`` limits an Airflow line to dependencies from the days after its last release, except for Airflow's
providers: this project requires some that are newer than Airflow 3.0.

``next`` is the next Airflow, if there is a pre-release of it. Its failures are for information: they block no
release, and no table shows them.
"""

from __future__ import annotations

import argparse
import configparser
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

PROJECT: Final = Path(__file__).resolve().parents[1]
MATRIX: Final = PROJECT / "constraints" / "matrix.json"
RESULTS: Final = PROJECT / "docs" / "compatibility.json"
#: The comments around the table.
PAGES: Final = (PROJECT / "README.md", PROJECT / "docs" / "compatibility.md")
BEGIN: Final = "<!-- What passed, written by scripts/matrix.py -->"
END: Final = "<!-- end of what passed -->"

#: The suites of a cell, with their arguments for pytest.
SUITES: Final = {
    "tests": ["tests/unit", "tests/simulator"],
    "smoke": ["tests/airflow", "-m", "smoke"],
}
#: Airflow's providers that this one and its tests require.
_PROVIDERS: Final = (
    "amazon",
    "common-compat",
    "common-io",
    "common-sql",
    "http",
    "postgres",
    "smtp",
    "standard",
)


@dataclass(frozen=True)
class Cell:
    """One combination of versions.

    :param name: the name for the command line
    :param python: the version of Python
    :param airflow: the Airflow line, None for any
    :param constraints: the file that pins all packages, None for the newest ones
    :param drivers: the packages that Airflow needs for its database in PostgreSQL
    :param requirements: the Airflow to install, if the constraints don't pin it
    :param may_fail: whether a failure blocks nothing
    """

    name: str
    python: str
    airflow: str | None
    constraints: str | None
    drivers: tuple[str, ...]
    requirements: tuple[str, ...] = ("apache-airflow",)
    may_fail: bool = False


@dataclass(frozen=True)
class Result:
    """The result of a cell.

    :param cell: its name
    :param python: the full version of its Python
    :param airflow: the full version of its Airflow
    :param verdict: passed, failed, or not installed
    :param tests: the number of tests that passed without a running Airflow
    :param smoke: the number of tests that passed on a running Airflow
    :param seconds: the duration
    :param date: the day of the run
    """

    cell: str
    python: str
    airflow: str
    verdict: str
    tests: int
    smoke: int
    seconds: int
    date: str


def read_matrix() -> dict[str, Any]:
    """Read the data file."""
    matrix: dict[str, Any] = json.loads(MATRIX.read_text())
    return matrix


def cells() -> list[Cell]:
    """Return all cells."""
    matrix = read_matrix()
    found = [
        Cell(f"{python}-{line}", python, line, f"constraints/airflow-{line}.txt", tuple(described["drivers"]))
        for line, described in matrix["airflow"].items()
        for python in described["pythons"]
    ]
    lowest, newest, coming = matrix["lowest"], matrix["newest"], matrix["next"]
    return [
        *found,
        Cell("lowest", lowest["python"], None, "constraints/lowest.txt", tuple(lowest["drivers"])),
        Cell("newest", newest["python"], None, None, tuple(newest["drivers"])),
        Cell(
            "next",
            coming["python"],
            None,
            None,
            tuple(coming["drivers"]),
            requirements=tuple(coming["requirements"]),
            may_fail=True,
        ),
    ]


# ---- a run ----------------------------------------------------------------------------------------


def run(names: Sequence[str]) -> int:
    """Run cells, save their results, and print a summary."""
    chosen = [cell for cell in cells() if not names or cell.name in names]
    if unknown := set(names) - {cell.name for cell in chosen}:
        known = " ".join(cell.name for cell in cells())
        print(f"Unknown cell: {' '.join(sorted(unknown))}; use one of {known}", file=sys.stderr)
        return 2
    results = []
    for cell in chosen:
        print(f"\n==== {cell.name}", flush=True)
        result = _run_cell(cell)
        results.append(result)
        _keep(result)
        print(_as_row(result), flush=True)
        write_tables()
    print("\n==== summary")
    print("\n".join(map(_as_row, results)))
    passed = {result.cell for result in results if result.verdict == "passed"}
    print(f"\n{len(passed)} passed, {len(results) - len(passed)} failed")
    # A cell that the user named must pass, even if its failure blocks nothing.
    needed = {cell.name for cell in chosen if names or not cell.may_fail}
    return 0 if needed <= passed else 1


def _run_cell(cell: Cell) -> Result:
    began = time.monotonic()
    folder = PROJECT / ".venv" / "matrix" / cell.name
    found = {"python": cell.python, "airflow": cell.airflow or "", "tests": 0, "smoke": 0}
    verdict = "not installed"
    if _install(cell, folder):
        found |= _versions(folder)
        verdict = "passed"
        for suite, arguments in SUITES.items():
            found[suite], went_well = _pytest(folder, arguments)
            if not went_well:
                verdict = "failed"
    return Result(
        cell=cell.name,
        verdict=verdict,
        seconds=round(time.monotonic() - began),
        date=datetime.now(timezone.utc).date().isoformat(),
        **found,
    )


def _install(cell: Cell, folder: Path) -> bool:
    interpreter = _interpreter(cell.python)
    if interpreter is None:
        print(f"Could not find Python {cell.python} in PATH or pyenv.", file=sys.stderr)
        return False
    # Without constraints, ignore the cache, which may not have the newest versions.
    versions = ["--constraints", cell.constraints] if cell.constraints else ["--upgrade", "--refresh"]
    install = ["pip", "install", "--quiet", "--python", str(folder), *versions]
    commands = [
        ["venv", "--quiet", "--clear", "--python", interpreter, str(folder)],
        [*install, "--editable", ".[dev]", *cell.requirements, *cell.drivers],
    ]
    return all(_uv(command).returncode == 0 for command in commands)


def _interpreter(version: str) -> str | None:
    """Find a Python. A command can exist without working (pyenv's shims), so each is tried."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for candidate in (f"python{version}", *sorted(map(str, pyenv.glob(f"{version}.*/bin/python")))):
        path = shutil.which(candidate)
        if path and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            return path
    return None


def _versions(folder: Path) -> dict[str, str]:
    ask = (
        "import importlib.metadata, platform\n"
        "print(platform.python_version(), importlib.metadata.version('apache-airflow'))"
    )
    answer = subprocess.check_output([folder / "bin" / "python", "-c", ask], text=True)
    python, airflow = answer.split()
    return {"python": python, "airflow": airflow}


def _pytest(folder: Path, arguments: Sequence[str]) -> tuple[int, bool]:
    """Run a suite; return the number of passed tests, and whether any ran and none failed."""
    with tempfile.TemporaryDirectory() as home:
        report = Path(home) / "report.xml"
        environment = {**os.environ, "AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        command = [folder / "bin" / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        ended = subprocess.run([*command, f"--junitxml={report}"], cwd=PROJECT, env=environment, check=False)
        passed = _passed(report) if report.exists() else 0
    return passed, ended.returncode == 0 and passed > 0


def _passed(report: Path) -> int:
    suites = ElementTree.parse(report).getroot().iter("testsuite")  # noqa: S314 - pytest wrote it just now
    return sum(
        int(suite.get("tests", 0))
        - sum(int(suite.get(kind, 0)) for kind in ("errors", "failures", "skipped"))
        for suite in suites
    )


def _keep(result: Result) -> None:
    kept = {**read_results(), result.cell: result}
    in_order = [kept[cell.name] for cell in cells() if cell.name in kept]
    rows = ",\n".join(f"    {json.dumps(asdict(row))}" for row in in_order)
    RESULTS.write_text(f"[\n{rows}\n]\n")


def read_results() -> dict[str, Result]:
    """Return the last result of each cell that ran, by its name."""
    if not RESULTS.exists():
        return {}
    return {row["cell"]: Result(**row) for row in json.loads(RESULTS.read_text())}


def _as_row(result: Result) -> str:
    return (
        f"{result.cell:12} {result.verdict:14} Python {result.python:8} Airflow {result.airflow:8} "
        f"{result.tests:5} tests, {result.smoke} on Airflow  ({result.seconds} s)"
    )


# ---- results --------------------------------------------------------------------------------------


def table() -> str:
    """Return the table of results, in Markdown."""
    matrix, results = read_matrix(), read_results()

    def versions(line: str) -> str:
        found = {result.airflow for name, result in results.items() if name.endswith(f"-{line}")}
        return f"Airflow {', '.join(sorted(found))}" if found else f"Airflow {line}"

    def mark(python: str, line: str) -> str:
        if python not in matrix["airflow"][line]["pythons"]:
            return "no"
        result = results.get(f"{python}-{line}")
        if result is None:
            return "not tried"
        return "yes" if result.verdict == "passed" else "**not passed**"

    lines = list(matrix["airflow"])
    rows = [
        ["", *map(versions, lines)],
        ["---"] * (len(lines) + 1),
        *([f"Python {python}", *(mark(python, line) for line in lines)] for python in matrix["pythons"]),
    ]
    said = [
        f"{words} ({result.airflow} on Python {result.python.rpartition('.')[0]})"
        for name, words in (
            ("lowest", "the lowest versions that the package's metadata allows"),
            ("newest", "the newest of everything"),
        )
        if (result := results.get(name)) and result.verdict == "passed"
    ]
    also = f"\n\nAlso passed: {'; '.join(said)}." if said else ""
    return "\n".join(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in rows) + also


def write_tables(pages: Iterable[Path] = PAGES) -> None:
    """Update the table in the pages."""
    for page in pages:
        before, after = around_table(page)
        page.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}")


def around_table(page: Path) -> tuple[str, str]:
    """Return the text before and after a page's table."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} lacks the comments for the table: {BEGIN} … {END}")
    return before, after


# ---- constraints ----------------------------------------------------------------------------------


def pin() -> None:
    """Write the constraints of each Airflow line, and those of the lowest versions."""
    matrix = read_matrix()
    for line, described in matrix["airflow"].items():
        requirements = [f"apache-airflow=={described['version']}", *described["drivers"]]
        # The documentation is built only on the newest line.
        extras = ["dev", "docs"] if line == list(matrix["airflow"])[-1] else ["dev"]
        options = [*(f"--extra={extra}" for extra in extras), *_of_its_time(described)]
        _compile(PROJECT / f"constraints/airflow-{line}.txt", requirements, options)
    _pin_lowest(matrix["lowest"])


def _pin_lowest(described: dict[str, Any]) -> None:
    """Pin the lowest versions that the project allows, with the newest test tools that fit them."""
    with tempfile.TemporaryDirectory() as folder:
        lowest = Path(folder) / "lowest.txt"
        setup = configparser.ConfigParser()
        setup.read(PROJECT / "setup.cfg")
        # Users don't install tests and tools.
        extras = [
            f"--extra={extra}" for extra in setup["options.extras_require"] if extra not in {"dev", "docs"}
        ]
        common = ["--python-version", described["python"], *_of_its_time(described)]
        _compile(lowest, [], [*common, *extras, "--resolution", "lowest-direct"])
        options = [*common, "--extra", "dev", "--constraints", str(lowest)]
        _compile(PROJECT / "constraints/lowest.txt", ["apache-airflow", *described["drivers"]], options)


def _of_its_time(described: dict[str, Any]) -> list[str]:
    """Return the options that exclude packages newer than ``as_of``, except for Airflow's providers."""
    if "as_of" not in described:
        return []
    today = datetime.now(timezone.utc).isoformat(timespec="seconds")
    packages = [f"apache-airflow-providers-{provider}={today}" for provider in _PROVIDERS]
    return [f"--exclude-newer={described['as_of']}", *(f"--exclude-newer-package={one}" for one in packages)]


def _compile(output: Path, requirements: Sequence[str], options: Sequence[str]) -> None:
    print(f"Pinning {output.name}", flush=True)
    command = ["pip", "compile", "--quiet", "--upgrade", "--no-annotate"]
    if "--python-version" not in options:
        # One file for all Pythons.
        command += ["--universal", "--python-version", "3.10"]
    command += ["--custom-compile-command", "make constraints", *options]
    ended = _uv([*command, "setup.cfg", "-", "--output-file", str(output)], stdin="\n".join(requirements))
    ended.check_returncode()


@functools.cache
def _uv_command() -> str:
    own = PROJECT / ".venv" / "tools" / "bin" / "uv"
    found = str(own) if own.exists() else shutil.which("uv")
    if not found:
        raise RuntimeError("Could not find uv; run: make .venv/tools/bin/uv")
    return found


def _uv(arguments: Sequence[str], stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    # The caller's own virtualenv must not matter.
    environment.pop("VIRTUAL_ENV", None)
    return subprocess.run(
        [_uv_command(), *arguments], cwd=PROJECT, env=environment, input=stdin, text=True, check=False
    )


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run").add_argument("cells", nargs="*", metavar="CELL")
    for command in ("cells", "constraints", "tables"):
        commands.add_parser(command)
    asked = parser.parse_args()
    if asked.command == "run":
        return run(asked.cells)
    if asked.command == "cells":
        described = [
            {"name": cell.name, "python": cell.python, "may_fail": cell.may_fail} for cell in cells()
        ]
        print(json.dumps(described))
    elif asked.command == "constraints":
        pin()
    else:
        write_tables()
    return 0


if __name__ == "__main__":
    sys.exit(main())
