"""Authentication, identification and reading on the wire, and what of it never shows in a log."""

from __future__ import annotations

import functools
import importlib
import logging
import platform
import re

import requests
import urllib3
from requests.auth import AuthBase

from airflow_provider_coveo import __version__
from airflow_provider_coveo.coveo.errors import (
    CertificateError,
    CoveoConfigurationError,
    CoveoError,
    NoAnswerError,
    shortened,
)

#: No more of a successful answer than this is read; a page of a hundred sources is far below it.
LARGEST_ANSWER = 64 * 1024 * 1024
#: No more of an error's body than this is read.
LARGEST_ERROR = 64 * 1024


class _PresignedQueryFilter(logging.Filter):
    """
    Takes the signature out of what urllib3 logs at debug level.

    Masking each presigned URL through Airflow would make its masker slower with every upload, without end.
    """

    _signature = re.compile(r"(?i)signature=")

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple) and any(
            isinstance(arg, str) and self._signature.search(arg) for arg in record.args
        ):
            record.args = tuple(
                arg.split("?", 1)[0] + "?…" if isinstance(arg, str) and self._signature.search(arg) else arg
                for arg in record.args
            )
        return True


_presigned_query_filter = _PresignedQueryFilter()
for _logger_name in ("urllib3.connectionpool", "urllib3.util.retry"):
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
    limit = LARGEST_ANSWER if answer.ok else LARGEST_ERROR
    body = bytearray()
    for chunk in answer.iter_content(64 * 1024):
        body += chunk
        if len(body) > limit:
            answer.close()
            break
    answer._content = bytes(body[:limit])  # what requests itself sets when it reads a body whole


def error_without_answer(tried: str, problem: Exception) -> CoveoError:
    """Return the error for an exception of requests, without the URLs and headers that those repeat."""
    name = type(problem).__name__
    if isinstance(problem, requests.exceptions.InvalidHeader):
        # The request's own headers are known to be right, so it is an answer's: a broken gateway. The text
        # of this exception can hold the key.
        return NoAnswerError(tried, answer=f"{name}: the answer's headers contradict each other")
    words = f"{name}: {shortened(str(_innermost(problem)))}"
    if isinstance(problem, requests.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in words:
        return CertificateError(tried, answer=words)
    if isinstance(problem, requests.exceptions.ProxyError):
        return _unsent_if_so(
            NoAnswerError(tried, answer=words, cause="the proxy of the connection or of the environment"),
            problem,
        )
    if isinstance(problem, ValueError) or not isinstance(problem, requests.RequestException):
        # InvalidURL and its like, and an unreadable CA bundle.
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
