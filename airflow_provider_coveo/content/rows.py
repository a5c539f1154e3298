"""Items out of rows: which column becomes what."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.invalid_items import InvalidValue, ItemWithoutId
from airflow_provider_coveo.coveo.metadata import metadata_as_text, plain_text, type_name, unreadable

_COLUMN: Final = re.compile(r"\{([^{}]+)\}")
#: The keys whose values tell one item from another: a text for them that lacks a part would be another's.
_ID_KEYS: Final = frozenset({"documentid", "parentid"})


def items_of_rows(
    rows: Iterator[dict[str, Any]], columns: Mapping[str, str] | None, source: object
) -> Iterator[dict[str, Any]]:
    """
    Yield an item for each row.

    :param rows: The rows, by the names of their columns.
    :param columns: As :func:`row_mapper` takes it.
    :param source: What the rows are read from.
    """
    make: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    count = 0
    for row in rows:
        if make is None or len(row) != count:
            make, count = row_mapper(list(row), columns, repr(str(source))), len(row)
        yield make(row)


def row_mapper(
    names: Sequence[str], columns: Mapping[str, str] | None, source: str
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """
    Return what makes an item of a row.

    A value becomes part of a text as metadata is sent: numbers in digits, times in ISO 8601. One that
    metadata can't hold, or that can't be read, makes the item invalid, as it does in a column of its own: in
    its place stands an :class:`~airflow_provider_coveo.coveo.invalid_items.InvalidValue`.

    :param names: The names of the columns.
    :param columns: The item's keys, each with the name of a column or a text with names of columns in braces.
        ``None`` for each column under its own name.
    :param source: Where the rows come from, in words.
    :raises CoveoInputError: if there is no such column.
    """
    plain, composed = _assigned(names, columns, source)
    keys = list(names if columns is None else columns)
    _refuse_ambiguous_keys(keys, source)
    if not any(key.lower() == "documentid" for key in keys):
        raise CoveoInputError(
            f"{source} gives items without a documentId",
            remedy=f"Give one by columns, as in {{'documentId': 'product://{{sku}}'}}; the columns are "
            f"{_named(names)}",
        )
    copied = [(key, name, key.lower() == "data") for key, name in plain]
    texts = [_Text(key, parts) for key, parts in composed]

    def make(row: Mapping[str, Any]) -> dict[str, Any]:
        item: dict[str, Any] = {}
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


def row_reader(names: Sequence[str], source: str) -> Callable[[Any], Mapping[str, Any]]:
    """
    Return what gives the values of a database driver's row by the names of their columns.

    A mapping has them by name. Anything else is read by place, as the database API of Python (PEP 249)
    defines rows, if it has a length and takes an index: tuples and lists, and rows of classes of a driver's
    own.

    :param names: The names of the columns.
    :param source: Where the rows come from, in words.
    :return: A function, which raises CoveoInputError for a row that has other values than these columns'.
    """
    count = len(names)
    known = set(names)

    def read(row: Any) -> Mapping[str, Any]:
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
            raise misread(f"with {len(row)} values")
        return dict(zip(names, row, strict=True))

    def read_other(row: Any) -> dict[str, Any] | list[Any]:
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
            raise misread(f"with {len(row)} values")
        # A class of a driver may give names when it is gone through.
        return [row[place] for place in range(count)]

    def misread(what: str) -> CoveoInputError:
        return CoveoInputError(
            f"{source} has the {count} columns {_named(names)}, and gives a row {what}",
            cause="the connection or hook_params set a cursor or a row factory that makes something else of "
            "rows",
            remedy="Use the driver's own cursor, or one that gives tuples or dicts",
        )

    return read


def validate_names(names: Iterable[Any], source: str) -> list[str]:
    """
    Return the names of the columns of a result if each tells one column.

    :param names: The names as the driver gives them.
    :param source: Where the rows come from, in words.
    :raises CoveoInputError: if one is missing, is no text, or occurs twice.
    """
    checked: list[str] = []
    for number, name in enumerate(names, 1):
        if not isinstance(name, str) or not plain_text(name):
            raise CoveoInputError(
                f"{source} gives no name to its column {number}, but {short_repr(name)}",
                remedy="Name it with AS",
            )
        checked.append(plain_text(name))
    if len(set(checked)) < len(checked):
        twice = next(name for name in checked if checked.count(name) > 1)
        raise CoveoInputError(f"{source} gives two columns named {twice!r}", remedy="Rename one with AS")
    return checked


@dataclass(frozen=True)
class _MissingPart:
    """
    A column of which a ``documentId`` is composed, and which is empty.

    :param name: The column's name.
    """

    name: str

    def reason(self) -> InvalidValue:
        """Return why the item has no ``documentId``."""
        return InvalidValue(
            f"it has no documentId: the column {short_repr(self.name)}, of which that is composed, is empty",
            "Leave such rows out of the input, or compose the documentId of columns that are never empty",
        )


class _Text:
    """
    A text that is composed of columns.

    :param key: The key under which it stands in the item.
    :param parts: Its parts: each a text, and whether that is the name of a column.
    """

    def __init__(self, key: str, parts: list[tuple[str, bool]]) -> None:
        self.key = key
        self._parts = parts
        self._is_id = key.lower() in _ID_KEYS
        self._is_kept_empty = key.lower() == "data"

    def of(self, row: Mapping[str, Any]) -> str | InvalidValue | _MissingPart | None:
        """
        Return the text for a row, ``None`` if the item does without it.

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
                    # An item whose parent is not known has none; one must have an ID.
                    return None if self.key.lower() == "parentid" else _MissingPart(part)
                continue
            try:
                text.append(metadata_as_text(part, value, in_id=self._is_id))
            except CoveoInputError as error:
                return InvalidValue(f"its {self.key} can't be composed: {error.tried}", error.remedy)
        composed = "".join(text)
        return composed if composed or self._is_kept_empty else None


