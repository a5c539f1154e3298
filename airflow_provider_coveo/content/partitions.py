"""Columns from folder names, such as ``country=ch/day=2026-01-01/part.parquet`` (Hive's layout)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec

from airflow_provider_coveo.content.streams import MalformedError
from airflow_provider_coveo.coveo.errors import CoveoInputError

#: The folder name that Hive, Spark and their readers use for rows without a value.
_NO_VALUE: Final = "__HIVE_DEFAULT_PARTITION__"


def validate_partitioning(partitioning: object) -> bool:
    """
    Return whether folder names define columns.

    :param partitioning: ``hive`` for yes; ``None``, ``False`` or an empty string for no.
    :raises CoveoInputError: if it is anything else.
    """
    if partitioning in (None, False, "", "none", "None"):
        return False
    if partitioning != "hive":
        raise CoveoInputError(
            f"Invalid partitioning: {partitioning!r}", remedy="Use 'hive', or None for none"
        )
    return True


def partitions_of(path: str) -> dict[str, str | None]:
    """
    Return the columns that the folders of a path define.

    :param path: The path of a file.
    :raises MalformedError: if two folders set different values for one column, or a name can't be decoded.
    """
    found: dict[str, str | None] = {}
    for folder in path.split("/")[:-1]:
        raw_name, parts, raw_value = folder.partition("=")
        if not parts or not raw_name or "://" in folder:
            continue
        try:
            name = unquote_to_bytes(raw_name).decode()
            value = None if raw_value == _NO_VALUE else unquote_to_bytes(raw_value).decode()
        except (UnicodeDecodeError, UnicodeEncodeError):
            raise MalformedError(f"the name of its folder {folder!r} is not UTF-8") from None
        if found.setdefault(name, value) != value:
            raise MalformedError(f"its folders set {name!r} to two values, {found[name]!r} and {value!r}")
    return found


def rows_with_partitions(
    rows: Iterator[dict[str, object]], partitions: Mapping[str, str | None]
) -> Iterator[dict[str, object]]:
    """
    Yield rows with the columns of their folders.

    :param rows: The rows of a file.
    :param partitions: The result of :func:`partitions_of`.
    :raises MalformedError: if a row has another value than its folder.
    """
    if not partitions:
        yield from rows
        return
    for row in rows:
        for name, value in partitions.items():
            if name not in row:
                row[name] = value
            elif not _is_same(row[name], value):
                raise _conflict(name, value, row[name])
        yield row


def objects_with_partitions(
    objects: Iterator[bytes], partitions: Mapping[str, str | None]
) -> Iterator[bytes]:
    """
    Yield JSON objects with the columns of their folders, and otherwise unchanged.

    :param objects: The objects of a file.
    :param partitions: The result of :func:`partitions_of`.
    :raises MalformedError: if an object has another value than its folder.
    """
    if not partitions:
        yield from objects
        return
    for text in objects:
        try:
            item = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # Validating the item reports it.
            yield text
            continue
        added = {}
        for name, value in partitions.items():
            if name not in item:
                if value is not None and value != "":
                    added[name] = value
            else:
                try:
                    own = msgspec.json.decode(item[name])
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    own = bytes(item[name])
                if not _is_same(own, value):
                    raise _conflict(name, value, own)
        if not added:
            yield text
            continue
        inside = text[text.index(b"{") + 1 :].lstrip()
        begin = msgspec.json.encode(added)[:-1]
        yield begin + (b"" if inside.startswith(b"}") else b",") + inside


def _is_same(own: object, value: str | None) -> bool:
    if own is None or value is None:
        return own is value
    if isinstance(own, bool):
        return str(own).lower() == value.lower()
    text = own.isoformat() if hasattr(own, "isoformat") else str(own)
    if text == value:
        return True
    try:
        # A month may be written as 01.
        return not isinstance(own, str) and int(value) == own
    except ValueError:
        return False


def _conflict(name: str, value: str | None, own: object) -> MalformedError:
    return MalformedError(
        f"its folder sets {name!r} to {value!r}, but an item in it has {str(own)[:100]!r}",
        "Pass partitioning=None to ignore folder names",
    )
