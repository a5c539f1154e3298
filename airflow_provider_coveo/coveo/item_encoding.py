"""Validate and encode items for a batch, each item once, and many of one kind at a time."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Annotated, Any, Final, NamedTuple, TypeAlias, cast

import msgspec

from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.items import (
    DATA_KEYS,
    DOCUMENT_ID,
    MAX_INLINE_DATA,
    MAX_UPLOAD,
    RESERVED_KEYS,
    RULES,
    CheckedDelete,
    Delete,
    Entry,
    InvalidItemError,
    as_dict,
    known_file_extension,
    validate_base64,
    validate_item,
)
from airflow_provider_coveo.coveo.metadata import (
    MAX_INT,
    MIN_INT,
    PLAIN_TYPES,
    unreadable,
    validate_list,
    validate_metadata,
)
from airflow_provider_coveo.coveo.other_formats import padded_key

_DOCUMENT_ID = re.compile(DOCUMENT_ID + r"\Z")
#: Several IDs, each followed by a newline, which no ID contains.
_DOCUMENT_IDS = re.compile(rf"(?:{DOCUMENT_ID}\n)+\Z")
#: Characters that msgspec rejects in the name of a field.
_NOT_IN_FIELD_NAMES = re.compile(r'[\x00-\x1f"\\]')
#: Item schemas (keys and types of values) that are cached at a time.
_MAX_SCHEMAS: Final = 2_048
#: JSON items that take the slow path before the fast path is attempted again.
_RETRY_FAST_PATH_AFTER: Final = 100
#: Kinds of chunks that are cached at a time.
_MAX_CHUNK_KINDS: Final = 64
#: Chunks that are split into single items before a chunk is validated as a whole again.
_RETRY_CHUNKS_AFTER: Final = 16

_DATA_KEYS: Final = frozenset(map(str.lower, DATA_KEYS))
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()
#: Accepts an object that contains only values that metadata can hold; no permissions.
_PlainNumber: TypeAlias = Annotated[int, msgspec.Meta(ge=MIN_INT, le=MAX_INT)] | float | bool
_PlainValue: TypeAlias = str | _PlainNumber
_plain_decoder = msgspec.json.Decoder(dict[str, _PlainValue | list[_PlainValue]])
_raw_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


class ItemEncoder:
    """
    Validates and encodes items, each once, by the rules of
    :func:`~airflow_provider_coveo.coveo.items.prepared_item`.

    Most items of a push are alike: the encoder derives one schema from the keys and the types of the values
    for each kind of item, and leaves the rest to msgspec. It is not thread-safe.
    """

    def __init__(self) -> None:
        self._schemas: dict[tuple[object, ...], _ItemSchema | None] = {}
        self._last_kind: tuple[object, ...] = ()
        self._last_schema: _ItemSchema | None = None
        self._last_keys: tuple[str, ...] = ()
        self._last_keys_schema: _ItemSchema | None = None
        self._fast_path_skips = 0
        self._chunk_kinds: dict[tuple[object, ...], _ChunkKind | None] = {}
        self._chunks_to_skip = 0

    def encode(self, item: object) -> Entry | CheckedDelete | tuple[str, bytes]:
        """
        Return an item's ID and its JSON, as an :class:`Entry` if its content is large.

        :param item: A mapping, an :class:`Item`, or bytes that hold one JSON object. Bytes are validated and
            returned unchanged, except for the spelling of permissions and for missing content. A
            :class:`Delete` is validated and returned as :class:`CheckedDelete`.
        :raises InvalidItemError: if Coveo would reject it, or it raises an exception while it is read.
        """
        try:
            if type(item) is bytes:
                return self._validate_bytes(item.strip())
            if type(item) is not dict:
                # Only the class counts: an object's own __class__ can lie.
                kind = type(item)
                if issubclass(kind, Delete):
                    return cast("Delete", item).checked()
                if issubclass(kind, (bytes, bytearray, memoryview)):
                    return self._validate_bytes(memoryview(item).tobytes().strip())  # type: ignore[arg-type]
                item = as_dict(item)
            try:
                document_id, checked = self._checked(item)
                encoded = _encoder.encode(checked)
            except (InvalidItemError, MemoryError):
                raise
            except Exception:
                # The slow path reports the reason if the item is invalid.
                return self._of_prepared(item)
            if len(encoded) > MAX_INLINE_DATA:
                return self._of_prepared(item)
        except (InvalidItemError, MemoryError):
            raise
        except Exception as problem:
            error = unreadable("it", problem)
            raise InvalidItemError(None, error.tried, error.remedy) from None
        return document_id, encoded

    def encode_chunk(self, texts: list[bytes]) -> tuple[list[str], memoryview, list[int], int] | None:
        """
        Validate several items at once. Return their IDs, their JSON joined by separators, the number of bytes
        of each, and the number of bytes of a separator.

        It takes a fraction of the time of one item at a time. ``None`` means only that each item needs
        validating by itself.

        :param texts: The JSON objects, one item each.
        """
        if self._chunks_to_skip:
            self._chunks_to_skip -= 1
            return None
        if len(texts[0]) > MAX_INLINE_DATA:
            # It is the only one in its chunk, and its content may need a container of its own.
            return None
        checked = self._validate_chunk(texts)
        if checked is None:
            self._chunks_to_skip = _RETRY_CHUNKS_AFTER
        return checked

    def _validate_chunk(self, texts: list[bytes]) -> tuple[list[str], memoryview, list[int], int] | None:
        count = len(texts)
        between = b","
        if [text[-2:] for text in texts].count(b"}\n") < count:
            between, texts = b"\n,", [text.strip() for text in texts]
            if [text[-1:] for text in texts].count(b"}") < count:
                return None
        # A JSON string contains no raw newline, and a plain item no other object. So a '}' before a newline
        # ends an item, and if there are as many items as texts, each text holds exactly one.
        parts = texts.copy()
        parts[0] = b"[" + parts[0]
        parts[-1] += b"]"
        array = between.join(parts)
        try:
            kind = self._chunk_kind(_plain_decoder.decode(texts[0]))
            if kind is None:
                return None
            items = kind.decoder.decode(array)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if len(items) != count:
            return None
        strings = count * kind.strings
        for list_column in kind.lists_of_strings:
            strings += sum(map(len, map(list_column, items)))
        # A duplicate key, whose first value the decoder drops, leaves quotes unaccounted for.
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

    def _chunk_kind(self, first: Mapping[str, object]) -> _ChunkKind | None:
        signature = (*first, *map(_ChunkKind.kind_of_value, first.values()))
        try:
            return self._chunk_kinds[signature]
        except KeyError:
            if len(self._chunk_kinds) >= _MAX_CHUNK_KINDS:
                self._chunk_kinds.clear()
            kind = self._chunk_kinds[signature] = _ChunkKind.of(first)
            return kind

    def _checked(self, item: dict[str, Any]) -> tuple[str, dict[str, object]]:
        """Return the ID, and the item with its values as they are sent, if the item is a plain one."""
        kind = (*item, *map(type, item.values()))
        schema = self._last_schema if kind == self._last_kind else self._schema_of(kind, item)
        if schema is None:
            raise _NeedsSlowPathError
        document_id = item[schema.id_key]
        if not _DOCUMENT_ID.match(document_id):
            raise _NeedsSlowPathError
        for key in schema.floats:
            if not math.isfinite(item[key]):
                raise _NeedsSlowPathError
        for key in schema.ints:
            if not MIN_INT <= item[key] <= MAX_INT:
                raise _NeedsSlowPathError
        checked = item
        for key, check in schema.checks:
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

    def _schema_of(self, kind: tuple[object, ...], item: Mapping[str, object]) -> _ItemSchema | None:
        try:
            schema = self._schemas[kind]
        except KeyError:
            if len(self._schemas) >= _MAX_SCHEMAS:
                self._schemas.clear()
            schema = self._schemas[kind] = _ItemSchema.of(tuple(item), tuple(map(type, item.values())))
        self._last_kind, self._last_schema = kind, schema
        return schema

    def _validate_bytes(self, encoded: bytes) -> Entry | tuple[str, bytes]:
        if len(encoded) > MAX_INLINE_DATA:
            return self._validate_json(encoded)
        # Items of one kind tend to follow each other: after a miss, skip the fast path for a while.
        if self._fast_path_skips:
            self._fast_path_skips -= 1
        else:
            document_id = self._id_of_plain(encoded)
            if document_id is not None:
                return document_id, encoded
            self._fast_path_skips = _RETRY_FAST_PATH_AFTER
        return self._validate_json(encoded)

    def _id_of_plain(self, encoded: bytes) -> str | None:
        """Return the ID of a valid item without permissions; ``None`` if it needs the slow path."""
        try:
            item: dict[str, Any] = _plain_decoder.decode(encoded)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        keys = tuple(item)
        if keys == self._last_keys:
            schema = self._last_keys_schema
        else:
            schema = self._schema_of(("texts", *keys), dict.fromkeys(keys, ""))
            self._last_keys, self._last_keys_schema = keys, schema
        if schema is None:
            return None
        for key in schema.texts:
            if type(item[key]) is not str:
                return None
        document_id: str = item[schema.id_key]
        if not _DOCUMENT_ID.match(document_id):
            return None
        for key, check in schema.checks:
            try:
                check(key, item[key])
            except CoveoInputError:
                return None
        # If msgspec encodes the dict to the same bytes, no key occurs twice.
        if _encoder.encode(item) != encoded and _may_have_repeated_keys(encoded, item):
            return None
        return document_id

    def _validate_json(self, encoded: bytes) -> Entry | tuple[str, bytes]:
        try:
            item = _decoder.decode(encoded)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidItemError(None, _not_json(encoded, error)) from None
        if type(item) is not dict:
            raise InvalidItemError(None, f"it is a JSON {_json_type(item)}, not an object")
        sent = item
        try:
            document_id, sent = self._checked(item)
        except _NeedsSlowPathError:
            document_id = validate_item(item).document_id
        # If msgspec encodes the dict to the same bytes, no key occurs twice at any depth. For a large item,
        # that would be one more copy in memory.
        is_large = len(encoded) > MAX_INLINE_DATA
        if (is_large or _encoder.encode(item) != encoded) and _may_have_repeated_keys(encoded, item):
            _reject_repeated_keys(document_id, encoded)
        if is_large:
            return self._of_prepared(item)
        if not any(key.lower() in _DATA_KEYS for key in item):
            # It has metadata, or validation would have failed.
            return self._of_prepared(item)
        if sent is not item:
            # Validation corrected the spelling of permissions.
            encoded = _encoder.encode(sent)
        return document_id, encoded

    @staticmethod
    def _of_prepared(item: object) -> Entry | tuple[str, bytes]:
        prepared = validate_item(item)
        try:
            entry = prepared.entry()
        except CoveoInputError as error:
            raise InvalidItemError(prepared.document_id, error.tried, error.remedy) from None
        if len(entry.encoded) > MAX_UPLOAD - 1024:
            raise InvalidItemError(
                prepared.document_id,
                f"it has {len(entry.encoded):,} bytes; a file container can hold {MAX_UPLOAD:,}",
                "Shorten its metadata",
            )
        return entry if entry.large is not None else (entry.document_id, entry.encoded)


class _NeedsSlowPathError(Exception):
    """The item needs the slow path, which reports the reason if the item is invalid."""


class _ItemSchema(NamedTuple):
    """
    The validation that follows from the keys of an item and the types of its values.

    :param id_key: The item's spelling of ``documentId``.
    :param texts: Coveo's reserved keys; their values are strings.
    :param floats: Metadata keys with float values.
    :param ints: Metadata keys with integer values.
    :param checks: The remaining checks of each item: keys, and functions that return the value as it is sent.
    """

    id_key: str
    texts: tuple[str, ...]
    floats: tuple[str, ...]
    ints: tuple[str, ...]
    checks: tuple[tuple[str, Callable[[str, object], object]], ...]

    @classmethod
    def of(cls, keys: tuple[object, ...], types: tuple[type, ...]) -> _ItemSchema | None:
        """Return the schema, ``None`` if all items of this kind are invalid."""
        names = [key for key in keys if type(key) is str and key]
        if len(names) < len(keys) or len({key.lower() for key in names}) < len(names):
            return None
        if any(padded_key(key, RESERVED_KEYS) for key in names):
            return None
        id_key = content_key = None
        texts, floats, ints = [], [], []
        checks: list[tuple[str, Callable[[str, Any], object]]] = []
        for key, value_type in zip(names, types, strict=True):
            reserved = RESERVED_KEYS.get(key.lower())
            if reserved is not None:
                texts.append(key)
            if reserved == "documentId":
                id_key = key if value_type is str else None
            elif reserved in DATA_KEYS:
                if content_key is not None or value_type is not str:
                    return None
                content_key = reserved
                if reserved == "compressedBinaryData":
                    checks.append((key, validate_base64))
            elif reserved == "fileExtension" and value_type is str:
                checks.append((key, known_file_extension))
            elif reserved in RULES:
                checks.append((key, RULES[reserved]))
            elif reserved is not None:
                return None
            elif value_type is float:
                floats.append(key)
            elif value_type is int:
                ints.append(key)
            elif value_type is list:
                checks.append((key, validate_list))
            elif value_type not in PLAIN_TYPES:
                checks.append((key, validate_metadata))
        if id_key is None or content_key is None:
            return None
        if content_key == "data" and any(key.lower() == "compressiontype" for key in names):
            return None
        return cls(id_key, tuple(texts), tuple(floats), tuple(ints), tuple(checks))


class _ChunkKind(NamedTuple):
    """
    Validates several JSON items at once that have the same keys and the same types of values.

    :param decoder: Accepts only an array of such items, as far as msgspec can check.
    :param document_id: Gets the ID of a decoded item.
    :param checks: The remaining checks: keys, getters of their values, and functions that reject these.
    :param strings: The number of strings in an item, including its keys.
    :param lists_of_strings: Getters of the lists that contain more strings.
    :param text_columns: Getters of the string values.
    """

    decoder: msgspec.json.Decoder[list[object]]
    document_id: Callable[[object], str]
    checks: tuple[tuple[str, Callable[[object], object], Callable[[str, object], object]], ...]
    strings: int
    lists_of_strings: tuple[Callable[[object], list[str]], ...]
    text_columns: tuple[Callable[[object], str], ...]

    @staticmethod
    def kind_of_value(value: object) -> object:
        """Return the type that every value of a key must have."""
        if type(value) is str:
            return str
        if type(value) is not list:
            return _PlainNumber
        return list[str] if all(type(entry) is str for entry in value) else list[_PlainNumber]

    @classmethod
    def of(cls, item: Mapping[str, object]) -> _ChunkKind | None:
        """Return the kind, ``None`` if such items are invalid or need the slow path."""
        schema = _ItemSchema.of(tuple(item), (str,) * len(item))
        if schema is None:
            return None
        kinds = {key: cls.kind_of_value(value) for key, value in item.items()}
        columns = {key: f"value_{number}" for number, key in enumerate(item)}
        if any(kinds[key] is not str for key in schema.texts):
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
            document_id=take[schema.id_key],
            checks=tuple((key, take[key], check) for key, check in schema.checks),
            strings=len(item) + len(texts),
            lists_of_strings=tuple(take[key] for key, kind in kinds.items() if kind == list[str]),
            text_columns=tuple(take[key] for key in texts),
        )

    def accounts_for_quotes(self, items: Sequence[object], array: bytes, quotes: int) -> bool:
        """Return whether all quotes beyond those around strings are quotes within strings."""
        if b"u0022" in array:
            return False
        for text in self.text_columns:
            quotes += "".join(map(text, items)).count('"')
        for texts in self.lists_of_strings:
            for strings in map(texts, items):
                quotes += "".join(strings).count('"')
        return array.count(b'"') == quotes


def _not_json(encoded: bytes, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8: {error.reason} at byte {error.start}"
    if b"\\u" in encoded and ("surrogate" in str(error) or _is_json_but_for_surrogates(encoded)):
        return "it contains half of a surrogate pair, which UTF-8 can't express"
    return f"it is not one JSON object: {error}"


def _is_json_but_for_surrogates(encoded: bytes) -> bool:
    def reject(name: str) -> None:
        raise ValueError(name)

    try:
        # NaN and Infinity are not JSON, although Python accepts them.
        json.loads(encoded, parse_constant=reject)
    except (ValueError, RecursionError):
        return False
    return True


def _json_type(value: object) -> str:
    if isinstance(value, list):
        return "array"
    return "null" if value is None else "string" if isinstance(value, str) else type(value).__name__


def _may_have_repeated_keys(encoded: bytes, item: Mapping[str, object]) -> bool:
    """
    Return whether the JSON text of an item can contain a key twice, of which a dict keeps only one.

    A text that is no longer than its distinct members and the punctuation between them has no room for
    another member. A text with a space after each separator, as Python's encoder writes it, is compared as a
    whole.
    """
    members = _raw_decoder.decode(encoded)
    for value in item.values():
        if type(value) is list and any(type(entry) is dict for entry in value):
            return True
    keys = sum(map(len, members))
    values = sum(map(len, members.values()))
    if len(encoded) == keys + values + 4 * len(members) + 1:
        return False
    parts: list[bytes | msgspec.Raw] = [b', "'] * (4 * len(members))
    parts[0] = b'{"'
    parts[1::4] = [key.encode() for key in members]
    parts[2::4] = [b'": '] * len(members)
    parts[3::4] = members.values()
    # Joining them would copy a large item once more.
    at = 0
    with memoryview(encoded) as text:
        for part in parts:
            if text[at : at + len(part)] != memoryview(part):
                return True
            at += len(part)
        return bytes(text[at:]) != b"}"


def _reject_repeated_keys(document_id: str, encoded: bytes) -> None:
    def reject(members: list[tuple[str, object]]) -> None:
        seen: set[str] = set()
        for key, _ in members:
            if key.lower() in seen:
                raise InvalidItemError(
                    # It is unknown which of the two IDs is meant.
                    None if key.lower() == "documentid" else document_id,
                    f"the key {short_repr(key)} occurs twice",
                    "Keep one of them: Coveo ignores the case of keys",
                )
            seen.add(key.lower())

    json.loads(encoded, object_pairs_hook=reject)
