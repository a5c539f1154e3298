"""
Read items from files as a stream: a file of any size needs no more memory than its largest item.

Supports JSON arrays, JSON Lines (NDJSON), CSV, TSV and Parquet, plain or compressed with gzip, zstd, bzip2 or
xz, on this machine or on any object storage that Airflow's ``ObjectStoragePath`` supports.
"""

from __future__ import annotations

import errno
import gzip
import os
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from airflow_provider_coveo.content import json_objects, listing, partitions, streams, tables
from airflow_provider_coveo.content.compression import (
    compression_by_name,
    decompressed,
    suffixes_without_compression,
)
from airflow_provider_coveo.content.parquet import rows_of_parquet
from airflow_provider_coveo.content.rows import items_of_rows
from airflow_provider_coveo.content.storage import RawFile, ReadableFile, StoredContent
from airflow_provider_coveo.content.streams import MalformedError
from airflow_provider_coveo.coveo.errors import CoveoInputError

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
#: The parameters of each format.
_OF_TEXT_TABLES: Final = ("delimiter", "quotechar", "escapechar", "null_values", "column_names")
_PARAMETERS: Final = {
    "json": ("encoding",),
    "ndjson": ("encoding",),
    "csv": ("encoding", "columns", *_OF_TEXT_TABLES),
    "tsv": ("encoding", "columns", *_OF_TEXT_TABLES),
    "parquet": ("columns",),
}


def read_files(
    path: object,
    *,
    file_format: str | None = None,
    columns: Mapping[str, str] | None = None,
    delimiter: str | None = None,
    quotechar: str | bool | None = tables.DEFAULT,
    escapechar: str | None = None,
    null_values: str | Sequence[str] | None = None,
    column_names: Sequence[str] | None = None,
    encoding: str | None = None,
    partitioning: str | bool | None = "hive",
) -> Iterator[object]:
    """
    Yield the items of files, as bytes (JSON) or dicts (rows of a table).

    :param path: A file, a folder or a glob, or a list of these: a local path, a URL of an object storage such
        as ``s3://aws_default@bucket/catalog/*.ndjson.gz``, or an ``ObjectStoragePath``. The files of a folder
        and of a glob are read in the order of their names. A folder includes its subfolders, except for files
        and folders whose names begin with ``.`` or ``_``. A glob matches files, not folders.
    :param file_format: ``json``, ``ndjson``, ``csv``, ``tsv`` or ``parquet``. Default: by the file's name.
    :param columns: For tables, the mapping of columns to items: each key of an item, with the name of a
        column or a text with names of columns in braces, such as ``product://{sku}``. Default: each column
        under its own name. Empty values are omitted.
    :param delimiter: For CSV and TSV, the character between two fields. Default ``,`` in CSV and a tab in
        TSV.
    :param quotechar: For CSV and TSV, the character around fields that contain a delimiter, a quote or a line
        break; within a field it is doubled. ``None`` for none: each line is a row, and quotes are part of the
        fields. Default ``"`` in CSV, none in TSV.
    :param escapechar: For CSV and TSV, the character that escapes the next one. Default none.
    :param null_values: For CSV and TSV, the fields that mean “no value”, such as ``["\\\\N"]``. Default none.
    :param column_names: For CSV and TSV, the names of the columns, if the first line is a row. Default: the
        first line contains the names.
    :param encoding: The encoding of the text, such as ``latin-1``, ``cp1252`` or ``utf-16``. Default UTF-8,
        with or without a byte order mark. Not for Parquet.
    :param partitioning: ``hive`` (the default) to read folders such as ``country=ch`` as columns with string
        values; ``None`` to ignore them.
    :raises CoveoInputError: if a file does not exist or is malformed, or if a parameter is invalid.
    :raises OSError: if a file or folder can't be read.
    """
    if file_format is not None and file_format not in FORMATS:
        raise CoveoInputError(
            f"Invalid file_format: {file_format!r}", remedy=f"Use one of {', '.join(FORMATS)}"
        )
    if columns is not None and not isinstance(columns, Mapping):
        raise CoveoInputError(
            f"columns must be a mapping of keys to columns, not {type(columns).__name__}",
            remedy="As in {'documentId': 'product://{sku}', 'title': 'name', 'data': 'description'}",
        )
    of_tables = {
        "delimiter": delimiter,
        "quotechar": quotechar,
        "escapechar": escapechar,
        "null_values": null_values,
        "column_names": column_names,
    }
    given = {"columns": columns, "encoding": encoding, **of_tables}
    # Invalid parameters fail before any file is looked for.
    dialects = {each: tables.dialect_of(each, **of_tables) for each in ("csv", "tsv")}  # type: ignore[arg-type]
    options = _Options(
        columns, dialects, streams.validate_encoding(encoding), partitions.validate_partitioning(partitioning)
    )
    paths = path if isinstance(path, Sequence) and not isinstance(path, (str, bytes)) else [path]
    found = [file for one in paths for file in listing.files_of(one)]
    formats = [_format_of(file, file_format, given) for file in found]
    for file, its_format in zip(found, formats, strict=True):
        yield from _items_of_file(file, its_format, options)


