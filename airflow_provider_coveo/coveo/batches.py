"""Batches: the content of file containers, and the cutting of a stream of entries into them."""

from __future__ import annotations

import base64
import hashlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias, cast

from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.integers import parse_int
from airflow_provider_coveo.coveo.invalid_items import INVALID_SHOWN
from airflow_provider_coveo.coveo.item_encoding import ItemEncoder
from airflow_provider_coveo.coveo.items import MAX_UPLOAD, CheckedDelete, Delete, Entry, InvalidItemError

#: The default maximum size of a batch in bytes. Measured with ``benchmarks/push.py``: larger batches are no
#: faster, and a push keeps several batches in memory.
DEFAULT_BATCH_BYTES: Final = 12 * 1024 * 1024
MIN_BATCH_BYTES: Final = 1024
#: The maximum number of entries in a batch. It bounds the memory for the IDs of small entries.
MAX_ENTRIES: Final = 50_000
#: JSON items are validated together in chunks of this many bytes.
_CHUNK_BYTES: Final = 512 * 1024

#: How far the input is searched for more invalid items after one has ended a push.
_ITEMS_TO_LOOK_THROUGH: Final = 10_000
_SECONDS_TO_LOOK_FOR_MORE: Final = 10.0

#: Makes digests differ from those of earlier versions, which covered less of a batch.
_DIGEST_VERSION: Final = b"2 "

ADD: Final = "addOrUpdate"
DELETE: Final = "delete"


class Body:
    """
    The body of a request in pieces, which are sent one by one and never joined in memory.

    :param pieces: The pieces.
    """

    def __init__(self, pieces: tuple[bytes | memoryview, ...]) -> None:
        self.pieces = pieces

    def __len__(self) -> int:
        return sum(map(len, self.pieces))

    def __iter__(self) -> Iterator[bytes | memoryview]:
        return iter(self.pieces)


@dataclass
class Batch:
    """
    The content of one file container.

    :param number: The batch's index in the push, from 0.
    :param first: The index of its first entry in the input, from 0.
    :param last: The index of its last entry in the input.
    :param counts: The number of input entries that it covers, by section. This includes entries that a later
        entry of the same batch replaced.
    :param replaced: The number of replaced entries.
    :param children: The number of deletions that also delete the items whose IDs begin with the deleted ID.
    :param pieces: The JSON in pieces, and between them the entries whose large content is uploaded first.
    :param size: The size in bytes, including large content.
    """

    number: int
    first: int
    last: int
    counts: dict[str, int]
    replaced: int
    pieces: tuple[bytes | memoryview | Entry, ...]
    size: int
    children: int = 0

    @property
    def entries(self) -> int:
        """The number of input entries that the batch covers."""
        return sum(self.counts.values())

    @property
    def sent(self) -> int:
        """The number of entries in the batch; each is one operation for Coveo."""
        return self.entries - self.replaced

    def body(self, upload: Callable[[bytes], str]) -> Body:
        """
        Return the JSON.

        :param upload: Puts large content into a container and returns its ``fileId``.
        """
        parts: list[bytes | memoryview] = []
        for piece in self.pieces:
            if isinstance(piece, Entry):
                large = piece.large
                parts.append(piece.encoded if large is None else piece.encoded_with(upload(large.data)))
            else:
                parts.append(piece)
        return Body(tuple(parts))

    def digest(self, target: str = "") -> str:
        """
        Return a digest of the batch's content and target.

        It covers every byte that is sent, except that the content of a container replaces the name that
        Coveo gave it.

        :param target: A string that equal batches must share, such as the URL that they are sent to.
            Default nothing.
        """
        digest = hashlib.sha256(_DIGEST_VERSION + hashlib.sha256(target.encode()).digest())
        for piece in self.pieces:
            if isinstance(piece, Entry):
                content = b"" if piece.large is None else piece.large.data
                digest.update(piece.encoded_with(hashlib.sha256(content).hexdigest()))
            else:
                digest.update(piece)
        return base64.urlsafe_b64encode(digest.digest()[:9]).decode()


