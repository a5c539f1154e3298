"""Items: add, push and delete them, and delete the old ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sized
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Literal, cast

from airflow_provider_coveo.coveo.batches import (
    ADD,
    DEFAULT_BATCH_BYTES,
    DELETE,
    Batch,
    deletions,
    item_batches,
    validate_batch_bytes,
)
from airflow_provider_coveo.coveo.caller import Caller
from airflow_provider_coveo.coveo.checkpoints import Checkpoint
from airflow_provider_coveo.coveo.containers import Containers
from airflow_provider_coveo.coveo.dry_run import DryRun
from airflow_provider_coveo.coveo.endpoints import platform_path, push_path, validate_source_id
from airflow_provider_coveo.coveo.errors import (
    AccessDeniedError,
    CoveoInputError,
    TooManyDeletionsError,
    short_repr,
)
from airflow_provider_coveo.coveo.flags import parse_flag
from airflow_provider_coveo.coveo.items import Delete, prepared_item, validate_document_id
from airflow_provider_coveo.coveo.ordering_ids import (
    DEFAULT_QUEUE_DELAY_MINUTES,
    CoveoClock,
    now_ms,
    validate_cut_off,
    validate_queue_delay,
)
from airflow_provider_coveo.coveo.push_stats import InvalidItems, Quota
from airflow_provider_coveo.coveo.pusher import (
    DEFAULT_UPLOAD_CONCURRENCY,
    ContainerPush,
    validate_concurrency,
    validate_iterable,
)
from airflow_provider_coveo.coveo.quantities import quantity
from airflow_provider_coveo.coveo.responses import Response
from airflow_provider_coveo.coveo.sources import managed_by
from airflow_provider_coveo.coveo.transport import Request, json_call

if TYPE_CHECKING:
    from airflow_provider_coveo.coveo.client.fields import Fields
    from airflow_provider_coveo.coveo.fields import FieldCheck
    from airflow_provider_coveo.coveo.observer import ComparedPush
    from airflow_provider_coveo.coveo.only_changes import OnlyChanges
    from airflow_provider_coveo.coveo.results import ItemResult, OldItemsResult, PushResult


class Push:
    """
    The items of sources.

    :param caller: Sends the requests.
    :param containers: Uploads batches, and content that is too large for a request.
    :param remaining_daily_items: Returns how many items can still be pushed today, ``None`` if unknown.
    :param fields: Reads the organization's fields.
    """

    def __init__(
        self,
        caller: Caller,
        containers: Containers,
        remaining_daily_items: Callable[[], int | None],
        fields: Fields,
    ) -> None:
        self._caller = caller
        self._containers = containers
        self._remaining_daily_items = remaining_daily_items
        self._fields = fields
        self._clocks_of_own_sources: dict[str, CoveoClock] = {}

    def add_or_update_item(
        self, source_id: str, item: Mapping[str, object], *, ordering_id: int | str | None = None
    ) -> ItemResult:
        """
        Add one item, or replace it entirely. For more than a few items, Coveo asks for batches.

        Text above 5 MB is uploaded into a file container, and so is content that would make the request
        larger than 6 MB. See https://docs.coveo.com/en/133/.

        :param source_id: The Push source.
        :param item: ``documentId``, one of ``data``, ``compressedBinaryData`` (Base64) and
            ``compressedBinaryDataFileId``, and metadata.
        :param ordering_id: Leave it out, as Coveo advises: Coveo then sets it when the item arrives.
        :return: ``source_id``, ``document_id``, ``request_id`` and ``repeated_items``: how many times the
            item was sent again although Coveo may already have accepted it. Coveo has accepted the item; this
            does not mean that it is indexed.
        :raises CoveoInputError: before anything is sent, if the item or another argument is invalid.
        :raises CoveoError: if the request fails.
        """
        source_id = validate_source_id(source_id)
        prepared = prepared_item(item)
        action = f"Could not push the item {prepared.document_id!r} to source {source_id!r}"
        query: dict[str, object] = {"documentId": prepared.document_id, **_ordering(ordering_id)}
        if prepared.compression_type is not None:
            query["compressionType"] = prepared.compression_type
        if prepared.is_too_large_for_its_request:
            large = prepared.large_content()
            # Reject an item that is too large even without its content, before sending anything.
            prepared.body_for_container("")
            body = prepared.body_for_container(self._containers.upload(large.data, action).file_id)
            if large.compression_type is not None:
                query["compressionType"] = large.compression_type
        else:
            body = prepared.body()
        path = push_path(self._caller.organization_id, "sources", source_id, "documents")
        response = self._caller.send(Request(action, "PUT", path, query=query, body=body, expected=202))
        self._warn_if_repeated(response, f"item {prepared.document_id!r}")
        self._caller.observer.accepted(source_id, {ADD: 1}, len(body))
        self._caller.observer.item_added(source_id)
        return {
            "source_id": source_id,
            "document_id": prepared.document_id,
            "request_id": response.request_id,
            "repeated_items": response.repeats,
        }

    def push_items(
        self,
        source_id: str,
        items: Iterable[object],
        *,
        delete: Iterable[str | Delete] = (),
        batch_bytes: int | str = DEFAULT_BATCH_BYTES,
        upload_concurrency: int | str = DEFAULT_UPLOAD_CONCURRENCY,
        on_invalid: Literal["fail", "skip"] = "fail",
        max_invalid: int | str | None = None,
        progress: Callable[[dict[str, object]], None] | None = None,
        checkpoint: Checkpoint | None = None,
        check_quota: bool = False,
        changes: OnlyChanges | None = None,
        rejected_path: object = None,
        check_fields: str | None = None,
        dry_run: bool = False,
    ) -> PushResult:
        """
        Push any number of items in batches: fast, in constant memory, and with exact counts.

        The input is read once, as fast as it is pushed; only the batches in flight are in memory. Each item
        is validated and encoded once. Batches are uploaded in parallel, and submitted in input order, each
        after its own upload succeeds. The index therefore ends up as if the items had been pushed one by one:
        of two entries with the same ID, the later one counts, even if one of them is a deletion. If the push
        fails, the accepted items are the beginning of the input, and the error says how many they are.

        Text above 5 MB is uploaded into its own file container. No orderingId is sent, as Coveo advises. See
        https://docs.coveo.com/en/90/.

        :param source_id: The Push source.
        :param items: The items: dicts with Coveo's keys, :class:`~airflow_provider_coveo.coveo.items.Item`,
            bytes with one JSON object each (they are validated and sent unchanged, except that permissions in
            a different capitalization than Coveo's are rewritten), and
            :class:`~airflow_provider_coveo.coveo.items.Delete` for deletions.
        :param delete: The items to delete after the others: IDs, or ``Delete``.
        :param batch_bytes: The maximum size of a batch: 1 KiB to 256 MB. A larger item gets a batch of its
            own. Default 12 MiB.
        :param upload_concurrency: The number of batches uploaded at the same time, 1 to 32. One more can wait
            to be submitted. Default 3.
        :param on_invalid: The handling of items that Coveo would reject. ``fail`` (the default) ends the push
            and reports the first 20; ``skip`` leaves them out, counts them and lists the first 20.
        :param max_invalid: With ``skip``, the maximum number of invalid items; beyond it, the push fails. A
            number, or a share such as ``"1%"``, which is checked once 10,000 items are read and at the end.
            Default 100; unlimited with ``rejected_path``.
        :param progress: Called with the result so far after each accepted batch.
        :param checkpoint: Saves which batches were accepted, so that a later call with the same input resumes
            where this one failed. It belongs to one push in one task; do not share it.
        :param check_quota: Whether to check first how many items can still be pushed today. If they are too
            few, or become too few, the push logs a warning. Default ``False``.
        :param changes: Pushes only what changed since the last push, and deletes items missing from the
            input: :class:`~airflow_provider_coveo.coveo.only_changes.OnlyChanges`. It replaces
            ``checkpoint``. Default: push everything, and delete nothing else.
        :param rejected_path: The file for invalid items, as JSON Lines: ``.ndjson`` or ``.ndjson.gz``, local
            or on object storage. It is written in one go when the push ends, and only if there are such
            items. Default: no file.
        :param check_fields: Whether to list the organization's fields first, and the handling of metadata
            without a field: ``warn`` logs each such key once; ``fail`` ends the push before an item with such
            a key is sent, or before anything is sent if the fields can't be listed; ``off`` does not check.
            ``None`` or an empty text means the default: ``off``, in a dry run ``warn``. It needs the
            privilege to view fields.
        :param dry_run: Whether to only read, validate and count the input, and send nothing. The daily quota
            and the fields are still read from Coveo. Default ``False``.
        :return: ``source_id``; ``accepted_adds`` and ``accepted_deletes``: the number of input entries that
            Coveo has accepted, which does not mean that they are indexed yet; ``replaced``: how many of them
            were not sent because a later entry of the same batch has the same ID; ``batches`` and ``bytes``;
            ``resumed_batches``: how many of the batches an earlier attempt got accepted, so that they were
            not sent again, and ``resumed_entries``: the entries in them; ``repeated_batches``: how many times
            a batch was sent again although Coveo may already have accepted it, because there was no response
            or an earlier attempt was killed, and ``repeated_items``: the operations in them, so that the item
            logs may show up to that many more; ``earlier_items``: the operations that another, successful
            attempt of the task sent within the last hour, so that they may still be in Coveo's pipeline;
            ``deletes_with_children``, and ``repeated_deletes_with_children``: how many of them are among
            ``repeated_items``; ``seconds``; ``first_request_id`` and ``last_request_id`` of the requests
            sent; ``ordering_id``: the time on Coveo's clock, in epoch milliseconds, before the first batch
            was sent by any attempt; ``invalid`` and ``invalid_items``: the number of items left out, and the
            first of them with ``index``, ``document_id`` and ``rule``. With ``rejected_path``, also
            ``rejected``: the number of items in that file, and ``rejected_path``, which is ``None`` if there
            are none. With ``changes``, also the keys listed in
            :class:`~airflow_provider_coveo.coveo.only_changes.OnlyChanges`. With ``check_fields``,
            ``unknown_fields``: the first 100 metadata keys without a field. A dry run returns ``dry_run``,
            ``adds`` and ``deletes`` instead of the accepted counts; ``calls``: the number of Push API calls;
            ``invalid_by_rule``; ``remaining_daily_items`` if Coveo reports it; and ``problems``: descriptions
            of everything that would end the push.
        :raises CoveoInputError: if an argument is invalid; nothing was sent. Also if items are invalid: the
            batches before them were accepted.
        :raises TooManyDeletionsError: if, with ``changes``, the input lacks more items than may be deleted;
            the input was accepted, and nothing else was deleted.
        :raises CoveoError: if the request fails. ``accepted`` has the result up to then.
        """
        source_id = validate_source_id(source_id)
        limit = validate_batch_bytes(batch_bytes)
        concurrency = validate_concurrency(upload_concurrency)
        is_dry = parse_flag("dry_run", dry_run)
        caller, observer = self._caller, self._caller.observer
        rejected = observer.rejected_items(source_id, rejected_path) if rejected_path and not is_dry else None
        invalid = InvalidItems.validate(
            on_invalid, max_invalid, f"source {source_id!r}", rejected, keeps_them=bool(rejected_path)
        )
        compared = None if changes is None else observer.compared_push(source_id, changes, dry_run=is_dry)
        expected = len(items) if isinstance(items, Sized) else None
        entries: Iterable[object] = itertools.chain(validate_iterable(items, "items"), deletions(delete))
        check, fails = self._fields.field_check(check_fields, default="warn" if is_dry else "off")
        if check is not None:
            entries = check.watched(entries, caller.log, fails=fails and not is_dry)
        if is_dry:
            return self._dry_run(source_id, entries, limit, invalid, check, compared, fails=fails)
        if compared is None:
            records = observer.push_records(source_id, resumable=checkpoint is not None)
        else:
            checkpoint, records = None, compared.records
        push = ContainerPush(
            self._containers,
            path=push_path(caller.organization_id, "sources", source_id, "documents", "batch"),
            target=f"source {source_id!r}",
            unit=("item", "items"),
            names={ADD: "accepted_adds", DELETE: "accepted_deletes"},
            concurrency=concurrency,
            batch_bytes=limit,
            checkpoint=checkpoint,
            records=records,
            progress=progress,
            count=self._counter(source_id, compared),
        )
        if check_quota:
            push.quota = Quota(self._remaining_daily_items(), expected)
        try:
            self._run(push, entries, limit, invalid, compared)
        except Exception:
            observer.pushed(source_id, {**push.result(), **invalid.result()}, is_complete=False)
            raise
        push.clear_checkpoint()
        result = cast(
            "PushResult",
            {
                "source_id": source_id,
                **push.result(),
                "deletes_with_children": push.stats.children,
                "repeated_deletes_with_children": push.stats.repeated_children,
                **invalid.result(),
                **({} if compared is None else compared.result(push.result())),
                **({} if check is None else {"unknown_fields": check.result()}),
            },
        )
        observer.pushed(source_id, result, is_complete=True)
        self._log_result(result, invalid)
        return result

    def _log_result(self, result: PushResult, invalid: InvalidItems) -> None:
        resumed = result["resumed_batches"]
        self._caller.log.info(
            "Source %s: %s and %s accepted in %s (%.1f MB, %.1f s)%s; %s skipped",
            result["source_id"],
            quantity(result["accepted_adds"], "item"),
            quantity(result["accepted_deletes"], "deletion"),
            quantity(result["batches"], "batch", "batches"),
            result["bytes"] / 1e6,
            result["seconds"],
            f", {resumed:,} of which an earlier attempt had pushed" if resumed else "",
            quantity(result["invalid"], "invalid item"),
        )
        if invalid.found.count:
            self._caller.log.warning("Skipped because Coveo would reject them: %s", invalid.found.words())

    def _run(
        self,
        push: ContainerPush,
        entries: Iterable[object],
        limit: int,
        invalid: InvalidItems,
        compared: ComparedPush | None,
    ) -> None:
        cut: Callable[..., Iterable[Batch]] = item_batches
        if compared is not None:
            # Whether the share of invalid items is too large is known only at the end of the input.
            cut = partial(compared.batches, may_delete=lambda: not invalid.ended_push)
        with nullcontext() if compared is None else compared:
            try:
                push.run(cut(invalid.counted(entries), limit, invalid.skip, invalid.input_failed))
            except Exception as failure:
                invalid.end(succeeded=False)
                noted = invalid.add_note(failure, self._caller.log)
                if noted is failure:
                    raise
                raise noted from failure.__cause__
            if invalid.failure is not None:
                self._caller.log.error("The input failed after an invalid item", exc_info=invalid.failure)
            if invalid.ended_push:
                push.save_checkpoint()
                invalid.end(succeeded=False)
                raise invalid.error(push.accepted_summary(), push.result())
            try:
                if compared is not None:
                    compared.finish()
                invalid.end(succeeded=True)
            except Exception:
                # Everything is pushed: a retry only has to find the invalid items again.
                push.save_checkpoint()
                raise

    def _counter(self, source_id: str, compared: ComparedPush | None) -> Callable[[Batch], None]:
        """Return a function to call with each accepted batch."""

        def count(batch: Batch) -> None:
            if compared is not None:
                compared.accepted(batch)
            self._caller.observer.accepted(source_id, batch.counts, batch.size)

        return count

    def _dry_run(
        self,
        source_id: str,
        entries: Iterable[object],
        limit: int,
        invalid: InvalidItems,
        check: FieldCheck | None,
        compared: ComparedPush | None,
        *,
        fails: bool,
    ) -> PushResult:
        """Read the input, and return the counts of what would be sent."""
        self._caller.observer.dry_push(source_id)
        run = DryRun({ADD: "adds", DELETE: "deletes"}, invalid)
        cut = item_batches if compared is None else compared.batches
        with nullcontext() if compared is None else compared:
            try:
                run.read(cut(invalid.counted(entries), limit, run.skip))
            except TooManyDeletionsError as error:
                run.problems.append(str(error))
        remaining = self._remaining_daily_items()
        result = run.result(check=check, check_fails=fails, remaining=remaining)
        if compared is not None:
            result |= compared.result({"accepted_deletes": result["deletes"], "batches": result["batches"]})
        log = self._caller.log
        log.info(
            "Dry run, nothing was sent. Source %s: %s and %s in %s (%.1f MB), %s; %s",
            source_id,
            quantity(result["adds"], "item"),
            quantity(result["deletes"], "deletion"),
            quantity(result["batches"], "batch", "batches"),
            result["bytes"] / 1e6,
            quantity(result["calls"], "Push API call"),
            quantity(result["invalid"], "invalid item"),
        )
        for problem in result["problems"]:
            log.warning("The push would fail: %s", problem)
        return cast("PushResult", {"source_id": source_id, **result})

    def delete_item(
        self,
        source_id: str,
        document_id: str,
        *,
        delete_children: bool = False,
        ordering_id: int | str | None = None,
    ) -> ItemResult:
        """
        Delete one item. See https://docs.coveo.com/en/171/.

        :param source_id: The Push source.
        :param document_id: The item's ``documentId``.
        :param delete_children: Whether to also delete the items whose IDs begin with this one's. It matches a
            prefix, not the ``parentId``.
        :param ordering_id: Leave it out, as Coveo advises.
        :return: ``source_id``, ``document_id``, ``request_id`` and ``repeated_items``: how many times the
            request was sent again although Coveo may already have accepted it. Accepted does not mean deleted
            yet.
        :raises CoveoInputError: before anything is sent, if an argument is invalid.
        :raises CoveoError: if the request fails.
        """
        source_id = validate_source_id(source_id)
        document_id = validate_document_id(document_id)
        if not isinstance(delete_children, bool):
            raise CoveoInputError(
                f"Invalid delete_children: {short_repr(delete_children)}",
                cause="Python treats any text as true, and true deletes every item with that prefix",
                remedy="Pass True or False",
            )
        response = self._caller.send(
            Request(
                f"Could not delete the item {document_id!r} from source {source_id!r}",
                "DELETE",
                push_path(self._caller.organization_id, "sources", source_id, "documents"),
                query={
                    "documentId": document_id,
                    "deleteChildren": "true" if delete_children else "false",
                    **_ordering(ordering_id),
                },
                expected=202,
            )
        )
        self._warn_if_repeated(response, f"the deletion of {document_id!r}")
        self._caller.observer.accepted(source_id, {DELETE: 1}, 0)
        return {
            "source_id": source_id,
            "document_id": document_id,
            "request_id": response.request_id,
            "repeated_items": response.repeats,
        }

    def delete_old_items(
        self,
        source_id: str,
        ordering_id: int | str | None = None,
        *,
        queue_delay: int | str = DEFAULT_QUEUE_DELAY_MINUTES,
        dry_run: bool = False,
    ) -> OldItemsResult:
        """
        Delete the items that were last pushed before a given time; with the current time, reset the source.

        Before anything is deleted, it rejects a cut-off that is in the future, in another unit, or not a
        positive integer, and a source that Coveo for Sitecore or the Crawling Module manages. See
        https://docs.coveo.com/en/131/.

        :param source_id: The Push source.
        :param ordering_id: Items whose last orderingId is strictly lower are deleted: epoch milliseconds.
            Default: the current time on Coveo's clock.
        :param queue_delay: Minutes that Coveo waits before it deletes, so that earlier pushes are processed:
            0 or more. Default 15.
        :param dry_run: Whether to only check, and delete nothing. Default ``False``.
        :return: ``source_id``, ``ordering_id``, ``queue_delay`` and ``request_id``; for a dry run, also
            ``dry_run``.
        :raises CoveoInputError: if an argument is invalid, or the source is managed by a product.
        :raises CoveoError: if the request fails.
        """
        source_id = validate_source_id(source_id)
        minutes = validate_queue_delay(queue_delay)
        if ordering_id is not None:
            validate_cut_off(ordering_id, now_ms())
        clock = self._clock_of_own_source(source_id)
        if ordering_id is None:
            cut_off = clock.now_ms()
        else:
            cut_off = validate_cut_off(ordering_id, clock.latest_cut_off_ms())
        result: OldItemsResult = {
            "source_id": source_id,
            "ordering_id": cut_off,
            "queue_delay": minutes,
            "request_id": None,
        }
        if parse_flag("dry_run", dry_run):
            self._caller.log.info(
                "Dry run, nothing was sent. Items of source %s older than orderingId %d would be deleted in "
                "%d min",
                source_id,
                cut_off,
                minutes,
            )
            return {**result, "dry_run": True}
        response = self._caller.send(
            Request(
                f"Could not delete the items of source {source_id!r} that are older than {cut_off}",
                "DELETE",
                push_path(self._caller.organization_id, "sources", source_id, "documents", "olderthan"),
                query={"orderingId": cut_off, "queueDelay": minutes},
                expected=202,
            )
        )
        self._caller.log.info(
            "Items of source %s older than orderingId %d will be deleted in %d min",
            source_id,
            cut_off,
            minutes,
        )
        return {**result, "request_id": response.request_id}

    def current_cut_off(self, source_id: str) -> int:
        """
        Return the cut-off that :meth:`delete_old_items` would use now, without deleting anything.

        :param source_id: The Push source.
        :raises CoveoInputError: if a Coveo product manages the source, so that there is no such cut-off.
        """
        return self._clock_of_own_source(validate_source_id(source_id)).now_ms()

    def _clock_of_own_source(self, source_id: str) -> CoveoClock:
        """
        Return Coveo's clock, after checking that none of Coveo's products manages the source.

        :raises CoveoInputError: if a product manages it.
        """
        if source_id in self._clocks_of_own_sources:
            return self._clocks_of_own_sources[source_id]
        caller = self._caller
        path = platform_path(caller.organization_id, "sources", source_id, "light")
        request = Request(f"Could not read source {source_id!r}", "GET", path, host="platform")
        try:
            source = caller.call(json_call(request, "id"))
        except AccessDeniedError:
            caller.log.warning(
                "The API key lacks the privilege to view source %s; not checked whether Coveo for Sitecore "
                "or the Crawling Module manages it",
                source_id,
            )
        else:
            _reject_managed(source_id, source)
        self._clocks_of_own_sources[source_id] = caller.clock
        return self._clocks_of_own_sources[source_id]

    def _warn_if_repeated(self, response: Response, what: str) -> None:
        if response.repeats:
            self._caller.log.warning(
                "Sent %s again, though Coveo may have accepted it: it may appear %s in the item logs",
                what,
                quantity(response.repeats + 1, "time"),
            )


def _reject_managed(source_id: str, source: Mapping[str, object]) -> None:
    product = managed_by(source)
    if product is None:
        return
    raise CoveoInputError(
        f"Source {source_id!r} is managed by {product}, so its old items can't be deleted by time",
        cause="its ordering IDs are not in milliseconds; a request by hand would damage it",
        remedy="Recreate the source: duplicate it, test the copy, delete the original; "
        "see https://docs.coveo.com/en/35/",
    )


def _ordering(ordering_id: int | str | None) -> dict[str, int]:
    return {} if ordering_id is None else {"orderingId": validate_cut_off(ordering_id, now_ms())}
