"""Batches: what one file container holds, and how a stream of entries is cut into them."""

from __future__ import annotations

import base64
import hashlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, cast

from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.integers import parse_int
from airflow_provider_coveo.coveo.invalid_items import INVALID_SHOWN
from airflow_provider_coveo.coveo.item_encoding import ItemEncoder
from airflow_provider_coveo.coveo.items import MAX_UPLOAD, CheckedDelete, Delete, Entry, InvalidItemError

#: How many bytes of JSON a batch holds at most, unless one says otherwise. Measured with
#: ``benchmarks/push.py``: larger batches are no faster, and a push holds a handful of them in memory.
DEFAULT_BATCH_BYTES: Final = 12 * 1024 * 1024
MIN_BATCH_BYTES: Final = 1024
#: How many entries a batch holds at most, which bounds what is remembered of small ones.
MAX_ENTRIES: Final = 50_000
#: Items of JSON are checked at once in runs of this many bytes.
_CHUNK_BYTES: Final = 512 * 1024

#: Once an invalid item has ended a push, how far the rest is looked through for more of them.
_ITEMS_TO_LOOK_THROUGH: Final = 10_000
_SECONDS_TO_LOOK_FOR_MORE: Final = 10.0

#: Makes a digest another one than by versions that took less into it, so that none of theirs is equal.
_DIGEST_VERSION: Final = b"2 "

ADD: Final = "addOrUpdate"
DELETE: Final = "delete"


@dataclass(frozen=True)
class Body:
    """
    The body of a request in pieces, which are sent one after the other and never put together.

    :param pieces: The pieces.
    """

    pieces: tuple[bytes | memoryview, ...]

    def __len__(self) -> int:
        return sum(map(len, self.pieces))

    def __iter__(self) -> Iterator[bytes | memoryview]:
        return iter(self.pieces)


@dataclass(frozen=True)
class Batch:
    """
    What goes into one file container.

    :param number: Its place among the batches of the push, from 0.
    :param first: The place in the input of its first entry, from 0.
    :param last: The place in the input of its last entry.
    :param counts: How many entries of the input it stands for, by section. An entry that a later one of the
        same batch replaced is among them.
    :param replaced: How many those are.
    :param children: How many of its deletions take the items with them whose IDs begin with theirs.
    :param pieces: The JSON in pieces, with entries in between whose large content is uploaded first.
    :param size: How many bytes that is, large content included.
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
        """How many entries of the input it stands for."""
        return sum(self.counts.values())

    @property
    def sent(self) -> int:
        """How many entries it holds, each of which is an operation for Coveo."""
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
        Return what tells this batch from one with other content, or for another target.

        It covers what is sent, byte for byte, but for the names that Coveo gives to containers, in whose
        place the containers' content counts.

        :param target: What else the batch must have in common with an equal one, such as where it is sent.
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

    :raises CoveoInputError: if it is not within 1 KiB and 256 MB.
    """
    size = parse_int(value)
    if size is None or not MIN_BATCH_BYTES <= size <= MAX_UPLOAD:
        raise CoveoInputError(
            f"{short_repr(value)} is not a size of a batch",
            remedy=f"Give the bytes, within {MIN_BATCH_BYTES:,} and {MAX_UPLOAD:,}; "
            f"the default is {DEFAULT_BATCH_BYTES:,}",
        )
    return size


