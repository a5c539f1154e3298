"""Coveo's Field API: list and create the fields of an organization."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from starlette.routing import Route

from airflow_provider_coveo.simulator.call import Call, json_answer
from airflow_provider_coveo.simulator.errors import ApiError
from airflow_provider_coveo.simulator.exchange import Answer
from airflow_provider_coveo.simulator.fields import FIELD_TYPES, undocumented_options
from airflow_provider_coveo.simulator.json_body import RepeatedKeys

_MAX_PER_PAGE = 1000
_TRI_STATES = ("ALL", "TRUE_ONLY", "FALSE_ONLY")
_SWITCH_FILTERS = ("automaticFacetsCandidate", "facet", "sort")


def get_field(call: Call) -> Answer:
    """Show a field."""
    return json_answer(call.organization.fields.get(call.path["field"]))


def list_fields(call: Call) -> Answer:
    """List a page of the fields that match the filters."""
    options = call.json_object()
    page = _integer(options, "page", 0, least=0)
    per_page = _integer(options, "perPage", 100, least=1, most=_MAX_PER_PAGE)
    order = options.get("order") or "ASC"
    if order not in ("ASC", "DESC"):
        raise ApiError.invalid_parameter("order", f"{order!r} is neither ASC nor DESC")
    if (options.get("sortBy") or "name") != "name":
        raise ApiError.invalid_parameter("sortBy", "the simulator only sorts by name")
    filters = options.get("filters") or {}
    if not isinstance(filters, dict):
        raise ApiError.invalid_json("filters is not an object.")
    found = _filtered(call.organization.fields.all(), filters)
    if order == "DESC":
        found.reverse()
    return json_answer(
        {
            "items": found[page * per_page : (page + 1) * per_page],
            "totalEntries": len(found),
            "totalPages": -(-len(found) // per_page),
        }
    )


def create_field(call: Call) -> Answer:
    """Create a field."""
    _create(call, [call.json_object()])
    return Answer(204)


def create_fields(call: Call) -> Answer:
    """Create several fields."""
    _create(call, _models(call))
    return Answer(204)


def create_fields_with_results(call: Call) -> Answer:
    """Create several fields, and report the result of each."""
    results: list[dict[str, object]] = []
    for model in _models(call):
        result = {"resourceModel": model, "successful": True, "operationResult": "SUCCESS"}
        try:
            _create(call, [model])
        except ApiError as error:
            result |= {"successful": False, "operationResult": "ERROR", "errorDetails": error.message}
        results.append(result)
    return json_answer(
        {
            "batchOperationId": str(uuid.uuid4()),
            "status": "COMPLETED",
            "batchOperationResourcesStatus": results,
        }
    )


def _create(call: Call, models: list[dict[str, object]]) -> None:
    organization = call.organization
    for model in models:
        for option in undocumented_options(model):
            call.undocumented(f"a field with the option {option!r}")
        if model.get("name") in list(organization.fields.all()):
            call.undocumented(f"creating a field {model['name']!r} that exists")
    with organization.transaction():
        organization.fields.create(models)


def _models(call: Call) -> list[dict[str, object]]:
    models = call.json()
    if not isinstance(models, list) or not all(type(model) is dict for model in models):
        problem = "a key occurs twice in one" if _repeats(models) else "the body is not an array of fields"
        raise ApiError.invalid_json(f"Not a list of fields: {problem}.")
    for model in models:
        if model.get("type") not in (None, *FIELD_TYPES):
            why = f"{model['type']!r} is not one of {', '.join(FIELD_TYPES)}"
            raise ApiError.invalid_parameter("type", why)
    return models


def _repeats(models: object) -> bool:
    return isinstance(models, list) and any(isinstance(model, RepeatedKeys) for model in models)


def _filtered(
    fields: Mapping[str, dict[str, object]], filters: Mapping[str, object]
) -> list[dict[str, object]]:
    kind, origin = filters.get("type"), filters.get("origin") or "ALL"
    if kind is not None and kind not in FIELD_TYPES:
        raise ApiError.invalid_parameter("type", f"{kind!r} is not one of {', '.join(FIELD_TYPES)}")
    if origin not in ("ALL", "USER", "SYSTEM"):
        raise ApiError.invalid_parameter("origin", f"{origin!r} is none of ALL, USER, SYSTEM")
    if filters.get("projectId") is not None:
        raise ApiError.invalid_parameter("projectId", "the simulator has no projects")
    names, part = filters.get("fieldNames"), filters.get("name") or ""
    if not isinstance(names, list | None):
        raise ApiError.invalid_json("fieldNames is not an array.")
    if not isinstance(part, str):
        raise ApiError.invalid_json("name is not a string.")
    found = [
        field
        for name, field in fields.items()
        if part in name
        and (names is None or name in names)
        and kind in (None, field["type"])
        and origin in ("ALL", "SYSTEM" if field["system"] else "USER")
    ]
    for option in _SWITCH_FILTERS:
        wanted = filters.get(option) or "ALL"
        if wanted not in _TRI_STATES:
            raise ApiError.invalid_parameter(option, f"{wanted!r} is not one of {', '.join(_TRI_STATES)}")
        if wanted != "ALL":
            found = [field for field in found if field[option] is (wanted == "TRUE_ONLY")]
    return found


def _integer(
    options: Mapping[str, object], name: str, default: int, *, least: int, most: int | None = None
) -> int:
    value = options.get(name)
    if value is None:
        return default
    if type(value) is not int or value < least or (most is not None and value > most):
        upper = "" if most is None else f" to {most}"
        raise ApiError.invalid_parameter(name, f"{value!r} is not an integer from {least}{upper}")
    return value


_FIELDS = "/rest/organizations/{organization}/indexes/fields"

ROUTES = [
    Route(_FIELDS, create_field, methods=["POST"], name="create_field"),
    Route(_FIELDS + "/search", list_fields, methods=["POST"], name="list_fields"),
    Route(_FIELDS + "/batch/create", create_fields, methods=["POST"], name="create_fields"),
    Route(
        _FIELDS + "/batch/create/results",
        create_fields_with_results,
        methods=["POST"],
        name="create_fields_with_results",
    ),
    Route(_FIELDS + "/{field}", get_field, methods=["GET"], name="field"),
]
