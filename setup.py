"""Adapt the README for a package index, which setup.cfg can't do.

Relative links into the repository are dead on a package index. If ``PROJECT_URL`` is set to the repository,
they lead to the version's tag there; the release workflow sets it to its own repository. Without it, links
become plain text, and pictures are omitted.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from setuptools import setup

PROJECT = Path(__file__).resolve().parent
URL = os.environ.get("PROJECT_URL", "").rstrip("/")


def version() -> str:
    text = (PROJECT / "airflow_provider_coveo" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    if found is None:
        raise ValueError("airflow_provider_coveo/__init__.py does not define __version__")
    return found[1]


def readme() -> str:
    text = (PROJECT / "README.md").read_text(encoding="utf-8")

    def link(found: re.Match[str]) -> str:
        is_picture, words, target = found.groups()
        if "://" in target or target.startswith("#"):
            return found[0]
        if URL:
            return f"{is_picture}[{words}]({URL}/{'raw' if is_picture else 'blob'}/v{version()}/{target})"
        return "" if is_picture else words

    return re.sub(r"(!?)\[([^]]*)\]\(([^)\s]+)\)", link, text)


setup(
    long_description=readme(),
    long_description_content_type="text/markdown",
    project_urls={
        "Source": URL,
        "Changelog": f"{URL}/blob/v{version()}/CHANGELOG.md",
        "Issues": f"{URL}/issues",
    }
    if URL
    else {},
)
