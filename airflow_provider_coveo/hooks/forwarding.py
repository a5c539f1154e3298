"""The hook's methods that call its client."""

from __future__ import annotations

import functools
from collections.abc import Callable
from operator import attrgetter
from typing import Concatenate, ParamSpec, TypeVar, cast

from airflow_provider_coveo.airflow_errors import non_retryable_errors

C = TypeVar("C")
P = ParamSpec("P")
R = TypeVar("R")


def forwarded(
    method: Callable[Concatenate[C, P], R], resource: str = ""
) -> Callable[Concatenate[object, P], R]:
    """
    Return a hook method that calls a client method, and fails the task at once if a retry can't help.

    The signature and the docstring are those of the client's method.

    :param method: The client's method.
    :param resource: The client's attribute that has the method. Default: the client itself.
    """

    owner = attrgetter(f"client.{resource}" if resource else "client")

    @functools.wraps(method)
    def forward(hook: object, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return cast("R", getattr(owner(hook), method.__name__)(*args, **kwargs))

    return non_retryable_errors(forward)
