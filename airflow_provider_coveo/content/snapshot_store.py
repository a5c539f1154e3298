"""
The storage of snapshots: a local folder or one on an object storage, which all workers can access.

Next to a snapshot is its journal: a small file for each batch with the IDs in it, written before the batch is
sent. Whatever happens to a push, an ID that no journal contains is therefore in the state that the snapshot
shows. A file of the journal is deleted only once a snapshot that includes it is stored.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from airflow_provider_coveo.content.scratch import explain_full_disk
from airflow_provider_coveo.content.snapshots import TRAILER_BYTES, read_trailer
from airflow_provider_coveo.content.storage import FileSystem, Place, local_path, opened
from airflow_provider_coveo.coveo.changes import Operation
from airflow_provider_coveo.coveo.errors import (
    CoveoError,
    CoveoInputError,
    SnapshotDamagedError,
    SnapshotError,
)

_Result = TypeVar("_Result")

_SNAPSHOT: Final = "snapshot"
_JOURNAL: Final = "journal"
_RECORD_MAGIC: Final = "coveo-journal 1 "
#: The maximum number of bytes of the journal in memory; the rest is read again when it is needed.
_MAX_HELD: Final = 4 * 1024 * 1024
#: The age in seconds from which an incomplete file counts as abandoned.
_MAX_WRITE: Final = 24 * 3600.0
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
#: The maximum length of a folder's name. A longer one is cut and gets a digest.
_MAX_NAME: Final = 120


def snapshot_folder(snapshot_path: str, *names: str) -> str:
    """
    Return the folder of a snapshot.

    :param snapshot_path: The folder for all snapshots.
    :param names: The names that identify it, such as the organization, the source, the DAG and the task.
    """
    return "/".join([snapshot_path.rstrip("/"), *map(_folder_name, names)])


def _folder_name(name: str) -> str:
    text = quote(name, safe="@+=,").replace("~", "%7E")
    if text.startswith("."):
        text = f"%2E{text[1:]}"
    if len(text) <= _MAX_NAME:
        return text
    return f"{text[: _MAX_NAME - 17]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class JournalRecord:
    """
    The batch that a push was about to send, or IDs whose state is unknown.

    :param push: The ID of the push; it begins with ``forget-`` for IDs that the next push has to send again.
    :param number: The record's number within the push.
    :param base: The version of the snapshot that the push compares with.
    :param accepted: The number of the push's batches that were accepted so far.
    :param full: Whether the push sends everything, so that the snapshot's digests no longer count.
    :param since: The change of the source's content that the push made.
    :param full_at: The time of the last full push, in epoch seconds.
    :param target: The target of the push.
    :param batch: The number of the batch that is about to be sent, -1 for none.
    :param operations: The operations of the batch; ``None`` if they were not kept in memory.
    :param boot: The boot ID of the machine that wrote it, ``""`` if it does not matter.
    """

    push: str
    number: int
    base: str = ""
    accepted: int = 0
    full: bool = False
    since: str = ""
    full_at: float = 0.0
    target: str = ""
    batch: int = -1
    operations: list[tuple[str, str, bytes | None]] | None = field(default_factory=list)
    boot: str = ""

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.push}.{self.number:08d}"

    def encode(self) -> bytes:
        """Return the content of its file."""
        content = msgspec.json.encode(self)
        return f"{_RECORD_MAGIC}{hashlib.sha256(content).hexdigest()}\n".encode() + content

    @classmethod
    def decode(cls, encoded: bytes, name: str) -> JournalRecord:
        """
        Return the record that a file contains.

        :param encoded: The file's content.
        :param name: Its name, for messages.
        :raises SnapshotDamagedError: if it is damaged.
        """
        line, _, content = encoded.partition(b"\n")
        if line != f"{_RECORD_MAGIC}{hashlib.sha256(content).hexdigest()}".encode():
            raise SnapshotDamagedError(f"Could not read the journal {name}: its checksum differs")
        try:
            return msgspec.json.decode(content, type=cls)
        except msgspec.MsgspecError as problem:
            raise SnapshotDamagedError(f"Could not read the journal {name}: {problem}") from None


class SnapshotStore:
    """
    A snapshot and its journal, as they are stored.

    :param folder: The folder, as :func:`snapshot_folder` returns it.
    :param read_only: Whether to leave the storage unchanged, whatever is written.
    """

    def __init__(self, folder: str, *, read_only: bool = False) -> None:
        local = folder if "://" not in folder else local_path(folder)
        stored = _LocalFolder(local) if local is not None else _StoredFolder(folder)
        self._folder = _ReadOnlyFolder(stored) if read_only else stored

    def __str__(self) -> str:
        """Return the URL of the snapshot."""
        return f"{self._folder}/{_SNAPSHOT}"

    def boot(self) -> str:
        """Return this machine's boot ID, ``""`` if written files are durable at once."""
        if isinstance(self._folder, _StoredFolder):
            return ""
        with suppress(OSError):
            return _BOOT.read_text().strip()
        return ""

    def download(self, path: Path) -> bool:
        """
        Download the snapshot.

        :param path: The local file to write.
        :return: Whether there is one.
        :raises SnapshotError: if the storage fails.
        """
        return self._folder.download(_SNAPSHOT, path)

    def version(self) -> str:
        """Return the version of the stored snapshot, empty if there is none."""
        trailer = self._folder.read_end(_SNAPSHOT, TRAILER_BYTES)
        return "" if trailer is None else str(read_trailer(trailer, str(self))["version"])

    def replace(self, path: Path) -> None:
        """
        Replace the snapshot atomically.

        :param path: The new file.
        :raises SnapshotError: if the storage fails; the old snapshot remains.
        """
        self._folder.upload(path, _SNAPSHOT)

    def journal(self) -> list[JournalRecord]:
        """
        Return the records of the journal. Read their operations with :meth:`operations`.

        :raises SnapshotDamagedError: if one is damaged.
        :raises SnapshotError: if the storage fails.
        """
        records: list[JournalRecord] = []
        held = 0
        for name in self._folder.names(_JOURNAL):
            encoded = self._folder.read(f"{_JOURNAL}/{name}")
            # Another push may have deleted it, after storing a snapshot that includes it.
            if encoded is None:
                continue
            record = JournalRecord.decode(encoded, f"{self._folder}/{_JOURNAL}/{name}")
            held += len(encoded)
            records.append(record if held <= _MAX_HELD else replace(record, operations=None))
        return records

    def operations(self, record: JournalRecord) -> list[Operation] | None:
        """
        Return the operations of a record, ``None`` if the journal no longer contains it.

        :param record: The record.
        :raises SnapshotDamagedError: if it is damaged.
        :raises SnapshotError: if the storage fails.
        """
        if record.operations is not None:
            return record.operations
        encoded = self._folder.read(f"{_JOURNAL}/{record.name}")
        if encoded is None:
            return None
        return JournalRecord.decode(encoded, f"{self._folder}/{_JOURNAL}/{record.name}").operations

    def write(self, record: JournalRecord) -> None:
        """
        Add a record to the journal.

        :param record: The record.
        :raises SnapshotError: if the storage fails.
        """
        # A power failure may lose later records. The first one is durable, and shows that some may be lost.
        self._folder.write(record.encode(), f"{_JOURNAL}/{record.name}", lasts=not record.number)

    def delete(self, names: Iterable[str]) -> None:
        """
        Delete records of the journal.

        :param names: Their names; a missing one is ignored.
        :raises SnapshotError: if the storage fails.
        """
        for name in names:
            self._folder.delete(f"{_JOURNAL}/{name}")

    def delete_journal(self) -> None:
        """Delete the whole journal, including unreadable records."""
        self.delete(self._folder.names(_JOURNAL))

    def forget(self, operations: list[Operation], record: str) -> None:
        """
        Make the next push repeat some operations, as if Coveo had not accepted them.

        :param operations: The operations.
        :param record: The name of the record, from :func:`new_forget_record`.
        :raises SnapshotError: if the storage fails.
        """
        self.write(JournalRecord(record, 0, operations=operations))


