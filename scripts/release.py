"""Check whether a version can be released, before its tag is set.

    release.py check [TAG]

Only ``airflow_provider_coveo/__init__.py`` contains the version. ``CHANGELOG.md`` must describe it, and each
cell of the matrix must have passed on the Airflow that is pinned for it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from datetime import date

import matrix

CHANGELOG = matrix.PROJECT / "CHANGELOG.md"
PACKAGE = matrix.PROJECT / "airflow_provider_coveo" / "__init__.py"


def version() -> str:
    """Return the version of the package."""
    found = re.search(r'^__version__ = "(.+)"$', PACKAGE.read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{PACKAGE} does not define __version__")
    return found[1]


def wrong(tag: str | None = None) -> Iterator[str]:
    """Return the problems that block a release."""
    if tag is not None and tag != f"v{version()}":
        yield f"The tag is {tag}, but the package's version is {version()}"
    yield from wrong_in_changelog(CHANGELOG.read_text(), version())
    yield from wrong_in_matrix()


def wrong_in_changelog(text: str, released: str) -> Iterator[str]:
    """Return what CHANGELOG.md lacks for a version."""
    sections = re.findall(r"^## \[(.+?)\](?: - (\S+))?\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    newest = next((section for section in sections if section[0] != "Unreleased"), None)
    if newest is None or newest[0] != released:
        yield f"The newest version in CHANGELOG.md is {newest[0] if newest else 'none'}, not {released}"
        return
    try:
        date.fromisoformat(newest[1])
    except ValueError:
        yield f"CHANGELOG.md has no date such as 2025-12-31 for {released}, but {newest[1] or 'nothing'}"
    if not newest[2].strip():
        yield f"CHANGELOG.md has no entries for {released}"
    if any(name == "Unreleased" and words.strip() for name, _, words in sections):
        yield f"CHANGELOG.md still has entries under Unreleased: move them to {released}"


def wrong_in_matrix() -> Iterator[str]:
    """Return the cells that did not pass with their pinned versions."""
    results, lines = matrix.read_results(), matrix.read_matrix()["airflow"]
    for cell in matrix.cells():
        if cell.may_fail:
            continue
        result = results.get(cell.name)
        pinned = lines[cell.airflow]["version"] if cell.airflow else None
        if result is None or result.verdict != "passed":
            yield f"Cell {cell.name} has not passed: make test-matrix CELLS={cell.name}"
        elif pinned and result.airflow != pinned:
            yield f"Cell {cell.name} passed on Airflow {result.airflow}, but {pinned} is pinned now"


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    check = parser.add_subparsers(required=True).add_parser("check")
    check.add_argument("tag", nargs="?")
    found = list(wrong(parser.parse_args().tag))
    print("\n".join(found) or f"{version()} can be released, if its tests pass.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
