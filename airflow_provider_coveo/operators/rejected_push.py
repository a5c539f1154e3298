"""The operator that pushes rejected items again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow_provider_coveo.coveo.quantities import quantity
from airflow_provider_coveo.operators.base import _checked, _flag
from airflow_provider_coveo.operators.push_base import WHOLE_INPUTS_ONLY, _ItemsPushOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from typing_extensions import Unpack

    from airflow_provider_coveo.lineage.coveo_push import Lineage, Query
    from airflow_provider_coveo.operators.arguments import RejectedPushArguments


class RepushRejectedItemsOperator(_ItemsPushOperator):
    """
    Push the items of a file of rejected items again, once they are corrected.

    ``rejected_path`` of a push or of ``PushedItemsIndexedSensor`` names that file. Correct the items in it,
    or whatever rejected them. They pass through the same checks. Items that are still invalid are skipped,
    counted and listed (``on_invalid="skip"``), and kept if ``rejected_path`` names another file. Entries
    without an item, because JSON can't represent it or it was not available, are counted and named. If there
    is no file, nothing was rejected, and nothing is pushed. If the file contains an item of another source,
    nothing is pushed, and the task fails. See https://docs.coveo.com/en/90/.

    :param source_id: The ID of the Push source. (templated)
    :param path: The file, or a folder, a glob, or a list of these. (templated)
    :param allow_other_source: Whether to push items that another source rejected. Permissions and visibility
        can differ between sources. Default ``False``. (templated)
    :param batch_bytes: The maximum size of a batch in bytes: 1 KiB to 256 MB. Default 12 MiB. (templated)
    :param upload_concurrency: The number of batches that are uploaded at the same time, 1 to 32. Default 3.
        (templated)
    :param on_invalid: The handling of an item that is still invalid: ``skip`` (the default), or ``fail``.
        (templated)
    :param max_invalid: With ``skip``, the maximum number of them before the task fails: a number, or a share
        such as ``"1%"``. Default ``"100%"``. (templated)
    :param rejected_path: The file for items that are still invalid; not the one that is read. Default none.
        (templated)
    :param resume: Whether an attempt with the same input as an earlier one of its run resumes where that one
        failed or was killed. Default ``True``. (templated)
    :param check_quota: Whether to check first how many items can still be pushed today, and to warn if that
        is too few. Default ``True``. (templated)
    :param check_fields: The handling of metadata for which the organization has no field: ``warn``, ``fail``,
        or ``off`` to skip the check. ``None`` or an empty text means the default: ``off``, in a dry run
        ``warn``. (templated)
    :param dry_run: Whether to send nothing, and to return what would be sent. Default ``False``. (templated)
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, if it differs from the connection's. (templated)
    :return: The accepted counts, as for other pushes; ``entries``: the number of entries in the file;
        ``without_item``: the number of entries without an item, and ``document_ids_without_item``: the first
        20 of these.
    :raises CoveoInputError: if a value or the file is invalid; the task does not retry.
    :raises CoveoError: if the request fails; the task retries if that can help.
    """

    template_fields: Sequence[str] = (
        *(field for field in _ItemsPushOperator.template_fields if field not in WHOLE_INPUTS_ONLY),
        "path",
        "allow_other_source",
    )

    def __init__(
        self,
        *,
        path: object,
        allow_other_source: bool | str = False,
        on_invalid: str = "skip",
        max_invalid: int | str | None = "100%",
        **kwargs: Unpack[RejectedPushArguments],
    ) -> None:
        super().__init__(on_invalid=on_invalid, max_invalid=max_invalid, only_changes=False, **kwargs)
        self.path = path
        self.allow_other_source = allow_other_source

    def execute(self, context: Context) -> dict[str, object]:
        """Push the items again."""
        from airflow_provider_coveo.content.rejected_items import RejectedItems

        items = RejectedItems(self.path)
        if not _flag(self, "allow_other_source"):
            _checked(items.reject_other_source, self.source_id)
        pushed = self._push(context, items.entries(other_than=self.rejected_path))
        result = {**pushed, **items.result()}
        if items.without_item:
            self.log.warning(
                "Skipped %d of %s in %s, which have no item: %s",
                items.without_item,
                quantity(items.count, "entry", "entries"),
                self.path,
                ", ".join(items.ids_without_item),
            )
        return result

    def _lineage(self, *, paths: object = None, query: Query | None = None) -> Lineage | None:
        return super()._lineage(paths=paths or self.path, query=query)
