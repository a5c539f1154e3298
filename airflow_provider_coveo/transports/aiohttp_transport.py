"""
Send requests with aiohttp, on an event loop.

Airflow's HTTP provider depends on aiohttp and its triggers use it, so every triggerer has it.
"""

from __future__ import annotations

import asyncio
import ssl
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import cast
from urllib.parse import urlsplit

import aiohttp
import requests
import yarl
from requests.utils import DEFAULT_CA_BUNDLE_PATH, select_proxy

from airflow_provider_coveo.coveo.connection import ConnectionSettings
from airflow_provider_coveo.coveo.errors import (
    CertificateError,
    CoveoConfigurationError,
    CoveoError,
    NoAnswerError,
    sanitize,
)
from airflow_provider_coveo.coveo.responses import MAX_ERROR_BYTES, MAX_RESPONSE_BYTES, Response
from airflow_provider_coveo.coveo.transport import Request, Timeouts
from airflow_provider_coveo.transports.loop_connections import (
    TrustedConnector,
    has_certain_end,
    used_connections,
)
from airflow_provider_coveo.transports.requests_transport import (
    configure_session,
    own_user_agent,
    tls_and_proxies,
)


@dataclass
class _SharedSession:
    """A session that an event loop's transports share if they verify certificates in the same way."""

    session: aiohttp.ClientSession
    users: int = 0


# With a session per trigger, each would have its own TLS context with all certificates: 950 MB for 1,000
# triggers instead of 20 MB (benchmarks/triggers.py).
_shared_sessions: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[bool | str, _SharedSession]] = (
    weakref.WeakKeyDictionary()
)


@asynccontextmanager
async def _shared_session(verify: bool | str) -> AsyncIterator[aiohttp.ClientSession]:
    """Share a session; the last user closes it."""
    sessions = _shared_sessions.setdefault(asyncio.get_running_loop(), {})
    if verify not in sessions:
        try:
            context = await asyncio.to_thread(_tls_context, verify)
        except OSError as problem:
            raise CoveoConfigurationError(
                f"Could not use the connection's verify {verify!r}",
                answer=f"{type(problem).__name__}: {sanitize(str(problem))}",
            ) from None
        # Another task may have created it meanwhile.
        if verify not in sessions:
            sessions[verify] = _SharedSession(
                aiohttp.ClientSession(
                    connector=TrustedConnector(ssl=context),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    # The environment's proxies apply, as they do for the hook, but ~/.netrc does not.
                    trust_env=False,
                )
            )
    shared = sessions[verify]
    shared.users += 1
    try:
        yield shared.session
    finally:
        shared.users -= 1
        if not shared.users:
            del sessions[verify]
            await shared.session.close()


def _tls_context(verify: bool | str) -> ssl.SSLContext:
    """Return a TLS context that verifies certificates as ``requests`` does."""
    if verify is False:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    authorities = DEFAULT_CA_BUNDLE_PATH if verify is True else verify
    if Path(authorities).is_dir():
        return ssl.create_default_context(capath=authorities)
    return ssl.create_default_context(cafile=authorities)


@dataclass(frozen=True)
class Route:
    """
    The route to a host.

    :param proxy: The proxy, ``None`` for none.
    :param verify: Whether to verify certificates, or the path of a CA bundle.
    """

    proxy: str | None
    verify: bool | str


def routes_of(settings: ConnectionSettings, session: requests.Session | None = None) -> dict[str, Route]:
    """
    Return the route to each base URL, as ``requests`` chooses it.

    :param settings: The settings.
    :param session: A session with these settings. Default: a new one.
    :raises CoveoConfigurationError: if aiohttp can't use the proxy.
    """
    if session is None:
        session = requests.Session()
        configure_session(session, settings)
    routes = {}
    for base in {settings.push_url, settings.platform_url}:
        by_requests = tls_and_proxies(session, base)
        verify = by_requests["verify"]
        proxy = _validate_proxy(select_proxy(base, by_requests["proxies"]))
        routes[base] = Route(proxy, True if verify is None else verify)
    return routes