@dataclass(frozen=True)
class _Options:
    """
    Options for reading files.

    :param columns: The mapping of columns to items.
    :param dialects: The dialects of tables, by format.
    :param encoding: The encoding of text.
    :param has_partitions: Whether folders define columns.
    """

    columns: Mapping[str, str] | None
    dialects: Mapping[str, tables.Dialect]
    encoding: str | None
    has_partitions: bool


def _format_of(file: ReadableFile, file_format: str | None, given: Mapping[str, object]) -> str:
    """Return the format of a file, which must support the given parameters."""
    compression_by_name(file.name, str(file))
    if file_format is None:
        suffixes = suffixes_without_compression(file.name)
        file_format = _FORMATS_BY_SUFFIX.get(suffixes[-1] if suffixes else "")
    if file_format is None:
        raise CoveoInputError(
            f"Could not read {str(file)!r}: its name does not show its format",
            remedy=f"Pass file_format ({', '.join(FORMATS)}), or select the files with a glob",
        )
    for name, value in given.items():
        is_given = value != tables.DEFAULT if name == "quotechar" else value is not None and value != ""
        if is_given and name not in _PARAMETERS[file_format]:
            formats = [each for each in FORMATS if name in _PARAMETERS[each]]
            raise CoveoInputError(
                f"Invalid {name}: {str(file)!r} is read as {file_format}, which has no {name}",
                remedy=f"Leave {name} out, or pass a file_format that has it: {', '.join(formats)}",
            )
    return file_format


def _items_of_file(file: ReadableFile, file_format: str, options: _Options) -> Iterator[object]:
    try:
        with ExitStack() as stack:
            raw = file.open("rb")
            stack.enter_context(raw)
            initial = _state(raw)
            packed = _packed_with(file, file_format)
            folder_values = partitions.partitions_of(str(file)) if options.has_partitions else {}
            if file_format == "parquet":
                rows = partitions.rows_with_partitions(rows_of_parquet(raw), folder_values)
                yield from items_of_rows(rows, options.columns, file)
            else:
                content = streams.as_utf_8(decompressed(raw, packed, stack), options.encoding)
                if file_format in options.dialects:
                    rows = tables.rows_of_table(
                        content, options.dialects[file_format], by_their_names=options.columns is None
                    )
                    rows = partitions.rows_with_partitions(rows, folder_values)
                    yield from items_of_rows(rows, options.columns, file)
                else:
                    read = json_objects.objects if file_format == "json" else json_objects.lines
                    yield from partitions.objects_with_partitions(read(content), folder_values)
            _reject_change(raw, initial, file)
    except (MalformedError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        remedy = error.remedy if isinstance(error, MalformedError) else ""
        raise CoveoInputError(
            f"Could not read {str(file)!r} as {file_format}: {error}",
            cause="" if remedy else "the file is damaged or truncated, or has another format",
            remedy=remedy or "Write the file again, or pass its file_format",
        ) from None


def _packed_with(file: ReadableFile, file_format: str) -> str | None:
    """Return the compression that a file's name indicates."""
    packed = compression_by_name(file.name, str(file))
    if packed is not None and file_format == "parquet":
        raise MalformedError(f"its name indicates {packed}", "Unpack it: Parquet is compressed inside")
    return packed


def _state(raw: RawFile) -> tuple[int, int] | None:
    """Return the size and time that show whether a local file changed, ``None`` for other files."""
    try:
        is_now = os.fstat(raw.fileno())
    except (AttributeError, OSError, ValueError):
        return None
    return (is_now.st_size, is_now.st_mtime_ns) if stat.S_ISREG(is_now.st_mode) else None


def _reject_change(raw: RawFile, initial: tuple[int, int] | None, file: object) -> None:
    """Reject a file that changed while it was read, because a part of it may be missing."""
    if isinstance(raw, StoredContent):
        raw.check_unchanged()
    elif initial is not None and _state(raw) != initial:
        raise OSError(errno.EBUSY, "It changed while it was read", str(file))
