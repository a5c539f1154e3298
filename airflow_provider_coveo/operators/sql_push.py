"""The operator that pushes the rows of a database query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_coveo.airflow_errors import invalid_input
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.operators.base import _checked, _flag
from airflow_provider_coveo.operators.dry_run import runs_dry
from airflow_provider_coveo.operators.push_base import _ItemsPushOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from typing_extensions import Unpack

    from airflow_provider_coveo.lineage.coveo_push import Lineage, Query
    from airflow_provider_coveo.operators.arguments import PushArguments
    from airflow_provider_coveo.state.cursors import TaskCursor


class SqlToCoveoPushOperator(_ItemsPushOperator):
    """
    Push the rows of a database query as items.

    The task reads the rows as a stream, so a table of any size needs no more memory than a few batches.
    PostgreSQL uses a server-side cursor, MySQL and MariaDB an unbuffered one, and SQLite never buffers. Other
    drivers use their own defaults; some (Redshift's) hold the whole result. Add an ``ORDER BY`` to the query:
    only then does a retry get the same rows in the same order, and resume where the task failed. See
    https://docs.coveo.com/en/90/.

    A time needs a time zone: if the column has none, select ``updated AT TIME ZONE 'UTC'``, on MySQL
    ``DATE_FORMAT(updated, '%Y-%m-%dT%TZ')``. Items omit ``NULL`` values. The operator needs the extra
    ``[sql]`` and the provider of the database.

    With ``cursor_column``, the task pushes what changed since its last run, for the status INCREMENTAL: the
    query compares that column with the placeholder ``since``, as in ``SELECT * FROM products WHERE updated_at
    > %(since)s ORDER BY updated_at``. The driver defines the placeholder: ``%(since)s``, ``:since``, or
    ``?`` and ``%s``, of which ``since`` is the first. The cursor moves to the latest value after all rows
    were accepted, in any order. A run that fails doesn't move it; a retry and a clear of a run use the
    ``since`` with which the run began; it never moves back. It is saved in the Variable
    ``coveo_cursor__<organization>__<source>__<dag>__<task>``, plus the map index of a mapped task. Delete
    that Variable to start at ``cursor_start`` again. A renamed task starts with a new cursor.

    :param source_id: The ID of the Push source. (templated)
    :param sql: The query, or the name of a ``.sql`` file. No other parameter is read from a file. (templated)
    :param sql_conn_id: The connection of the database. Its hook must be a ``DbApiHook`` of Airflow.
        (templated)
    :param columns: The mapping of columns to items: each key of an item, with the name of a column or a text
        with names of columns in braces, as in
        ``{"documentId": "product://{sku}", "title": "name", "data": "{name} {description}"}``. Default: each
        column under its own name. In a text, values are formatted like
        metadata; a ``documentId`` can't contain floats and booleans. (templated)
    :param parameters: Values for the placeholders of the query. (templated)
    :param hook_params: Further arguments of the database's hook. Default none.
    :param fetch_size: The maximum number of rows to fetch at a time. Fewer are fetched if they are large.
        Default 2000. (templated)
    :param cursor_column: The query's column for the cursor, in any case: a timestamp, a date, a number or a
        string that only increases. A row without a value is pushed but doesn't move the cursor; nor does a
        time in the future. Default none: each run pushes all rows. (templated)
    :param cursor_start: ``since`` in the first run, which requires it. (templated)
    :param cursor_reset: Whether to start at ``cursor_start`` again, whatever the cursor's value, for example
        from a param of the DAG. Default ``False``. (templated)
    :param lag: The maximum delay until a row becomes visible after its own timestamp, because of a
        transaction that is still open, for example. Rows of that period are read and pushed again, which is
        harmless. A ``timedelta``; a number of seconds for times; a number for numbers. Texts have none.
        Default five minutes for timestamps, a day for dates, none for others. (templated)
    :param deleted_sql: A query for deleted rows, or the name of a ``.sql`` file. It returns the columns from
        which ``columns`` composes the ``documentId``, and also compares with ``since``. These deletions are
        pushed before the rows. (templated)
    :param deleted_column: A column of the query that marks a deleted row, with a flag or the time of the
        deletion; such rows are deleted by their ``documentId``. (templated)
    :param batch_bytes: The maximum size of a batch in bytes: 1 KiB to 256 MB. Default 12 MiB. (templated)
    :param upload_concurrency: The number of batches that are uploaded at the same time, 1 to 32. Default 3.
        (templated)
    :param on_invalid: The handling of a row that Coveo would reject: ``fail`` (the default), or ``skip`` to
        leave it out. (templated)
    :param max_invalid: With ``skip``, the maximum number of them before the task fails: a number, or a share
        such as ``"1%"``, which is checked after 10,000 items and at the end. Default 100; any number with
        ``rejected_path``. (templated)
    :param rejected_path: The file for invalid items, as JSON Lines (``.ndjson``, ``.ndjson.gz``), local or
        on an object storage: ``s3://conn_id@bucket/{{ dag_run.run_id }}/rejected.ndjson.gz``. It is written
        completely when the push ends, and only if there are any. For a mapped task, the path must contain
        ``{{ ti.map_index }}``. Default none. (templated)
    :param resume: Whether an attempt with the same input as an earlier one of its run resumes where that one
        failed or was killed. Default ``True``. (templated)
    :param check_quota: Whether to check first how many items can still be pushed today, and to warn if that
        is too few. Default ``True``. (templated)
    :param only_changes: Whether to push only what changed since the task's last run, and to delete what its
        input lacks. Default ``False``. (templated)
    :param max_deleted: With ``only_changes``, the maximum number of items to delete because the input lacks
        them: a number, or a share of the known items, such as ``"5%"``. If more are missing, none is deleted
        and the task fails. Default ``"20%"``. (templated)
    :param snapshot_path: With ``only_changes``, the folder for snapshots, local or on an object storage, that
        all workers can access. Default: the connection's extra ``snapshot_path``. (templated)
    :param full_after: With ``only_changes``, the time until everything is pushed again: a ``timedelta``.
        Default seven days.
    :param on_damaged_snapshot: With ``only_changes``, ``fail`` (the default), or ``push_all`` to push
        everything if the snapshot is damaged. (templated)
    :param check_fields: The handling of metadata for which the organization has no field: ``warn``, ``fail``,
        or ``off`` to skip the check. ``None`` or an empty text means the default: ``off``, in a dry run
        ``warn``. (templated)
    :param dry_run: Whether to send nothing, and to return what would be sent. Default ``False``. (templated)
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, if it differs from the connection's. (templated)
    :return: The accepted counts: ``accepted_adds``, ``batches``, ``bytes``, ``seconds`` and more.
    :raises CoveoInputError: if a parameter or a row is invalid; the task does not retry.
    :raises CoveoError: if the request fails; the task retries if that can help.
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
    #: The parameters whose value can be the name of a file.
    _may_name_files: ClassVar[tuple[str, ...]] = ("sql", "deleted_sql")

    def __init__(
        self,
        *,
        sql: str,
        sql_conn_id: str,
        columns: Mapping[str, str] | None = None,
        parameters: Mapping[str, object] | Sequence[object] | None = None,
        hook_params: Mapping[str, object] | None = None,
        fetch_size: int | str = 2000,
        cursor_column: str | None = None,
        cursor_start: object = None,
        cursor_reset: bool | str = False,
        lag: timedelta | float | str | None = None,
        deleted_sql: str | None = None,
        deleted_column: str | None = None,
        **kwargs: Unpack[PushArguments],
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
        """Read a query from a file. No other parameter is read from one, whatever its suffix."""
        all_fields = self.template_fields
        self.template_fields = self._may_name_files
        try:
            super().resolve_template_files()
        finally:
            self.template_fields = all_fields

    def _do_render_template_fields(
        self, parent: object, template_fields: Iterable[str], *args: Any, **kwargs: Any
    ) -> None:
        for field in template_fields:
            if parent is not self or field not in self._may_name_files:
                self.template_ext = ()
            try:
                super()._do_render_template_fields(parent, [field], *args, **kwargs)
            finally:
                self.template_ext = type(self).template_ext

    def execute(self, context: Context) -> dict[str, object]:
        """Push the rows."""
        if self.cursor_column and _flag(self, "only_changes"):
            raise invalid_input(
                f"Invalid parameters of task {self.task_id!r}: only_changes and cursor_column",
                cause="with a cursor, the query does not return unchanged rows",
                remedy="Remove one: a cursor is for a query of changes, only_changes for one of all rows",
            )
        if self.cursor_column:
            return self._push_increment(context)
        for name in ("cursor_start", "lag", "deleted_sql", "deleted_column"):
            if getattr(self, name) is not None and getattr(self, name) != "":
                raise invalid_input(f"Invalid {name}: it requires cursor_column", remedy="Set cursor_column")
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

    def _push_increment(self, context: Context) -> dict[str, object]:
        """Push the changes since the cursor, and move it."""
        from airflow_provider_coveo.content.increments import Increment
        from airflow_provider_coveo.state.cursor_scope import cursor_scope

        with cursor_scope(lambda: self.hook.organization_id, self.source_id) as scope:
            scope.is_dry = runs_dry(self.is_dry_run, context)
            cursor = _checked(lambda given: self._open_cursor(given, is_dry=scope.is_dry), context)
            scope.add(cursor)
            increment = Increment(
                self.sql_conn_id,
                self.sql,
                cursor.since_before_deletions if self.deleted_sql else cursor.since,
                self.cursor_column or "",
                cursor.advance,
                self.deleted_sql or None,
                cursor.since,
                self.deleted_column or None,
                self.parameters,
                self.columns,
                self.hook_params,
                self.fetch_size,
            )
            self.log.info("Pushing changes since %s", cursor.since)
            result = self._push(context, increment.entries())
            scope.ended(result)
        return {**result, "since": str(cursor.since)}

    def _open_cursor(self, context: Context, *, is_dry: bool) -> TaskCursor:
        from airflow_provider_coveo.coveo.cursor_values import validate_lag
        from airflow_provider_coveo.state.cursors import TaskCursor, start_value

        if "ti" not in context:
            raise CoveoInputError(
                f"Could not use the cursor of task {self.task_id!r}: it is not executed in a run",
                remedy="Run the DAG, for example with airflow dags test",
            )
        cursor = TaskCursor(
            context,
            self.hook.organization_id,
            self.source_id,
            start=start_value(None if self.cursor_start == "" else self.cursor_start),
            lag=validate_lag(self.lag),
            reset=_flag(self, "cursor_reset"),
            is_dry=is_dry,
        )
        if cursor.since is None:
            raise CoveoInputError(
                f"The cursor {cursor.variable!r} has no value yet, and there is no cursor_start",
                cause="a query that compares with NULL returns no rows",
                remedy="Set cursor_start, such as '1970-01-01T00:00:00+00:00', or 0",
            )
        return cursor

    def _lineage(self, *, paths: object = None, query: Query | None = None) -> Lineage | None:
        from airflow_provider_coveo.lineage.coveo_push import Query

        its_query = Query(self.sql, self.sql_conn_id, self.hook_params or {})
        return super()._lineage(paths=paths, query=query or its_query)
