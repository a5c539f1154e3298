"""Items of a Push source: what Coveo accepts as one, checked before it is sent."""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from operator import attrgetter
from typing import Annotated, Any, Final, TypeAlias, cast

import msgspec

from airflow_provider_coveo.coveo.errors import CoveoInputError, shown

#: The ways to give an item's content, of which an item has exactly one. See https://docs.coveo.com/en/73/.
DATA_KEYS: Final = ("data", "compressedBinaryData", "compressedBinaryDataFileId")
COMPRESSION_TYPES: Final = ("UNCOMPRESSED", "DEFLATE", "GZIP", "LZMA", "ZLIB")

#: Text (UTF-8 bytes) and Base64 longer than this may not stand in an item (https://docs.coveo.com/en/45/).
LARGEST_INLINE_DATA: Final = 5 * 1024 * 1024
#: A request for one item may not be larger than this (https://docs.coveo.com/en/63/).
LARGEST_REQUEST: Final = 6 * 1024 * 1024
#: A file container takes 256 MB (https://docs.coveo.com/en/63/): this many bytes on any reading of that.
LARGEST_UPLOAD: Final = 256_000_000
MOST_PERMISSIONS: Final = 5_000

_DOCUMENT_ID = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^\x00-\x1f\x7f]+\Z")
#: Several of them, each with a newline behind it, which none has in it.
_DOCUMENT_IDS = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.\-]*://[^\x00-\x1f\x7f]+\n)+\Z")
#: What msgspec does not take in the name of a field.
_NOT_IN_FIELD_NAMES = re.compile(r'[\x00-\x1f"\\]')
_RESERVED_KEYS: Final = {
    key.lower(): key
    for key in (
        *DATA_KEYS,
        "documentId",
        "orderingId",
        "compressionType",
        "fileExtension",
        "parentId",
        "permissions",
    )
}
#: More kinds of items (by their keys and the types of their values) are not remembered at a time.
_MOST_SHAPES: Final = 2_048
#: After how many items of JSON that were looked at closely the short way is tried again.
_TRIED_AGAIN_AFTER: Final = 100
#: Runs of more kinds of items are not remembered at a time.
_MOST_RUN_KINDS: Final = 64
#: After how many runs that could not be checked as a whole it is tried again.
_RUN_TRIED_AGAIN_AFTER: Final = 16
_SMALLEST_INT: Final = -(2**63)
_LARGEST_INT: Final = 2**63 - 1
#: The types of metadata values that are sent as they are, if the encoder takes them.
_PLAIN_TYPES: Final = frozenset({str, bool})

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()
#: Takes an object without anything in it that metadata may not hold, permissions apart.
_PlainNumber: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | float | bool
_PlainValue: TypeAlias = str | _PlainNumber
_plain_decoder = msgspec.json.Decoder(dict[str, _PlainValue | list[_PlainValue]])
_raw_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


#: A moment or a day, as Python has it or as ISO 8601 writes it.
Moment: TypeAlias = datetime | date | str


@dataclass
class Item:
    """
    An item with types and names to complete in an editor; a plain ``dict`` in Coveo's own words does as well.

    Nothing is public by default: without ``permissions``, the item is sent without any.

    :param document_id: The item's URI, such as ``product://4711``.
    :param data: Its content as text or HTML. Text above 5 MB goes by a file container.
    :param title: Its title.
    :param author: Its author.
    :param date: When it was last modified; a time needs a time zone. Coveo's default is the time of the push.
    :param clickable_uri: Where a click on it leads.
    :param file_extension: How Coveo is to read the content, with the dot: ``.html``.
    :param parent_id: The ``document_id`` of the item that it is attached to.
    :param compressed_binary_data: Instead of ``data``: bytes, or a string that is Base64 already.
    :param compressed_binary_data_file_id: Instead of ``data``: the ``fileId`` of a container that holds it.
    :param compression_type: How binary content is compressed: ``UNCOMPRESSED``, ``DEFLATE``, ``GZIP``,
        ``LZMA`` or ``ZLIB``. Coveo's default is ``ZLIB``.
    :param permissions: Who may see it, as https://docs.coveo.com/en/107/ (simple model) and
        https://docs.coveo.com/en/25/ (complete model) say.
    :param metadata: Anything else: strings, numbers, booleans, times, and lists of these.
    """

    document_id: str
    data: str | None = None
    title: str | None = None
    author: str | None = None
    date: Moment | None = None
    clickable_uri: str | None = None
    file_extension: str | None = None
    parent_id: str | None = None
    compressed_binary_data: bytes | str | None = None
    compressed_binary_data_file_id: str | None = None
    compression_type: str | None = None
    permissions: list[Any] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """
        Return the item in Coveo's words, what has no value left out.

        :raises CoveoInputError: if ``metadata`` repeats one of the other parameters.
        """
        binary = self.compressed_binary_data
        named = {
            "documentId": self.document_id,
            "title": self.title,
            "author": self.author,
            "date": self.date,
            "clickableuri": self.clickable_uri,
            "fileExtension": self.file_extension,
            "parentId": self.parent_id,
            "data": self.data,
            "compressedBinaryData": base64.b64encode(binary).decode()
            if isinstance(binary, bytes)
            else binary,
            "compressedBinaryDataFileId": self.compressed_binary_data_file_id,
            "compressionType": self.compression_type,
            "permissions": self.permissions,
        }
        item = {key: value for key, value in named.items() if value is not None}
        for key, value in self.metadata.items():
            if key in item:
                raise CoveoInputError(f"metadata holds {shown(key)}, which is a parameter of Item")
            item[key] = value
        return item


