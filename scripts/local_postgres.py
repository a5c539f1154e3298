"""A PostgreSQL of its own in a temporary folder, for as long as it is needed.

Airflow 2.11 refuses to run tasks in parallel on SQLite, so a realistic 2.11 needs a database server. This one
listens on a Unix socket inside its folder only: no port, no password, no trace left behind.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from debian_packages import install_packages

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
    if install and install_packages("postgresql"):
        return find_postgres(install=False)
    raise RuntimeError(
        "PostgreSQL's server programs (initdb, postgres) were not found: install them, on Debian or Ubuntu "
        "with `apt-get install postgresql`"
    )


class LocalPostgres:
    """A database server in a :attr:`folder`; :attr:`url` is what SQLAlchemy connects to.

    Whoever starts it stops its process and deletes the folder (see :mod:`local_airflow`).

    :param name: the database to create in it
    :param folder: the folder for its data; by default a temporary one of its own
    :param user: its superuser
    :param port: listen on this port of the loopback address, and ask for the password, instead of a socket in
        the folder
    :param password: the password that it asks for at the port
    :param log: the file for what it says; by default in the folder
    """

    def __init__(
        self,
        name: str = "airflow",
        *,
        folder: Path | None = None,
        user: str = "postgres",
        port: int | None = None,
        password: str = "",
        log: Path | None = None,
    ) -> None:
        self.name = name
        # Not inside the folder of whoever uses it: the path of a socket may have about 100 characters at
        # most, and the server's user must be able to reach it.
        self.folder = folder or Path(tempfile.mkdtemp(prefix="postgres-"))
        self.log = log or self.folder / "postgres.log"
        self._user = user
        self._port = port
        self._password = password
        # PostgreSQL refuses to run as root.
        self._account: dict[str, Any] = {}
        if os.geteuid() == 0:
            accounts = {entry.pw_name: entry for entry in pwd.getpwall()}
            account = accounts.get("postgres") or accounts["nobody"]
            self._account = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
            os.chown(self.folder, account.pw_uid, account.pw_gid)

    @property
    def url(self) -> str:
        if self._port:
            return f"postgresql+psycopg2://{self._user}:{self._password}@127.0.0.1:{self._port}/{self.name}"
        return f"postgresql+psycopg2://{self._user}@/{self.name}?host={self.folder}"

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the server, in a session of its own; make its data first, if there are none."""
        programs = find_postgres()
        data = self.folder / "data"
        if not data.exists():
            self._make_data(programs, data)
        settings = [f"--{key}={value}" for key, value in _SETTINGS.items()]
        if self._port:
            settings += ["--listen_addresses=127.0.0.1", f"--port={self._port}"]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [
                    *(programs / "postgres", "-D", data, *settings),
                    f"--unix_socket_directories={'' if self._port else self.folder}",
                ],
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **self._account,
            )

    def _make_data(self, programs: Path, data: Path) -> None:
        # A file, and not an argument, which `ps` would show.
        password = self.folder / "password"
        password.touch(mode=0o600)
        password.write_text(f"{self._password}\n")
        if self._account:
            os.chown(password, self._account["user"], self._account["group"])
        asks = ["--auth=scram-sha-256", f"--pwfile={password}"] if self._port else ["--auth=trust"]
        subprocess.run(
            [
                programs / "initdb",
                f"--pgdata={data}",
                f"--username={self._user}",
                *asks,
                "--encoding=UTF8",
                "--no-locale",
                "--no-sync",
                "--no-instructions",
            ],
            check=True,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            **self._account,
        )
        password.unlink()

    def create_database(self, timeout: float = 120) -> None:
        """Create the database as soon as the server answers, if it is not there."""
        where = ["-h", "127.0.0.1", "-p", str(self._port)] if self._port else ["-h", str(self.folder)]
        deadline = time.monotonic() + timeout
        while True:
            created = subprocess.run(
                [find_postgres() / "createdb", *where, "-U", self._user, self.name],
                cwd=self.folder,
                env={**os.environ, "PGPASSWORD": self._password},
                capture_output=True,
                text=True,
                check=False,
            )
            if created.returncode == 0 or "already exists" in created.stderr:
                return
            if time.monotonic() > deadline:
                log = self.log.read_text(errors="replace")
                raise RuntimeError(f"PostgreSQL did not start: {created.stderr}\n{log[-2000:]}")
            time.sleep(0.1)
