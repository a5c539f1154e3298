"""
Send requests with ``requests``.

Each request respects the limits of an :class:`~airflow_provider_coveo.transports.exchange.Exchange`.
Without Airflow, :class:`RequestsTransport` creates its own sessions. The hook passes those of ``HttpHook``.
"""

from __future__ import annotations

import functools
import logging
import platform
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, cast
from urllib.parse import urlsplit

import requests
import urllib3
from requests.auth import AuthBase
from requests.utils import select_proxy

from airflow_provider_coveo import __version__
from airflow_provider_coveo.coveo.connection import ConnectionSettings
from airflow_provider_coveo.coveo.endpoints import is_on_this_machine
from airflow_provider_coveo.coveo.errors import (
    CertificateError,
    CoveoConfigurationError,
    CoveoError,
    NoAnswerError,
    sanitize,
)
from airflow_provider_coveo.coveo.responses import (
    MAX_ERROR_BYTES,
    MAX_RESPONSE_BYTES,
    Response,
    stopped_error,
)
from airflow_provider_coveo.coveo.stop import StopSignal
from airflow_provider_coveo.coveo.transport import Request, Send, Timeouts
from airflow_provider_coveo.transports.adapter import LimitedAdapter
from airflow_provider_coveo.transports.exchange import Exchange

#: The exceptions for a request that is invalid itself.
_OWN_FAULTS: Final = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidProxyURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    urllib3.exceptions.LocationValueError,
)


class _PresignedQueryFilter(logging.Filter):
    """
    Removes signatures from urllib3's logs: each request at debug level, malformed headers as a warning.

    Registering each presigned URL with Airflow's masker would make the masker slower with every upload.
    """

    _signature = re.compile(r"(?i)(?:signature|credential|token|[?&]sig)=")

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple) and any(map(self._is_presigned, record.args)):
            record.args = tuple(
                str(arg).split("?", 1)[0] + "?…" if self._is_presigned(arg) else arg for arg in record.args
            )
            # Airflow can show the local variables of a traceback.
            record.exc_info = None
        return True

    def _is_presigned(self, arg: object) -> bool:
        return isinstance(arg, (str, Exception)) and bool(self._signature.search(str(arg)))


_presigned_query_filter = _PresignedQueryFilter()
# A logger's filter does not apply to its child loggers.
for _logger_name in (
    "urllib3",
    "urllib3.connection",
    "urllib3.connectionpool",
    "urllib3.poolmanager",
    "urllib3.response",
    "urllib3.util",
    "urllib3.util.retry",
):
    logging.getLogger(_logger_name).addFilter(_presigned_query_filter)


class BearerAuth(AuthBase):
    """Sends the API key as a header. As an ``AuthBase``, it takes precedence over ``~/.netrc``."""

    def __init__(self, api_key: str) -> None:
        self._api_key = api_key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._api_key}"
        return request