@dataclass(frozen=True)
class Delete:
    """
    What stands among items for the deletion of one.

    :param document_id: The item's ``documentId``.
    :param delete_children: Whether to delete the items too whose IDs begin with this one's. It is a prefix,
        not the ``parentId``. Default ``False``.
    """

    document_id: str
    delete_children: bool = False

    def entry(self) -> bytes:
        """
        Return what a batch says of it.

        :raises InvalidItemError: if it is malformed.
        """
        try:
            document_id = checked_document_id(self.document_id)
        except CoveoInputError as error:
            raise InvalidItemError(shown(self.document_id), error.tried, error.remedy) from None
        if not isinstance(self.delete_children, bool):
            raise InvalidItemError(document_id, f"delete_children is {self.delete_children!r}, not a boolean")
        return _encoder.encode({"documentId": document_id, "deleteChildren": self.delete_children})


class InvalidItemError(Exception):
    """
    An item that Coveo would refuse.

    :param document_id: The item's ID, as far as it has one.
    :param rule: What is wrong with it.
    :param remedy: What to do about it.
    """

    def __init__(self, document_id: str | None, rule: str, remedy: str = "") -> None:
        super().__init__(document_id, rule, remedy)
        self.document_id = document_id
        self.rule = rule
        self.remedy = remedy


@dataclass(frozen=True)
class LargeContent:
    """
    Content that is too large to stand in its item, and goes by a file container of its own.

    :param data: The bytes for the container.
    :param compression_type: How they are compressed, ``None`` for Coveo's default.
    """

    data: bytes
    compression_type: str | None


@dataclass(frozen=True)
class Entry:
    """
    A checked item, as a batch holds it.

    :param document_id: The item's URI.
    :param encoded: The item as a JSON object in UTF-8. Where its content is large, the content is left out.
    :param large: The content that is left out.
    """

    document_id: str
    encoded: bytes
    large: LargeContent | None = None

    def encoded_with(self, file_id: str) -> bytes:
        """
        Return the JSON object with its large content in the container of that ``fileId``.

        :param file_id: The ``fileId`` of the container that holds the content.
        """
        if self.large is None:
            return self.encoded
        more = {"compressedBinaryDataFileId": file_id}
        if self.large.compression_type is not None:
            more["compressionType"] = self.large.compression_type
        return self.encoded[:-1] + b"," + _encoder.encode(more)[1:]


@dataclass(frozen=True)
class PreparedItem:
    """
    A checked item, ready for the request that adds or updates it alone.

    :param document_id: The item's URI.
    :param compression_type: How its binary content is compressed, ``None`` where it has none.
    :param properties: What the request's body says, content apart.
    :param content_key: Which of the data keys holds the content.
    :param content: The content as given.
    """

    document_id: str
    compression_type: str | None
    properties: dict[str, Any]
    content_key: str
    content: str

    @property
    def is_too_large_for_inline_data(self) -> bool:
        """Whether the content has to go by a file container."""
        return (
            self.content_key != "compressedBinaryDataFileId"
            and len(self.content.encode()) > LARGEST_INLINE_DATA
        )

    def large_content(self) -> LargeContent:
        """
        Return the content in the form that a file container holds.

        :raises CoveoInputError: if it is larger than a container takes.
        """
        if self.content_key == "data":
            large = LargeContent(self.content.encode(), "UNCOMPRESSED")
        else:
            large = LargeContent(base64.b64decode(self.content), self.compression_type)
        if len(large.data) > LARGEST_UPLOAD:
            raise CoveoInputError(
                f"the content of {shown(self.document_id)} has {len(large.data):,} bytes, and a container "
                f"takes {LARGEST_UPLOAD:,}",
                remedy="Compress the content, or index the document in parts",
            )
        return large

    def body(self) -> bytes:
        """
        Return the request's body.

        :raises CoveoInputError: if it is larger than a request may be.
        """
        return self._encoded({**self.properties, self.content_key: self.content})

    def body_for_container(self, file_id: str) -> bytes:
        """
        Return the request's body where the content was uploaded to a file container.

        :param file_id: The ``fileId`` of the container.
        :raises CoveoInputError: if it is larger than a request may be.
        """
        return self._encoded({**self.properties, "compressedBinaryDataFileId": file_id})

    def _encoded(self, body: dict[str, Any]) -> bytes:
        encoded = _encoder.encode(body)
        if len(encoded) > LARGEST_REQUEST:
            raise CoveoInputError(
                f"The item {self.document_id!r} makes a request of {len(encoded):,} bytes, and Coveo takes "
                f"{LARGEST_REQUEST:,}",
                remedy="Shorten its metadata, or upload its content to a file container",
            )
        return encoded

    def entry(self) -> Entry:
        """
        Return the item as a batch holds it.

        :raises CoveoInputError: if its content is larger than a file container takes.
        """
        entry = {"documentId": self.document_id, **self.properties}
        if self.is_too_large_for_inline_data:
            return Entry(self.document_id, _encoder.encode(entry), self.large_content())
        entry[self.content_key] = self.content
        if self.compression_type is not None:
            entry["compressionType"] = self.compression_type
        return Entry(self.document_id, _encoder.encode(entry))


