"""Read items from a database as a stream: a table of any size needs no more memory than a few rows."""

from __future__ import annotations

import itertools
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from airflow.providers.common.compat.sdk import AirflowException, BaseHook

from airflow_provider_coveo.content.rows import row_mapper, row_reader, validate_names
from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.integers import parse_int

_CURSOR_NAME: Final = "coveo_push"
#: The rows that are fetched first, before their size is known.
_FIRST_ROWS: Final = 32
#: The approximate size of the rows that are fetched at a time.
_BYTES_AT_A_TIME: Final = 8 * 1024 * 1024
#: The rows of each fetch that are measured.
_SAMPLED_ROWS: Final = 8
#: The types of values that can be large.
_SIZED: Final = frozenset({str, bytes, bytearray, memoryview})
#: The drivers for MySQL and MariaDB that Airflow's hook uses: mysqlclient and mysql-connector-python.
_MYSQL_DRIVERS: Final = frozenset({"MySQLdb", "mysql"})
#: The packages of Airflow's providers by their types of connections to databases.
_PROVIDERS: Final = {
    **{name: name for name in ("mysql", "oracle", "postgres", "snowflake", "sqlite", "teradata", "trino")},
    **{name: name for name in ("databricks", "exasol", "jdbc", "odbc", "presto", "vertica")},
    "mssql": "microsoft-mssql",
    "redshift": "amazon",
    "gcpbigquery": "google",
}
#: Drivers whose placeholders are :name, and never %(name)s.
_DRIVERS_WITH_COLONS: Final = frozenset({"sqlite3", "oracledb"})
_PERCENT_PLACEHOLDER: Final = re.compile(r"%\((\w+)\)s|%s\b")
_TEXT: Final = re.compile(r"'(?:[^']|'')*'")
#: Seconds that a MySQL server waits for a client that reads rows only as fast as they are pushed.
_MYSQL_WRITE_TIMEOUT: Final = 3600


def read_query(
    conn_id: str,
    sql: str,
    *,
    parameters: Mapping[str, object] | Sequence[object] | None = None,
    columns: Mapping[str, str] | None = None,
    hook_params: Mapping[str, object] | None = None,
    fetch_size: int | str = 2000,
) -> Generator[dict[str, object], None, None]:
    """
    Yield an item for each row of a query.

    :param conn_id: The connection to the database.
    :param sql: The query.
    :param parameters: Values for its placeholders.
    :param columns: The mapping of columns to items; see
        :func:`~airflow_provider_coveo.content.rows.row_mapper`.
    :param hook_params: Further arguments for the database's hook.
    :param fetch_size: The maximum number of rows to fetch at a time. Fewer are fetched if they are large.
    :raises CoveoInputError: if the connection is not a database, or the query returns no usable rows.
    """
    with query_rows(
        conn_id, sql, parameters=parameters, hook_params=hook_params, fetch_size=fetch_size
    ) as result:
        make = row_mapper(result.names, columns, result.source)
        for row in result.rows:
            yield make(row)


class _Cursor(Protocol):
    """The part of a database driver's cursor (PEP 249) that the provider uses."""

    arraysize: int

    @property
    def description(self) -> Sequence[Sequence[object]] | None: ...

    def execute(self, sql: str, parameters: object = ..., /) -> object: ...

    def fetchmany(self, size: int, /) -> Sequence[Sequence[object]]: ...

    def close(self) -> None: ...


class _Connection(Protocol):
    """The part of a database driver's connection (PEP 249) that the provider uses."""

    def cursor(self, *args: object, **kwargs: object) -> _Cursor: ...

    def close(self) -> None: ...


class _DatabaseHook(Protocol):
    """The part of Airflow's ``DbApiHook`` that the provider uses."""

    def get_conn(self) -> _Connection: ...


@dataclass(frozen=True)
class QueryResult:
    """
    The result of a query.

    :param names: The names of its columns.
    :param rows: Its rows, as mappings of these names; they can be read once.
    :param source: A description of the query, for errors.
    """

    names: list[str]
    rows: Iterator[Mapping[str, object]]
    source: str


@contextmanager
def query_rows(
    conn_id: str,
    sql: str,
    *,
    parameters: Mapping[str, object] | Sequence[object] | None = None,
    hook_params: Mapping[str, object] | None = None,
    fetch_size: int | str = 2000,
    what: str = "query",
) -> Iterator[QueryResult]:
    """
    Execute a query, and return its rows as a stream.

    :param conn_id: The connection to the database.
    :param sql: The query.
    :param parameters: Values for its placeholders.
    :param hook_params: Further arguments for the database's hook.
    :param fetch_size: The maximum number of rows to fetch at a time. Fewer are fetched if they are large.
    :param what: The name of the query in errors. Default ``query``.
    :raises CoveoInputError: if the connection is not a database, or the query returns no usable rows.
    """
    rows_at_a_time = parse_int(fetch_size)
    if rows_at_a_time is None or rows_at_a_time < 1:
        raise CoveoInputError(
            f"Invalid fetch_size: {short_repr(fetch_size)}", remedy="Use an integer of 1 or more"
        )
    with _streaming_cursor(_database_hook(conn_id, hook_params).get_conn()) as cursor:
        with suppress(Exception):
            # The argument of fetchmany counts. Some drivers also use this attribute, others lack it.
            cursor.arraysize = rows_at_a_time
        try:
            if parameters:
                cursor.execute(sql, parameters)
            else:
                cursor.execute(sql)
        except Exception as problem:
            _explain_placeholders(problem, sql, f"{what} on {conn_id!r}")
            raise
        rows = _rows(cursor, rows_at_a_time)
        # Some drivers know the columns only after the first row.
        first = list(itertools.islice(rows, 1))
        if cursor.description is None:
            raise CoveoInputError(
                f"The {what} on {conn_id!r} returns no rows",
                remedy="Use a SELECT, or another query with a result",
            )
        source = f"the {what} on {conn_id!r}"
        names = validate_names((column[0] for column in cursor.description), source)
        yield QueryResult(names, map(row_reader(names, source), itertools.chain(first, rows)), source)


