"""Base class of the operators that push items to a source."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from airflow_provider_coveo.coveo.errors import CoveoError
from airflow_provider_coveo.operators.base import _SOURCE_LINKS, _checked, _CoveoOperator, _filled, _is_true
from airflow_provider_coveo.operators.dry_run import runs_dry
from airflow_provider_coveo.operators.only_changes import TEMPLATED, changes_of

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from typing_extensions import Unpack

    from airflow_provider_coveo.coveo.items import Delete
    from airflow_provider_coveo.coveo.results import PushResult
    from airflow_provider_coveo.hooks.checkpoint import RunCheckpoint
    from airflow_provider_coveo.lineage.coveo_push import Lineage, Query
    from airflow_provider_coveo.operators.arguments import ConnectionArguments

#: The parameters of `only_changes`, which an operator that never pushes everything lacks.
WHOLE_INPUTS_ONLY: Final = (*TEMPLATED, "full_after")
#: The parameters for adding items, which an operator that only deletes lacks.
ADDITIONS_ONLY: Final = ("check_quota", "check_fields", *WHOLE_INPUTS_ONLY)


class _ItemsPushOperator(_CoveoOperator):
    """
    Base class of the operators that push items, and resume where an earlier attempt failed.

    For the parameters, see :class:`~airflow_provider_coveo.operators.coveo_push.PushItemsOperator`.
    """

    #: Whether the task's items count as pushed in a bracket (``push_source_update``).
    pushes_items: bool = True
    #: The result of the push after it has ended, even if it failed.
    _accepted: Mapping[str, object] | None = None

    template_fields: Sequence[str] = (
        "source_id",
        *_CoveoOperator.template_fields,
        "batch_bytes",
        "upload_concurrency",
        "on_invalid",
        "max_invalid",
        "resume",
        "rejected_path",
        "check_quota",
        *TEMPLATED,
        "check_fields",
        "is_dry_run",
    )
    operator_extra_links = _SOURCE_LINKS

    def __init__(
        self,
        *,
        source_id: str,
        batch_bytes: int | str | None = None,
        upload_concurrency: int | str | None = None,
        on_invalid: str = "fail",
        max_invalid: int | str | None = None,
        resume: bool | str = True,
        check_quota: bool | str = True,
        only_changes: bool | str = False,
        max_deleted: int | str | None = None,
        snapshot_path: str | None = None,
        full_after: timedelta | None = None,
        on_damaged_snapshot: str | None = None,
        rejected_path: object = None,
        check_fields: str | None = None,
        dry_run: bool | str = False,
        **kwargs: Unpack[ConnectionArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.source_id = source_id
        self.batch_bytes = batch_bytes
        self.upload_concurrency = upload_concurrency
        self.on_invalid = on_invalid
        self.max_invalid = max_invalid
        self.resume = resume
        self.check_quota = check_quota
        self.only_changes = only_changes
        self.max_deleted = max_deleted
        self.snapshot_path = snapshot_path
        self.full_after = full_after
        self.on_damaged_snapshot = on_damaged_snapshot
        self.rejected_path = rejected_path
        self.check_fields = check_fields
        self.is_dry_run = dry_run

    def _push(
        self,
        context: Context,
        items: Iterable[object],
        delete: Iterable[str | Delete] = (),
        *,
        counts: bool = True,
    ) -> PushResult:
        """
        Push items, using the operator's parameters.

        :param counts: Whether there are items that count against the daily quota. Coveo does not document
            that deletions do.
        """
        given = {
            "batch_bytes": self.batch_bytes,
            "upload_concurrency": self.upload_concurrency,
            "max_invalid": self.max_invalid,
            "rejected_path": self.rejected_path,
            "check_fields": self.check_fields,
        }
        changes = changes_of(self)
        dry_run = runs_dry(self.is_dry_run, context)
        # Pass these only if they are set, because a user's own hook may have the parameters of 0.1.0.
        given |= {"changes": changes, "dry_run": dry_run or None}
        if dry_run and "ti" in context:
            # A snapshot is named after the task.
            self.hook.task_context = context
        try:
            result = self.hook.push_items(
                self.source_id,
                items,
                delete=delete,
                on_invalid=self.on_invalid,  # type: ignore[arg-type]
                # A dry run must not affect the attempt that will resume.
                checkpoint=None if dry_run else self._checkpoint(context, resumable=changes is None),
                check_quota=_is_true(self.check_quota) and counts,
                **_filled(given),
            )
        except CoveoError as error:
            self._accepted = error.accepted
            raise
        else:
            if not dry_run:
                self._accepted = result
            return result
        finally:
            # The resources of a function or a query must not stay open until the process ends.
            if isinstance(items, Generator):
                with suppress(Exception):
                    items.close()

    def _validate_changes(self) -> None:
        """Fail the task before it reads its input, if it can't determine what changed."""
        changes = changes_of(self)
        if changes is not None:
            from airflow_provider_coveo.hooks.changes import validate_options

            _checked(lambda options: validate_options(self.hook, options), changes)

    # --- called by Airflow's OpenLineage provider, if it is installed ---

    def get_openlineage_facets_on_start(self) -> Lineage | None:
        """Return the source that is written, and the inputs."""
        return self._lineage()

    def get_openlineage_facets_on_complete(self, task_instance: object) -> Lineage | None:
        """Return them, with the accepted counts."""
        return self._lineage()

    def get_openlineage_facets_on_failure(self, task_instance: object) -> Lineage | None:
        """Return them, with the counts that were accepted before the failure."""
        return self._lineage()

    def _lineage(self, *, paths: object = None, query: Query | None = None) -> Lineage | None:
        """
        Return the lineage of the push.

        :param paths: The files that are pushed.
        :param query: The query whose rows are pushed.
        """
        from airflow_provider_coveo.lineage.coveo_push import lineage_of_push

        return lineage_of_push(self, self._accepted, paths=paths, query=query)

    def _checkpoint(self, context: Context, *, resumable: bool) -> RunCheckpoint | None:
        if "ti" not in context:
            return None
        from airflow_provider_coveo.hooks.checkpoint import RunCheckpoint
        from airflow_provider_coveo.operators.content_writers import (
            may_change_content,
            may_run_after_a_failure,
            note_content_change,
        )

        since = note_content_change(self.hook, self.source_id, context, pushes=self.pushes_items)
        if since is None or not (resumable and _is_true(self.resume)):
            RunCheckpoint(context, (), only_retries=False).forget()
            return None
        # Tasks of 0.1.0 and 0.1.1 record their changes with `since` only.
        what = (
            self.hook.settings.push_url,
            self.hook.organization_id,
            self.source_id,
            self.batch_bytes,
            since,
        )
        # After a clear, another task may have undone an earlier attempt's changes.
        only_retries = any(
            may_change_content(task, self.source_id)
            for task in (*self.get_flat_relatives(upstream=True), *may_run_after_a_failure(self))
        )
        return RunCheckpoint(context, what, only_retries=only_retries)
