"""The operator that pushes security identities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow_provider_coveo.airflow_errors import invalid_input
from airflow_provider_coveo.operators.base import (
    _CoveoOperator,
    _filled,
    _given,
    _is_true,
    _untemplated,
    _without_none,
)
from airflow_provider_coveo.operators.dry_run import runs_dry

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from typing_extensions import Unpack

    from airflow_provider_coveo.operators.arguments import ConnectionArguments


class PushSecurityIdentitiesOperator(_CoveoOperator):
    """
    Push security identities to a provider, before the items whose permissions name them.

    In a bracket (``push_source_update``), run it before the content. Pushing a group replaces its member
    list. See https://docs.coveo.com/en/55/.

    :param provider_id: The security identity provider. (templated)
    :param members: Identities and their members: dicts with ``identity`` (``name`` and ``type``),
        ``members`` and ``wellKnowns``; a list, or the result of another task. (references are resolved,
        strings are not templated)
    :param mappings: Identities with their aliases in other providers: dicts with ``identity`` and
        ``mappings``. (references are resolved, strings are not templated)
    :param deleted: Identities to disable: dicts with ``name`` and ``type``. (references are resolved, strings
        are not templated)
    :param delete_old: Whether to then disable the identities that this task did not push; the task fails if
        it pushed none. Default ``False``. (templated)
    :param queue_delay: The minutes, 0 or more, that Coveo waits before that. Default 15. (templated)
    :param batch_bytes: The maximum size of a batch, in bytes: 1 KiB to 256 MB. Default 12 MiB. (templated)
    :param upload_concurrency: The number of batches uploaded at the same time, 1 to 32. Default 3.
        (templated)
    :param dry_run: Whether to send nothing, and to return what would be sent. Default ``False``. (templated)
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, if it differs from the connection's. (templated)
    :return: The accepted counts: ``accepted_members``, ``accepted_mappings``, ``accepted_deleted``,
        ``batches``, ``ordering_id`` and more; with ``delete_old``, under ``deleted_old``, the result of
        :meth:`~airflow_provider_coveo.hooks.coveo_push.CoveoPushHook.delete_old_identities`.
    :raises CoveoInputError: if a parameter or an identity is invalid; the task does not retry.
    :raises CoveoError: if the request fails; the task retries if that can help.
    """

    #: Identities do not count as pushed items in a bracket.
    pushes_items: bool = False

    template_fields: Sequence[str] = (
        "provider_id",
        *_CoveoOperator.template_fields,
        "is_dry_run",
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
        members: object = None,
        mappings: object = None,
        deleted: object = None,
        delete_old: bool | str = False,
        queue_delay: int | str = 15,
        batch_bytes: int | str | None = None,
        upload_concurrency: int | str | None = None,
        dry_run: bool | str = False,
        **kwargs: Unpack[ConnectionArguments],
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
        self.is_dry_run = dry_run

    def execute(self, context: Context) -> dict[str, object]:
        """Push the identities."""
        sections = {
            "members": _given(self.members),
            "mappings": _given(self.mappings),
            "deleted": _given(self.deleted),
        }
        dry_run = runs_dry(self.is_dry_run, context)
        given = {
            "batch_bytes": self.batch_bytes,
            "upload_concurrency": self.upload_concurrency,
            "dry_run": dry_run or None,
        }
        result = self.hook.push_identities(
            self.provider_id,
            **_without_none(sections),
            **_filled(given),
        )
        if dry_run:
            self.log.info("Dry run, nothing was sent: %s", result)
            return {**result}
        if not _is_true(self.delete_old):
            return dict(result)
        if not result["accepted_members"] + result["accepted_mappings"]:
            raise invalid_input(
                f"Old identities of provider {self.provider_id!r} stay: the task pushed none, and "
                "disabling all others would lock everybody out",
                remedy="Check the task or the input that should have provided the identities",
            )
        # It is set, because some identities were accepted.
        started: int = result["ordering_id"]  # type: ignore[assignment]
        old = self.hook.delete_old_identities(self.provider_id, started, queue_delay=self.queue_delay)
        return {**result, "deleted_old": old}
