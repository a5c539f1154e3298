"""Compressed files: detect the compression by content and name, and unpack them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Final, Protocol

from airflow_provider_coveo.content.storage import RawFile
from airflow_provider_coveo.content.streams import CHUNK, MalformedError
from airflow_provider_coveo.coveo.errors import CoveoInputError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: Suffixes of file names, and their compressions.
_SUFFIXES: Final = {
    ".gz": "gzip",
    ".gzip": "gzip",
    ".zst": "zstd",
    ".zstd": "zstd",
    ".bz2": "bzip2",
    ".xz": "xz",
}
_OTHER_SUFFIXES: Final = {
    ".zip": "ZIP",
    ".7z": "7-Zip",
    ".rar": "RAR",
    ".tar": "tar",
    ".tgz": "tar",
    ".lz4": "LZ4",
    ".lzma": "LZMA",
    ".lz": "lzip",
    ".lzo": "LZO",
    ".br": "Brotli",
    ".snappy": "Snappy",
    ".sz": "Snappy",
    ".z": "compress",
}
_ALL_SUFFIXES: Final = frozenset({*_SUFFIXES, *_OTHER_SUFFIXES})
_MAGIC: Final = {
    "gzip": re.compile(rb"\x1f\x8b"),
    #: A frame, or a skippable frame, with which some writers start.
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL),
    # After the block size: a block, or the end of the stream.
    "bzip2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)", re.DOTALL),
    "xz": re.compile(rb"\xfd7zXZ\x00"),
}
#: Other known formats that are neither JSON nor a table, by their first bytes.
_OTHER_MAGIC: Final = {
    "a ZIP archive": re.compile(rb"PK(?:\x03\x04|\x05\x06|\x07\x08)"),
    "a 7-Zip archive": re.compile(rb"7z\xbc\xaf\x27\x1c"),
    "a RAR archive": re.compile(rb"Rar!\x1a\x07"),
    "compressed with LZ4": re.compile(rb"\x04\x22\x4d\x18"),
    "compressed with Snappy": re.compile(rb"\xff\x06\x00\x00sNaPpY"),
    "compressed with compress (.Z)": re.compile(rb"\x1f\x9d"),
    "compressed with lzip": re.compile(rb"LZIP\x01"),
    "compressed with LZO": re.compile(rb"\x89LZO\x00"),
    "compressed with LZMA": re.compile(rb"\x5d\x00\x00.{3,}\xff\xff", re.DOTALL),
    "a tar archive": re.compile(rb".{257}ustar", re.DOTALL),
    "Parquet": re.compile(rb"PAR1"),
    "ORC": re.compile(rb"ORC[\x00-\x20]"),
    "Avro": re.compile(rb"Obj\x01"),
}
#: Bytes that are unpacked at a time: four bytes of zstd can expand to 128 KiB.
_PACKED_CHUNK: Final = 1024
#: Memory limit for the dictionary of xz; the highest of xz's own settings needs 64 MiB.
_XZ_MEMORY: Final = 256 * 1024 * 1024


def suffixes_without_compression(name: str) -> list[str]:
    """Return the suffixes of a file's name in lower case, without those of a compression."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    while suffixes and suffixes[-1] in _ALL_SUFFIXES:
        suffixes.pop()
    return suffixes


def compression_by_name(name: str, shown: str) -> str | None:
    """
    Return the compression that a file's name indicates, ``None`` for none.

    :param name: The name.
    :param shown: The file, for the message.
    :raises CoveoInputError: if this compression is not supported.
    """
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    last = suffixes[-1] if suffixes else ""
    if last in _OTHER_SUFFIXES:
        raise CoveoInputError(
            f"Could not read {shown!r}: its name indicates {_OTHER_SUFFIXES[last]}, which is not supported",
            remedy=_UNPACK,
        )
    if last in _SUFFIXES and len(suffixes) > 1 and suffixes[-2] in _ALL_SUFFIXES:
        raise CoveoInputError(
            f"Could not read {shown!r}: its name indicates that it is packed or compressed more than once",
            remedy=_UNPACK,
        )
    return _SUFFIXES.get(last)


_UNPACK: Final = (
    "Unpack it first; the provider reads files that are compressed once with gzip, zstd, bzip2 or xz"
)


