"""
Requests by ``requests``.

Each keeps to the limits of an :class:`~airflow_provider_coveo.transports.exchange.Exchange`.
Without Airflow, :class:`RequestsTransport` makes its own sessions. The hook lends it those of ``HttpHook``.
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

#: What is wrong with a request that can't be sent as it stands.
_OWN_FAULTS: Final = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidProxyURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    urllib3.exceptions.LocationValueError,
)


class _PresignedQueryFilter(logging.Filter):
    """
    Takes the signature out of what urllib3 logs: each request at debug level, odd headers as a warning.

    Masking each presigned URL through Airflow would make its masker slower with every upload, without end.
    """

    _signature = re.compile(r"(?i)(?:signature|credential|token|[?&]sig)=")

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple) and any(map(self._is_presigned, record.args)):
            record.args = tuple(
                str(arg).split("?", 1)[0] + "?…" if self._is_presigned(arg) else arg for arg in record.args
            )
            # Airflow may show the local variables of a traceback.
            record.exc_info = None
        return True

    def _is_presigned(self, arg: object) -> bool:
        return isinstance(arg, (str, Exception)) and bool(self._signature.search(str(arg)))


_presigned_query_filter = _PresignedQueryFilter()
# A filter of a logger does not see what those below it log.
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
    """The API key as a header. Being an ``AuthBase``, it isn't overridden by a ``~/.netrc``."""

    def __init__(self, api_key: str) -> None:
        self._api_key = api_key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._api_key}"
        return request


class NoAuth(AuthBase):
    """Nothing: a presigned upload refuses credentials, and ``~/.netrc`` would otherwise add some."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class RequestsTransport:
    """
    Sends requests by ``requests``; each thread has its own sessions.

    :param api_session: Returns this thread's session with the API key. Default one of the transport's own.
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

        :param request: The request. One to ``storage`` goes without the API key.
        :param settings: The settings.
        :param timeouts: The limits of one attempt.
        :raises CoveoError: if the request can't be sent as it is.
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
            # Its text can hold a presigned URL.
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

    :param products: What else it names, such as ``airflow/3.3.2``.
    """
    return " ".join(
        (f"airflow-provider-coveo/{__version__}", *products, f"python/{platform.python_version()}")
    )


def configure_session(
    session: requests.Session, settings: ConnectionSettings, options: Mapping[str, Any] | None = None
) -> None:
    """
    Have a session use the connection's proxies and TLS settings.

    :param session: The session.
    :param settings: The settings.
    :param options: What wins over the settings, as ``HttpHook`` takes it in ``extra_options``.
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
    :raises CoveoError: if no response came.
    """
    exchange = Exchange(total=timeouts.total, stop=stop)
    failure: CoveoError | None = None
    response: requests.Response | None = None
    try:
        with exchange:
            response = _sent(session, prepared, (timeouts.connect, timeouts.read), allow_redirects)
            _read_body(response)
    except Exception as problem:
        # The text of these exceptions can hold a signed URL, so they are not chained to ours.
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
    """Have a session's requests keep to the exchange that is open in the thread."""
    for scheme in ("https://", "http://"):
        session.mount(scheme, LimitedAdapter())


def tls_and_proxies(session: requests.Session, url: str) -> dict[str, Any]:
    """
    Return a session's proxies and TLS settings for a URL, the environment's where it has none.

    ``http`` is for this machine's loopback address, and stays on this machine: a proxy on another one, such
    as the environment may name for all hosts, would get the API key in clear.
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
    """Send a request, and return its response with the body still to be read."""
    options = {"timeout": timeout, **tls_and_proxies(session, str(prepared.url))}
    if allow_redirects:
        return session.send(prepared, allow_redirects=True, **options)
    # A session reads where a redirect leads to, and its whole body, also if it is not to follow.
    return session.get_adapter(str(prepared.url)).send(prepared, **options)


def _read_body(response: requests.Response) -> None:
    """Read an response's body, no longer than is sane, and free the connection for the next request."""
    if 300 <= response.status_code < 400:
        # Nothing in it is of use, and who sent it is not Coveo.
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
    response._content = bytes(body[:limit])  # what requests itself sets when it reads a body whole


def _failure_of(exchange: Exchange, action: str, problem: Exception) -> CoveoError:
    """Return the error for an exchange that ended with an exception."""
    if exchange.is_stopped:
        stopped = stopped_error(action, "the request was ended before its response came")
        stopped.may_be_done = exchange.is_begun
        return stopped
    if exchange.is_overdue:
        overdue = NoAnswerError(
            action,
            answer=f"timed out: the request as a whole took longer than {exchange.total:g} s",
            cause="a line that is slower than the request allows for, or a peer that keeps it open",
            remedy="Raise the connection's total_timeout, or make batches smaller",
        )
        overdue.may_be_done = exchange.is_begun
        return overdue
    return transport_error(action, problem)


def _unsent_error(action: str, status_code: int) -> CoveoError:
    """Return the error of a success that came before the request was sent."""
    return NoAnswerError(
        action,
        answer=f"{status_code} came before the request was sent whole, so it can't be its response",
        cause="a proxy or a gateway that mixes up responses",
    )


def transport_error(action: str, problem: Exception) -> CoveoError:
    """
    Return the error for any exception that a request ended with, without what those repeat of it.

    :param action: The action, for the message.
    :param problem: An exception of requests, urllib3, http.client, a socket, TLS or a decoder.
    """
    name = type(problem).__name__
    if isinstance(problem, requests.exceptions.InvalidHeader):
        # The request's own headers are known to be right, so it is an response's: a broken gateway. The text
        # of this exception can hold the key.
        return NoAnswerError(action, answer=f"{name}: the response's headers contradict each other")
    if isinstance(problem, UnicodeError):
        # Its text holds the bytes that could not be read.
        return NoAnswerError(action, answer=f"{name}: the response can't be read")
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
        # Among the latter is an unreadable CA bundle.
        return CoveoConfigurationError(action, answer=words)
    return _unsent_if_so(NoAnswerError(action, answer=words), problem)


def _unsent_if_so(error: NoAnswerError, problem: Exception) -> NoAnswerError:
    """Let an error say that nothing was sent where no connection came about."""
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
