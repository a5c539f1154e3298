"""Permissions of items, in the Push API's format: who can see an item."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.metadata import plain_list, plain_text, unreadable, validate_text
from airflow_provider_coveo.coveo.quantities import quantity

#: Coveo's pipeline rejects an item that has more.
MAX_PERMISSIONS: Final = 5_000
#: Identity types in the Push API's spelling, by the spelling that users may choose.
_IDENTITY_TYPES: Final = {name.upper(): name for name in ("User", "Group", "VirtualGroup", "Unknown")}
_SPELLED_TYPES: Final = frozenset(_IDENTITY_TYPES.values())
#: The keys of levels, sets and identities, by their lower case.
_KEYS: Final = {
    key.lower(): key
    for key in (
        "name",
        "permissionSets",
        "allowAnonymous",
        "allowedPermissions",
        "deniedPermissions",
        "identity",
        "identityType",
        "securityProvider",
        "additionalInfo",
    )
}
_SPELLED_KEYS: Final = frozenset(_KEYS.values())
_STRINGS: Final = frozenset({str})
#: Levels, sets, lists of identities, identities and their additionalInfo are never nested deeper.
_DEEPEST: Final = 10


def validate_permissions(key: str, value: object) -> list[object]:
    """
    Return the permissions of an item in Coveo's spelling.

    Keys and identity types are accepted in any case, as is ``VIRTUAL_GROUP`` for ``VirtualGroup``.
    Permissions in Coveo's spelling are returned unchanged.

    :param key: Their key in the item.
    :param value: A list of permission sets (https://docs.coveo.com/en/107/) or of levels
        (https://docs.coveo.com/en/25/).
    :return: The permissions in types that the encoder accepts.
    :raises CoveoInputError: if they are anything else, or can't be read.
    """
    value = plain_json(value, key)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
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
    if count > MAX_PERMISSIONS:
        raise CoveoInputError(
            f"it has {quantity(count, 'permission')}, and Coveo's pipeline rejects more than "
            f"{MAX_PERMISSIONS:,}",
            remedy="Use groups instead of individual users",
        )
    return value if _is_spelled(value) else [_spelled(entry) for entry in value]


def _is_spelled(entries: Iterable[Mapping[str, object]]) -> bool:
    """Return whether validated permissions are in the Push API's spelling at every depth."""
    for entry in entries:
        if not entry.keys() <= _SPELLED_KEYS or None in entry.values():
            return False
        for key, value in entry.items():
            if key == "identityType":
                if value not in _SPELLED_TYPES:
                    return False
            elif type(value) is list and not _is_spelled(value):
                return False
    return True


def _spelled(entry: Mapping[str, object]) -> dict[str, object]:
    """Return a level, a set or an identity in the Push API's spelling, without keys that have no value."""
    result: dict[str, object] = {}
    for key, value in entry.items():
        name = _KEYS[key.lower()]
        if name == "identityType" and isinstance(value, str):
            result[name] = _IDENTITY_TYPES[value.replace("_", "").upper()]
        elif isinstance(value, list):
            result[name] = [_spelled(part) for part in value]
        elif value is not None:
            result[name] = value
    return result


def plain_json(value: object, what: str) -> object:
    """
    Return a nested value as exactly lists, dicts and strings, so that the validated value is the sent one.

    A tuple becomes a list only inside another value. The rules judge anything else.

    :param value: The value.
    :param what: Its name in the error.
    :return: The same object if it needs no change.
    :raises CoveoInputError: if it can't be read.
    """
    try:
        return _plain(value, what, 0)
    except (CoveoInputError, MemoryError):
        raise
    except Exception as problem:
        raise unreadable(what, problem) from None


def _plain(value: Any, what: str, depth: int) -> object:
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    if depth > _DEEPEST:
        raise RecursionError
    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, list):
        entries = plain_list(value)
        plain = [_plain(entry, what, depth + 1) for entry in entries]
        unchanged = entries is value and all(new is old for new, old in zip(plain, entries, strict=True))
        return value if unchanged else plain
    if (
        kind is dict
        and _STRINGS.issuperset(map(type, value))
        and _STRINGS.issuperset(map(type, value.values()))
    ):
        return value
    if isinstance(value, Mapping):
        members = value if kind is dict else dict(value)
        pairs = [
            (_plain(key, what, depth + 1), _plain(entry, what, depth + 1)) for key, entry in members.items()
        ]
        if members is value and all(
            key is old and entry is members[old] for (key, entry), old in zip(pairs, members, strict=True)
        ):
            return value
        if len({key for key, _ in pairs}) < len(pairs):
            raise CoveoInputError(f"{what} has a duplicate key")
        return dict(pairs)
    return value


def _permission_level(level: dict[str, object], number: int) -> int:
    where = f"permission level {number}"
    name, sets = level.pop("name", None), level.pop("permissionsets")
    if not isinstance(name, str) or not name:
        raise _bad_permission(f"{where} has no name")
    validate_text(name, "name")
    if level:
        raise _bad_permission(f"{where} has the unknown key {short_repr(next(iter(level)))}")
    if not isinstance(sets, list) or not all(isinstance(entry, dict) for entry in sets):
        raise _bad_permission(f"the permissionSets of {where} are not a list of permission sets")
    return sum(
        _permission_set(_lower_case_keys(entry, where), f"permission set {index} of level {short_repr(name)}")
        for index, entry in enumerate(sets, 1)
    )


def _permission_set(permission_set: Mapping[str, object], where: str) -> int:
    count = 0
    for key, value in permission_set.items():
        if key in {"allowedpermissions", "deniedpermissions"}:
            if not isinstance(value, list):
                raise _bad_permission(f"{key} of {where} is not a list")
            count += len(value)
            # Too many identities are rejected for their number, so there is no need to look at each.
            if count <= MAX_PERMISSIONS:
                for identity in value:
                    _permission_identity(identity, where)
        elif key == "allowanonymous":
            if not isinstance(value, bool):
                raise _bad_permission(f"allowAnonymous of {where} is {short_repr(value)}, not true or false")
        elif key == "name":
            if not isinstance(value, str):
                raise _bad_permission(f"the name of {where} is not a string")
            validate_text(value, "name")
        else:
            raise _bad_permission(f"{where} has the unknown key {short_repr(key)}")
    return count


def _permission_identity(identity: object, where: str) -> None:
    if not isinstance(identity, dict):
        raise _bad_permission(f"{where} contains {short_repr(identity)}, which is not an identity")
    given = _lower_case_keys(identity, where)
    name = given.pop("identity", None)
    if not isinstance(name, str) or not name:
        raise _bad_permission(f"{where} contains an identity without a name")
    validate_text(name, "identity")
    kind = given.pop("identitytype", None)
    if not isinstance(kind, str) or kind.replace("_", "").upper() not in _IDENTITY_TYPES:
        raise _bad_permission(
            f"the identityType of {short_repr(name)} in {where} is {short_repr(kind)}, "
            "not User, Group, VirtualGroup or Unknown"
        )
    provider = given.pop("securityprovider", None)
    if provider is not None and (not isinstance(provider, str) or not provider):
        raise _bad_permission(f"the securityProvider of {short_repr(name)} in {where} is not a name")
    validate_text(provider or "", "securityProvider")
    validate_additional_info(given.pop("additionalinfo", None), f"{short_repr(name)} in {where}")
    if given:
        raise _bad_permission(
            f"{short_repr(name)} in {where} has the unknown key {short_repr(next(iter(given)))}"
        )


def validate_additional_info(value: object, of: str) -> None:
    """
    Validate the ``additionalInfo`` of a security identity: an object of strings.

    :param value: The value; ``None`` for none.
    :param of: The identity, for the error.
    :raises CoveoInputError: if it is anything else.
    """
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise _bad_permission(f"the additionalInfo of {of} is not an object")
    for key, text in value.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise _bad_permission(f"the additionalInfo of {of} contains a value that is not a string")
        validate_text(key, "additionalInfo")
        validate_text(text, "additionalInfo")


def _lower_case_keys(entry: Mapping[str, object], where: str) -> dict[str, object]:
    lower_case: dict[str, object] = {}
    for key, value in entry.items():
        if not isinstance(key, str) or key.lower() in lower_case:
            raise _bad_permission(f"the key {short_repr(key)} of {where} is a duplicate, or not a string")
        lower_case[key.lower()] = value
    return lower_case


def _bad_permission(rule: str) -> CoveoInputError:
    return CoveoInputError(
        f"its permissions are invalid: {rule}",
        remedy="See https://docs.coveo.com/en/107/ and https://docs.coveo.com/en/25/",
    )
