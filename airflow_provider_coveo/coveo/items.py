"""Items of a Push source: what Coveo accepts as one, checked before it is sent."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

import msgspec

from airflow_provider_coveo.coveo.errors import CoveoInputError

#: The ways to give an item's content, of which an item has exactly one. See https://docs.coveo.com/en/73/.
DATA_KEYS: Final = ("data", "compressedBinaryData", "compressedBinaryDataFileId")
COMPRESSION_TYPES: Final = ("UNCOMPRESSED", "DEFLATE", "GZIP", "LZMA", "ZLIB")

#: Text longer than this (UTF-8 bytes) may not stand in ``data`` (https://docs.coveo.com/en/45/).
LARGEST_INLINE_DATA: Final = 5 * 1024 * 1024
#: A request for one item may not be larger than this (https://docs.coveo.com/en/63/).
LARGEST_REQUEST: Final = 6 * 1024 * 1024
MOST_PERMISSIONS: Final = 5_000

_DOCUMENT_ID = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^\x00-\x1f\x7f]+\Z")
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
_encoder = msgspec.json.Encoder()


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
        """Whether the content is text that has to go by a file container."""
        return self.content_key == "data" and len(self.content.encode()) > LARGEST_INLINE_DATA

    def body(self) -> bytes:
        """
        Return the request's body.

        :raises CoveoInputError: if it is larger than a request may be.
        """
        return self._encoded({**self.properties, self.content_key: self.content})

    def body_for_container(self, file_id: str) -> bytes:
        """
        Return the request's body where the content was uploaded to a file container.

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


def checked_document_id(document_id: object) -> str:
    """
    Return the ID of an item if Coveo accepts it as one: a URI with a scheme, as in ``file://folder/a.html``.

    :raises CoveoInputError: if it is none.
    """
    if isinstance(document_id, str) and _DOCUMENT_ID.match(document_id):
        _encodable(document_id, "documentId")
        return document_id
    raise CoveoInputError(
        f"{_shown(document_id)} is not the documentId of an item",
        remedy="Use a URI with a scheme, such as product://4711 or https://example.com/page; "
        "see https://docs.coveo.com/en/78/",
    )


def prepared_item(item: object) -> PreparedItem:
    """
    Check one item and return it in the form that its request needs.

    :param item: A mapping with ``documentId``, exactly one of ``data``, ``compressedBinaryData`` (Base64) and
        ``compressedBinaryDataFileId``, and any metadata. Nothing is made public by default: an item without
        ``permissions`` is sent without any.
    :raises CoveoInputError: if Coveo would refuse it, naming the item and the rule.
    """
    if not isinstance(item, Mapping):
        raise CoveoInputError(f"An item must be a mapping, not {type(item).__name__}")
    properties = _with_canonical_reserved_keys(item)
    document_id = checked_document_id(properties.pop("documentId", None))
    try:
        return _prepared(document_id, properties)
    except CoveoInputError as error:
        raise CoveoInputError(
            f"The item {document_id!r} can't be pushed: {error.tried}", remedy=error.remedy
        ) from None


def _with_canonical_reserved_keys(item: Mapping[Any, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    seen: dict[str, str] = {}
    for key, value in item.items():
        if not isinstance(key, str) or not key:
            raise CoveoInputError(f"An item's keys must be non-empty strings, and {key!r} is not")
        lower_case = key.lower()
        if lower_case in seen:
            raise CoveoInputError(
                f"The keys {seen[lower_case]!r} and {key!r} differ by case only",
                remedy="Coveo takes keys in any case, so keep one of them",
            )
        seen[lower_case] = key
        properties[_RESERVED_KEYS.get(lower_case, key)] = value
    return properties


def _prepared(document_id: str, properties: dict[str, Any]) -> PreparedItem:
    if "orderingId" in properties:
        raise CoveoInputError(
            "an item holds no orderingId of its own",
            remedy="Leave it out: Coveo stamps the item; see https://docs.coveo.com/en/147/",
        )
    content_key, content = _content(properties)
    compression_type = _compression_type(properties.pop("compressionType", None), content_key)
    checked: dict[str, Any] = {}
    for key, value in properties.items():
        if key == "permissions":
            checked[key] = _permissions(value)
        elif key == "fileExtension":
            checked[key] = _file_extension(value)
        elif key == "parentId":
            checked[key] = checked_document_id(value)
        else:
            checked[key] = _metadata(key, value)
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
    return given[0], _encodable(content, given[0])


def _compression_type(value: object, content_key: str) -> str | None:
    if value is None:
        return None
    if content_key == "data":
        raise CoveoInputError("compressionType is for binary content, and data is text")
    if value not in COMPRESSION_TYPES:
        raise CoveoInputError(
            f"{value!r} is not a compressionType",
            remedy=f"Use one of {', '.join(COMPRESSION_TYPES)} in upper case",
        )
    return str(value)


def _permissions(value: object) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
        raise CoveoInputError(
            "permissions must be a list of permission sets or levels",
            remedy="See https://docs.coveo.com/en/107/",
        )
    count = _count_permissions(value)
    if count > MOST_PERMISSIONS:
        raise CoveoInputError(
            f"it has {count:,} permissions, and Coveo's pipeline rejects more than {MOST_PERMISSIONS:,}",
            remedy="Use groups instead of single users",
        )
    try:
        _encoder.encode(value)
    except (TypeError, ValueError) as error:
        raise CoveoInputError(f"its permissions can't be written as JSON: {error}") from None
    return value


def _count_permissions(entries: list[Any]) -> int:
    count = 0
    for entry in entries:
        count += len(entry.get("allowedPermissions") or ()) + len(entry.get("deniedPermissions") or ())
        count += _count_permissions(
            [inner for inner in entry.get("permissionSets") or () if isinstance(inner, Mapping)]
        )
    return count


def _file_extension(value: object) -> str:
    if not isinstance(value, str) or not value.startswith(".") or len(value) < 2:
        raise CoveoInputError(f"{value!r} is not a fileExtension", remedy="Start it with a dot, as in .html")
    return _encodable(value, "fileExtension")


def _metadata(key: str, value: object) -> Any:
    if isinstance(value, (list, tuple)):
        return [_metadata_scalar(key, entry) for entry in value]
    return _metadata_scalar(key, value)


def _metadata_scalar(key: str, value: object) -> Any:
    if isinstance(value, str):
        return _encodable(value, key)
    if isinstance(value, float) and not math.isfinite(value):
        raise CoveoInputError(f"{key!r} is {value}, which JSON does not know")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise CoveoInputError(f"the number {key!r} does not fit into the 64 bits that Coveo's fields have")
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise CoveoInputError(
                f"the time {key!r} has no time zone",
                remedy="Use an aware datetime, for example datetime.now(timezone.utc)",
            )
        return value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if value is None or isinstance(value, (Mapping, list, tuple, set, frozenset, bytes)):
        raise CoveoInputError(
            f"the value of {key!r} is {'None' if value is None else 'a ' + type(value).__name__}",
            remedy="Metadata holds strings, numbers, booleans, times and lists of these; leave out what has "
            "no value; see https://docs.coveo.com/en/162/",
        )
    try:
        return msgspec.to_builtins(value)
    except (TypeError, ValueError, OverflowError):
        raise CoveoInputError(f"the value of {key!r} is of type {type(value).__name__}, not JSON") from None


def _encodable(text: str, key: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise CoveoInputError(
            f"{key!r} holds half of a surrogate pair, which UTF-8 can't express",
            remedy="Decode the original bytes with the right encoding",
        ) from None
    return text


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:119] + "…"
