"""Compressed files: complete and matching their names, or rejected."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_coveo.content.files import read_files
from airflow_provider_coveo.coveo.errors import CoveoInputError

LINES = b"".join(b'{"documentId":"a://%d","data":"%d"}\n' % (n, n * 7919) for n in range(20_000))


def _zstd(content: bytes) -> bytes:
    packed: bytes = pytest.importorskip("zstandard").compress(content)
    return packed


PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "zst": _zstd,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}
kinds = pytest.mark.parametrize("kind", PACK)


def count(path: Path, content: bytes, **options: Any) -> int:
    path.write_bytes(content)
    return sum(1 for _ in read_files(str(path), **options))


def refused(path: Path, content: bytes, **options: Any) -> str:
    with pytest.raises(CoveoInputError) as error:
        count(path, content, **options)
    assert str(path) in str(error.value)
    return str(error.value)


@kinds
@pytest.mark.parametrize("name", ["a.ndjson", "a.ndjson.{}", "A.NDJSON.{}"])
def test_compression_is_detected_by_the_first_bytes(tmp_path: Path, kind: str, name: str) -> None:
    half = LINES.index(b"\n", len(LINES) // 2) + 1
    pack = PACK[kind]
    assert count(tmp_path / name.format(kind), pack(LINES)) == 20_000
    assert count(tmp_path / name.format(kind), pack(LINES[:half]) + pack(LINES[half:])) == 20_000
    assert count(tmp_path / name.format(kind), pack(b"")) == 0


@kinds
@pytest.mark.parametrize("end", [1, 4, 9, 100, 0.5, 0.01])
def test_truncated_files_are_rejected(tmp_path: Path, kind: str, end: float) -> None:
    packed = PACK[kind](LINES)
    cut = end if isinstance(end, int) else int(len(packed) * end)
    refused(tmp_path / f"a.ndjson.{kind}", packed[:-cut])
    refused(tmp_path / f"a.ndjson.{kind}", PACK[kind](LINES) + packed[:-cut])


@kinds
@pytest.mark.parametrize("garbage", [b"garbage", b"\n", b"{}", b"\0\0\0\0x", b"\x1f\x8b"])
def test_garbage_after_compressed_data_is_rejected(tmp_path: Path, kind: str, garbage: bytes) -> None:
    refused(tmp_path / f"a.ndjson.{kind}", PACK[kind](LINES) + garbage)


@kinds
def test_zeros_after_compressed_data_are_accepted(tmp_path: Path, kind: str) -> None:
    assert count(tmp_path / f"a.ndjson.{kind}", PACK[kind](LINES) + bytes(4096)) == 20_000


@kinds
@pytest.mark.parametrize("content", [b"", LINES, b"\0" * 100])
def test_a_name_that_does_not_match_the_content_is_rejected(
    tmp_path: Path, kind: str, content: bytes
) -> None:
    assert "its name indicates" in refused(tmp_path / f"a.ndjson.{kind}", content)
    other = next(other for other in PACK if other != kind)
    assert "its name indicates" in refused(tmp_path / f"a.ndjson.{other}", PACK[kind](LINES))


@kinds
def test_files_compressed_twice_are_rejected(tmp_path: Path, kind: str) -> None:
    twice = PACK[kind](PACK[kind](LINES))
    assert "it is compressed twice" in refused(tmp_path / f"a.ndjson.{kind}", twice)
    assert "more than once" in refused(tmp_path / f"a.ndjson.{kind}.{kind}", twice)


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.ndjson", LINES)
    return file.getvalue()


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("a.ndjson")
        member.size = len(LINES)
        archive.addfile(member, io.BytesIO(LINES))
    return file.getvalue()


@pytest.mark.parametrize("name", ["a.ndjson", "a.csv", "a.json"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (_zip(), "ZIP"),
        (_tar(), "tar"),
        (gzip.compress(_tar()), "tar"),
        (b"\x04\x22\x4d\x18rest", "LZ4"),
        (b"\xff\x06\x00\x00sNaPpYrest", "Snappy"),
        (b"\x1f\x9d\x90rest", "compress"),
        (b"7z\xbc\xaf\x27\x1crest", "7-Zip"),
        (lzma.compress(LINES, lzma.FORMAT_ALONE), "LZMA"),
        (b"PAR1rest", "Parquet"),
        (b"Obj\x01rest", "Avro"),
    ],
)
def test_files_that_cannot_be_unpacked_are_named(
    tmp_path: Path, name: str, content: bytes, what: str
) -> None:
    assert what in refused(tmp_path / name, content)


@pytest.mark.parametrize("ending", ["zip", "tar", "tgz", "tar.gz", "7z", "lz4", "br", "snappy", "Z", "lzma"])
def test_a_name_with_an_unsupported_compression_is_rejected_before_anything_is_read(
    tmp_path: Path, ending: str
) -> None:
    assert "its name indicates" in refused(tmp_path / f"a.ndjson.{ending}", b"x", file_format="ndjson")


def test_a_compressed_parquet_file_is_rejected(tmp_path: Path) -> None:
    assert "Unpack it" in refused(tmp_path / "a.parquet.gz", gzip.compress(b"PAR1"))


@kinds
def test_a_file_that_unpacks_to_a_large_size_needs_little_memory(tmp_path: Path, kind: str) -> None:
    blank = b" " * 999_999 + b"\n"
    path = tmp_path / f"a.ndjson.{kind}"
    packed = PACK[kind](blank * 100 + LINES)
    tracemalloc.start()
    assert count(path, packed) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60_000_000


def test_a_dictionary_that_needs_too_much_memory_is_rejected(tmp_path: Path) -> None:
    # A block of xz can require 1.5 GiB, however small it is.
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 64 * 1024 * 1024}]
    packed = bytearray(lzma.compress(json.dumps({}).encode(), filters=filters))
    place = packed.index(b"\x21\x01", 12) + 2
    packed[place] = 38
    import zlib

    length = (packed[12] + 1) * 4
    packed[12 + length - 4 : 12 + length] = zlib.crc32(packed[12 : 12 + length - 4]).to_bytes(4, "little")
    assert "Memory usage limit" in refused(tmp_path / "a.ndjson.xz", bytes(packed))
