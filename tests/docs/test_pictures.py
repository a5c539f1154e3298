"""The pictures: the script takes each of them, a page shows it, and it is small."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("playwright")

from pictures import FOLDER, PICTURES

ROOT = Path(__file__).resolve().parents[2]


def test_the_script_takes_exactly_the_existing_pictures() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(PICTURES)


def test_each_picture_is_shown_and_described() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    shown = re.findall(
        r"!\[([^]]*)\]\([^)]*pictures/([^)/]+)\)", "\n".join(page.read_text() for page in pages)
    )
    assert {name for _, name in shown} == set(PICTURES)
    assert all(len(words) > 20 for words, _ in shown)


def test_the_pictures_together_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 1_100_000