def validate_batch_bytes(value: object) -> int:
    """
    Return the size of a batch in bytes.

    :raises CoveoInputError: if it is not between 1 KiB and 256 MB.
    """
    size = parse_int(value)
    if size is None or not MIN_BATCH_BYTES <= size <= MAX_UPLOAD:
        raise CoveoInputError(
            f"Invalid batch_bytes: {short_repr(value)}",
            remedy=f"Pass a number of bytes from {MIN_BATCH_BYTES:,} to {MAX_UPLOAD:,}; "
            f"the default is {DEFAULT_BATCH_BYTES:,}",
        )
    return size


#: The key that entries for the same object share: an item's ID, or an identity's type and name.
Key: TypeAlias = str | tuple[str, str]


class Batcher:
    """
    Cuts a stream of entries into batches.

    Coveo does not document the order in which the entries of one batch take effect. So the entries of a batch
    must not depend on their order. If two entries of one section have the same key, the later one replaces
    the earlier one. If an entry's key is already in another section, a new batch starts. The result is the
    same as sending the entries one by one.

    :param sections: The keys of the JSON object, in order.
    :param limit: The maximum size of a batch in bytes. A larger entry gets a batch of its own.
    :param max_entries: The maximum number of entries that are added to a batch one by one.
    """

    def __init__(self, sections: Sequence[str], limit: int, max_entries: int = MAX_ENTRIES) -> None:
        self._sections = tuple(sections)
        self._numbers = {section: number for number, section in enumerate(self._sections)}
        self._limit = limit
        self._max_entries = max_entries
        # '{', '}', and '"section":[],' for each section
        self._size_when_empty = 2 + sum(len(section) + 6 for section in self._sections)
        self._next_number = 0
        self._next_first = 0
        self._begin()

    def _begin(self) -> None:
        self.lists: dict[str, list[bytes | Entry]] = {section: [] for section in self._sections}
        # Entries that were added as chunks. If there are any, the batch has no other entries.
        self.runs: list[_Chunk] = []
        # For each key, its index in the section's list and its section, combined in one integer.
        self.places: dict[Key, int] = {}
        self.size = self._size_when_empty
        self.last = -1
        self._apart: set[Key] = set()
        self._replaced = dict.fromkeys(self._sections, 0)

    @property
    def room_limit(self) -> int:
        """The size up to which an entry can join the batch in progress without a further check."""
        return -1 if self._apart else self._limit

    def room_behind(self, size: int) -> int:
        """Return how many bytes still fit into the batch that an entry of this size would join."""
        room = self._limit - self.size
        return room if size <= room else self._limit - self._size_when_empty

    def holds_apart(self, key: Key) -> bool:
        """Whether the batch in progress has an entry with that key that was added with ``apart``."""
        return key in self._apart

    def add(
        self, place: int, section: str, key: Key, encoded: bytes | Entry, *, apart: bool = False
    ) -> Batch | None:
        """
        Add an entry. If it does not fit into the batch in progress, return that batch, which is now complete.

        :param place: The entry's index in the input.
        :param section: The entry's section.
        :param key: The entry's key, such as the item's ID.
        :param encoded: The entry.
        :param apart: Whether its batch must have nothing in other sections.
        """
        self.split_chunks()
        number, known = self._numbers[section], self.places.get(key)
        entries = self.lists[section]
        size = _size(encoded) + 1
        full = None
        if self.places and (
            self.size + size > self._limit
            or len(self.places) >= self._max_entries
            or (known is not None and known % len(self._sections) != number)
            or ((apart or self._apart) and len(entries) < len(self.places))
        ):
            full = self.flush()
            known, entries = None, self.lists[section]
        if known is None:
            self.places[key] = len(entries) * len(self._sections) + number
            entries.append(encoded)
        else:
            index = known // len(self._sections)
            size -= _size(entries[index]) + 1
            entries[index] = encoded
            self._replaced[section] += 1
        if apart:
            self._apart.add(key)
        self.size += size
        self.last = place
        return full

    def flush_for_chunk(self, keys: Sequence[Key], text: memoryview) -> Batch | None:
        """Return the batch of chunks in progress, if there is one and these entries do not fit into it."""
        return self.flush() if self.runs and not self._fits(keys, text) else None

    def _fits(self, keys: Sequence[object], text: memoryview) -> bool:
        return len(self.places) + len(keys) <= MAX_ENTRIES and self.size + len(text) + 1 <= self._limit

    def add_chunk(
        self, last: int, section: str, keys: Sequence[Key], text: memoryview, sizes: list[int], gap: int
    ) -> bool:
        """
        Add several entries at once, if the batch in progress has only chunks of the same section.

        :param last: The index of the last entry in the input.
        :param section: The entries' section.
        :param keys: The entries' keys.
        :param text: The encoded entries, with separators between them.
        :param sizes: The size of each entry in bytes.
        :param gap: The size of a separator in bytes.
        :return: Whether they were added. If not, add them one by one.
        """
        if (
            not self._fits(keys, text)
            or any(self.lists.values())
            or (self.runs and self.runs[0].section != section)
        ):
            return False
        first, step = len(self.places), len(self._sections)
        number = first * step + self._numbers[section]
        places = dict(zip(keys, range(number, number + len(keys) * step, step), strict=True))
        if len(places) < len(keys) or not self.places.keys().isdisjoint(places):
            return False
        self.places.update(places)
        self.runs.append(_Chunk(section, text, sizes, gap))
        self.size += len(text) + 1
        self.last = last
        return True

    def split_chunks(self) -> None:
        """Replace the chunks of the batch in progress by single entries."""
        for run in self.runs:
            self.lists[run.section] += run.entries()
        self.runs = []

    def flush(self) -> Batch | None:
        """Return the batch in progress, unless it is empty."""
        if not self.places:
            return None
        counts = {section: len(self.lists[section]) + self._replaced[section] for section in self._sections}
        if self.runs:
            counts[self.runs[0].section] = len(self.places)
        replaced = sum(self._replaced.values())
        pieces = tuple(self._pieces())
        batch = Batch(
            self._next_number,
            self._next_first,
            self.last,
            counts,
            replaced,
            pieces,
            sum(map(_size, pieces)),
            len(self._apart),
        )
        self._next_number += 1
        self._next_first = self.last + 1
        self._begin()
        return batch

    def _pieces(self) -> Iterator[bytes | memoryview | Entry]:
        """Yield the JSON: one piece, unless the batch has chunks or large content."""
        if self.runs:
            yield from self._pieces_of_chunks()
            return
        parts: list[bytes | Entry | _Around] = []
        for section in self._sections:
            entries: list[bytes | Entry | _Around] = [*self.lists[section]]
            self.lists[section] = []
            lead = b'"' + section.encode() + b'":['
            if not entries:
                parts.append(lead + b"]")
                continue
            # Parts are joined with commas, both between entries and between sections.
            entries[0] = _around(lead, entries[0], b"")
            entries[-1] = _around(b"", entries[-1], b"]")
            parts += entries
        parts[0] = _around(b"{", parts[0], b"")
        parts[-1] = _around(b"", parts[-1], b"}")
        if not any(type(part) is not bytes for part in parts):
            yield b",".join(cast("list[bytes]", parts))
            return
        for index, part in enumerate(parts):
            if index:
                yield b","
            if isinstance(part, _Around):
                yield part.before
                yield part.entry
                yield part.after
            else:
                yield part

    def _pieces_of_chunks(self) -> Iterator[bytes | memoryview]:
        before = b"{"
        for section in self._sections:
            yield before + b'"' + section.encode() + b'":['
            for number, run in enumerate(run for run in self.runs if run.section == section):
                if number:
                    yield b","
                yield run.text
            before = b"],"
        yield b"]}"


