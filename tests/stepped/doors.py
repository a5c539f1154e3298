"""In-process calls of Airflow's two APIs, without a socket and without a thread per request."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import AsyncExitStack, ExitStack
from typing import Any
from urllib.parse import unquote

import anyio.to_thread
import httpx
from airflow.api_fastapi.common.dagbag import dag_bag_from_app
from airflow.api_fastapi.common.db.common import _get_session
from airflow.api_fastapi.execution_api.security import get_team_name_dep
from airflow.sdk.api.client import raise_on_4xx_5xx
from airflow.utils.session import create_session
from fastapi import FastAPI, HTTPException, Response
from fastapi.dependencies import utils
from fastapi.encoders import jsonable_encoder
from fastapi.routing import APIRoute
from starlette.datastructures import QueryParams


def answer_in_place() -> None:
    """Run synchronous endpoints in the calling thread, not in a thread pool."""

    async def run_sync(function: Any, *arguments: Any, **_: Any) -> Any:
        return function(*arguments)

    anyio.to_thread.run_sync = run_sync  # type: ignore[assignment]
    # For each request, FastAPI inspects the signature of each overridden dependency again.
    look = utils.get_dependant
    known: dict[Any, Any] = {}

    def get_dependant(**about: Any) -> Any:
        key = tuple((name, value if callable(value) else repr(value)) for name, value in about.items())
        if key not in known:
            known[key] = look(**about)
        return known[key]

    utils.get_dependant = get_dependant  # type: ignore[assignment]


def of_one_version(api: FastAPI) -> FastAPI:
    """
    Return the newest version of the execution API, which the task runner uses.

    Airflow's own API determines the version of each request, for which it resolves all dependencies twice,
    and converts requests and responses. With the same version on both sides, that has no effect, but takes
    three quarters of its time.

    :param api: the execution API of Airflow, whose dependencies and services are used.
    """
    from airflow.api_fastapi.common.exceptions import init_error_handlers
    from airflow.api_fastapi.execution_api.routes import execution_api_router

    plain = FastAPI(openapi_url=None, lifespan=api.router.lifespan_context)
    plain.state = api.state
    plain.include_router(execution_api_router)
    plain.dependency_overrides = api.dependency_overrides
    init_error_handlers(plain)
    return plain


class ShortWay:
    """
    Calls the endpoints of an API like FastAPI, without the overhead for remote requests.

    FastAPI's own fields validate the request; the endpoint and the model of its response are Airflow's. Calls
    that it does not support are left to FastAPI.

    :param api: the API.
    :param bag: its DAGs.
    """

    def __init__(self, api: FastAPI, bag: Any) -> None:
        self._needs: dict[Any, Any] = {dag_bag_from_app: lambda _: bag, get_team_name_dep: lambda _: None}
        self._needs[_get_session] = lambda stack: stack.enter_context(create_session(scoped=False))
        self._routes: dict[str, list[tuple[APIRoute, bool]]] = {}
        for route in api.routes:
            if isinstance(route, APIRoute):
                for method in route.methods:
                    self._routes.setdefault(method, []).append((route, self._is_short(route)))

    def _is_short(self, route: APIRoute) -> bool:
        dependant = route.dependant
        named = [each.call for each in dependant.dependencies if each.name]
        others = (
            *(dependant.header_params, dependant.cookie_params, dependant.request_param_name),
            *(dependant.response_param_name, dependant.background_tasks_param_name),
        )
        return (
            not any(others)
            and not asyncio.iscoroutinefunction(route.endpoint)
            and all(call in self._needs for call in named)
            and len(dependant.body_params) <= 1
            and not route._embed_body_fields
        )

    def answer(self, method: str, path: str, query: Any, body: Any) -> httpx.Response | None:
        """Return an endpoint's response, ``None`` if FastAPI must handle the request."""
        for route, is_short in self._routes.get(method, ()):
            found = route.path_regex.match(path)
            if not found:
                continue
            if not is_short:
                return None
            given = {
                name: route.param_convertors[name].convert(text) for name, text in found.groupdict().items()
            }
            return self._call(route, given, query, body)
        return None

    def _call(self, route: APIRoute, given: dict[str, Any], query: Any, body: Any) -> httpx.Response | None:
        dependant = route.dependant
        values: dict[str, Any] = {}
        errors: list[Any] = []
        for field in dependant.path_params:
            values[field.name], wrong = field.validate(given[field.alias], {}, loc=("path", field.alias))
            errors += wrong or []
        if dependant.query_params:
            asked = QueryParams(str(httpx.QueryParams(query)))
            more, wrong = utils.request_params_to_args(dependant.query_params, asked)
            values.update(more)
            errors += wrong
        if dependant.body_params:
            if not body:
                return None
            (field,) = dependant.body_params
            values[field.name], wrong = field.validate(json.loads(body), {}, loc=("body",))
            errors += wrong or []
        if errors:
            return None
        try:
            with ExitStack() as stack:
                for each in dependant.dependencies:
                    if each.name:
                        values[each.name] = self._needs[each.call](stack)
                answer = route.endpoint(**values)
        except HTTPException as error:
            return httpx.Response(error.status_code, headers=error.headers, json={"detail": error.detail})
        if isinstance(answer, Response):
            return httpx.Response(answer.status_code, headers=answer.headers.raw, content=bytes(answer.body))
        status = route.status_code or 200
        if status == 204:
            return httpx.Response(status)
        if route.response_field is None:
            return httpx.Response(status, json=jsonable_encoder(answer))
        value, wrong = route.response_field.validate(answer, {}, loc=("response",))
        if wrong:
            raise RuntimeError(wrong)
        content = route.response_field.serialize_json(
            value,
            include=route.response_model_include,
            exclude=route.response_model_exclude,
            by_alias=route.response_model_by_alias,
            exclude_unset=route.response_model_exclude_unset,
            exclude_defaults=route.response_model_exclude_defaults,
            exclude_none=route.response_model_exclude_none,
        )
        return httpx.Response(status, headers={"content-type": "application/json"}, content=content)

    def request(self, method: str, url: str, **about: Any) -> httpx.Response | None:
        """Return the response to a client's request, ``None`` if the client must send it itself."""
        if any(about.get(name) is not None for name in ("data", "files", "cookies")) or "?" in url:
            return None
        body = about.get("content")
        if about.get("json") is not None:
            body = json.dumps(about["json"])
        path = unquote(f"/{url.lstrip('/')}")
        response = self.answer(method, path, about.get("params") or {}, body)
        if response is not None and response.is_error:
            response.request = httpx.Request(method, f"http://in-process.invalid/{url}")
            raise_on_4xx_5xx(response)
        return response