class Batcher:
    """
    Cuts a stream of entries into batches.

    Coveo does not document in which order the entries of one batch take effect. So no two entries of a batch
    may depend on their order: the later of two entries with one key and in one section replaces the earlier,
    and an entry whose key stands in another section begins a new batch. The outcome is that of sending the
    entries one by one.

    :param sections: The keys of the JSON object, in their order.
    :param limit: How many bytes of JSON a batch may have. An entry that is larger by itself goes alone.
    :param max_entries: How many entries a batch may have of those that are added one by one.
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
        # Entries that were added as runs; there are no others besides them.
        self.runs: list[_Chunk] = []
        # By key: the place in its section's list and the section, in one number.
        self.places: dict[object, int] = {}
        self.size = self._size_when_empty
        self.last = -1
        self._apart: set[object] = set()
        self._replaced = dict.fromkeys(self._sections, 0)

    @property
    def room_limit(self) -> int:
        """How many bytes the batch under way may have for an entry that needs no closer look."""
        return -1 if self._apart else self._limit

    def room_behind(self, size: int) -> int:
        """Return how many bytes still fit into the batch that an entry of that size comes into."""
        room = self._limit - self.size
        return room if size <= room else self._limit - self._size_when_empty

    def holds_apart(self, key: object) -> bool:
        """Whether the batch under way has an entry with that key that was added with ``apart``."""
        return key in self._apart

    def add(
        self, place: int, section: str, key: Any, encoded: bytes | Entry, *, apart: bool = False
    ) -> Batch | None:
        """
        Take an entry, and return the batch that it did not fit into any more, if so.

        :param place: The entry's place in the input.
        :param section: Where it belongs.
        :param key: What it is about.
        :param encoded: The entry.
        :param apart: Whether its batch may hold nothing in other sections.
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

    def flush_for_chunk(self, keys: list[Any], text: memoryview) -> Batch | None:
        """Return the batch of runs under way, if there is one and these entries do not fit into it."""
        return self.flush() if self.runs and not self._fits(keys, text) else None

    def _fits(self, keys: Sequence[object], text: memoryview) -> bool:
        return len(self.places) + len(keys) <= MAX_ENTRIES and self.size + len(text) + 1 <= self._limit

    def add_chunk(
        self, last: int, section: str, keys: list[Any], text: memoryview, sizes: list[int], gap: int
    ) -> bool:
        """
        Take several entries at once into a batch of such runs, if there is nothing else to it.

        :param last: The place in the input of the last one.
        :param section: Where they belong.
        :param keys: What they are about.
        :param text: The entries, with something between each and the next.
        :param sizes: How many bytes each has.
        :param gap: How many bytes are in between.
        :return: Whether they were taken. If not, add them one by one.
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
        """Hold the entries of the batch under way one by one."""
        for run in self.runs:
            self.lists[run.section] += run.entries()
        self.runs = []

    def flush(self) -> Batch | None:
        """Return the batch under way, if there is anything in it."""
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
        """Yield the JSON, in one piece unless there are runs, or large content in between."""
        if self.runs:
            yield from self._pieces_of_chunks()
            return
        parts: list[bytes | Entry] = []
        for section in self._sections:
            entries, self.lists[section] = self.lists[section], []
            lead = b'"' + section.encode() + b'":['
            if not entries:
                parts.append(lead + b"]")
                continue
            # The comma between two parts is the one between two entries, or between two sections.
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


@dataclass(frozen=True)
class _Chunk:
    """
    Entries that were checked and encoded together.

    :param section: Where they belong.
    :param text: The entries, with something between each and the next.
    :param sizes: How many bytes each has.
    :param gap: How many bytes are in between.
    """

    section: str
    text: memoryview
    sizes: list[int]
    gap: int

    def entries(self) -> Iterator[bytes]:
        """Yield them one by one."""
        begin = 0
        for size in self.sizes:
            yield bytes(self.text[begin : begin + size]).strip()
            begin += size + self.gap


@dataclass(frozen=True)
class _Around:
    """
    An entry with large content, and the JSON right before and behind it.

    :param before: What stands before it.
    :param entry: The entry.
    :param after: What stands behind it.
    """

    before: bytes
    entry: Entry
    after: bytes


def _around(before: bytes, part: Any, after: bytes) -> Any:
    if isinstance(part, bytes):
        return before + part + after
    if isinstance(part, _Around):
        return _Around(before + part.before, part.entry, part.after + after)
    return _Around(before, part, after)


def _size(encoded: bytes | memoryview | Entry) -> int:
    if isinstance(encoded, Entry):
        # what names the container of large content is shorter than that
        return len(encoded.encoded) + 128 + (len(encoded.large.data) if encoded.large else 0)
    return len(encoded)


def deletions(delete: Iterable[str | Delete]) -> Iterator[Delete]:
    """
    Return what is to be deleted as ``Delete``, whether it was given so or by its ID.

    :raises CoveoInputError: if it is a single string, of which each character would be taken for an ID.
    """
    if isinstance(delete, (str, bytes, bytearray, memoryview)) or not isinstance(delete, Iterable):
        raise CoveoInputError(
            f"What to delete must be a list of documentIds, not {type(delete).__name__}",
            remedy="Put a single ID into a list",
        )
    # What an entry is, its class says: it may be anything, and is judged when it is pushed.
    return (
        cast("Delete", entry) if issubclass(type(entry), Delete) else Delete(cast("str", entry))
        for entry in delete
    )


def item_batches(
    items: Iterable[Any],
    limit: int,
    on_invalid: Callable[[int, InvalidItemError], bool],
    on_failure: Callable[[Exception], object] | None = None,
) -> Iterator[Batch]:
    """
    Cut a stream of items and deletions into batches.

    Where one entry is not to be skipped but ends the stream, the batch under way is dropped, and a bounded
    part of what follows is looked through for more of the kind.

    :param items: dicts, :class:`~airflow_provider_coveo.coveo.items.Item`, bytes that hold one JSON object
        each, and :class:`~airflow_provider_coveo.coveo.items.Delete`.
    :param limit: How many bytes of JSON a batch may have.
    :param on_invalid: Called with the index and the error of each that Coveo would refuse; whether to go on.
    :param on_failure: Called with the exception by which the stream itself fails. It is raised once all that
        came before it was looked at, unless an entry that was not to be skipped has ended the stream by then.
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
                # Most items just join the batch under way, which is done right here because calls take
                # their time.
                item_id, text = encoded
                size_then = size + len(text) + 1
                if size_then <= room and item_id not in places and len(places) < MAX_ENTRIES:
                    places[item_id] = len(added) * 2
                    added.append(text)
                    size = size_then
                    continue
                batcher.size, batcher.last = size, place - 1
                full = batcher.add(place, ADD, item_id, text)
            else:
                batcher.size, batcher.last = size, place - 1
                full = add_other(batcher, place, cast("Entry | CheckedDelete", encoded))
            places, added, size, room = batcher.places, batcher.lists[ADD], batcher.size, batcher.room_limit
            if full is not None:
                yield full
                full = None  # the one who took it lets go of it when it is through
        batcher.size = size
    batcher.last = place
    full = batcher.flush()
    if full is not None:
        yield full


def item_groups(
    items: Iterable[object], batcher: Batcher, on_failure: Callable[[Exception], object] | None
) -> Iterator[list[bytes] | tuple[object]]:
    """Yield each item by itself, but bytes in a row together, as far as they fit into the batch."""
    run: list[bytes] = []
    room = 0
    failure = None
    try:
        for item in items:
            if type(item) is bytes:
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
    # What is deleted with its children takes others with it, so no item may be added in the same batch.
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
    # If the stream itself fails, what was found before is told all the same.
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