def _assigned(
    names: Sequence[str], columns: Any, source: str
) -> tuple[list[tuple[str, str]], list[tuple[str, list[tuple[str, bool]]]]]:
    """Return which keys hold which column, and which hold a text composed of which parts."""
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
            what = "columns has the key" if columns is not None else f"{source} has a column named"
            raise CoveoInputError(
                f"{what} {short_repr(key)}, which is not the name of a field",
                remedy="Name each key that an item is to have by columns",
            )
        if not isinstance(text, str):
            raise CoveoInputError(
                f"columns maps {short_repr(key)} to {short_repr(text)}, which is not the name of a column",
                remedy=f"The columns are {_named(names)}",
            )
        pieces = _COLUMN.split(text)
        wanted = [text] if text in known else pieces[1::2]
        missing = [name for name in wanted if name not in known]
        if missing or not wanted:
            raise CoveoInputError(
                f"{source} has no column {(missing or [text])[0]!r}, which columns asks for under {key!r}",
                remedy=f"The columns are {_named(names)}",
            )
        if text in known:
            plain.append((key, text))
        else:
            parts = [(piece, bool(place % 2)) for place, piece in enumerate(pieces) if piece]
            composed.append((key, parts))
    return plain, composed


def _refuse_ambiguous_keys(keys: Iterable[str], source: str) -> None:
    seen: dict[str, str] = {}
    for key in keys:
        other = seen.setdefault(key.lower(), key)
        if other != key:
            raise CoveoInputError(
                f"{source} gives items with the keys {other!r} and {key!r}, which differ by case only",
                remedy="Coveo takes keys in any case: choose the columns by columns, or rename one",
            )


def _is_empty(value: Any) -> bool:
    kind = type(value)
    return not value if kind is str else issubclass(kind, str) and not plain_text(value)


def _unread(name: str, problem: Exception) -> InvalidValue:
    error = unreadable(f"the column {short_repr(name)}", problem)
    return InvalidValue(error.tried, error.remedy)


def _named(names: Iterable[Any]) -> str:
    texts = [short_repr(name) for name in names]
    return ", ".join(texts[:30]) + (", …" if len(texts) > 30 else "")
