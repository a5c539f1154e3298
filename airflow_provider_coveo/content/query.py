"""Items out of a database, row after row: a table of any size needs no more memory than a few rows."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from airflow.providers.common.compat.sdk import AirflowException, BaseHook

from airflow_provider_coveo.content.rows import row_mapper, row_reader, validate_names
from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.integers import parse_int

_CURSOR_NAME: Final = "coveo_push"
#: The drivers for MySQL and MariaDB that Airflow's hook brings: mysqlclient and mysql-connector-python.
_MYSQL_DRIVERS: Final = frozenset({"MySQLdb", "mysql"})
#: How many seconds a MySQL server waits for somebody who reads the rows no faster than they are pushed.
_PATIENCE_OF_MYSQL: Final = 3600


def read_query(
    conn_id: str,
    sql: str,
    *,
    parameters: Mapping[str, Any] | Sequence[Any] | None = None,
    columns: Mapping[str, str] | None = None,
    hook_params: Mapping[str, Any] | None = None,
    fetch_size: int | str = 2000,
) -> Generator[dict[str, Any], None, None]:
    """
    Yield an item for each row of a query.

    :param conn_id: The connection of the database.
    :param sql: The query.
    :param parameters: Values for its placeholders.
    :param columns: What an item is made of, as :func:`~airflow_provider_coveo.content.rows.row_mapper`
        takes it.
    :param hook_params: Further arguments of the database's hook.
    :param fetch_size: How many rows are fetched at a time.
    :raises CoveoInputError: if the connection is of no database, or the query gives no usable rows.
    """
    with query_rows(
        conn_id, sql, parameters=parameters, hook_params=hook_params, fetch_size=fetch_size
    ) as result:
        make = row_mapper(result.names, columns, result.source)
        for row in result.rows:
            yield make(row)


@dataclass(frozen=True)
class QueryResult:
    """
    The result of a query.

    :param names: The names of its columns.
    :param rows: Its rows, by these names; they can be gone through once.
    :param source: The query in words, for errors.
    """

    names: list[str]
    rows: Iterator[Mapping[str, Any]]
    source: str


@contextmanager
def query_rows(
    conn_id: str,
    sql: str,
    *,
    parameters: Mapping[str, Any] | Sequence[Any] | None = None,
    hook_params: Mapping[str, Any] | None = None,
    fetch_size: int | str = 2000,
    what: str = "query",
) -> Iterator[QueryResult]:
    """
    Execute a query, and give its rows as a stream.

    :param conn_id: The connection of the database.
    :param sql: The query.
    :param parameters: Values for its placeholders.
    :param hook_params: Further arguments of the database's hook.
    :param fetch_size: How many rows are fetched at a time.
    :param what: What the query is called in errors. Default ``query``.
    :raises CoveoInputError: if the connection is of no database, or the query gives no usable rows.
    """
    rows_at_a_time = parse_int(fetch_size)
    if rows_at_a_time is None or rows_at_a_time < 1:
        raise CoveoInputError(
            f"fetch_size is {short_repr(fetch_size)}", remedy="Give a whole number, one or more"
        )
    with _streaming_cursor(_database_hook(conn_id, hook_params).get_conn()) as cursor:
        with suppress(Exception):
            # How many are asked for counts. Some drivers also go by this, and others have no such attribute.
            cursor.arraysize = rows_at_a_time
        if parameters:
            cursor.execute(sql, parameters)
        else:
            cursor.execute(sql)
        rows = _rows(cursor, rows_at_a_time)
        # Some drivers know the columns once a row was fetched.
        first = list(itertools.islice(rows, 1))
        if cursor.description is None:
            raise CoveoInputError(
                f"The {what} on {conn_id!r} gives no rows",
                remedy="Give a SELECT, or another query with a result",
            )
        source = f"The {what} on {conn_id!r}"
        names = validate_names((column[0] for column in cursor.description), source)
        yield QueryResult(names, map(row_reader(names, source), itertools.chain(first, rows)), source)


def _database_hook(conn_id: str, hook_params: Mapping[str, Any] | None) -> Any:
    connection = BaseHook.get_connection(conn_id)
    try:
        hook = connection.get_hook(hook_params=dict(hook_params or {}))
    except AirflowException as unknown:
        raise CoveoInputError(
            f"The connection {conn_id!r} has no hook to query a database with",
            answer=str(unknown),
            cause=f"no provider for connections of the type {connection.conn_type!r} is on the worker",
            remedy="Install that database's provider, as in pip install apache-airflow-providers-postgres",
        ) from unknown
    if not hasattr(hook, "get_conn") or not hasattr(hook, "get_records"):
        raise CoveoInputError(
            f"The connection {conn_id!r} is of no database that can be queried: its hook is "
            f"{type(hook).__name__}",
            remedy="Name a connection whose hook is one of Airflow's DbApiHook",
        )
    return hook


def _rows(cursor: Any, fetch_size: int) -> Iterator[Sequence[Any]]:
    while rows := cursor.fetchmany(fetch_size):
        yield from rows


@contextmanager
def _streaming_cursor(connection: Any) -> Iterator[Any]:
    """Give a cursor that leaves the result at the server where the driver would fetch it whole."""
    # Airflow's hook may wrap the driver's own connection.
    driver = type(connection).__module__.partition(".")[0]
    opened = [connection]
    try:
        if driver in _MYSQL_DRIVERS:
            # The server gives up whoever does not take its rows for a minute, as a push that waits does not.
            with suppress(Exception), closing(connection.cursor()) as settings:
                settings.execute(f"SET SESSION net_write_timeout = {_PATIENCE_OF_MYSQL}")
        cursor = _cursor(connection, driver)
        # A cursor of MySQL reads all that is left when it is closed, unless the connection is gone by then.
        opened.insert(1 if driver in _MYSQL_DRIVERS else 0, cursor)
        yield cursor
    finally:
        # Also if the rows are not read to their end. What was pushed does not fail because of that any more.
        for one in opened:
            with suppress(Exception):
                one.close()


def _cursor(connection: Any, driver: str) -> Any:
    # Rows come as tuples, whatever else the connection would make of them.
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
