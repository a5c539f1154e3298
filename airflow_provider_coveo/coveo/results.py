"""The results of the client's methods: dicts with fixed keys, which become XComs as they are."""

from __future__ import annotations

from typing import TypedDict


class StatusResult(TypedDict):
    """The result of setting a source's status."""

    source_id: str
    status: str
    #: The time of the change on Coveo's clock, in epoch milliseconds.
    ordering_id: int
    request_id: str | None


class _DryRunOnly(TypedDict, total=False):
    """The part of a result that only a dry run has."""

    #: Whether nothing was sent: ``True``.
    dry_run: bool


class OldItemsResult(_DryRunOnly):
    """The result of deleting the old items of a source."""

    source_id: str
    #: The cut-off in epoch milliseconds.
    ordering_id: int
    #: Minutes.
    queue_delay: int
    request_id: str | None


class ItemResult(TypedDict):
    """The result of adding or deleting one item."""

    source_id: str
    document_id: str
    request_id: str | None
    #: How many times it was sent again although Coveo may already have accepted it.
    repeated_items: int


class InvalidItem(TypedDict):
    """An invalid item."""

    #: Its index in the input, from 0.
    index: int
    document_id: str | None
    rule: str


class RejectedResult(TypedDict, total=False):
    """The part of a push's result about its file of rejected items."""

    #: The number of items in the file.
    rejected: int
    #: The file, or ``None`` if no item was rejected.
    rejected_path: str | None


class InvalidResult(RejectedResult):
    """The part of a push's result about invalid items."""

    invalid: int
    #: The first invalid items.
    invalid_items: list[InvalidItem]


class _BatchesResult(TypedDict):
    """The part that the results of pushing items and of pushing identities share."""

    replaced: int
    batches: int
    repeated_batches: int
    repeated_items: int
    bytes: int
    seconds: float
    first_request_id: str | None
    last_request_id: str | None
    #: The time on Coveo's clock, in epoch milliseconds, before the first batch was sent.
    ordering_id: int | None


class ComparedResult(TypedDict, total=False):
    """The part of the result that only a push of only changes has."""

    added: int
    updated: int
    deleted: int
    unchanged: int
    saved_items: int
    #: About how many requests were saved, compared to a push of everything.
    saved_calls: int
    #: Why everything was pushed, or ``None`` if only changes were.
    full_because: str | None
    #: The URL or path of the snapshot.
    snapshot: str


class _FieldsChecked(TypedDict, total=False):
    """The part of a push's result that exists if fields were checked."""

    #: The first metadata keys without a field.
    unknown_fields: list[str]


class PushResult(_BatchesResult, InvalidResult, ComparedResult, _FieldsChecked):
    """The result of pushing items."""

    source_id: str
    accepted_adds: int
    accepted_deletes: int
    resumed_batches: int
    resumed_entries: int
    earlier_items: int
    deletes_with_children: int
    repeated_deletes_with_children: int


class IdentitiesResult(_BatchesResult):
    """The result of pushing security identities."""

    provider_id: str
    accepted_members: int
    accepted_mappings: int
    accepted_deleted: int


class OldIdentitiesResult(TypedDict):
    """The result of disabling the old identities of a provider."""

    provider_id: str
    #: The cut-off in epoch milliseconds.
    ordering_id: int
    #: Minutes.
    queue_delay: int
    request_id: str | None


class DeletedSourceResult(TypedDict):
    """The result of deleting a source."""

    source_id: str
    request_id: str | None


class ActivityResult(TypedDict):
    """The result of aborting an activity of a source."""

    source_id: str
    activity_id: str
    request_id: str | None


class LogCounts(TypedDict):
    """The number of entries in the item logs, by facet."""

    results: dict[str, int]
    tasks: dict[str, int]
    operations: dict[str, int]
    sourceIds: dict[str, int]
