"""Items of a Push source, validated before they are sent."""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final, NamedTuple, TypeAlias

import msgspec

from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.invalid_items import InvalidItemError as InvalidItemError
from airflow_provider_coveo.coveo.invalid_items import InvalidValue, ItemWithoutId
from airflow_provider_coveo.coveo.metadata import (
    plain_text,
    type_name,
    unreadable,
    validate_metadata,
    validate_text,
)
from airflow_provider_coveo.coveo.other_formats import other_format, reject_padded_key
from airflow_provider_coveo.coveo.permissions import validate_permissions

#: The keys that hold an item's content; an item has exactly one. See https://docs.coveo.com/en/73/.
DATA_KEYS: Final = ("data", "compressedBinaryData", "compressedBinaryDataFileId")
COMPRESSION_TYPES: Final = ("UNCOMPRESSED", "DEFLATE", "GZIP", "LZMA", "ZLIB")

#: An item can hold no text (in UTF-8) or Base64 above 5 MB (https://docs.coveo.com/en/45/). This and the
#: next limits hold whether MB means 10^6 or 2^20 bytes.
MAX_INLINE_DATA: Final = 5_000_000
#: A request for one item can be at most 6 MB (https://docs.coveo.com/en/63/).
MAX_REQUEST: Final = 6_000_000
#: A file container holds at most 256 MB (https://docs.coveo.com/en/63/).
MAX_UPLOAD: Final = 256_000_000

