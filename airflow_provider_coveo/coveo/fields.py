"""Fields: they store the metadata of items in Coveo's index. See https://docs.coveo.com/en/144/."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from logging import Logger
from typing import Any, Final, NamedTuple, TypedDict

import msgspec

from airflow_provider_coveo.coveo.endpoints import platform_path
from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.iso8601 import parse_iso8601
from airflow_provider_coveo.coveo.item_encoding import ItemEncoder
from airflow_provider_coveo.coveo.items import RESERVED_KEYS, CheckedDelete, Entry, InvalidItemError, Item
from airflow_provider_coveo.coveo.quantities import noun_for, quantity
from airflow_provider_coveo.coveo.responses import JsonObject, Response
from airflow_provider_coveo.coveo.transport import Call, Request, explain_privilege

#: The pattern that Coveo declares for field names.
FIELD_NAME: Final = r"[a-z][a-z0-9_]{0,254}"
#: The metadata for which every organization has fields (https://docs.coveo.com/en/155/).
STANDARD_FIELDS: Final = frozenset(
    {"title", "author", "clickableuri", "date", "filetype", "language", "permanentid", "size", "source"}
)
#: The number of fields that one request creates, as in Coveo's own client.
MAX_FIELDS_PER_REQUEST: Final = 500
#: The number of keys without a field to keep, and how many of them to name in a message and in a result.
MAX_UNKNOWN: Final = 1_000
MAX_UNKNOWN_SHOWN: Final = 100

_FIELDS_PER_PAGE: Final = 1_000
#: The default maximum number of fields in an organization (https://docs.coveo.com/en/1833/).
_MAX_FIELDS: Final = 5_000
#: A list of fields with more pages than this is invalid.
_MAX_PAGES: Final = 100
_MAX_KEY_SHOWN: Final = 255
#: The maximum number of key combinations to cache.
_MAX_COMBINATIONS: Final = 2_048
#: How far the input is searched for more keys without a field after one has ended a push.
_ITEMS_TO_SEARCH: Final = 10_000
_SECONDS_TO_SEARCH: Final = 10.0

_FIELD_NAME = re.compile(FIELD_NAME)
#: An ISO 8601 date, or date and time with its zone.
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,17})(\.\d+)?")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2}))?")
_decoder: msgspec.json.Decoder[dict[str, object]] = msgspec.json.Decoder(dict[str, Any])
_keys_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


class FieldType(str, Enum):
    """The types of fields that can be created for metadata."""

    LONG = "LONG"
    LONG_64 = "LONG_64"
    DOUBLE = "DOUBLE"
    DATE = "DATE"
    STRING = "STRING"

    def holds(self, other: FieldType) -> bool:
        """Return whether a field of this type can hold the values of another type."""
        return self is other or self is FieldType.STRING or other in _HOLDS.get(self, ())


_HOLDS: Final[Mapping[FieldType, tuple[FieldType, ...]]] = {
    FieldType.LONG_64: (FieldType.LONG,),
    FieldType.DOUBLE: (FieldType.LONG, FieldType.LONG_64),
}

#: The options that a field can have, with their types, as declared by Coveo's Field API.
FIELD_OPTIONS: Final[Mapping[str, type]] = {
    **dict.fromkeys(
        (
            "automaticFacetsCandidate",
            "facet",
            "hierarchicalFacet",
            "includeInQuery",
            "includeInResults",
            "keepAccentsDisplayValueFacet",
            "keepDistinctDisplayValueFacet",
            "keyValue",
            "mergeWithLexicon",
            "multiValueFacet",
            "multilingual",
            "ranking",
            "smartDateFacet",
            "sort",
            "stemming",
            "useCacheForComputedFacet",
            "useCacheForNestedQuery",
            "useCacheForNumericQuery",
            "useCacheForSort",
        ),
        bool,
    ),
    **dict.fromkeys(("dateFormat", "description", "label", "multiValueFacetTokenizers"), str),
    **dict.fromkeys(("automaticFacetsCandidateTags", "projectIds"), list),
}


def validate_field_name(name: object) -> str:
    """
    Return a valid field name.

    :param name: The name.
    :raises CoveoInputError: if Coveo would reject it, or metadata with that name never reaches a field.
    """
    if not isinstance(name, str) or not _FIELD_NAME.fullmatch(name):
        raise CoveoInputError(
            f"Invalid field name: {short_repr(name)}",
            cause="a field name begins with a lowercase letter and consists of up to 255 lowercase letters, "
            "digits and underscores",
            remedy="Rename the field. Coveo ignores the case of metadata keys: productName goes into the "
            "field productname",
        )
    if name in _RESERVED_NAMES:
        raise CoveoInputError(
            f"Invalid field name: {name!r}",
            cause=f"Coveo treats {RESERVED_KEYS[name]} as a part of the item, not as metadata",
            remedy="Choose another name",
        )
    return name


_RESERVED_NAMES: Final = frozenset(RESERVED_KEYS)


def validate_fields(fields: object) -> dict[str, dict[str, object]]:
    """
    Return the fields to create, by name, in the form that Coveo's API accepts.

    :param fields: The names, each with its type (``"DOUBLE"``) or its options (``{"type": "STRING",
        "multiValueFacet": True}``).
    :raises CoveoInputError: if Coveo would reject one of them.
    """
    if not isinstance(fields, Mapping):
        raise CoveoInputError(
            f"Invalid fields: {short_repr(fields)}", remedy='Pass a dict such as {"price": "DOUBLE"}'
        )
    return {name: _field_model(validate_field_name(name), given) for name, given in fields.items()}


def _field_model(name: str, given: object) -> dict[str, object]:
    options = dict(given) if isinstance(given, Mapping) else {"type": given}
    kind = options.pop("type", None)
    try:
        field_type = FieldType(str(getattr(kind, "value", kind)).strip().upper())
    except ValueError:
        raise CoveoInputError(
            f"Invalid type of field {name!r}: {short_repr(kind)}",
            remedy=f"Use one of {', '.join(one.value for one in FieldType)}",
        ) from None
    if options.pop("name", name) != name:
        raise CoveoInputError(
            f"Field {name!r} has a different name among its options", remedy="Remove that name"
        )
    for option, value in options.items():
        wanted = FIELD_OPTIONS.get(option)
        if wanted is None:
            raise CoveoInputError(
                f"Field {name!r} has the option {short_repr(option)}, which Coveo does not have",
                remedy=f"Use one of {', '.join(sorted(FIELD_OPTIONS))}",
            )
        if type(value) is not wanted:
            raise CoveoInputError(
                f"Invalid {option} of field {name!r}: {short_repr(value)}", remedy=f"Pass a {wanted.__name__}"
            )
    return {"name": name, "type": field_type.value, **options}


# --- the requests ---


class FieldPage(NamedTuple):
    """
    A page of the organization's fields.

    :param fields: The fields.
    :param is_last: Whether this is the last page.
    """

    fields: tuple[JsonObject, ...]
    is_last: bool


def fields_page_call(organization_id: str, page: int) -> Call[FieldPage]:
    """
    Return the call that reads a page of an organization's fields. It is a POST, but changes nothing.

    :param organization_id: The organization.
    :param page: The page, from 0.
    """
    body = {"page": page, "perPage": _FIELDS_PER_PAGE}
    request = Request(
        f"Could not list the fields of organization {organization_id!r}",
        "POST",
        platform_path(organization_id, "indexes", "fields", "search"),
        body=json.dumps(body).encode(),
        host="platform",
    )

    def parse(response: Response) -> FieldPage:
        found = response.json(request.action, "items")
        items, pages = found["items"], found.get("totalPages", 0)
        if (
            isinstance(items, list)
            and type(pages) is int
            and all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in items)
            and page < _MAX_PAGES
        ):
            return FieldPage(tuple(items), is_last=not items or page + 1 >= pages)
        raise response.unexpected(request.action, "not a page of fields")

    return Call(request, parse, explain_privilege("view fields", "the privilege Fields: View"))


def create_fields_call(organization_id: str, fields: Iterable[Mapping[str, object]]) -> Call[Response]:
    """
    Return the call that creates fields.

    :param organization_id: The organization.
    :param fields: The fields, as :func:`validate_fields` returns them.
    """
    models = list(fields)
    request = Request(
        f"Could not create {quantity(len(models), 'field')} in organization {organization_id!r}",
        "POST",
        platform_path(organization_id, "indexes", "fields", "batch", "create"),
        body=json.dumps(models).encode(),
        host="platform",
        expected=204,
    )
    return Call(
        request,
        lambda response: response,
        explain_privilege("create fields", "the privileges Fields: View and Fields: Create"),
    )


# --- metadata without a field ---


def field_name(key: str) -> str | None:
    """
    Return the name of the field for a metadata key, or ``None`` if the key is not metadata.

    :param key: The key, in upper or lower case.
    """
    lowered = key.lower()
    return None if lowered in _RESERVED_NAMES else lowered


def keys_of(item: object) -> Iterable[str] | None:
    """
    Return the keys of an item to push, or ``None`` if they can't be read.

    :param item: A dict, an :class:`Item`, or bytes that hold a JSON object.
    """
    kind = type(item)
    try:
        if kind is dict:
            return item.keys()  # type: ignore[attr-defined,no-any-return]
        if issubclass(kind, (bytes, bytearray, memoryview)):
            return _keys_decoder.decode(item).keys()  # type: ignore[arg-type]
        if issubclass(kind, Item):
            return item.as_dict().keys()  # type: ignore[attr-defined,no-any-return]
        if issubclass(kind, Mapping):
            return list(item)  # type: ignore[call-overload,no-any-return]
    except Exception:
        # The push reports what is wrong with the item, in more detail.
        return None
    return None


class FieldCheck:
    """
    Checks items that are being pushed for metadata without a field.

    :param known: The names of the organization's fields.
    """

    def __init__(self, known: Iterable[str]) -> None:
        self._known = STANDARD_FIELDS.union(known)
        self._seen: set[tuple[str, ...]] = set()
        #: The keys without a field, as in the input, with the index of the first item that has each.
        self.unknown: dict[str, int] = {}
        self._names: set[str] = set()

    @property
    def count(self) -> int:
        """The number of missing fields."""
        return len(self._names)

    def look_at(self, place: int, item: object) -> list[str]:
        """
        Return the keys of an item that have no field and did not occur before.

        :param place: Its index in the input.
        :param item: The item.
        """
        keys = keys_of(item)
        if keys is None:
            return []
        combination = tuple(keys)
        if combination in self._seen:
            return []
        if len(self._seen) >= _MAX_COMBINATIONS:
            self._seen.clear()
        self._seen.add(combination)
        found = []
        for key in combination:
            name = field_name(key) if isinstance(key, str) else None
            if name is None or name in self._known or name in self._names:
                continue
            if self.count < MAX_UNKNOWN:
                self._names.add(name)
                self.unknown[key[:_MAX_KEY_SHOWN]] = place
                found.append(key)
        return found

    def result(self) -> list[str]:
        """Return the first keys without a field, as small JSON."""
        return list(itertools.islice(self.unknown, MAX_UNKNOWN_SHOWN))

    def words(self) -> str:
        """Return a list of the keys as text, each with the first item that has it."""
        named = [
            f"{short_repr(key)} (first in item {place:,}{_why_impossible(key)})"
            for key, place in itertools.islice(self.unknown.items(), 20)
        ]
        more = f"; and {self.count - len(named):,} more" if self.count > len(named) else ""
        return ", ".join(named) + more

    def watched(self, items: Iterable[object], log: Logger, *, fails: bool) -> Iterator[object]:
        """
        Check each item, and yield it unchanged.

        :param items: The items.
        :param log: The logger for a warning about each key.
        :param fails: Whether the first key without a field raises an error.
        :raises CoveoInputError: for a key without a field, if ``fails``. It also names those in the next
            10,000 items.
        """
        entries = iter(items)
        for place, item in enumerate(entries):
            found = self.look_at(place, item)
            if found:
                if fails:
                    self._search(itertools.islice(entries, _ITEMS_TO_SEARCH), place + 1)
                    raise self.error()
                log.warning(
                    "No field for the metadata %s %s (first in item %d): %s not searchable unless a mapping "
                    "of the source uses %s",
                    noun_for(len(found), "key"),
                    ", ".join(map(short_repr, found[:20])),
                    place,
                    noun_for(len(found), "it is", "they are"),
                    noun_for(len(found), "it", "them"),
                )
            yield item

    def _search(self, entries: Iterator[object], place: int) -> None:
        until = time.monotonic() + _SECONDS_TO_SEARCH
        try:
            for each, item in enumerate(entries, place):
                self.look_at(each, item)
                if time.monotonic() > until:
                    return
        except Exception:
            # The input itself fails, but the missing fields are reason enough to end the push.
            return

    def error(self) -> CoveoInputError:
        """Return the error of a push that ends because of metadata without a field."""
        return CoveoInputError(
            f"The organization has no field for {self.count:,} of the input's metadata keys: {self.words()}",
            cause="the fields were never created, or the keys are misspelled",
            remedy="Create the fields with CreateFieldsOperator, rename the keys, or use check_fields='warn' "
            "if mappings of the source use them",
        )


def _why_impossible(key: str) -> str:
    return "" if _FIELD_NAME.fullmatch(key.lower()) else "; not a valid field name"


# --- fields that metadata needs ---


@dataclass
class _Column:
    """The kinds of values of one key so far."""

    first: int
    key: str
    kind: FieldType | None = None
    has_lists: bool = False
    #: Whether all values are texts that look like numbers.
    is_digits: bool = True


@dataclass
class FieldSurvey:
    """
    Infers the fields that the metadata of items needs.

    Integers become LONG_64, because later ones may be larger than those in a sample; other numbers become
    DOUBLE. Texts become DATE if all of them are ISO 8601 dates or times; other texts and booleans become
    STRING. Lists become STRING with several values.
    """

    #: The number of items read, and of those that a push would reject.
    items: int = 0
    invalid: int = 0
    _columns: dict[str, _Column] = field(default_factory=dict)

    def look_at(self, place: int, item: Mapping[str, object]) -> None:
        """
        Add an item, as it would be sent.

        :param place: Its index in the input.
        :param item: The decoded JSON object.
        :raises CoveoInputError: if there are more keys than an organization can have fields.
        """
        for key, value in item.items():
            name = field_name(key)
            if name is None or value is None or value == []:
                continue
            column = self._columns.get(name)
            if column is None:
                if len(self._columns) >= _MAX_FIELDS:
                    raise CoveoInputError(
                        f"The items have more than {_MAX_FIELDS:,} metadata keys, which is more than an "
                        "organization has fields",
                        remedy="Check whether values, such as IDs, are used as keys",
                    )
                column = self._columns[name] = _Column(place, key)
            if column.is_digits:
                column.is_digits = isinstance(value, str) and _NUMBER.fullmatch(value) is not None
            if isinstance(value, list):
                column.has_lists = True
                column.kind = FieldType.STRING
            else:
                column.kind = _common_type(column.kind, _type_of(value))

    def numeric_texts(self) -> list[str]:
        """Return the names of the fields whose values are texts that all look like numbers."""
        return [name for name, column in self._columns.items() if column.is_digits]

    def fields(self, without: Iterable[str] = ()) -> dict[str, dict[str, object]]:
        """
        Return the fields that the metadata needs, in the form for :func:`validate_fields`.

        :param without: The names of fields to leave out, besides those that every organization has.
        :raises CoveoInputError: if a key is not a valid field name; the error lists all such keys.
        """
        left_out = STANDARD_FIELDS.union(without)
        wrong = [column for name, column in self._columns.items() if not _FIELD_NAME.fullmatch(name)]
        if wrong:
            named = ", ".join(f"{short_repr(one.key)} (item {one.first:,})" for one in wrong[:20])
            more = f" and {len(wrong) - 20:,} more" if len(wrong) > 20 else ""
            raise CoveoInputError(
                f"Invalid field names in {quantity(len(wrong), 'metadata key')}: {named}{more}",
                cause="a field name begins with a letter and consists of up to 255 letters, digits and "
                "underscores; upper and lower case are the same",
                remedy="Rename the keys, as with columns=; or list the fields instead of passing items",
            )
        return {
            name: {
                "type": (column.kind or FieldType.STRING).value,
                **({"multiValueFacet": True} if column.has_lists else {}),
            }
            for name, column in self._columns.items()
            if name not in left_out
        }


def survey_items(items: Iterable[object], limit: int | None = None) -> FieldSurvey:
    """
    Infer the fields that the metadata of items needs.

    :param items: The items, as for a push. Deletions and invalid items are ignored.
    :param limit: The maximum number of items to read. Default: all.
    :raises CoveoInputError: if there are more keys than an organization can have fields.
    """
    survey, encode = FieldSurvey(), ItemEncoder().encode
    for place, item in enumerate(itertools.islice(items, limit)):
        survey.items += 1
        try:
            encoded = encode(item)
        except InvalidItemError:
            survey.invalid += 1
            continue
        if isinstance(encoded, CheckedDelete):
            continue
        text = encoded.encoded if isinstance(encoded, Entry) else encoded[1]
        survey.look_at(place, _decoder.decode(text))
    return survey


def _type_of(value: object) -> FieldType:
    if isinstance(value, bool):
        return FieldType.STRING
    if isinstance(value, int):
        return FieldType.LONG_64
    if isinstance(value, float):
        return FieldType.DOUBLE
    if isinstance(value, str) and len(value) <= 40 and _DATE.fullmatch(value) and _is_date(value):
        return FieldType.DATE
    return FieldType.STRING


def _is_date(text: str) -> bool:
    try:
        # Python 3.10 needs a colon in an offset.
        parse_iso8601(re.sub(r"([+-]\d{2})(\d{2})$", r"\1:\2", text) if "T" in text else text)
    except ValueError:
        return False
    return True


def _common_type(one: FieldType | None, other: FieldType) -> FieldType:
    if one is None or other.holds(one):
        return other
    return one if one.holds(other) else FieldType.STRING


# --- fields to create ---


class FieldConflict(TypedDict):
    """A field that exists with a type that can't hold the metadata."""

    name: str
    type: str
    existing_type: str


