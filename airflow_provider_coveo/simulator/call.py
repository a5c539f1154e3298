"""A handler's input: the request, its parameters in their declared types, and the organization."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timezone

from airflow_provider_coveo.coveo.iso8601 import parse_iso8601
from airflow_provider_coveo.simulator.errors import ApiError
from airflow_provider_coveo.simulator.exchange import Answer, Exchange
from airflow_provider_coveo.simulator.json_body import RepeatedKeys, decode
from airflow_provider_coveo.simulator.state import Organization

_INTEGER = re.compile(r"\d{1,19}")
INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1


@dataclass
class Call:
    """
    One request for a handler.

    :param exchange: the original request.
    :param path: the decoded parameters of the path.
    :param organization: the state.
    :param request_id: the ``X-Request-ID`` of the response.
    :param base_url: the simulator's URL.
    """

    exchange: Exchange
    path: dict[str, str]
    organization: Organization
    request_id: str
    base_url: str

    def text(self, name: str) -> str:
        """Return a required parameter of the query."""
        value = self.exchange.query.get(name, "")
        if not value:
            raise ApiError.missing_parameter(name)
        return value

    def one_of(self, name: str, values: Collection[str]) -> str | None:
        """Return an optional parameter that is one of ``values``."""
        value = self.exchange.query.get(name)
        if value is not None and value not in values:
            raise ApiError.invalid_parameter(name, f"{value!r} is not one of {', '.join(values)}")
        return value

    def integer(self, name: str, *, most: int = INT64_MAX) -> int | None:
        """Return an optional parameter that is an integer from 0."""
        value = self.exchange.query.get(name)
        if value is None:
            return None
        if not _INTEGER.fullmatch(value) or int(value) > most:
            raise ApiError.invalid_parameter(name, f"{value!r} is not an integer from 0 to {most}")
        return int(value)

    def required_integer(self, name: str) -> int:
        """Return a required parameter that is an integer from 0."""
        self.text(name)
        value = self.integer(name)
        assert value is not None
        return value

    def boolean(self, name: str) -> bool | None:
        """Return an optional parameter that is a boolean."""
        value = self.exchange.query.get(name)
        if value is None:
            return None
        if value.lower() not in {"true", "false"}:
            raise ApiError.invalid_parameter(name, f"{value!r} is neither true nor false")
        return value.lower() == "true"

    def ordering_id(self) -> int:
        """Return the ordering ID of the request, or the next stamp if it has none."""
        given = self.integer("orderingId")
        return self.organization.next_ordering_id() if given is None else given

    def json(self) -> object:
        """Return the decoded body."""
        self.check_content_type()
        try:
            return decode(self.exchange.body)
        except ValueError as error:
            raise ApiError.invalid_json(f"The body is not JSON: {error}.") from None

    def json_object(self) -> dict[str, object]:
        """Return the body, which must be a JSON object."""
        value = self.json()
        if not isinstance(value, dict):
            raise ApiError.invalid_json("The body is not a JSON object.")
        if isinstance(value, RepeatedKeys):
            raise ApiError.invalid_json("A key occurs twice in the body (keys are case-insensitive).")
        return value

    def check_content_type(self) -> None:
        """Reject a body whose ``Content-Type`` is not JSON."""
        declared = self.exchange.headers.get("content-type", "").partition(";")[0].strip().lower()
        if self.exchange.body and declared != "application/json":
            message = f"The Content-Type is {declared or 'missing'}, not application/json."
            raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", message)

    def accepted(self, status: int = 202) -> Answer:
        """Return the response for an accepted push."""
        body = self.organization.settings.success_body
        if body is None:
            # Coveo's pages show no content after a status, and null after a push.
            body = b"" if status == 201 else b"null"
        return Answer(status, body)

    def undocumented(self, what: str) -> None:
        """Record that the client relied on something that Coveo does not document."""
        self.organization.undocumented.append(f"{self.exchange.method} {self.exchange.path}: {what}")


def json_answer(value: object, status: int = 200) -> Answer:
    """Return a JSON response."""
    return Answer(status, json.dumps(value).encode())


def parse_moment(name: str, value: str) -> datetime:
    """Return a date-time parameter."""
    try:
        moment = parse_iso8601(value)
    except ValueError:
        raise ApiError.invalid_parameter(name, f"{value!r} is not an ISO 8601 date-time") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def wildcard(pattern: str) -> re.Pattern[str]:
    """Return a regular expression in which only ``*`` and ``?`` are wildcards."""
    parts = {"*": ".*", "?": "."}
    return re.compile("".join(parts.get(letter, re.escape(letter)) for letter in pattern), re.DOTALL)
