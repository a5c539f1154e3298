"""Items on their way into a batch: each checked and encoded once, many of one kind at a time."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated, Any, Final, TypeAlias, cast

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

_DOCUMENT_ID = re.compile(DOCUMENT_ID + r"\Z")
#: Several of them, each with a newline behind it, which none has in it.
_DOCUMENT_IDS = re.compile(rf"(?:{DOCUMENT_ID}\n)+\Z")
#: What msgspec does not take in the name of a field.
_NOT_IN_FIELD_NAMES = re.compile(r'[\x00-\x1f"\\]')
#: More kinds of items (by their keys and the types of their values) are not remembered at a time.
_MAX_SHAPES: Final = 2_048
#: After how many items of JSON that were looked at closely the short way is tried again.
_TRIED_AGAIN_AFTER: Final = 100
#: Runs of more kinds of items are not remembered at a time.
_MAX_CHUNK_KINDS: Final = 64
#: After how many runs that could not be checked as a whole it is tried again.
_RUN_TRIED_AGAIN_AFTER: Final = 16

_DATA_KEYS: Final = frozenset(map(str.lower, DATA_KEYS))
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()
#: Takes an object without anything in it that metadata may not hold, permissions apart.
_PlainNumber: TypeAlias = Annotated[int, msgspec.Meta(ge=MIN_INT, le=MAX_INT)] | float | bool
_PlainValue: TypeAlias = str | _PlainNumber
_plain_decoder = msgspec.json.Decoder(dict[str, _PlainValue | list[_PlainValue]])
_raw_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


class ItemEncoder:
    """
    Checks items and encodes them, each once, by the rules of
    :func:`~airflow_provider_coveo.coveo.items.prepared_item`.

    Most items of a push are alike: what their keys and the types of their values decide is worked out once
    for each kind, and the rest is left to msgspec. One encoder is for one thread.
    """

    def __init__(self) -> None:
        self._shapes: dict[tuple[Any, ...], _ItemSchema | None] = {}
        self._last_kind: tuple[Any, ...] = ()
        self._last_shape: _ItemSchema | None = None
        self._last_keys: tuple[str, ...] = ()
        self._last_keys_shape: _ItemSchema | None = None
        self._not_plain = 0
        self._run_kinds: dict[tuple[Any, ...], _RunKind | None] = {}
        self._runs_to_skip = 0

    def encode(self, item: object) -> Entry | CheckedDelete | tuple[str, bytes]:
        """
        Return an item's ID and its JSON, as an :class:`Entry` where its content is large.

        :param item: A mapping, an :class:`Item`, or bytes that hold one JSON object. Bytes are checked and
            returned as they are, but for permissions that Coveo spells otherwise and for content that is
            missing. A :class:`Delete` is checked and returned as :class:`CheckedDelete`.
        :raises InvalidItemError: if Coveo would refuse it, or it raises an exception when it is read.
        """
        try:
            if type(item) is bytes:
                return self._validate_bytes(item.strip())
            if type(item) is not dict:
                # Whether it is one of these, its class says, and not the object itself.
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
                # It has to be looked at closely, perhaps to say what is wrong with it.
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
        Return the IDs of several items and their JSON with commas in between, if they can be checked at once;
        also how many bytes each has, and how many are between two of them.

        It takes a fraction of the time that they take one by one. ``None`` says nothing about them but that
        they have to be looked at one by one.

        :param texts: Each holds the JSON object of an item.
        """
        if self._runs_to_skip:
            self._runs_to_skip -= 1
            return None
        if len(texts[0]) > MAX_INLINE_DATA:
            # It comes alone, and its content may have to go by a container of its own.
            return None
        checked = self._validate_chunk(texts)
        if checked is None:
            self._runs_to_skip = _RUN_TRIED_AGAIN_AFTER
        return checked

    def _validate_chunk(self, texts: list[bytes]) -> tuple[list[str], memoryview, list[int], int] | None:
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
            if len(self._run_kinds) >= _MAX_CHUNK_KINDS:
                self._run_kinds.clear()
            kind = self._run_kinds[signature] = _RunKind.of(first)
            return kind

    def _checked(self, item: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return the ID and the item with its values as they are sent, if the item is a plain one."""
        kind = (*item, *map(type, item.values()))
        shape = self._last_shape if kind == self._last_kind else self._shape_of(kind, item)
        if shape is None:
            raise _NeedsSlowPathError
        document_id = item[shape.id_key]
        if not _DOCUMENT_ID.match(document_id):
            raise _NeedsSlowPathError
        for key in shape.floats:
            if not math.isfinite(item[key]):
                raise _NeedsSlowPathError
        for key in shape.ints:
            if not MIN_INT <= item[key] <= MAX_INT:
                raise _NeedsSlowPathError
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

    def _shape_of(self, kind: tuple[Any, ...], item: dict[str, Any]) -> _ItemSchema | None:
        try:
            shape = self._shapes[kind]
        except KeyError:
            if len(self._shapes) >= _MAX_SHAPES:
                self._shapes.clear()
            shape = self._shapes[kind] = _ItemSchema.of(tuple(item), tuple(map(type, item.values())))
        self._last_kind, self._last_shape = kind, shape
        return shape

    def _validate_bytes(self, encoded: bytes) -> Entry | tuple[str, bytes]:
        # Items of one kind come in rows: where the short way was not taken, it is not tried for a while.
        if self._not_plain:
            self._not_plain -= 1
        else:
            document_id = self._id_of_plain(encoded)
            if document_id is not None:
                return document_id, encoded
            self._not_plain = _TRIED_AGAIN_AFTER
        return self._validate_json(encoded)

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
        if shape is None or len(encoded) > MAX_INLINE_DATA:
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
        # What msgspec would write for the dict as well holds each key once, at every depth.
        if _encoder.encode(item) != encoded and _may_have_repeated_keys(encoded, item):
            _refuse_repeated_keys(document_id, encoded)
        if len(encoded) > MAX_INLINE_DATA:
            return self._of_prepared(item)
        if not any(key.lower() in _DATA_KEYS for key in item):
            # It has metadata, or it would have been refused.
            return self._of_prepared(item)
        if sent is not item:
            # Permissions that Coveo spells otherwise.
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
                f"it has {len(entry.encoded):,} bytes, and a file container takes {MAX_UPLOAD:,}",
                "Shorten its metadata",
            )
        return entry if entry.large is not None else (entry.document_id, entry.encoded)


class _NeedsSlowPathError(Exception):
    """An item that has to be looked at closely, perhaps to say what is wrong with it."""


@dataclass(frozen=True)
class _ItemSchema:
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
    def of(cls, keys: tuple[Any, ...], types: tuple[type, ...]) -> _ItemSchema | None:
        """Return ``None`` if items of this kind can't be right."""
        if not all(type(key) is str and key for key in keys):
            return None
        if len({key.lower() for key in keys}) < len(keys):
            return None
        id_key = content_key = None
        texts, floats, ints = [], [], []
        checks: list[tuple[str, Callable[[str, Any], Any]]] = []
        for key, value_type in zip(keys, types, strict=True):
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
        shape = _ItemSchema.of(tuple(item), (str,) * len(item))
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


def _not_json(encoded: bytes, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8: {error.reason} at byte {error.start}"
    if b"\\u" in encoded and ("surrogate" in str(error) or _is_json_but_for_surrogates(encoded)):
        return "it holds half of a surrogate pair, which UTF-8 can't express"
    return f"it is not one JSON object: {error}"


def _is_json_but_for_surrogates(encoded: bytes) -> bool:
    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        # NaN and Infinity are no JSON, though Python takes them.
        json.loads(encoded, parse_constant=refuse)
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
                    f"the key {short_repr(key)} occurs twice",
                    "Coveo takes keys in any case: keep one",
                )
            seen.add(key.lower())

    json.loads(encoded, object_pairs_hook=refuse)
