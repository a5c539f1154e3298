"""A Chromium without a window, to look at pages with.

with chromium() as browser:
    page = browser.new_page()
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium(*, install: bool = True) -> str:
    """Give the path of the browser.

    :param install: as root on Debian or Ubuntu, install the package `chromium` where it is missing
    """
    for name in _NAMES:
        if found := shutil.which(name):
            return found
    if install and os.geteuid() == 0 and shutil.which("apt-get"):
        print("Installing Chromium with apt-get ...", file=sys.stderr)
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=quiet)
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"],
            check=True,
            env=quiet,
            stdout=subprocess.DEVNULL,
        )
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