class _Chunk(NamedTuple):
    """
    Entries that were validated and encoded together.

    :param section: The entries' section.
    :param text: The encoded entries, with separators between them.
    :param sizes: The size of each entry in bytes.
    :param gap: The size of a separator in bytes.
    """

    section: str
    text: memoryview
    sizes: list[int]
    gap: int

    def entries(self) -> Iterator[bytes]:
        """Yield the entries one by one."""
        begin = 0
        for size in self.sizes:
            yield bytes(self.text[begin : begin + size]).strip()
            begin += size + self.gap


class _Around(NamedTuple):
    """
    An entry with large content, and the JSON directly before and after it.

    :param before: The JSON before it.
    :param entry: The entry.
    :param after: The JSON after it.
    """

    before: bytes
    entry: Entry
    after: bytes


def _around(before: bytes, part: bytes | Entry | _Around, after: bytes) -> bytes | _Around:
    if isinstance(part, bytes):
        return before + part + after
    if isinstance(part, _Around):
        return _Around(before + part.before, part.entry, part.after + after)
    return _Around(before, part, after)


def _size(encoded: bytes | memoryview | Entry) -> int:
    if isinstance(encoded, Entry):
        # The reference to the container of large content is shorter than 128 bytes.
        return len(encoded.encoded) + 128 + (len(encoded.large.data) if encoded.large else 0)
    return len(encoded)