def _explain_placeholders(problem: Exception, sql: str, what: str) -> None:
    """Raise an error with the fix if a query has placeholders in a style that its driver does not know."""
    driver = type(problem).__module__.partition(".")[0]
    if driver in _DRIVERS_WITH_COLONS and (found := _PERCENT_PLACEHOLDER.search(_TEXT.sub("''", sql))):
        by_place = "?" if driver == "sqlite3" else ":1"
        raise CoveoInputError(
            f"Could not execute the {what}",
            answer=str(problem),
            cause=f"this database has no placeholders such as {found[0]}",
            remedy=f"Write {':' + found[1] if found[1] else by_place} instead",
        ) from problem


def _database_hook(conn_id: str, hook_params: Mapping[str, object] | None) -> _DatabaseHook:
    connection = BaseHook.get_connection(conn_id)
    try:
        hook: _DatabaseHook = connection.get_hook(hook_params=dict(hook_params or {}))
    except AirflowException as unknown:
        known = _PROVIDERS.get(str(connection.conn_type))
        raise CoveoInputError(
            f"Could not query the connection {conn_id!r}",
            answer=str(unknown),
            cause=f"no provider for connections of type {connection.conn_type!r} is on the worker",
            remedy=f"Install it on the worker: pip install apache-airflow-providers-{known}"
            if known
            else "Install that database's provider, or correct the connection's type",
        ) from unknown
    if not hasattr(hook, "get_conn") or not hasattr(hook, "get_records"):
        raise CoveoInputError(
            f"Could not query the connection {conn_id!r}: its hook, {type(hook).__name__}, is not for SQL "
            "databases",
            remedy="Use a connection whose hook is a DbApiHook of Airflow",
        )
    return hook


def _rows(cursor: _Cursor, fetch_size: int) -> Iterator[Sequence[object]]:
    count = min(fetch_size, _FIRST_ROWS)
    while rows := cursor.fetchmany(count):
        # Memory holds the rows that were fetched together, so only small ones may be many.
        sample = [*rows[:: len(rows) // _SAMPLED_ROWS + 1], rows[-1]]
        count = max(1, min(fetch_size, _BYTES_AT_A_TIME // max(1, *map(_size_of, sample))))
        yield from rows


def _size_of(row: Any) -> int:
    """Return the approximate size of a row's texts and bytes; 0 if it can't be read, which is found later."""
    try:
        values = row.values() if isinstance(row, Mapping) else [row[index] for index in range(len(row))]
        return sum(len(value) for value in values if type(value) in _SIZED)
    except Exception:
        return 0


@contextmanager
def _streaming_cursor(connection: _Connection) -> Iterator[_Cursor]:
    """Open a cursor that leaves the result on the server even if the driver's default fetches it whole."""
    # Airflow's hook may wrap the driver's own connection.
    driver = type(connection).__module__.partition(".")[0]
    opened: list[_Connection | _Cursor] = [connection]
    try:
        if driver in _MYSQL_DRIVERS:
            # By default, the server drops a client that reads no rows for a minute, as a waiting push does.
            with suppress(Exception), closing(connection.cursor()) as settings:
                settings.execute(f"SET SESSION net_write_timeout = {_MYSQL_WRITE_TIMEOUT}")
        cursor = _cursor(connection, driver)
        # Closing a MySQL cursor reads all remaining rows, unless the connection is closed first.
        opened.insert(1 if driver in _MYSQL_DRIVERS else 0, cursor)
        yield cursor
    finally:
        # This runs even if rows are left. An error here must not fail a push that has succeeded.
        for one in opened:
            with suppress(Exception):
                one.close()


def _cursor(connection: _Connection, driver: str) -> _Cursor:
    # Rows are tuples, whatever row factory the connection sets.
    if driver == "psycopg":
        from psycopg.rows import tuple_row

        return connection.cursor(name=_CURSOR_NAME, row_factory=tuple_row)
    if driver == "psycopg2":
        from psycopg2.extensions import cursor

        return connection.cursor(name=_CURSOR_NAME, cursor_factory=cursor)
    if driver == "MySQLdb":
        from MySQLdb.cursors import SSCursor

        return connection.cursor(SSCursor)
    return connection.cursor()
