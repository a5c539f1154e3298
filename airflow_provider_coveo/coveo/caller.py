"""One request to Coveo: rate limit, attempts, waits, the log line and the counters."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from logging import Logger
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from airflow_provider_coveo.coveo.connection import ConnectionSettings
from airflow_provider_coveo.coveo.endpoints import has_path, is_push_path
from airflow_provider_coveo.coveo.errors import CoveoError, NotFoundError, TooManyRequestsError
from airflow_provider_coveo.coveo.ordering_ids import CoveoClock
from airflow_provider_coveo.coveo.responses import Response, response_error, stopped_error
from airflow_provider_coveo.coveo.retries import OUTCOME_UNKNOWN, RetryPolicy, next_wait
from airflow_provider_coveo.coveo.stop import SLICE, StopSignal
from airflow_provider_coveo.coveo.throttle import CallThrottle, call_throttle
from airflow_provider_coveo.coveo.transport import AsyncTransport, Call, Request, Send, Transport

if TYPE_CHECKING:
    from airflow_provider_coveo.coveo.observer import Observer

T = TypeVar("T")

_CANCELLED = "cancelled"
_RETRYING = "Attempt %d failed; retrying in %.1f s: %s"


class Caller:
    """
    Sends and retries requests, for one thread or several.

    :param settings: The settings, or a function that returns them; it is called on first use.
    :param transport: Sends the requests.
    :param retry: The retry policy for requests that do not have their own.
    :param stop: Ends waits and requests, and prevents new ones.
    :param observer: Is notified of each attempt.
    :param log: The logger.
    :param is_timeout_fixed: Whether the timeouts of the settings apply to every request.
    """

    def __init__(
        self,
        settings: ConnectionSettings | Callable[[], ConnectionSettings],
        transport: Transport,
        *,
        retry: RetryPolicy,
        stop: StopSignal,
        observer: Observer,
        log: Logger,
        is_timeout_fixed: bool = False,
    ) -> None:
        self._settings = settings
        self._transport = transport
        self._retry = retry
        self._is_timeout_fixed = is_timeout_fixed
        self._thread = threading.local()
        self.stop = stop
        self.observer = observer
        self.log = log

    def stoppable(self, stop: StopSignal | None = None) -> Caller:
        """
        Return a caller that is stopped with this one, and can be stopped alone.

        :param stop: The new caller's signal. Default: a child of this caller's.
        """
        caller = Caller.__new__(Caller)
        caller.__dict__.update(self.__dict__)
        caller.stop = StopSignal(self.stop) if stop is None else stop
        return caller

    @property
    def settings(self) -> ConnectionSettings:
        """The settings."""
        return self._settings() if callable(self._settings) else self._settings

    @property
    def organization_id(self) -> str:
        """The ID of the organization that requests go to."""
        return self.settings.organization_id

    @property
    def clock(self) -> CoveoClock:
        """Coveo's clock, from this thread's last response; the machine's clock before the first response."""
        return getattr(self._thread, "clock", None) or CoveoClock.from_http_date(None)

    def call(self, call: Call[T], retry: RetryPolicy | None = None) -> T:
        """
        Run a call, and return its result.

        :param call: The call.
        :param retry: The retry policy. Default: the caller's.
        :raises CoveoError: if Coveo returns an error, or no response.
        """
        try:
            return call.parse(self.send(call.request, retry))
        except CoveoError as error:
            explained = call.explain(error)
            if explained is error:
                raise
            explained.repeats = error.repeats
            raise explained from None

    def send(self, request: Request, retry: RetryPolicy | None = None) -> Response:
        """
        Send a request until it succeeds, and return the response.

        :param request: The request.
        :param retry: The retry policy. Default: the caller's.
        :raises CoveoError: if Coveo returns an error, or no response.
        """
        settings = self.settings
        timeouts = request.timeouts(settings, is_fixed=self._is_timeout_fixed)
        send = self._transport.prepare(request, settings, timeouts)
        path = urlsplit(request.url(settings)).path
        may_be_done = 0

        def attempt(number: int) -> Response:
            nonlocal may_be_done
            try:
                return self.attempt(request, send, number, path=path)
            except OUTCOME_UNKNOWN as error:
                may_be_done += error.may_be_done
                raise

        with nullcontext() if request.host == "storage" else self.observer.requesting(request.method, path):
            try:
                response = self.repeat(attempt, retry)
            except CoveoError as error:
                error.repeats = may_be_done - (isinstance(error, OUTCOME_UNKNOWN) and error.may_be_done)
                raise
        return replace(response, repeats=may_be_done) if may_be_done else response

    def repeat(self, attempt: Callable[[int], T], retry: RetryPolicy | None = None) -> T:
        """
        Repeat attempts until one succeeds, or the policy allows no more.

        :param attempt: The attempt; called with its number, from 1.
        :param retry: The retry policy. Default: the caller's.
        """
        policy = self._retry if retry is None else retry
        started = time.monotonic()
        for number in itertools.count(1):
            try:
                return attempt(number)
            except CoveoError as error:
                seconds = next_wait(policy, error, number, time.monotonic() - started)
                if seconds is None or self.stop.is_set():
                    raise
                if isinstance(error, TooManyRequestsError):
                    self._throttle.pause_for(seconds)
                self.observer.retrying(error)
                self.log.warning(_RETRYING, number, seconds, error)
            self.stop.wait(seconds)
        raise AssertionError("unreachable: attempt numbers never end")

    def attempt(
        self, request: Request, send: Send, number: int, *, path: str, check: bool = True
    ) -> Response:
        """
        Send a request once, as soon as the rate limit allows it.

        :param request: The request.
        :param send: Sends it.
        :param number: The number of the attempt, for the log.
        :param path: The path of the whole URL, for the log.
        :param check: Whether to raise an error for an error response.
        :raises CoveoError: if Coveo returns an error, or no response.
        """
        with self._turn(request, path):
            return self._attempt(request, send, number, path, check)

    def _attempt(self, request: Request, send: Send, number: int, path: str, check: bool) -> Response:
        if self.stop.is_set():
            unsent = stopped_error(request.action, "nothing was sent")
            unsent.may_be_done = False
            raise unsent
        started = time.monotonic()
        outcome: int | str = _CANCELLED
        try:
            response = send(self.stop)
            outcome = response.status_code
        except CoveoError as error:
            outcome = type(error).__name__
            raise
        finally:
            milliseconds = (time.monotonic() - started) * 1000
            if outcome != _CANCELLED:
                self.log.info(
                    "%s %s -> %s in %.0f ms (attempt %d)", request.method, path, outcome, milliseconds, number
                )
                self.observer.requested(outcome)
        self._thread.clock = response.clock
        failure = _error_of(response, request, self.settings)
        if failure is None:
            response.keep_connection()
            return response
        response.drop_connection()
        if check:
            raise failure
        return response

    @property
    def _throttle(self) -> CallThrottle:
        settings = self.settings
        return call_throttle(settings.push_url, settings.organization_id, settings.call_interval)

    def _turn(self, request: Request, path: str) -> AbstractContextManager[None]:
        if request.host == "storage" or not is_push_path(path):
            return nullcontext()
        return self._throttle.acquire(self._wait_for_turn, self.stop.is_set)

    def _wait_for_turn(self, seconds: float) -> None:
        self.log.info("Waiting %.1f s before the next Push API call", seconds)
        self.stop.wait(seconds)