def deletions(delete: Iterable[str | Delete]) -> Iterator[Delete]:
    """
    Return the entries to delete as ``Delete`` objects.

    :param delete: IDs, or ``Delete`` objects.
    :raises CoveoInputError: if it is a single string, since each of its characters would count as an ID.
    """
    if isinstance(delete, (str, bytes, bytearray, memoryview)) or not isinstance(delete, Iterable):
        raise CoveoInputError(
            f"delete must be a list of documentIds, not {type(delete).__name__}",
            remedy="Put a single ID into a list",
        )
    # Check the class only. An entry can be anything here; the push validates it.
    return (
        cast("Delete", entry) if issubclass(type(entry), Delete) else Delete(cast("str", entry))
        for entry in delete
    )


def item_batches(
    items: Iterable[object],
    limit: int,
    on_invalid: Callable[[int, InvalidItemError], bool],
    on_failure: Callable[[Exception], object] | None = None,
) -> Iterator[Batch]:
    """
    Cut a stream of items and deletions into batches.

    If an invalid entry ends the stream, the batch in progress is dropped. A bounded part of the rest is
    searched for more invalid entries.

    :param items: dicts, :class:`~airflow_provider_coveo.coveo.items.Item`, bytes that hold one JSON object
        each, and :class:`~airflow_provider_coveo.coveo.items.Delete`.
    :param limit: The maximum size of a batch in bytes.
    :param on_invalid: Called with the index and the error of each invalid entry; returns whether to skip it.
    :param on_failure: Called with the exception if the stream itself fails. The exception is raised after the
        entries before it were validated, unless an invalid entry ended the stream first.
    """
    batcher = Batcher((ADD, DELETE), limit)
    encoder = ItemEncoder()
    encode = encoder.encode
    places, added, size, room = batcher.places, batcher.lists[ADD], batcher.size, batcher.room_limit
    place = -1
    groups = item_groups(items, batcher, on_failure)
    for group in groups:
        run = encoder.encode_chunk(group) if type(group) is list else None
        if run is not None:
            full = batcher.flush_for_chunk(*run[:2])
            if full is not None:
                yield full
                full = None
            if batcher.add_chunk(place + len(group), ADD, *run):
                place += len(group)
                size = batcher.size
                continue
        if batcher.runs:
            batcher.split_chunks()
            places, added, size, room = batcher.places, batcher.lists[ADD], batcher.size, batcher.room_limit
        entries = iter(group)
        for item in entries:
            place += 1
            try:
                encoded = encode(item)
            except InvalidItemError as error:
                error.item = item
                if on_invalid(place, error):
                    continue
                rest = itertools.chain(entries, itertools.chain.from_iterable(groups))
                find_more_invalid(enumerate(rest, place + 1), encode, on_invalid)
                return
            if type(encoded) is tuple:
                # Most items simply join the batch in progress. Do it inline: a call per item would cost
                # time.
                item_id, text = encoded
                size_then = size + len(text) + 1
                if size_then <= room and item_id not in places and len(places) < MAX_ENTRIES:
                    places[item_id] = len(added) * 2
                    added.append(text)
                    size = size_then
                    continue
                batcher.size, batcher.last = size, place - 1
                full = batcher.add(place, ADD, item_id, text)
                del text
            else:
                batcher.size, batcher.last = size, place - 1
                full = add_other(batcher, place, cast("Entry | CheckedDelete", encoded))
            del encoded
            places, added, size, room = batcher.places, batcher.lists[ADD], batcher.size, batcher.room_limit
            if full is not None:
                yield full
                full = None  # release it as soon as the consumer has processed it
            if batcher.size >= limit and (full := batcher.flush()) is not None:
                # Nothing else fits: send a large item before the next one is read.
                yield full
                full = None
                places, added, size, room = batcher.places, batcher.lists[ADD], batcher.size, limit
        batcher.size = size
        del group, entries, item
    batcher.last = place
    full = batcher.flush()
    if full is not None:
        yield full


