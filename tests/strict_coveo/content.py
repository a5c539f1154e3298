"""The rules for items, permissions, identities and their batches."""

from __future__ import annotations

import base64
import binascii
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tests.strict_coveo.declarations import Operation

MEGABYTE = 1024 * 1024
#: https://docs.coveo.com/en/63: a request that is not a batch.
MAX_REQUEST_SIZE = 6 * MEGABYTE
#: https://docs.coveo.com/en/63 and 69: a file container.
MAX_CONTAINER_SIZE = 256 * MEGABYTE
#: https://docs.coveo.com/en/45 and 164: ``data`` and ``compressedBinaryData``.
MAX_CONTENT_SIZE = 5 * MEGABYTE
#: https://docs.coveo.com/en/63
MAX_PERMISSIONS = 5000
COMPRESSION_TYPES = ("UNCOMPRESSED", "ZLIB", "GZIP", "LZMA", "DEFLATE")
CONTENT_KEYS = ("data", "compressedBinaryData", "compressedBinaryDataFileId")
#: https://docs.coveo.com/en/78: <scheme>://<hier_part>[?query][#fragment]
URI = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://.+", re.DOTALL)

#: Returns the content of a file container once, or the reason why it can't.
TakeContainer = Callable[[str], "bytes | str"]


class InvalidJsonError(ValueError):
    """The text is not JSON that Coveo accepts."""


def read_json(body: bytes) -> Any:
    """Return the value of a body, or raise :class:`InvalidJsonError`."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidJsonError(f"it is not UTF-8: {error}") from None
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except RecursionError:
        raise InvalidJsonError("it is nested too deeply") from None
    except ValueError as error:
        raise InvalidJsonError(str(error)) from None
    if re.search(r"\\u[dD][89a-fA-F]", text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise InvalidJsonError("a text in it has half a surrogate pair") from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # https://docs.coveo.com/en/78: keys are case-insensitive, and each can occur once.
    if len({name.lower() for name, _ in pairs}) != len(pairs):
        raise InvalidJsonError(f"a key is there twice among {sorted(name for name, _ in pairs)}")
    return dict(pairs)


def _refuse_constant(name: str) -> Any:
    raise InvalidJsonError(f"{name} is not JSON")


def decode_problem(content: bytes, compression_type: str) -> str | None:
    """Return why content does not match its compression type, ``None`` if it decodes completely."""
    try:
        if compression_type == "ZLIB":
            return _inflate_problem(content, zlib.MAX_WBITS)
        if compression_type == "DEFLATE":
            return _inflate_problem(content, -zlib.MAX_WBITS)
        if compression_type == "GZIP":
            return _inflate_problem(content, zlib.MAX_WBITS | 16)
        if compression_type == "LZMA":
            decompressor = lzma.LZMADecompressor()
            decompressor.decompress(content, max_length=64 * 1024)
            while not decompressor.eof and not decompressor.needs_input:
                decompressor.decompress(b"", max_length=64 * 1024)
            if not decompressor.eof:
                return "it ends in the middle"
            return "there are bytes after its end" if decompressor.unused_data else None
    except (zlib.error, lzma.LZMAError, EOFError) as error:
        return str(error)
    return None


def _inflate_problem(content: bytes, window: int) -> str | None:
    rest = content
    while True:
        inflater = zlib.decompressobj(window)
        while not inflater.eof:
            if not inflater.decompress(rest, 64 * 1024) and not inflater.unconsumed_tail and not inflater.eof:
                return "it ends in the middle"
            rest = inflater.unconsumed_tail
        rest = inflater.unused_data
        if not rest:
            return None
        if window <= zlib.MAX_WBITS:
            return "there are bytes after its end"
        # A gzip file can have several members (RFC 1952 2.2).


def judge_item(
    operation: Operation, item: Any, take_container: TakeContainer, compression_type: str | None
) -> Iterator[str]:
    """
    Yield the problems of an item.

    :param operation: an operation of coveo-push.yml, for its definitions.
    :param item: the item, without its documentId and compressionType.
    :param take_container: returns the content of the container that an item names.
    :param compression_type: the type in the request or the entry of the batch.
    """
    if not isinstance(item, dict):
        yield f"an item is {type(item).__name__}, no object"
        return
    properties = operation.document["definitions"]["DocumentBody"]["properties"]
    item = with_documented_keys(item, properties)
    for name, value in item.items():
        if name in properties:
            if name != "permissions":
                yield from operation.violations({"properties": {name: properties[name]}}, {name: value})
        elif name.lower() in ("documentid", "orderingid", "compressiontype"):
            yield f"{name!r} is reserved"
        else:
            yield from _judge_metadata(name, value)
    if "permissions" in item:
        yield from judge_permissions(operation, item["permissions"])
    if "parentId" in item:
        yield from judge_uri("parentId", item["parentId"])
    extension = item.get("fileExtension")
    if isinstance(extension, str) and not re.fullmatch(r"\..+", extension):
        yield f"the fileExtension {extension!r} does not begin with a dot"
    yield from _judge_content(item, take_container, compression_type)


def with_documented_keys(item: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return an item with these keys in the documented case; Coveo ignores case (docs.coveo.com/en/78)."""
    by_name = {name.lower(): name for name in names}
    return {by_name.get(name.lower(), name): value for name, value in item.items()}


