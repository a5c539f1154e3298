"""The rules for an item's permissions, in the simple model and the model with levels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeGuard

IDENTITY_TYPES = ("User", "Group", "VirtualGroup", "Unknown")
_IDENTITY_KEYS = {"identity", "identitytype", "securityprovider", "additionalinfo"}
_SET_KEYS = {"name", "allowanonymous", "allowedpermissions", "deniedpermissions"}
_LEVEL_KEYS = {"name", "permissionsets"}


def permissions_problem(permissions: list[object]) -> str | None:
    """
    Return the reason why permissions do not match Coveo's declaration, or ``None``.

    :param permissions: permission sets, or levels of these.
    """
    return next(_problems(permissions), None)


def permissions_oddities(permissions: list[object]) -> Iterator[str]:
    """
    Yield the features of well-formed permissions that Coveo does not document.

    :param permissions: permission sets, or levels of these.
    """
    for level in permissions:
        if _is_level(level):
            yield from _unknown("a permission level", level, _LEVEL_KEYS)
    for permission_set in _sets(permissions):
        yield from _unknown("a permission set", permission_set, _SET_KEYS)
        for _, identity in _identities(permission_set):
            yield from _unknown("an identity in permissions", identity, _IDENTITY_KEYS)
            if isinstance(identity, dict) and _lower(identity).get("identitytype") is None:
                yield "an identity in permissions without identityType"


def count_permissions(permissions: list[object]) -> int:
    """
    Return the number of allowed and denied identities.

    :param permissions: permission sets, or levels of these.
    """
    return sum(1 for permission_set in _sets(permissions) for _ in _identities(permission_set))


def _problems(permissions: list[object]) -> Iterator[str]:
    for entry in permissions:
        if not isinstance(entry, dict):
            yield f"permissions contains {entry!r:.50}, which is neither a permission set nor a level."
        elif _is_level(entry) and not isinstance(_lower(entry)["permissionsets"], list):
            yield "permissionSets must be an array."
        elif _is_level(entry) and not isinstance(_lower(entry).get("name"), str | None):
            yield "The name of a permission level must be a string."
    for permission_set in _sets(permissions):
        if not isinstance(permission_set, dict):
            yield f"permissionSets contains {permission_set!r:.50}, which is not a permission set."
            continue
        given = _lower(permission_set)
        if not isinstance(given.get("allowanonymous"), bool | None):
            yield "allowAnonymous must be a boolean."
        for key in ("allowedPermissions", "deniedPermissions"):
            if not isinstance(given.get(key.lower()), list | None):
                yield f"{key} must be an array."
        for key, identity in _identities(permission_set):
            yield from _identity_problems(key, identity)


def _identity_problems(key: str, identity: object) -> Iterator[str]:
    if not isinstance(identity, dict):
        yield f"{key} contains {identity!r:.50}, which is not an identity."
        return
    given = _lower(identity)
    name, kind = given.get("identity"), given.get("identitytype")
    if not isinstance(name, str) or not name:
        yield f"An identity in {key} has no name under identity."
    if kind is not None and kind not in IDENTITY_TYPES:
        yield f"The identityType {kind!r:.50} is not one of {', '.join(IDENTITY_TYPES)}."
    if not isinstance(given.get("securityprovider"), str | None):
        yield "securityProvider must be a string."
    info = given.get("additionalinfo")
    if info is not None and not (
        isinstance(info, dict) and all(isinstance(text, str) for text in info.values())
    ):
        yield "additionalInfo must be an object of strings."


def _sets(permissions: list[object]) -> Iterator[object]:
    for entry in permissions:
        if _is_level(entry):
            sets = _lower(entry)["permissionsets"]
            yield from sets if isinstance(sets, list) else ()
        elif isinstance(entry, dict):
            yield entry


def _identities(permission_set: object) -> Iterator[tuple[str, object]]:
    given = _lower(permission_set) if isinstance(permission_set, dict) else {}
    for key in ("allowedPermissions", "deniedPermissions"):
        identities = given.get(key.lower())
        if isinstance(identities, list):
            for identity in identities:
                yield key, identity


def _unknown(what: str, value: object, known: set[str]) -> Iterator[str]:
    for key, part in value.items() if isinstance(value, dict) else ():
        if key.lower() not in known:
            yield f"{what} with the key {key!r}"
        elif part is None:
            yield f"{what} with a {key} that is null"


def _is_level(entry: object) -> TypeGuard[dict[str, object]]:
    return isinstance(entry, dict) and any(key.lower() == "permissionsets" for key in entry)


def _lower(value: Mapping[str, object]) -> dict[str, object]:
    return {key.lower(): part for key, part in value.items()}
