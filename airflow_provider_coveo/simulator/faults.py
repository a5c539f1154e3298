"""Faults on demand: what a network, a gateway or Coveo itself may do to a request."""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_coveo.simulator.exchange import Answer, Exchange

#: What a gateway shows when the service behind it is away.
BAD_GATEWAY_PAGE = b"<html><head><title>502</title></head><body><h1>502 Bad Gateway</h1></body></html>"
#: A gateway that waited too long names no errorCode.
GATEWAY_TIMEOUT_BODY = b'{"message": "Endpoint request timed out"}'

_ERROR_CODES = {429: "TOO_MANY_REQUESTS", 500: "INTERNAL_SERVER_ERROR", 503: "SERVICE_UNAVAILABLE"}
RANDOM_KINDS = ("429", "500", "502", "503", "504", "applied", "drop", "drop_applied")


@dataclass
class Action:
    """
    What happens to one request instead of its plain answer.

    :param applied: whether Coveo does what was asked.
    :param answer: what is answered; ``None`` for the answer of the handler.
    :param drop: whether the connection is closed without an answer.
    :param keep_bytes: how much of the answer's body is sent before the connection is closed.
    :param stall_seconds: how long to wait before answering.
    :param expire_container: whether the file container that the request names expires first.
    """

    applied: bool = True
    answer: Answer | None = None
    drop: bool = False
    keep_bytes: int | None = None
    stall_seconds: float = 0.0
    expire_container: bool = False


@dataclass
class Fault:
    """
    An action, and which requests it hits.

    :param kind: the method of :class:`Faults` that made it, and what it was told.
    :param action: what happens; ``None`` where it is drawn at random.
    :param match: what a request must be like.
    :param times: how many requests to hit; ``None`` for all.
    :param after: how many matching requests to leave alone first.
    :param probability: how likely a matching request is hit.
    :param kinds: what to draw from, for a random fault.
    :param used: how many requests were hit so far.
    :param random: where chance comes from.
    """

    kind: str
    action: Action | None
    match: dict[str, Any]
    times: int | None = 1
    after: int = 0
    probability: float = 1.0
    kinds: tuple[str, ...] = ()
    used: int = 0
    random: random.Random = field(default_factory=lambda: random.Random(0), repr=False)  # noqa: S311

    def hits(self, exchange: Exchange) -> bool:
        """
        Whether this fault hits a request; counts it if so.

        :param exchange: the request.
        """
        if self.times is not None and self.used >= self.times:
            return False
        if not _matches(self.match, exchange):
            return False
        if self.after > 0:
            self.after -= 1
            return False
        if self.probability < 1.0 and self.random.random() >= self.probability:
            return False
        self.used += 1
        return True

    def draw(self) -> tuple[str, Action]:
        """Return what happens to a request that was hit."""
        if self.action is not None:
            return self.kind, self.action
        kind = self.random.choice(self.kinds)
        return f"{self.kind}: {kind}", _random_action(kind)

    def describe(self) -> dict[str, Any]:
        """Return the fault as the control API shows it."""
        return {
            "kind": self.kind,
            "match": {name: value for name, value in self.match.items() if value is not None},
            "times": self.times,
            "used": self.used,
            "after": self.after,
            "probability": self.probability,
        }


