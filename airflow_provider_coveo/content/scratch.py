"""Temporary folders that don't pile up on a worker whose tasks are killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

#: How old, in seconds, an abandoned folder is at least: a process locks its folder after creating it.
_MIN_AGE: Final = 3600.0


class ScratchFolder:
    """
    A temporary folder of this process, locked as long as it is in use.

    A killed process can't delete its folder. The next one with the same prefix on this machine does, since a
    lock ends with its process.

    :param prefix: The beginning of the folder's name.
    :param parent: Where it is created. Default: the folder for temporary files.
    """

    def __init__(self, prefix: str, parent: Path | None = None) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        self._lock = os.open(self.path, os.O_RDONLY)
        # Where the file system has no locks, nobody can take the folder for an abandoned one either.
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
    """Yield the folders whose processes are gone."""
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
