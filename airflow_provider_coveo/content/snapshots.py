"""
Snapshots: the digest of each item of a push, by documentId, as Coveo last accepted it.

A snapshot is a SQLite file, followed by a trailer with its format, version and checksum. A push works on a
local copy. Lookups, changes and the search for missing items need no more memory than SQLite's page cache,
whatever the number of items. SQLite looks up items several times as fast as a sorted file or a dbm, and is
the only one that can be changed in place: see ``benchmarks/changes.py --formats``.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Final, ParamSpec, TypedDict, TypeVar

from airflow_provider_coveo.coveo.changes import Operation
from airflow_provider_coveo.coveo.errors import SnapshotDamagedError, SnapshotError, SnapshotFormatError

P = ParamSpec("P")
R = TypeVar("R")

#: The format that this version reads and writes. If a snapshot has another format, everything is pushed.
FORMAT: Final = 1
#: The length of the trailer in bytes.
TRAILER_BYTES: Final = 256
_MAGIC: Final = b"\ncoveo-snapshot "
_CHUNK: Final = 1 << 20
#: The size of SQLite's page cache in KiB, including the bitmaps of a comparison, so that a large snapshot
#: needs no more memory than a small one.
_CACHE_KIB: Final = 12 * 1024
_MIN_CACHE_KIB: Final = 4 * 1024
#: The operations are written once and read once.
_LOG_CACHE_KIB: Final = 512
#: The number of bitmaps of a comparison.
_BITMAPS: Final = 2
#: The number of IDs that one statement looks up; SQLite before 3.32 accepts 999 parameters.
_IDS_PER_LOOKUP: Final = 900
#: The maximum ratio of the file's size to its size with all pages filled. Above it, the file is rewritten.
_MAX_GROWTH: Final = 1.15
_SMALL_FILE: Final = 256 * 1024
#: The maximum ratio of bits in a bitmap to items. Above it, items are renumbered.
_MAX_NUMBERS_PER_ITEM: Final = 4
#: The number of pushes for which a snapshot records that it includes their journals.
_MAX_ABSORBED: Final = 200

_SCHEMA: Final = """
    CREATE TABLE items(id TEXT PRIMARY KEY, digest BLOB, number INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE facts(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_LOG_SCHEMA: Final = """
    CREATE TABLE log.operations(
        place INTEGER PRIMARY KEY, batch INTEGER NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL, digest BLOB
    );
    CREATE TABLE log.unseen(number INTEGER PRIMARY KEY);
    CREATE TABLE log.missing(id TEXT NOT NULL, digest BLOB);
"""
_FIND_MISSING: Final = """
    INSERT INTO log.missing
    SELECT id, digest FROM items WHERE number IN (SELECT number FROM log.unseen)
"""
_ROWS_BETWEEN: Final = "SELECT id, digest, number FROM items WHERE id >= ? AND id <= ? LIMIT ?"
_ID_OF: Final = itemgetter(0)
#: Applies the last operation on each ID between two positions. SQLite takes a row's other columns from the
#: row with the maximum. It sorts on disk, so pages are filled in order.
_APPLY_LAST: Final = """
    INSERT INTO items
    SELECT id, digest, :numbers + place FROM (
        SELECT id, CASE WHEN batch < :accepted THEN digest END AS digest, max(place) AS place
        FROM log.operations WHERE kind IN ('+', '-') AND place > :after AND place < :before
        GROUP BY id ORDER BY id
    ) WHERE true
    ON CONFLICT(id) DO UPDATE SET digest = excluded.digest
"""
# The range lets SQLite find IDs with a prefix by the index.
_DELETE_WITH_PREFIX: Final = """
    DELETE FROM items WHERE id >= :prefix AND id <= :end AND substr(id, 1, length(:prefix)) = :prefix
"""
_FORGET_WITH_PREFIX: Final = """
    UPDATE items SET digest = NULL
    WHERE id >= :prefix AND id <= :end AND substr(id, 1, length(:prefix)) = :prefix
"""
_DELETE_REMOVED: Final = """
    DELETE FROM items WHERE id IN (SELECT id FROM log.operations WHERE kind = 'x' AND batch < :accepted)
"""
_FORGET_REMOVED: Final = """
    UPDATE items SET digest = NULL
    WHERE id IN (SELECT id FROM log.operations WHERE kind = 'x' AND batch >= :accepted)
"""


def _on_local_disk(method: Callable[P, R]) -> Callable[P, R]:
    """Return a method that raises an error of ours if the temporary folder is full or fails."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except (sqlite3.Error, OSError) as problem:
            raise SnapshotError(
                "Could not work with the local copy of the snapshot",
                answer=f"{type(problem).__name__}: {problem}",
                cause=f"the worker's temporary folder {tempfile.gettempdir()} is full, or fails",
                remedy="Free space there, or set TMPDIR to a larger disk, then clear the task",
            ) from None

    return call


@dataclass
class SnapshotFacts:
    """
    The facts that a snapshot records about itself.

    :param target: The target of its items, in a form that distinguishes it from other targets.
    :param since: The change of the source's content since which the snapshot is valid; ``-`` if none was
        recorded, empty if it is not valid.
    :param full_at: The time of the last full push, in epoch seconds.
    :param absorbed: The journals that it includes: the number of records of each push.
    """

    target: str = ""
    since: str = ""
    full_at: float = 0.0
    absorbed: dict[str, int] = field(default_factory=dict)


class Snapshot:
    """
    A local copy of a snapshot, to which accepted operations are added.

    :param folder: An empty local folder for its files.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "snapshot"
        self.version = ""
        self.facts = SnapshotFacts()
        self._log_path = folder / "log"
        self._database: sqlite3.Connection | None = None
        self._items = self._rows = self._numbers = 0
        #: The bytes per item when all pages were filled.
        self._size_per_row = 0.0
        self._places = 0

    # --- files ---

    @_on_local_disk
    def create(self) -> None:
        """Start with an empty snapshot."""
        database = self._connect()
        database.executescript(_SCHEMA)
        self._open_log(database)

    def open(self, name: str) -> None:
        """
        Start with the file that was downloaded to ``path``, or that :meth:`write` completed there.

        :param name: Its name, for messages.
        :raises SnapshotFormatError: if it has another format.
        :raises SnapshotDamagedError: if it is damaged or not a snapshot.
        """
        trailer = _checked_trailer(self.path, name)
        with self.path.open("r+b") as file:
            file.truncate(trailer["size"])
        self.version = str(trailer["version"])
        try:
            database = self._connect()
            facts = dict(database.execute("SELECT name, value FROM facts"))
            self.facts = SnapshotFacts(
                facts["target"], facts["since"], float(facts["full_at"]), json.loads(facts["absorbed"])
            )
            self._items, self._rows, self._numbers = map(
                int, (facts[name] for name in ("items", "rows", "numbers"))
            )
            self._size_per_row = float(facts["size_per_row"])
        except (sqlite3.DatabaseError, KeyError, ValueError) as problem:
            raise _damaged(name, f"its content is unreadable: {problem!r}") from None
        self._cache_pages(self._cache_kib)
        self._open_log(database)

    def _connect(self) -> sqlite3.Connection:
        # Two threads use it in turn: the one that reads the input, and the one that finishes the push.
        database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        self._database = database
        _tune(database, "main", self._cache_kib)
        return database

    @property
    def _cache_kib(self) -> int:
        return max(_MIN_CACHE_KIB, _CACHE_KIB - _BITMAPS * self._numbers // 8 // 1024)

    def _cache_pages(self, kib: int) -> None:
        self._db.execute(f"PRAGMA main.cache_size = -{kib}")

    @_on_local_disk
    def _open_log(self, database: sqlite3.Connection) -> None:
        database.execute("ATTACH ? AS log", (str(self._log_path),))
        _tune(database, "log", _LOG_CACHE_KIB)
        database.executescript(_LOG_SCHEMA)

    @property
    def _db(self) -> sqlite3.Connection:
        assert self._database is not None, "the snapshot is not open"
        return self._database

    def close(self) -> None:
        """Close the files."""
        if self._database is not None:
            self._database.close()
            self._database = None

    # --- lookups ---

    @property
    def items(self) -> int:
        """The number of items."""
        return self._items

    @property
    def rows(self) -> int:
        """The number of IDs, including those of deleted items."""
        return self._rows

    @property
    def numbers(self) -> int:
        """An upper bound of its items' numbers, exclusive."""
        return self._numbers

    @_on_local_disk
    def lookup(self, ids: Sequence[str]) -> dict[str, tuple[str, bytes | None, int]]:
        """
        Return the rows of the IDs that the snapshot contains: ID, digest and number.

        :param ids: The IDs.
        """
        if len(ids) > 1 and ids == sorted(ids):
            # Sorted IDs are mostly adjacent.
            bounds = (ids[0], ids[-1], 2 * len(ids))
            rows = self._db.execute(_ROWS_BETWEEN, bounds).fetchall()
            if len(rows) < 2 * len(ids):
                return dict(zip(map(_ID_OF, rows), rows, strict=True))
        found: dict[str, tuple[str, bytes | None, int]] = {}
        for first in range(0, len(ids), _IDS_PER_LOOKUP):
            some = ids[first : first + _IDS_PER_LOOKUP]
            marks = ",".join("?" * len(some))
            # Only the number of question marks varies.
            query = f"SELECT id, digest, number FROM items WHERE id IN ({marks})"  # noqa: S608
            rows = self._db.execute(query, some).fetchall()
            found.update(zip(map(_ID_OF, rows), rows, strict=True))
        return found

    @_on_local_disk
    def find_missing(self, seen: bytearray) -> None:
        """
        Find the items whose bits are not set, for ``missing``.

        :param seen: A bit for each item's number.
        """
        database = self._db
        database.execute("BEGIN")
        database.execute("DELETE FROM log.unseen")
        database.execute("DELETE FROM log.missing")
        database.executemany("INSERT INTO log.unseen VALUES (?)", _unset(seen, self._numbers))
        database.execute(_FIND_MISSING)
        database.execute("COMMIT")

    def missing(self) -> Iterator[tuple[str, bytes | None]]:
        """Yield the IDs and digests of the missing items."""
        # A separate cursor, since lookups continue meanwhile.
        yield from self._db.cursor().execute("SELECT id, digest FROM log.missing ORDER BY rowid")

    # --- changes ---

    @_on_local_disk
    def add(self, batch: int, operations: Iterable[Operation]) -> None:
        """
        Record operations, which count once their batch is accepted.

        :param batch: The number of the batch; -1 for operations that need no acceptance.
        :param operations: The operations, in order.
        """
        self._db.execute("BEGIN")
        first = self._places
        rows = []
        for kind, document_id, digest in operations:
            self._places += 1
            rows.append((self._places, batch, kind, document_id, digest))
        if self._places > first:
            self._db.executemany("INSERT INTO log.operations VALUES (?, ?, ?, ?, ?)", rows)
        self._db.execute("COMMIT")

    @_on_local_disk
    def forget_digests(self) -> None:
        """Forget the digests of all items, so that each is pushed again."""
        self._db.execute("UPDATE items SET digest = NULL WHERE digest IS NOT NULL AND digest != x''")

    @_on_local_disk
    def forget(self, ids: Iterable[str], *, known_only: bool = False) -> None:
        """
        Forget the digests of some IDs, so that their items are pushed again.

        :param ids: The IDs.
        :param known_only: Whether to ignore IDs that the snapshot does not contain.
        """
        insert = "INSERT INTO items VALUES (?, NULL, ?) ON CONFLICT(id) DO UPDATE SET digest = NULL"
        self._db.execute("BEGIN")
        for document_id in ids:
            if known_only:
                self._db.execute("UPDATE items SET digest = NULL WHERE id = ?", (document_id,))
            else:
                self._db.execute(insert, (document_id, self._numbers))
                self._numbers += 1
        self._db.execute("COMMIT")

    @_on_local_disk
    def apply(self, accepted: int) -> None:
        """
        Apply the operations. If one was not accepted, its item's digest is forgotten.

        :param accepted: The number of accepted batches.
        """
        database, before = self._db, self._numbers
        # To sort the operations, SQLite needs as much memory as for its pages.
        self._cache_pages(self._cache_kib // 2)
        database.execute("BEGIN")
        after = 0
        prefixes = database.execute(
            "SELECT place, id, batch FROM log.operations WHERE kind = '*' ORDER BY place"
        ).fetchall()
        for place, prefix, batch in prefixes:
            self._apply_last(accepted, after, place, before)
            # Coveo's docs call it a prefix of IDs; its clients treat it as a prefix of folders. So delete
            # what is gone either way, and forget the digests of the rest.
            database.execute(_FORGET_WITH_PREFIX, _bounds(prefix))
            if batch < accepted:
                database.execute(_DELETE_WITH_PREFIX, _bounds(f"{prefix}/"))
            after = place
        self._apply_last(accepted, after, self._places + 1, before)
        database.execute(_DELETE_REMOVED, {"accepted": accepted})
        database.execute(_FORGET_REMOVED, {"accepted": accepted})
        self._numbers = before + self._places + 1
        database.execute("DELETE FROM log.operations")
        database.execute("COMMIT")
        self._cache_pages(self._cache_kib)
        self._places = 0

    def _apply_last(self, accepted: int, after: int, before: int, numbers: int) -> None:
        self._db.execute(
            _APPLY_LAST, {"accepted": accepted, "after": after, "before": before, "numbers": numbers}
        )

    def count(self) -> None:
        """Count the items and rows after changes."""
        self._rows, deleted = self._db.execute(
            "SELECT count(*), coalesce(sum(digest = x''), 0) FROM items"
        ).fetchone()
        self._items = self._rows - deleted

    @_on_local_disk
    def write(self) -> str:
        """
        Complete the file at ``path`` for storing, and close it.

        :return: The new version.
        """
        self.count()
        self._rewrite_if_wasteful()
        absorbed = dict(list(self.facts.absorbed.items())[-_MAX_ABSORBED:])
        facts = {
            "target": self.facts.target,
            "since": self.facts.since,
            "full_at": repr(self.facts.full_at),
            "absorbed": json.dumps(absorbed),
            "items": str(self._items),
            "rows": str(self._rows),
            "numbers": str(self._numbers),
            "size_per_row": repr(self._size_per_row),
        }
        self._db.execute("BEGIN")
        self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())
        self._db.execute("COMMIT")
        self.close()
        with contextlib.suppress(FileNotFoundError):
            self._log_path.unlink()
        self.version = uuid.uuid4().hex[:16]
        _append_trailer(self.path, self.version)
        return self.version

    def _rewrite_if_wasteful(self) -> None:
        size = self.path.stat().st_size
        if not self._size_per_row:
            self._size_per_row = size / max(1, self._rows)
        allowed = _MAX_GROWTH * self._size_per_row * self._rows + _SMALL_FILE
        if size <= allowed and self._numbers <= _MAX_NUMBERS_PER_ITEM * self._rows + 100_000:
            return
        new = self.path.with_suffix(".new")
        database = sqlite3.connect(new, isolation_level=None)
        try:
            _tune(database, "main", _MIN_CACHE_KIB)
            database.executescript(_SCHEMA)
            database.execute("BEGIN")
            rows = self._db.cursor().execute("SELECT id, digest FROM items ORDER BY id")
            database.executemany(
                "INSERT INTO items VALUES (?, ?, ?)",
                ((document_id, digest, number) for number, (document_id, digest) in enumerate(rows)),
            )
            database.execute("COMMIT")
        finally:
            database.close()
        self.close()
        new.replace(self.path)
        self._numbers = self._rows
        self._size_per_row = self.path.stat().st_size / max(1, self._rows)
        self._connect()


def _unset(bits: bytearray, end: int) -> Iterator[tuple[int]]:
    """Yield the numbers below ``end`` whose bits are not set."""
    for place, byte in enumerate(bits):
        if byte != 0xFF:
            for number in range(8 * place, min(8 * place + 8, end)):
                if not byte >> (number & 7) & 1:
                    yield (number,)


def _tune(database: sqlite3.Connection, schema: str, cache_kib: int) -> None:
    # Durability is not needed: after a crash, the copy is downloaded again.
    for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{cache_kib}"):
        database.execute(f"PRAGMA {schema}.{setting}")
    database.execute("PRAGMA temp_store = FILE")


def _bounds(prefix: str) -> dict[str, str]:
    return {"prefix": prefix, "end": prefix + 8 * chr(0x10FFFF)}


def _append_trailer(path: Path, version: str) -> None:
    checksum, size = hashlib.sha256(), 0
    with path.open("r+b") as file:
        while chunk := file.read(_CHUNK):
            checksum.update(chunk)
            size += len(chunk)
        trailer = {"format": FORMAT, "version": version, "size": size, "sha256": checksum.hexdigest()}
        text = _MAGIC + json.dumps(trailer).encode()
        file.write(text.ljust(TRAILER_BYTES - 1) + b"\n")
        file.flush()
        os.fsync(file.fileno())


class Trailer(TypedDict):
    """The content of a snapshot's trailer."""

    format: int
    version: str
    #: Bytes before the trailer.
    size: int
    sha256: str


def read_trailer(trailer: bytes, name: str) -> Trailer:
    """
    Return the content of a snapshot's trailer.

    :param trailer: The last bytes of the file.
    :param name: Its name, for messages.
    :raises SnapshotFormatError: if it has another format.
    :raises SnapshotDamagedError: if there is no trailer.
    """
    _, magic, text = trailer.rpartition(_MAGIC)
    try:
        found: Trailer = json.loads(text if magic else b"{}")
        number = int(found["format"])
    except (ValueError, KeyError, TypeError):
        raise _damaged(name, "it has no trailer, so it is truncated or not a snapshot") from None
    if number != FORMAT:
        raise SnapshotFormatError(
            f"Could not read the snapshot {name}: it has format {number}, but this version reads format "
            f"{FORMAT}"
        )
    return found


def _checked_trailer(path: Path, name: str) -> Trailer:
    length = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, length - TRAILER_BYTES))
        trailer = read_trailer(file.read(), name)
        file.seek(0)
        left = int(trailer["size"])
        if left != length - TRAILER_BYTES:
            raise _damaged(name, f"it has {length:,} bytes instead of {left + TRAILER_BYTES:,}")
        checksum = hashlib.sha256()
        while left and (chunk := file.read(min(left, _CHUNK))):
            checksum.update(chunk)
            left -= len(chunk)
    if checksum.hexdigest() != trailer["sha256"]:
        raise _damaged(name, "its checksum differs")
    return trailer


def _damaged(name: str, why: str) -> SnapshotDamagedError:
    return SnapshotDamagedError(f"Could not read the snapshot {name}: {why}")