def checked_document_id(document_id: object) -> str:
    """
    Return the ID of an item if Coveo accepts it as one: a URI with a scheme, as in ``file://folder/a.html``.

    :param document_id: The ID.
    :raises CoveoInputError: if it is none.
    """
    if isinstance(document_id, str) and _DOCUMENT_ID.match(document_id):
        _encodable(document_id, "documentId")
        return document_id
    raise CoveoInputError(
        f"{shown(document_id)} is not the documentId of an item",
        remedy="Use a URI with a scheme, such as product://4711 or https://example.com/page; "
        "see https://docs.coveo.com/en/78/",
    )


def permanent_id(document_id: str) -> str:
    """
    Return the ``permanentid`` that Coveo's own clients give an item, which keeps usage analytics together.

    Coveo does not need one. Set it where items were pushed by one of those clients before.

    :param document_id: The ID of the item.
    """
    encoded = document_id.encode()
    md5 = hashlib.md5(encoded, usedforsecurity=False).hexdigest()
    sha1 = hashlib.sha1(encoded, usedforsecurity=False).hexdigest()
    return md5[:30] + sha1[:30]


def prepared_item(item: object) -> PreparedItem:
    """
    Check one item and return it in the form that its request needs.

    :param item: An :class:`Item`, or a mapping with ``documentId``, exactly one of ``data``,
        ``compressedBinaryData`` (Base64) and ``compressedBinaryDataFileId``, and any metadata. Nothing is
        made public by default: an item without ``permissions`` is sent without any.
    :raises CoveoInputError: if Coveo would refuse it, naming the item and the rule.
    """
    try:
        return _prepared(item)
    except InvalidItemError as error:
        named = f"The item {shown(error.document_id)}" if error.document_id is not None else "The item"
        raise CoveoInputError(f"{named} can't be pushed: {error.rule}", remedy=error.remedy) from None