class NoAuth(AuthBase):
    """Sends no credentials: presigned uploads reject them, and without this, ``~/.netrc`` could add some."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class RequestsTransport:
    """
    Sends requests with ``requests``; each thread has its own sessions.

    :param api_session: Returns this thread's session with the API key. Default: the transport's own.
    :param user_agent: The ``User-Agent`` of the transport's own sessions.
    """

    def __init__(
        self, api_session: Callable[[], requests.Session] | None = None, *, user_agent: str | None = None
    ) -> None:
        self._api_session = api_session
        self._user_agent = user_agent or own_user_agent()
        self._thread = threading.local()

    def prepare(self, request: Request, settings: ConnectionSettings, timeouts: Timeouts) -> Send:
        """
        Return the function that sends a request.

        :param request: The request. Requests to ``storage`` are sent without the API key.
        :param settings: The settings.
        :param timeouts: The limits of one attempt.
        :raises CoveoError: if the request is invalid.
        """
        if request.host == "storage":
            session, headers = self._storage_session(settings), dict(request.headers)
        else:
            session, headers = self._session(settings), dict(request.headers)
            if request.body is not None:
                headers["Content-Type"] = "application/json"
        url = request.url(settings)
        try:
            prepared = session.prepare_request(
                requests.Request(
                    request.method, url, data=cast("bytes | None", request.body), headers=headers
                )
            )
        except (requests.RequestException, UnicodeError) as problem:
            # Its text can contain a presigned URL.
            raise transport_error(request.action, problem) from None
        return functools.partial(send_prepared, session, prepared, request.action, timeouts=timeouts)

    def _session(self, settings: ConnectionSettings) -> requests.Session:
        if self._api_session is not None:
            return self._api_session()
        session: requests.Session | None = getattr(self._thread, "api", None)
        if session is None:
            session = requests.Session()
            session.auth = BearerAuth(settings.api_key)
            session.headers["User-Agent"] = self._user_agent
            session.headers["Accept"] = "application/json"
            configure_session(session, settings)
            mount_limits(session)
            self._thread.api = session
        return session

    def _storage_session(self, settings: ConnectionSettings) -> requests.Session:
        session: requests.Session | None = getattr(self._thread, "storage", None)
        if session is None:
            session = requests.Session()
            session.auth = NoAuth()
            configure_session(session, settings)
            mount_limits(session)
            self._thread.storage = session
        return session


@functools.cache
def own_user_agent(*products: str) -> str:
    """
    Return the ``User-Agent`` of this package.

    :param products: Further products to name, such as ``airflow/3.3.2``.
    """
    return " ".join(
        (f"airflow-provider-coveo/{__version__}", *products, f"python/{platform.python_version()}")
    )


def configure_session(
    session: requests.Session, settings: ConnectionSettings, options: Mapping[str, Any] | None = None
) -> None:
    """
    Apply the connection's proxies and TLS settings to a session.

    :param session: The session.
    :param settings: The settings.
    :param options: Options that override the settings, like ``extra_options`` of ``HttpHook``.
    """
    options = {} if options is None else options
    session.proxies = dict(options.get("proxies") or options.get("proxy") or settings.proxies)
    session.verify = options.get("verify", settings.verify)
    session.stream = True
    session.cert = options.get("cert")


def send_prepared(
    session: requests.Session,
    prepared: requests.PreparedRequest,
    action: str,
    stop: StopSignal,
    *,
    timeouts: Timeouts,
    allow_redirects: bool = False,
) -> Response:
    """
    Send a prepared request once.

    :param session: The session.
    :param prepared: The request.
    :param action: The action, for the message of the error.
    :param stop: Ends the attempt.
    :param timeouts: The limits of the attempt.
    :param allow_redirects: Whether to follow redirects. Default ``False``.
    :raises CoveoError: if there is no response.
    """
    exchange = Exchange(total=timeouts.total, stop=stop)
    failure: CoveoError | None = None
    response: requests.Response | None = None
    try:
        with exchange:
            response = _sent(session, prepared, (timeouts.connect, timeouts.read), allow_redirects)
            _read_body(response)
    except Exception as problem:
        # The text of these exceptions can contain a presigned URL, so they are not chained.
        failure = _failure_of(exchange, action, problem)
    if failure is None and response is not None and response.ok and not exchange.is_sent:
        failure = _unsent_error(action, response.status_code)
    if failure is not None or response is None:
        exchange.end()
        assert failure is not None
        raise failure
    return Response(
        response.status_code,
        response.headers,
        response.content,
        keep_connection=exchange.end_if_uncertain,
        drop_connection=exchange.end,
        raw=response,
    )


def mount_limits(session: requests.Session) -> None:
    """Make a session's requests respect the limits of the thread's current exchange."""
    for scheme in ("https://", "http://"):
        session.mount(scheme, LimitedAdapter())


def tls_and_proxies(session: requests.Session, url: str) -> dict[str, Any]:
    """
    Return a session's proxies and TLS settings for a URL, with those of the environment as defaults.

    ``http`` is allowed only for loopback addresses, and must stay on this machine. A proxy on another
    machine, which the environment can set for all hosts, would receive the API key unencrypted.
    """
    settings: dict[str, Any] = dict(
        session.merge_environment_settings(url, session.proxies, session.stream, session.verify, session.cert)
    )
    if urlsplit(url).scheme == "http":
        proxy = select_proxy(url, settings["proxies"])
        if proxy and not is_on_this_machine(proxy):
            settings["proxies"] = {}
    return settings


def _sent(
    session: requests.Session,
    prepared: requests.PreparedRequest,
    timeout: tuple[float, float],
    allow_redirects: bool,
) -> requests.Response:
    """Send a request, and return its response with an unread body."""
    options = {"timeout": timeout, **tls_and_proxies(session, str(prepared.url))}
    if allow_redirects:
        return session.send(prepared, allow_redirects=True, **options)
    # A session parses a redirect's target and reads its whole body, even if it does not follow it.
    return session.get_adapter(str(prepared.url)).send(prepared, **options)


def _read_body(response: requests.Response) -> None:
    """Read a response's body up to a limit, and release the connection for the next request."""
    if 300 <= response.status_code < 400:
        # A redirect's body is useless, and not Coveo's.
        response.close()
        response._content = b""
        return
    limit = MAX_RESPONSE_BYTES if response.ok else MAX_ERROR_BYTES
    body = bytearray()
    for chunk in response.iter_content(64 * 1024):
        body += chunk
        if len(body) > limit:
            response.close()
            break
    response._content = bytes(body[:limit])  # requests sets this attribute when it reads a whole body


