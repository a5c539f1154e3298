"""
Items out of files, one after the other: a file of any size needs no more memory than its largest item.

JSON arrays, JSON Lines (NDJSON), CSV, TSV and Parquet, plain or in gzip, zstd, bzip2 or xz, on this machine
or on any object storage that Airflow's ``ObjectStoragePath`` reaches.
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
from typing import Any, Final

from airflow_provider_coveo.content import json_objects, listing, partitions, streams, tables
from airflow_provider_coveo.content.compression import (
    decompressed,
    refuse_other_compression,
    suffixes_without_compression,
)
from airflow_provider_coveo.content.parquet import rows_of_parquet
from airflow_provider_coveo.content.rows import items_of_rows
from airflow_provider_coveo.content.storage import StoredContent
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
#: Which parameters each format has.
_OF_TEXT_TABLES: Final = ("delimiter", "quotechar", "escapechar", "null_values", "column_names")
_PARAMETERS: Final = {
    "json": ("encoding",),
    "ndjson": ("encoding",),
    "csv": ("encoding", "columns", *_OF_TEXT_TABLES),
    "tsv": ("encoding", "columns", *_OF_TEXT_TABLES),
    "parquet": ("columns",),
}


def read_files(
    path: Any,
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
) -> Iterator[Any]:
    """
    Yield the items of files, as bytes (JSON) or dicts (rows of a table).

    :param path: A file, a folder or a glob, or a list of these: a local path, a URL of an object storage such
        as ``s3://aws_default@bucket/catalog/*.ndjson.gz``, or an ``ObjectStoragePath``. The files of a folder
        and of a glob are taken in the order of their names; of a folder also those in its folders, but none
        whose name, or a folder's, begins with ``.`` or ``_``. A glob finds files and not folders.
    :param file_format: ``json``, ``ndjson``, ``csv``, ``tsv`` or ``parquet``. Default: as the name says.
    :param columns: For tables, what an item is made of: its keys, each with the name of a column or a text
        with names of columns in braces, such as ``product://{sku}``. Default: each column under its own name.
        What is empty is left out.
    :param delimiter: For CSV and TSV, the character between two fields. Default ``,`` in CSV and the tab in
        TSV.
    :param quotechar: For CSV and TSV, the character around fields that hold a delimiter, a quote or an end of
        a line; within a field it is written twice. ``None`` for none: each line is a row, and quotes are part
        of the fields. Default ``"`` in CSV, none in TSV.
    :param escapechar: For CSV and TSV, the character that takes the meaning of the one behind it. Default
        none.
    :param null_values: For CSV and TSV, the fields that stand for no value, such as ``["\\\\N"]``. Default
        none.
    :param column_names: For CSV and TSV, the names of the columns, if the first line is a row and does not
        give them. Default: the first line gives them.
    :param encoding: The encoding of the text, such as ``latin-1``, ``cp1252`` or ``utf-16``. Default UTF-8,
        with or without a mark at its beginning. Not for Parquet.
    :param partitioning: ``hive`` (the default) to take folders such as ``country=ch`` for columns, whose
        values are texts; ``None`` to take no notice of them.
    :raises CoveoInputError: if there is no such file, one is not what it should be, or a value can't be
        right.
    :raises OSError: if a file or folder can't be read.
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
    of_tables = {
        "delimiter": delimiter,
        "quotechar": quotechar,
        "escapechar": escapechar,
        "null_values": null_values,
        "column_names": column_names,
    }
    given = {"columns": columns, "encoding": encoding, **of_tables}
    # Refused before any file is looked for.
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
    How files are read.

    :param columns: What an item is made of.
    :param dialects: How tables are written, by the format.
    :param encoding: The encoding of text.
    :param has_partitions: Whether folders give columns.
    """

    columns: Mapping[str, str] | None
    dialects: Mapping[str, tables.Dialect]
    encoding: str | None
    has_partitions: bool


def _format_of(file: Any, file_format: str | None, given: Mapping[str, Any]) -> str:
    """Return the format of a file, which must have what parameters were given."""
    refuse_other_compression(file.name, str(file))
    if file_format is None:
        suffixes = suffixes_without_compression(file.name)
        file_format = _FORMATS_BY_SUFFIX.get(suffixes[-1] if suffixes else "")
    if file_format is None:
        raise CoveoInputError(
            f"What {str(file)!r} holds can't be told from its name",
            remedy=f"Give file_format ({', '.join(FORMATS)}), or choose the files with a glob",
        )
    for name, value in given.items():
        is_given = value != tables.DEFAULT if name == "quotechar" else value is not None and value != ""
        if is_given and name not in _PARAMETERS[file_format]:
            formats = [each for each in FORMATS if name in _PARAMETERS[each]]
            raise CoveoInputError(
                f"{name} is given, and {str(file)!r} is read as {file_format}, which has no {name}",
                remedy=f"Leave {name} out, or give the file_format that has it: {', '.join(formats)}",
            )
    return file_format


def _items_of_file(file: Any, file_format: str, options: _Options) -> Iterator[Any]:
    try:
        with ExitStack() as stack:
            raw = stack.enter_context(file.open("rb"))
            begun = _state(raw)
            packed = _packed_with(file, file_format)
            said = partitions.partitions_of(str(file)) if options.has_partitions else {}
            if file_format == "parquet":
                rows = partitions.rows_with_partitions(rows_of_parquet(raw), said)
                yield from items_of_rows(rows, options.columns, file)
            else:
                content = streams.as_utf_8(decompressed(raw, packed, stack), options.encoding)
                if file_format in options.dialects:
                    rows = tables.rows_of_table(
                        content, options.dialects[file_format], by_their_names=options.columns is None
                    )
                    rows = partitions.rows_with_partitions(rows, said)
                    yield from items_of_rows(rows, options.columns, file)
                else:
                    read = json_objects.objects if file_format == "json" else json_objects.lines
                    yield from partitions.objects_with_partitions(read(content), said)
            _refuse_change(raw, begun, file)
    except (MalformedError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CoveoInputError(
            f"{str(file)!r} is not {file_format} from beginning to end: {error}",
            cause="the file is damaged or was cut off, or it is in another format",
            remedy="Write the file anew, or give its file_format; what came before was pushed",
        ) from None


def _packed_with(file: Any, file_format: str) -> str | None:
    """Return with what a file is compressed by its name."""
    packed = refuse_other_compression(file.name, str(file))
    if packed is not None and file_format == "parquet":
        raise MalformedError(f"by its name it is in {packed}; unpack it, Parquet is compressed inside")
    return packed


def _state(raw: Any) -> tuple[int, int] | None:
    """Return what tells whether a file of this machine was changed, ``None`` for what is no such file."""
    try:
        is_now = os.fstat(raw.fileno())
    except (AttributeError, OSError, ValueError):
        return None
    return (is_now.st_size, is_now.st_mtime_ns) if stat.S_ISREG(is_now.st_mode) else None


def _refuse_change(raw: Any, begun: tuple[int, int] | None, file: Any) -> None:
    """Refuse a file that is no longer what was read, so that a part of it may be missing."""
    if isinstance(raw, StoredContent):
        raw.check_unchanged()
    elif begun is not None and _state(raw) != begun:
        raise OSError(errno.EBUSY, "It changed while it was read", str(file))
