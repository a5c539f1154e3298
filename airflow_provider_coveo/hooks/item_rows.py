"""Items out of a database, row after row: a table of any size needs no more memory than a few rows."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.hooks.item_files import item_maker

_CURSOR_NAME = "coveo_push"


def items_of_query(
    conn_id: str,
    sql: str,
    *,
    parameters: Mapping[str, Any] | Sequence[Any] | None = None,
    columns: Mapping[str, str] | None = None,
    hook_params: Mapping[str, Any] | None = None,
    fetch_size: int = 2000,
) -> Generator[dict[str, Any], None, None]:
    """
    Yield an item for each row of a query.

    :param conn_id: The connection of the database.
    :param sql: The query.
    :param parameters: Values for its placeholders.
    :param columns: What an item is made of, as :func:`~airflow_provider_coveo.hooks.item_files.item_maker`
        takes it.
    :param hook_params: Further arguments of the database's hook.
    :param fetch_size: How many rows are fetched at a time.
    :raises CoveoInputError: if the connection is of no database, or the query gives no usable rows.
    """
    if fetch_size < 1:
        raise CoveoInputError(f"fetch_size is {fetch_size!r}", remedy="Give a whole number, one or more")
    hook = BaseHook.get_connection(conn_id).get_hook(hook_params=dict(hook_params or {}))
    if not hasattr(hook, "get_conn") or not hasattr(hook, "get_records"):
        raise CoveoInputError(
            f"The connection {conn_id!r} is of no database that can be queried: its hook is "
            f"{type(hook).__name__}",
            remedy="Name a connection whose hook is one of Airflow's DbApiHook",
        )
    # Both are closed even if the rows are not read to their end.
    with closing(hook.get_conn()) as connection, closing(_streaming_cursor(connection)) as cursor:
        cursor.arraysize = fetch_size
        if parameters:
            cursor.execute(sql, parameters)
        else:
            cursor.execute(sql)
        rows = _rows(cursor, fetch_size)
        first = next(rows, None)
        if cursor.description is None:
            raise CoveoInputError(
                f"The query on {conn_id!r} gives no rows",
                remedy="Give a SELECT, or another query with a result",
            )
        names = [str(column[0]) for column in cursor.description]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise CoveoInputError(
                f"The query on {conn_id!r} gives two columns named {twice!r}", remedy="Rename one with AS"
            )
        make = item_maker(names, columns, f"The query on {conn_id!r}")
        if first is not None:
            yield make(dict(zip(names, first, strict=True)))
        for row in rows:
            yield make(dict(zip(names, row, strict=True)))


def _rows(cursor: Any, fetch_size: int) -> Iterator[Sequence[Any]]:
    while rows := cursor.fetchmany(fetch_size):
        yield from rows


def _streaming_cursor(connection: Any) -> Any:
    """Return a cursor that leaves the result at the server where the driver would fetch it whole."""
    # Airflow's hook may wrap the driver's own connection.
    driver = type(connection).__module__.partition(".")[0]
    if driver in {"psycopg", "psycopg2"}:
        return connection.cursor(name=_CURSOR_NAME)
    if driver == "MySQLdb":
        from MySQLdb.cursors import SSCursor

        return connection.cursor(SSCursor)
    if driver == "pymysql":
        from pymysql.cursors import SSCursor as UnbufferedCursor

        return connection.cursor(UnbufferedCursor)
    return connection.cursor()
