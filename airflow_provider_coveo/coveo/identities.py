"""Security identities in Coveo's format, validated before they are sent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Final

import msgspec

from airflow_provider_coveo.coveo.batches import Batch, Batcher
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.coveo.items import InvalidItemError
from airflow_provider_coveo.coveo.metadata import plain_list, type_name, unreadable
from airflow_provider_coveo.coveo.permissions import plain_json, validate_additional_info

MEMBERS: Final = "members"
MAPPINGS: Final = "mappings"
DELETED: Final = "deleted"
IDENTITY_TYPES: Final = ("USER", "GROUP", "VIRTUAL_GROUP", "UNKNOWN")

_KEYS: Final = {
    MEMBERS: frozenset({"identity", "members", "wellKnowns"}),
    MAPPINGS: frozenset({"identity", "mappings", "wellKnowns"}),
    DELETED: frozenset({"identity"}),
}
_encoder = msgspec.json.Encoder()


def validate_provider_id(provider_id: object) -> str:
    """
    Return a valid ID of a security identity provider. It can contain spaces.

    :raises CoveoInputError: if it is empty, or would change the request's path.
    """
    remedy = "Copy the name from the Security Identities page of the Administration Console"
    if not isinstance(provider_id, str) or not provider_id.strip():
        raise CoveoInputError(f"Invalid security identity provider: {provider_id!r}", remedy=remedy)
    if provider_id in {".", ".."} or not provider_id.isprintable():
        raise CoveoInputError(f"Invalid security identity provider: {provider_id[:100]!a}", remedy=remedy)
    return provider_id


def encoded_identity(section: str, body: object) -> tuple[tuple[str, str], bytes]:
    """
    Validate one entry of a batch of identities, and return its identity and its JSON.

    :param section: ``members``, ``mappings`` or ``deleted``.
    :param body: For ``members``: ``identity`` and its ``members`` and ``wellKnowns``; for ``mappings``:
        ``identity`` and the ``mappings`` to identities of other providers; for ``deleted``: the identity
        itself, or ``identity``. An identity has a ``name``, a ``type`` (``USER``, ``GROUP``,
        ``VIRTUAL_GROUP`` or ``UNKNOWN``), and optionally ``additionalInfo``. See
        https://docs.coveo.com/en/167/, https://docs.coveo.com/en/142/ and https://docs.coveo.com/en/84/.
    :raises InvalidItemError: if Coveo would reject or misread it.
    """
    name = None
    try:
        body = _body(section, body)
        identity = _identity(body.get("identity"), "identity", {"name", "type", "additionalInfo"})
        name, kind = str(identity["name"]), str(identity["type"])
        sent: dict[str, object] = {"identity": identity}
        _reject_unknown_keys(body, _KEYS[section], "it")
        for key in ("members", "wellKnowns"):
            if key in body:
                sent[key] = _identities(body[key], key, {"name", "type", "additionalInfo"})
        if "mappings" in body:
            sent["mappings"] = _identities(
                body["mappings"], "mappings", {"name", "type", "provider", "additionalInfo"}
            )
        encoded = _encoder.encode(sent)
    except CoveoInputError as error:
        raise InvalidItemError(name, error.tried, error.remedy) from None
    except MemoryError:
        raise
    except Exception as problem:
        raised = unreadable("it", problem)
        raise InvalidItemError(name, raised.tried, raised.remedy) from None
    return (kind, name), encoded


def _body(section: str, body: object) -> dict[str, object]:
    plain = plain_json(body, "it")
    if type(plain) is not dict:
        raise CoveoInputError(f"it is of type {type_name(body)}", remedy="Pass a dict")
    return {"identity": plain} if section == DELETED and "identity" not in plain else plain


def _identities(value: object, key: str, known: set[str]) -> list[dict[str, object]]:
    if isinstance(value, tuple):
        value = [plain_json(entry, key) for entry in plain_list(value)]
    if not isinstance(value, list):
        raise CoveoInputError(f"{key} is not a list")
    return [_identity(entry, key, known) for entry in value]


def _reject_unknown_keys(value: Iterable[object], known: Collection[str], what: str) -> None:
    unknown = [key for key in value if key not in known]
    if unknown:
        raise CoveoInputError(
            f"{what} has the unknown key {str(unknown[0])[:100]!r}",
            remedy=f"Use only {', '.join(sorted(known))}",
        )


def _identity(value: object, where: str, known: set[str]) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise CoveoInputError(
            f"{where} contains a value that is not an identity", remedy="Pass a dict with name and type"
        )
    name, kind = value.get("name"), value.get("type")
    if not isinstance(name, str) or not name:
        raise CoveoInputError(f"an identity in {where} has no name")
    if not isinstance(kind, str) or kind.upper() not in IDENTITY_TYPES:
        raise CoveoInputError(
            f"the type of {name[:100]!r} in {where} is {str(kind)[:100]!r}",
            remedy=f"Use one of {', '.join(IDENTITY_TYPES)}",
        )
    _reject_unknown_keys(value, known, f"{name[:100]!r} in {where}")
    provider = value.get("provider")
    if "provider" in value and (not isinstance(provider, str) or not provider):
        raise CoveoInputError(f"the provider of {name[:100]!r} in {where} is not a name")
    validate_additional_info(value.get("additionalInfo"), f"{name[:100]!r} in {where}")
    try:
        name.encode()
        (provider or "").encode()
    except UnicodeEncodeError:
        raise CoveoInputError(f"a name in {where} contains half of a surrogate pair") from None
    # Coveo's additionalInfo has to be an object of strings, which null is not.
    given = {key: part for key, part in value.items() if part is not None}
    return {**given, "type": kind.upper()}


def identity_batches(
    members: Iterable[object],
    mappings: Iterable[object],
    deleted: Iterable[object],
    limit: int,
    on_invalid: Callable[[int, InvalidItemError], bool],
) -> Iterator[Batch]:
    """
    Split streams of identities into batches, in the order of the parameters.

    If the same call pushes an identity and then deletes it, the deletion starts a new batch, so that the
    identity ends up deleted.

    :param limit: The maximum size of a batch, in bytes of JSON.
    :param on_invalid: Called with the index and the error of each entry that Coveo would reject. Returns
        whether to continue.
    """
    batcher = Batcher((MEMBERS, MAPPINGS, DELETED), limit)
    index = -1
    for section, bodies in ((MEMBERS, members), (MAPPINGS, mappings), (DELETED, deleted)):
        for body in bodies:
            index += 1
            try:
                key, encoded = encoded_identity(section, body)
            except InvalidItemError as error:
                if on_invalid(index, error):
                    continue
                return
            full = batcher.add(index, section, key, encoded)
            if full is not None:
                yield full
    last = batcher.flush()
    if last is not None:
        yield last