def decompressed(raw: RawFile, named: str | None, stack: ExitStack) -> io.BufferedReader:
    """
    Return the unpacked content of a file.

    :param raw: The open file.
    :param named: The compression that its name indicates, as :func:`compression_by_name` returns it.
    :param stack: Closes the readers.
    :raises MalformedError: if its content does not match its name, or has an unsupported format.
    """
    # Some files, such as a pipe, can be read only once.
    content: io.BufferedReader = io.BufferedReader(raw, CHUNK)
    found = _compression(content)
    if named is not None and found != named:
        what = "it is empty" if not content.peek(1) else f"it is {found or 'not compressed, or damaged'}"
        raise MalformedError(f"its name indicates {named}, but {what}", "Rename it to match its content")
    if found == "gzip":
        unpacked: gzip.GzipFile | _Unpacked | None = stack.enter_context(gzip.GzipFile(fileobj=content))
    elif found is not None:
        unpacked = _Unpacked(content, *_UNPACKERS[found]())
    else:
        unpacked = None
    if unpacked is not None:
        # A BufferedReader reads lines faster than GzipFile does.
        content = io.BufferedReader(unpacked, CHUNK)
        if again := _compression(content):
            raise MalformedError(f"it is compressed twice: {again} in {found}", "Unpack it once")
    reject_other_formats(content)
    return content


def _compression(content: io.BufferedReader) -> str | None:
    begin = content.peek(16)[:16]
    return next((name for name, magic in _MAGIC.items() if magic.match(begin)), None)


def reject_other_formats(content: io.BufferedReader) -> None:
    """Reject content whose first bytes show that it is neither JSON nor a table."""
    begin = content.peek(300)[:300]
    for what, magic in _OTHER_MAGIC.items():
        if not magic.match(begin):
            continue
        if what == "Parquet":
            raise MalformedError(f"it is {what}", "Pass file_format='parquet'")
        raise MalformedError(f"it is {what}, which is not supported", "Unpack or convert it first")


class _Decompressor(Protocol):
    """Decompresses one part of a file."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def _zstd() -> tuple[Callable[[], _Decompressor], type[Exception]]:
    try:
        import zstandard
    except ImportError:
        raise CoveoInputError(
            "Could not read a zstd file",
            cause="the package zstandard is not installed",
            remedy="On the workers: pip install 'airflow-provider-coveo[zstd]'",
        ) from None
    return lambda: zstandard.ZstdDecompressor().decompressobj(), zstandard.ZstdError


_UNPACKERS: Final[dict[str, Callable[[], tuple[Callable[[], _Decompressor], type[Exception]]]]] = {
    "zstd": _zstd,
    "bzip2": lambda: (bz2.BZ2Decompressor, OSError),
    "xz": lambda: (lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY), lzma.LZMAError),
}


class _Unpacked(io.RawIOBase):
    """
    The content of a compressed file of one or more complete parts.

    The libraries' own readers ignore that a zstd file was truncated, and anything after the last part of a
    bzip2 file.

    :param raw: The file.
    :param new: Creates the decompressor of a part.
    :param problem: The library's error.
    """

    def __init__(self, raw: IO[bytes], new: Callable[[], _Decompressor], problem: type[Exception]) -> None:
        self._raw = raw
        self._new = new
        self._problem = problem
        self._ready = memoryview(b"")
        self._pieces = self._unpacked()

    def readable(self) -> bool:
        """Return ``True``."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the buffer, at least in part unless the file has ended."""
        while not self._ready:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._ready = memoryview(piece)
        with memoryview(buffer) as room:
            count = min(len(room), len(self._ready))
            room[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _unpacked(self) -> Iterator[bytes]:
        part: _Decompressor | None = None
        packed = b""
        first = True
        while packed := packed or self._raw.read(_PACKED_CHUNK):
            if part is None:
                if not first and not packed.strip(b"\0"):
                    # Padding up to the end of a block, as xz and tapes write it.
                    packed = b""
                    continue
                part, first = self._new(), False
            yield from self._pieces_of(part, packed)
            packed = b""
            if part.eof:
                packed, part = part.unused_data, None
                if packed.startswith(b"\0"):
                    packed = packed.lstrip(b"\0")
        if part is not None:
            raise EOFError("the compressed file ended before the end-of-stream marker")

    def _pieces_of(self, part: _Decompressor, packed: bytes) -> Iterator[bytes]:
        try:
            if not isinstance(part, (bz2.BZ2Decompressor, lzma.LZMADecompressor)):
                # Only the standard library's can limit their output; a kilobyte of zstd is small enough.
                yield part.decompress(packed)
                return
            yield part.decompress(packed, CHUNK)
            while not part.eof and not part.needs_input:
                yield part.decompress(b"", CHUNK)
        except EOFError:
            raise
        except self._problem as error:
            raise MalformedError(str(error)) from None
