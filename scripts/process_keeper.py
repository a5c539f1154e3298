"""End processes and delete folders when the caller requests it, or dies.

:class:`Keeper` starts this module as a separate process. Its standard input contains one line for each thing
to clean up: ``process PID START``, ``server PID START`` or ``folder PATH``. When the input ends, even because
the writer suddenly died, it cleans up. A process stands for its whole session, so that its descendants are
found even if their parent is gone. A server gets a signal to shut down once all processes are gone, and is
killed only if that fails.
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
    """Cleans up after this process, on :meth:`close` or when the process dies.

    :param home: the folder to delete; processes that have it as AIRFLOW_HOME are ended, too
    """

    def __init__(self, home: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            text=True,
            bufsize=1,
            # Ctrl-C reaches the whole process group, but the keeper must survive it.
            start_new_session=True,
        )
        self.delete_with_us(home)

    def end_with_us(self, process: subprocess.Popen[bytes], *, server: bool = False) -> None:
        """Register a process to end, which must have its own session.

        :param server: whether other processes may need it until they have exited
        """
        started = psutil.Process(process.pid).create_time()
        self._write(f"{'server' if server else 'process'} {process.pid} {started}")

    def delete_with_us(self, folder: Path) -> None:
        self._write(f"folder {folder}")

    def close(self) -> None:
        """End and delete everything; return once that is done."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")


def pids_of_sessions(sessions: Collection[int], *, environment: tuple[str, str] | None = None) -> list[int]:
    """Return all live processes of these sessions.

    :param environment: a variable and value; also return processes that left the session with it in their
        environment, as a BashOperator's command does
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
    """Signal the processes that `find` returns, until it returns none or the time is up."""
    deadline = time.monotonic() + timeout
    while pids := find():
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, sig)
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)


def _sessions(lines: Collection[str]) -> set[int]:
    """Return the sessions of these processes, except for PIDs that other processes have reused."""
    sessions = set()
    for line in lines:
        pid, started = line.split()
        try:
            if psutil.Process(int(pid)).create_time() == float(started):
                sessions.add(int(pid))
        except psutil.NoSuchProcess:
            # A PID is not reused while its session has processes.
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
