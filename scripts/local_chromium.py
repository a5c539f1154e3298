"""A Chromium without a window, to look at pages with.

with chromium() as browser:
    page = browser.new_page()
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from debian_packages import install_packages
from playwright.sync_api import Browser, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium(*, install: bool = True) -> str:
    """Give the path of the browser.

    :param install: as root on Debian or Ubuntu, install the package `chromium` where it is missing
    """
    for name in _NAMES:
        if found := shutil.which(name):
            return found
    if install and install_packages("chromium"):
        return find_chromium(install=False)
    raise RuntimeError(
        f"No browser was found ({', '.join(_NAMES)} were tried): install one, on Debian with "
        "`apt-get install chromium`"
    )


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser, and end it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(),
            # Its sandbox refuses to run as root. What is looked at is our own.
            args=["--no-sandbox", "--disable-gpu"],
            timeout=120_000,
        )
        try:
            yield browser
        finally:
            browser.close()