def _judge_metadata(name: str, value: Any) -> Iterator[str]:
    # https://docs.coveo.com/en/162: texts, numbers, booleans, and lists of these.
    if not name:
        yield "a metadata key is empty"
    for part in value if isinstance(value, list) else [value]:
        if not isinstance(part, str | int | float | bool):
            yield f"the metadata {name!r} has a value of type {type(part).__name__}, which is not allowed"


def _judge_content(
    item: dict[str, Any], take_container: TakeContainer, compression_type: str | None
) -> Iterator[str]:
    given = [key for key in CONTENT_KEYS if key in item]
    if len(given) > 1:
        yield f"the item has {' and '.join(given)}, where either is to be used"
    if compression_type is not None:
        if compression_type not in COMPRESSION_TYPES:
            yield f"the compressionType {compression_type!r} is none of {', '.join(COMPRESSION_TYPES)}"
            return
        if not given or given == ["data"]:
            yield "there is a compressionType and no compressed content"
    for key in given:
        value = item[key]
        if not isinstance(value, str):
            continue
        if key != "compressedBinaryDataFileId" and len(value.encode()) > MAX_CONTENT_SIZE:
            yield f"{key} has {len(value.encode())} bytes, more than {MAX_CONTENT_SIZE}"
        if key == "data":
            continue
        content: bytes | str
        if key == "compressedBinaryData":
            try:
                content = base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError) as error:
                content = f"compressedBinaryData is not Base64: {error}"
        else:
            content = take_container(value)
        if isinstance(content, str):
            yield content
            continue
        # https://docs.coveo.com/en/164: ZLIB by default.
        problem = decode_problem(content, compression_type or "ZLIB")
        if problem:
            yield f"{key} is not {compression_type or 'ZLIB (the default)'}: {problem}"


def judge_uri(name: str, value: Any) -> Iterator[str]:
    """Yield the problems of an item's ID."""
    if not isinstance(value, str):
        yield f"{name} is {type(value).__name__}, no text"
    elif not URI.fullmatch(value):
        yield f"{name} {value!r} is not a URI of the form <scheme>://<hier_part>"


def judge_permissions(operation: Operation, permissions: Any) -> Iterator[str]:
    """
    Yield the problems of an item's permissions.

    They are either all permission sets (https://docs.coveo.com/en/107), which the file describes, or all
    levels of them (https://docs.coveo.com/en/25), which it links to.
    """
    if not isinstance(permissions, list):
        yield f"permissions: {type(permissions).__name__} is not a list"
        return
    sets: list[Any] = []
    has_levels = any(isinstance(entry, dict) and "permissionSets" in entry for entry in permissions)
    for number, entry in enumerate(permissions):
        if not has_levels:
            sets.append(entry)
            continue
        if not isinstance(entry, dict) or set(entry) - {"name", "permissionSets"}:
            yield f"permissions/{number}: not a permission level: {entry!r:.200}"
        elif not isinstance(entry.get("name", ""), str):
            yield f"permissions/{number}: the name of the level is no text"
        elif not isinstance(entry.get("permissionSets"), list):
            yield f"permissions/{number}: permissionSets is not a list"
        else:
            sets += entry["permissionSets"]
    count = 0
    definition = operation.document["definitions"]["PermissionSetsModel"]
    if has_levels:
        # The sets of the complete model have a name.
        definition = {
            **definition,
            "properties": {**definition["properties"], "name": {"type": "string"}},
        }
    for permission_set in sets:
        judged = _without_additional_info(permission_set)
        found = [f"permissions: {sentence}" for sentence in operation.violations(definition, judged)]
        yield from found
        if found:
            continue
        for key in ("allowedPermissions", "deniedPermissions"):
            for identity in permission_set.get(key, []):
                count += 1
                if not identity.get("identity") or "identityType" not in identity:
                    yield f"permissions: {key} has an identity without a name and a type: {identity!r:.200}"
    if count > MAX_PERMISSIONS:
        yield f"permissions: {count} identities, more than {MAX_PERMISSIONS}"


