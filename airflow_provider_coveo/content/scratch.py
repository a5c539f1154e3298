"""Temporary folders that don't accumulate on a worker whose tasks are killed."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

#: The minimum age of an abandoned folder in seconds: a process locks its folder only after creating it.
_MIN_AGE: Final = 3600.0


def explain_full_disk(problem: BaseException) -> tuple[str, str]:
    """
    Return the cause and the remedy of a failed write; two empty texts if no disk is full.

    :param problem: The error. The disk may be that of the target, or that of the temporary files.
    """
    if not isinstance(problem, OSError) or problem.errno not in {errno.ENOSPC, errno.EDQUOT}:
        return "", ""
    disks = f"the disk of the folder, or of the worker's temporary folder {tempfile.gettempdir()},"
    return f"{disks} is full", "Free space there, then clear the task"


class ScratchFolder:
    """
    A temporary folder of this process, locked while it is in use.

    A killed process can't delete its folder, but its lock ends with it. The next process on this machine that
    uses the same prefix deletes the folder.

    :param prefix: The beginning of the folder's name.
    :param parent: The folder in which to create it. Default: the folder for temporary files.
    """

    def __init__(self, prefix: str, parent: Path | None = None) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        self._lock = os.open(self.path, os.O_RDONLY)
        # If the file system has no locks, no other process can mistake the folder for an abandoned one.
        with suppress(OSError):
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for abandoned in _abandoned(self.path.parent, prefix):
            shutil.rmtree(abandoned, ignore_errors=True)

    def close(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _abandoned(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield the folders whose processes have ended."""
    for path in parent.glob(f"{prefix}*"):
        try:
            stat = path.lstat()
            if stat.st_uid != os.getuid() or time.time() - stat.st_mtime < _MIN_AGE:
                continue
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield path
        except OSError:
            # It is in use, or the file system has no locks.
            pass
        finally:
            os.close(descriptor)