class FieldPlan(NamedTuple):
    """
    The difference between the wanted fields and those of an organization.

    :param missing: The fields to create, in the form that Coveo's API accepts.
    :param existing: The names of the fields that already exist.
    :param conflicts: The existing fields whose type can't hold the wanted values: ``name``, ``type`` (the
        wanted one) and ``existing_type``.
    """

    missing: tuple[dict[str, object], ...]
    existing: tuple[str, ...]
    conflicts: tuple[FieldConflict, ...]

    @classmethod
    def of(
        cls,
        wanted: Mapping[str, Mapping[str, object]],
        known: Mapping[str, Mapping[str, object]],
        exact: Iterable[str] = (),
    ) -> FieldPlan:
        """
        Compare the wanted fields with the existing ones.

        :param wanted: The wanted fields, by name.
        :param known: The organization's fields, by name.
        :param exact: The names of the fields that must have exactly the wanted type; the others may have any
            type that can hold it.
        """
        strict = set(exact)
        missing: list[dict[str, object]] = []
        existing: list[str] = []
        conflicts: list[FieldConflict] = []
        for name, model in wanted.items():
            its = known.get(name)
            if its is None:
                missing.append(dict(model))
                continue
            existing.append(name)
            fits = its.get("type") == model["type"] or (
                name not in strict and _holds(str(its.get("type")), str(model["type"]))
            )
            if not fits:
                conflicts.append(
                    {"name": name, "type": str(model["type"]), "existing_type": str(its.get("type"))}
                )
        return cls(tuple(missing), tuple(existing), tuple(conflicts))


def _holds(existing: str, wanted: str) -> bool:
    try:
        return FieldType(existing).holds(FieldType(wanted))
    except ValueError:
        # A type that Coveo added later.
        return False
