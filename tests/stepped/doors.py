"""How Airflow's two APIs are asked in process, without a socket and without a thread for each question."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack
from typing import Any

import anyio.to_thread
import httpx
from fastapi.dependencies import utils


def answer_in_place() -> None:
    """Have endpoints that aren't asynchronous run where they are asked, not in a pool of threads."""

    async def run_sync(function: Any, *arguments: Any, **_: Any) -> Any:
        return function(*arguments)

    anyio.to_thread.run_sync = run_sync  # type: ignore[assignment]
    # FastAPI looks at the signature of each dependency that is overridden, again for each request.
    look = utils.get_dependant
    known: dict[Any, Any] = {}

    def get_dependant(**about: Any) -> Any:
        key = tuple((name, value if callable(value) else repr(value)) for name, value in about.items())
        if key not in known:
            known[key] = look(**about)
        return known[key]

    utils.get_dependant = get_dependant  # type: ignore[assignment]


class DirectTransport(httpx.BaseTransport):
    """
    Calls an ASGI application in the thread that asks it.

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
        # Asked from within another loop, which can't be left.
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
