"""
Asking Coveo on an event loop, as triggers do.

aiohttp does it: Airflow's HTTP provider brings it along and its own triggers use it, so a triggerer has it.
``HttpAsyncHook`` is not what is built upon: it sends a connection's extras as headers, follows redirects, and
knows no bearer token. The settings are read by the hook itself, so that both have the same.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import ssl
import time
import weakref
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import tenacity
import yarl
from asgiref.sync import sync_to_async
from requests.utils import DEFAULT_CA_BUNDLE_PATH, select_proxy

from airflow_provider_coveo.coveo.connection import ConnectionSettings
from airflow_provider_coveo.coveo.errors import (
    AuthenticationError,
    CertificateError,
    CoveoConfigurationError,
    CoveoError,
    NoAnswerError,
    sanitize,
)
from airflow_provider_coveo.coveo.questions import Asking, Question
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.hooks.metrics import count_request
from airflow_provider_coveo.hooks.responses import json_object, response_error, retry_options
from airflow_provider_coveo.hooks.wire import (
    MAX_ERROR_BYTES,
    MAX_RESPONSE_BYTES,
    settings_for,
    stopped_error,
    user_agent,
)
from airflow_provider_coveo.transports.exchange import SLICE, StopSignal
from airflow_provider_coveo.transports.loop_connections import (
    TrustedConnector,
    has_certain_end,
    used_connections,
)

if TYPE_CHECKING:
    import threading

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass
class _Transport:
    """A session that all clients of an event loop share which verify certificates in the same way."""

    session: aiohttp.ClientSession
    users: int = 0


# A session for each trigger would mean a TLS context for each, with all certificates in it: 950 MB for 1,000
# triggers instead of 20 MB (benchmarks/triggers.py).
_transports: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[bool | str, _Transport]] = (
    weakref.WeakKeyDictionary()
)


@asynccontextmanager
async def _shared_session(verify: bool | str) -> AsyncIterator[aiohttp.ClientSession]:
    """Share a session; the last one to leave closes it."""
    shared = _transports.setdefault(asyncio.get_running_loop(), {})
    if verify not in shared:
        try:
            context = await asyncio.to_thread(_tls_context, verify)
        except OSError as problem:
            raise CoveoConfigurationError(
                f"The connection's verify {verify!r} can't be used",
                answer=f"{type(problem).__name__}: {sanitize(str(problem))}",
            ) from None
        # Another one may have made it meanwhile.
        if verify not in shared:
            shared[verify] = _Transport(
                aiohttp.ClientSession(
                    connector=TrustedConnector(ssl=context),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    # What the environment says of proxies is read as for the hook; ~/.netrc is not.
                    trust_env=False,
                )
            )
    transport = shared[verify]
    transport.users += 1
    try:
        yield transport.session
    finally:
        transport.users -= 1
        if not transport.users:
            del shared[verify]
            await transport.session.close()


def _tls_context(verify: bool | str) -> ssl.SSLContext:
    """Return what the hook's ``requests`` would verify certificates by."""
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
class _Answer:
    """An answer whose body was read."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True)
class _Route:
    """How requests get to a host: through which proxy, and how its certificate is verified."""

    proxy: str | None
    verify: bool | str


class CoveoAsyncClient:
    """
    Ask Coveo on an event loop, with the same settings, patience and errors as :class:`CoveoPushHook`.

    A context manager: while it is open, it shares a session with others of its loop. Cancelling its task ends
    what is under way at once; :meth:`stop` does so from a signal handler or another thread.

    :param coveo_conn_id: The Coveo connection.
    :param organization_id: The organization, where it is not the connection's.
    :param caller: Who asks, for the ``User-Agent`` header.
    :param retry: How patiently requests are repeated; default as the hook's.
    """

    def __init__(
        self,
        coveo_conn_id: str,
        *,
        organization_id: str | None = None,
        caller: str = "CoveoAsyncClient",
        retry: RetryPolicy | None = None,
    ) -> None:
        self._coveo_conn_id = coveo_conn_id
        self._organization_id = organization_id
        self._caller = caller
        self._retry = RetryPolicy() if retry is None else retry
        self._settings: ConnectionSettings | None = None
        self._routes: dict[str, _Route] = {}
        self._sessions: dict[bool | str, aiohttp.ClientSession] = {}
        self._held = AsyncExitStack()
        self._stopped = StopSignal()

    async def __aenter__(self) -> CoveoAsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sessions.clear()
        await self._held.aclose()

    def stop(self) -> None:
        """End what is under way within two seconds, and let no further request begin; it takes no lock."""
        self._stopped.set()

    async def conclusion(self, asking: Asking[T]) -> T:
        """
        Ask questions one after the other, and return what is concluded from the answers.

        :raises CoveoError: if Coveo refuses, or does not answer.
        """
        try:
            question = next(asking)
            while True:
                try:
                    answer = await self._ask(question)
                except CoveoError as error:
                    question = asking.throw(error)
                else:
                    question = asking.send(answer)
        except StopIteration as end:
            concluded: T = end.value
            return concluded

    async def settings(self) -> ConnectionSettings:
        """Return the connection's settings, read on first use."""
        if self._settings is None:
            self._settings = await self._read_settings()
        return self._settings

    async def _read_settings(self) -> ConnectionSettings:
        # In a thread: before Airflow 3 it asks the database, and since then it blocks until the supervisor
        # answers.
        return await sync_to_async(self._read_settings_blocking)()

    def _read_settings_blocking(self) -> ConnectionSettings:
        hook = CoveoPushHook(self._coveo_conn_id, organization_id=self._organization_id, caller=self._caller)
        with hook.get_conn() as session:
            settings = hook.settings
            for base in {settings.push_url, settings.platform_url}:
                by_requests = settings_for(session, base)
                proxy = select_proxy(base, by_requests["proxies"])
                verify = by_requests["verify"]
                self._routes[base] = _Route(_validate_proxy(proxy), True if verify is None else verify)
        return settings

    async def _ask(self, question: Question) -> dict[str, Any]:
        settings = await self.settings()
        try:
            return await self._ask_as(settings, question)
        except AuthenticationError:
            # Whoever waits for days outlives a key: the connection may have a new one.
            self._settings = await self._read_settings()
            if self._settings == settings:
                raise
            return await self._ask_as(self._settings, question)

    async def _ask_as(self, settings: ConnectionSettings, question: Question) -> dict[str, Any]:
        base = settings.platform_url if question.of_platform else settings.push_url
        url = base + question.path
        if question.query:
            url += "?" + urlencode(question.query, quote_via=quote, safe="")
        attempts = itertools.count(1)
        session = await self._session(self._routes[base].verify)

        async def attempt() -> dict[str, Any]:
            sending = self._send(session, settings, question, url, base, next(attempts))
            return await self._unless_stopped(sending, question.tried)

        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_before_delay(self._retry.total_seconds)
            | tenacity.stop_when_event_set(cast("threading.Event", self._stopped)),
            sleep=self._sleep,
            **retry_options(self._retry, log),
        )
        answer: dict[str, Any] = await retrying(attempt)
        return answer

    async def _unless_stopped(self, sending: Coroutine[Any, Any, T], tried: str) -> T:
        if self._stopped.is_set():
            sending.close()
            raise stopped_error(tried, "nothing was sent")
        request = asyncio.ensure_future(sending)
        try:
            while not (await asyncio.wait({request}, timeout=SLICE))[0]:
                if self._stopped.is_set():
                    raise stopped_error(tried, "the request was ended before its response came")
        finally:
            # Without effect on one that is over.
            request.cancel()
        return request.result()

    async def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopped.is_set() and (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, SLICE))

    async def _session(self, verify: bool | str) -> aiohttp.ClientSession:
        if verify not in self._sessions:
            self._sessions[verify] = await self._held.enter_async_context(_shared_session(verify))
        return self._sessions[verify]

    async def _send(
        self,
        session: aiohttp.ClientSession,
        settings: ConnectionSettings,
        question: Question,
        url: str,
        base: str,
        attempt: int,
    ) -> dict[str, Any]:
        seconds = max(settings.timeout[1], question.answer_seconds or 0)
        body = None if question.body is None else json.dumps(question.body).encode()
        total = settings.total_seconds(len(body or b""), seconds)
        started = time.monotonic()
        outcome: int | str = "cancelled"
        failure: CoveoError | None = None
        try:
            with used_connections() as used:
                async with session.request(
                    question.method,
                    # yarl would otherwise undo some of the percent-encoding.
                    yarl.URL(url, encoded=True),
                    data=body,
                    headers=self._headers(settings, question),
                    proxy=self._routes[base].proxy,
                    timeout=aiohttp.ClientTimeout(
                        total=total, sock_connect=settings.timeout[0], sock_read=seconds
                    ),
                    allow_redirects=False,
                ) as response:
                    answer = _Answer(response.status, response.headers, await _body(response))
            parsed, failure = _understood(answer, question)
            outcome = answer.status_code
            if failure is None and has_certain_end(response):
                _trust(session, used)
        except Exception as problem:
            # These exceptions can hold more than should be shown, such as the key, so they are not chained.
            failure = _error_without_answer(question.tried, problem)
            outcome = type(failure).__name__
        finally:
            log.debug(
                "%s %s -> %s in %.0f ms (attempt %d)",
                question.method,
                urlsplit(url).path,
                outcome,
                (time.monotonic() - started) * 1000,
                attempt,
            )
        count_request(outcome)
        if failure is not None:
            raise failure
        return parsed

    def _headers(self, settings: ConnectionSettings, question: Question) -> dict[str, str]:
        headers = {
            "Authorization": f"Bearer {settings.api_key}",
            "Accept": "application/json",
            "User-Agent": f"{user_agent()} caller/{self._caller}",
        }
        if question.body is not None:
            headers["Content-Type"] = "application/json"
        return headers


