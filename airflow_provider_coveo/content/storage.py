"""
Files on object storages, through the file systems behind Airflow's ``ObjectStoragePath``.

The storages' own ``exists``, ``isfile``, ``glob`` and ``walk`` treat a failed call as a missing file. So this
module uses only ``info``, ``ls`` and ``find``, which raise, and never their cached results.
"""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, TypedDict, TypeVar, overload
from urllib.parse import urlsplit

from airflow_provider_coveo.content.table_formats import FOLDERS

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_Result = TypeVar("_Result")
#: Storages whose ``find`` is one listing of all keys, which can contain consecutive slashes.
_FLAT: Final = frozenset({"s3", "s3a"})
_WEB: Final = frozenset({"http", "https"})
#: The storages' keys that distinguish versions of an object's content.
_VERSION_KEYS: Final = (
    *("size", "ETag", "etag", "VersionId", "version_id", "generation", "md5Hash", "content_settings"),
    *("LastModified", "last_modified", "mtime", "updated", "modified"),
)


@dataclass(frozen=True)
class Found:
    """
    An entry of a folder, or the file or folder at a path.

    :param name: Its name.
    :param path: Its path.
    :param is_folder: Whether it is a folder.
    :param identity: Identifies a folder even through links; ``None`` on storages without links.
    """

    name: str
    path: str
    is_folder: bool
    identity: tuple[int, int] | None = None


class FileInfo(TypedDict):
    """What a storage says of a file or folder; some have more keys."""

    name: str
    type: str
    size: int | None


class FileSystem(Protocol):
    """The part of fsspec's ``AbstractFileSystem`` that the provider uses."""

    @property
    def protocol(self) -> str | tuple[str, ...]:
        """The schemes of its URLs."""

    def _strip_protocol(self, path: str) -> str: ...

    def invalidate_cache(self) -> None:
        """Forget what was listed before."""

    def info(self, path: str) -> FileInfo:
        """Return the metadata of a file or folder."""

    @overload
    def ls(self, path: str, detail: Literal[True]) -> list[FileInfo]: ...

    @overload
    def ls(self, path: str, detail: Literal[False]) -> list[str]: ...

    def find(self, path: str, *, detail: Literal[True]) -> dict[str, FileInfo]:
        """Return all files below a folder, by path."""

    def open(self, path: str, mode: str) -> IO[bytes]:
        """Open a file."""

    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        """Return the content of a file, or a part of it."""

    def pipe_file(self, path: str, value: bytes) -> None:
        """Write a file."""

    def get_file(self, rpath: str, lpath: str) -> None:
        """Download a file."""

    def put_file(self, lpath: str, rpath: str) -> None:
        """Upload a file."""

    def rm_file(self, path: str) -> None:
        """Delete a file."""

    def makedirs(self, path: str, exist_ok: bool) -> None:
        """Create a folder and those above it."""


class StoragePath(Protocol):
    """The part of ``ObjectStoragePath`` that the provider uses."""

    @property
    def fs(self) -> FileSystem:
        """The storage."""

    @property
    def path(self) -> str:
        """The path there."""


#: An open file, as :class:`io.BufferedReader` takes it.
RawFile: TypeAlias = io.RawIOBase | io.BufferedIOBase


class ReadableFile(Protocol):
    """A file on this machine or on a storage."""

    @property
    def name(self) -> str:
        """The file's name."""

    def open(self, mode: Literal["rb"], /) -> RawFile:
        """Open the file."""


@dataclass(frozen=True)
class Place:
    """
    The location that a URL points to.

    :param fs: The storage.
    :param path: The path there, in the storage's own notation.
    :param begin: The URL's prefix before the path.
    :param is_folder: Whether the URL ends like that of a folder.
    :param may_be_glob: Whether the storage can list, so that the path can be a pattern.
    """

    fs: FileSystem
    path: str
    begin: str
    is_folder: bool = False
    may_be_glob: bool = True

    def shown(self, path: str) -> str:
        """Return a path as a URL, without parts that can be secret."""
        if path.split("://")[0] in _WEB:
            return path.partition("?")[0]
        return f"{self.begin}{path}"


