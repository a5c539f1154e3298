"""
Recognize tables whose folders also hold outdated files.

Delta Lake, Apache Hudi, Apache Iceberg and Apache Paimon keep files with rows that were deleted or replaced.
Only the table's own log, which this package does not read, tells which files are current.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from airflow_provider_coveo.coveo.errors import CoveoInputError

_log: Final = logging.getLogger(__name__)
#: The folder with a table's log, and the table's format.
_LOGS: Final = {"_delta_log": "Delta Lake", ".hoodie": "Apache Hudi"}
#: The folders with a table's metadata: their common names, the names of files in them, other folders beside
#: them, and the table's format.
_METADATA: Final = {
    "metadata": (
        r"(?:v\d+|\d{5,}-[0-9a-f]{8}-[0-9a-f-]{27})(?:\.gz)?\.metadata\.json(?:\.gz)?",
        (),
        "Apache Iceberg",
    ),
    "snapshot": (r"snapshot-\d+", ("schema", "manifest"), "Apache Paimon"),
}
#: The names of all these folders.
FOLDERS: Final = frozenset((*_LOGS, *_METADATA, *(name for each in _METADATA.values() for name in each[1])))
#: The suffixes of the files that such tables consist of, as far as this package can read them.
_DATA: Final = (".parquet", ".pq")


class Folders(Protocol):
    """The folders of a file system."""

    def above(self, folder: str) -> Sequence[Sequence[str]]:
        """Return a folder and those above it, from the inside, for each of its paths."""

    def has(self, folder: str, name: str, *, asks: bool) -> bool:
        """
        Return whether a folder has another one.

        :param folder: The folder.
        :param name: The name of the other one.
        :param asks: Whether to send requests if no earlier listing shows it.
        """

    def names(self, folder: str) -> Iterable[str]:
        """Return the names in a folder."""

    def shown(self, path: str) -> str:
        """Return a path for messages."""


def reject_tables(folders: Folders, files: Sequence[str]) -> Sequence[str]:
    """
    Return the files that a folder or a glob selects, unless they belong to such a table.

    :param folders: The file system.
    :param files: The paths of the files.
    :raises CoveoInputError: if one belongs to such a table.
    """
    # Above the listed folders, it takes requests to find out.
    asks = any(file.endswith(_DATA) for file in files)
    seen: set[str] = set()
    for inner in dict.fromkeys(file.rpartition("/")[0] for file in files):
        for path in folders.above(inner):
            for folder in path:
                if folder in seen:
                    break
                seen.add(folder)
                _reject_table(folders, folder, asks=asks)
    return files


def _reject_table(folders: Folders, folder: str, *, asks: bool) -> None:
    try:
        table_format = _format_of(folders, folder, asks=asks)
    except OSError as problem:
        # A key can be limited to some folders. Whatever is read itself is listed, and must not fail.
        _log.info("Could not check whether %r is a table: %s", folders.shown(folder), problem)
        return
    if table_format is not None:
        raise CoveoInputError(
            f"Could not read {folders.shown(folder)!r}: it is a table of {table_format}, whose files also "
            "hold rows that were deleted or replaced",
            remedy="Query the table with SqlToCoveoPushOperator, or export what is current",
        )


def _format_of(folders: Folders, folder: str, *, asks: bool) -> str | None:
    for name, table_format in _LOGS.items():
        if folders.has(folder, name, asks=asks):
            return table_format
    for name, (files, beside, table_format) in _METADATA.items():
        if all(folders.has(folder, each, asks=asks) for each in (name, *beside)) and any(
            re.fullmatch(files, file) for file in folders.names(f"{folder.rstrip('/')}/{name}")
        ):
            return table_format
    return None
