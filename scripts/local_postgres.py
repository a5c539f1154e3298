"""A temporary PostgreSQL in its own folder.

Airflow 2.11 can't run tasks in parallel on SQLite, so a realistic 2.11 needs a database server. This one
listens only on a Unix socket in its folder: it needs no port and no password, and leaves nothing behind.
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

# The data is needed only during a test run, so it need not survive a power failure, which makes the server
# several times faster. With shared memory in the data folder, a killed server leaves nothing in /dev/shm.
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
    """Return the folder that contains `initdb` and `postgres`.

    :param install: whether to install the package `postgresql` if it is missing, as root on Debian or Ubuntu
    """
    # On Debian, the server programs of each major version are not in PATH.
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name))
    if found := shutil.which("initdb"):
        candidates.insert(0, Path(found).resolve().parent)
    for folder in reversed(candidates):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    if install and install_packages("postgresql"):
        return find_postgres(install=False)
    raise RuntimeError(
        "Could not find PostgreSQL's server programs (initdb, postgres). Install them, on Debian or Ubuntu "
        "with `apt-get install postgresql`"
    )


class LocalPostgres:
    """A database server in a :attr:`folder`; :attr:`url` is its address for SQLAlchemy.

    The caller stops its process and deletes the folder (see :mod:`local_airflow`).

    :param name: the database to create in it
    :param folder: the folder for its data; by default, a temporary one
    :param user: its superuser
    :param port: the loopback port to listen on, with a password, instead of a socket in the folder
        :param password: the password for connections to the port
    :param log: its log file; by default in the folder
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
        # Not in the caller's folder: the path of a socket is limited to about 100 characters, and the
        # server's user must be able to access it.
        self.folder = folder or Path(tempfile.mkdtemp(prefix="postgres-"))
        self.log = log or self.folder / "postgres.log"
        self._user = user
        self._port = port
        self._password = password
        # PostgreSQL does not run as root.
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
        """Start the server in its own session; create its data first if there is none."""
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
        # In a file, because `ps` shows arguments.
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
        """Create the database as soon as the server responds, unless it exists."""
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
                raise RuntimeError(f"Could not start PostgreSQL: {created.stderr}\n{log[-2000:]}")
            time.sleep(0.1)
