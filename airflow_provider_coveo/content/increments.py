"""
Read the items and deletions that a database recorded since a cursor's value.

The query for items is executed before the query for deletions, but its rows are yielded after the deletions.
If an item was deleted and created again, its addition therefore counts. A deletion between the two queries is
later than every value that the cursor has seen, so the next run finds it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

from airflow_provider_coveo.content.query import QueryResult, query_rows
from airflow_provider_coveo.content.rows import remedy_for_column, row_mapper
from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.invalid_items import InvalidValue, ItemWithoutId
from airflow_provider_coveo.coveo.items import Delete

#: Named placeholders: %(since)s, :since (but not ::since, a cast), @since.
_NAMED: Final = re.compile(r"%\((\w+)\)|(?<![:\w]):(\w+)|(?<![@\w])@(\w+)")
#: Positional placeholders. In string literals, quoted names and comments, these signs are no placeholders.
_BY_PLACE: Final = re.compile(r"\?|%s|\$1\b|:1\b")
_NOT_SQL: Final = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|--[^\n]*|/\*.*?\*/""", re.DOTALL)

_IN_PARENTHESES: Final = re.compile(r"\([^()]*\)")
#: What limits the number of a query's rows, outside of parentheses.
_LIMITED: Final = re.compile(
    r"\bLIMIT\s*(?:\d+|[:%?$@]\w*)|\bFETCH\s+(?:FIRST|NEXT)\b|\bSELECT\s+(?:DISTINCT\s+|ALL\s+)?TOP\b|\bROWNUM\b",
    re.IGNORECASE,
)

_FALSE_WORDS: Final = frozenset({"", "0", "f", "false", "n", "no"})
_TRUE_WORDS: Final = frozenset({"1", "t", "true", "y", "yes"})
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d([ T].*)?\Z")


@dataclass(frozen=True)
class Increment:
    """
    The queries for what changed in a database, and the cursor's value.

    :param conn_id: The connection to the database.
    :param sql: The query for items, with a placeholder ``since``.
    :param since: The value of that placeholder.
    :param cursor_column: The column of the query that holds the cursor's values.
    :param advance: Called with each value of that column.
    :param deleted_sql: A query for deletions, with the same placeholder; ``None`` for none.
    :param deleted_since: The value of that placeholder in the query for deletions. Default: the same.
    :param deleted_column: The column of the query that marks deleted rows; ``None`` for none.
    :param parameters: The values of other placeholders.
    :param columns: The mapping of columns to items.
    :param hook_params: Further arguments for the database's hook.
    :param fetch_size: The number of rows fetched at a time.
    """

    conn_id: str
    sql: str
    since: object
    cursor_column: str
    advance: Callable[[object, str], None]
    deleted_sql: str | None = None
    deleted_since: object = None
    deleted_column: str | None = None
    parameters: Mapping[str, object] | Sequence[object] | None = None
    columns: Mapping[str, str] | None = None
    hook_params: Mapping[str, object] | None = None
    fetch_size: int | str = 2000

    def entries(self) -> Generator[object, None, None]:
        """
        Yield a :class:`Delete` for each deletion, then an item or a :class:`Delete` for each row of the
        query.

        :raises CoveoInputError: if a query does not use ``since``, lacks a column, or limits its rows.
        """
        _reject_limit(self.sql, "sql")
        _reject_limit(self.deleted_sql or "", "deleted_sql")
        parameters = parameters_with_since(self.sql, self.since, self.parameters)
        of_deletions = None
        if self.deleted_sql:
            since = self.since if self.deleted_since is None else self.deleted_since
            of_deletions = parameters_with_since(
                self.deleted_sql, since, self.parameters, "deleted_sql", only_used=True
            )
        with ExitStack() as stack:
            result = stack.enter_context(self._rows(self.sql, parameters, "query"))
            # A missing column fails before anything is yielded.
            changed = self._changed(result)
            if self.deleted_sql:
                deleted = stack.enter_context(self._rows(self.deleted_sql, of_deletions, "deleted_sql"))
                yield from self._deleted(deleted)
            yield from changed

    def _rows(
        self, sql: str, parameters: Mapping[str, object] | Sequence[object] | None, what: str
    ) -> AbstractContextManager[QueryResult]:
        return query_rows(
            self.conn_id,
            sql,
            parameters=parameters,
            hook_params=self.hook_params,
            fetch_size=self.fetch_size,
            what=what,
        )

    def _deleted(self, result: QueryResult) -> Iterator[object]:
        """Yield a deletion for each row of the result."""
        columns = {"documentId": _column_of_id(self.columns) or find_column(result, "documentId", "columns")}
        make = row_mapper(result.names, columns, result.source)
        for row in result.rows:
            yield _deletion(make(row))

    def _changed(self, result: QueryResult) -> Iterator[object]:
        """Return an iterator that yields an item or a deletion for each row of the result."""
        cursor = find_column(result, self.cursor_column, "cursor_column")
        flag = None
        names = result.names
        if self.deleted_column:
            flag = find_column(result, self.deleted_column, "deleted_column")
            if self.columns is None:
                # The column that marks deleted rows is not part of the item.
                names = [name for name in names if name != flag]
        make = row_mapper(names, self.columns, result.source)
        of_id = {"documentId": _column_of_id(self.columns) or _id_name(names)}
        make_id = row_mapper(names, of_id, result.source) if flag is not None else make
        what = f"The column {cursor!r}"

        def entries() -> Iterator[object]:
            for row in result.rows:
                # First, so that a value that can't be a cursor fails the push before anything is sent.
                self.advance(_value(row, cursor), what)
                if flag is not None and is_deleted(_value(row, flag), flag):
                    yield _deletion(make_id(row))
                else:
                    yield make(row)

        return entries()


