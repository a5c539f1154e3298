"""
Pushes of only changes: a stream of items is compared with the items that Coveo accepted before.

A snapshot holds the accepted items: a digest of the item for each ID. New and changed items of the stream are
cut into batches. At the end of the stream, the items that only the snapshot has are deleted.
"""

from __future__ import annotations

import hashlib
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress
from typing import Any, Final, Protocol, cast

import msgspec

from airflow_provider_coveo.coveo.batches import (
    ADD,
    DELETE,
    MAX_ENTRIES,
    Batch,
    Batcher,
    add_other,
    find_more_invalid,
    item_groups,
)
from airflow_provider_coveo.coveo.errors import CoveoInputError, TooManyDeletionsError, short_repr
from airflow_provider_coveo.coveo.item_encoding import ItemEncoder
from airflow_provider_coveo.coveo.items import CheckedDelete, Entry, InvalidItemError, validate_document_id
from airflow_provider_coveo.coveo.max_deleted import MaxDeleted
from airflow_provider_coveo.coveo.quantities import quantity

#: The operations on one ID in a batch: added or updated, deleted by the input, deleted because the input
#: lacks it, or deleted together with all IDs that begin with it.
ADDED, DELETED, REMOVED, REMOVED_PREFIX = "+", "-", "x", "*"
#: Replaces the digest of an item that the input deleted.
TOMBSTONE: Final = b""
_Row = tuple[str, "bytes | None", int]
_NO_ROW: Final[_Row] = ("", None, -1)
_DIGEST_OF: Final[Callable[[_Row], bytes | None]] = operator.itemgetter(1)
_NUMBER_OF: Final[Callable[[_Row], int]] = operator.itemgetter(2)
#: One of these operations, the ID, and the digest.
Operation = tuple[str, str, "bytes | None"]

_DIGEST_BYTES: Final = 16
#: If at most one item in this many differs, only those items are compared one by one.
_FEW: Final = 8
#: After a group in which most items differ, this many groups are compared item by item.
_GROUPS_SKIPPED: Final = 16
#: Items are marked as seen together if the range of their numbers is at most this many times their count.
_MAX_SPREAD: Final = 16
#: The number of entries, and their bytes, to look up together when they are compared one by one.
_ENTRIES_PER_LOOKUP: Final = 900
_BYTES_PER_LOOKUP: Final = 1024 * 1024
#: The maximum number of changed items and deletions in a batch. The ID, the digest and the index of each are
#: in memory in addition to what is sent, so small entries take several times their size.
_MAX_CHANGED_ENTRIES: Final = 10_000
#: The maximum number of prefixes in memory; beyond it, all further items are pushed.
_MAX_PREFIXES: Final = 200
_MISSING_SHOWN: Final = 20


class _Identified(msgspec.Struct, gc=False):
    document_id: str = msgspec.field(name="documentId")


_ids_decoder = msgspec.json.Decoder(list[_Identified])


class KnownItems(Protocol):
    """The previously accepted items, as a comparison needs them."""

    @property
    def items(self) -> int:
        """The number of items."""

    @property
    def rows(self) -> int:
        """The number of known IDs, including those of deleted items."""

    @property
    def numbers(self) -> int:
        """A number above all numbers of the items."""

    def lookup(self, ids: Sequence[str]) -> dict[str, tuple[str, bytes | None, int]]:
        """Return the ID, digest and number of each given ID that is known."""

    def find_missing(self, seen: bytearray) -> None:
        """Find the items whose bit is not set."""

    def missing(self) -> Iterator[tuple[str, bytes | None]]:
        """Yield the IDs and digests of the missing items."""


