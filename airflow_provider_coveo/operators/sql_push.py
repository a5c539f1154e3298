"""The operator that pushes the rows of a database query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_coveo.airflow_errors import as_non_retryable
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.operators.base import _checked, _is_true
from airflow_provider_coveo.operators.push_base import _ItemsPushOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_coveo.state.cursors import TaskCursor


class SqlToCoveoPushOperator(_ItemsPushOperator):
    """
    Push the rows of a database query as items.

    The rows are read as a stream, so that a table of any size needs no more memory than a few batches: on
    PostgreSQL by a cursor of the server, on MySQL and MariaDB by an unbuffered one, which SQLite's always is.
    Other databases' drivers read as they do; some (Redshift's) hold the whole result. Give the query an
    ``ORDER BY``: only then does a task that is tried again meet the same rows in the same order, and go on
    where it failed. See https://docs.coveo.com/en/90/.

    A time needs a time zone: where the column has none, select ``updated AT TIME ZONE 'UTC'``, on MySQL
    ``DATE_FORMAT(updated, '%Y-%m-%dT%TZ')``. What is ``NULL`` is left out of its item. Needs the extra
    ``[sql]`` and the provider of the database.

    With ``cursor_column``, the task pushes what changed since its last run, for the status INCREMENTAL: the
    query compares that column with the placeholder ``since``, as in ``SELECT * FROM products WHERE updated_at
    > %(since)s ORDER BY updated_at``. Which placeholders there are is up to the driver: ``%(since)s``,
    ``:since``, or ``?`` and ``%s``, of which ``since`` is the first. The cursor moves to the latest value
    once all rows were accepted, in whatever order they came. A run that fails doesn't move it; a retry and a
    clear of a run read the ``since`` that the run began with; it never moves back. It is kept in the Variable
    ``coveo_cursor__<organization>__<source>__<dag>__<task>``, with the map index behind it for a mapped task.
    Delete that Variable to begin at ``cursor_start`` again. A task that is renamed begins with a new cursor.

    :param source_id: The ID of the Push source. (templated)
    :param sql: The query, or a file of that name (``.sql``). No other parameter names a file. (templated)
    :param sql_conn_id: The connection of the database. Its hook must be one of Airflow's ``DbApiHook``.
        (templated)
    :param columns: What an item is made of: its keys, each with the name of a column or a text with names of
        columns in braces, as in ``{"documentId": "product://{sku}", "title": "name", "data": "{name}
        {description}"}``. Default: each column under its own name. In a text, values stand as metadata is
        sent; a ``documentId`` holds no float and no boolean. (templated)
    :param parameters: Values for the placeholders of the query. (templated)
    :param hook_params: Further arguments of the database's hook. Default none.
    :param fetch_size: How many rows are fetched at a time. Default 2000. (templated)
    :param cursor_column: The column of the query that the cursor goes by, in any case: a timestamp, a date, a
        number or a text that only grows. A row without a value is pushed, and doesn't move the cursor; nor
        does a time in the future. Default none: each run pushes all rows. (templated)
    :param cursor_start: ``since`` in the first run. Needed then. (templated)
    :param cursor_reset: Whether to begin at ``cursor_start`` again, whatever the cursor holds; a parameter of
        the DAG can say so. Default ``False``. (templated)
    :param lag: How late a row may become visible after the time that it bears, as in a transaction that is
        still open: rows of that time are read and pushed again, which is harmless. A ``timedelta``, a number
        of seconds for times, or for numbers a number. Default five minutes for timestamps, a day for dates,
        nothing for others. (templated)
    :param deleted_sql: A query for what was deleted, or a file of that name (``.sql``): with the columns of
        which ``columns`` makes the ``documentId``, and compared with ``since`` as well. These deletions are
        pushed before the rows. (templated)
    :param deleted_column: A column of the query that says that a row is deleted, by a flag or by the time of
        the deletion; such rows are deleted by their ``documentId``. (templated)
    :param batch_bytes: How large a batch is at most, in bytes: 1 KiB to 256 MB. Default 12 MiB. (templated)
    :param upload_concurrency: How many batches are uploaded at the same time, 1 to 32. Default 3. (templated)
    :param on_invalid: What to do with a row that Coveo would refuse: ``fail`` (the default), or ``skip`` to
        leave it out. (templated)
    :param max_invalid: With ``skip``, the most of them before the task fails: a number, or a share such as
        ``"1%"``, which counts once 10,000 items are read and in the end. Default 100; any number with
        ``rejected_path``. (templated)
    :param rejected_path: The file for what is invalid, as JSON Lines (``.ndjson``, ``.ndjson.gz``), local or
        on an object storage: ``s3://conn_id@bucket/{{ dag_run.run_id }}/rejected.ndjson.gz``. It is written
        when the push ends, whole, and only if there is something. A mapped task needs ``{{ ti.map_index }}``
        in it. Default none. (templated)
    :param resume: Whether a try that meets the same input as an earlier one of its run goes on where that
        one failed or was killed. Default ``True``. (templated)
    :param check_quota: Whether to ask first how many items may still be pushed today, and to warn if that
        will not do. Default ``True``. (templated)
    :param only_changes: Whether to push only what changed since the task's last run, and to delete what its
        input lacks. Default ``False``. (templated)
    :param max_deleted: With ``only_changes``, how many items may be deleted because the input lacks them: a
        number, or a share of those known, such as ``"5%"``. If more are missing, none is deleted and the task
        fails. Default ``"20%"``. (templated)
    :param snapshot_path: With ``only_changes``, the folder for snapshots, local or on an object storage, that
        all workers reach. Default: as the connection's extra ``snapshot_path`` says. (templated)
    :param full_after: With ``only_changes``, how long until everything is pushed again: a ``timedelta``.
        Default seven days.
    :param on_damaged_snapshot: With ``only_changes``, ``fail`` (the default), or ``push_all`` to push
        everything if the snapshot is damaged. (templated)
    :param check_fields: What to do with metadata that the organization has no field for: ``warn``, ``fail``,
        or ``off`` to ask for no fields. Default ``off``, in a dry run ``warn``. (templated)
    :param dry_run: Whether to send nothing, and to return what would be sent. Default ``False``. (templated)
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, where it is not the connection's. (templated)
    :return: What was accepted: ``accepted_adds``, ``batches``, ``bytes``, ``seconds`` and more.
    :raises CoveoInputError: if a value or a row can't be right; the task does not retry.
    :raises CoveoError: if Coveo refuses or does not answer; the task retries where that can help.
    """

    template_fields: Sequence[str] = (
        *_ItemsPushOperator.template_fields,
        "sql",
        "sql_conn_id",
        "columns",
        "parameters",
        "fetch_size",
        "cursor_column",
        "cursor_start",
        "cursor_reset",
        "lag",
        "deleted_sql",
        "deleted_column",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "sql": "sql",
        "deleted_sql": "sql",
        "parameters": "json",
    }
    #: The parameters whose value may name a file.
    _may_name_files: ClassVar[tuple[str, ...]] = ("sql", "deleted_sql")

    def __init__(
        self,
        *,
        sql: str,
        sql_conn_id: str,
        columns: Mapping[str, str] | None = None,
        parameters: Mapping[str, Any] | Sequence[Any] | None = None,
        hook_params: Mapping[str, Any] | None = None,
        fetch_size: int | str = 2000,
        cursor_column: str | None = None,
        cursor_start: Any = None,
        cursor_reset: bool | str = False,
        lag: timedelta | float | str | None = None,
        deleted_sql: str | None = None,
        deleted_column: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sql = sql
        self.sql_conn_id = sql_conn_id
        self.columns = columns
        self.parameters = parameters
        self.hook_params = hook_params
        self.fetch_size = fetch_size
        self.cursor_column = cursor_column
        self.cursor_start = cursor_start
        self.cursor_reset = cursor_reset
        self.lag = lag
        self.deleted_sql = deleted_sql
        self.deleted_column = deleted_column

    def resolve_template_files(self) -> None:
        """Read a query that stands in a file. No other parameter names one, whatever its value ends in."""
        all_fields = self.template_fields
        self.template_fields = self._may_name_files
        try:
            super().resolve_template_files()
        finally:
            self.template_fields = all_fields

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], *args: Any, **kwargs: Any
    ) -> None:
        for field in template_fields:
            if parent is not self or field not in self._may_name_files:
                self.template_ext = ()
            try:
                super()._do_render_template_fields(parent, [field], *args, **kwargs)
            finally:
                self.template_ext = type(self).template_ext

    def execute(self, context: Context) -> dict[str, Any]:
        """Push the rows."""
        if self.cursor_column and _is_true(self.only_changes):
            raise as_non_retryable(
                CoveoInputError(
                    f"Task {self.task_id!r} has only_changes and a cursor_column",
                    cause="behind a cursor, the query lacks all rows that did not change",
                    remedy="Leave out one: a cursor is for a query of changes, only_changes for one of all",
                )
            )
        if self.cursor_column:
            return self._push_increment(context)
        for name in ("cursor_start", "lag", "deleted_sql", "deleted_column"):
            if getattr(self, name) is not None and getattr(self, name) != "":
                raise as_non_retryable(
                    CoveoInputError(f"{name} is given without cursor_column", remedy="Give cursor_column")
                )
        from airflow_provider_coveo.content.query import read_query

        rows = read_query(
            self.sql_conn_id,
            self.sql,
            parameters=self.parameters,
            columns=self.columns,
            hook_params=self.hook_params,
            fetch_size=self.fetch_size,
        )
        return dict(self._push(context, rows))

    def _push_increment(self, context: Context) -> dict[str, Any]:
        """Push what changed since the cursor, and move it."""
        from airflow_provider_coveo.content.increments import Increment
        from airflow_provider_coveo.state.cursor_scope import cursor_scope

        with cursor_scope(lambda: self.hook.organization_id, self.source_id) as scope:
            cursor = _checked(self._open_cursor, context)
            scope.add(cursor)
            increment = Increment(
                self.sql_conn_id,
                self.sql,
                cursor.since,
                self.cursor_column or "",
                cursor.advance,
                self.deleted_sql or None,
                self.deleted_column or None,
                self.parameters,
                self.columns,
                self.hook_params,
                self.fetch_size,
            )
            self.log.info("Pushing what changed since %s", cursor.since)
            result = self._push(context, increment.entries())
            scope.ended(result)
        return {**result, "since": str(cursor.since)}

    def _open_cursor(self, context: Context) -> TaskCursor:
        from airflow_provider_coveo.coveo.cursor_values import validate_lag
        from airflow_provider_coveo.state.cursors import TaskCursor, start_value

        if "ti" not in context:
            raise CoveoInputError(
                f"Task {self.task_id!r} has a cursor, and is not executed in a run",
                remedy="Run the DAG, for example with airflow dags test",
            )
        cursor = TaskCursor(
            context,
            self.hook.organization_id,
            self.source_id,
            start=start_value(None if self.cursor_start == "" else self.cursor_start),
            lag=validate_lag(self.lag),
            reset=_is_true(self.cursor_reset),
        )
        if cursor.since is None:
            raise CoveoInputError(
                f"The cursor {cursor.variable!r} has no value yet, and there is no cursor_start",
                cause="a query that compares with NULL gives no rows",
                remedy="Give cursor_start, such as '1970-01-01T00:00:00+00:00', or 0",
            )
        return cursor

    def _lineage(self, **read: Any) -> OperatorLineage[Any, Any] | None:
        from airflow_provider_coveo.lineage.coveo_push import Query

        query = Query(self.sql, self.sql_conn_id, self.hook_params or {})
        return super()._lineage(query=query, **read)
