"""
Validates recorded requests and responses against Coveo's own OpenAPI files, if these are available.

The files are not part of the project. They are read from ``$COVEO_OPENAPI_DIR``, or else from
``shared/openapi`` next to the checkout.

Four rules are less strict than the files:

* an item can have metadata of any type that Coveo's pages allow, although the file allows only strings;
* a date-time of the two OpenAPI 3 files can be a number (milliseconds since the Unix epoch), as in the files'
  own descriptions and examples;
* for the ``oneOf`` over source types, any match is enough, because all these types have the same schema;
* 413 is documented for every request, but not declared.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft4Validator

from airflow_provider_coveo.simulator.exchange import Exchange

#: The files, and the prefixes of their paths on the simulator, which is a single host.
FILES = {
    "coveo-push.yml": "/push/v1",
    "coveo-source-logs.yml": "/logs/v1",
    "coveo-source.yml": "",
    "coveo-activity.yml": "",
}
#: A file that may be missing, and the requests that are skipped in that case.
FIELD_FILE = "coveo-field.yml"
FIELD_REQUESTS = re.compile(r"/rest/organizations/[^/]+/indexes/fields(/.*)?")
#: Requests that none of the files describes.
SKIPPED = {
    "upload": re.compile(r"/coveo-simulator-file-containers/[^/]+/[^/]+"),
    "control": re.compile(r"/_simulator/.*|/"),
    "limit": re.compile(r"/rest/organizations/[^/]+/limits/content/[^/]+"),
    "organization status": re.compile(r"/rest/organizations/[^/]+/status"),
    "regions": re.compile(r"/rest/global/regions"),
}
UNDECLARED_STATUSES = {413}
METHODS = ("get", "put", "post", "delete", "patch")


@dataclass(frozen=True)
class Operation:
    """
    A request that a file declares.

    :param name: the method and the path, for messages.
    :param method: the HTTP method.
    :param pattern: the pattern of the path.
    :param declaration: its part of the file.
    :param document: the whole file, for references.
    """

    name: str
    method: str
    pattern: re.Pattern[str]
    declaration: dict[str, Any]
    document: dict[str, Any]

    @property
    def is_swagger(self) -> bool:
        return "swagger" in self.document

    def parameters(self, place: str) -> Iterator[dict[str, Any]]:
        for parameter in self.declaration.get("parameters", []):
            if parameter["in"] == place:
                # OpenAPI 3 moves a parameter's own properties from Swagger 2 into a schema.
                yield {**parameter, **parameter.get("schema", {})} if place == "query" else parameter

    def body(self) -> tuple[dict[str, Any] | None, bool]:
        """Return the schema of the request body, and whether the body is required."""
        for parameter in self.parameters("body"):
            return parameter["schema"], parameter.get("required", False)
        declared = self.declaration.get("requestBody")
        if declared is None:
            return None, False
        content = next(iter(declared["content"].values()))
        return content.get("schema"), declared.get("required", False)

    def response_schema(self, status: int) -> dict[str, Any] | None:
        declared = self.declaration["responses"][str(status)]
        if self.is_swagger:
            schema: dict[str, Any] | None = declared.get("schema")
            return schema
        content: dict[str, Any] = next(iter(declared.get("content", {}).values()), {})
        return content.get("schema")

    def violations(self, schema: dict[str, Any], value: Any) -> Iterator[str]:
        references = {
            key: self.document[key] for key in ("definitions", "components") if key in self.document
        }
        for error in Draft4Validator({"allOf": [schema], **references}).iter_errors(value):
            where = "/".join(str(part) for part in error.absolute_path)
            yield f"{where or 'the body'}: {error.message[:300]}"


class Contracts:
    """
    The declarations of all files.

    :param directory: the folder of the files.
    """

    def __init__(self, directory: Path) -> None:
        self.operations: list[Operation] = []
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        self._has_fields = (directory / FIELD_FILE).is_file()
        for name, prefix in {**FILES, **({FIELD_FILE: ""} if self._has_fields else {})}.items():
            document = _loosen(yaml.load((directory / name).read_text(), Loader=loader))  # noqa: S506
            if name == "coveo-push.yml":
                metadata = {"type": ["string", "number", "boolean", "array"]}
                document["definitions"]["DocumentBody"]["additionalProperties"] = metadata
            for path, declarations in document["paths"].items():
                for method in METHODS:
                    if method in declarations:
                        self.operations.append(
                            Operation(
                                f"{method.upper()} {prefix}{path}",
                                method.upper(),
                                _pattern(prefix + path),
                                declarations[method],
                                document,
                            )
                        )

    def check(self, exchange: Exchange) -> list[str]:
        """Return the violations of an exchange's request and response."""
        return self.check_request(exchange) + self.check_response(exchange)

    def skipped(self, exchange: Exchange) -> str | None:
        """Return the name for which this request is skipped, if it is."""
        if not self._has_fields and FIELD_REQUESTS.fullmatch(exchange.path):
            return "field"
        return next((name for name, path in SKIPPED.items() if path.fullmatch(exchange.path)), None)

    def check_request(self, exchange: Exchange) -> list[str]:
        """Return the violations of a request."""
        if self.skipped(exchange):
            return []
        operation = self._find(exchange)
        if operation is None:
            return [f"{exchange.method} {exchange.path}: no file declares this request"]
        found = [*_query_violations(operation, exchange), *_body_violations(operation, exchange)]
        return [f"{operation.name}: {violation}" for violation in found]

    def check_response(self, exchange: Exchange) -> list[str]:
        """Return the violations of a response, except for those of faults and dropped connections."""
        operation = self._find(exchange)
        if self.skipped(exchange) or exchange.fault or operation is None:
            return []
        return [f"{operation.name}: {violation}" for violation in _response_violations(operation, exchange)]

    def _find(self, exchange: Exchange) -> Operation | None:
        candidates = [
            operation
            for operation in self.operations
            if operation.method == exchange.method and operation.pattern.fullmatch(exchange.path)
        ]
        # A fixed path takes precedence over one with a parameter at the same position.
        return max(candidates, key=lambda operation: -operation.name.count("{"), default=None)