def _trust(session: aiohttp.ClientSession, used: list[Any]) -> None:
    if isinstance(session.connector, TrustedConnector):
        session.connector.trust(used)


def _understood(answer: _Answer, question: Question) -> tuple[dict[str, Any], CoveoError | None]:
    """Return what an answer says, and the error that it stands for if it does."""
    refused = response_error(answer, question.tried, expected=question.expected)
    if refused is not None:
        return {}, refused
    try:
        return json_object(answer, question.tried, *question.keys), None
    except CoveoError as error:
        return {}, error


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """Return the body, no longer than is sane."""
    if 300 <= response.status < 400:
        # Nothing in it is of use, and who sent it is not Coveo.
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
            "A triggerer can't use the connection's or the environment's proxy",
            cause=f"it is one of {urlsplit(proxy).scheme}, and only http and https are spoken there",
            remedy="Wait with deferrable=False",
        )
    return proxy


def _error_without_answer(tried: str, problem: Exception) -> CoveoError:
    if isinstance(problem, UnicodeError):
        # Its text holds the bytes that could not be read.
        return NoAnswerError(tried, answer=f"{type(problem).__name__}: the response can't be read")
    words = f"{type(problem).__name__}: {sanitize(str(problem))}".rstrip(": ")
    if isinstance(problem, aiohttp.ClientConnectorCertificateError):
        return CertificateError(tried, answer=words)
    if isinstance(problem, (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError)):
        return NoAnswerError(tried, answer=words, cause="the proxy of the connection or of the environment")
    if isinstance(problem, aiohttp.InvalidURL):
        return CoveoConfigurationError(tried, answer=words)
    return NoAnswerError(tried, answer=words)
