"""Faults on demand: failures of the network, of a gateway, or of Coveo itself."""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

from airflow_provider_coveo.simulator.exchange import Answer, Exchange

if TYPE_CHECKING:
    from typing_extensions import Unpack

#: A gateway's page when its service is unavailable.
BAD_GATEWAY_PAGE = b"<html><head><title>502</title></head><body><h1>502 Bad Gateway</h1></body></html>"
#: A gateway's timeout has no errorCode.
GATEWAY_TIMEOUT_BODY = b'{"message": "Endpoint request timed out"}'

_ERROR_CODES = {429: "TOO_MANY_REQUESTS", 500: "INTERNAL_SERVER_ERROR", 503: "SERVICE_UNAVAILABLE"}
RANDOM_KINDS = ("429", "500", "502", "503", "504", "applied", "drop", "drop_applied")


class Match(TypedDict, total=False):
    """The properties that a request must have, as :class:`Faults` describes them; ``None`` for any."""

    operation: str | Collection[str] | None
    method: str | None
    path: str | None
    source: str | None
    status_type: str | None
    query: Mapping[str, str] | None


class RandomWhich(Match, total=False):
    """The further arguments of :meth:`Faults.random`; :class:`Faults` describes them."""

    times: int | None
    after: int


class Which(RandomWhich, total=False):
    """The further arguments of all other methods of :class:`Faults`."""

    probability: float
    seed: int