class Faults:
    """
    The faults that are set. Each method sets one and returns it; ``fault.used`` tells how often it hit.

    All methods take the same further arguments, which say which requests are meant and how many of them:

    :param operation: the name of the request: ``status``, ``item``, ``delete``, ``olderthan``, ``batch``,
        ``files``, ``upload``, ``identity``, ``alias``, ``disable_identity``, ``identity_batch``,
        ``identity_olderthan``, ``source``, ``light_source``, ``list_sources``, ``page_sources``,
        ``create_source``, ``delete_source``, ``duplicate_source``, ``abort``, ``push_refresh``,
        ``activities``, ``latest_activities``, ``activity``, ``limit``, ``organization_status``, ``regions``,
        ``logs``, ``log_counts``, ``field``, ``list_fields``, ``create_field``, ``create_fields``,
        ``create_fields_with_results``; or several of them in a list.
    :param method: the HTTP method.
    :param path: a regular expression that occurs in the path.
    :param source: the source in the path.
    :param status_type: the status of a status request, such as ``"IDLE"``.
    :param query: further parameters of the query with their values.
    :param times: how many requests to hit, once by default; ``None`` for all from now on.
    :param after: how many matching requests to leave alone first.
    :param probability: how likely each matching request is hit, with a seeded generator.
    :param seed: the seed of that generator.

    Where several faults hit one request, the one that was set first counts.
    """

    KINDS = ("answer", "drop", "stall", "truncate", "redirect", "expire_container", "random")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    @property
    def active(self) -> list[Fault]:
        """The faults that may still hit."""
        with self._lock:
            return [fault for fault in self._faults if fault.times is None or fault.used < fault.times]

    def answer(
        self,
        status: int,
        *,
        error_code: str | None = None,
        message: str = "Simulated fault.",
        headers: Mapping[str, str] | None = None,
        body: str | bytes | None = None,
        content_type: str = "application/json",
        applied: bool = False,
        **which: Any,
    ) -> Fault:
        """
        Answer with ``status``.

        :param status: the HTTP status.
        :param error_code: the ``errorCode`` of the body; a fitting one by default.
        :param message: the ``message`` of the body.
        :param headers: further headers, such as ``{"Retry-After": "1"}``. By default a 429 bears
            ``Retry-After: 0``, as Coveo declares a number for each; with ``{}`` it bears none.
        :param body: the body itself, instead of the pair above; ``""`` for an empty one.
        :param content_type: the type of that body.
        :param applied: whether Coveo does what was asked all the same.
        """
        if body is None:
            code = error_code or _ERROR_CODES.get(status, f"SIMULATED_{status}")
            body = json.dumps({"errorCode": code, "message": message})
        encoded = body.encode() if isinstance(body, str) else body
        answer = Answer(status, encoded, content_type, _headers(status) if headers is None else dict(headers))
        return self.add(f"answer {status}", Action(applied=applied, answer=answer), **which)

    def drop(self, *, before: bool = True, **which: Any) -> Fault:
        """
        Close the connection without an answer, before Coveo does what was asked or after it.

        :param before: whether the connection is closed before Coveo does what was asked.
        """
        kind = "drop before applying" if before else "drop after applying"
        return self.add(kind, Action(applied=not before, drop=True), **which)

    def stall(self, seconds: float, *, applied: bool = True, **which: Any) -> Fault:
        """
        Do what was asked (or not, and then answer 504), but answer only after ``seconds``.

        :param seconds: how long, by real time.
        :param applied: whether Coveo does what was asked.
        """
        answer = None if applied else Answer(504, GATEWAY_TIMEOUT_BODY)
        action = Action(applied=applied, answer=answer, stall_seconds=seconds)
        return self.add(f"stall {seconds:g} s", action, **which)

    def truncate(self, keep_bytes: int = 10, **which: Any) -> Fault:
        """
        Do what was asked, and close the connection in the middle of the answer's body.

        :param keep_bytes: how much of the body is sent.
        """
        return self.add(f"truncate after {keep_bytes} bytes", Action(keep_bytes=keep_bytes), **which)

    def redirect(self, location: str, *, status: int = 302, **which: Any) -> Fault:
        """
        Send the client elsewhere.

        :param location: where to.
        :param status: the HTTP status.
        """
        answer = Answer(status, headers={"Location": location})
        return self.add(f"redirect {status}", Action(applied=False, answer=answer), **which)

    def expire_container(self, **which: Any) -> Fault:
        """Let the file container of an upload or a batch expire just before the request is handled."""
        if which.get("operation") is None:
            which["operation"] = "batch"
        return self.add("expire container", Action(expire_container=True), **which)

    def random(
        self, *, seed: int, rate: float = 0.2, kinds: Collection[str] = RANDOM_KINDS, **which: Any
    ) -> Fault:
        """
        Hit requests at random, the same ones for the same seed and the same requests in the same order.

        :param seed: the seed.
        :param rate: the share of requests to hit.
        :param kinds: what to draw from: ``429``, ``500``, ``502`` (an HTML page), ``503``, ``504``,
            ``applied`` (a 500 although all was done), ``drop`` (nothing was done), ``drop_applied``.
        """
        unknown = set(kinds) - set(RANDOM_KINDS)
        if unknown:
            raise ValueError(f"No such kind of fault: {', '.join(sorted(unknown))}")
        which.setdefault("times", None)
        return self.add("random", None, kinds=tuple(kinds), probability=rate, seed=seed, **which)

    def add(
        self,
        kind: str,
        action: Action | None,
        *,
        operation: str | Collection[str] | None = None,
        method: str | None = None,
        path: str | None = None,
        source: str | None = None,
        status_type: str | None = None,
        query: Mapping[str, str] | None = None,
        times: int | None = 1,
        after: int = 0,
        probability: float = 1.0,
        seed: int = 0,
        kinds: tuple[str, ...] = (),
    ) -> Fault:
        """
        Set a fault with an :class:`Action` of your own; the other methods are handier.

        :param kind: what the fault is called.
        :param action: what happens; ``None`` to draw it from ``kinds``.
        :param kinds: what to draw from.
        """
        match = {
            "operation": operation,
            "method": method,
            "path": path,
            "source": source,
            "status_type": status_type,
            "query": dict(query) if query else None,
        }
        generator = random.Random(seed)  # noqa: S311 - repeatable on purpose
        fault = Fault(kind, action, match, times, after, probability, kinds, random=generator)
        with self._lock:
            self._faults.append(fault)
        return fault

    def from_json(self, description: dict[str, Any]) -> Fault:
        """
        Set a fault as the control API takes it: ``{"kind": "answer", "status": 503, "operation": "status"}``.

        :param description: ``kind``, a method of this class, and its arguments.
        :raises ValueError: if there is no such kind of fault or it takes no such argument.
        """
        arguments = dict(description)
        kind = arguments.pop("kind", None)
        if kind not in self.KINDS:
            raise ValueError(f"kind is one of {', '.join(self.KINDS)}")
        try:
            fault: Fault = getattr(self, kind)(**arguments)
        except TypeError as error:
            raise ValueError(str(error)) from None
        return fault

    def clear(self) -> None:
        """Take back all faults."""
        with self._lock:
            self._faults.clear()

    def strike(self, exchange: Exchange) -> tuple[str, Action] | None:
        """
        Return what happens to a request that came in, ``None`` for nothing.

        :param exchange: the request.
        """
        with self._lock:
            for fault in self._faults:
                if fault.hits(exchange):
                    return fault.draw()
        return None


