"""A temporary MariaDB in its own folder.

Not every MySQL client supports Unix sockets, so it also listens on a free loopback port. Anyone who connects
there is root without a password, but the server contains only test data.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

# The data is needed only during a test run, so it need not survive a power failure.
_SETTINGS = {
    "bind-address": "127.0.0.1",
    "innodb-buffer-pool-size": "16M",
    "innodb-flush-log-at-trx-commit": "0",
    "skip-log-bin": "",
}


def find_mariadb() -> Path:
    """Return the path of the server program.

    :raises RuntimeError: if it is not installed
    """
    # On Debian, it is not in the PATH of ordinary users.
    if found := shutil.which("mariadbd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"):
        return Path(found)
    raise RuntimeError(
        "Could not find MariaDB's server program (mariadbd). Install it, on Debian or Ubuntu with "
        "`apt-get install mariadb-server-core mariadb-client-core`"
    )


class LocalMariaDB:
    """A database server in its own temporary :attr:`folder`, with its :attr:`socket` and :attr:`port`.

    The caller stops its process and deletes the folder.

    :param name: the database to create in it
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = Path(tempfile.mkdtemp(prefix="mariadb-"))
        self.log = self.folder / "mariadb.log"
        self.socket = self.folder / "socket"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        # MariaDB does not run as root.
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            account = pwd.getpwnam("nobody")
            self._user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
            os.chown(self.folder, account.pw_uid, account.pw_gid)

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the server in its own session."""
        data = self.folder / "data"
        subprocess.run(
            [
                "mariadb-install-db",
                "--no-defaults",
                f"--datadir={data}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ],
            check=True,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            **self._user,
        )
        settings = [f"--{key}={value}" if value else f"--{key}" for key, value in _SETTINGS.items()]
        where = [f"--datadir={data}", f"--socket={self.socket}", f"--port={self.port}"]
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [find_mariadb(), "--no-defaults", *where, *settings],
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **self._user,
            )

    def create_database(self, script: str = "", timeout: float = 30) -> None:
        """Create the database as soon as the server responds, and run a script in it."""
        deadline = time.monotonic() + timeout
        while True:
            created = self._run(f"CREATE DATABASE {self.name}")
            if created.returncode == 0:
                break
            if time.monotonic() > deadline:
                log = self.log.read_text(errors="replace")
                raise RuntimeError(f"Could not start MariaDB: {created.stderr}\n{log[-2000:]}")
            time.sleep(0.1)
        self._run(f"USE {self.name};\n{script}").check_returncode()

    def _run(self, script: str) -> subprocess.CompletedProcess[str]:
        command = ["mariadb", "--no-defaults", f"--socket={self.socket}", "--user=root"]
        return subprocess.run(command, input=script, capture_output=True, text=True, check=False)
