"""Authentication, identification and reading on the wire, and what of it never shows in a log."""

from __future__ import annotations

import functools
import importlib
import logging
import platform
import re
from typing import Any, Final
from urllib.parse import urlsplit

import requests
import urllib3
from requests.auth import AuthBase
from requests.utils import select_proxy

from airflow_provider_coveo import __version__
from airflow_provider_coveo.coveo.endpoints import is_on_this_machine
from airflow_provider_coveo.coveo.errors import (
    CertificateError,
    CoveoConfigurationError,
    CoveoError,
    NoAnswerError,
    sanitize,
)
from airflow_provider_coveo.transports.adapter import LimitedAdapter
from airflow_provider_coveo.transports.exchange import Exchange

#: No more of a successful answer than this is read; a page of a hundred sources is far below it.
MAX_RESPONSE_BYTES = 64 * 1024 * 1024
#: No more of an error's body than this is read.
MAX_ERROR_BYTES = 64 * 1024

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


@functools.cache
def user_agent() -> str:
    from airflow import __version__ as airflow_version

    return (
        f"airflow-provider-coveo/{__version__} airflow/{airflow_version} python/{platform.python_version()}"
    )


def mask_in_logs(secret: str) -> None:
    """Have Airflow mask ``secret`` in logs, by the function that its version has for it."""
    for module in (
        "airflow.sdk.log",
        "airflow.sdk.execution_time.secrets_masker",
        "airflow.utils.log.secrets_masker",
    ):
        try:
            mask_secret = importlib.import_module(module).mask_secret
        except (ImportError, AttributeError):
            continue
        mask_secret(secret)
        return


def read_body(answer: requests.Response) -> None:
    """Read an answer's body, no longer than is sane, and free the connection for the next request."""
    if 300 <= answer.status_code < 400:
        # Nothing in it is of use, and who sent it is not Coveo.
        answer.close()
        answer._content = b""
        return
    limit = MAX_RESPONSE_BYTES if answer.ok else MAX_ERROR_BYTES
    body = bytearray()
    for chunk in answer.iter_content(64 * 1024):
        body += chunk
        if len(body) > limit:
            answer.close()
            break
    answer._content = bytes(body[:limit])  # what requests itself sets when it reads a body whole


def mount_limits(session: requests.Session) -> None:
    """Have a session's requests keep to the exchange that is open in the thread."""
    for scheme in ("https://", "http://"):
        session.mount(scheme, LimitedAdapter())


def settings_for(session: requests.Session, url: str) -> dict[str, Any]:
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


def sent(
    session: requests.Session, prepared: requests.PreparedRequest, *, timeout: Any, allow_redirects: bool
) -> requests.Response:
    """Send a request, and return its response with the body still to be read."""
    options = {"timeout": timeout, **settings_for(session, str(prepared.url))}
    if allow_redirects:
        return session.send(prepared, allow_redirects=True, **options)
    # A session reads where a redirect leads to, and its whole body, also if it is not to follow.
    return session.get_adapter(str(prepared.url)).send(prepared, **options)


def failure_of(exchange: Exchange, tried: str, problem: Exception) -> CoveoError:
    """Return the error for an exchange that ended with an exception."""
    if exchange.is_stopped:
        stopped = stopped_error(tried, "the request was ended before its response came")
        stopped.may_be_done = exchange.is_begun
        return stopped
    if exchange.is_overdue:
        overdue = NoAnswerError(
            tried,
            answer=f"timed out: the request as a whole took longer than {exchange.total:g} s",
            cause="a line that is slower than the request allows for, or a peer that keeps it open",
            remedy="Raise the connection's total_timeout, or make batches smaller",
        )
        overdue.may_be_done = exchange.is_begun
        return overdue
    return transport_error(tried, problem)


def stopped_error(tried: str, what: str) -> NoAnswerError:
    """Return the error of a request that the end of its task ended, or kept from beginning."""
    return NoAnswerError(
        tried,
        answer=what,
        cause="the task was killed or marked",
        remedy="Clear the task to have it done again",
    )


def unsent_error(tried: str, status_code: int) -> CoveoError:
    """Return the error of a success that came before the request was sent."""
    return NoAnswerError(
        tried,
        answer=f"{status_code} came before the request was sent whole, so it can't be its response",
        cause="a proxy or a gateway that mixes up responses",
    )


def transport_error(tried: str, problem: Exception) -> CoveoError:
    """
    Return the error for any exception that a request ended with, without what those repeat of it.

    :param tried: What was tried, for the message.
    :param problem: An exception of requests, urllib3, http.client, a socket, TLS or a decoder.
    """
    name = type(problem).__name__
    if isinstance(problem, requests.exceptions.InvalidHeader):
        # The request's own headers are known to be right, so it is an answer's: a broken gateway. The text
        # of this exception can hold the key.
        return NoAnswerError(tried, answer=f"{name}: the answer's headers contradict each other")
    if isinstance(problem, UnicodeError):
        # Its text holds the bytes that could not be read.
        return NoAnswerError(tried, answer=f"{name}: the response can't be read")
    words = f"{name}: {sanitize(str(_innermost(problem)))}"
    if isinstance(problem, requests.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in words:
        return CertificateError(tried, answer=words)
    if isinstance(problem, requests.exceptions.ProxyError):
        return _unsent_if_so(
            NoAnswerError(tried, answer=words, cause="the proxy of the connection or of the environment"),
            problem,
        )
    if isinstance(problem, _OWN_FAULTS) or (
        isinstance(problem, OSError)
        and not isinstance(problem, (requests.RequestException, ConnectionError, TimeoutError))
    ):
        # Among the latter is an unreadable CA bundle.
        return CoveoConfigurationError(tried, answer=words)
    return _unsent_if_so(NoAnswerError(tried, answer=words), problem)


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