def _matches(match: Mapping[str, Any], exchange: Exchange) -> bool:
    operation, status_type = match["operation"], match["status_type"]
    if operation is not None:
        wanted = (operation,) if isinstance(operation, str) else operation
        if exchange.operation not in wanted:
            return False
    if match["method"] is not None and match["method"].upper() != exchange.method:
        return False
    if match["path"] is not None and not re.search(match["path"], exchange.path):
        return False
    if match["source"] is not None and match["source"] != exchange.source:
        return False
    if status_type is not None and exchange.query.get("statusType", "").upper() != status_type.upper():
        return False
    query = match["query"] or {}
    return all(exchange.query.get(name) == value for name, value in query.items())


def _random_action(kind: str) -> Action:
    if kind == "drop":
        return Action(applied=False, drop=True)
    if kind == "drop_applied":
        return Action(drop=True)
    if kind == "502":
        return Action(applied=False, answer=Answer(502, BAD_GATEWAY_PAGE, "text/html"))
    if kind == "504":
        return Action(applied=False, answer=Answer(504, GATEWAY_TIMEOUT_BODY))
    status = 500 if kind == "applied" else int(kind)
    body = json.dumps({"errorCode": _ERROR_CODES[status], "message": "Simulated fault."}).encode()
    return Action(applied=kind == "applied", answer=Answer(status, body, headers=_headers(status)))


def _headers(status: int) -> dict[str, str]:
    """Return the headers that an answer of that status bears by Coveo's declaration."""
    return {"Retry-After": "0"} if status == 429 else {}
