"""Items out of rows: which column becomes what."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from airflow_provider_coveo.coveo.errors import CoveoInputError

_COLUMN: Final = re.compile(r"\{([^{}]+)\}")


def items_of_rows(
    rows: Iterator[dict[str, Any]], columns: Mapping[str, str] | None, source: object
) -> Iterator[dict[str, Any]]:
    """
    Yield an item for each row.

    :param rows: The rows, by the names of their columns.
    :param columns: As :func:`item_maker` takes it.
    :param source: What the rows are read from.
    """
    make: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    for row in rows:
        if make is None:
            make = item_maker(list(row), columns, repr(str(source)))
        yield make(row)


def item_maker(
    names: Sequence[str], columns: Mapping[str, str] | None, source: str
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """
    Return what makes an item of a row.

    :param names: The names of the columns.
    :param columns: The item's keys, each with the name of a column or a text with names of columns in braces.
        ``None`` for each column under its own name.
    :param source: Where the rows come from, in words.
    :raises CoveoInputError: if there is no such column.
    """
    plain: list[tuple[str, str]] = []
    composed: list[tuple[str, str, list[str]]] = []
    for key, column in (dict.fromkeys(names) if columns is None else columns).items():
        text = key if column is None else column
        if not isinstance(text, str):
            raise CoveoInputError(f"columns maps {key!r} to {text!r}, which is not the name of a column")
        wanted = [text] if text in names else _COLUMN.findall(text)
        missing = [name for name in wanted if name not in names]
        if missing or not wanted:
            raise CoveoInputError(
                f"{source} has no column {(missing or [text])[0]!r}, which columns asks for under {key!r}",
                remedy=f"The columns are {_named(names)}",
            )
        if text in names:
            plain.append((key, text))
        else:
            composed.append((key, text, wanted))
    keys = names if columns is None else columns
    if not any(isinstance(key, str) and key.lower() == "documentid" for key in keys):
        raise CoveoInputError(
            f"{source} gives items without a documentId",
            remedy=f"Give one by columns, as in {{'documentId': 'product://{{sku}}'}}; the columns are "
            f"{_named(names)}",
        )

    def make(row: Mapping[str, Any]) -> dict[str, Any]:
        item = {}
        for key, name in plain:
            value = row[name]
            if value is None or (value == "" and key.lower() != "data"):
                continue
            item[key] = value
        for key, text, wanted in composed:
            values = {name: row[name] for name in wanted}
            if key.lower() == "documentid" and any(value is None or value == "" for value in values.values()):
                continue
            item[key] = _COLUMN.sub(
                lambda found, values=values: _as_text(values[found[1]]),  # type: ignore[misc]
                text,
            )
        return item

    return make


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _named(names: Iterable[str]) -> str:
    shown = [repr(name) for name in names]
    return ", ".join(shown[:30]) + (", …" if len(shown) > 30 else "")
