"""The rules for items: those that the API enforces, and those that the pipeline enforces later."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from airflow_provider_coveo.simulator.content import COMPRESSION_TYPES, base64_problem, content_problem
from airflow_provider_coveo.simulator.json_body import has_repeated_keys
from airflow_provider_coveo.simulator.permissions import (
    count_permissions,
    permissions_oddities,
    permissions_problem,
)

MEGABYTE = 1024 * 1024
#: The maximum size of an item's text or compressed data; a file container can hold more.
DATA_LIMIT = 5 * MEGABYTE
PERMISSIONS_LIMIT = 5_000

RESERVED_KEYS = {
    name.lower(): name
    for name in (
        "documentId",
        "orderingId",
        "data",
        "compressedBinaryData",
        "compressedBinaryDataFileId",
        "compressionType",
        "fileExtension",
        "parentId",
        "permissions",
    )
}
DATA_KEYS = ("data", "compressedBinaryData", "compressedBinaryDataFileId")

_DOCUMENT_ID = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://.+", re.DOTALL)


@dataclass(frozen=True)
class Rejection:
    """
    The pipeline's log entry for an item that it did not index.

    :param task: the stage, such as ``PROCESSING``.
    :param result: ``REJECTED``, ``ERROR`` or ``SKIPPED``; with ``WARNING``, the item is indexed anyway.
    :param reason: the cause, as text.
    """

    task: str
    result: str
    reason: str


def is_document_id(value: object) -> TypeGuard[str]:
    """Whether ``value`` has the form ``<scheme>://<rest>`` that Coveo requires."""
    return isinstance(value, str) and _DOCUMENT_ID.match(value) is not None


def canonical(item: Mapping[str, object]) -> dict[str, object]:
    """Return the item with its reserved keys in Coveo's spelling; metadata keys stay as they were sent."""
    return {RESERVED_KEYS.get(key.lower(), key): value for key, value in item.items()}


def json_problem(item: object) -> str | None:
    """Return the reason why Coveo returns ``400 INVALID_JSON`` for this item, or ``None``."""
    if not isinstance(item, dict):
        return "An item must be a JSON object."
    if has_repeated_keys(item):
        return "A key occurs twice (keys are case-insensitive)."
    reserved = {key.lower() for key in item} & RESERVED_KEYS.keys()
    given = [key for key in DATA_KEYS if key.lower() in reserved]
    if len(given) != 1:
        return f"Exactly one of {', '.join(DATA_KEYS)} is required; found {len(given)}."
    for key, value in item.items():
        name = RESERVED_KEYS.get(key.lower())
        if name == "permissions":
            if value is not None and not isinstance(value, list):
                return "permissions must be an array."
            problem = permissions_problem(value or [])
            if problem is not None:
                return problem
        elif name == "orderingId":
            continue
        elif name is not None:
            if not isinstance(value, str):
                return f"{name} must be a string."
        elif isinstance(value, dict) or (
            isinstance(value, list) and any(isinstance(part, dict | list) for part in value)
        ):
            return f"The metadata {key!r} contains an object or an array of arrays, which is not supported."
    return None


def oddities(item: Mapping[str, object]) -> list[str]:
    """Return the features of this (canonical) item that Coveo does not document."""
    found = [f"metadata {key!r} is null" for key, value in item.items() if value is None]
    if "orderingId" in item:
        found.append("an orderingId inside an item")
    extension = item.get("fileExtension")
    if isinstance(extension, str) and not extension.startswith("."):
        found.append(f"fileExtension {extension!r} without a leading dot")
    permissions = item.get("permissions")
    if isinstance(permissions, list):
        found += permissions_oddities(permissions)
    return found


def pipeline_problem(
    item: Mapping[str, object], *, compression_type: str, secured: bool, content: bytes | None = None
) -> Rejection | None:
    """
    Return the reason why the pipeline would reject an item that the API accepted, or ``None``.

    :param item: the (canonical) item.
    :param compression_type: the compression of its binary content.
    :param secured: whether the source is secured.
    :param content: the content of the file container that the item names.
    """
    permissions = item.get("permissions")
    if secured and not permissions:
        return Rejection("CONSUMING", "ERROR", "The source is secured and the item has no permissions.")
    if isinstance(permissions, list) and count_permissions(permissions) > PERMISSIONS_LIMIT:
        return Rejection("CONSUMING", "REJECTED", f"The item has more than {PERMISSIONS_LIMIT} permissions.")
    text = item.get("data")
    if isinstance(text, str):
        if len(text.encode("utf-8", "surrogatepass")) > DATA_LIMIT:
            return Rejection("CONSUMING", "REJECTED", "data is longer than 5 MB.")
        return None
    if compression_type not in COMPRESSION_TYPES:
        return Rejection("CONSUMING", "REJECTED", f"There is no compression type {compression_type!r}.")
    encoded = item.get("compressedBinaryData")
    if isinstance(encoded, str):
        if len(encoded) > DATA_LIMIT:
            return Rejection("CONSUMING", "REJECTED", "compressedBinaryData is longer than 5 MB.")
        problem = base64_problem(encoded, compression_type)
        if problem is not None:
            reason = f"compressedBinaryData is not {compression_type} in Base64: {problem}."
            return Rejection("PROCESSING", "ERROR", reason)
    elif content is not None:
        problem = content_problem(content, compression_type)
        if problem is not None:
            reason = f"The content of the file container is not {compression_type}: {problem}."
            return Rejection("PROCESSING", "ERROR", reason)
    return None
