"""
Snapshots: for each documentId of a push, the digest of the item as Coveo last accepted it.

A snapshot is a SQLite file with a trailer behind it that holds its format, its version and its checksum. A
push works on a local copy of it. Lookups, changes and the search for missing items need no more memory than
SQLite's page cache, however many items there are. Beside a sorted file and a dbm, SQLite looks items up
several times as fast, and alone can be changed in place: see ``benchmarks/changes.py --formats``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from airflow_provider_coveo.coveo.changes import Operation
from airflow_provider_coveo.coveo.errors import SnapshotDamagedError, SnapshotFormatError

#: The format that this version writes. Another one is not read, and everything is pushed.
FORMAT: Final = 1
#: How long the trailer is.
TRAILER_BYTES: Final = 256
_MAGIC: Final = b"\ncoveo-snapshot "
_CHUNK: Final = 1 << 20
#: How many KiB of pages SQLite holds in memory, less what the bitmaps of a comparison take: so a large
#: snapshot needs no more memory than a small one.
_CACHE_KIB: Final = 12 * 1024
_MIN_CACHE_KIB: Final = 4 * 1024
#: The operations are written once and read once.
_LOG_CACHE_KIB: Final = 512
#: How many bitmaps a comparison has.
_BITMAPS: Final = 2
#: How many IDs are looked up by one statement; SQLite before 3.32 takes 999 parameters.
_IDS_PER_LOOKUP: Final = 900
#: How much larger than with all pages filled the file may be before it is written anew.
_MAX_GROWTH: Final = 1.15
_SMALL_FILE: Final = 256 * 1024
#: How many places in the bitmaps may stand empty before items are numbered anew.
_MAX_NUMBERS_PER_ITEM: Final = 4
#: How many pushes are remembered whose journals a snapshot has taken in.
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
#: Takes in the last operation on each ID between two places. SQLite takes a row's other columns from that of
#: the max, and sorts on disk; so the pages are filled in their order.
_APPLY_LAST: Final = """
    INSERT INTO items
    SELECT id, digest, :numbers + place FROM (
        SELECT id, CASE WHEN batch < :accepted THEN digest END AS digest, max(place) AS place
        FROM log.operations WHERE kind IN ('+', '-') AND place > :after AND place < :before
        GROUP BY id ORDER BY id
    ) WHERE true
    ON CONFLICT(id) DO UPDATE SET digest = excluded.digest