class DirectTransport(httpx.BaseTransport):
    """
    Calls an ASGI application in the calling thread.

    :param app: the application.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._loop = asyncio.new_event_loop()
        self._stack = AsyncExitStack()
        self._loop.run_until_complete(
            self._stack.enter_async_context(app.router.lifespan_context(app)),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        body = request.read()
        url = request.url
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "path": url.path,
            "raw_path": url.raw_path.partition(b"?")[0],
            "query_string": url.query,
            "scheme": url.scheme,
            "server": (url.host, url.port),
            "client": ("127.0.0.1", 1),
            "root_path": "",
        }
        started: dict[str, Any] = {}
        parts: list[bytes] = []
        is_read = False

        async def receive() -> dict[str, Any]:
            nonlocal is_read
            if is_read:
                return {"type": "http.disconnect"}
            is_read = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                started.update(message)
            else:
                parts.append(message.get("body", b""))

        self._run(self._app(scope, receive, send))
        return httpx.Response(started["status"], headers=started["headers"], content=b"".join(parts))

    def _run(self, coroutine: Any) -> None:
        if asyncio._get_running_loop() is None:
            self._loop.run_until_complete(coroutine)
            return
        # Called from within another loop, which can't be interrupted.
        failures: list[BaseException] = []

        def run() -> None:
            try:
                self._loop.run_until_complete(coroutine)
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]