def local_path(url: str) -> str | None:
    """Return the path of a URL on this machine, ``None`` for a storage's URL."""
    scheme, _, rest = url.partition("://")
    if scheme not in {"file", "local"}:
        return None
    host, slash, path = rest.partition("/")
    return host.rpartition("@")[2] + slash + path


def opened(url: str) -> Place:
    """
    Return the location that a URL points to.

    :param url: A URL such as ``s3://conn_id@bucket/key``. The key is used literally.
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    scheme, _, rest = url.partition("://")
    if scheme in _WEB:
        return Place(ObjectStoragePath(url).fs, url, "", may_be_glob=False)
    bucket, slash, key = rest.partition("/")
    # ObjectStoragePath would parse a # or ? in a key as part of the URL.
    fs = ObjectStoragePath(f"{scheme}://{bucket}{slash}").fs
    conn_id, at, _ = bucket.rpartition("@")
    plain = fs._strip_protocol(f"{scheme}://{bucket[len(conn_id + at) :]}{slash}{key}")
    return Place(fs, plain, f"{scheme}://{conn_id}{at}", rest.endswith("/"))


def of_path(path: StoragePath) -> Place:
    """Return the location that an ``ObjectStoragePath`` points to."""
    scheme, _, rest = str(path).partition("://")
    conn_id, at, _ = rest.split("/")[0].rpartition("@")
    return Place(
        path.fs,
        path.fs._strip_protocol(path.path),
        "" if scheme in _WEB else f"{scheme}://{conn_id}{at}",
        rest.endswith("/"),
        scheme not in _WEB,
    )


def upload(place: Place, local: str, size: int) -> None:
    """
    Upload a complete local file to a storage, and check its size there.

    :param place: The destination.
    :param local: The file.
    :param size: Its size in bytes.
    :raises OSError: if that fails.
    """
    shown = place.shown(place.path)
    place.fs.invalidate_cache()
    parent = place.path.rpartition("/")[0]
    # Storages without folders do nothing. Creating a bucket would need more privileges than writing does.
    if parent.count("/") and not _is_flat(place.fs):
        _called("Creating its folder", shown, lambda: place.fs.makedirs(parent, exist_ok=True))
    _called("Writing it", shown, lambda: place.fs.put_file(local, place.path))
    place.fs.invalidate_cache()
    found = _called("Reading its metadata", shown, lambda: place.fs.info(place.path)).get("size")
    if isinstance(found, int) and found != size:
        raise OSError(errno.EIO, f"Writing it failed: {found:,} of {size:,} bytes were stored", shown)


def remove(place: Place) -> None:
    """
    Delete a file from a storage, if it exists.

    :param place: Its location.
    :raises OSError: if that fails.
    """
    place.fs.invalidate_cache()
    with suppress(FileNotFoundError):
        _called("Deleting it", place.shown(place.path), lambda: place.fs.rm_file(place.path))


def _is_flat(fs: FileSystem) -> bool:
    return not _FLAT.isdisjoint([fs.protocol] if isinstance(fs.protocol, str) else fs.protocol)


def _called(what: str, shown: str, call: Callable[[], _Result]) -> _Result:
    """Call a storage, and name the file or folder in its error."""
    try:
        return call()
    except OSError as problem:
        changed = type(problem).__name__ == "FileExpired"
        reason = "it changed while it was read" if changed else problem.strerror or str(problem)
        kinds = {FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES}
        number = problem.errno or next(
            (number for kind, number in kinds.items() if isinstance(problem, kind)), errno.EIO
        )
        raise OSError(number, f"{what} failed: {reason}", shown) from problem
    except (ValueError, TypeError, NotImplementedError):
        raise
    except Exception as problem:
        # Errors of an HTTP client, for example.
        raise OSError(errno.EIO, f"{what} failed: {type(problem).__name__}: {problem}", shown) from problem


class StoredTree:
    """
    The files of a storage.

    :param place: The location.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._entries: dict[str, dict[str, Found]] = {}
        #: The folders below which all paths were listed, and the names in the special folders among them.
        self._listed_whole: set[str] = set()
        self._special: dict[str, set[str]] = {}
        place.fs.invalidate_cache()

    def at(self, path: str) -> Found | None:
        """Return the file or folder at a path."""
        name = path.rpartition("/")[2]
        try:
            info = _called("Reading its metadata", self._place.shown(path), lambda: self._place.fs.info(path))
        except FileNotFoundError:
            return None
        return Found(name, path, info["type"] == "directory")

    def names(self, folder: str) -> list[str]:
        """Return the sorted names in a folder."""
        return sorted(self._special[folder] if folder in self._special else self._listed(folder))

    def look(self, folder: str, name: str) -> Found | None:
        """Return the file or folder of a name in a folder."""
        return self._listed(folder).get(name)

    def _listed(self, folder: str) -> dict[str, Found]:
        if folder in self._entries:
            return self._entries[folder]
        shown = self._place.shown(folder)
        entries: dict[str, Found] = {}
        for info in _called("Listing it", shown, lambda: self._place.fs.ls(folder, detail=True)):
            path, is_folder = info["name"].rstrip("/"), info["type"] == "directory"
            name = path.rpartition("/")[2]
            if path.strip("/") == folder.strip("/"):
                if is_folder and info["name"].rstrip("/") != info["name"]:
                    entries[""] = Found("", info["name"], True)
                else:
                    _reject_content_of_folder(info, shown)
                continue
            if name in entries and entries[name].is_folder != is_folder:
                # A name that is both an object and a folder, which a disk does not allow.
                entries[f"{name}/"] = Found(name, path, True)
                entries[name] = Found(name, path, False)
                continue
            entries[name] = Found(name, path, is_folder)
        if "" in entries and not self._is_flat:
            raise OSError(errno.EINVAL, "Listing it failed: it has keys with consecutive slashes", shown)
        entries.pop("", None)
        self._entries[folder] = entries
        return entries

    @property
    def _is_flat(self) -> bool:
        return _is_flat(self._place.fs)

    def below(self, folder: str) -> list[str] | None:
        """Return the paths of all files below a folder, ``None`` if the storage lists folders."""
        if not self._is_flat:
            return None
        shown = self._place.shown(folder)
        found = _called("Listing it", shown, lambda: self._place.fs.find(folder, detail=True))
        paths = []
        for path, info in found.items():
            if path.endswith("/") or info["type"] == "directory":
                _reject_content_of_folder(info, self._place.shown(path))
            elif path != folder:
                paths.append(path)
                self._note_special(path)
        self._listed_whole.add(folder.rstrip("/"))
        return paths

    def _note_special(self, path: str) -> None:
        """Note a path in a folder of a table's log or metadata."""
        folders = path.split("/")
        if FOLDERS.isdisjoint(folders[:-1]):
            return
        for index, name in enumerate(folders[:-1]):
            if name in FOLDERS:
                self._special.setdefault("/".join(folders[: index + 1]), set()).add(folders[index + 1])

    def above(self, folder: str) -> list[list[str]]:
        """Return a folder and those above it."""
        names = folder.split("/")
        return [["/".join(names[:count]) for count in range(len(names), 0, -1) if names[count - 1]]]

    def has(self, folder: str, name: str, *, asks: bool) -> bool:
        """Return whether a folder has another one."""
        path = f"{folder}/{name}"
        if not self._listed_whole.isdisjoint(self.above(folder)[0]):
            return path in self._special
        if folder in self._entries:
            entries = self._entries[folder]
            return any(each in entries and entries[each].is_folder for each in (name, f"{name}/"))
        found = self.at(path) if asks else None
        return found is not None and found.is_folder

    def shown(self, path: str) -> str:
        """Return a path as a URL, without parts that can be secret."""
        return self._place.shown(path)


