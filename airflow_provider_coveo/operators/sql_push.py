"""The operator that pushes the rows of a database query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_coveo.operators.push_base import _ItemsPushOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.openlineage.extractors import OperatorLineage


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
    :param batch_bytes: How large a batch is at most, in bytes: 1 KiB to 256 MB. Default 12 MiB. (templated)
    :param upload_concurrency: How many batches are uploaded at the same time, 1 to 32. Default 3. (templated)
    :param on_invalid: What to do with a row that Coveo would refuse: ``fail`` (the default), or ``skip`` to
        leave it out. (templated)
    :param max_invalid: With ``skip``, above how many of them the task fails all the same. Default 100.
        (templated)
    :param resume: Whether a try that meets the same input as an earlier one of its run goes on where that
        one failed or was killed. Default ``True``. (templated)
    :param check_quota: Whether to ask first how many items may still be pushed today, and to warn if that
        will not do. Default ``True``. (templated)
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
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "sql", "parameters": "json"}

    def __init__(
        self,
        *,
        sql: str,
        sql_conn_id: str,
        columns: Mapping[str, str] | None = None,
        parameters: Mapping[str, Any] | Sequence[Any] | None = None,
        hook_params: Mapping[str, Any] | None = None,
        fetch_size: int | str = 2000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sql = sql
        self.sql_conn_id = sql_conn_id
        self.columns = columns
        self.parameters = parameters
        self.hook_params = hook_params
        self.fetch_size = fetch_size

    def resolve_template_files(self) -> None:
        """Read the query if it stands in a file. No other parameter names one, whatever its value ends in."""
        all_fields = self.template_fields
        self.template_fields = ("sql",)
        try:
            super().resolve_template_files()
        finally:
            self.template_fields = all_fields

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], *args: Any, **kwargs: Any
    ) -> None:
        for field in template_fields:
            if parent is not self or field != "sql":
                self.template_ext = ()
            try:
                super()._do_render_template_fields(parent, [field], *args, **kwargs)
            finally:
                self.template_ext = type(self).template_ext

    def execute(self, context: Context) -> dict[str, Any]:
        """Push the rows."""
        from airflow_provider_coveo.content.query import read_query

        rows = read_query(
            self.sql_conn_id,
            self.sql,
            parameters=self.parameters,
            columns=self.columns,
            hook_params=self.hook_params,
            fetch_size=self.fetch_size,
        )
        return self._push(context, rows)

    def _lineage(self, **read: Any) -> OperatorLineage[Any, Any] | None:
        from airflow_provider_coveo.lineage.coveo_push import Query

        query = Query(self.sql, self.sql_conn_id, self.hook_params or {})
        return super()._lineage(query=query, **read)
