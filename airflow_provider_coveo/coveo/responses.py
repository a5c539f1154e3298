"""Coveo's responses: the check for the documented success, the error of others, and the JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, TypeAlias

from airflow_provider_coveo.coveo.errors import (
    CoveoError,
    NoAnswerError,
    UnexpectedAnswerError,
    error_from_answer,
    sanitize,
)
from airflow_provider_coveo.coveo.ordering_ids import CoveoClock
from airflow_provider_coveo.coveo.retries import retry_after_seconds

#: A JSON object as Coveo sends it.
JsonObject: TypeAlias = dict[str, Any]

#: The maximum size of a successful response; a page of a hundred sources is far smaller.
MAX_RESPONSE_BYTES = 64 * 1024 * 1024
#: The maximum part of an error's body to read.
MAX_ERROR_BYTES = 64 * 1024

#: A longer body is not checked for JSON unless it begins like an object or an array.
_MAX_UNDECLARED: Final = 1024
#: A longer body is parsed only by the code that expects it.
_MAX_UNREAD: Final = 16 * 1024
#: The maximum length of a request ID.
_MAX_REQUEST_ID: Final = 200


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Response:
    """
    A response whose body was read.

    :param status_code: The HTTP status.
    :param headers: The headers; lookups ignore case.
    :param content: The body.
    :param keep_connection: Lets the next request reuse the connection, after a valid response.
    :param drop_connection: Closes the connection, after an invalid response.
    :param repeats: How many times the request was sent before, although Coveo may have carried it out.
    :param raw: The HTTP library's own response.
    """

    status_code: int
    headers: Mapping[str, str]
    content: bytes
    keep_connection: Callable[[], None] = field(default_factory=lambda: _nothing, repr=False)
    drop_connection: Callable[[], None] = field(default_factory=lambda: _nothing, repr=False)
    repeats: int = 0
    raw: object = field(default=None, repr=False)

    @cached_property
    def clock(self) -> CoveoClock:
        """Coveo's clock. Read it as soon as the response arrives: the first access counts."""
        return CoveoClock.from_http_date(self.headers.get("Date"))

    @property
    def request_id(self) -> str | None:
        """The ID that Coveo's support asks for."""
        request_id = self.headers.get("X-Request-ID")
        return None if request_id is None else sanitize(request_id)[:_MAX_REQUEST_ID]

    def json(self, action: str, *keys: str) -> JsonObject:
        """
        Return the JSON object in the body.

        :param action: The action, for error messages.
        :param keys: The keys that the object must have.
        :raises UnexpectedAnswerError: if the body is not such an object.
        """
        try:
            parsed = json.loads(self.content)
        except (ValueError, RecursionError):
            parsed = None
        if isinstance(parsed, dict) and all(key in parsed for key in keys):
            return parsed
        raise self.unexpected(action, f"not a JSON object with {', '.join(keys)}")

    def unexpected(self, action: str, what: str) -> UnexpectedAnswerError:
        """
        Return the error for a success with an undocumented body, and drop the connection.

        :param action: The action, for error messages.
        :param what: A description of the body.
        """
        self.drop_connection()
        return UnexpectedAnswerError(
            action, status_code=self.status_code, request_id=self.request_id, answer=what
        )


def response_error(
    response: Response,
    action: str,
    *,
    expected: int | None = None,
    default_class: type[CoveoError] | None = None,
) -> CoveoError | None:
    """
    Return the error for a response, or ``None`` if it is a success.

    :param response: The response.
    :param action: The action, for error messages.
    :param expected: The only status that is documented as this call's success; ``None`` for any 2xx.
    :param default_class: The error class for a 4xx whose code Coveo does not document for this call.
    """
    if not 200 <= response.status_code < 300:
        now = response.clock.shown_ms() / 1000
        return error_from_answer(
            action,
            response.status_code,
            response.content,
            response.headers,
            retry_after=retry_after_seconds(response.headers.get("Retry-After"), now),
            default_class=default_class,
        )
    what = _unlike_coveo(response)
    if what is None and expected in {None, response.status_code}:
        return None
    return UnexpectedAnswerError(
        action,
        status_code=response.status_code,
        request_id=response.request_id,
        answer=what or f"where {expected} is documented",
        cause="a proxy, a gateway or a login page responded instead",
        remedy="Check the connection's host, platform_host and proxies, and the proxies of the environment",
    )


def stopped_error(action: str, what: str) -> NoAnswerError:
    """
    Return the error of a request that the end of its task ended or prevented.

    :param action: The action, for error messages.
    :param what: The effect on the request.
    """
    return NoAnswerError(
        action,
        answer=what,
        cause="the task was killed or its state was set by hand",
        remedy="Clear the task to run it again",
    )


def _unlike_coveo(response: Response) -> str | None:
    """
    Describe the body of a success if Coveo can't have sent it; return ``None`` otherwise.

    Coveo's bodies are JSON or empty; those of file containers are empty. A long body that is declared as JSON
    is left to the code that parses it: bodies that no code parses are short.
    """
    content_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if content_type in {"text/html", "application/xhtml+xml"}:
        return "a web page"
    body = response.content.strip()
    if content_type == "application/problem+json":
        return "a problem"
    if content_type == "application/json" or content_type.endswith("+json"):
        return _unlike_declared_json(body)
    if not body:
        return None
    if body.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        return "a web page"
    if len(body) <= _MAX_UNDECLARED or body[:1] in b"{[":
        with suppress(ValueError, RecursionError):
            json.loads(body)
            return None
    return f"a body that is not JSON ({content_type or 'of no declared type'})"


def _unlike_declared_json(body: bytes) -> str | None:
    if not body:
        return None
    if body[:1] == b"<":
        return "a web page, not a JSON object"
    if len(body) > _MAX_UNREAD:
        return None
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return "not a JSON object, although it is declared as one"
    if isinstance(parsed, dict) and parsed.get("errorCode"):
        return f"an error: {sanitize(str(parsed['errorCode']))}"
    return None
