"""One request and what was answered, as the simulator recorded it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Exchange:
    """
    A request that reached the simulator, and its answer.

    :param method: the HTTP method.
    :param path: the path as sent, still percent-encoded, without the query.
    :param query: the decoded query; of a repeated name the last value.
    :param raw_query: the query as sent.
    :param headers: the request headers, names in lower case.
    :param body: the request body, cut where the simulator was told to keep less, empty if it was too long.
    :param body_size: how long the body was.
    :param client_port: the client's end of the TCP connection; count the distinct ones to count connections.
    :param operation: the name of the request, such as ``"status"`` or ``"batch"``; empty if there is none.
    :param source: the source (or security provider) in the path, if any.
    :param status: the HTTP status that was answered; 0 while there is none, and for a dropped connection.
    :param response_headers: the headers of the answer, names in lower case.
    :param response_body: the body of the answer.
    :param seconds: from the arrival of the whole request until the answer was ready.
    :param at: when it arrived, in epoch milliseconds by the simulator's clock.
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

    def json(self) -> Any:
        """Return the request body, decoded."""
        return json.loads(self.body)

    def response_json(self) -> Any:
        """Return the body of the answer, decoded; ``None`` where it is empty."""
        return json.loads(self.response_body) if self.response_body else None


@dataclass
class Answer:
    """
    What a handler gives back.

    :param status: the HTTP status code.
    :param body: the body, already encoded.
    :param content_type: the ``Content-Type``; left out for an empty body.
    :param headers: further headers.
    """

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