def _reject_content_of_folder(info: Mapping[str, object], shown: str) -> None:
    """Skip an object that represents a folder, but reject one that has content."""
    if info.get("size"):
        raise OSError(
            errno.EISDIR, "Listing it failed: an object with the name of a folder has content", shown
        )


class StoredFile:
    """
    A file on a storage.

    :param place: The location.
    :param path: The path of the file there.
    """

    def __init__(self, place: Place, path: str) -> None:
        self._place = place
        self._path = path
        self.name = (urlsplit(path).path if not place.may_be_glob else path).rpartition("/")[2]

    def __str__(self) -> str:
        return self._place.shown(self._path)

    def open(self, mode: str) -> StoredContent:
        """Open the current version of the file."""
        self._place.fs.invalidate_cache()
        raw = _called("Opening it", str(self), lambda: self._place.fs.open(self._path, mode))
        before = _version_of(getattr(raw, "details", None)) or self._version()
        self._note_as_read()
        return StoredContent(raw, str(self), lambda: self._version() == before)

    def _note_as_read(self) -> None:
        # As for outputs: only if OpenLineage is in use.
        if "airflow.providers.openlineage" not in sys.modules:
            return
        from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector

        get_hook_lineage_collector().add_input_asset(context=self, uri=str(self))

    def _version(self) -> dict[str, str]:
        self._place.fs.invalidate_cache()
        info = _called("Reading its metadata", str(self), lambda: self._place.fs.info(self._path))
        return _version_of(info)


