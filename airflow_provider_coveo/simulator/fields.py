"""The fields of a simulated organization, and Coveo's documented rules for them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from airflow_provider_coveo.simulator.errors import ApiError

FIELD_TYPES = ("LONG", "LONG_64", "DOUBLE", "DATE", "STRING", "VECTOR")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,254}")

#: The fields of every organization according to Coveo's pages, and their types.
SYSTEM_FIELDS = {
    "attachmentparentid": "LONG_64",
    "author": "STRING",
    "clickableuri": "STRING",
    "date": "DATE",
    "filetype": "STRING",
    "language": "STRING",
    "orderingid": "LONG_64",
    "permanentid": "STRING",
    "size": "LONG_64",
    "source": "STRING",
    "title": "STRING",
    "topparentid": "LONG_64",
    "uri": "STRING",
}

#: The boolean options of a field and their defaults, except for options whose defaults depend on the type.
_SWITCHES = {
    "automaticFacetsCandidate": False,
    "hierarchicalFacet": False,
    "includeInQuery": True,
    "includeInResults": True,
    "keepAccentsDisplayValueFacet": False,
    "keepDistinctDisplayValueFacet": False,
    "keyValue": False,
    "mergeWithLexicon": False,
    "multiValueFacet": False,
    "multilingual": False,
    "ranking": False,
    "smartDateFacet": False,
    "stemming": False,
    "system": False,
    "useCacheForComputedFacet": False,
    "useCacheForNestedQuery": False,
    "useCacheForNumericQuery": False,
    "useCacheForSort": False,
}
_SWITCHES_BY_TYPE = ("facet", "sort")
_TEXTS = ("dateFormat", "description", "label", "multiValueFacetTokenizers", "name", "type")
_LISTS = ("automaticFacetsCandidateTags", "projectIds")
_STRING_ONLY = (
    "hierarchicalFacet",
    "keepAccentsDisplayValueFacet",
    "keepDistinctDisplayValueFacet",
    "mergeWithLexicon",
    "multiValueFacet",
    "multilingual",
    "ranking",
    "stemming",
)
_NEVER_ON_STRINGS = ("useCacheForComputedFacet", "useCacheForNumericQuery")
_KNOWN = {*_SWITCHES, *_SWITCHES_BY_TYPE, *_TEXTS, *_LISTS}


class Fields:
    """The fields of one organization, by name."""

    def __init__(self) -> None:
        self._by_name: dict[str, dict[str, object]] = {
            name: _complete({"name": name, "type": kind, "system": True})
            for name, kind in SYSTEM_FIELDS.items()
        }

    def get(self, name: str) -> dict[str, object]:
        """Return a field by name."""
        if name not in self._by_name:
            raise ApiError.not_found(f"There is no field {name!r}.")
        return dict(self._by_name[name])

    def all(self) -> dict[str, dict[str, object]]:
        """Return all fields by name, sorted."""
        return {name: dict(self._by_name[name]) for name in sorted(self._by_name)}

    def create(self, models: Iterable[Mapping[str, object]]) -> None:
        """Create several fields, or none of them if one can't be created."""
        created: dict[str, dict[str, object]] = {}
        for model in models:
            name = self._checked_name(model, {*self._by_name, *created})
            created[name] = _complete(model)
        self._by_name.update(created)

    def _checked_name(self, model: Mapping[str, object], taken: set[str]) -> str:
        """Return the name of a valid model."""
        name = model.get("name")
        if not isinstance(name, str):
            raise ApiError.missing_parameter("name")
        if not _NAME.fullmatch(name):
            raise ApiError.invalid_parameter("name", f"{name!r} does not match ^([a-z][a-z0-9_]{{0,254}})$")
        kind = model.get("type")
        if kind not in FIELD_TYPES:
            raise ApiError.invalid_parameter("type", f"{kind!r} is not one of {', '.join(FIELD_TYPES)}")
        for option, value in model.items():
            wanted = bool if option in (*_SWITCHES, *_SWITCHES_BY_TYPE) else list if option in _LISTS else str
            if option in _KNOWN and value is not None and not isinstance(value, wanted):
                raise ApiError.invalid_json(f"{option} is not a {wanted.__name__}.")
        problem = _contradiction(_complete(model), model)
        if problem is not None:
            raise ApiError.invalid_parameter(*problem)
        if name in taken:
            raise ApiError.invalid_parameter("name", f"the field {name!r} already exists")
        return name


def undocumented_options(model: dict[str, object]) -> list[str]:
    """Return the options that Coveo's model of a field does not have."""
    return [option for option in model if option not in _KNOWN]


def _complete(model: Mapping[str, object]) -> dict[str, object]:
    """Return a field with the defaults of its boolean options."""
    given = {option: value for option, value in model.items() if option in _KNOWN and value is not None}
    by_type = dict.fromkeys(_SWITCHES_BY_TYPE, model["type"] != "STRING")
    return {**_SWITCHES, **by_type, **given}


def _contradiction(field: Mapping[str, object], given: Mapping[str, object]) -> tuple[str, str] | None:
    """Return the option that contradicts the rest of a field, and why."""
    is_string = field["type"] == "STRING"
    if given.get("system"):
        return "system", "it can't be set to true"
    for option in _SWITCHES_BY_TYPE:
        if not is_string and not field[option]:
            return option, "it can't be false on a field whose type is not STRING"
    for option in _STRING_ONLY:
        if field[option] and not is_string:
            return option, "it applies to fields of type STRING only"
    for option in _NEVER_ON_STRINGS:
        if field[option] and is_string:
            return option, "it can't be enabled on a field of type STRING"
    if field["smartDateFacet"] and field["type"] != "DATE":
        return "smartDateFacet", "it applies to fields of type DATE only"
    if field["multilingual"] and not field["keyValue"]:
        return "multilingual", "it requires keyValue"
    if field["useCacheForSort"] and not field["sort"]:
        return "useCacheForSort", "it requires sort on a field of type STRING"
    if field["useCacheForNestedQuery"] and not (field["facet"] or field["multiValueFacet"]):
        return "useCacheForNestedQuery", "it applies to faceted fields only"
    return None