class ItemEncoder:
    """
    Checks items and encodes them, each once, by the rules of :func:`prepared_item`.

    Most items of a push are alike: what their keys and the types of their values decide is worked out once
    for each kind, and the rest is left to msgspec. One encoder is for one thread.
    """

    def __init__(self) -> None:
        self._shapes: dict[tuple[Any, ...], _Shape | None] = {}
        self._last_kind: tuple[Any, ...] = ()
        self._last_shape: _Shape | None = None
        self._last_keys: tuple[str, ...] = ()
        self._last_keys_shape: _Shape | None = None
        self._not_plain = 0
        self._run_kinds: dict[tuple[Any, ...], _RunKind | None] = {}
        self._runs_to_skip = 0

    def encode(self, item: object) -> Entry | tuple[str, bytes]:
        """
        Return an item's ID and its JSON, as an :class:`Entry` where its content is large.

        :param item: A mapping, an :class:`Item`, or bytes that hold one JSON object. Bytes are checked and
            returned as they are.
        :raises InvalidItemError: if Coveo would refuse it.
        """
        if type(item) is bytes:
            return self._checked_bytes(item.strip())
        if type(item) is not dict:
            if isinstance(item, (bytes, bytearray, memoryview)):
                return self._checked_bytes(bytes(item).strip())
            item = _as_dict(item)
        try:
            document_id, checked = self._checked(item)
            encoded = _encoder.encode(checked)
        except _NotPlainError:
            return self._of_prepared(item)
        except (TypeError, ValueError, OverflowError, RecursionError):
            return self._of_prepared(item)
        if len(encoded) > LARGEST_INLINE_DATA:
            return self._of_prepared(item)
        return document_id, encoded

    def encode_run(self, texts: list[bytes]) -> tuple[list[str], memoryview, list[int], int] | None:
        """
        Return the IDs of several items and their JSON with commas in between, if they can be checked at once;
        also how many bytes each has, and how many are between two of them.

        It takes a fraction of the time that they take one by one. ``None`` says nothing about them but that
        they have to be looked at one by one.

        :param texts: Each holds the JSON object of an item.
        """
        if self._runs_to_skip:
            self._runs_to_skip -= 1
            return None
        if len(texts[0]) > LARGEST_INLINE_DATA:
            # It comes alone, and its content may have to go by a container of its own.
            return None
        checked = self._checked_run(texts)
        if checked is None:
            self._runs_to_skip = _RUN_TRIED_AGAIN_AFTER
        return checked

    def _checked_run(self, texts: list[bytes]) -> tuple[list[str], memoryview, list[int], int] | None:
        count = len(texts)
        between = b","
        if [text[-2:] for text in texts].count(b"}\n") < count:
            between, texts = b"\n,", [text.strip() for text in texts]
            if [text[-1:] for text in texts].count(b"}") < count:
                return None
        # No string of JSON holds a newline, and no object stands in a plain one. So a '}' with a newline
        # behind it ends an item, and as many items as there are texts means one in each.
        parts = texts.copy()
        parts[0] = b"[" + parts[0]
        parts[-1] += b"]"
        array = between.join(parts)
        try:
            kind = self._run_kind(_plain_decoder.decode(texts[0]))
            if kind is None:
                return None
            items = kind.decoder.decode(array)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if len(items) != count:
            return None
        strings = count * kind.strings
        for column in kind.lists_of_strings:
            strings += sum(map(len, map(column, items)))
        # A key that occurs twice, of which one value is lost, has quotes that are not accounted for.
        if array.count(b'"') != 2 * strings and not kind.accounts_for_quotes(items, array, 2 * strings):
            return None
        ids = list(map(kind.document_id, items))
        joined = "\n".join(ids) + "\n"
        if joined.count("\n") != count or not _DOCUMENT_IDS.match(joined):
            return None
        for key, column, check in kind.checks:
            for value in set(map(column, items)):
                try:
                    check(key, value)
                except CoveoInputError:
                    return None
        return ids, memoryview(array)[1:-1], list(map(len, texts)), len(between)

    def _run_kind(self, first: dict[str, Any]) -> _RunKind | None:
        signature = (*first, *map(_RunKind.kind_of_value, first.values()))
        try:
            return self._run_kinds[signature]
        except KeyError:
            if len(self._run_kinds) >= _MOST_RUN_KINDS:
                self._run_kinds.clear()
            kind = self._run_kinds[signature] = _RunKind.of(first)
            return kind

    def _checked(self, item: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return the ID and the item with its values as they are sent, if the item is a plain one."""
        kind = (*item, *map(type, item.values()))
        shape = self._last_shape if kind == self._last_kind else self._shape_of(kind, item)
        if shape is None:
            raise _NotPlainError
        document_id = item[shape.id_key]
        if not _DOCUMENT_ID.match(document_id):
            raise _NotPlainError
        for key in shape.floats:
            if not math.isfinite(item[key]):
                raise _NotPlainError
        for key in shape.ints:
            if not _SMALLEST_INT <= item[key] <= _LARGEST_INT:
                raise _NotPlainError
        checked = item
        for key, check in shape.checks:
            value = item[key]
            try:
                sent = check(key, value)
            except CoveoInputError as error:
                raise InvalidItemError(document_id, error.tried, error.remedy) from None
            if sent is not value:
                if checked is item:
                    checked = item.copy()
                checked[key] = sent
        return document_id, checked

    def _shape_of(self, kind: tuple[Any, ...], item: dict[str, Any]) -> _Shape | None:
        try:
            shape = self._shapes[kind]
        except KeyError:
            if len(self._shapes) >= _MOST_SHAPES:
                self._shapes.clear()
            shape = self._shapes[kind] = _Shape.of(tuple(item), tuple(map(type, item.values())))
        self._last_kind, self._last_shape = kind, shape
        return shape

    def _checked_bytes(self, encoded: bytes) -> Entry | tuple[str, bytes]:
        # Items of one kind come in rows: where the short way was not taken, it is not tried for a while.
        if self._not_plain:
            self._not_plain -= 1
        else:
            document_id = self._id_of_plain(encoded)
            if document_id is not None:
                return document_id, encoded
            self._not_plain = _TRIED_AGAIN_AFTER
        return self._checked_json(encoded)

    def _id_of_plain(self, encoded: bytes) -> str | None:
        """Return the ID of an item without permissions that is right in each way that msgspec can check."""
        try:
            item: dict[str, Any] = _plain_decoder.decode(encoded)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        keys = tuple(item)
        if keys == self._last_keys:
            shape = self._last_keys_shape
        else:
            shape = self._shape_of(("texts", *keys), dict.fromkeys(keys, ""))
            self._last_keys, self._last_keys_shape = keys, shape
        if shape is None or len(encoded) > LARGEST_INLINE_DATA:
            return None
        for key in shape.texts:
            if type(item[key]) is not str:
                return None
        document_id: str = item[shape.id_key]
        if not _DOCUMENT_ID.match(document_id):
            return None
        for key, check in shape.checks:
            try:
                check(key, item[key])
            except CoveoInputError:
                return None
        # What msgspec would write for the dict as well holds each key once.
        if _encoder.encode(item) != encoded and _may_have_repeated_keys(encoded, item):
            return None
        return document_id

    def _checked_json(self, encoded: bytes) -> Entry | tuple[str, bytes]:
        try:
            item = _decoder.decode(encoded)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidItemError(None, _not_json(encoded, error)) from None
        if type(item) is not dict:
            raise InvalidItemError(None, f"it is a JSON {_json_type(item)}, not an object")
        try:
            document_id, _ = self._checked(item)
        except _NotPlainError:
            document_id = _prepared(item).document_id
        # What msgspec would write for the dict as well holds each key once, at every depth.
        if _encoder.encode(item) != encoded and _may_have_repeated_keys(encoded, item):
            _refuse_repeated_keys(document_id, encoded)
        if len(encoded) > LARGEST_INLINE_DATA:
            return self._of_prepared(item)
        return document_id, encoded

    @staticmethod
    def _of_prepared(item: object) -> Entry | tuple[str, bytes]:
        prepared = _prepared(item)
        try:
            entry = prepared.entry()
        except CoveoInputError as error:
            raise InvalidItemError(prepared.document_id, error.tried, error.remedy) from None
        if len(entry.encoded) > LARGEST_UPLOAD - 1024:
            raise InvalidItemError(
                prepared.document_id,
                f"it has {len(entry.encoded):,} bytes, and a file container takes {LARGEST_UPLOAD:,}",
                "Shorten its metadata",
            )
        return entry if entry.large is not None else (entry.document_id, entry.encoded)


class _NotPlainError(Exception):
    """An item that has to be looked at closely, perhaps to say what is wrong with it."""


@dataclass(frozen=True)
class _Shape:
    """
    What the keys of an item and the types of its values decide.

    :param id_key: How the item spells ``documentId``.
    :param texts: The keys of Coveo's own, whose values are texts.
    :param floats: The keys of metadata whose values are floats.
    :param ints: The keys of metadata whose values are whole numbers.
    :param checks: What else is left to check for each single item: keys, and functions that return the value
        as it is sent.
    """

    id_key: str
    texts: tuple[str, ...]
    floats: tuple[str, ...]
    ints: tuple[str, ...]
    checks: tuple[tuple[str, Callable[[str, Any], Any]], ...]

    @classmethod
    def of(cls, keys: tuple[Any, ...], types: tuple[type, ...]) -> _Shape | None:
        """Return ``None`` if items of this kind can't be right."""
        if not all(type(key) is str and key for key in keys):
            return None
        if len({key.lower() for key in keys}) < len(keys):
            return None
        id_key = content_key = None
        texts, floats, ints = [], [], []
        checks: list[tuple[str, Callable[[str, Any], Any]]] = []
        for key, value_type in zip(keys, types, strict=True):
            reserved = _RESERVED_KEYS.get(key.lower())
            if reserved is not None:
                texts.append(key)
            if reserved == "documentId":
                id_key = key if value_type is str else None
            elif reserved in DATA_KEYS:
                if content_key is not None or value_type is not str:
                    return None
                content_key = reserved
                if reserved == "compressedBinaryData":
                    checks.append((key, _base64))
            elif reserved == "fileExtension" and value_type is str:
                checks.append((key, _known_file_extension))
            elif reserved in _RULES:
                checks.append((key, _RULES[reserved]))
            elif reserved is not None:
                return None
            elif value_type is float:
                floats.append(key)
            elif value_type is int:
                ints.append(key)
            elif value_type is list:
                checks.append((key, _list))
            elif value_type not in _PLAIN_TYPES:
                checks.append((key, _metadata))
        if id_key is None or content_key is None:
            return None
        if content_key == "data" and any(key.lower() == "compressiontype" for key in keys):
            return None
        return cls(id_key, tuple(texts), tuple(floats), tuple(ints), tuple(checks))


@dataclass(frozen=True)
class _RunKind:
    """
    How to check several items of JSON at once that have the same keys and the same kinds of values.

    :param decoder: Takes an array of such items and nothing else, as far as msgspec can tell.
    :param document_id: Takes the ID out of a decoded item.
    :param checks: What is left to check: keys, what takes their values out, and functions that refuse them.
    :param strings: How many strings an item has, its keys among them.
    :param lists_of_strings: What takes the lists out that hold more of them.
    :param text_columns: What takes the values out that are strings.
    """

    decoder: msgspec.json.Decoder[list[Any]]
    document_id: Callable[[Any], str]
    checks: tuple[tuple[str, Callable[[Any], Any], Callable[[str, Any], Any]], ...]
    strings: int
    lists_of_strings: tuple[Callable[[Any], list[str]], ...]
    text_columns: tuple[Callable[[Any], str], ...]

    @staticmethod
    def kind_of_value(value: Any) -> Any:
        """Return the type that all values of a key must have."""
        if type(value) is str:
            return str
        if type(value) is not list:
            return _PlainNumber
        return list[str] if all(type(entry) is str for entry in value) else list[_PlainNumber]

    @classmethod
    def of(cls, item: dict[str, Any]) -> _RunKind | None:
        """Return ``None`` if such an item can't be right, or not without a closer look."""
        shape = _Shape.of(tuple(item), (str,) * len(item))
        if shape is None:
            return None
        kinds = {key: cls.kind_of_value(value) for key, value in item.items()}
        columns = {key: f"value_{number}" for number, key in enumerate(item)}
        if any(kinds[key] is not str for key in shape.texts):
            return None
        if _NOT_IN_FIELD_NAMES.search("".join(columns)):
            return None
        item_type = msgspec.defstruct(
            "PlainItem",
            [(columns[key], kind) for key, kind in kinds.items()],
            rename={column: key for key, column in columns.items()},
            forbid_unknown_fields=True,
            gc=False,
        )
        take = {key: attrgetter(column) for key, column in columns.items()}
        texts = [key for key, kind in kinds.items() if kind is str]
        return cls(
            decoder=msgspec.json.Decoder(list[item_type]),  # type: ignore[valid-type]
            document_id=take[shape.id_key],
            checks=tuple((key, take[key], check) for key, check in shape.checks),
            strings=len(item) + len(texts),
            lists_of_strings=tuple(take[key] for key, kind in kinds.items() if kind == list[str]),
            text_columns=tuple(take[key] for key in texts),
        )

    def accounts_for_quotes(self, items: list[Any], array: bytes, quotes: int) -> bool:
        """Say whether what is above the number of quotes around strings are all quotes within them."""
        if b"u0022" in array:
            return False
        for text in self.text_columns:
            quotes += "".join(map(text, items)).count('"')
        for texts in self.lists_of_strings:
            for strings in map(texts, items):
                quotes += "".join(strings).count('"')
        return array.count(b'"') == quotes


def _as_dict(item: object) -> dict[str, Any]:
    if isinstance(item, Item):
        try:
            return item.as_dict()
        except CoveoInputError as error:
            raise InvalidItemError(shown(item.document_id), error.tried, error.remedy) from None
    if isinstance(item, Mapping):
        return dict(item)
    raise InvalidItemError(
        None,
        f"it is of type {type(item).__name__}",
        "Give a dict, an Item, a Delete, or bytes that hold one JSON object",
    )


def _not_json(encoded: bytes, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8: {error.reason} at byte {error.start}"
    if b"\\u" in encoded and ("surrogate" in str(error) or _is_json_but_for_surrogates(encoded)):
        return "it holds half of a surrogate pair, which UTF-8 can't express"
    return f"it is not one JSON object: {error}"


def _is_json_but_for_surrogates(encoded: bytes) -> bool:
    try:
        json.loads(encoded)
    except (ValueError, RecursionError):
        return False
    return True


def _json_type(value: object) -> str:
    if isinstance(value, list):
        return "array"
    return "null" if value is None else "string" if isinstance(value, str) else type(value).__name__


def _may_have_repeated_keys(encoded: bytes, item: dict[str, Any]) -> bool:
    """
    Say whether the JSON text of an item can hold a key twice, of which a dict keeps one only.

    A text that is no longer than its distinct members and the signs between them has no room for another
    member. Written with a space after each sign, as Python's own encoder does, it is compared as a whole.
    """
    members = _raw_decoder.decode(encoded)
    for value in item.values():
        if type(value) is list and any(type(entry) is dict for entry in value):
            return True
    keys = sum(map(len, members))
    values = sum(map(len, members.values()))
    if len(encoded) == keys + values + 4 * len(members) + 1:
        return False
    parts: list[Any] = [b', "'] * (4 * len(members))
    parts[0] = b'{"'
    parts[1::4] = [key.encode() for key in members]
    parts[2::4] = [b'": '] * len(members)
    parts[3::4] = members.values()
    return b"".join(parts) + b"}" != encoded


def _refuse_repeated_keys(document_id: str, encoded: bytes) -> None:
    def refuse(members: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in members:
            if key.lower() in seen:
                raise InvalidItemError(
                    document_id,
                    f"the key {shown(key)} occurs twice",
                    "Coveo takes keys in any case: keep one",
                )
            seen.add(key.lower())

    json.loads(encoded, object_pairs_hook=refuse)


# --- the rules ---


def _prepared(item: object) -> PreparedItem:
    if not isinstance(item, Mapping):
        item = _as_dict(item)
    document_id = None
    try:
        properties = _with_canonical_reserved_keys(item)
        document_id = checked_document_id(properties.pop("documentId", None))
        return _prepared_properties(document_id, properties)
    except CoveoInputError as error:
        raise InvalidItemError(document_id, error.tried, error.remedy) from None


def _with_canonical_reserved_keys(item: Mapping[Any, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    seen: dict[str, str] = {}
    for key, value in item.items():
        if not isinstance(key, str) or not key:
            raise CoveoInputError(f"an item's keys must be non-empty strings, and {shown(key)} is not")
        lower_case = key.lower()
        if lower_case in seen:
            raise CoveoInputError(
                f"the keys {shown(seen[lower_case])} and {shown(key)} differ by case only",
                remedy="Coveo takes keys in any case, so keep one of them",
            )
        seen[lower_case] = key
        properties[_RESERVED_KEYS.get(lower_case, _encodable(key, "a key"))] = value
    return properties


def _prepared_properties(document_id: str, properties: dict[str, Any]) -> PreparedItem:
    if "orderingId" in properties:
        raise CoveoInputError(
            "an item holds no orderingId of its own",
            remedy="Leave it out: Coveo stamps the item; see https://docs.coveo.com/en/147/",
        )
    content_key, content = _content(properties)
    compression_type = None
    if "compressionType" in properties:
        if content_key == "data":
            raise CoveoInputError("compressionType is for binary content, and data is text")
        compression_type = _compression_type("compressionType", properties.pop("compressionType"))
    checked = {key: _rule(key)(key, value) for key, value in properties.items()}
    return PreparedItem(document_id, compression_type, checked, content_key, content)


def _content(properties: dict[str, Any]) -> tuple[str, str]:
    given = [key for key in DATA_KEYS if key in properties]
    if len(given) != 1:
        raise CoveoInputError(
            f"it has {' and '.join(given) or 'no content'}",
            remedy=f"Give exactly one of {', '.join(DATA_KEYS)}; see https://docs.coveo.com/en/73/",
        )
    content = properties.pop(given[0])
    if not isinstance(content, str):
        raise CoveoInputError(
            f"{given[0]} must be a string, not {type(content).__name__}",
            remedy="Give text as data, and bytes Base64-encoded as compressedBinaryData",
        )
    _encodable(content, given[0])
    if given[0] == "compressedBinaryData":
        _base64(given[0], content)
    return given[0], content


def _base64(key: str, value: str) -> str:
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise CoveoInputError(f"{key} is not Base64: {error}", remedy="Encode the bytes as Base64") from None
    return value


def _compression_type(key: str, value: object) -> str:
    if not isinstance(value, str) or value not in COMPRESSION_TYPES:
        raise CoveoInputError(
            f"{shown(value)} is not a {key}",
            remedy=f"Use one of {', '.join(COMPRESSION_TYPES)} in upper case",
        )
    return value


def _file_extension(key: str, value: object) -> str:
    if not isinstance(value, str) or not value.startswith(".") or len(value) < 2:
        raise CoveoInputError(f"{shown(value)} is not a {key}", remedy="Start it with a dot, as in .html")
    return _encodable(value, key)


_known_file_extension = functools.lru_cache(maxsize=256)(_file_extension)


def _parent_id(key: str, value: object) -> str:
    try:
        return checked_document_id(value)
    except CoveoInputError as error:
        raise CoveoInputError(f"its {key} can't be right: {error.tried}", remedy=error.remedy) from None


_IDENTITY_TYPES: Final = frozenset({"USER", "GROUP", "VIRTUALGROUP", "UNKNOWN"})


def _permissions(key: str, value: object) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
        raise CoveoInputError(
            f"{key} must be a list of permission sets or levels", remedy="See https://docs.coveo.com/en/107/"
        )
    count = 0
    for number, entry in enumerate(value, 1):
        lower_case = _lower_case_keys(entry, f"entry {number} of {key}")
        if "permissionsets" in lower_case:
            count += _permission_level(lower_case, number)
        else:
            count += _permission_set(lower_case, f"permission set {number}")
    if count > MOST_PERMISSIONS:
        raise CoveoInputError(
            f"it has {count:,} permissions, and Coveo's pipeline rejects more than {MOST_PERMISSIONS:,}",
            remedy="Use groups instead of single users",
        )
    return value


def _permission_level(level: dict[str, Any], number: int) -> int:
    where = f"permission level {number}"
    name, sets = level.pop("name", None), level.pop("permissionsets")
    if not isinstance(name, str) or not name:
        raise _bad_permission(f"{where} has no name")
    _encodable(name, "name")
    if level:
        raise _bad_permission(f"{where} has the unknown key {shown(next(iter(level)))}")
    if not isinstance(sets, list) or not all(isinstance(entry, Mapping) for entry in sets):
        raise _bad_permission(f"permissionSets of {where} is not a list of permission sets")
    return sum(
        _permission_set(_lower_case_keys(entry, where), f"permission set {index} of level {shown(name)}")
        for index, entry in enumerate(sets, 1)
    )


def _permission_set(permission_set: dict[str, Any], where: str) -> int:
    count = 0
    for key, value in permission_set.items():
        if key in {"allowedpermissions", "deniedpermissions"}:
            if not isinstance(value, list):
                raise _bad_permission(f"{key} of {where} is not a list")
            count += len(value)
            # A set of too many is refused for their number, whatever they are.
            if count <= MOST_PERMISSIONS:
                for identity in value:
                    _permission_identity(identity, where)
        elif key == "allowanonymous":
            if not isinstance(value, bool):
                raise _bad_permission(f"allowAnonymous of {where} is {shown(value)}, not true or false")
        elif key == "name":
            if not isinstance(value, str):
                raise _bad_permission(f"the name of {where} is not a string")
            _encodable(value, "name")
        else:
            raise _bad_permission(f"{where} has the unknown key {shown(key)}")
    return count


def _permission_identity(identity: object, where: str) -> None:
    if not isinstance(identity, Mapping):
        raise _bad_permission(f"{where} holds {shown(identity)}, which is no identity")
    given = _lower_case_keys(identity, where)
    name = given.pop("identity", None)
    if not isinstance(name, str) or not name:
        raise _bad_permission(f"{where} holds an identity without a name")
    _encodable(name, "identity")
    kind = given.pop("identitytype", None)
    if not isinstance(kind, str) or kind.replace("_", "").upper() not in _IDENTITY_TYPES:
        raise _bad_permission(
            f"the identityType of {shown(name)} in {where} is {shown(kind)}, and none of User, Group, "
            "VirtualGroup and Unknown"
        )
    provider = given.pop("securityprovider", None)
    if provider is not None and (not isinstance(provider, str) or not provider):
        raise _bad_permission(f"the securityProvider of {shown(name)} in {where} is no name")
    _encodable(provider or "", "securityProvider")
    checked_additional_info(given.pop("additionalinfo", None), f"{shown(name)} in {where}")
    if given:
        raise _bad_permission(f"{shown(name)} in {where} has the unknown key {shown(next(iter(given)))}")


def checked_additional_info(value: object, of: str) -> None:
    """
    Check the ``additionalInfo`` of a security identity: strings by name.

    :param value: The value; ``None`` for none.
    :param of: Whose it is, for the error.
    :raises CoveoInputError: if it is anything else.
    """
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise _bad_permission(f"the additionalInfo of {of} is not an object")
    for key, text in value.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise _bad_permission(f"the additionalInfo of {of} holds more than strings")
        _encodable(key, "additionalInfo")
        _encodable(text, "additionalInfo")


def _lower_case_keys(entry: Mapping[Any, Any], where: str) -> dict[str, Any]:
    lower_case: dict[str, Any] = {}
    for key, value in entry.items():
        if not isinstance(key, str) or key.lower() in lower_case:
            raise _bad_permission(f"{where} has the key {shown(key)} twice, or it is no string")
        lower_case[key.lower()] = value
    return lower_case


def _bad_permission(rule: str) -> CoveoInputError:
    return CoveoInputError(
        f"its permissions can't be right: {rule}",
        remedy="See https://docs.coveo.com/en/107/ and https://docs.coveo.com/en/25/",
    )


def _metadata(key: str, value: object) -> Any:
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        value = _of_numpy(key, value)
    if isinstance(value, (list, tuple)):
        sent = [_metadata_scalar(key, entry) for entry in value]
        # What needs no change is returned as it is, which spares a copy of the item.
        unchanged = type(value) is list and all(new is old for new, old in zip(sent, value, strict=True))
        return value if unchanged else sent
    return _metadata_scalar(key, value)


def _list(key: str, value: list[Any]) -> Any:
    # Texts that can't be expressed in UTF-8 are left to the encoder.
    return value if _PLAIN_TYPES.issuperset(map(type, value)) else _metadata(key, value)


def _of_numpy(key: str, value: Any) -> Any:
    """Return a scalar or an array of numpy as Python's own."""
    if getattr(value.dtype, "kind", "") in "mM":
        raise CoveoInputError(
            f"the time {shown(key)} has no time zone",
            remedy="Use an aware datetime, for example pandas.Timestamp(value, tz='UTC')",
        )
    return value.tolist()


def _metadata_scalar(key: str, value: object) -> Any:
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        value = _of_numpy(key, value)
    if isinstance(value, str):
        return _encodable(value if type(value) is str else "".join(value), key)
    if isinstance(value, bool):
        return value
    if isinstance(value, float):
        return _number(key, value if type(value) is float else float(value))
    if isinstance(value, int) and type(value) is int:
        return _whole_number(key, value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise CoveoInputError(
                f"the time {shown(key)} has no time zone",
                remedy="Use an aware datetime, for example datetime.now(timezone.utc)",
            )
        return _time(key, value)
    if isinstance(value, date):
        return value.isoformat()
    if value is None or isinstance(
        value, (Mapping, list, tuple, set, frozenset, bytes, bytearray, memoryview)
    ):
        raise CoveoInputError(
            f"the value of {shown(key)} is {'None' if value is None else 'a ' + type(value).__name__}",
            remedy="Metadata holds strings, numbers, booleans, times and lists of these; leave out what has "
            "no value; see https://docs.coveo.com/en/162/",
        )
    return _metadata_scalar_of_a_library(key, value)


def _time(key: str, value: datetime) -> str:
    offset = cast("timedelta", value.utcoffset())
    if offset % timedelta(minutes=1):
        # Zones from before there were time zones have seconds, for which ISO 8601 has no place.
        try:
            value = value.astimezone(timezone.utc)
        except OverflowError:
            raise CoveoInputError(
                f"the time {shown(key)} ({value}) can't be told in UTC",
                remedy="Leave out a time that stands for none",
            ) from None
    return value.isoformat()


def _metadata_scalar_of_a_library(key: str, value: object) -> Any:
    """Return an enum, a Decimal, a UUID and the like as what it stands for."""
    if isinstance(value, Decimal) and not value.is_finite():
        raise CoveoInputError(f"{shown(key)} is {value}, which is no number that a field can hold")
    try:
        sent = msgspec.to_builtins(value)
    except (TypeError, ValueError, OverflowError):
        sent = None
    if type(sent) in {str, bool, int, float}:
        return _metadata_scalar(key, sent)
    raise CoveoInputError(
        f"the value of {shown(key)} is of type {type(value).__name__}, not JSON",
        remedy="Metadata holds strings, numbers, booleans, times and lists of these",
    )


def _number(key: str, value: float) -> float:
    if not math.isfinite(value):
        raise CoveoInputError(f"{shown(key)} is {value}, which JSON does not know")
    return value


def _whole_number(key: str, value: int) -> int:
    if not _SMALLEST_INT <= value <= _LARGEST_INT:
        raise CoveoInputError(
            f"the number {shown(key)} does not fit into the 64 bits that Coveo's fields have"
        )
    return value


def _encodable(text: str, key: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise CoveoInputError(
            f"{shown(key)} holds half of a surrogate pair, which UTF-8 can't express",
            remedy="Decode the original bytes with the right encoding",
        ) from None
    return text


def _rule(key: str) -> Callable[[str, Any], Any]:
    """Return what checks a value under that key, and returns it as it is sent."""
    return _RULES.get(key, _metadata)


#: The reserved keys whose values have rules of their own.
_RULES: Final[dict[str | None, Callable[[str, Any], Any]]] = {
    "compressionType": _compression_type,
    "fileExtension": _file_extension,
    "parentId": _parent_id,
    "permissions": _permissions,
}