class AiohttpTransport:
    """
    Sends requests on an event loop. Use it as a context manager.

    While it is open, it shares a session with the other transports of its loop.

    :param user_agent: The ``User-Agent``. Default: that of this package.
    """

    def __init__(self, user_agent: str | None = None) -> None:
        self.routes: dict[str, Route] = {}
        self._user_agent = user_agent or own_user_agent()
        self._sessions: dict[bool | str, aiohttp.ClientSession] = {}
        self._held = AsyncExitStack()

    async def __aenter__(self) -> AiohttpTransport:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sessions.clear()
        await self._held.aclose()

    async def send(self, request: Request, settings: ConnectionSettings, timeouts: Timeouts) -> Response:
        """
        Send a request, and return the response with its body.

        :param request: The request.
        :param settings: The settings.
        :param timeouts: The limits of the attempt.
        :raises CoveoError: if there is no response.
        """
        base = request.base_url(settings)
        if base not in self.routes:
            self.routes.update(routes_of(settings))
        route = self.routes[base]
        session = await self._session(route.verify)
        try:
            with used_connections() as used:
                async with session.request(
                    request.method,
                    # Otherwise, yarl would undo some of the percent-encoding.
                    yarl.URL(request.url(settings), encoded=True),
                    data=cast("bytes | None", request.body),
                    headers=self._headers(settings, request),
                    proxy=route.proxy,
                    timeout=aiohttp.ClientTimeout(
                        total=timeouts.total, sock_connect=timeouts.connect, sock_read=timeouts.read
                    ),
                    allow_redirects=False,
                ) as response:
                    content = await _body(response)
        except Exception as problem:
            # These exceptions can contain secrets, such as the key, so they are not chained.
            failure = _transport_error(request.action, problem)
        else:

            def keep_connection() -> None:
                if has_certain_end(response):
                    _trust(session, used)

            return Response(response.status, response.headers, content, keep_connection, raw=response)
        raise failure

    async def _session(self, verify: bool | str) -> aiohttp.ClientSession:
        if verify not in self._sessions:
            self._sessions[verify] = await self._held.enter_async_context(_shared_session(verify))
        return self._sessions[verify]

    def _headers(self, settings: ConnectionSettings, request: Request) -> dict[str, str]:
        headers = {
            "Authorization": f"Bearer {settings.api_key}",
            "Accept": "application/json",
            "User-Agent": self._user_agent,
        }
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        return headers


def _trust(session: aiohttp.ClientSession, used: Sequence[object]) -> None:
    if isinstance(session.connector, TrustedConnector):
        session.connector.trust(used)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """Return the body, cut at a limit."""
    if 300 <= response.status < 400:
        # A redirect's body is useless, and not Coveo's.
        response.close()
        return b""
    limit = MAX_RESPONSE_BYTES if response.ok else MAX_ERROR_BYTES
    body = bytearray()
    async for chunk in response.content.iter_chunked(64 * 1024):
        body += chunk
        if len(body) > limit:
            response.close()
            break
    return bytes(body[:limit])


def _validate_proxy(proxy: str | None) -> str | None:
    if not proxy:
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if urlsplit(proxy).scheme not in {"http", "https"}:
        raise CoveoConfigurationError(
            "Could not use the proxy of the connection or of the environment in a triggerer",
            cause=f"its scheme is {urlsplit(proxy).scheme}, but triggerers support only http and https",
            remedy="Set deferrable=False",
        )
    return proxy


def _transport_error(action: str, problem: Exception) -> CoveoError:
    if isinstance(problem, UnicodeError):
        # Its text contains the bytes that could not be decoded.
        return NoAnswerError(action, answer=f"{type(problem).__name__}: the response is not readable")
    words = f"{type(problem).__name__}: {sanitize(str(problem))}".rstrip(": ")
    if isinstance(problem, aiohttp.ClientConnectorCertificateError):
        return CertificateError(action, answer=words)
    if isinstance(problem, (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError)):
        return NoAnswerError(action, answer=words, cause="the proxy of the connection or of the environment")
    if isinstance(problem, aiohttp.InvalidURL):
        return CoveoConfigurationError(action, answer=words)
    return NoAnswerError(action, answer=words)