#: A URI with a scheme, as a regular expression.
DOCUMENT_ID: Final = r"[A-Za-z][A-Za-z0-9+.\-]*://[^\x00-\x1f\x7f]+"
#: The keys that are not metadata, by their lower case.
RESERVED_KEYS: Final = {
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

_DOCUMENT_ID = re.compile(DOCUMENT_ID + r"\Z")
_encoder = msgspec.json.Encoder()

#: A time or a date, as a Python object or in ISO 8601.
Moment: TypeAlias = datetime | date | str


@dataclass
class Item:
    """
    A typed item, for completion in an editor. A plain ``dict`` with Coveo's keys works as well.

    Nothing is public by default: without ``permissions``, the item is sent without any.

    :param document_id: The item's URI, such as ``product://4711``.
    :param data: Its content as text or HTML. Text above 5 MB is sent in a file container. An item with
        metadata and no content is sent with an empty text.
    :param title: Its title.
    :param author: Its author.
    :param date: When it was last modified; a time needs a time zone. Coveo's default is the time of the push.
    :param clickable_uri: The URI that a click on the item opens.
    :param file_extension: The format of the content for Coveo, with the dot: ``.html``.
    :param parent_id: The ``document_id`` of the item that it is attached to.
    :param compressed_binary_data: Instead of ``data``: bytes, or a string that already is Base64.
    :param compressed_binary_data_file_id: Instead of ``data``: the ``fileId`` of the container that holds it.
    :param compression_type: The compression of binary content: ``UNCOMPRESSED``, ``DEFLATE``, ``GZIP``,
        ``LZMA`` or ``ZLIB``. Coveo's default is ``ZLIB``.
    :param permissions: The users who can see it, in the simple model (https://docs.coveo.com/en/107/) or the
        complete model (https://docs.coveo.com/en/25/). Keys and identity types are accepted in any case, and
        sent in Coveo's spelling.
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
    compressed_binary_data: bytes | bytearray | memoryview | str | None = None
    compressed_binary_data_file_id: str | None = None
    compression_type: str | None = None
    permissions: list[object] | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """
        Return the item with Coveo's keys, without those that have no value.

        :raises CoveoInputError: if ``metadata`` repeats one of the other parameters.
        """
        binary = self.compressed_binary_data
        named: dict[str, object] = {
            "documentId": self.document_id,
            "title": self.title,
            "author": self.author,
            "date": self.date,
            "clickableuri": self.clickable_uri,
            "fileExtension": self.file_extension,
            "parentId": self.parent_id,
            "data": self.data,
            "compressedBinaryData": base64.b64encode(binary).decode()
            if isinstance(binary, (bytes, bytearray, memoryview))
            else binary,
            "compressedBinaryDataFileId": self.compressed_binary_data_file_id,
            "compressionType": self.compression_type,
            "permissions": self.permissions,
        }
        item = {key: value for key, value in named.items() if value is not None}
        for key, value in self.metadata.items():
            if key in item:
                raise CoveoInputError(f"metadata contains {short_repr(key)}, which is a parameter of Item")
            item[key] = value
        return item


@dataclass(frozen=True)
class Delete:
    """
    A deletion in a stream of items.

    :param document_id: The item's ``documentId``.
    :param delete_children: Whether to delete all items whose IDs begin with this one as well. It matches a
        prefix, not the ``parentId``. Default ``False``.
    """

    document_id: str
    delete_children: bool = False

    def checked(self) -> CheckedDelete:
        """
        Return the validated deletion, as a batch holds it.

        :raises InvalidItemError: if it is malformed.
        """
        given: object = None
        try:
            given, children = self.document_id, self.delete_children
            document_id = validate_document_id(given)
        except CoveoInputError as error:
            raise InvalidItemError(short_repr(given), error.tried, error.remedy) from None
        except MemoryError:
            raise
        except Exception as problem:
            raise _invalid(None, unreadable("a deletion", problem)) from None
        if type(children) is not bool:
            raise InvalidItemError(
                document_id, f"delete_children must be a boolean, not {short_repr(children)}"
            )
        return CheckedDelete(document_id, children)

    def entry(self) -> bytes:
        """
        Return the deletion's JSON in a batch.

        :raises InvalidItemError: if it is malformed.
        """
        return self.checked().encoded()


@dataclass
class CheckedDelete:
    """
    A validated deletion.

    :param document_id: The item's ``documentId``.
    :param delete_children: Whether to delete all items whose IDs begin with this one as well.
    """

    document_id: str
    delete_children: bool

    def encoded(self) -> bytes:
        """Return the deletion's JSON in a batch."""
        return _encoder.encode({"documentId": self.document_id, "deleteChildren": self.delete_children})


class LargeContent(NamedTuple):
    """
    Content that is too large for its item, and needs a file container of its own.

    :param data: The bytes for the container.
    :param compression_type: Their compression, ``None`` for Coveo's default.
    """

    data: bytes
    compression_type: str | None


@dataclass
class Entry:
    """
    A validated item, as a batch holds it.

    :param document_id: The item's URI.
    :param encoded: The item as a JSON object in UTF-8, without its content if that is large.
    :param large: The large content.
    """

    document_id: str
    encoded: bytes
    large: LargeContent | None = None

    def encoded_with(self, file_id: str) -> bytes:
        """
        Return the JSON object with a reference to the container that holds its large content.

        :param file_id: The ``fileId`` of the container that holds the content.
        """
        if self.large is None:
            return self.encoded
        more = {"compressedBinaryDataFileId": file_id}
        if self.large.compression_type is not None:
            more["compressionType"] = self.large.compression_type
        return self.encoded[:-1] + b"," + _encoder.encode(more)[1:]


class PreparedItem(NamedTuple):
    """
    A validated item, ready for the request that adds or updates a single item.

    :param document_id: The item's URI.
    :param compression_type: The compression of its binary content, ``None`` without such content.
    :param properties: The request's body without the content.
    :param content_key: The data key that holds the content.
    :param content: The content as given.
    """

    document_id: str
    compression_type: str | None
    properties: dict[str, object]
    content_key: str
    content: str

    @property
    def is_too_large_for_inline_data(self) -> bool:
        """Whether the content needs a file container."""
        return self.content_key != "compressedBinaryDataFileId" and (
            # A large text is not encoded, which would copy it, only to be counted.
            len(self.content) > MAX_INLINE_DATA or len(self.content.encode()) > MAX_INLINE_DATA
        )

    @property
    def is_too_large_for_its_request(self) -> bool:
        """Whether the item's own request can't hold its content, which JSON can make much longer."""
        if self.content_key == "compressedBinaryDataFileId":
            return False
        if self.is_too_large_for_inline_data:
            return True
        return len(_encoder.encode({**self.properties, self.content_key: self.content})) > MAX_REQUEST

    def large_content(self) -> LargeContent:
        """
        Return the content in the form that a file container holds.

        :raises CoveoInputError: if it is larger than a container can hold.
        """
        if self.content_key == "data":
            large = LargeContent(self.content.encode(), "UNCOMPRESSED")
        else:
            large = LargeContent(base64.b64decode(self.content), self.compression_type)
        if len(large.data) > MAX_UPLOAD:
            raise CoveoInputError(
                f"the content of {short_repr(self.document_id)} has {len(large.data):,} bytes; "
                f"a file container can hold {MAX_UPLOAD:,}",
                remedy="Compress the content, or index the document in parts",
            )
        return large

    def body(self) -> bytes:
        """
        Return the request's body.

        :raises CoveoInputError: if it is larger than a request can be.
        """
        return self._encoded({**self.properties, self.content_key: self.content})

    def body_for_container(self, file_id: str) -> bytes:
        """
        Return the request's body for content that was uploaded to a file container.

        :param file_id: The ``fileId`` of the container.
        :raises CoveoInputError: if it is larger than a request can be.
        """
        return self._encoded({**self.properties, "compressedBinaryDataFileId": file_id})

    def _encoded(self, body: Mapping[str, object]) -> bytes:
        encoded = _encoder.encode(body)
        if len(encoded) > MAX_REQUEST:
            raise CoveoInputError(
                f"Could not push item {self.document_id!r}: its request has {len(encoded):,} bytes; "
                f"Coveo accepts {MAX_REQUEST:,}",
                remedy="Shorten its metadata",
            )
        return encoded

    def entry(self) -> Entry:
        """
        Return the item as a batch holds it.

        :raises CoveoInputError: if its content is larger than a file container can hold.
        """
        entry = {"documentId": self.document_id, **self.properties}
        if self.is_too_large_for_inline_data:
            return Entry(self.document_id, _encoder.encode(entry), self.large_content())
        entry[self.content_key] = self.content
        if self.compression_type is not None:
            entry["compressionType"] = self.compression_type
        return Entry(self.document_id, _encoder.encode(entry))


def validate_document_id(document_id: object) -> str:
    """
    Return a valid item ID: a URI with a scheme, as in ``file://folder/a.html``.

    :param document_id: The ID.
    :raises CoveoInputError: if it is invalid.
    """
    try:
        if isinstance(document_id, str):
            text = plain_text(document_id)
            if _DOCUMENT_ID.match(text):
                return validate_text(text, "documentId")
    except (CoveoInputError, MemoryError):
        raise
    except Exception as problem:
        raise unreadable("the documentId", problem) from None
    raise CoveoInputError(
        f"Invalid documentId: {short_repr(document_id)}",
        remedy="Use a URI with a scheme, such as product://4711 or https://example.com/page; "
        "see https://docs.coveo.com/en/78/",
    )


def permanent_id(document_id: str) -> str:
    """
    Return the ``permanentid`` that Coveo's own clients set on an item to keep usage analytics together.

    Coveo does not need one. Set it if one of those clients pushed the items before.

    :param document_id: The ID of the item.
    """
    encoded = document_id.encode()
    md5 = hashlib.md5(encoded, usedforsecurity=False).hexdigest()
    sha1 = hashlib.sha1(encoded, usedforsecurity=False).hexdigest()
    return md5[:30] + sha1[:30]


def prepared_item(item: object) -> PreparedItem:
    """
    Validate one item, and return it in the form that its request needs.

    :param item: An :class:`Item`, or a mapping with ``documentId``, exactly one of ``data``,
        ``compressedBinaryData`` (Base64) and ``compressedBinaryDataFileId``, and any metadata. An item with
        metadata and none of the three is sent with an empty ``data``. Nothing is public by default: an item
        without ``permissions`` is sent without any.
    :raises CoveoInputError: if Coveo would reject it; the message names the item and the rule.
    """
    try:
        return validate_item(item)
    except InvalidItemError as error:
        named = f"item {short_repr(error.document_id)}" if error.document_id is not None else "the item"
        raise CoveoInputError(f"Could not push {named}: {error.rule}", remedy=error.remedy) from None


def as_dict(item: object) -> dict[str, object]:
    """
    Return an item as a dict with Coveo's keys.

    :param item: A mapping, or an :class:`Item`.
    :raises InvalidItemError: if it is neither.
    """
    if type(item) is ItemWithoutId:
        raise InvalidItemError(None, item.reason.rule, item.reason.remedy)
    document_id = None
    try:
        if isinstance(item, Item):
            document_id = item.document_id
            return item.as_dict()
        if isinstance(item, Mapping):
            return dict(item)
    except CoveoInputError as error:
        raise _invalid(document_id, error) from None
    except MemoryError:
        raise
    except Exception as problem:
        raise _invalid(document_id, unreadable("it", problem)) from None
    raise InvalidItemError(
        None,
        f"it is of type {type_name(item)}",
        "Pass a dict, an Item, a Delete, or bytes that hold one JSON object",
    )


def _invalid(document_id: object, error: CoveoInputError) -> InvalidItemError:
    return InvalidItemError(
        None if document_id is None else short_repr(document_id), error.tried, error.remedy
    )


# --- the rules ---


def validate_item(item: object) -> PreparedItem:
    """
    Do what :func:`prepared_item` does, for one of many items.

    :param item: The item.
    :raises InvalidItemError: if Coveo would reject it.
    """
    item = item if type(item) is dict else as_dict(item)
    document_id = None
    try:
        properties = _with_canonical_reserved_keys(item)
        document_id = _id_of(properties)
        return _prepared_properties(document_id, properties)
    except CoveoInputError as error:
        raise InvalidItemError(document_id, error.tried, error.remedy) from None
    except MemoryError:
        raise
    except Exception as problem:
        raised = unreadable("it", problem)
        raise InvalidItemError(document_id, raised.tried, raised.remedy) from None


def _valid(value: object) -> object:
    if type(value) is InvalidValue:
        raise CoveoInputError(value.rule, remedy=value.remedy)
    return value


def _id_of(properties: dict[str, object]) -> str:
    if "documentId" in properties:
        return validate_document_id(_valid(properties.pop("documentId")))
    what, remedy = other_format(properties) or ("", "")
    if what:
        raise CoveoInputError(f"it is {what}, not an item", remedy=remedy)
    keys = ", ".join(map(short_repr, list(properties)[:10])) or "none"
    raise CoveoInputError(
        f"it has no documentId; its keys are {keys}{', …' if len(properties) > 10 else ''}",
        remedy="Add one, such as product://4711; see https://docs.coveo.com/en/78/",
    )


def _with_canonical_reserved_keys(item: Mapping[str, object]) -> dict[str, object]:
    properties: dict[str, object] = {}
    seen: dict[str, str] = {}
    for key, value in item.items():
        if not isinstance(key, str) or not plain_text(key):
            raise CoveoInputError(f"an item's keys must be non-empty strings, not {short_repr(key)}")
        key = plain_text(key)
        lower_case = key.lower()
        reject_padded_key(key, RESERVED_KEYS)
        if lower_case in seen:
            raise CoveoInputError(
                f"the keys {short_repr(seen[lower_case])} and {short_repr(key)} differ by case only",
                remedy="Keep one of them: Coveo ignores the case of keys",
            )
        seen[lower_case] = key
        properties[RESERVED_KEYS.get(lower_case, validate_text(key, "a key"))] = value
    return properties


def _prepared_properties(document_id: str, properties: dict[str, object]) -> PreparedItem:
    if "orderingId" in properties:
        raise CoveoInputError(
            "it has an orderingId, which an item can't set",
            remedy="Leave it out: Coveo sets it; see https://docs.coveo.com/en/147/",
        )
    for value in properties.values():
        _valid(value)
    content_key, content = _content(properties)
    compression_type = None
    if "compressionType" in properties:
        if content_key == "data":
            raise CoveoInputError("it has a compressionType, which is for binary content, but data is text")
        compression_type = _compression_type("compressionType", properties.pop("compressionType"))
    checked = {key: _rule(key)(key, value) for key, value in properties.items()}
    return PreparedItem(document_id, compression_type, checked, content_key, content)


def _content(properties: dict[str, object]) -> tuple[str, str]:
    given = [key for key in DATA_KEYS if key in properties]
    if not given and properties.keys() - RESERVED_KEYS.values() and "compressionType" not in properties:
        # Coveo's OpenAPI file requires no content, but its page on errors (https://docs.coveo.com/en/95/)
        # requires the key. An empty text satisfies both.
        return "data", ""
    if len(given) != 1:
        raise CoveoInputError(
            f"it has {' and '.join(given) or 'no content and no metadata'}",
            remedy=f"Set exactly one of {', '.join(DATA_KEYS)}, see https://docs.coveo.com/en/73/; "
            'or {"data": ""} for an item without content'
            + ("" if given else "; to delete an item, pass a Delete"),
        )
    content = properties.pop(given[0])
    if not isinstance(content, str):
        raise CoveoInputError(
            f"{given[0]} must be a string, not {type_name(content)}",
            remedy="Pass text as data, and Base64-encoded bytes as compressedBinaryData",
        )
    content = validate_text(plain_text(content), given[0])
    if given[0] == "compressedBinaryData":
        validate_base64(given[0], content)
    return given[0], content


def validate_base64(key: str, value: str) -> str:
    """
    Return a text if it is Base64.

    :param key: Its key in the item.
    :param value: The text.
    :raises CoveoInputError: if it isn't.
    """
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise CoveoInputError(f"{key} is not Base64: {error}", remedy="Encode the bytes as Base64") from None
    return value


def _compression_type(key: str, value: object) -> str:
    if not isinstance(value, str) or plain_text(value) not in COMPRESSION_TYPES:
        raise CoveoInputError(
            f"Invalid {key}: {short_repr(value)}",
            remedy=f"Use one of {', '.join(COMPRESSION_TYPES)} in upper case",
        )
    return plain_text(value)


@functools.lru_cache(maxsize=256)
def known_file_extension(key: str, value: str) -> str:
    """
    Return a valid file extension. Earlier results are cached.

    :param key: Its key in the item.
    :param value: The extension, with its dot.
    :raises CoveoInputError: if it is invalid.
    """
    return _file_extension(key, value)


def _file_extension(key: str, value: object) -> str:
    text = plain_text(value) if isinstance(value, str) else ""
    if not text.startswith(".") or len(text) < 2:
        raise CoveoInputError(
            f"Invalid {key}: {short_repr(value)}", remedy="Start it with a dot, as in .html"
        )
    return validate_text(text, key)


def _parent_id(key: str, value: object) -> str:
    try:
        return validate_document_id(value)
    except CoveoInputError as error:
        raise CoveoInputError(f"its {key} is invalid: {error.tried}", remedy=error.remedy) from None


def _rule(key: str) -> Callable[[str, object], object]:
    """Return the function that validates a value of that key, and returns it as it is sent."""
    return RULES.get(key, validate_metadata)


#: Validators of the reserved keys that have rules of their own.
RULES: Final[dict[str | None, Callable[[str, object], object]]] = {
    "compressionType": _compression_type,
    "fileExtension": _file_extension,
    "parentId": _parent_id,
    "permissions": validate_permissions,
}


# Names that 0.1 documented.
LARGEST_INLINE_DATA = MAX_INLINE_DATA
LARGEST_REQUEST = MAX_REQUEST
LARGEST_UPLOAD = MAX_UPLOAD
checked_base64 = validate_base64
checked_document_id = validate_document_id
checked_item = validate_item
