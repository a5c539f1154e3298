"""A headless Chromium, for tests and screenshots of pages.

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
    """Return the path of the browser.

    :param install: whether to install the package `chromium` if it is missing, as root on Debian or Ubuntu
    """
    for name in _NAMES:
        if found := shutil.which(name):
            return found
    if install and install_packages("chromium"):
        return find_chromium(install=False)
    raise RuntimeError(
        f"Found no browser ({', '.join(_NAMES)}). Install one, on Debian with `apt-get install chromium`"
    )


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser; it ends with the block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(),
            # Its sandbox does not run as root, and the pages are trusted.
            args=["--no-sandbox", "--disable-gpu"],
            timeout=120_000,
        )
        try:
            yield browser
        finally:
            browser.close()
