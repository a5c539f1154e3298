"""Install missing programs as Debian packages."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def install_packages(*names: str) -> bool:
    """Install Debian packages, as root on Debian or Ubuntu; return whether that succeeded."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    # The runlevel keeps packages from starting their servers.
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    # The tests of two Airflow lines run in parallel, and apt-get fails while another one is running.
    with (Path(tempfile.gettempdir()) / "airflow-provider-coveo-packages.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        print(f"Installing {' '.join(names)} with apt-get ...", file=sys.stderr)
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=quiet)
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *names],
            check=True,
            env=quiet,
            stdout=subprocess.DEVNULL,
        )
    return True
