"""The HTTP side: read a request, find its handler, apply faults, record, and respond."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from asyncio import Transport
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from email.utils import format_datetime
from urllib.parse import parse_qsl

from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from airflow_provider_coveo.simulator import control, logs_api, platform_api, push_api, uploads
from airflow_provider_coveo.simulator.call import Call, json_answer
from airflow_provider_coveo.simulator.errors import ApiError, StorageError
from airflow_provider_coveo.simulator.exchange import Answer, Exchange
from airflow_provider_coveo.simulator.faults import Action
from airflow_provider_coveo.simulator.items import MEGABYTE
from airflow_provider_coveo.simulator.world import World

log = logging.getLogger(__name__)

#: The maximum body of a request to the API itself: a single item, identity or alias.
REQUEST_LIMIT = 6 * MEGABYTE


class Gone(Exception):  # noqa: N818 - it is not an error
    """The client disconnected before its request was complete."""


class App:
    """
    The ASGI application.

    :param simulator: the simulator, with its state and faults.
    :param transports: the open connections by the client's address, for faults that close one.
    """

    def __init__(self, simulator: World, transports: MutableMapping[object, Transport]) -> None:
        self.simulator = simulator
        self.transports = transports
        self.closing = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            route, path, group = _find(scope)
            limit = uploads.UPLOAD_LIMIT if group is uploads.ROUTES else REQUEST_LIMIT
            body, size = await _read(receive, limit)
            if group is control.ROUTES and route is not None:
                await _send(send, control.handle(self.simulator, route, _exchange(scope, body, size)))
            else:
                await self._exchange(scope, receive, send, route, path, group, body, size)
        except Gone:
            pass

    async def _exchange(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        route: Route | None,
        path: dict[str, str],
        group: Sequence[Route],
        body: bytes,
        size: int,
    ) -> None:
        simulator = self.simulator
        exchange = _exchange(scope, body, size)
        exchange.operation = route.name if route else ""
        exchange.source = path.get("source", path.get("provider", ""))
        exchange.at = simulator.clock.now_ms()
        arrived = time.perf_counter()
        simulator.record(exchange)
        action = Action()
        struck = simulator.faults.strike(exchange)
        if struck is not None:
            exchange.fault, action = struck
        # The URL has the host name of the request, such as a container's.
        base_url = f"{simulator.scheme}://{exchange.headers['host']}"
        call = Call(exchange, path, simulator.state, str(uuid.uuid4()), base_url)
        if action.expire_container:
            simulator.state.expire_container(path.get("file") or exchange.query.get("fileId", ""))
        answer = self._handle(route, group, call) if action.applied else Answer(500)
        answer = action.answer or answer
        if action.stall_seconds:
            await self._stall(action.stall_seconds)
        if action.drop:
            exchange.seconds = time.perf_counter() - arrived
            simulator.answered(exchange)
            await self._hang_up(scope, receive)
            return
        headers = {"Date": format_datetime(simulator.clock.utcnow(), usegmt=True), **answer.headers}
        headers.setdefault("x-amz-request-id" if group is uploads.ROUTES else "X-Request-ID", call.request_id)
        if answer.body:
            headers.setdefault("Content-Type", answer.content_type)
        exchange.status = answer.status
        exchange.response_headers = {name.lower(): value for name, value in headers.items()}
        exchange.response_body = answer.body
        exchange.seconds = time.perf_counter() - arrived
        simulator.answered(exchange)
        complete = Answer(answer.status, answer.body, headers=headers)
        await _send(send, complete, keep_bytes=action.keep_bytes)
        if action.keep_bytes is not None:
            await self._hang_up(scope, receive)

    def _handle(self, route: Route | None, group: Sequence[Route], call: Call) -> Answer:
        try:
            if route is None:
                return _nothing_there(call.exchange)
            if group is not uploads.ROUTES:
                self._admit(group, call)
            with call.organization.reading():
                # This executes everything that has come due.
                pass
            answer: Answer = route.endpoint(call)
        except ApiError as error:
            answer = json_answer({"errorCode": error.code, "message": error.message}, error.status)
            answer.headers.update(error.headers)
            return answer
        except StorageError as error:
            return uploads.storage_error(error, call.request_id)
        except Exception:
            log.exception("The simulator failed to handle %s %s", call.exchange.method, call.exchange.path)
            message = "The simulator itself failed; see its log."
            return json_answer({"errorCode": "SIMULATOR_FAILED", "message": message}, 500)
        return answer

    def _admit(self, group: Sequence[Route], call: Call) -> None:
        """Reject unauthorized, oversized and rate-limited requests."""
        scheme, _, key = call.exchange.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise ApiError(401, "UNAUTHORIZED", "An Authorization header with a Bearer token is required.")
        if key.strip() not in {self.simulator.api_key, self.simulator.push_only_key}:
            raise ApiError(401, "INVALID_TOKEN", "The token is invalid or has expired.")
        state = call.organization
        if call.path.get("organization", state.id) != state.id:
            message = f"There is no organization {call.path['organization']!r}."
            raise ApiError(404, "ORGANIZATION_NOT_FOUND", message)
        privileged = group is platform_api.ROUTES or group is logs_api.ROUTES
        if privileged and key.strip() != self.simulator.api_key:
            raise ApiError(403, "ACCESS_DENIED", "The API key lacks a privilege that this request needs.")
        if call.exchange.body_size > REQUEST_LIMIT:
            message = f"The body is longer than {REQUEST_LIMIT} bytes."
            raise ApiError(413, "REQUEST_ENTITY_TOO_LARGE", message)
        if group is push_api.ROUTES:
            if state.paused:
                raise ApiError(400, "ORGANIZATION_IS_PAUSED", "The organization is paused.")
            state.count_call()

    async def _stall(self, seconds: float) -> None:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.closing.wait(), seconds)

    async def _hang_up(self, scope: Scope, receive: Receive) -> None:
        transport = self.transports.get(tuple(scope["client"]))
        if transport is not None:
            transport.close()
        while (await receive())["type"] != "http.disconnect":
            pass


_GROUPS: tuple[Sequence[Route], ...] = (
    push_api.ROUTES,
    uploads.ROUTES,
    platform_api.ROUTES,
    platform_api.UNPRIVILEGED_ROUTES,
    logs_api.ROUTES,
    control.ROUTES,
)


def _find(scope: Scope) -> tuple[Route | None, dict[str, str], Sequence[Route]]:
    for group in _GROUPS:
        for route in group:
            match, found = route.matches(scope)
            if match is Match.FULL:
                return route, found["path_params"], group
    return None, {}, ()


def _nothing_there(exchange: Exchange) -> Answer:
    message = f"The simulator has no {exchange.method} {exchange.path}."
    if "/stream/" in exchange.path:
        message = "The simulator has no Stream API, only the Push API."
    return json_answer({"errorCode": "NOT_FOUND", "message": message}, 404)


def _exchange(scope: Scope, body: bytes, size: int) -> Exchange:
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    raw_query = scope["query_string"].decode("latin-1")
    return Exchange(
        method=scope["method"],
        path=scope["raw_path"].decode("latin-1"),
        query=dict(parse_qsl(raw_query, keep_blank_values=True)),
        raw_query=raw_query,
        headers=headers,
        body=body,
        body_size=size,
        client_port=scope["client"][1],
    )


async def _read(receive: Receive, limit: int) -> tuple[bytes, int]:
    """Return the body and its size; a body longer than ``limit`` is read, but discarded."""
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        part = message.get("body", b"")
        size += len(part)
        if size <= limit:
            parts.append(part)
        else:
            parts.clear()
        more = message.get("more_body", False)
    return b"".join(parts), size


async def _send(send: Send, answer: Answer, keep_bytes: int | None = None) -> None:
    headers = {"Content-Type": answer.content_type} if answer.body else {}
    headers |= answer.headers
    length = len(answer.body) if keep_bytes is None else max(len(answer.body), keep_bytes + 1)
    headers["Content-Length"] = str(length)
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
    body = answer.body if keep_bytes is None else answer.body[:keep_bytes]
    await send({"type": "http.response.body", "body": body, "more_body": keep_bytes is not None})
