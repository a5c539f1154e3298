"""
Items out of files, one after the other: a file of any size needs no more memory than its largest item.

JSON arrays, JSON Lines (NDJSON), CSV, TSV and Parquet, plain or in gzip or zstd, on this machine or on any
object storage that Airflow's ``ObjectStoragePath`` reaches.
"""

from __future__ import annotations

import csv
import glob
import gzip
import io
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final

from airflow_provider_coveo.content.rows import items_of_rows
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.coveo.items import LARGEST_UPLOAD

FORMATS: Final = ("json", "ndjson", "csv", "tsv", "parquet")

_FORMATS_BY_SUFFIX: Final = {
    ".json": "json",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_COMPRESSED_SUFFIXES: Final = frozenset({".gz", ".gzip", ".zst", ".zstd"})
_GZIP_MAGIC: Final = b"\x1f\x8b"
#: Of a frame, or of one to skip, which some writers begin with.
_ZSTD_MAGIC: Final = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL)
_MARKS_OF_UTF_16: Final = frozenset({b"\xff\xfe", b"\xfe\xff"})
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

_CHUNK: Final = 1024 * 1024
#: How much of a zstd file is unpacked at a time: four bytes of it may stand for 128 KiB.
_ZSTD_CHUNK: Final = 1024
#: No item is longer, so neither is a line nor an object of an array.
_LONGEST_ITEM: Final = LARGEST_UPLOAD
_ROWS_AT_A_TIME: Final = 1_024
_GLOB_CHARACTERS: Final = re.compile(r"[*?\[]")
_SPACE: Final = b" \t\r\n"
#: Everything up to the next brace that stands in no string.
_TO_NEXT_BRACE: Final = re.compile(rb'[^{}"]*(?:"[^"\\]*(?:\\.[^"\\]*)*"[^{}"]*)*([{}])', re.DOTALL)


def items_of_files(
    path: Any, *, file_format: str | None = None, columns: Mapping[str, str] | None = None
) -> Iterator[Any]:
    """
    Yield the items of files, as bytes (JSON) or dicts (rows of a table).

    :param path: A file, a folder or a glob, or a list of these: a local path, a URL of an object storage such
        as ``s3://aws_default@bucket/catalog/*.ndjson.gz``, or an ``ObjectStoragePath``. The files of a folder
        and of a glob are taken in the order of their names; of a folder also those in its folders, but none
        whose name, or a folder's, begins with ``.`` or ``_``.
    :param file_format: ``json``, ``ndjson``, ``csv``, ``tsv`` or ``parquet``. Default: as the name says.
    :param columns: For tables, what an item is made of: its keys, each with the name of a column or a text
        with names of columns in braces, such as ``product://{sku}``. Default: each column under its own name.
        What is empty is left out.
    :raises CoveoInputError: if there is no such file, or one is not what it should be.
    """
    if file_format is not None and file_format not in FORMATS:
        raise CoveoInputError(
            f"There is no file format {file_format!r}", remedy=f"Use one of {', '.join(FORMATS)}"
        )
    if columns is not None and not isinstance(columns, Mapping):
        raise CoveoInputError(
            f"columns must be a mapping of keys to columns, not {type(columns).__name__}",
            remedy="As in {'documentId': 'product://{sku}', 'title': 'name', 'data': 'description'}",
        )
    paths = path if isinstance(path, Sequence) and not isinstance(path, (str, bytes)) else [path]
    found = [file for one in paths for file in _files(one)]
    formats = [_format_of(file, file_format) for file in found]
    for file, its_format in zip(found, formats, strict=True):
        yield from _items_of_file(file, its_format, columns)


# --- which files ---


def _files(path: Any) -> list[Any]:
    if isinstance(path, str) and "://" in path:
        return _remote_files(path)
    if _is_object_storage_path(path):
        return _files_at(path)
    if not isinstance(path, (str, Path)) or not str(path):
        raise CoveoInputError(
            f"{path!r} is not the path of a file", remedy="Give a path, a glob or a URL such as s3://…"
        )
    local = Path(path)
    if not local.exists() and _GLOB_CHARACTERS.search(str(path)):
        names = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - takes absolute patterns as well
        return _none_missing(path, [Path(name) for name in names if _is_local_file(Path(name))])
    if local.is_dir():
        return _none_missing(path, sorted(_local_files_below(local), key=str))
    return _files_at(local)


