"""Code whose tests run on one line of Airflow has the same versions of its dependencies on the other."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PACKAGE = PROJECT / "airflow_provider_coveo"
#: The packages whose tests run on one line.
PACKAGES = ("coveo", "content", "transports", "simulator")


def pins(line: str) -> dict[str, list[str]]:
    """Return the pinned versions of each distribution: several, if they depend on the version of Python."""
    found: dict[str, list[str]] = {}
    for pin in (PROJECT / "constraints" / f"airflow-{line}.txt").read_text().splitlines():
        if match := re.match(r"([\w.-]+)==(.*)", pin):
            found.setdefault(match[1].lower(), []).append(match[2])
    return found


def imported() -> set[str]:
    """Return the distributions that these packages import."""
    modules = set()
    for path in (path for package in PACKAGES for path in (PACKAGE / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add(node.module or "")
    tops = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names
    distributions = packages_distributions()
    named = {name.lower() for top in tops for name in distributions.get(top, ())}
    return {name for name in named if not name.startswith(("apache-airflow", "airflow-provider-coveo"))}


def test_libraries_of_code_without_airflow_have_the_same_versions_on_both_lines() -> None:
    newest, oldest = pins("3.3"), pins("2.11")
    # The hook sends through Airflow's session.
    names = imported() | {"apache-airflow-providers-http"}
    assert {"requests", "aiohttp", "urllib3", "msgspec", "pyarrow", "starlette"} <= names
    differing = {name for name in names if newest.get(name) != oldest.get(name)}
    assert not differing, "run the tests on both lines: ON_ONE_LINE in the Makefile"
