"""Operators for Coveo Push sources, which call the hook and return small JSON."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from airflow_provider_coveo.airflow_errors import invalid_input
from airflow_provider_coveo.coveo.endpoints import validate_source_id
from airflow_provider_coveo.coveo.statuses import SourceStatus
from airflow_provider_coveo.operators.base import (
    _checked,
    _given,
    _joined,
    _refuse_nothing,
    _SourceOperator,
    _untemplated,
    _without_none,
)
from airflow_provider_coveo.operators.dry_run import runs_dry
from airflow_provider_coveo.operators.file_input import FILE_PARAMETERS, items_in_files
from airflow_provider_coveo.operators.only_changes import reject_deletion_by_time
from airflow_provider_coveo.operators.push_base import ADDITIONS_ONLY, _ItemsPushOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context
    from typing_extensions import Unpack

    from airflow_provider_coveo.coveo.results import PushResult
    from airflow_provider_coveo.lineage.coveo_push import Lineage, Query
    from airflow_provider_coveo.operators.arguments import DeletionArguments, PushArguments, SourceArguments
    from airflow_provider_coveo.operators.coveo_source import (
        CreatePushSourceOperator,
        DeletePushSourceOperator,
        RecreatePushSourceOperator,
    )
    from airflow_provider_coveo.operators.coveo_watchdog import CloseAbandonedPushSourcesOperator
    from airflow_provider_coveo.operators.fields import CreateFieldsOperator
    from airflow_provider_coveo.operators.rejected_push import RepushRejectedItemsOperator
    from airflow_provider_coveo.operators.security_identities import PushSecurityIdentitiesOperator
    from airflow_provider_coveo.operators.sql_push import SqlToCoveoPushOperator

#: The names that DAG files import from here.
__all__ = [
    "CloseAbandonedPushSourcesOperator",
    "CreateFieldsOperator",
    "CreatePushSourceOperator",
    "DeleteItemsOperator",
    "DeletePushSourceOperator",
    "PushItemsOperator",
    "PushSecurityIdentitiesOperator",
    "RecreatePushSourceOperator",
    "RepushRejectedItemsOperator",
    "ResetPushSourceOperator",
    "SetPushSourceStatusOperator",
    "SqlToCoveoPushOperator",
]

#: The modules of operators that are loaded only if a DAG file imports one: parsing pays for each module.
_MODULES: Final = {
    "CloseAbandonedPushSourcesOperator": "coveo_watchdog",
    "CreateFieldsOperator": "fields",
    "CreatePushSourceOperator": "coveo_source",
    "DeletePushSourceOperator": "coveo_source",
    "PushSecurityIdentitiesOperator": "security_identities",
    "RecreatePushSourceOperator": "coveo_source",
    "RepushRejectedItemsOperator": "rejected_push",
    "SqlToCoveoPushOperator": "sql_push",
}


def __getattr__(name: str) -> type[BaseOperator]:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"airflow_provider_coveo.operators.{_MODULES[name]}")
    operator: type[BaseOperator] = getattr(module, name)
    # The next access finds it without this function.
    globals()[name] = operator
    return operator


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})


class SetPushSourceStatusOperator(_SourceOperator):
    """
    Set the status of a Push source: an active one before a content update, ``IDLE`` afterward.

    The console shows ``REBUILD`` as *Rebuild*, ``REFRESH`` as *Rescan*, ``INCREMENTAL`` as *Refresh* and
    ``IDLE`` as *Ready to receive content*. See https://docs.coveo.com/en/35/.

    Setting a status is one request. Repeating it is harmless, except that Coveo may record the activity
    twice, so a request without a response is retried. To reset the source in any case, make the operator that
    sets ``IDLE`` a teardown (``idle.as_teardown(setups=rebuild)``), or set ``trigger_rule="all_done"`` on it.

    :param source_id: The ID of the Push source. (templated)
    :param status: ``REBUILD``, ``REFRESH``, ``INCREMENTAL`` or ``IDLE``, in any case. (templated)
    :param dry_run: Whether to send nothing, and to return what would be sent. Default ``False``. (templated)
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, if it differs from the connection's. (templated)
    :return: ``source_id``, ``status``, ``request_id`` and ``ordering_id``, the time of the change on
        Coveo's clock in epoch milliseconds.
    :raises CoveoInputError: if a parameter is invalid; nothing was sent, and the task does not retry.
    :raises CoveoError: if the request fails; the task retries if that can help.
    """

    template_fields: Sequence[str] = (
        *_SourceOperator.template_fields,
        "is_dry_run",
        "status",
    )

    def __init__(
        self, *, status: str, dry_run: bool | str = False, **kwargs: Unpack[SourceArguments]
    ) -> None:
        # So that `.output["ordering_id"]` works.
        kwargs.setdefault("multiple_outputs", True)
        super().__init__(**kwargs)
        self.status = status
        self.is_dry_run = dry_run

    def execute(self, context: Context) -> dict[str, object]:
        """Set the status."""
        if runs_dry(self.is_dry_run, context):
            source_id = _checked(validate_source_id, self.source_id)
            status = _checked(SourceStatus.parse, self.status)
            self.log.info("Dry run, nothing was sent. Source %s would be set to %s", source_id, status)
            return {"source_id": source_id, "status": status.value, "dry_run": True}
        return _without_none(self.hook.set_source_status(self.source_id, self.status))


class ResetPushSourceOperator(_SourceOperator):
    """
    Reset a Push source: delete every item that was last pushed before a time, by default before now.

    A cut-off in the future would block all new content until then, so the operator rejects a value that is in
    the future or in another unit than milliseconds. It also rejects a source that Coveo for Sitecore or the
    Crawling Module manages, whose ordering IDs are on another scale: recreate such a source instead. If the
    key lacks the privilege to view the source, that can't be checked; the task logs that and continues. See
    https://docs.coveo.com/en/131/ and https://docs.coveo.com/en/35/.

    A retry uses the cut-off of the first attempt, so that it can't delete what was pushed in between.
    Clearing the task resets the source again. (:mod:`airflow_provider_coveo.run_state` stores the cut-off.)

    :param source_id: The ID of the Push source. (templated)
    :param ordering_id: Items whose orderingId is strictly lower are deleted: epoch milliseconds, such as the
        ``ordering_id`` that ``SetPushSourceStatusOperator`` returns. Default: now, on Coveo's clock.
        (templated)
    :param queue_delay: The minutes, 0 or more, that Coveo waits before it deletes, so that earlier pushes are
        processed. Default 15. (templated)
    :param dry_run: Whether to send nothing, and to return what would be sent. Default ``False``. (templated)
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, if it differs from the connection's. (templated)
    :return: ``source_id``, ``ordering_id``, ``queue_delay`` and ``request_id``.
    :raises CoveoInputError: if a parameter is invalid; nothing was deleted, and the task does not retry.
    :raises CoveoError: if the request fails; the task retries if that can help.
    """

    #: Whether another run of this task can delete what a downstream task pushed.
    removes_items: bool = True

    template_fields: Sequence[str] = (
        *_SourceOperator.template_fields,
        "is_dry_run",
        "ordering_id",
        "queue_delay",
    )

    def __init__(
        self,
        *,
        ordering_id: int | str | None = None,
        queue_delay: int | str = 15,
        dry_run: bool | str = False,
        **kwargs: Unpack[SourceArguments],
    ) -> None:
        kwargs.setdefault("multiple_outputs", True)
        super().__init__(**kwargs)
        self.ordering_id = ordering_id
        self.queue_delay = queue_delay
        self.is_dry_run = dry_run
        self._has_cut_off = ordering_id is not None

    def execute(self, context: Context) -> dict[str, object]:
        """Delete the items."""
        from airflow_provider_coveo.operators.content_writers import note_content_change

        dry_run = runs_dry(self.is_dry_run, context)
        # In a dry run, no status was set, so there is no time.
        if self._has_cut_off and not dry_run:
            # The default, now, would delete what the run itself has pushed.
            _refuse_nothing(
                self.ordering_id,
                f"Could not reset source {self.source_id!r}: ordering_id rendered to None",
                "the task that should have returned the cut-off returned none, such as an `open` task that "
                "was cleared and no longer knows when the run first opened the source",
            )
        if not dry_run:
            note_content_change(self.hook, self.source_id, context, pushes=False)
        ordering_id = self.ordering_id
        if ordering_id is not None and not dry_run:
            self._reject_after_only_changes(context)
        if ordering_id is None and not dry_run:
            ordering_id = self._cut_off_of_this_try_set(context)
        # Pass it only in a dry run, because a user's own hook may have the parameters of 0.1.0.
        more = {"dry_run": True} if dry_run else {}
        result = self.hook.delete_old_items(self.source_id, ordering_id, queue_delay=self.queue_delay, **more)
        return _without_none(result)

    def _reject_after_only_changes(self, context: Context) -> None:
        from airflow_provider_coveo.state.ledger import SourceLedger
        from airflow_provider_coveo.state.run_marks import current_run

        if "ti" not in context:
            return
        task_instance, ledger = context["ti"], SourceLedger(self.hook.organization_id)
        run = ledger.run(self.source_id, task_instance.dag_id, task_instance.run_id, current_run(context))
        _checked(lambda tasks: reject_deletion_by_time(self, self.source_id, tasks), run.only_changes)

    def _cut_off_of_this_try_set(self, context: Context) -> int:
        from airflow_provider_coveo.state.task_store import RunState, retry_series

        if "ti" not in context:
            # Executed by hand, so there is no other attempt.
            return self.hook.current_cut_off(self.source_id)
        state = RunState(context)
        key = f"reset_cut_off_{retry_series(context)}"
        cut_off = state.get(key)
        if cut_off is None:
            cut_off = self.hook.current_cut_off(self.source_id)
            state.set(key, cut_off)
        return int(cut_off)


class PushItemsOperator(_ItemsPushOperator):
    """
    Push items to a source: from another task, or from files of any size.

    The task pushes batches in input order, in constant memory. See
    :meth:`~airflow_provider_coveo.hooks.coveo_push.CoveoPushHook.push_items` for the validation, and for the
    state after a failure. A retry with the same input resumes where the task failed. See
    https://docs.coveo.com/en/90/.

    Items are never rendered as templates: ``{{ }}`` in a document stays as it is.

    :param source_id: The ID of the Push source. (templated)
    :param items: dicts with Coveo's keys, or :class:`~airflow_provider_coveo.coveo.items.Item`: a list, the
        result of another task, or the results of a mapped task. Pass either this or ``path``. (references are
        resolved, strings are not templated)
    :param path: A file, a folder or a glob, or a list of these, on the worker or on an object storage
        (``s3://conn_id@bucket/catalog/*.ndjson.gz``, an ``ObjectStoragePath``). JSON arrays, JSON Lines, CSV,
        TSV and Parquet; the first four can be compressed with gzip, zstd, bzip2 or xz. The task reads the
        files in the order of their names, each as a stream. (templated)
    :param delete: IDs of items to delete after the others are pushed, or ``Delete``. (references are
        resolved, strings are not templated)
    :param file_format: ``json``, ``ndjson``, ``csv``, ``tsv`` or ``parquet``. Default: by the file's name.
        (templated)
    :param columns: For tables, the mapping of columns to items: each key of an item, with the name of a
        column or a text with names of columns in braces, as in ``{"documentId": "product://{sku}", "title":
        "name", "data": "{name} {description}"}``. Default: each column under its own name. Empty values are
        omitted. In a text, values are formatted like metadata; a ``documentId`` can't contain floats and
        booleans. (templated)
    :param delimiter: For CSV and TSV, the character between two fields. Default ``,`` in CSV and a tab in
        TSV. (templated)
    :param quotechar: For CSV and TSV, the character around fields that contain a delimiter, a quote or a line
        break; within a field it is doubled. ``None`` for none: each line is a row, and quotes are part of the
        fields. Default ``"`` in CSV, none in TSV. (templated)
    :param escapechar: For CSV and TSV, the character that escapes the next one. Default none. (templated)
    :param null_values: For CSV and TSV, the fields that mean “no value”, such as ``["\\\\N"]``. Default
        none. (templated)
    :param column_names: For CSV and TSV, the names of the columns, if the first line is a row. Default: the
        first line contains the names. (templated)
    :param encoding: The encoding of JSON, CSV and TSV, such as ``latin-1``, ``cp1252`` or ``utf-16``. Default
        UTF-8, with or without a byte order mark. (templated)
    :param partitioning: ``hive`` (the default) to read folders such as ``country=ch`` as columns with string
        values; ``None`` to ignore them. (templated)
    :param batch_bytes: The maximum size of a batch in bytes: 1 KiB to 256 MB. Default 12 MiB. (templated)
    :param upload_concurrency: The number of batches that are uploaded at the same time, 1 to 32. Default 3.
        (templated)
    :param on_invalid: The handling of an item that Coveo would reject: ``fail`` (the default), or ``skip`` to
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
    :return: The accepted counts: ``accepted_adds``, ``accepted_deletes``, ``batches``, ``bytes``, ``seconds``
        and more, see :meth:`~airflow_provider_coveo.hooks.coveo_push.CoveoPushHook.push_items`.
    :raises CoveoInputError: if a parameter, a file or an item is invalid; the task does not retry.
    :raises CoveoError: if the request fails; the task retries if that can help.
    """

    template_fields: Sequence[str] = (
        *_ItemsPushOperator.template_fields,
        "items",
        "path",
        "delete",
        *FILE_PARAMETERS,
    )

    def __init__(
        self,
        *,
        items: object = None,
        path: object = None,
        delete: object = None,
        file_format: str | None = None,
        columns: Mapping[str, str] | None = None,
        delimiter: str | None = None,
        quotechar: str | bool | None = "default",
        escapechar: str | None = None,
        null_values: str | Sequence[str] | None = None,
        column_names: Sequence[str] | None = None,
        encoding: str | None = None,
        partitioning: str | bool | None = "hive",
        **kwargs: Unpack[PushArguments],
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

    def execute(self, context: Context) -> PushResult:
        """Push the items."""
        items, delete = _joined(_given(self.items)), _joined(_given(self.delete))
        if (items is None) == (self.path is None) and (items is not None or delete is None):
            what = "no items" if items is None else "both items and a path"
            raise invalid_input(
                f"Could not push to source {self.source_id!r}: task {self.task_id!r} has {what}",
                remedy="Pass either items or path",
            )
        if self.path is not None:
            items = items_in_files(self)
        return self._push(
            context,
            () if items is None else items,
            () if delete is None else delete,
            counts=items is not None,
        )

    def _lineage(self, *, paths: object = None, query: Query | None = None) -> Lineage | None:
        return super()._lineage(paths=paths or self.path, query=query)


class DeleteItemsOperator(_ItemsPushOperator):
    """
    Delete items from a source by their IDs, in batches.

    To delete what has not been pushed since a time, use ``ResetPushSourceOperator`` with its ``ordering_id``.
    See https://docs.coveo.com/en/90/.

    :param source_id: The ID of the Push source. (templated)
    :param document_ids: The IDs: a list, the result of another task, or the results of a mapped task.
        (references are resolved, strings are not templated)
    :param delete_children: Whether to delete all items whose IDs begin with one of these as well. It matches
        a prefix, not the ``parentId``. Default ``False``. (templated)
    :param batch_bytes: The maximum size of a batch in bytes: 1 KiB to 256 MB. Default 12 MiB. (templated)
    :param upload_concurrency: The number of batches that are uploaded at the same time, 1 to 32. Default 3.
        (templated)
    :param on_invalid: The handling of an invalid ID: ``fail`` (the default), or ``skip``. (templated)
    :param max_invalid: With ``skip``, the maximum number of them before the task fails: a number, or a share
        such as ``"1%"``, which is checked after 10,000 items and at the end. Default 100; any number with
        ``rejected_path``. (templated)
    :param rejected_path: The file for invalid items, as JSON Lines (``.ndjson``, ``.ndjson.gz``), local or
        on an object storage: ``s3://conn_id@bucket/{{ dag_run.run_id }}/rejected.ndjson.gz``. It is written
        completely when the push ends, and only if there are any. For a mapped task, the path must contain
        ``{{ ti.map_index }}``. Default none. (templated)
    :param resume: Whether an attempt with the same input as an earlier one of its run resumes where that one
        failed or was killed. Default ``True``. (templated)
    :param dry_run: Whether to send nothing, and to return what would be sent. Default ``False``. (templated)
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, if it differs from the connection's. (templated)
    :return: The accepted counts: ``accepted_deletes``, ``batches``, ``bytes``, ``seconds`` and more.
    :raises CoveoInputError: if a parameter is invalid; the task does not retry.
    :raises CoveoError: if the request fails; the task retries if that can help.
    """

    #: Its deletions do not count as pushed items in a bracket.
    pushes_items: bool = False
    #: Whether another run of this task can delete what a downstream task pushed.
    removes_items: bool = True

    template_fields: Sequence[str] = (
        *(field for field in _ItemsPushOperator.template_fields if field not in ADDITIONS_ONLY),
        "document_ids",
        "delete_children",
    )

    def __init__(
        self,
        *,
        document_ids: object,
        delete_children: bool | str = False,
        **kwargs: Unpack[DeletionArguments],
    ) -> None:
        super().__init__(check_quota=False, only_changes=False, **kwargs)
        self.document_ids = _untemplated(document_ids)
        self.delete_children = delete_children

    def execute(self, context: Context) -> PushResult:
        """Delete the items."""
        from airflow_provider_coveo.coveo.batches import deletions
        from airflow_provider_coveo.coveo.items import Delete

        children = self.delete_children
        if isinstance(children, str) and children.strip().lower() in {"true", "false"}:
            children = children.strip().lower() == "true"

        def entries() -> Iterator[Delete]:
            for entry in deletions(_joined(_given(self.document_ids))):
                document_id: object = entry
                with suppress(Exception):
                    # An unreadable entry fails validation later.
                    document_id = entry.document_id
                yield entry if children is False else Delete(document_id, children)  # type: ignore[arg-type]

        return self._push(context, (), entries())