@dataclass
class Action:
    """
    The effect of a fault on one request.

    :param applied: whether Coveo carries out the request.
    :param answer: the response; ``None`` for the handler's response.
    :param drop: whether to close the connection without a response.
    :param keep_bytes: the bytes of the response body to send before closing the connection.
    :param stall_seconds: the seconds to wait before responding.
    :param expire_container: whether the request's file container expires first.
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
    An action, and the requests that it affects.

    :param kind: the method of :class:`Faults` that created it, and its main argument.
    :param action: the effect; ``None`` for a random one.
    :param match: the properties that a request must have.
    :param times: the number of requests to affect; ``None`` for all.
    :param after: the number of matching requests to skip first.
    :param probability: the probability that a matching request is affected.
    :param kinds: the kinds of a random fault.
    :param used: the number of requests affected so far.
    :param random: the random number generator.
    """

    kind: str
    action: Action | None
    match: Match
    times: int | None = 1
    after: int = 0
    probability: float = 1.0
    kinds: tuple[str, ...] = ()
    used: int = 0
    random: random.Random = field(default_factory=lambda: random.Random(0), repr=False)  # noqa: S311

    def hits(self, exchange: Exchange) -> bool:
        """
        Whether this fault affects a request. If so, count it.

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
        """Return the effect on a request that the fault affects."""
        if self.action is not None:
            return self.kind, self.action
        kind = self.random.choice(self.kinds)
        return f"{self.kind}: {kind}", _random_action(kind)

    def describe(self) -> dict[str, object]:
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
    The simulator's faults. Each method adds one and returns it; ``fault.used`` counts the affected requests.

    All methods accept these further arguments, which select the requests and limit their number:

    :param operation: the name of the request: ``status``, ``item``, ``delete``, ``olderthan``, ``batch``,
        ``files``, ``upload``, ``identity``, ``alias``, ``disable_identity``, ``identity_batch``,
        ``identity_olderthan``, ``source``, ``light_source``, ``list_sources``, ``page_sources``,
        ``create_source``, ``delete_source``, ``duplicate_source``, ``abort``, ``push_refresh``,
        ``activities``, ``latest_activities``, ``activity``, ``limit``, ``organization_status``, ``regions``,
        ``logs``, ``log_counts``, ``field``, ``list_fields``, ``create_field``, ``create_fields``,
        ``create_fields_with_results``; or several of them in a list.
    :param method: the HTTP method.
    :param path: a regular expression to search for in the path.
    :param source: the source in the path.
    :param status_type: the status of a status request, such as ``"IDLE"``.
    :param query: further query parameters and their values.
    :param times: the number of requests to affect, 1 by default; ``None`` for all from now on.
    :param after: the number of matching requests to skip first.
    :param probability: the probability that a matching request is affected, from a seeded generator.
    :param seed: the seed of that generator.

    If several faults match a request, the first one that was added applies.
    """

    KINDS = ("answer", "drop", "stall", "truncate", "redirect", "expire_container", "random")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    @property
    def active(self) -> list[Fault]:
        """The faults that can still affect requests."""
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
        **which: Unpack[Which],
    ) -> Fault:
        """
        Respond with ``status``.

        :param status: the HTTP status.
        :param error_code: the ``errorCode`` of the body; by default, one that matches the status.
        :param message: the ``message`` of the body.
        :param headers: further headers, such as ``{"Retry-After": "1"}``. By default, a 429 has
            ``Retry-After: 0``, because Coveo declares a number for every 429; pass ``{}`` to omit it.
        :param body: the whole body, instead of the two above; ``""`` for an empty one.
        :param content_type: the type of that body.
        :param applied: whether Coveo carries out the request anyway.
        """
        if body is None:
            code = error_code or _ERROR_CODES.get(status, f"SIMULATED_{status}")
            body = json.dumps({"errorCode": code, "message": message})
        encoded = body.encode() if isinstance(body, str) else body
        answer = Answer(status, encoded, content_type, _headers(status) if headers is None else dict(headers))
        return self.add(f"answer {status}", Action(applied=applied, answer=answer), **which)

    def drop(self, *, before: bool = True, **which: Unpack[Which]) -> Fault:
        """
        Close the connection without a response, before or after Coveo carries out the request.

        :param before: whether to close the connection before Coveo carries out the request.
        """
        kind = "drop before applying" if before else "drop after applying"
        return self.add(kind, Action(applied=not before, drop=True), **which)

    def stall(self, seconds: float, *, applied: bool = True, **which: Unpack[Which]) -> Fault:
        """
        Carry out the request (or don't, and return 504), but respond only after ``seconds``.

        :param seconds: the delay, in real time.
        :param applied: whether Coveo carries out the request.
        """
        answer = None if applied else Answer(504, GATEWAY_TIMEOUT_BODY)
        action = Action(applied=applied, answer=answer, stall_seconds=seconds)
        return self.add(f"stall {seconds:g} s", action, **which)

    def truncate(self, keep_bytes: int = 10, **which: Unpack[Which]) -> Fault:
        """
        Carry out the request, and close the connection in the middle of the response body.

        :param keep_bytes: the number of bytes of the body to send.
        """
        return self.add(f"truncate after {keep_bytes} bytes", Action(keep_bytes=keep_bytes), **which)

    def redirect(self, location: str, *, status: int = 302, **which: Unpack[Which]) -> Fault:
        """
        Redirect the client.

        :param location: the redirect's target.
        :param status: the HTTP status.
        """
        answer = Answer(status, headers={"Location": location})
        return self.add(f"redirect {status}", Action(applied=False, answer=answer), **which)

    def expire_container(self, **which: Unpack[Which]) -> Fault:
        """Let the file container of an upload or a batch expire just before the request is handled."""
        if which.get("operation") is None:
            which["operation"] = "batch"
        return self.add("expire container", Action(expire_container=True), **which)

    def random(
        self,
        *,
        seed: int,
        rate: float = 0.2,
        kinds: Collection[str] = RANDOM_KINDS,
        **which: Unpack[RandomWhich],
    ) -> Fault:
        """
        Affect random requests: the same ones for the same seed and the same sequence of requests.

        :param seed: the seed.
        :param rate: the share of requests to affect.
        :param kinds: the kinds to choose from: ``429``, ``500``, ``502`` (an HTML page), ``503``, ``504``,
            ``applied`` (a 500 although Coveo carried out the request), ``drop`` (without carrying it out),
            ``drop_applied``.
        """
        unknown = set(kinds) - set(RANDOM_KINDS)
        if unknown:
            raise ValueError(f"Invalid kind of fault: {', '.join(sorted(unknown))}")
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
        Add a fault with an :class:`Action` of your own; the other methods are more convenient.

        :param kind: the name of the fault.
        :param action: the effect; ``None`` for a random one out of ``kinds``.
        :param kinds: the kinds to choose from.
        """
        match: Match = {
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

    def from_json(self, description: Mapping[str, object]) -> Fault:
        """
        Add a fault from the control API's JSON: ``{"kind": "answer", "status": 503, "operation": "status"}``.

        :param description: ``kind``, a method of this class, and its arguments.
        :raises ValueError: if the kind or an argument is invalid.
        """
        arguments = dict(description)
        kind = arguments.pop("kind", None)
        if kind not in self.KINDS:
            raise ValueError(f"Invalid kind: {kind!r}; use one of {', '.join(self.KINDS)}")
        try:
            fault: Fault = getattr(self, kind)(**arguments)
        except TypeError as error:
            raise ValueError(str(error)) from None
        return fault

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._faults.clear()

    def strike(self, exchange: Exchange) -> tuple[str, Action] | None:
        """
        Return the fault's effect on a request, ``None`` for none.

        :param exchange: the request.
        """
        with self._lock:
            for fault in self._faults:
                if fault.hits(exchange):
                    return fault.draw()
        return None


def _matches(match: Match, exchange: Exchange) -> bool:
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
    """Return the headers that Coveo declares for that status."""
    return {"Retry-After": "0"} if status == 429 else {}
