"""Map the columns of rows to the keys of items."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.invalid_items import InvalidValue, ItemWithoutId
from airflow_provider_coveo.coveo.metadata import metadata_as_text, plain_text, type_name, unreadable
from airflow_provider_coveo.coveo.quantities import quantity

_COLUMN: Final = re.compile(r"\{([^{}]+)\}")
#: The keys that identify items: without one of its parts, their text would identify another item.
_ID_KEYS: Final = frozenset({"documentid", "parentid"})


def items_of_rows(
    rows: Iterator[Mapping[str, object]], columns: Mapping[str, str] | None, source: object
) -> Iterator[dict[str, object]]:
    """
    Yield an item for each row.

    :param rows: The rows, as mappings of column names.
    :param columns: See :func:`row_mapper`.
    :param source: The origin of the rows.
    """
    make: Callable[[Mapping[str, object]], dict[str, object]] | None = None
    count = 0
    for row in rows:
        if make is None or len(row) != count:
            make, count = row_mapper(list(row), columns, repr(str(source))), len(row)
        yield make(row)


def row_mapper(
    names: Sequence[str], columns: Mapping[str, str] | None, source: str
) -> Callable[[Mapping[str, object]], dict[str, object]]:
    """
    Return a function that creates an item from a row.

    Values in a composed text are formatted like metadata: numbers in digits, times in ISO 8601. A value that
    metadata can't hold, or that can't be read, makes the item invalid, as it does in a column of its own: it
    is replaced by an :class:`~airflow_provider_coveo.coveo.invalid_items.InvalidValue`.

    :param names: The names of the columns.
    :param columns: The item's keys, each with the name of a column or a text with names of columns in braces.
        ``None`` for each column under its own name.
    :param source: The origin of the rows, for messages.
    :raises CoveoInputError: if a column does not exist.
    """
    plain, composed = _assigned(names, columns, source)
    keys = list(names if columns is None else columns)
    _reject_ambiguous_keys(keys, source)
    if not any(key.lower() == "documentid" for key in keys):
        raise CoveoInputError(
            f"Could not read items from {source}: no column is mapped to documentId",
            remedy=f"Map it with columns, as in {{'documentId': 'product://{{sku}}'}}; the columns are "
            f"{_named(names)}",
        )
    copied = [(key, name, key.lower() == "data") for key, name in plain]
    texts = [_Text(key, parts) for key, parts in composed]

    def make(row: Mapping[str, object]) -> dict[str, object]:
        item: dict[str, object] = {}
        for key, name, is_data in copied:
            try:
                value = row[name]
            except Exception as problem:
                item[key] = _unread(name, problem)
                continue
            if value is None or (not is_data and _is_empty(value)):
                continue
            item[key] = value
        missing = None
        for text in texts:
            value = text.of(row)
            if type(value) is _MissingPart:
                missing = value
            elif value is not None:
                item[text.key] = value
        return item if missing is None else ItemWithoutId(item, missing.reason())

    return make


def row_reader(names: Sequence[str], source: str) -> Callable[[object], Mapping[str, object]]:
    """
    Return a function that maps the column names to the values of a database driver's row.

    A mapping is read by name. Anything else with a length and an index is read by position, as Python's
    database API (PEP 249) defines rows: tuples, lists, and a driver's own row classes.

    :param names: The names of the columns.
    :param source: The origin of the rows, for messages.
    :return: The function. It raises CoveoInputError for a row that does not match the columns.
    """
    count = len(names)
    known = set(names)

    def read(row: object) -> Mapping[str, object]:
        if type(row) is not tuple and type(row) is not list:
            try:
                row = read_other(row)
            except (CoveoInputError, MemoryError):
                raise
            except Exception as problem:
                return dict.fromkeys(names, _unread(names[0], problem))
            if type(row) is dict:
                return row
        if len(row) != count:
            raise misread(f"with {quantity(len(row), 'value')}")
        return dict(zip(names, row, strict=True))

    def read_other(row: Any) -> dict[str, object] | list[object]:
        kind = type(row)
        if issubclass(kind, Mapping):
            if len(row) != count or not known.issuperset(row):
                raise misread(f"with the names {_named(row)}")
            return {name: row[name] for name in names}
        if issubclass(kind, (str, bytes, bytearray, memoryview)) or not (
            hasattr(kind, "__len__") and hasattr(kind, "__getitem__")
        ):
            raise misread(f"of type {type_name(row)}")
        if len(row) != count:
            raise misread(f"with {quantity(len(row), 'value')}")
        # Iterating over a driver's row class may yield names instead of values.
        return [row[index] for index in range(count)]

    def misread(what: str) -> CoveoInputError:
        return CoveoInputError(
            f"Could not read {source}: it has {quantity(count, 'column')} ({_named(names)}), but returned a "
            f"row {what}",
            cause="the connection or hook_params set a cursor or row factory that changes the rows",
            remedy="Use the driver's default cursor, or one that returns tuples or dicts",
        )

    return read


def validate_names(names: Iterable[object], source: str) -> list[str]:
    """
    Return the names of a result's columns if they are unique.

    :param names: The names from the driver.
    :param source: The origin of the rows, for messages.
    :raises CoveoInputError: if one is missing, is not a string, or occurs twice.
    """
    checked: list[str] = []
    for number, name in enumerate(names, 1):
        if not isinstance(name, str) or not plain_text(name):
            raise CoveoInputError(
                f"Could not read {source}: {short_repr(name)} is not a name for its column {number}",
                remedy="Name it with AS",
            )
        checked.append(plain_text(name))
    if len(set(checked)) < len(checked):
        twice = next(name for name in checked if checked.count(name) > 1)
        raise CoveoInputError(
            f"Could not read {source}: it has two columns named {twice!r}", remedy="Rename one with AS"
        )
    return checked


@dataclass(frozen=True)
class _MissingPart:
    """
    An empty column that is part of a ``documentId``.

    :param name: The column's name.
    """

    name: str

    def reason(self) -> InvalidValue:
        """Return the reason why the item has no ``documentId``."""
        return InvalidValue(
            f"it has no documentId: the column {short_repr(self.name)}, which is part of it, is empty",
            "Exclude such rows from the input, or compose the documentId from columns that are never empty",
        )


class _Text:
    """
    A text that is composed of columns.

    :param key: Its key in the item.
    :param parts: Its parts: a text each, and whether it is the name of a column.
    """

    def __init__(self, key: str, parts: list[tuple[str, bool]]) -> None:
        self.key = key
        self._parts = parts
        self._is_id = key.lower() in _ID_KEYS
        self._is_kept_empty = key.lower() == "data"

    def of(self, row: Mapping[str, object]) -> str | InvalidValue | _MissingPart | None:
        """
        Return the text for a row, ``None`` to omit it from the item.

        :param row: The row.
        """
        text = []
        for part, is_column in self._parts:
            if not is_column:
                text.append(part)
                continue
            try:
                value = row[part]
            except Exception as problem:
                return _unread(part, problem)
            if type(value) is InvalidValue:
                return value
            if value is None or _is_empty(value):
                if self._is_id:
                    # An item without a known parent has none, but every item needs an ID.
                    return None if self.key.lower() == "parentid" else _MissingPart(part)
                continue
            try:
                text.append(metadata_as_text(part, value, in_id=self._is_id))
            except CoveoInputError as error:
                return InvalidValue(f"its {self.key} could not be composed: {error.tried}", error.remedy)
        composed = "".join(text)
        return composed if composed or self._is_kept_empty else None


def _assigned(
    names: Sequence[str], columns: object, source: str
) -> tuple[list[tuple[str, str]], list[tuple[str, list[tuple[str, bool]]]]]:
    """Return the keys that map to a column, and the keys that map to a composed text with its parts."""
    if columns is not None and not isinstance(columns, Mapping):
        raise CoveoInputError(
            f"columns must be a mapping of keys to columns, not {type_name(columns)}",
            remedy="As in {'documentId': 'product://{sku}', 'title': 'name', 'data': 'description'}",
        )
    plain: list[tuple[str, str]] = []
    composed: list[tuple[str, list[tuple[str, bool]]]] = []
    known = set(names)
    for key, column in (dict.fromkeys(names) if columns is None else columns).items():
        text = key if column is None else column
        if not isinstance(key, str) or not key:
            what = "columns" if columns is not None else source
            raise CoveoInputError(
                f"Could not map columns: {what} has {short_repr(key)}, which is not the name of a field",
                remedy="Map every key of an item with columns",
            )
        if not isinstance(text, str):
            raise CoveoInputError(
                f"Could not map columns: {short_repr(text)}, for the key {short_repr(key)}, is not a column",
                remedy=remedy_for_column(text, names),
            )
        pieces = _COLUMN.split(text)
        wanted = [text] if text in known else pieces[1::2]
        missing = [name for name in wanted if name not in known]
        if missing or not wanted:
            raise CoveoInputError(
                f"Could not map columns: {source} has no column {(missing or [text])[0]!r}, for the key "
                f"{key!r}",
                remedy=remedy_for_column((missing or [text])[0], names),
            )
        if text in known:
            plain.append((key, text))
        else:
            parts = [(piece, bool(index % 2)) for index, piece in enumerate(pieces) if piece]
            composed.append((key, parts))
    return plain, composed


def remedy_for_column(name: object, names: Sequence[str]) -> str:
    """
    Return the fix for the name of a column that does not exist.

    :param name: The name.
    :param names: The names of the columns.
    """
    wanted = name.strip().casefold() if isinstance(name, str) else ""
    similar = next((each for each in names if each.strip().casefold() == wanted), None)
    if similar is None:
        return f"Pass the name of one of the columns: {_named(names)}"
    differs = ""
    if similar != similar.strip():
        differs = ", whose name begins or ends with white space"
    elif isinstance(name, str) and similar.lower() == name.lower():
        differs = ", which differs by case"
    return f"Pass {short_repr(similar)}{differs}; the columns are {_named(names)}"


def _reject_ambiguous_keys(keys: Iterable[str], source: str) -> None:
    seen: dict[str, str] = {}
    for key in keys:
        other = seen.setdefault(key.lower(), key)
        if other != key:
            raise CoveoInputError(
                f"The items from {source} have the keys {other!r} and {key!r}, which differ by case only",
                remedy="Select columns with the parameter columns, or rename one: Coveo ignores the case of "
                "keys",
            )


def _is_empty(value: Any) -> bool:
    kind = type(value)
    return not value if kind is str else issubclass(kind, str) and not plain_text(value)


def _unread(name: str, problem: Exception) -> InvalidValue:
    error = unreadable(f"the column {short_repr(name)}", problem)
    return InvalidValue(error.tried, error.remedy)


def _named(names: Iterable[object]) -> str:
    texts = [short_repr(name) for name in names]
    return ", ".join(texts[:30]) + (", …" if len(texts) > 30 else "")
