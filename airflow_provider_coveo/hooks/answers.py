"""What becomes of Coveo's answers: the JSON that was expected, and errors that Airflow retries or not."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeVar, cast

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_coveo.coveo.errors import (
    AccessDeniedError,
    CoveoError,
    NoAnswerError,
    ServiceError,
    TooManyRequestsError,
    UnexpectedAnswerError,
    error_from_answer,
    without_privilege,
)
from airflow_provider_coveo.coveo.ordering_ids import CoveoClock
from airflow_provider_coveo.coveo.retries import RetryPolicy, retry_after_seconds
from airflow_provider_coveo.hooks.metrics import count_retry

if TYPE_CHECKING:
    import requests
    import tenacity

P = ParamSpec("P")
R = TypeVar("R")

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
        base: str | None = None,
        answer_seconds: float | None = None,
    ) -> requests.Response:
        raise NotImplementedError

    def repeated(self, attempt: Callable[[int], R], retry: RetryPolicy | None = None) -> R:
        """Make attempts, each given its number, until one succeeds or patience is at its end."""
        raise NotImplementedError


def failing_at_once(error: CoveoError) -> CoveoError:
    """Return the error in the form that Airflow does not retry, if a retry of it can't help."""
    if error.retry_can_help or isinstance(error, AirflowFailException):
        return error
    error_class = type(error)
    final_class = type(
        error_class.__name__,
        (error_class, AirflowFailException),
        {
            "__module__": error_class.__module__,
            "__doc__": error_class.__doc__,
            # A class made here can't be found by name, so pickle makes it anew from the error it stands for.
            "__reduce__": lambda final: (failing_at_once, (error_class(final.tried, **final.fields()),)),
        },
    )
    return cast("CoveoError", final_class(error.tried, **error.fields()))


def final_errors_fail_at_once(method: Callable[P, R]) -> Callable[P, R]:
    """Make a task that calls ``method`` fail without using up its retries where a retry can't help."""

    @functools.wraps(method)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except CoveoError as error:
            final = failing_at_once(error)
        raise final

    return wrapper


@contextmanager
def needing(doing: str, privileges: str) -> Iterator[None]:
    """Let a refusal say what the key lacks, by the words of ``without_privilege``."""
    try:
        yield
    except AccessDeniedError as refused:
        raise without_privilege(refused, doing, privileges) from None


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


def refusal(answer: Answer, tried: str, default_class: type[CoveoError] | None = None) -> CoveoError | None:
    """Return the error that an answer stands for, ``None`` where it is a success."""
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
    if answer.headers.get("Content-Type", "").lower().startswith("text/html"):
        return UnexpectedAnswerError(
            tried,
            status_code=answer.status_code,
            answer="a web page",
            cause="a proxy or a login page answered in Coveo's place",
        )
    return None


def patience(policy: RetryPolicy, log: Any, refused: Callable[[float], None] | None = None) -> dict[str, Any]:
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
    """Return the error for a success whose body is not what Coveo documents."""
    return UnexpectedAnswerError(
        tried, status_code=answer.status_code, request_id=request_id_of(answer), answer=what
    )


def request_id_of(answer: Answer) -> str | None:
    """Return the ID that Coveo's support asks for."""
    return answer.headers.get("X-Request-ID")
