"""Errors that fail a task without retries, because a retry can't help."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterator
from typing import ParamSpec, TypeVar, cast

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_coveo.coveo.errors import CoveoError, CoveoInputError

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def as_non_retryable(error: CoveoError) -> CoveoError:
    """
    Return the error as one that Airflow does not retry, if a retry can't help.

    :param error: The error.
    """
    if error.retry_can_help or isinstance(error, AirflowFailException):
        return error
    error_class = type(error)
    final_class = type(
        error_class.__name__,
        (error_class, AirflowFailException),
        {
            "__module__": error_class.__module__,
            "__doc__": error_class.__doc__,
            # Pickle can't find a class created here by its name, so it converts the original error again.
            "__reduce__": lambda final: (as_non_retryable, (error_class(final.tried, **final.fields()),)),
        },
    )
    final = cast("CoveoError", final_class(error.tried, **error.fields()))
    final.repeats = error.repeats
    return final


def invalid_input(tried: str, *, cause: str = "", remedy: str = "") -> CoveoError:
    """
    Return the error of a task whose parameters are invalid; the task is not retried.

    :param tried: What was attempted.
    :param cause: The likely cause.
    :param remedy: The fix.
    """
    return as_non_retryable(CoveoInputError(tried, cause=cause, remedy=remedy))


def non_retryable_errors(method: Callable[P, R]) -> Callable[P, R]:
    """
    Make a method fail its task at once if a retry can't help.

    :param method: The method.
    """

    @functools.wraps(method)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            result = method(*args, **kwargs)
        except CoveoError as error:
            final = as_non_retryable(error)
        else:
            return cast("R", _iterated(result)) if isinstance(result, Generator) else result
        raise final

    return wrapper


def _iterated(generator: Iterator[T]) -> Iterator[T]:
    """Yield from a generator, which sends its requests only when it is iterated."""
    try:
        yield from generator
    except CoveoError as error:
        final = as_non_retryable(error)
    else:
        return
    raise final
