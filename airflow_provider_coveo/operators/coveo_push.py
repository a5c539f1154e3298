"""Operators for Coveo Push sources. They render, call the hook, and return small JSON."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_coveo.coveo.errors import CoveoError
from airflow_provider_coveo.operators.base import (
    _CoveoOperator,
    _CoveoPushOperator,
    _filled,
    _given,
    _is_true,
    _refuse_nothing,
    _untemplated,
    _without_none,
)
from airflow_provider_coveo.operators.coveo_source import (
    CreatePushSourceOperator as CreatePushSourceOperator,
)
from airflow_provider_coveo.operators.coveo_source import (
    DeletePushSourceOperator as DeletePushSourceOperator,
)
from airflow_provider_coveo.operators.coveo_source import (
    RecreatePushSourceOperator as RecreatePushSourceOperator,
)
from airflow_provider_coveo.operators.coveo_watchdog import (
    CloseAbandonedPushSourcesOperator as CloseAbandonedPushSourcesOperator,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.openlineage.extractors import OperatorLineage


class SetPushSourceStatusOperator(_CoveoPushOperator):
    """
    Set the status of a Push source: an active one before a content update, ``IDLE`` after it.

    The console shows ``REBUILD`` as *Rebuild*, ``REFRESH`` as *Rescan*, ``INCREMENTAL`` as *Refresh* and
    ``IDLE`` as *Ready to receive content*. See https://docs.coveo.com/en/35/.

    Setting a status is one request. To repeat it does no harm, but that Coveo may record the activity twice,
    so a request that was sent but not answered is repeated. To bring the source back whatever happens, make
    the operator that sets ``IDLE`` a teardown (``idle.as_teardown(setups=rebuild)``) or give it
    ``trigger_rule="all_done"``.

    :param source_id: The ID of the Push source. (templated)
    :param status: ``REBUILD``, ``REFRESH``, ``INCREMENTAL`` or ``IDLE``, in any case. (templated)
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, where it is not the connection's. (templated)
    :return: ``source_id``, ``status``, ``request_id`` and ``ordering_id``, the moment of the change by
        Coveo's clock in epoch milliseconds.
    :raises CoveoInputError: if a value can't be right; nothing was sent, and the task does not retry.
    :raises CoveoError: if Coveo refuses or does not answer; the task retries where that can help.
    """

    template_fields: Sequence[str] = (*_CoveoPushOperator.template_fields, "status")

    def __init__(self, *, status: str, **kwargs: Any) -> None:
        # So that `.output["ordering_id"]` works.
        super().__init__(**{"multiple_outputs": True, **kwargs})
        self.status = status

    def execute(self, context: Context) -> dict[str, Any]:
        """Set the status."""
        return _without_none(self.hook.set_source_status(self.source_id, self.status))


class ResetPushSourceOperator(_CoveoPushOperator):
    """
    Reset a Push source: delete every item that was last pushed before a moment, by default before now.

    A cut-off in the future would bar all new content until then, so a value that is in the future or in
    another unit than milliseconds is refused. So is a source that Coveo for Sitecore or the Crawling Module
    manages, whose ordering IDs are on another scale: recreate such a source instead. Where the key may not
    view the source, that can't be checked; the task says so and goes on. See https://docs.coveo.com/en/131/
    and https://docs.coveo.com/en/35/.

    A retry uses the cut-off of the first try, so that it can't delete what was pushed in between. Clearing
    the task resets the source anew. (How that is remembered: :mod:`airflow_provider_coveo.run_state`.)

    :param source_id: The ID of the Push source. (templated)
    :param ordering_id: Items whose orderingId is strictly lower are deleted: epoch milliseconds, such as the
        ``ordering_id`` that ``SetPushSourceStatusOperator`` returns. Default: now, by Coveo's clock.
        (templated)
    :param queue_delay: Minutes, 0 or more, that Coveo waits before it deletes, so that what was pushed before
        is through. Default 15. (templated)
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, where it is not the connection's. (templated)
    :return: ``source_id``, ``ordering_id``, ``queue_delay`` and ``request_id``.
    :raises CoveoInputError: if a value can't be right; nothing was deleted, and the task does not retry.
    :raises CoveoError: if Coveo refuses or does not answer; the task retries where that can help.
    """

    #: Whether what a task downstream pushed may be gone once this one runs again.
    removes_items: bool = True

    template_fields: Sequence[str] = (*_CoveoPushOperator.template_fields, "ordering_id", "queue_delay")

    def __init__(
        self, *, ordering_id: int | str | None = None, queue_delay: int | str = 15, **kwargs: Any
    ) -> None:
        super().__init__(**{"multiple_outputs": True, **kwargs})
        self.ordering_id = ordering_id
        self.queue_delay = queue_delay
        self._has_cut_off = ordering_id is not None

    def execute(self, context: Context) -> dict[str, Any]:
        """Delete the items."""
        if self._has_cut_off:
            # Now is not what was meant: it would delete what the run itself has pushed.
            _refuse_nothing(
                self.ordering_id,
                f"Source {self.source_id!r} was not reset: ordering_id turned out as None",
                "the task that should have given the cut-off gave none, as an opening that was cleared and "
                "no longer knows when the run first opened the source",
            )
        _taken_over(self, context)
        ordering_id = self.ordering_id
        if ordering_id is None:
            ordering_id = self._cut_off_of_this_try_set(context)
        result = self.hook.delete_old_items(self.source_id, ordering_id, queue_delay=self.queue_delay)
        return _without_none(result)

    def _cut_off_of_this_try_set(self, context: Context) -> int:
        from airflow_provider_coveo.state.task_store import RunState, retry_series

        if "ti" not in context:
            # Executed by hand, so there is no other try to agree with.
            return self.hook.current_cut_off(self.source_id)
        state = RunState(context)
        key = f"reset_cut_off_{retry_series(context)}"
        cut_off = state.get(key)
        if cut_off is None:
            cut_off = self.hook.current_cut_off(self.source_id)
            state.set(key, cut_off)
        return int(cut_off)


def _says(task: Any, attribute: str) -> bool:
    """Return what a task's class says of itself, also where the task is mapped."""
    return bool(getattr(task, attribute, getattr(getattr(task, "operator_class", None), attribute, False)))