def _reject_limit(sql: str, what: str) -> None:
    plain = _NOT_SQL.sub("''", sql)
    while (outer := _IN_PARENTHESES.sub("", plain)) != plain:
        plain = outer
    found = _LIMITED.search(plain)
    if found is not None:
        raise CoveoInputError(
            f"Could not read {what} with a cursor: {found[0].strip()} limits its rows",
            cause="the cursor would pass the rows beyond the limit, or never reach them, because each run "
            "reads the rows within the lag again",
            remedy="Remove the limit: rows are read and pushed one batch after another, in constant memory",
        )


def parameters_with_since(
    sql: str,
    since: object,
    parameters: Mapping[str, object] | Sequence[object] | None,
    what: str = "sql",
    *,
    only_used: bool = False,
) -> dict[str, object] | tuple[object, ...]:
    """
    Return the values for a query's placeholders, including the cursor's value.

    Named placeholders (``%(since)s``, ``:since``) receive it by name. If placeholders are positional (``?``,
    ``%s``), it is the first value.

    :param sql: The query.
    :param since: The cursor's value.
    :param parameters: The other values.
    :param what: The name of the query in errors. Default ``sql``.
    :param only_used: Whether to omit names that the query does not use. Default ``False``.
    :raises CoveoInputError: if the query has no placeholder for it, or another value uses its name.
    """
    plain = _NOT_SQL.sub("''", sql)
    named = {name for found in _NAMED.findall(plain) for name in found if name}
    if "since" in named:
        if parameters and not isinstance(parameters, Mapping):
            raise CoveoInputError(
                f"{what} has the named placeholder since, but parameters is a {type(parameters).__name__}",
                remedy="Name the other placeholders too, and pass parameters as a dict",
            )
        given = dict(parameters) if isinstance(parameters, Mapping) else {}
        if "since" in given:
            raise CoveoInputError(
                "parameters contains 'since', which is reserved for the cursor",
                remedy="Rename that placeholder, or omit cursor_column",
            )
        if only_used:
            given = {name: value for name, value in given.items() if name in named}
        return {"since": since, **given}
    if isinstance(parameters, Mapping) or not _BY_PLACE.search(plain):
        raise CoveoInputError(
            f"{what} has no placeholder for the cursor, so each run would push everything",
            remedy="Compare the cursor's column with it, as in WHERE updated_at > %(since)s; other drivers "
            "use :since, or ? for the first value",
        )
    return (since, *(parameters or ()))


def find_column(result: QueryResult, name: object, parameter: str) -> str:
    """
    Return the column of a query with a given name, ignoring case.

    :param result: The query's result.
    :param name: The name.
    :param parameter: The parameter that contains the name, for errors.
    :raises CoveoInputError: if there is no such column, or more than one.
    """
    if isinstance(name, str) and name in result.names:
        return str(name)
    found = [each for each in result.names if isinstance(name, str) and each.lower() == name.lower()]
    if len(found) == 1:
        return found[0]
    raise CoveoInputError(
        f"{result.source} has {'no' if not found else 'more than one'} column {short_repr(name)}, which "
        f"{parameter} names",
        remedy="Rename all but one of them with AS" if found else remedy_for_column(name, result.names),
    )


def is_deleted(value: object, column: str) -> bool:
    """
    Return whether a value marks its row as deleted, so that it is neither ``NULL`` nor false.

    :param value: A flag, a number, the time of the deletion, or a text for one of these.
    :param column: The name of the column, for errors.
    :raises CoveoInputError: if the value is none of these.
    """
    is_known = not _is_nan(value)
    if value is None or (isinstance(value, (bool, int, float, Decimal)) and is_known):
        return bool(value)
    if isinstance(value, date) and is_known:
        return True
    if isinstance(value, (bytes, bytearray)) and len(value) == 1:
        # MySQL's BIT(1).
        return value != b"\0" and value != b"0"
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _FALSE_WORDS:
            return False
        if word in _TRUE_WORDS or _TIME.match(word):
            return True
    raise CoveoInputError(
        f"The column {column!r} has the value {short_repr(value)}, which does not show whether the row is "
        "deleted",
        remedy="Select a condition, as in status = 'deleted' AS is_deleted",
    )


def _is_nan(value: object) -> bool:
    """Return whether a value is NaN or pandas.NaT, which are true in Python."""
    if isinstance(value, Decimal):
        return value.is_nan()
    return isinstance(value, (float, date)) and value != value


def _value(row: Mapping[str, object], column: str) -> object:
    try:
        value = row[column]
    except Exception:
        # The row becomes an invalid item, and its error gives the reason.
        return None
    return None if type(value) is InvalidValue else value


def _deletion(item: dict[str, object]) -> object:
    document_id = item.get("documentId")
    # Without a usable ID, it is rejected as an invalid item, with the reason.
    is_unusable = isinstance(item, ItemWithoutId) or type(document_id) is InvalidValue
    return item if is_unusable else Delete(document_id)  # type: ignore[arg-type]


def _column_of_id(columns: Mapping[str, str] | None) -> str | None:
    for key, column in (columns or {}).items():
        if isinstance(key, str) and key.lower() == "documentid":
            return column
    return None


def _id_name(names: Sequence[str]) -> str:
    return next((name for name in names if name.lower() == "documentid"), "documentId")