def _version_of(info: object) -> dict[str, str]:
    """Return the values that identify a version of an object's content."""
    if not isinstance(info, dict):
        return {}
    return {key: str(info[key]) for key in _VERSION_KEYS if info.get(key)}


class StoredContent(io.RawIOBase):
    """
    The complete content of one version of a file on a storage.

    :param raw: The file, as the storage opened it.
    :param shown: Its URL, for messages.
    :param is_unchanged: Returns whether it is still the object that was opened.
    """

    def __init__(self, raw: IO[bytes], shown: str, is_unchanged: Callable[[], bool]) -> None:
        self._raw = raw
        self._shown = shown
        self._is_unchanged = is_unchanged
        self._at = 0
        self._is_checked = False

    def readable(self) -> bool:
        """Return ``True``."""
        return True

    def seekable(self) -> bool:
        """Return whether it supports :meth:`seek`."""
        return bool(self._raw.seekable())

    def tell(self) -> int:
        """Return the current position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        self._at = self._raw.seek(offset, whence)
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the buffer, at least in part unless the file has ended."""
        with memoryview(buffer) as room:
            size = len(room)
            data = _called(f"Reading it from byte {self._at:,} on", self._shown, lambda: self._raw.read(size))
            room[: len(data)] = data
        self._at += len(data)
        if not data and size and not self._is_checked:
            self.check_end()
        return len(data)

    def check_end(self) -> None:
        """
        Check that the whole object was read.

        :raises OSError: if it ended too early, or has changed.
        """
        size = getattr(self._raw, "size", None)
        if isinstance(size, int) and self._at < size:
            raise OSError(
                errno.EIO, f"Reading it failed: it ended at byte {self._at:,} of {size:,}", self._shown
            )
        self.check_unchanged()

    def check_unchanged(self) -> None:
        """
        Check that the object is still the one that was opened.

        :raises OSError: if it has changed.
        """
        if self._is_checked:
            return
        self._is_checked = True
        if not self._is_unchanged():
            raise OSError(errno.EBUSY, "Reading it failed: it changed while it was read", self._shown)

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._raw.close()
        super().close()
