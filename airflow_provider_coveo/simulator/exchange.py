"""A request and its response, as the simulator recorded them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field


@dataclass
class Exchange:
    """
    A request that reached the simulator, and its response.

    :param method: the HTTP method.
    :param path: the path as sent, still percent-encoded, without the query.
    :param query: the decoded query; the last value of a repeated name.
    :param raw_query: the query as sent.
    :param headers: the request headers, names in lower case.
    :param body: the request body, truncated to the simulator's limit; empty if it exceeded the API's limit.
    :param body_size: the original size of the body.
    :param client_port: the client's port of the TCP connection; count the distinct ones to count connections.
    :param operation: the name of the request, such as ``"status"`` or ``"batch"``; empty if there is none.
    :param source: the source (or security provider) in the path, if any.
    :param status: the HTTP status of the response; 0 before the response, and for a dropped connection.
    :param response_headers: the response headers, names in lower case.
    :param response_body: the response body.
    :param seconds: the time from the arrival of the complete request until the response was ready.
    :param at: the time of arrival on the simulator's clock, in epoch milliseconds.
    :param fault: the fault that was applied, if any.
    """

    method: str
    path: str
    query: dict[str, str]
    raw_query: str
    headers: dict[str, str]
    body: bytes
    body_size: int
    client_port: int
    operation: str = ""
    source: str = ""
    status: int = 0
    response_headers: dict[str, str] = field(default_factory=dict)
    response_body: bytes = b""
    seconds: float = 0.0
    at: int = 0
    fault: str = ""

    def json(self) -> object:
        """Return the request body, decoded."""
        return json.loads(self.body)

    def response_json(self) -> object:
        """Return the response body, decoded; ``None`` if it is empty."""
        return json.loads(self.response_body) if self.response_body else None


@dataclass
class Answer:
    """
    A handler's response.

    :param status: the HTTP status code.
    :param body: the body, already encoded.
    :param content_type: the ``Content-Type``; omitted for an empty body.
    :param headers: further headers.
    """

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
