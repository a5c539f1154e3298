"""The declarations of the OpenAPI files, in their strictest reading."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes
from uuid import UUID

import yaml
from jsonschema import Draft4Validator, FormatChecker

#: The files, and the prefixes of their servers on the receiver, which is a single host.
FILES = {
    "coveo-push.yml": "/push/v1",
    "coveo-source-logs.yml": "/logs/v1",
    "coveo-source.yml": "",
    "coveo-activity.yml": "",
}
METHODS = ("get", "put", "post", "delete", "patch")
FORMATS = FormatChecker(formats=())
#: The characters that RFC 3986 allows unencoded in a path segment.
SEGMENT = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})+")
#: Some servers read "+" in a query as a space and others as itself, so it must be encoded.
QUERY_PART = re.compile(r"(?:[A-Za-z0-9\-._~!$'()*,:@/?]|%[0-9A-Fa-f]{2})*")


@FORMATS.checks("date-time")
def is_date_time(value: object) -> bool:
    """Return whether a text is an RFC 3339 date-time; ``type`` covers other types."""
    if not isinstance(value, str):
        return True
    found = re.fullmatch(
        r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:\.\d+)?(?:Z|[+-](\d{2}):(\d{2}))", value, re.ASCII
    )
    try:
        return bool(found and datetime.fromisoformat(found[1]))
    except ValueError:
        return False


@FORMATS.checks("uuid")
def is_uuid(value: object) -> bool:
    """Return whether a text is a UUID."""
    try:
        return not isinstance(value, str) or bool(UUID(value))
    except ValueError:
        return False


@FORMATS.checks("int32")
def is_int32(value: object) -> bool:
    """Return whether a number fits into 32 bits."""
    return not isinstance(value, int) or -(2**31) <= value < 2**31


@FORMATS.checks("int64")
def is_int64(value: object) -> bool:
    """Return whether a number fits into 64 bits."""
    return not isinstance(value, int) or -(2**63) <= value < 2**63


@dataclass(frozen=True)
class Operation:
    """
    One operation of a file.

    :param file: the name of the file.
    :param method: the HTTP method.
    :param template: the path with its parameters in braces, below the prefix of the file.
    :param declaration: the operation's part of the file.
    :param document: the whole file, with closed objects.
    """

    file: str
    method: str
    template: str
    declaration: dict[str, Any]
    document: dict[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        return f"{self.method} {self.template}"

    @property
    def is_swagger(self) -> bool:
        return "swagger" in self.document

    def parameters(self, place: str) -> dict[str, dict[str, Any]]:
        """Return the declared parameters in the path, the query or the body."""
        return {
            parameter["name"]: parameter
            for parameter in self.declaration.get("parameters", [])
            if parameter["in"] == place
        }

    def body_schema(self) -> dict[str, Any] | None:
        """Return the schema of the request's body; all declared bodies are required."""
        for parameter in self.parameters("body").values():
            return parameter["schema"]  # type: ignore[no-any-return]
        declared = self.declaration.get("requestBody")
        return declared["content"]["application/json"]["schema"] if declared else None

    def success(self) -> int:
        """Return the only success that the file declares."""
        (status,) = [int(status) for status in self.declaration["responses"] if status.startswith("2")]
        return status

    def declares_status(self, status: int) -> bool:
        return str(status) in self.declaration["responses"]

    def answer_schema(self) -> dict[str, Any] | None:
        declared = self.declaration["responses"][str(self.success())]
        if self.is_swagger:
            return declared.get("schema")  # type: ignore[no-any-return]
        content = next(iter(declared.get("content", {}).values()), {})
        return content.get("schema")  # type: ignore[no-any-return]

    def violations(self, schema: dict[str, Any], value: Any) -> Iterator[str]:
        """Yield the differences between a value and a schema."""
        references = {
            key: self.document[key] for key in ("definitions", "components") if key in self.document
        }
        validator = Draft4Validator({"allOf": [schema], **references}, format_checker=FORMATS)
        for error in validator.iter_errors(value):
            where = "/".join(str(part) for part in error.absolute_path) or "the body"
            yield f"{where}: {error.message[:200]}"


