"""Columns out of the names of folders, such as ``country=ch/day=2026-01-01/part.parquet`` (Hive's layout)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import msgspec

from airflow_provider_coveo.content.streams import MalformedError
from airflow_provider_coveo.coveo.errors import CoveoInputError

#: What Hive, Spark and their readers call the folder of rows without a value.
_NO_VALUE: Final = "__HIVE_DEFAULT_PARTITION__"


def validate_partitioning(partitioning: Any) -> bool:
    """
    Return whether the names of folders give columns.

    :param partitioning: ``hive``, or ``None``, ``False`` or nothing for no.
    :raises CoveoInputError: if it is anything else.
    """
    if partitioning in (None, False, "", "none", "None"):
        return False
    if partitioning != "hive":
        raise CoveoInputError(
            f"There is no partitioning {partitioning!r}", remedy="Give 'hive', or None for none"
        )
    return True


def partitions_of(path: str) -> dict[str, str | None]:
    """
    Return the columns that the folders of a path give.

    :param path: The path of a file.
    :raises MalformedError: if two folders give different values to one, or a name can't be read.
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
            raise MalformedError(f"its folders give {name!r} two values, {found[name]!r} and {value!r}")
    return found


def rows_with_partitions(
    rows: Iterator[dict[str, Any]], partitions: Mapping[str, str | None]
) -> Iterator[dict[str, Any]]:
    """
    Yield rows with what the folders say.

    :param rows: The rows of a file.
    :param partitions: As :func:`partitions_of` returns them.
    :raises MalformedError: if a row says otherwise.
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
    Yield JSON objects with what the folders say; but for that, each is as it was.

    :param objects: The objects of a file.
    :param partitions: As :func:`partitions_of` returns them.
    :raises MalformedError: if an object says otherwise.
    """
    if not partitions:
        yield from objects
        return
    for text in objects:
        try:
            item = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # Whoever checks the item says so.
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


def _is_same(own: Any, value: str | None) -> bool:
    if own is None or value is None:
        return own is value
    if isinstance(own, bool):
        return str(own).lower() == value.lower()
    text = own.isoformat() if hasattr(own, "isoformat") else str(own)
    if text == value:
        return True
    try:
        # As where a month is written 01.
        return not isinstance(own, str) and int(value) == own
    except ValueError:
        return False


def _conflict(name: str, value: str | None, own: Any) -> MalformedError:
    return MalformedError(
        f"its folder gives {name!r} the value {value!r}, but an item in it has {str(own)[:100]!r}; give "
        "partitioning=None to leave out what the folders say"
    )
