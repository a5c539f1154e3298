"""End processes and delete folders as soon as whoever started them says so, or dies.

:class:`Keeper` starts this module as a process of its own. Its standard input brings one line for each thing
to clean up, ``process PID START``, ``server PID START`` or ``folder PATH``; its end, which also the sudden
death of the writer brings about, is the sign to clean up. A process stands for its whole session, so that
what it started is found even if its parent is gone; a server is asked to leave, after all processes are gone,
before it is killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

import psutil


class Keeper:
    """Cleans up after this process, at :meth:`close` or at its death.

    :param home: the folder to delete; processes that have it as AIRFLOW_HOME are ended as well
    """

    def __init__(self, home: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            text=True,
            bufsize=1,
            # Ctrl-C reaches the whole process group; the keeper is the one who must stay.
            start_new_session=True,
        )
        self.delete_with_us(home)

    def end_with_us(self, process: subprocess.Popen[bytes], *, server: bool = False) -> None:
        """Have this process ended, which was started in a session of its own.

        :param server: whether the others may need it until they are gone
        """
        started = psutil.Process(process.pid).create_time()
        self._write(f"{'server' if server else 'process'} {process.pid} {started}")

    def delete_with_us(self, folder: Path) -> None:
        self._write(f"folder {folder}")

    def close(self) -> None:
        """Have everything ended and deleted; return when it is done."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")


def pids_of_sessions(sessions: Collection[int], *, environment: tuple[str, str] | None = None) -> list[int]:
    """Give all live processes of these sessions.

    :param environment: also those that left the session (as a BashOperator's command does) with this variable
        and value in their environment
    """
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError, PermissionError):
            if process.status() != psutil.STATUS_ZOMBIE and (
                os.getsid(process.pid) in sessions
                or (environment and process.environ().get(environment[0]) == environment[1])
            ):
                found.append(process.pid)
    return found


def end_processes(find: Callable[[], list[int]], sig: int, timeout: float) -> None:
    """Signal what `find` gives, until it gives nothing more or the time is up."""
    deadline = time.monotonic() + timeout
    while pids := find():
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, sig)
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)


def _sessions(lines: Collection[str]) -> set[int]:
    """Give the sessions of these processes; a number that is somebody else's by now is left out."""
    sessions = set()
    for line in lines:
        pid, started = line.split()
        try:
            if psutil.Process(int(pid)).create_time() == float(started):
                sessions.add(int(pid))
        except psutil.NoSuchProcess:
            # Its number is not given away as long as anything is left of its session.
            sessions.add(int(pid))
    return sessions


def main() -> None:
    todo: dict[str, list[str]] = {"process": [], "server": [], "folder": []}
    for line in sys.stdin:
        kind, _, what = line.rstrip("\n").partition(" ")
        todo[kind].append(what)
    processes, servers = _sessions(todo["process"]), _sessions(todo["server"])
    home = todo["folder"][0]
    end_processes(lambda: pids_of_sessions(processes, environment=("AIRFLOW_HOME", home)), signal.SIGKILL, 30)
    # PostgreSQL frees its shared memory on SIGQUIT ("immediate shutdown"), not on SIGKILL.
    for sig in (signal.SIGQUIT, signal.SIGKILL):
        end_processes(lambda: pids_of_sessions(servers), sig, 10)
    for folder in todo["folder"]:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
