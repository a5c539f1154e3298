"""What becomes of Coveo's answers: the JSON that was expected, and errors that Airflow retries or not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeVar, cast

from airflow_provider_coveo.coveo.errors import (
    AccessDeniedError,
    CoveoError,
    NoAnswerError,
    ServiceError,
    TooManyRequestsError,
    UnexpectedAnswerError,
    error_from_answer,
    missing_privilege_error,
    sanitize,
)
from airflow_provider_coveo.coveo.ordering_ids import CoveoClock
from airflow_provider_coveo.coveo.retries import RetryPolicy, retry_after_seconds
from airflow_provider_coveo.hooks.metrics import count_retry

if TYPE_CHECKING:
    import requests
    import tenacity

P = ParamSpec("P")
R = TypeVar("R")

#: No longer a body that begins like no object or array is tried to be read as JSON.
_MAX_UNDECLARED: Final = 1024
#: A longer body of an answer is one that somebody reads.
_MAX_UNREAD: Final = 16 * 1024
#: No more of a request ID than this is kept.
_MAX_REQUEST_ID: Final = 200

#: What a request is repeated after.
REPEATED: Final = (TooManyRequestsError, ServiceError, NoAnswerError)


class CoveoRequests:
    """What the parts of the hook build upon; the hook itself has it."""

    log: Any

    @property
    def organization_id(self) -> str:
        """The organization that the hook works on."""
        raise NotImplementedError

    def _request(
        self,
        tried: str,
        method: str,
        path: str,
        *,
        platform_api: bool = False,
        query: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        retry: RetryPolicy | None = None,
        answer_seconds: float | None = None,
        expected: int = 200,
    ) -> requests.Response:
        raise NotImplementedError

    def repeated(self, attempt: Callable[[int], R], retry: RetryPolicy | None = None) -> R:
        """Make attempts, each given its number, until one succeeds or patience is at its end."""
        raise NotImplementedError


@contextmanager
def explain_missing_privilege(doing: str, privileges: str) -> Iterator[None]:
    """Let a refusal say what the key lacks, by the words of ``without_privilege``."""
    try:
        yield
    except AccessDeniedError as refused:
        raise missing_privilege_error(refused, doing, privileges) from None


class Answer(Protocol):
    """What is read of an answer, whichever library it came by."""

    @property
    def status_code(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, looked up in any case."""

    @property
    def content(self) -> Any:
        """The body."""


def clock_of(answer: Answer) -> CoveoClock:
    """Return Coveo's clock, as an answer that came just now shows it."""
    return CoveoClock.from_http_date(answer.headers.get("Date"))


def response_error(
    answer: Answer,
    tried: str,
    default_class: type[CoveoError] | None = None,
    expected: int | None = None,
) -> CoveoError | None:
    """
    Return the error that an answer stands for, ``None`` where it is a success.

    :param answer: The answer.
    :param tried: What was tried, for the message.
    :param default_class: The class for a 4xx answer whose code Coveo does not document for this call.
    :param expected: The only status that is documented as this call's success; ``None`` for any 2xx.
    """
    if not 200 <= answer.status_code < 300:
        seconds = retry_after_seconds(answer.headers.get("Retry-After"), clock_of(answer).shown_ms() / 1000)
        return error_from_answer(
            tried,
            answer.status_code,
            answer.content,
            answer.headers,
            retry_after=seconds,
            default_class=default_class,
        )
    what = _what_came(answer)
    if what is None and expected in {None, answer.status_code}:
        return None
    return UnexpectedAnswerError(
        tried,
        status_code=answer.status_code,
        request_id=request_id_of(answer),
        answer=what or f"where {expected} is documented",
        cause="a proxy, a gateway or a login page answered in its place",
        remedy="Check the connection's host, platform_host and proxies, and the proxies of the environment",
    )


def _what_came(answer: Answer) -> str | None:
    """
    Say what the body of a success is, ``None`` where it is one that Coveo may have sent.

    Coveo's bodies are JSON or empty, and those of file containers are empty. A long body that says of itself
    that it is JSON is left to who reads it: that of a success that nobody reads is short.
    """
    content_type = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if content_type in {"text/html", "application/xhtml+xml"}:
        return "a web page"
    body = answer.content.strip()
    if content_type == "application/problem+json":
        return "a problem"
    if content_type == "application/json" or content_type.endswith("+json"):
        return _what_json_is(body)
    if not body:
        return None
    if body.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        return "a web page"
    if len(body) <= _MAX_UNDECLARED or body[:1] in b"{[":
        try:
            json.loads(body)
        except (ValueError, RecursionError):
            return f"a body that is not JSON ({content_type or 'of no declared type'})"
        return None
    return f"a body that is not JSON ({content_type or 'of no declared type'})"


def _what_json_is(body: bytes) -> str | None:
    if not body:
        return None
    if body[:1] == b"<":
        return "a web page, not a JSON object"
    if len(body) > _MAX_UNREAD:
        return None
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return "not a JSON object, though it says so"
    if isinstance(parsed, dict) and parsed.get("errorCode"):
        return f"an error: {sanitize(str(parsed['errorCode']))}"
    return None


def retry_options(
    policy: RetryPolicy, log: Any, refused: Callable[[float], None] | None = None
) -> dict[str, Any]:
    """
    Return how tenacity is to repeat requests, in threads or in a loop: after what, and how long after.

    :param policy: How patiently.
    :param log: What to tell it to.
    :param refused: Called after 429 with the seconds until the next attempt.
    """

    def error_of(state: tenacity.RetryCallState) -> CoveoError:
        return cast("CoveoError", cast("tenacity.Future", state.outcome).exception())

    def is_worth_it(state: tenacity.RetryCallState) -> bool:
        return isinstance(error_of(state), REPEATED)

    def seconds_to_wait(state: tenacity.RetryCallState) -> float:
        error = error_of(state)
        was_refused = isinstance(error, TooManyRequestsError)
        return policy.wait(state.attempt_number, error.retry_after, refused=was_refused)

    def before_waiting(state: tenacity.RetryCallState) -> None:
        if refused is not None and isinstance(error_of(state), TooManyRequestsError):
            refused(state.upcoming_sleep)
        count_retry(error_of(state))
        log.warning(
            "Attempt %d did not succeed; the next one begins in %.1f s. %s",
            state.attempt_number,
            state.upcoming_sleep,
            error_of(state),
        )

    return {"retry": is_worth_it, "wait": seconds_to_wait, "before_sleep": before_waiting, "reraise": True}


def json_object(answer: Answer, tried: str, *keys: str) -> dict[str, Any]:
    """Return the JSON object with these keys that an answer holds, or raise what it is instead."""
    try:
        parsed = json.loads(answer.content)
    except (ValueError, RecursionError):
        parsed = None
    if isinstance(parsed, dict) and all(key in parsed for key in keys):
        return parsed
    raise unexpected(answer, tried, f"not a JSON object with {', '.join(keys)}")


def unexpected(answer: Answer, tried: str, what: str) -> UnexpectedAnswerError:
    """Return the error for a success whose body is not what Coveo documents, and give up its connection."""
    getattr(answer, "give_up_connection", _nothing)()
    return UnexpectedAnswerError(
        tried, status_code=answer.status_code, request_id=request_id_of(answer), answer=what
    )


def _nothing() -> None:
    pass


def request_id_of(answer: Answer) -> str | None:
    """Return the ID that Coveo's support asks for."""
    request_id = answer.headers.get("X-Request-ID")
    return None if request_id is None else sanitize(request_id)[:_MAX_REQUEST_ID]