#: The trigger rules by which a task does not run below one that failed.
_NOT_AFTER_A_FAILURE = frozenset({"all_success", "all_skipped", "none_failed", "none_failed_min_one_success"})


def _may_run_after_a_failure(failed: Any) -> Iterator[Any]:
    """Yield the tasks downstream of one that may run although it failed."""
    # Below a teardown, such as a bracket's own tasks, what runs is what did not fail.
    below = [task for task in failed.get_flat_relatives(upstream=False) if not task.is_teardown]
    todo = [task for task in below if task.trigger_rule not in _NOT_AFTER_A_FAILURE]
    seen: set[str] = set()
    while todo:
        task = todo.pop()
        if task.task_id not in seen:
            seen.add(task.task_id)
            todo += task.downstream_list
            yield task


def _changes_content(task: Any, source_id: str) -> bool:
    """Say whether a task, mapped or not, may push to a source or delete from it."""
    if not (_says(task, "pushes_items") or _says(task, "removes_items")):
        return False
    its_source_id = getattr(task, "source_id", None) or getattr(task, "partial_kwargs", {}).get("source_id")
    # Where it is a template, nothing is known.
    return not isinstance(its_source_id, str) or "{" in its_source_id or its_source_id == source_id


def _taken_over(operator: _CoveoPushOperator, context: Context) -> str | None:
    """
    Note that this run changes the source's content from here on.

    :return: Since when, in a form that tells it from any other time; ``None`` where it can't be noted.
    """
    if "ti" not in context:
        # Executed by hand, so there is no run.
        return None
    from airflow_provider_coveo.coveo.endpoints import validate_source_id
    from airflow_provider_coveo.state.ledger import SourceLedger

    task_instance: Any = context["ti"]
    operator.hook.task_context = context
    try:
        source_id, ledger = (
            validate_source_id(operator.source_id),
            SourceLedger(operator.hook.organization_id),
        )
        return ledger.content_changed(
            source_id,
            task_instance.dag_id,
            task_instance.run_id,
            pushes=_says(operator, "pushes_items"),
        )
    except CoveoError:
        # The hook says so, and better, once it is called.
        return None
    except Exception as problem:
        operator.log.warning(
            "It can't be noted that this run changes the content of source %s, so that a try of this task "
            "or another run's may not go on where an earlier one failed: %r",
            operator.source_id,
            problem,
        )
        return None


def _joined(value: Any) -> Any:
    """Return a list whose entries may be lists themselves, such as a mapped task returns, as one."""
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        return value
    # What an entry is, its class says: an item may be anything, and is judged when it is pushed.
    if isinstance(value, list) and not any(issubclass(type(entry), (list, tuple)) for entry in value):
        return value
    return itertools.chain.from_iterable(
        entry if issubclass(type(entry), (list, tuple)) else (entry,) for entry in value
    )