class AsyncCaller:
    """
    Sends requests on an event loop, with the same retries, counters and errors as :class:`Caller`.

    :param settings: The settings.
    :param transport: Sends the requests.
    :param retry: The retry policy.
    :param stop: Ends waits and requests, and prevents new ones.
    :param observer: Is notified of each attempt.
    :param log: The logger.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        transport: AsyncTransport,
        *,
        retry: RetryPolicy,
        stop: StopSignal,
        observer: Observer,
        log: Logger,
    ) -> None:
        self.settings = settings
        self._transport = transport
        self._retry = retry
        self._stop = stop
        self._observer = observer
        self._log = log

    async def call(self, call: Call[T]) -> T:
        """
        Run a call, and return its result.

        :param call: The call.
        :raises CoveoError: if Coveo returns an error, or no response.
        """
        try:
            return await self._repeat(call)
        except CoveoError as error:
            explained = call.explain(error)
            if explained is error:
                raise
            raise explained from None

    async def _repeat(self, call: Call[T]) -> T:
        started = time.monotonic()
        for number in itertools.count(1):
            try:
                return await self._unless_stopped(self._attempt(call, number), call.request.action)
            except CoveoError as error:
                seconds = next_wait(self._retry, error, number, time.monotonic() - started)
                if seconds is None or self._stop.is_set():
                    raise
                self._observer.retrying(error)
                self._log.warning(_RETRYING, number, seconds, error)
            await self._sleep(seconds)
        raise AssertionError("unreachable: attempt numbers never end")

    async def _attempt(self, call: Call[T], number: int) -> T:
        request = call.request
        started = time.monotonic()
        outcome: int | str = _CANCELLED
        try:
            response = await self._transport.send(request, self.settings, request.timeouts(self.settings))
            outcome = response.status_code
        except CoveoError as error:
            outcome = type(error).__name__
            raise
        finally:
            self._log.debug(
                "%s %s -> %s in %.0f ms (attempt %d)",
                request.method,
                urlsplit(request.url(self.settings)).path,
                outcome,
                (time.monotonic() - started) * 1000,
                number,
            )
            if outcome != _CANCELLED:
                self._observer.requested(outcome)
        failure = _error_of(response, request, self.settings)
        if failure is not None:
            raise failure
        result = call.parse(response)
        response.keep_connection()
        return result

    async def _unless_stopped(self, sending: Coroutine[object, object, T], action: str) -> T:
        if self._stop.is_set():
            sending.close()
            raise stopped_error(action, "nothing was sent")
        request = asyncio.ensure_future(sending)
        try:
            while not (await asyncio.wait({request}, timeout=SLICE))[0]:
                if self._stop.is_set():
                    raise stopped_error(action, "the request was interrupted before its response arrived")
        finally:
            # This has no effect on a finished request.
            request.cancel()
        return request.result()

    async def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stop.is_set() and (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, SLICE))


def _error_of(response: Response, request: Request, settings: ConnectionSettings) -> CoveoError | None:
    error = response_error(
        response, request.action, expected=request.expected, default_class=request.default_class
    )
    if type(error) is not NotFoundError or request.host == "storage":
        return error
    base = request.base_url(settings)
    if not has_path(base):
        return error
    field = "platform_host" if request.host == "platform" and base != settings.push_url else "host"
    blamed = {
        "cause": f"the path in the connection's {field}, {base}, is wrong; or {error.cause}",
        "remedy": f"Check whether Coveo's API is at that address, and remove the path if not. {error.remedy}",
    }
    return NotFoundError(error.tried, **{**error.fields(), **blamed})