def _is_object_storage_path(path: Any) -> bool:
    # With universal-pathlib before 0.3, an ObjectStoragePath is a pathlib.Path on Python 3.12 and later.
    is_of_this_machine = isinstance(path, Path) and "://" not in str(path)
    return not isinstance(path, str) and not is_of_this_machine and hasattr(path, "is_dir")


def _local_files_below(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and in its folders; a folder that can't be read is an error."""
    seen = set()

    def refuse(problem: OSError) -> None:
        raise problem

    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        is_at = Path(place).stat()
        if (is_at.st_dev, is_at.st_ino) in seen:
            # A link leads back to where we came from.
            folders.clear()
            continue
        seen.add((is_at.st_dev, is_at.st_ino))
        folders[:] = [name for name in folders if not _is_hidden(name)]
        yield from (
            file for name in names if not _is_hidden(name) and _is_local_file(file := Path(place, name))
        )


def _is_local_file(path: Path) -> bool:
    if path.is_symlink() and not path.exists():
        raise CoveoInputError(
            f"{str(path)!r} is a link to a file that is not there",
            remedy="Check whether what writes the files ran before, or choose the files with a glob",
        )
    return path.is_file()


def _is_hidden(name: str) -> bool:
    return name[:1] in {".", "_"}


def _remote_files(url: str) -> list[Any]:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    base, pattern = _split_glob(url)
    if not pattern:
        return _files_at(ObjectStoragePath(url))
    matches = ObjectStoragePath(base).glob(pattern)
    # As on this machine, a pattern does not match hidden files.
    files = [file for file in matches if file.is_file() and not file.name.startswith(".")]
    return _none_missing(url, sorted(files, key=str))


def _split_glob(url: str) -> tuple[str, str]:
    """Split a URL before the first of its segments that is a pattern."""
    scheme, _, rest = url.partition("://")
    segments = rest.split("/")
    for index, segment in enumerate(segments):
        if index and _GLOB_CHARACTERS.search(segment):
            return f"{scheme}://{'/'.join(segments[:index])}/", "/".join(segments[index:])
    return url, ""


def _files_at(path: Any) -> list[Any]:
    if path.is_dir():
        below = len(str(path).rstrip("/"))
        files = [
            file
            for file in path.rglob("*")
            if file.is_file() and not any(map(_is_hidden, str(file)[below:].split("/")))
        ]
        return _none_missing(path, sorted(files, key=str))
    if not path.exists():
        raise CoveoInputError(
            f"There is no file {str(path)!r}",
            remedy="Check the path, and that the worker sees it: a worker on another machine has other files",
        )
    return [path]


def _none_missing(path: object, files: list[Any]) -> list[Any]:
    if not files:
        raise CoveoInputError(
            f"No file was found by {str(path)!r}",
            remedy="Check the path, and whether what writes the files ran before",
        )
    return files


def _format_of(file: Any, file_format: str | None) -> str:
    if file_format is not None:
        return file_format
    suffixes = [suffix.lower() for suffix in Path(file.name).suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED_SUFFIXES:
        suffixes.pop()
    if suffixes and suffixes[-1] in _FORMATS_BY_SUFFIX:
        return _FORMATS_BY_SUFFIX[suffixes[-1]]
    raise CoveoInputError(
        f"What {str(file)!r} holds can't be told from its name",
        remedy=f"Give file_format ({', '.join(FORMATS)}), or choose the files with a glob",
    )


# --- one file ---


def _items_of_file(file: Any, file_format: str, columns: Mapping[str, str] | None) -> Iterator[Any]:
    try:
        with ExitStack() as stack:
            raw = stack.enter_context(file.open("rb"))
            if file_format == "parquet":
                yield from items_of_rows(_parquet_rows(raw), columns, file)
                return
            content = _decompressed(raw, stack)
            if file_format == "json":
                yield from _json_objects(content)
            elif file_format == "ndjson":
                yield from _lines(content)
            else:
                rows = _csv_rows(content, "\t" if file_format == "tsv" else ",", stack)
                yield from items_of_rows(rows, columns, file)
    except (_MalformedError, EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise CoveoInputError(
            f"{str(file)!r} is not {file_format} from beginning to end: {error}",
            cause="the file is damaged or was cut off, or it is in another format",
            remedy="Write the file anew, or give its file_format; what came before was pushed",
        ) from None


class _MalformedError(Exception):
    """A file that is not what it should be."""


def _decompressed(raw: Any, stack: ExitStack) -> io.BufferedReader:
    # Not every file can be read twice, such as a pipe.
    content = io.BufferedReader(raw, _CHUNK)
    magic = content.peek(4)[:4]
    if magic.startswith(_GZIP_MAGIC):
        unpacked = stack.enter_context(gzip.GzipFile(fileobj=content))
        # A BufferedReader reads lines faster than GzipFile does.
        content = io.BufferedReader(unpacked, _CHUNK)
    elif _ZSTD_MAGIC.match(magic):
        content = io.BufferedReader(_ZstdReader(content), _CHUNK)
    if content.peek(2)[:2] in _MARKS_OF_UTF_16:
        raise _MalformedError("it is UTF-16 and not UTF-8")
    return content


class _ZstdReader(io.RawIOBase):
    """
    What a zstd file holds, which must be complete: the library says nothing of one that was cut off.

    :param raw: The file.
    """

    def __init__(self, raw: IO[bytes]) -> None:
        try:
            import zstandard
        except ImportError:
            raise CoveoInputError(
                "A zstd file can't be read here",
                cause="the package zstandard is not installed",
                remedy="On the workers: pip install 'airflow-provider-coveo[zstd]'",
            ) from None
        self._library = zstandard
        self._raw = raw
        self._frame: Any = None
        self._compressed = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        """Return whether it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, at least partly unless the file is at its end."""
        while not self._ready:
            if not self._compressed:
                self._compressed = self._raw.read(_ZSTD_CHUNK)
                if not self._compressed:
                    if self._frame is not None:
                        raise EOFError("the compressed file ended before the end-of-stream marker")
                    return 0
            if self._frame is None:
                self._frame = self._library.ZstdDecompressor().decompressobj()
            try:
                self._ready = memoryview(self._frame.decompress(self._compressed))
            except self._library.ZstdError as error:
                raise _MalformedError(str(error)) from None
            self._compressed = b""
            if self._frame.eof:
                self._compressed, self._frame = self._frame.unused_data, None
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


# --- JSON ---


def _lines(content: io.BufferedReader) -> Iterator[bytes]:
    if content.peek(3).startswith(_BYTE_ORDER_MARK):
        content.read(3)
    for line in iter(lambda: content.readline(_LONGEST_ITEM), b""):
        if line.isspace():
            continue
        if len(line) == _LONGEST_ITEM and not line.endswith(b"\n"):
            raise _MalformedError(f"a line is longer than {_LONGEST_ITEM:,} bytes")
        yield line


def _json_objects(content: io.BufferedReader) -> Iterator[bytes]:
    """Yield the objects of a JSON array, or of a file that holds objects one after the other."""
    window = _Window(content)
    window.skip(_BYTE_ORDER_MARK)
    is_array = window.next_sign() == b"["
    if is_array:
        window.take()
    first = True
    while True:
        sign = window.next_sign()
        if sign == b"{":
            yield window.object()
            first = False
            if is_array and window.next_sign() not in {b",", b"]"}:
                raise _MalformedError(f"{window.shown()} stands where a comma or the array's end should")
            if is_array and window.next_sign() == b",":
                window.take()
                if window.next_sign() != b"{":
                    raise _MalformedError(f"{window.shown()} stands where an object should")
        elif is_array and sign == b"]":
            window.take()
            if window.next_sign():
                raise _MalformedError(f"{window.shown()} stands behind the array's end")
            return
        elif not sign and not is_array and not first:
            return
        elif not sign:
            raise EOFError("it ended too early")
        else:
            raise _MalformedError(f"{window.shown()} stands where an object should")


class _Window:
    """
    The part of a file that is looked at.

    :param content: The file.
    """

    def __init__(self, content: io.BufferedReader) -> None:
        self._content = content
        self._data = b""
        self._at = 0

    def _more(self, size: int = _CHUNK) -> bool:
        more = self._content.read(size)
        self._data, self._at = self._data[self._at :] + more, 0
        return bool(more)

    def skip(self, prefix: bytes) -> None:
        """Go past a prefix, if the file begins with it."""
        self._more()
        if self._data.startswith(prefix):
            self._at = len(prefix)

    def next_sign(self) -> bytes:
        """Go past white space, and return the byte behind it; nothing at the end of the file."""
        while True:
            while self._at < len(self._data) and self._data[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._data):
                return self._data[self._at : self._at + 1]
            if not self._more():
                return b""

    def take(self) -> None:
        """Go past one byte."""
        self._at += 1

    def shown(self) -> str:
        """Return the next bytes for a message."""
        return repr(self._data[self._at : self._at + 40])[1:]

    def object(self) -> bytes:
        """Return the object that begins here, and go past it."""
        depth = 0
        end = self._at
        size = _CHUNK
        while True:
            brace = _TO_NEXT_BRACE.match(self._data, end)
            if brace is None:
                # Ever more is read at a time, so that a very large object is not looked through too often.
                end -= self._at
                if len(self._data) - self._at > _LONGEST_ITEM:
                    raise _MalformedError(f"an object is longer than {_LONGEST_ITEM:,} bytes")
                if not self._more(size):
                    raise EOFError("it ended within an object")
                size *= 2
                continue
            depth += 1 if brace[1] == b"{" else -1
            end = brace.end()
            if not depth:
                found = self._data[self._at : end]
                self._at = end
                return found


# --- tables ---


def _csv_rows(content: io.BufferedReader, delimiter: str, stack: ExitStack) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(_LONGEST_ITEM)
    text = stack.enter_context(io.TextIOWrapper(content, encoding="utf-8-sig", newline=""))
    rows = csv.DictReader(_lines_of_text(text), delimiter=delimiter, strict=True)
    names = rows.fieldnames or []
    if len(set(names)) < len(names):
        raise _MalformedError("a column's name occurs twice in its first line")
    for row in rows:
        if None in row:
            raise _MalformedError(f"line {rows.line_num} has more columns than the first one")
        if None in row.values():
            raise _MalformedError(f"line {rows.line_num} has fewer columns than the first one")
        yield row


def _lines_of_text(text: io.TextIOWrapper) -> Iterator[str]:
    for line in iter(lambda: text.readline(_LONGEST_ITEM), ""):
        if len(line) == _LONGEST_ITEM and line[-1] not in "\r\n":
            raise _MalformedError(f"a line is longer than {_LONGEST_ITEM:,} characters")
        yield line


def _parquet_rows(raw: Any) -> Iterator[dict[str, Any]]:
    try:
        from pyarrow import ArrowException, Table, parquet
    except ImportError:
        raise CoveoInputError(
            "A Parquet file can't be read here",
            cause="the package pyarrow is not installed",
            remedy="On the workers: pip install 'airflow-provider-coveo[parquet]'",
        ) from None
    watched = _WatchedFile(raw)
    try:
        file = parquet.ParquetFile(watched)
        names = file.schema_arrow.names
        if len(set(names)) < len(names):
            # Of two columns of one name, a row would hold the last one only.
            raise _MalformedError("a column's name occurs twice in its schema")
        for rows in file.iter_batches(batch_size=_ROWS_AT_A_TIME):
            schema = _schema_without_nanoseconds(rows.schema)
            if schema != rows.schema:
                rows = Table.from_batches([rows]).cast(schema, safe=False)
            yield from rows.to_pylist()
    except (ArrowException, OSError, ValueError, OverflowError) as error:
        if error is watched.problem:
            # The storage can't be read, which says nothing of what it holds.
            raise
        raise _MalformedError(str(error).strip()) from None


class _WatchedFile:
    """
    A file that remembers why it could not be read: a library that reads it raises the same class of its own.

    :param raw: The file.
    """

    problem: BaseException | None = None

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def read(self, *size: int) -> bytes:
        """Read from the file."""
        try:
            content: bytes = self._raw.read(*size)
        except BaseException as problem:
            self.problem = problem
            raise
        return content


def _schema_without_nanoseconds(schema: Any) -> Any:
    """Return the schema with times as Python has them, which counts microseconds."""
    import pyarrow

    def shortened(kind: Any) -> Any:
        types = pyarrow.types
        if types.is_timestamp(kind) and kind.unit == "ns":
            return pyarrow.timestamp("us", kind.tz)
        if types.is_time64(kind) and kind.unit == "ns":
            return pyarrow.time64("us")
        if types.is_duration(kind) and kind.unit == "ns":
            return pyarrow.duration("us")
        if types.is_list(kind):
            return pyarrow.list_(shortened(kind.value_type))
        if types.is_large_list(kind):
            return pyarrow.large_list(shortened(kind.value_type))
        if types.is_fixed_size_list(kind):
            return pyarrow.list_(shortened(kind.value_type), kind.list_size)
        if types.is_struct(kind):
            return pyarrow.struct([field.with_type(shortened(field.type)) for field in kind])
        return kind

    return pyarrow.schema([field.with_type(shortened(field.type)) for field in schema])