class _ItemsPushOperator(_CoveoPushOperator):
    """
    What the operators that push items share: how they push, and that they go on where an earlier try failed.

    :param batch_bytes: How large a batch is at most, in bytes: 1 KiB to 256 MB. Default 12 MiB. (templated)
    :param upload_concurrency: How many batches are uploaded at the same time, 1 to 32. Default 3. (templated)
    :param on_invalid: What to do with an item that Coveo would refuse: ``fail`` (the default), or ``skip`` to
        leave it out. (templated)
    :param max_invalid: With ``skip``, above how many invalid items the task fails all the same. Default 100.
        (templated)
    :param resume: Whether a try that meets the same input as an earlier one of its run goes on where that
        one failed or was killed. Default ``True``. (templated)
    """

    #: Whether the task adds to what a bracket (``push_source_update``) counts as pushed.
    pushes_items: bool = True
    #: Whether to ask how many items may still be pushed today: not where none are added.
    check_quota: bool | str = False
    #: The result of the push, once it has ended, also by a failure.
    _accepted: dict[str, Any] | None = None

    template_fields: Sequence[str] = (
        *_CoveoPushOperator.template_fields,
        "batch_bytes",
        "upload_concurrency",
        "on_invalid",
        "max_invalid",
        "resume",
    )

    def __init__(
        self,
        *,
        batch_bytes: int | str | None = None,
        upload_concurrency: int | str | None = None,
        on_invalid: str = "fail",
        max_invalid: int | str | None = None,
        resume: bool | str = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.batch_bytes = batch_bytes
        self.upload_concurrency = upload_concurrency
        self.on_invalid = on_invalid
        self.max_invalid = max_invalid
        self.resume = resume

    def _push(
        self, context: Context, items: Iterable[Any], delete: Iterable[Any] = (), *, counts: bool = True
    ) -> dict[str, Any]:
        """
        Push items as the parameters say.

        :param counts: Whether there are items that count against the daily quota. Of deletions, Coveo does
            not say that they do.
        """
        given = {
            "batch_bytes": self.batch_bytes,
            "upload_concurrency": self.upload_concurrency,
            "max_invalid": self.max_invalid,
        }
        try:
            self._accepted = self.hook.push_items(
                self.source_id,
                items,
                delete=delete,
                on_invalid=self.on_invalid,  # type: ignore[arg-type]
                checkpoint=self._checkpoint(context),
                check_quota=_is_true(self.check_quota) and counts,
                **_filled(given),
            )
        except CoveoError as error:
            self._accepted = error.accepted
            raise
        finally:
            # What a function or a query holds open must not stay so until the process ends.
            if isinstance(items, Generator):
                with suppress(Exception):
                    items.close()
        return self._accepted

    # --- what Airflow's OpenLineage provider asks for, where it is installed ---

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any] | None:
        """Name the source that is written, and what is read."""
        return self._lineage()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:
        """Name them, with how much was accepted."""
        return self._lineage()

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:
        """Name them, with how much was accepted before."""
        return self._lineage()

    def _lineage(self, **read: Any) -> OperatorLineage[Any, Any] | None:
        """
        Return the lineage of the push.

        :param read: What it reads, as :func:`~airflow_provider_coveo.lineage.coveo_push.lineage_of_push`
            takes it.
        """
        from airflow_provider_coveo.lineage.coveo_push import lineage_of_push

        return lineage_of_push(self, self._accepted, **read)

    def _checkpoint(self, context: Context) -> Any:
        if "ti" not in context:
            return None
        from airflow_provider_coveo.hooks.checkpoint import RunCheckpoint

        since = _taken_over(self, context)
        if since is None or not _is_true(self.resume):
            RunCheckpoint(context, (), only_retries=False).forget()
            return None
        settings = self.hook.settings
        what = (settings.push_url, settings.organization_id, self.source_id, self.batch_bytes, since)
        # A clear may have made another task undo what an earlier try did here.
        only_retries = any(
            _changes_content(task, self.source_id)
            for task in (*self.get_flat_relatives(upstream=True), *_may_run_after_a_failure(self))
        )
        return RunCheckpoint(context, what, only_retries=only_retries)