def _without_additional_info(permission_set: Any) -> Any:
    """
    Return a permission set in the form that the file describes.

    Coveo's Python client (coveo-labs/SDK-Push-Python) sends an ``additionalInfo`` of strings with an
    identity, which the file declares only for the identities of a security provider.
    """
    if not isinstance(permission_set, dict):
        return permission_set
    judged = dict(permission_set)
    for key in ("allowedPermissions", "deniedPermissions"):
        if isinstance(judged.get(key), list):
            judged[key] = [
                {name: value for name, value in identity.items() if name != "additionalInfo"}
                if isinstance(identity, dict) and _is_text_by_name(identity.get("additionalInfo", {}))
                else identity
                for identity in judged[key]
            ]
    return judged


def _is_text_by_name(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def judge_item_batch(operation: Operation, batch: Any, take_container: TakeContainer) -> Iterator[str]:
    """Yield the problems of a batch of items in a container (https://docs.coveo.com/en/90)."""
    if not isinstance(batch, dict):
        yield f"the batch is {type(batch).__name__}, no object"
        return
    if unknown := set(batch) - {"addOrUpdate", "delete"}:
        yield f"the batch has {sorted(unknown)}, where only addOrUpdate and delete are known"
    entries = {name: batch.get(name, []) for name in ("addOrUpdate", "delete")}
    for name, value in entries.items():
        if not isinstance(value, list):
            yield f"{name} is not a list"
            return
    if not any(entries.values()):
        yield "the batch is empty"
    for number, item in enumerate(entries["addOrUpdate"]):
        where = f"addOrUpdate/{number}"
        if not isinstance(item, dict):
            yield f"{where}: {type(item).__name__} is no object"
            continue
        item = with_documented_keys(item, ("documentId", "compressionType"))
        rest = {name: value for name, value in item.items() if name not in ("documentId", "compressionType")}
        for sentence in judge_uri("documentId", item.get("documentId")):
            yield f"{where}: {sentence}"
        for sentence in judge_item(operation, rest, take_container, item.get("compressionType")):
            yield f"{where}: {sentence}"
    for number, deletion in enumerate(entries["delete"]):
        where = f"delete/{number}"
        if not isinstance(deletion, dict) or set(deletion) - {"documentId", "deleteChildren"}:
            yield f"{where}: it is {deletion!r:.200}, where documentId and deleteChildren are known"
            continue
        for sentence in judge_uri("documentId", deletion.get("documentId")):
            yield f"{where}: {sentence}"
        if not isinstance(deletion.get("deleteChildren", False), bool):
            yield f"{where}: deleteChildren is no boolean"


#: https://docs.coveo.com/en/55: the three lists of a batch, and the definition of their entries.
IDENTITY_LISTS = {"members": "IdentityBody", "mappings": "MappedIdentityBody", "deleted": "BaseIdentityBody"}


def judge_identity_batch(operation: Operation, batch: Any) -> Iterator[str]:
    """Yield the problems of a batch of security identities in a container."""
    if not isinstance(batch, dict) or set(batch) - set(IDENTITY_LISTS):
        yield f"the batch of identities has more than {', '.join(IDENTITY_LISTS)}"
        return
    if not any(batch.values()):
        yield "the batch of identities is empty"
    for name, definition in IDENTITY_LISTS.items():
        entries = batch.get(name, [])
        if not isinstance(entries, list):
            yield f"{name} is not a list"
            continue
        for number, entry in enumerate(entries):
            for sentence in judge_identity(operation, entry, definition):
                yield f"{name}/{number}: {sentence}"


def judge_identity(operation: Operation, body: Any, definition: str) -> Iterator[str]:
    """Yield the problems of an identity, an alias or an identity to disable."""
    found = list(operation.violations({"$ref": f"#/definitions/{definition}"}, body))
    yield from found
    if found:
        return
    named = [body.get("identity", {})]
    named += [identity for key in ("members", "wellKnowns", "mappings") for identity in body.get(key, [])]
    for identity in named:
        if not identity.get("name"):
            yield f"an identity has no name: {identity!r:.200}"
        if "type" not in identity:
            yield f"an identity has no type: {identity!r:.200}"
    if definition == "MappedIdentityBody" and not body.get("mappings"):
        yield "an alias points to no identity"
    if "Result" in body:
        yield "a request has a Result"