def new_forget_record() -> str:
    """Return a new name for a record of IDs that the next push has to send again."""
    return f"forget-{uuid.uuid4().hex[:16]}"


class _ReadOnlyFolder:
    """
    A folder that ignores writes, but keeps the trailer of an upload, which contains the snapshot's version.

    :param folder: The folder.
    """

    def __init__(self, folder: _LocalFolder | _StoredFolder) -> None:
        self._folder = folder
        self._ends: dict[str, bytes] = {}

    def __str__(self) -> str:
        return str(self._folder)

    def download(self, name: str, path: Path) -> bool:
        return self._folder.download(name, path)

    def upload(self, path: Path, name: str) -> None:
        with path.open("rb") as file:
            file.seek(-min(TRAILER_BYTES, path.stat().st_size), os.SEEK_END)
            self._ends[name] = file.read()

    def read(self, name: str) -> bytes | None:
        return self._folder.read(name)

    def read_end(self, name: str, size: int) -> bytes | None:
        return self._ends[name] if name in self._ends else self._folder.read_end(name, size)

    def write(self, content: bytes, name: str, *, lasts: bool) -> None:
        pass

    def names(self, folder: str) -> list[str]:
        return self._folder.names(folder)

    def delete(self, name: str) -> None:
        pass


@contextmanager
def _named(action: str, shown: str) -> Iterator[None]:
    """Raise a SnapshotError for an error of the file system or storage."""
    try:
        yield
    except (CoveoError, FileNotFoundError):
        raise
    except Exception as problem:
        reason = str(problem).partition("\n")[0][:300]
        cause, remedy = explain_full_disk(problem)
        raise SnapshotError(
            f"Could not {action} {shown}",
            answer=f"{type(problem).__name__}: {reason}",
            cause=cause,
            remedy=remedy,
        ) from None


