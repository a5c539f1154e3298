"""Errors in the form in which Airflow does not retry a task, as a retry can't help."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterator
from typing import ParamSpec, TypeVar, cast

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_coveo.coveo.errors import CoveoError

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def as_non_retryable(error: CoveoError) -> CoveoError:
    """
    Return the error in the form that Airflow does not retry, if a retry of it can't help.

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
            # A class made here can't be found by name, so pickle makes it anew from the error it stands for.
            "__reduce__": lambda final: (as_non_retryable, (error_class(final.tried, **final.fields()),)),
        },
    )
    return cast("CoveoError", final_class(error.tried, **error.fields()))


def non_retryable_errors(method: Callable[P, R]) -> Callable[P, R]:
    """
    Let a task that calls a method fail at once if a retry can't help.

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
    """Yield what a generator yields, which sends its requests only then."""
    try:
        yield from generator
    except CoveoError as error:
        final = as_non_retryable(error)
    else:
        return
    raise final
