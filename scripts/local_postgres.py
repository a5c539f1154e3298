"""A PostgreSQL of its own in a temporary folder, for as long as it is needed.

Airflow 2.11 refuses to run tasks in parallel on SQLite, so a realistic 2.11 needs a database server. This one
listens on a Unix socket inside its folder only: no port, no password, no trace left behind.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Nothing in this database outlives a test run, so it need not survive a power cut: that makes it several
# times faster. Shared memory as files in the data folder leaves nothing in /dev/shm when it is killed.
_SETTINGS = {
    "autovacuum": "off",
    "dynamic_shared_memory_type": "mmap",
    "fsync": "off",
    "full_page_writes": "off",
    "listen_addresses": "",
    "max_connections": "200",
    "synchronous_commit": "off",
}


def find_postgres(*, install: bool = True) -> Path:
    """Give the folder that holds `initdb` and `postgres`.

    :param install: as root on Debian or Ubuntu, install the package `postgresql` where it is missing
    """
    # Debian keeps the server programs of each major version out of PATH.
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name))
    if found := shutil.which("initdb"):
        candidates.insert(0, Path(found).resolve().parent)
    for folder in reversed(candidates):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    if install and os.geteuid() == 0 and shutil.which("apt-get"):
        print("Installing PostgreSQL with apt-get ...", file=sys.stderr)
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=quiet)
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "postgresql"],
            check=True,
            env=quiet,
            stdout=subprocess.DEVNULL,
        )
        return find_postgres(install=False)
    raise RuntimeError(
        "PostgreSQL's server programs (initdb, postgres) were not found: install them, on Debian or Ubuntu "
        "with `apt-get install postgresql`"
    )


class LocalPostgres:
    """A database server in its own temporary :attr:`folder`; :attr:`url` is what SQLAlchemy connects to.

    Whoever starts it stops its process and deletes the folder (see :mod:`local_airflow`).

    :param name: the database to create in it
    """

    def __init__(self, name: str = "airflow") -> None:
        self.name = name
        # Not inside the folder of whoever uses it: the path of a socket may have about 100 characters at
        # most, and the server's user must be able to reach it.
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self.log = self.folder / "postgres.log"
        # PostgreSQL refuses to run as root.
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            accounts = {entry.pw_name: entry for entry in pwd.getpwall()}
            account = accounts.get("postgres") or accounts["nobody"]
            self._user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
            os.chown(self.folder, account.pw_uid, account.pw_gid)

    @property
    def url(self) -> str:
        return f"postgresql+psycopg2://postgres@/{self.name}?host={self.folder}"

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the server, in a session of its own."""
        programs = find_postgres()
        data = self.folder / "data"
        subprocess.run(
            [
                programs / "initdb",
                f"--pgdata={data}",
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--no-locale",
                "--no-sync",
                "--no-instructions",
            ],
            check=True,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            **self._user,
        )
        settings = [f"--{key}={value}" for key, value in _SETTINGS.items()]
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [programs / "postgres", "-D", data, "-k", self.folder, *settings],
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **self._user,
            )

    def create_database(self, timeout: float = 30) -> None:
        """Create the database as soon as the server answers."""
        deadline = time.monotonic() + timeout
        while True:
            created = subprocess.run(
                [find_postgres() / "createdb", "-h", self.folder, "-U", "postgres", self.name],
                cwd=self.folder,
                capture_output=True,
                text=True,
                check=False,
            )
            if created.returncode == 0:
                return
            if time.monotonic() > deadline:
                log = self.log.read_text(errors="replace")
                raise RuntimeError(f"PostgreSQL did not start: {created.stderr}\n{log[-2000:]}")
            time.sleep(0.1)