class _LocalFolder:
    def __init__(self, path: str) -> None:
        self._path = Path(path).expanduser()

    def __str__(self) -> str:
        return str(self._path)

    def download(self, name: str, path: Path) -> bool:
        with _named("read", f"{self}/{name}"):
            try:
                shutil.copyfile(self._path / name, path)
            except FileNotFoundError:
                return False
        return True

    def upload(self, path: Path, name: str) -> None:
        def copy(new: Path) -> None:
            with path.open("rb") as source, new.open("xb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
                target.flush()
                os.fsync(target.fileno())

        self._put(copy, name)
        self._delete_leftovers()

    def write(self, content: bytes, name: str, *, lasts: bool) -> None:
        def write(new: Path) -> None:
            with new.open("xb") as target:
                target.write(content)
                target.flush()
                if lasts:
                    os.fsync(target.fileno())

        self._put(write, name, lasts=lasts)

    def _put(self, fill: Callable[[Path], None], name: str, *, lasts: bool = True) -> None:
        path = self._path / name
        new = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        with _named("write", str(path)):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                fill(new)
                new.replace(path)
            except BaseException:
                with suppress(OSError):
                    new.unlink()
                raise
            if not lasts:
                return
            with suppress(OSError):
                # The new name must survive a crash of the machine.
                descriptor = os.open(path.parent, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def _delete_leftovers(self) -> None:
        """Delete the incomplete files of processes that were killed."""
        for folder in (self._path, self._path / _JOURNAL):
            for new in folder.glob(".*.*"):
                with suppress(OSError):
                    if time.time() - new.lstat().st_mtime > _MAX_WRITE:
                        new.unlink()

    def read(self, name: str) -> bytes | None:
        with _named("read", f"{self}/{name}"):
            try:
                return (self._path / name).read_bytes()
            except FileNotFoundError:
                return None

    def read_end(self, name: str, size: int) -> bytes | None:
        with _named("read", f"{self}/{name}"):
            try:
                with (self._path / name).open("rb") as file:
                    length = file.seek(0, os.SEEK_END)
                    file.seek(max(0, length - size))
                    return file.read()
            except FileNotFoundError:
                return None

    def names(self, folder: str) -> list[str]:
        with _named("list", f"{self}/{folder}"):
            try:
                # A leading dot marks an incomplete file.
                found = (path.name for path in (self._path / folder).iterdir())
                return sorted(name for name in found if not name.startswith("."))
            except FileNotFoundError:
                return []

    def delete(self, name: str) -> None:
        with _named("delete", f"{self}/{name}"), suppress(FileNotFoundError):
            (self._path / name).unlink()


class _StoredFolder:
    def __init__(self, url: str) -> None:
        # Only a connection's ID is accepted before the bucket, so that URLs contain no secrets.
        if "@" in urlsplit(url).netloc and ":" in urlsplit(url).netloc.rpartition("@")[0]:
            raise CoveoInputError(
                "Invalid snapshot_path: it contains a password",
                remedy="Use the ID of the storage's connection, as in s3://conn_id@bucket/snapshots",
            )
        self._url = url
        with _named("open", url):
            self._place: Place = opened(url)
        self._path = self._place.path.rstrip("/")

    def __str__(self) -> str:
        return self._url

    def _call(self, action: str, name: str, call: Callable[[FileSystem, str], _Result]) -> _Result | None:
        """Call the storage; return ``None`` if the file does not exist."""
        with _named(action, f"{self}/{name}"):
            try:
                self._place.fs.invalidate_cache()
                return call(self._place.fs, f"{self._path}/{name}")
            except FileNotFoundError:
                return None

    def download(self, name: str, path: Path) -> bool:
        def get(fs: FileSystem, stored: str) -> bool:
            # If the file does not exist, get_file of some storages leaves an empty local file.
            fs.info(stored)
            fs.get_file(stored, str(path))
            return True

        return bool(self._call("read", name, get))

    def upload(self, path: Path, name: str) -> None:
        def put(fs: FileSystem, stored: str) -> bool:
            fs.put_file(str(path), stored)
            return True

        self._must("write", name, put)

    def write(self, content: bytes, name: str, *, lasts: bool) -> None:
        def pipe(fs: FileSystem, stored: str) -> bool:
            if hasattr(fs, "auto_mkdir") or "file" in fs.protocol:
                fs.makedirs(stored.rpartition("/")[0], exist_ok=True)
            fs.pipe_file(stored, content)
            return True

        self._must("write", name, pipe)

    def _must(self, action: str, name: str, call: Callable[[FileSystem, str], bool]) -> None:
        if not self._call(action, name, call):
            raise SnapshotError(
                f"Could not {action} {self}/{name}", answer="the bucket or folder does not exist"
            )

    def read(self, name: str) -> bytes | None:
        return self._call("read", name, lambda fs, stored: fs.cat_file(stored))

    def read_end(self, name: str, size: int) -> bytes | None:
        def read(fs: FileSystem, stored: str) -> bytes:
            length = fs.info(stored)["size"] or 0
            return fs.cat_file(stored, start=max(0, length - size), end=length)

        return self._call("read", name, read)

    def names(self, folder: str) -> list[str]:
        found = self._call("list", folder, lambda fs, stored: fs.ls(stored, detail=False)) or []
        names = (str(path).rstrip("/").rpartition("/")[2] for path in found)
        return sorted(name for name in names if name and name != folder)

    def delete(self, name: str) -> None:
        self._call("delete", name, lambda fs, stored: fs.rm_file(stored))