@lru_cache(maxsize=1)
def load_contracts() -> Contracts | None:
    """Return the contracts, ``None`` if the files are not available."""
    directory = find_openapi_directory()
    return Contracts(directory) if directory else None


def find_openapi_directory() -> Path | None:
    """Return the folder of the files, ``None`` if they are not available."""
    given = os.environ.get("COVEO_OPENAPI_DIR")
    directory = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "openapi"
    return directory if all((directory / name).is_file() for name in FILES) else None


def _loosen(value: Any, is_openapi_3: bool | None = None) -> Any:
    """Return a file's content in a form that JSON Schema supports."""
    if isinstance(value, list):
        return [_loosen(part, is_openapi_3) for part in value]
    if not isinstance(value, dict):
        return value
    if is_openapi_3 is None:
        is_openapi_3 = "openapi" in value
    loosened = {
        "anyOf" if key == "oneOf" else key: _loosen(part, is_openapi_3) for key, part in value.items()
    }
    if is_openapi_3 and loosened.get("type") == "string" and loosened.get("format") == "date-time":
        loosened["type"] = ["string", "integer"]
    if loosened.pop("nullable", False) is True:
        return {"anyOf": [loosened, {"type": "null"}]}
    return loosened


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path)))


def _query_violations(operation: Operation, exchange: Exchange) -> Iterator[str]:
    declared = {parameter["name"]: parameter for parameter in operation.parameters("query")}
    for name in exchange.query.keys() - declared.keys():
        yield f"the parameter {name!r} is not declared"
    for name, parameter in declared.items():
        if name in exchange.query:
            yield from _value_violations(parameter, exchange.query[name])
        elif parameter.get("required"):
            yield f"the parameter {name!r} is missing"


def _value_violations(parameter: dict[str, Any], value: str) -> Iterator[str]:
    name, kind = parameter["name"], parameter.get("type", "string")
    if "enum" in parameter and value not in parameter["enum"]:
        yield f"the parameter {name!r} is {value!r}, none of {parameter['enum']}"
    if kind == "boolean" and value not in ("true", "false"):
        yield f"the parameter {name!r} is {value!r}, no boolean"
    if kind == "integer":
        if not re.fullmatch(r"-?\d+", value):
            yield f"the parameter {name!r} is {value!r}, no integer"
            return
        bits = 32 if parameter.get("format") == "int32" else 64
        if not -(2 ** (bits - 1)) <= int(value) < 2 ** (bits - 1):
            yield f"the parameter {name!r} is {value}, which does not fit into {bits} bits"
        if int(value) < parameter.get("minimum", int(value)):
            yield f"the parameter {name!r} is {value}, below {parameter['minimum']}"


def _body_violations(operation: Operation, exchange: Exchange) -> Iterator[str]:
    schema, required = operation.body()
    if not exchange.body:
        if required:
            yield "there is no body"
        return
    if schema is None:
        # If the file declares no body, official clients send an empty object.
        if exchange.body.strip() != b"{}":
            yield "there is a body, and none is declared"
        return
    content_type = exchange.headers.get("content-type", "")
    if not content_type.startswith("application/json"):
        yield f"the Content-Type is {content_type!r}"
    try:
        value = json.loads(exchange.body)
    except ValueError:
        yield "the body is not JSON"
        return
    yield from operation.violations(schema, value)


def _response_violations(operation: Operation, exchange: Exchange) -> Iterator[str]:
    status = exchange.status
    if str(status) not in operation.declaration["responses"]:
        # The OpenAPI 3 files declare only successes.
        if status not in UNDECLARED_STATUSES and (operation.is_swagger or status < 400):
            yield f"the status {status} is not declared"
        return
    schema = operation.response_schema(status)
    if schema is None:
        return
    try:
        value = json.loads(exchange.response_body)
    except ValueError:
        yield f"the body of the {status} is not JSON: {exchange.response_body[:100]!r}"
        return
    yield from operation.violations(schema, value)