@lru_cache(maxsize=2)
def load_operations(directory: Path) -> tuple[Operation, ...]:
    """Return the operations of all files."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    operations = []
    for file, prefix in FILES.items():
        document = yaml.load((directory / file).read_text(), Loader=loader)  # noqa: S506
        document = _closed(document, "swagger" in document)
        for path, declarations in document["paths"].items():
            operations += [
                Operation(file, method.upper(), prefix + path, declarations[method], document)
                for method in METHODS
                if method in declarations
            ]
    return tuple(operations)


def find_operation(
    operations: tuple[Operation, ...], method: str, path: str
) -> tuple[Operation, dict[str, str]] | str:
    """Return the operation of a request and the values in its path, or else the problem of the path."""
    if not path.startswith("/"):
        return f"the path {path!r} does not begin with a slash"
    parts = path[1:].split("/")
    for part in parts:
        if not part:
            return f"the path {path!r} has an empty segment"
        if not SEGMENT.fullmatch(part):
            return f"the segment {part!r} of the path is not percent-encoded as RFC 3986 says"
    methods = set()
    # A fixed path takes precedence over one with a parameter at the same position.
    for operation in sorted(operations, key=lambda operation: operation.template.count("{")):
        declared = operation.template[1:].split("/")
        if len(declared) != len(parts):
            continue
        pairs = list(zip(declared, parts, strict=True))
        if any(not name.startswith("{") and name != part for name, part in pairs):
            continue
        if operation.method != method:
            methods.add(operation.method)
            continue
        try:
            values = {
                name.strip("{}"): unquote_to_bytes(part).decode()
                for name, part in pairs
                if name.startswith("{")
            }
        except UnicodeDecodeError:
            return f"the path {path!r} is not UTF-8"
        return operation, values
    if methods:
        return f"{method} {path}: the files declare {', '.join(sorted(methods))} here"
    return f"{method} {path}: no file declares this request"


def read_query(query: str) -> tuple[dict[str, str], list[str]]:
    """Return the parameters of a query, and its problems."""
    values: dict[str, str] = {}
    objections = []
    for part in query.split("&") if query else []:
        name, equals, value = part.partition("=")
        if not equals or not name:
            objections.append(f"{part!r} in the query is not a name and a value")
        if not QUERY_PART.fullmatch(name) or not QUERY_PART.fullmatch(value):
            objections.append(f"{part!r} in the query is not percent-encoded")
        try:
            name, value = unquote_to_bytes(name).decode(), unquote_to_bytes(value).decode()
        except UnicodeDecodeError:
            objections.append(f"{part!r} in the query is not UTF-8")
            continue
        if name in values:
            objections.append(f"the parameter {name!r} is there twice")
        values[name] = value
    return values, objections


def judge_query(operation: Operation, values: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield an error code and a sentence for each parameter that does not match its declaration."""
    declared = operation.parameters("query")
    for name in values.keys() - declared.keys():
        yield "INVALID_PARAMETER", f"the parameter {name!r} is not declared"
    for name, parameter in declared.items():
        if name not in values:
            if parameter.get("required"):
                yield "MISSING_PARAMETER", f"the parameter {name!r} is missing"
            continue
        for sentence in judge_parameter({**parameter, **parameter.get("schema", {})}, values[name]):
            yield "INVALID_PARAMETER", f"the parameter {name!r} is {values[name]!r}: {sentence}"


def judge_parameter(declared: dict[str, Any], text: str) -> Iterator[str]:
    """Yield the problems of a parameter's text."""
    kind, form = declared.get("type", "string"), declared.get("format", "")
    if not text:
        yield "it is empty"
    elif kind == "boolean" and text not in ("true", "false"):
        yield "neither true nor false"
    elif kind == "integer":
        if not re.fullmatch(r"0|-?[1-9]\d*", text, re.ASCII):
            yield "no integer"
        elif not FORMATS.conforms(int(text), form or "int64"):
            yield f"out of the range of {form or 'int64'}"
        elif int(text) < declared.get("minimum", int(text)) or int(text) > declared.get("maximum", int(text)):
            yield "out of bounds"
    elif form == "date-time" and not is_date_time(text) and not _is_documented_as_number(declared, text):
        yield "no date-time"
    if "enum" in declared and text not in declared["enum"]:
        yield f"none of {declared['enum']}"


def _is_documented_as_number(declared: dict[str, Any], text: str) -> bool:
    """Allow milliseconds as a date-time, as in the descriptions of the two OpenAPI 3 files."""
    return bool(re.search(r"\b\d{13}\b", declared.get("description", ""))) and bool(
        re.fullmatch(r"\d{13}", text)
    )


def _closed(value: Any, is_swagger: bool) -> Any:
    """
    Return a file's content for a JSON Schema validator.

    The Swagger files use no inheritance. If their objects list properties without mentioning further ones,
    this allows no further ones, so that a misspelled name is an error.
    """
    if isinstance(value, list):
        return [_closed(part, is_swagger) for part in value]
    if not isinstance(value, dict):
        return value
    # Several entries of the oneOf over source types match, since most of them have the same schema.
    result = {"anyOf" if key == "oneOf" else key: _closed(part, is_swagger) for key, part in value.items()}
    if is_swagger and result.get("type") == "object" and "properties" in result:
        result.setdefault("additionalProperties", False)
    if not is_swagger and result.get("type") == "string" and result.get("format") == "date-time":
        result["type"] = ["string", "integer"]
    if result.pop("nullable", False) is True:
        return {"anyOf": [result, {"type": "null"}]}
    return result