class _ItemsAddOperator(_ItemsPushOperator):
    """
    What those of them share that add items, and so use up the daily quota.

    :param check_quota: Whether to ask first how many items may still be pushed today, and to warn if that
        will not do. Default ``True``. (templated)
    """

    template_fields: Sequence[str] = (*_ItemsPushOperator.template_fields, "check_quota")

    def __init__(self, *, check_quota: bool | str = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.check_quota = check_quota


class PushItemsOperator(_ItemsAddOperator):
    """
    Push items to a source: from another task, or from files of any size.

    The items go in batches, in their order, and in constant memory; see
    :meth:`~airflow_provider_coveo.hooks.coveo_push.CoveoPushHook.push_items` for what is checked and what
    holds if the task fails. A task that failed goes on where it failed when it is tried again with the same
    input. See https://docs.coveo.com/en/90/.

    Nothing in an item is taken for a template: ``{{ }}`` in a document arrives as typed.

    :param source_id: The ID of the Push source. (templated)
    :param items: dicts in Coveo's words, or :class:`~airflow_provider_coveo.coveo.items.Item`: a list, or
        what another task returned, or each of a mapped task's. Give either this or ``path``. (references are
        resolved, texts are not templated)
    :param path: A file, a folder or a glob, or a list of these, on the worker or on an object storage
        (``s3://conn_id@bucket/catalog/*.ndjson.gz``, an ``ObjectStoragePath``). JSON arrays, JSON Lines, CSV,
        TSV and Parquet, and any of the first four in gzip, zstd, bzip2 or xz. Files are read one after the
        other by name, and each as a stream. (templated)
    :param delete: Ids of items to delete once the others are pushed, or ``Delete``. (references are
        resolved, texts are not templated)
    :param file_format: ``json``, ``ndjson``, ``csv``, ``tsv`` or ``parquet``. Default: as the name says.
        (templated)
    :param columns: For tables, what an item is made of: its keys, each with the name of a column or a text
        with names of columns in braces, as in ``{"documentId": "product://{sku}", "title": "name", "data":
        "{name} {description}"}``. Default: each column under its own name. What is empty is left out. In a
        text, values stand as metadata is sent; a ``documentId`` holds no float and no boolean. (templated)
    :param delimiter: For CSV and TSV, the character between two fields. Default ``,`` in CSV and the tab in
        TSV. (templated)
    :param quotechar: For CSV and TSV, the character around fields that hold a delimiter, a quote or an end of
        a line; within a field it is written twice. ``None`` for none: each line is a row, and quotes are part
        of the fields. Default ``"`` in CSV, none in TSV. (templated)
    :param escapechar: For CSV and TSV, the character that takes the meaning of the one behind it. Default
        none. (templated)
    :param null_values: For CSV and TSV, the fields that stand for no value, such as ``["\\\\N"]``. Default
        none. (templated)
    :param column_names: For CSV and TSV, the names of the columns, if the first line is a row and does not
        give them. Default: the first line gives them. (templated)
    :param encoding: The encoding of JSON, CSV and TSV, such as ``latin-1``, ``cp1252`` or ``utf-16``. Default
        UTF-8, with or without a mark at its beginning. (templated)
    :param partitioning: ``hive`` (the default) to take folders such as ``country=ch`` for columns, whose
        values are texts; ``None`` to take no notice of them. (templated)
    :param batch_bytes: How large a batch is at most, in bytes: 1 KiB to 256 MB. Default 12 MiB. (templated)
    :param upload_concurrency: How many batches are uploaded at the same time, 1 to 32. Default 3. (templated)
    :param on_invalid: What to do with an item that Coveo would refuse: ``fail`` (the default), or ``skip`` to
        leave it out. (templated)
    :param max_invalid: With ``skip``, above how many invalid items the task fails all the same. Default 100.
        (templated)
    :param resume: Whether a try that meets the same input as an earlier one of its run goes on where that
        one failed or was killed. Default ``True``. (templated)
    :param check_quota: Whether to ask first how many items may still be pushed today, and to warn if that
        will not do. Default ``True``. (templated)
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, where it is not the connection's. (templated)
    :return: What was accepted: ``accepted_adds``, ``accepted_deletes``, ``batches``, ``bytes``, ``seconds``
        and more, as :meth:`~airflow_provider_coveo.hooks.coveo_push.CoveoPushHook.push_items` says.
    :raises CoveoInputError: if a value, a file or an item can't be right; the task does not retry.
    :raises CoveoError: if Coveo refuses or does not answer; the task retries where that can help.
    """

    template_fields: Sequence[str] = (
        *_ItemsAddOperator.template_fields,
        "items",
        "path",
        "delete",
        "file_format",
        "columns",
        "delimiter",
        "quotechar",
        "escapechar",
        "null_values",
        "column_names",
        "encoding",
        "partitioning",
    )

    def __init__(
        self,
        *,
        items: Any = None,
        path: Any = None,
        delete: Any = None,
        file_format: str | None = None,
        columns: Mapping[str, str] | None = None,
        delimiter: str | None = None,
        quotechar: str | bool | None = "default",
        escapechar: str | None = None,
        null_values: str | Sequence[str] | None = None,
        column_names: Sequence[str] | None = None,
        encoding: str | None = None,
        partitioning: str | bool | None = "hive",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.items = _untemplated(items)
        self.path = path
        self.delete = _untemplated(delete)
        self.file_format = file_format
        self.columns = columns
        self.delimiter = delimiter
        self.quotechar = quotechar
        self.escapechar = escapechar
        self.null_values = null_values
        self.column_names = column_names
        self.encoding = encoding
        self.partitioning = partitioning

    def execute(self, context: Context) -> dict[str, Any]:
        """Push the items."""
        items, delete = _joined(_given(self.items)), _joined(_given(self.delete))
        if (items is None) == (self.path is None) and (items is not None or delete is None):
            from airflow_provider_coveo.coveo.errors import CoveoInputError
            from airflow_provider_coveo.hooks.responses import as_non_retryable

            what = "no items" if items is None else "both items and a path"
            raise as_non_retryable(
                CoveoInputError(
                    f"Task {self.task_id!r} has {what} to push to source {self.source_id!r}",
                    remedy="Give either items or path",
                )
            )
        if self.path is not None:
            from airflow_provider_coveo.content.files import read_files

            items = read_files(
                self.path,
                file_format=self.file_format or None,
                columns=self.columns,
                delimiter=self.delimiter,
                quotechar=self.quotechar,
                escapechar=self.escapechar,
                null_values=self.null_values,
                column_names=self.column_names,
                encoding=self.encoding,
                partitioning=self.partitioning,
            )
        return self._push(
            context,
            () if items is None else items,
            () if delete is None else delete,
            counts=items is not None,
        )

    def _lineage(self, **read: Any) -> OperatorLineage[Any, Any] | None:
        return super()._lineage(paths=self.path, **read)


class DeleteItemsOperator(_ItemsPushOperator):
    """
    Delete items from a source by their IDs, in batches.

    To delete what was not pushed since a moment, use ``ResetPushSourceOperator`` with its ``ordering_id``.
    See https://docs.coveo.com/en/90/.

    :param source_id: The ID of the Push source. (templated)
    :param document_ids: The IDs: a list, or what another task returned, or each of a mapped task's.
        (references are resolved, texts are not templated)
    :param delete_children: Whether to delete the items too whose IDs begin with one of these. It is a prefix,
        not the ``parentId``. Default ``False``. (templated)
    :param batch_bytes: How large a batch is at most, in bytes: 1 KiB to 256 MB. Default 12 MiB. (templated)
    :param upload_concurrency: How many batches are uploaded at the same time, 1 to 32. Default 3. (templated)
    :param on_invalid: What to do with an ID that can't be one: ``fail`` (the default), or ``skip``.
        (templated)
    :param max_invalid: With ``skip``, above how many of them the task fails all the same. Default 100.
        (templated)
    :param resume: Whether a try that meets the same input as an earlier one of its run goes on where that
        one failed or was killed. Default ``True``. (templated)
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, where it is not the connection's. (templated)
    :return: What was accepted: ``accepted_deletes``, ``batches``, ``bytes``, ``seconds`` and more.
    :raises CoveoInputError: if a value can't be right; the task does not retry.
    :raises CoveoError: if Coveo refuses or does not answer; the task retries where that can help.
    """

    #: It adds nothing to what a bracket counts as pushed.
    pushes_items: bool = False
    #: Whether what a task downstream pushed may be gone once this one runs again.
    removes_items: bool = True

    template_fields: Sequence[str] = (*_ItemsPushOperator.template_fields, "document_ids", "delete_children")

    def __init__(self, *, document_ids: Any, delete_children: bool | str = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.document_ids = _untemplated(document_ids)
        self.delete_children = delete_children

    def execute(self, context: Context) -> dict[str, Any]:
        """Delete the items."""
        from airflow_provider_coveo.coveo.batches import deletions
        from airflow_provider_coveo.coveo.items import Delete

        children = self.delete_children
        if isinstance(children, str) and children.strip().lower() in {"true", "false"}:
            children = children.strip().lower() == "true"

        def entries() -> Iterator[Delete]:
            for entry in deletions(_joined(_given(self.document_ids))):
                document_id: Any = entry
                with suppress(Exception):
                    # If it can't be read, it is refused as what it is.
                    document_id = entry.document_id
                yield entry if children is False else Delete(document_id, children)  # type: ignore[arg-type]

        return self._push(context, (), entries())


class SqlToCoveoPushOperator(_ItemsAddOperator):
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
        *_ItemsAddOperator.template_fields,
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


class PushSecurityIdentitiesOperator(_CoveoOperator):
    """
    Push security identities to a provider, before the items whose permissions name them.

    In a bracket (``push_source_update``) it comes before the content. To push a group replaces its list of
    members. See https://docs.coveo.com/en/55/.

    :param provider_id: The security identity provider. (templated)
    :param members: Identities with what they hold: dicts with ``identity`` (``name`` and ``type``),
        ``members`` and ``wellKnowns``; a list, or what another task returned. (references are resolved, texts
        are not templated)
    :param mappings: Identities with their aliases in other providers: dicts with ``identity`` and
        ``mappings``. (references are resolved, texts are not templated)
    :param deleted: Identities to disable: dicts with ``name`` and ``type``. (references are resolved, texts
        are not templated)
    :param delete_old: Whether to disable then what this task did not push; refused where it pushed nothing.
        Default ``False``. (templated)
    :param queue_delay: Minutes, 0 or more, that Coveo waits before that. Default 15. (templated)
    :param batch_bytes: How large a batch is at most, in bytes: 1 KiB to 256 MB. Default 12 MiB. (templated)
    :param upload_concurrency: How many batches are uploaded at the same time, 1 to 32. Default 3. (templated)
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, where it is not the connection's. (templated)
    :return: What was accepted: ``accepted_members``, ``accepted_mappings``, ``accepted_deleted``,
        ``batches``, ``ordering_id`` and more; with ``delete_old``, under ``deleted_old``, what
        :meth:`~airflow_provider_coveo.hooks.coveo_push.CoveoPushHook.delete_old_identities` returned.
    :raises CoveoInputError: if a value or an identity can't be right; the task does not retry.
    :raises CoveoError: if Coveo refuses or does not answer; the task retries where that can help.
    """

    #: Identities are not what a bracket counts as pushed.
    pushes_items: bool = False

    template_fields: Sequence[str] = (
        "provider_id",
        *_CoveoOperator.template_fields,
        "members",
        "mappings",
        "deleted",
        "delete_old",
        "queue_delay",
        "batch_bytes",
        "upload_concurrency",
    )

    def __init__(
        self,
        *,
        provider_id: str,
        members: Any = None,
        mappings: Any = None,
        deleted: Any = None,
        delete_old: bool | str = False,
        queue_delay: int | str = 15,
        batch_bytes: int | str | None = None,
        upload_concurrency: int | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.provider_id = provider_id
        self.members = _untemplated(members)
        self.mappings = _untemplated(mappings)
        self.deleted = _untemplated(deleted)
        self.delete_old = delete_old
        self.queue_delay = queue_delay
        self.batch_bytes = batch_bytes
        self.upload_concurrency = upload_concurrency

    def execute(self, context: Context) -> dict[str, Any]:
        """Push the identities."""
        sections = {
            "members": _given(self.members),
            "mappings": _given(self.mappings),
            "deleted": _given(self.deleted),
        }
        numbers = {"batch_bytes": self.batch_bytes, "upload_concurrency": self.upload_concurrency}
        result = self.hook.push_identities(
            self.provider_id,
            **_without_none(sections),
            **_filled(numbers),
        )
        if not _is_true(self.delete_old):
            return result
        if not result["accepted_members"] + result["accepted_mappings"]:
            from airflow_provider_coveo.coveo.errors import CoveoInputError
            from airflow_provider_coveo.hooks.responses import as_non_retryable

            raise as_non_retryable(
                CoveoInputError(
                    f"Old identities of provider {self.provider_id!r} stay: the task pushed none, and to "
                    "disable all others would lock everybody out",
                    remedy="Check what should have given the identities",
                )
            )
        old = self.hook.delete_old_identities(
            self.provider_id, result["ordering_id"], queue_delay=self.queue_delay
        )
        return {**result, "deleted_old": old}