def item_groups(
    items: Iterable[object], batcher: Batcher, on_failure: Callable[[Exception], object] | None
) -> Iterator[list[bytes] | tuple[object]]:
    """Yield each item alone, but consecutive bytes together, as long as they fit into the batch."""
    run: list[bytes] = []
    room = 0
    failure = None
    try:
        for item in items:
            if type(item) is bytes:
                if len(item) > _CHUNK_BYTES:
                    if run:
                        yield run
                        run = []
                    yield [item]
                    # It may be large: let go of it before the next one is read.
                    del item
                    room = 0
                    continue
                room -= len(item) + 2
                if room < 0:
                    if run:
                        yield run
                        run = []
                    room = min(_CHUNK_BYTES, batcher.room_behind(len(item) + 2)) - len(item) - 2
                run.append(item)
            else:
                if run:
                    yield run
                    run = []
                yield (item,)
                room = 0
    except Exception as problem:
        failure = problem
    if run:
        yield run
    if failure is not None:
        if on_failure is not None:
            on_failure(failure)
        raise failure


def add_other(batcher: Batcher, place: int, entry: Entry | CheckedDelete) -> Batch | None:
    """
    Add an item with large content or a deletion to the batch in progress.

    :param batcher: The batcher.
    :param place: The entry's index in the input.
    :param entry: The entry.
    :return: The batch in progress, if the entry did not fit into it.
    """
    if isinstance(entry, Entry):
        return batcher.add(place, ADD, entry.document_id, entry)
    key = entry.document_id
    encoded = entry.encoded()
    if not entry.delete_children and batcher.holds_apart(key):
        encoded = CheckedDelete(key, delete_children=True).encoded()
    # A deletion with children also deletes other items, so no item may be added in the same batch.
    return batcher.add(place, DELETE, key, encoded, apart=entry.delete_children)


def find_more_invalid(
    places: Iterable[tuple[int, object]],
    encode: Callable[[object], object],
    on_invalid: Callable[[int, InvalidItemError], bool],
) -> None:
    """
    Report more invalid items among the next ones, so that one run shows several.

    :param places: The next items with their indexes in the input.
    :param encode: Encodes an item, or raises its error.
    :param on_invalid: Called with the index and the error of each invalid item.
    """
    found = 1
    until = time.monotonic() + _SECONDS_TO_LOOK_FOR_MORE
    # If the stream itself fails, the items found before are reported anyway.
    with suppress(Exception):
        for place, item in itertools.islice(places, _ITEMS_TO_LOOK_THROUGH):
            try:
                encode(item)
            except InvalidItemError as error:
                error.item = item
                on_invalid(place, error)
                found += 1
            if found >= INVALID_SHOWN or time.monotonic() > until:
                return
