"""
Requests and responses as values, and the interface of the transports that send them.

Functions that send nothing build requests and parse responses. A blocking worker and a triggerer's event loop
therefore share everything except the sending. The transports are in ``airflow_provider_coveo/transports``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, NamedTuple, Protocol, TypeAlias, TypeVar, cast
from urllib.parse import quote, urlencode

from airflow_provider_coveo.coveo.connection import ConnectionSettings
from airflow_provider_coveo.coveo.errors import AccessDeniedError, CoveoError, missing_privilege_error
from airflow_provider_coveo.coveo.responses import JsonObject, Response
from airflow_provider_coveo.coveo.stop import StopSignal

T = TypeVar("T")

#: The host of a request: the Push API, the platform, or the storage of a presigned URL.
Host: TypeAlias = Literal["push", "platform", "storage"]


class SizedBody(Protocol):
    """A body in pieces, which are sent one by one and never joined."""

    def __len__(self) -> int:
        """Return the number of bytes."""

    def __iter__(self) -> Iterable[bytes | memoryview]:
        """Return the pieces."""


class Timeouts(NamedTuple):
    """
    The limits of one attempt, in seconds.

    :param connect: The time to wait for a connection.
    :param read: The time without a byte in either direction.
    :param total: The time from the start to the last byte of the response.
    """

    connect: float
    read: float
    total: float


@dataclass(frozen=True)
class Request:
    """
    A request.

    :param action: The action and its object, as in an error message: ``Could not read source 'acme'``.
    :param method: The HTTP method.
    :param path: The path below the host's base URL.
    :param query: The query parameters.
    :param body: The body. Default: none.
    :param host: The host. Default: the Push API.
    :param expected: The only status that is documented as success; ``None`` for any 2xx.
    :param min_read_timeout: The minimum time to wait for the response, in seconds. Default: none.
    :param default_class: The error class for a 4xx whose code Coveo does not document for this call.
    :param presigned_url: The whole URL, for ``storage``. It is as sensitive as a key, so ``repr`` omits it.
    :param headers: The headers, for ``storage``.
    """

    action: str
    method: str
    path: str
    query: Mapping[str, object] = field(default_factory=dict)
    body: bytes | SizedBody | None = field(default=None, repr=False)
    host: Host = "push"
    expected: int | None = 200
    min_read_timeout: float | None = None
    default_class: type[CoveoError] | None = None
    presigned_url: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def base_url(self, settings: ConnectionSettings) -> str:
        """Return the base URL of the request's host."""
        return settings.platform_url if self.host == "platform" else settings.push_url

    def url(self, settings: ConnectionSettings) -> str:
        """Return the complete URL."""
        if self.host == "storage":
            return self.presigned_url
        url = self.base_url(settings) + self.path
        if self.query:
            # Encode a space as %20: in the query of a URI, '+' is not a space.
            url += "?" + urlencode(self.query, quote_via=quote, safe="")
        return url

    def timeouts(self, settings: ConnectionSettings, *, is_fixed: bool = False) -> Timeouts:
        """
        Return the limits of one attempt.

        :param settings: The settings, with the timeouts.
        :param is_fixed: Whether to ignore ``min_read_timeout`` because the caller chose a timeout.
        """
        connect, read = settings.timeout
        if self.min_read_timeout is not None and not is_fixed:
            read = max(read, self.min_read_timeout)
        size = 0 if self.body is None else len(self.body)
        return Timeouts(connect, read, settings.total_seconds(size, (connect, read)))


Explain: TypeAlias = Callable[[CoveoError], CoveoError]


def unchanged(error: CoveoError) -> CoveoError:
    """Return the error unchanged."""
    return error


def explain_privilege(doing: str, privileges: str) -> Explain:
    """
    Return a function that makes a 403 name the privilege that the key lacks.

    :param doing: The action that needs the privilege, such as ``view sources``.
    :param privileges: The privilege, such as ``the privilege Sources: View``.
    """

    def explain(error: CoveoError) -> CoveoError:
        if isinstance(error, AccessDeniedError):
            return missing_privilege_error(error, doing, privileges)
        return error

    return explain


@dataclass(frozen=True)
class Call(Generic[T]):
    """
    A request, with the function that parses its response.

    :param request: The request.
    :param parse: Returns the result, or raises an error if the response is not as documented.
    :param explain: Returns the error to raise instead of the given one. Default: the same.
    """

    request: Request
    parse: Callable[[Response], T]
    explain: Explain = unchanged


def json_call(request: Request, *keys: str, explain: Explain = unchanged) -> Call[JsonObject]:
    """
    Return a call whose result is a JSON object.

    :param request: The request.
    :param keys: The keys that the object must have.
    :param explain: Returns the error to raise instead of the given one.
    """
    return Call(request, lambda response: response.json(request.action, *keys), explain)


class Send(Protocol):
    """Sends a request once; each call is one attempt."""

    def __call__(self, stop: StopSignal) -> Response:
        """
        Send the request, and return the response with its body.

        :param stop: Ends the attempt.
        :raises CoveoError: if there is no response.
        """


class Transport(Protocol):
    """Sends requests and blocks."""

    def prepare(self, request: Request, settings: ConnectionSettings, timeouts: Timeouts) -> Send:
        """
        Return the function that sends a request.

        :param request: The request. A request to ``storage`` is sent without the API key.
        :param settings: The settings.
        :param timeouts: The limits of one attempt.
        :raises CoveoError: if the request can't be sent in this form.
        """


class AsyncTransport(Protocol):
    """Sends requests on an event loop."""

    async def send(self, request: Request, settings: ConnectionSettings, timeouts: Timeouts) -> Response:
        """
        Send a request, and return the response with its body.

        :param request: The request.
        :param settings: The settings.
        :param timeouts: The limits of the attempt.
        :raises CoveoError: if there is no response.
        """


class Ask(Protocol):
    """Runs a call, and returns its result; see :mod:`airflow_provider_coveo.coveo.conditions`."""

    async def __call__(self, call: Call[T]) -> T:
        """
        Run a call.

        :param call: The call.
        :raises CoveoError: if the call fails.
        """


def completed(poll: Coroutine[object, object, T]) -> T:
    """
    Run a coroutine that never suspends, and return its result.

    :param poll: The coroutine, such as a poll whose ``ask`` blocks.
    """
    try:
        poll.send(None)
    except StopIteration as end:
        return cast("T", end.value)
    poll.close()
    raise RuntimeError("The coroutine suspended, which one with a blocking ask does not")