class Comparison:
    """
    Compares the entries of a stream, in order, with the known items, and counts the differences.

    If the stream repeats an ID that was sent, the later entry is sent too, so that the last one counts.

    :param known: The previously accepted items.
    :param max_deleted: The limit for deletions of items that the stream lacks.
    :param target: The target of the push, for messages.
    :param holds: Whether the known digests are still valid. If not, everything is pushed.
    :param on_batch: Called with each batch's number and operations before the batch is yielded.
    """

    def __init__(
        self,
        known: KnownItems,
        *,
        max_deleted: MaxDeleted,
        target: str,
        holds: bool,
        on_batch: Callable[[int, list[Operation]], None],
    ) -> None:
        self.added = self.updated = self.unchanged = self.missing = 0
        #: The approximate number of batches that pushing everything would take.
        self.full_batches = 0
        #: The number of items in the stream.
        self.items = 0
        #: Whether there was an invalid entry whose item is unknown.
        self.has_unknown_entries = False
        #: Why missing items were not deleted, or ``None``.
        self.kept_because: str | None = None
        self._known = known
        self._is_empty = not known.rows
        self._max_deleted = max_deleted
        self._target = target
        self._holds = holds
        self._on_batch = on_batch
        bits = known.numbers // 8 + 1
        self._seen, self._sent = bytearray(bits), bytearray(bits)
        #: The IDs deleted with their children, and the prefixes that their children's IDs are sure to have.
        self._prefixes: tuple[str, ...] = ()
        self._folders: tuple[str, ...] = ()
        self._full_size = 0
        self._full_entries = 0
        self._limit = 0
        self._groups_to_skip = 0

    # --- the stream ---

    def batches(
        self,
        items: Iterable[object],
        limit: int,
        on_invalid: Callable[[int, InvalidItemError], bool],
        on_failure: Callable[[Exception], object] | None = None,
        may_delete: Callable[[], bool] | None = None,
    ) -> Iterator[Batch]:
        """
        Cut the changes in a stream of items and deletions into batches, then delete the items it lacks.

        :param items: The entries, as for :func:`~airflow_provider_coveo.coveo.batches.item_batches`.
        :param limit: The maximum size of a batch in bytes.
        :param on_invalid: Called with the index and the error of each invalid entry; returns whether to skip
            it.
            :param on_failure: Called with the exception if the stream itself fails.
        :param may_delete: Called at the end of the stream; returns whether to delete the items it lacks.
            Default: always.
        :raises TooManyDeletionsError: after the last batch, if the stream lacks more items than may be
            deleted.
        """
        self._limit = limit
        output = _Output(limit, self._on_batch)
        encoder = ItemEncoder()
        held = _Held()
        place = -1
        groups = item_groups(items, cast("Batcher", _AnyRoom(limit)), on_failure)
        for group in groups:
            first, place = place + 1, place + len(group)
            left: Sequence[object] = group
            indexes: Sequence[int] = range(len(group))
            chunk = None
            if type(group) is list:
                yield from self._compare_held(held, output)
                differing = self._differing(group)
                if differing is not None:
                    left, indexes = [group[index] for index in differing], differing
                if differing is None or len(left) > len(group) // _FEW:
                    chunk = encoder.encode_chunk(cast("list[bytes]", left)) if left else None
            if chunk is not None:
                yield from self._compare_chunk(cast("list[bytes]", left), chunk, first, output)
                continue
            entries = iter(zip(indexes, left, strict=True))
            for index, item in entries:
                try:
                    held.add(first + index, encoder.encode(item))
                except InvalidItemError as error:
                    error.item = item
                    if on_invalid(first + index, error):
                        self._note_invalid(error)
                        continue
                    rest = itertools.chain(
                        (item for _, item in entries), itertools.chain.from_iterable(groups)
                    )
                    find_more_invalid(enumerate(rest, first + index + 1), encoder.encode, on_invalid)
                    return
                if held.is_full:
                    yield from self._compare_held(held, output)
        yield from self._compare_held(held, output)
        if may_delete is None or may_delete():
            yield from self._delete_missing(output, place)
        else:
            yield from output.flush()

    def _differing(self, group: list[bytes]) -> list[int] | None:
        """
        Return the indexes of the JSON items whose bytes differ from what was accepted before.

        Accepted items were validated before, so only the IDs of equal items have to be read.

        :return: The indexes, or ``None`` if the group can't be compared as a whole.
        """
        if self._is_empty or not self._holds or self._prefixes:
            return None
        if self._groups_to_skip:
            self._groups_to_skip -= 1
            return None
        try:
            ids = [item.document_id for item in _ids_decoder.decode(b"[" + b",".join(group) + b"]")]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if len(ids) != len(group) or len(set(ids)) < len(ids):
            return None
        sha256 = hashlib.sha256
        digests = [sha256(text.strip()).digest()[:_DIGEST_BYTES] for text in group]
        known = self._known.lookup(ids)
        rows = list(map(known.get, ids, itertools.repeat(_NO_ROW)))
        differing = list(compress(itertools.count(), map(operator.ne, map(_DIGEST_OF, rows), digests)))
        same = rows
        if differing:
            same = list(compress(rows, map(operator.eq, map(_DIGEST_OF, rows), digests)))
        if len(differing) > len(group) // 2:
            self._groups_to_skip = _GROUPS_SKIPPED
        if not self._note_same(list(map(_NUMBER_OF, same))):
            return None
        left = sum(len(group[index]) for index in differing)
        self._count_full(sum(map(len, group)) - left, len(same))
        return differing

    def _note_same(self, numbers: list[int]) -> bool:
        """Mark unchanged items as seen, unless an item with one of their IDs was sent before."""
        if numbers:
            low, high = min(numbers), max(numbers)
            is_spread = high - low > _MAX_SPREAD * len(numbers)
            may_be_sent = is_spread or any(self._sent[low >> 3 : (high >> 3) + 1])
            if may_be_sent and any(self._sent[number >> 3] >> (number & 7) & 1 for number in numbers):
                return False
            self._set_seen(numbers, low, high)
        self.items += len(numbers)
        self.unchanged += len(numbers)
        return True

    def _compare_chunk(
        self,
        group: list[bytes],
        chunk: tuple[list[str], memoryview, list[int], int],
        first: int,
        output: _Output,
    ) -> Iterator[Batch]:
        ids = chunk[0]
        sha256 = hashlib.sha256
        digests = [sha256(text.strip()).digest()[:_DIGEST_BYTES] for text in group]
        self._count_full(len(chunk[1]) + 1, len(ids))
        changed = self._changed(ids, digests)
        if not changed:
            return
        if len(changed) == len(ids):
            yield from output.flush_for_chunk(chunk)
            if output.batcher.add_chunk(first + len(ids) - 1, ADD, *chunk):
                output.operations += zip((ADDED,) * len(ids), ids, digests, strict=True)
                return
        for index in changed:
            yield from output.add(
                first + index, ADD, ids[index], group[index].strip(), (ADDED, ids[index], digests[index])
            )

    def _changed(self, ids: list[str], digests: list[bytes]) -> Sequence[int]:
        """Return the indexes of the new and changed items, and mark all items as seen."""
        self.items += len(ids)
        if self._is_empty:
            self.added += len(ids)
            return range(len(ids))
        known = self._known.lookup(ids)
        changed = self._changed_one_by_one(ids, list(map(known.get, ids)), digests)
        self.unchanged += len(ids) - len(changed)
        return changed

    def _set_seen(self, numbers: list[int], low: int, high: int) -> None:
        seen = self._seen
        if high - low == len(numbers) - 1:
            _set_bits(seen, low, high + 1)
            return
        if high - low < 2 * len(numbers):
            # Setting the whole range and clearing the few gaps is faster than setting bits one by one.
            gaps = {
                number
                for number in {*range(low, high + 1)}.difference(numbers)
                if not seen[number >> 3] >> (number & 7) & 1
            }
            _set_bits(seen, low, high + 1)
            for number in gaps:
                seen[number >> 3] ^= 1 << (number & 7)
            return
        for number in numbers:
            seen[number >> 3] |= 1 << (number & 7)

    def _count_changed(self, known_digest: bytes | None) -> None:
        if known_digest == TOMBSTONE:
            self.added += 1
        else:
            self.updated += 1

    def _changed_one_by_one(self, ids: list[str], rows: list[_Row | None], digests: list[bytes]) -> list[int]:
        seen, sent, prefixes, holds = self._seen, self._sent, self._prefixes, self._holds
        changed = []
        for index, (document_id, row, digest) in enumerate(zip(ids, rows, digests, strict=True)):
            if row is None:
                self.added += 1
                changed.append(index)
                continue
            _, known_digest, number = row
            byte, bit = number >> 3, 1 << (number & 7)
            seen[byte] |= bit
            is_same = known_digest == digest and holds and not sent[byte] & bit
            if is_same and not (prefixes and document_id.startswith(prefixes)):
                continue
            self._count_changed(known_digest)
            sent[byte] |= bit
            changed.append(index)
        return changed

    def _compare_held(self, held: _Held, output: _Output) -> Iterator[Batch]:
        """Compare the held entries."""
        entries = held.take()
        first = 0
        # Deletions can't be compared in groups: compare them one by one.
        for index in range(len(entries) + 1):
            if index < len(entries) and not isinstance(entries[index][1], CheckedDelete):
                continue
            yield from self._compare_items(entries[first:index], output)
            if index < len(entries):
                place, entry = entries[index]
                yield from self._compare_delete(place, cast("CheckedDelete", entry), output)
            first = index + 1

    def _compare_items(self, entries: list[tuple[int, Any]], output: _Output) -> Iterator[Batch]:
        if not entries:
            return
        ids = [entry[0] if type(entry) is tuple else entry.document_id for _, entry in entries]
        digests = [_digest_of(entry) for _, entry in entries]
        for (_, entry), _ in zip(entries, ids, strict=True):
            self._count_full(len(entry[1]) + 1 if type(entry) is tuple else len(entry.encoded) + 128, 1)
        for index in self._changed(ids, digests):
            place, entry = entries[index]
            encoded = entry[1] if type(entry) is tuple else entry
            operation = (ADDED, ids[index], digests[index])
            yield from output.add(place, ADD, ids[index], encoded, operation)

    def _compare_delete(self, place: int, entry: CheckedDelete, output: _Output) -> Iterator[Batch]:
        document_id = entry.document_id
        self._count_full(len(document_id) + 45, 1)
        row = None if self._is_empty else self._known.lookup([document_id]).get(document_id)
        is_prefix = bool(entry.delete_children)
        if row is not None:
            _, digest, number = row
            byte, bit = number >> 3, 1 << (number & 7)
            self._seen[byte] |= bit
            if digest == TOMBSTONE and self._holds and not self._sent[byte] & bit and not is_prefix:
                self.unchanged += 1
                return
            self._sent[byte] |= bit
        if is_prefix:
            self._note_prefix(document_id)
        full = output.other(place, entry)
        if full is not None:
            yield full
        if is_prefix:
            output.operations.append((REMOVED_PREFIX, document_id, None))
        output.operations.append((DELETED, document_id, TOMBSTONE))

    def _note_prefix(self, prefix: str) -> None:
        # Items with this prefix are deleted, whatever was accepted before: send those that come later.
        if self._prefixes and prefix.startswith(self._prefixes):
            return
        if len(self._folders) >= _MAX_PREFIXES:
            self._prefixes = ("",)
            return
        self._prefixes = (*self._prefixes, prefix)
        self._folders = (*self._folders, f"{prefix}/")

    def _note_invalid(self, error: InvalidItemError) -> None:
        """Mark the item of an invalid entry as seen: it is not missing."""
        try:
            document_id = validate_document_id(error.document_id)
        except CoveoInputError:
            self.has_unknown_entries = True
            return
        row = None if self._is_empty else self._known.lookup([document_id]).get(document_id)
        if row is not None:
            self._seen[row[2] >> 3] |= 1 << (row[2] & 7)

    def _count_full(self, size: int, entries: int) -> None:
        """Count the batches that everything would fill."""
        self._full_size += size
        self._full_entries += entries
        batches = max(self._full_size // self._limit, self._full_entries // MAX_ENTRIES)
        if batches:
            self.full_batches += batches
            self._full_size %= self._limit
            self._full_entries %= MAX_ENTRIES

    # --- the end of the stream ---

    def _delete_missing(self, output: _Output, place: int) -> Iterator[Batch]:
        self.full_batches += bool(self._full_size)
        try:
            self._check_missing()
        except TooManyDeletionsError:
            # Still push the remaining changes.
            yield from output.flush()
            raise
        forgotten: list[Operation] = []
        if self.kept_because is None:
            for document_id, digest in self._known.missing():
                if digest == TOMBSTONE:
                    forgotten.append((REMOVED, document_id, None))
                elif not self._is_deleted_already(document_id):
                    place += 1
                    yield from output.remove(place, document_id)
                if len(forgotten) >= MAX_ENTRIES:
                    self._on_batch(-1, forgotten)
                    forgotten = []
        yield from output.flush()
        if forgotten:
            self._on_batch(-1, forgotten)

    def _is_deleted_already(self, document_id: str) -> bool:
        """Return whether this stream is sure to have deleted the item with its parent."""
        return bool(self._folders) and document_id.startswith(self._folders)

    def _check_missing(self) -> None:
        """Count the missing items, and raise an error if they exceed the limit for deletions."""
        if self._is_empty:
            return
        first: list[str] = []
        self._known.find_missing(self._seen)
        for document_id, digest in self._known.missing():
            if digest == TOMBSTONE or self._is_deleted_already(document_id):
                continue
            self.missing += 1
            if len(first) < _MISSING_SHOWN:
                first.append(document_id)
        if not self.missing:
            return
        if self.has_unknown_entries:
            self.kept_because = (
                f"The input lacks {quantity(self.missing, 'item')}, but nothing is deleted: an invalid entry "
                "had no readable documentId, so it may be a missing item"
            )
            return
        named = f"{', '.join(map(short_repr, first))}{', …' if self.missing > len(first) else ''}"
        if not self.items:
            raise TooManyDeletionsError(
                f"Did not delete anything from {self._target}: the input has no items, but the snapshot "
                f"has {self._known.items:,}: {named}",
                cause="the code that reads the items failed silently, or read from the wrong place",
                remedy="Check the input; to empty the source on purpose, use ResetPushSourceOperator",
            )
        if not self._max_deleted.allows(self.missing, self._known.items):
            share = 100 * self.missing / max(1, self._known.items)
            raise TooManyDeletionsError(
                f"Did not delete anything from {self._target}: the input lacks {self.missing:,} of the "
                f"{quantity(self._known.items, 'item')} in the snapshot ({share:.1f}%), and max_deleted "
                f"allows {self._max_deleted}. Missing: {named}",
                cause="the input is incomplete or the wrong one, unless so many items should be deleted",
                remedy="Check the input; if it is right, run the task once with a larger max_deleted, such "
                f"as {self.missing}",
            )


def _set_bits(bits: bytearray, first: int, end: int) -> None:
    """Set all bits from ``first`` up to, but not including, ``end``."""
    low, high = (first + 7) >> 3, end >> 3
    if low < high:
        bits[low:high] = b"\xff" * (high - low)
        numbers = itertools.chain(range(first, low << 3), range(high << 3, end))
    else:
        numbers = itertools.chain(range(first, end))
    for number in numbers:
        bits[number >> 3] |= 1 << (number & 7)


class _AnyRoom:
    """Allows chunks of bytes as large as a batch: most of them never enter a batch."""

    def __init__(self, limit: int) -> None:
        self._limit = limit - 64

    def room_behind(self, size: int) -> int:
        """Return the maximum size of a chunk in bytes."""
        return max(size, self._limit)


class _Held:
    """Entries to compare one by one, held until there are enough to look them up together."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, object]] = []
        self._size = 0

    def add(self, place: int, entry: tuple[str, bytes] | Entry | CheckedDelete) -> None:
        """Hold another entry."""
        self._entries.append((place, entry))
        if isinstance(entry, tuple):
            self._size += len(entry[1])
        elif isinstance(entry, Entry):
            self._size += len(entry.encoded) + (len(entry.large.data) if entry.large else 0)

    @property
    def is_full(self) -> bool:
        """Whether there are enough entries."""
        return len(self._entries) >= _ENTRIES_PER_LOOKUP or self._size >= _BYTES_PER_LOOKUP

    def take(self) -> list[tuple[int, object]]:
        """Return the held entries, and release them."""
        entries, self._entries, self._size = self._entries, [], 0
        return entries


class _Output:
    """
    The batches, each with its operations.

    :param limit: The maximum size of a batch in bytes.
    :param on_batch: Called with each batch's number and operations before the batch is yielded.
    """

    def __init__(self, limit: int, on_batch: Callable[[int, list[Operation]], None]) -> None:
        self.batcher = Batcher((ADD, DELETE), limit, _MAX_CHANGED_ENTRIES)
        #: The operations in the batch in progress.
        self.operations: list[Operation] = []
        self._on_batch = on_batch

    def add(
        self, place: int, section: str, key: str, encoded: bytes | Entry, operation: Operation
    ) -> Iterator[Batch]:
        """Add an entry. If it does not fit into the batch in progress, yield that batch first."""
        full = self.batcher.add(place, section, key, encoded)
        if full is not None:
            yield self._ready(full)
        self.operations.append(operation)

    def other(self, place: int, entry: CheckedDelete) -> Batch | None:
        """Add a deletion. If it does not fit into the batch in progress, return that batch."""
        full = add_other(self.batcher, place, entry)
        return None if full is None else self._ready(full)

    def remove(self, place: int, document_id: str) -> Iterator[Batch]:
        """Add the deletion of a missing item."""
        encoded = CheckedDelete(document_id, delete_children=False).encoded()
        yield from self.add(place, DELETE, document_id, encoded, (REMOVED, document_id, None))

    def flush_for_chunk(self, chunk: tuple[list[str], memoryview, list[int], int]) -> Iterator[Batch]:
        """Yield the batch in progress if these entries do not fit into it."""
        full = self.batcher.flush_for_chunk(*chunk[:2])
        if full is not None:
            yield self._ready(full)

    def flush(self) -> Iterator[Batch]:
        """Yield the batch in progress, unless it is empty."""
        full = self.batcher.flush()
        if full is not None:
            yield self._ready(full)

    def _ready(self, batch: Batch) -> Batch:
        operations, self.operations = self.operations, []
        self._on_batch(batch.number, operations)
        return batch


def _digest_of(entry: tuple[str, bytes] | Entry) -> bytes:
    """Return the digest of everything that is sent for an item."""
    if isinstance(entry, tuple):
        return hashlib.sha256(entry[1]).digest()[:_DIGEST_BYTES]
    if entry.large is None:
        return hashlib.sha256(entry.encoded).digest()[:_DIGEST_BYTES]
    content = hashlib.sha256(entry.large.data).hexdigest()
    return hashlib.sha256(entry.encoded_with(content)).digest()[:_DIGEST_BYTES]