def _failure_of(exchange: Exchange, action: str, problem: Exception) -> CoveoError:
    """Return the error for an exchange that ended with an exception."""
    if exchange.is_stopped:
        stopped = stopped_error(action, "the request was interrupted before its response arrived")
        stopped.may_be_done = exchange.is_begun
        return stopped
    if exchange.is_overdue:
        overdue = NoAnswerError(
            action,
            answer=f"timed out: the whole request took longer than {exchange.total:g} s",
            cause="the network is too slow for this request, or the peer keeps the connection open",
            remedy="Raise the connection's total_timeout, or make batches smaller",
        )
        overdue.may_be_done = exchange.is_begun
        return overdue
    return transport_error(action, problem)


def _unsent_error(action: str, status_code: int) -> CoveoError:
    """Return the error for a success response that arrived before the request was sent."""
    return NoAnswerError(
        action,
        answer=f"{status_code} arrived before the complete request was sent, so it is not its response",
        cause="a proxy or a gateway mixes up responses",
    )


def transport_error(action: str, problem: Exception) -> CoveoError:
    """
    Return the error for an exception of a request, without the request's data that the exception may repeat.

    :param action: The action, for the message.
    :param problem: An exception of requests, urllib3, http.client, a socket, TLS or a decoder.
    """
    name = type(problem).__name__
    if isinstance(problem, requests.exceptions.InvalidHeader):
        # The request's headers were validated, so this is about the response's: a broken gateway. The text of
        # this exception can contain the key.
        return NoAnswerError(action, answer=f"{name}: the response's headers contradict each other")
    if isinstance(problem, UnicodeError):
        # Its text contains the bytes that could not be decoded.
        return NoAnswerError(action, answer=f"{name}: the response is not readable")
    words = f"{name}: {sanitize(str(_innermost(problem)))}"
    if isinstance(problem, requests.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in words:
        return CertificateError(action, answer=words)
    if isinstance(problem, requests.exceptions.ProxyError):
        return _unsent_if_so(
            NoAnswerError(action, answer=words, cause="the proxy of the connection or of the environment"),
            problem,
        )
    if isinstance(problem, _OWN_FAULTS) or (
        isinstance(problem, OSError)
        and not isinstance(problem, (requests.RequestException, ConnectionError, TimeoutError))
    ):
        # This includes an unreadable CA bundle.
        return CoveoConfigurationError(action, answer=words)
    return _unsent_if_so(NoAnswerError(action, answer=words), problem)


def _unsent_if_so(error: NoAnswerError, problem: Exception) -> NoAnswerError:
    """If there was no connection, record in the error that nothing was sent."""
    is_unsent = isinstance(problem, requests.exceptions.ConnectTimeout) or isinstance(
        _innermost(problem), urllib3.exceptions.NewConnectionError
    )
    error.may_be_done = not is_unsent
    return error


def _innermost(problem: BaseException) -> object:
    while True:
        inner = getattr(problem, "reason", None) or (problem.args[0] if problem.args else None)
        if not isinstance(inner, BaseException):
            return problem
        problem = inner
