"""Security identities: push them, and disable the old ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, cast

from airflow_provider_coveo.coveo.batches import DEFAULT_BATCH_BYTES, validate_batch_bytes
from airflow_provider_coveo.coveo.caller import Caller
from airflow_provider_coveo.coveo.containers import Containers
from airflow_provider_coveo.coveo.dry_run import DryRun
from airflow_provider_coveo.coveo.endpoints import push_path
from airflow_provider_coveo.coveo.flags import parse_flag
from airflow_provider_coveo.coveo.identities import (
    DELETED,
    MAPPINGS,
    MEMBERS,
    identity_batches,
    validate_provider_id,
)
from airflow_provider_coveo.coveo.max_invalid import MaxInvalid
from airflow_provider_coveo.coveo.ordering_ids import (
    DEFAULT_QUEUE_DELAY_MINUTES,
    now_ms,
    validate_cut_off,
    validate_queue_delay,
)
from airflow_provider_coveo.coveo.push_stats import InvalidItems
from airflow_provider_coveo.coveo.pusher import (
    DEFAULT_UPLOAD_CONCURRENCY,
    ContainerPush,
    validate_concurrency,
    validate_iterable,
)
from airflow_provider_coveo.coveo.quantities import quantity
from airflow_provider_coveo.coveo.transport import Request

if TYPE_CHECKING:
    from airflow_provider_coveo.coveo.results import IdentitiesResult, OldIdentitiesResult

_UNIT: Final = ("identity", "identities")


class Identities:
    """
    The identities of security identity providers.

    :param caller: Makes the requests.
    :param containers: Uploads batches and submits them.
    """

    def __init__(self, caller: Caller, containers: Containers) -> None:
        self._caller = caller
        self._containers = containers

    def push_identities(
        self,
        provider_id: str,
        *,
        members: Iterable[Mapping[str, object]] = (),
        mappings: Iterable[Mapping[str, object]] = (),
        deleted: Iterable[Mapping[str, object]] = (),
        batch_bytes: int | str = DEFAULT_BATCH_BYTES,
        upload_concurrency: int | str = DEFAULT_UPLOAD_CONCURRENCY,
        progress: Callable[[dict[str, object]], None] | None = None,
        dry_run: bool = False,
    ) -> IdentitiesResult:
        """
        Push security identities in batches: first members, then mappings, then deletions.

        Push them before the items whose permissions name them. Pushing a group replaces its member list.
        See https://docs.coveo.com/en/55/.

        :param provider_id: The security identity provider.
        :param members: Identities with their members: dicts with ``identity`` (``name`` and ``type``),
            ``members`` and ``wellKnowns``.
        :param mappings: Identities with their aliases in other providers: dicts with ``identity`` and
            ``mappings``. A user with aliases belongs here, not in ``members``.
        :param deleted: Identities to disable: dicts with ``name`` and ``type``.
        :param batch_bytes: The maximum size of a batch: 1 KiB to 256 MB. Default 12 MiB.
        :param upload_concurrency: The number of batches uploaded at the same time, 1 to 32. Default 3.
        :param progress: Called with the result so far after each accepted batch.
        :param dry_run: Whether to only read, check and count the identities, and send nothing. Default
            ``False``.
        :return: ``provider_id``; ``accepted_members``, ``accepted_mappings`` and ``accepted_deleted``;
            ``batches``, ``bytes``, ``seconds``, ``first_request_id``, ``last_request_id`` and ``replaced``;
            ``repeated_batches`` and ``repeated_items`` as
            :meth:`~airflow_provider_coveo.coveo.client.push.Push.push_items` describes them;
            ``ordering_id``: the time on Coveo's clock before the push, in epoch milliseconds; use it as the
            cut-off to disable older identities. A dry run returns ``dry_run``, ``members``, ``mappings``,
            ``deleted``, ``batches``, ``calls``, ``bytes``, ``invalid``, ``invalid_items``,
            ``invalid_by_rule`` and ``problems``.
        :raises CoveoInputError: if an argument or an identity is invalid; the batches before that identity
            were accepted.
        :raises CoveoError: if the request fails. ``accepted`` holds the result up to then.
        """
        provider_id = validate_provider_id(provider_id)
        target = f"security identity provider {provider_id!r}"
        limit = validate_batch_bytes(batch_bytes)
        concurrency = validate_concurrency(upload_concurrency)
        invalid = InvalidItems(False, MaxInvalid.parse(0), target)
        sections = (
            validate_iterable(members, "members"),
            validate_iterable(mappings, "mappings"),
            validate_iterable(deleted, "deleted"),
        )
        if parse_flag("dry_run", dry_run):
            run = DryRun({MEMBERS: "members", MAPPINGS: "mappings", DELETED: "deleted"}, invalid)
            run.read(identity_batches(*sections, limit, run.skip))
            return cast("IdentitiesResult", {"provider_id": provider_id, **run.result()})
        push = ContainerPush(
            self._containers,
            path=push_path(self._caller.organization_id, "providers", provider_id, "permissions", "batch"),
            target=target,
            unit=_UNIT,
            names={MEMBERS: "accepted_members", MAPPINGS: "accepted_mappings", DELETED: "accepted_deleted"},
            concurrency=concurrency,
            batch_bytes=limit,
            progress=progress,
        )
        push.run(identity_batches(*sections, limit, invalid.skip))
        if invalid.ended_push:
            raise invalid.error(push.accepted_summary(), push.result())
        self._caller.log.info("%s: %s accepted", target, quantity(push.stats.total, *_UNIT))
        result = push.result()
        del result["resumed_batches"], result["resumed_entries"], result["earlier_items"]
        return cast("IdentitiesResult", {"provider_id": provider_id, **result})

    def delete_old_identities(
        self,
        provider_id: str,
        ordering_id: int | str,
        *,
        queue_delay: int | str = DEFAULT_QUEUE_DELAY_MINUTES,
    ) -> OldIdentitiesResult:
        """
        Disable the identities that were last pushed before a given time. See https://docs.coveo.com/en/33/.

        :param provider_id: The security identity provider.
        :param ordering_id: Identities whose last orderingId is strictly lower are disabled: epoch
            milliseconds, such as the ``ordering_id`` that :meth:`push_identities` returns.
        :param queue_delay: Minutes that Coveo waits first, so that earlier pushes are processed: 0 or more.
            Default 15.
        :return: ``provider_id``, ``ordering_id``, ``queue_delay`` and ``request_id``.
        :raises CoveoInputError: before anything is sent, if an argument is invalid.
        :raises CoveoError: if the request fails.
        """
        provider_id = validate_provider_id(provider_id)
        minutes = validate_queue_delay(queue_delay)
        cut_off = validate_cut_off(ordering_id, now_ms())
        response = self._caller.send(
            Request(
                f"Could not disable the identities of provider {provider_id!r} that are older than {cut_off}",
                "DELETE",
                push_path(self._caller.organization_id, "providers", provider_id, "permissions", "olderthan"),
                query={"orderingId": cut_off, "queueDelay": minutes},
                expected=202,
            )
        )
        return {
            "provider_id": provider_id,
            "ordering_id": cut_off,
            "queue_delay": minutes,
            "request_id": response.request_id,
        }