"""
# IDs that begin with a text are found by the index of IDs.
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


@dataclass
class SnapshotFacts:
    """
    What a snapshot says of itself.

    :param target: Where its items were pushed, in a form that tells it from other targets.
    :param since: The change of the source's content since which it stands; ``-`` if none was on record, empty
        if it does not stand.
    :param full_at: When everything was pushed last, in epoch seconds.
    :param absorbed: The journals that it has taken in: pushes, and of how many records each.
    """

    target: str = ""
    since: str = ""
    full_at: float = 0.0
    absorbed: dict[str, int] = field(default_factory=dict)


class Snapshot:
    """
    A local copy of a snapshot, to which what is accepted is added.

    :param folder: An empty local folder for its files.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "snapshot"
        self.version = ""
        self.facts = SnapshotFacts()
        self._log_path = folder / "log"
        self._database: sqlite3.Connection | None = None
        self._items = self._rows = self._numbers = 0
        #: How many bytes an item took when all pages were filled.
        self._size_per_row = 0.0
        self._places = 0

    # --- files ---

    def create(self) -> None:
        """Begin with an empty one."""
        database = self._connect()
        database.executescript(_SCHEMA)
        self._open_log(database)

    def open(self, name: str) -> None:
        """
        Begin with the file that was downloaded to ``path``.

        :param name: Its name, for messages.
        :raises SnapshotFormatError: if it is of another format.
        :raises SnapshotDamagedError: if it is damaged, or no snapshot.
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
            raise _damaged(name, f"its content can't be read: {problem!r}") from None
        self._cache_pages(self._cache_kib)
        self._open_log(database)

    def _connect(self) -> sqlite3.Connection:
        # Threads take turns: the one that reads the input, and the one that ends the push.
        database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        self._database = database
        _tune(database, "main", self._cache_kib)
        return database

    @property
    def _cache_kib(self) -> int:
        return max(_MIN_CACHE_KIB, _CACHE_KIB - _BITMAPS * self._numbers // 8 // 1024)

    def _cache_pages(self, kib: int) -> None:
        self._db.execute(f"PRAGMA main.cache_size = -{kib}")

    def _open_log(self, database: sqlite3.Connection) -> None:
        database.execute("ATTACH ? AS log", (str(self._log_path),))
        _tune(database, "log", _LOG_CACHE_KIB)
        database.executescript(_LOG_SCHEMA)

    @property
    def _db(self) -> sqlite3.Connection:
        assert self._database is not None, "it was not opened"
        return self._database

    def close(self) -> None:
        """Let go of the files."""
        if self._database is not None:
            self._database.close()
            self._database = None

    # --- looking things up ---

    @property
    def items(self) -> int:
        """How many items it has."""
        return self._items

    @property
    def rows(self) -> int:
        """How many IDs it knows, those of deleted items included."""
        return self._rows

    @property
    def numbers(self) -> int:
        """Above all numbers of its items."""
        return self._numbers

    def lookup(self, ids: Sequence[str]) -> dict[str, tuple[str, bytes | None, int]]:
        """
        Return the row of each of some IDs, as far as they are known: the ID, the digest and the number.

        :param ids: The IDs.
        """
        if len(ids) > 1 and ids == sorted(ids):
            # IDs in their order mostly stand side by side.
            bounds = (ids[0], ids[-1], 2 * len(ids))
            rows = self._db.execute(_ROWS_BETWEEN, bounds).fetchall()
            if len(rows) < 2 * len(ids):
                return dict(zip(map(_ID_OF, rows), rows, strict=True))
        found: dict[str, tuple[str, bytes | None, int]] = {}
        for first in range(0, len(ids), _IDS_PER_LOOKUP):
            some = ids[first : first + _IDS_PER_LOOKUP]
            marks = ",".join("?" * len(some))
            # Of the text, nothing but question marks varies.
            query = f"SELECT id, digest, number FROM items WHERE id IN ({marks})"  # noqa: S608
            rows = self._db.execute(query, some).fetchall()
            found.update(zip(map(_ID_OF, rows), rows, strict=True))
        return found

    def find_missing(self, seen: bytearray) -> None:
        """
        Find what it has of which the bit of its number is not set, for ``missing``.

        :param seen: The bits.
        """
        database = self._db
        database.execute("BEGIN")
        database.execute("DELETE FROM log.unseen")
        database.execute("DELETE FROM log.missing")
        database.executemany("INSERT INTO log.unseen VALUES (?)", _unset(seen, self._numbers))
        database.execute(_FIND_MISSING)
        database.execute("COMMIT")

    def missing(self) -> Iterator[tuple[str, bytes | None]]:
        """Yield the IDs and digests that were found missing."""
        # A cursor of its own, as lookups go on meanwhile.
        yield from self._db.cursor().execute("SELECT id, digest FROM log.missing ORDER BY rowid")

    # --- changing it ---

    def add(self, batch: int, operations: Iterable[Operation]) -> None:
        """
        Take note of operations, which count once their batch was accepted.

        :param batch: The number of the batch; -1 for what needs no acceptance.
        :param operations: The operations, in their order.
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

    def forget_digests(self) -> None:
        """Know of no item any more how it was accepted, so that all are pushed again."""
        self._db.execute("UPDATE items SET digest = NULL WHERE digest IS NOT NULL AND digest != x''")

    def forget(self, ids: Iterable[str], *, known_only: bool = False) -> None:
        """
        Know of some IDs no more how they were accepted.

        :param ids: The IDs.
        :param known_only: Whether to leave out those that it does not have.
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

    def apply(self, accepted: int) -> None:
        """
        Make of the operations what it has: of those that were not accepted, nothing is known any more.

        :param accepted: How many batches were accepted.
        """
        database, before = self._db, self._numbers
        # To sort the operations, SQLite takes as much again as for pages.
        self._cache_pages(self._cache_kib // 2)
        database.execute("BEGIN")
        after = 0
        prefixes = database.execute(
            "SELECT place, id, batch FROM log.operations WHERE kind = '*' ORDER BY place"
        ).fetchall()
        for place, prefix, batch in prefixes:
            self._apply_last(accepted, after, place, before)
            # Coveo calls it a prefix, and its clients one of folders: what is sure to be gone is deleted, and
            # of what may be, nothing is known.
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
        """Count what it has, after it was changed."""
        self._rows, deleted = self._db.execute(
            "SELECT count(*), coalesce(sum(digest = x''), 0) FROM items"
        ).fetchone()
        self._items = self._rows - deleted

    def write(self) -> str:
        """
        Make the file at ``path`` ready to be stored, and let go of it.

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

    def reopen(self, name: str) -> None:
        """
        Go on with what ``write`` has written.

        :param name: Its name, for messages.
        """
        self.open(name)

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
    """Yield the numbers below an end whose bits are not set."""
    for place, byte in enumerate(bits):
        if byte != 0xFF:
            for number in range(8 * place, min(8 * place + 8, end)):
                if not byte >> (number & 7) & 1:
                    yield (number,)


def _tune(database: sqlite3.Connection, schema: str, cache_kib: int) -> None:
    # It is a copy: what is lost in a crash is downloaded again.
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


def read_trailer(trailer: bytes, name: str) -> dict[str, Any]:
    """
    Return what a snapshot's trailer says.

    :param trailer: The last bytes of the file.
    :param name: Its name, for messages.
    :raises SnapshotFormatError: if it is of another format.
    :raises SnapshotDamagedError: if there is no trailer.
    """
    _, magic, text = trailer.rpartition(_MAGIC)
    try:
        found = json.loads(text) if magic else {}
        number = int(found["format"])
    except (ValueError, KeyError, TypeError):
        raise _damaged(name, "it does not end as one, so it was cut off or is no snapshot") from None
    if number != FORMAT:
        raise SnapshotFormatError(
            f"Could not read the snapshot {name}: it is of format {number}, and this version reads {FORMAT}"
        )
    return dict(found)


def _checked_trailer(path: Path, name: str) -> dict[str, Any]:
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
