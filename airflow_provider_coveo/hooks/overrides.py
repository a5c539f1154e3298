"""
The methods that a subclass of the hook overrides, as steps of pushes and other requests.

The client sends a request in steps. The hook offers some of them as methods. A subclass that overrides one of
them expects every request of the hook to use it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol, TypeVar

from airflow_provider_coveo.coveo.batches import Body
from airflow_provider_coveo.coveo.caller import Caller
from airflow_provider_coveo.coveo.client import CoveoClient
from airflow_provider_coveo.coveo.containers import Containers, Uploaded
from airflow_provider_coveo.coveo.responses import Response
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.coveo.stop import StopSignal

R = TypeVar("R")

#: The hook's methods that other methods of the hook use.
STEPS: Final = (
    "branch",
    "daily_items",
    "is_stopped",
    "remaining_daily_items",
    "repeated",
    "stop",
    "take_batch",
    "upload",
)


class HookWithSteps(Protocol):
    """The methods of ``CoveoPushHook`` that are steps of other methods."""

    client: HookClient

    @property
    def is_stopped(self) -> bool:
        """Whether :meth:`stop` was called."""

    def branch(self) -> HookWithSteps:
        """Return a hook that can be stopped alone."""

    def daily_items(self) -> tuple[int, int]:
        """Return the daily quota, and its used part."""

    def remaining_daily_items(self) -> int | None:
        """Return how many items can still be pushed today."""

    def repeated(self, attempt: Callable[[int], R], retry: RetryPolicy | None = None) -> R:
        """Repeat attempts until one succeeds."""

    def stop(self) -> None:
        """End requests in flight."""

    def take_batch(self, path: str, file_id: str, tried: str, retry: RetryPolicy) -> Response:
        """Submit the batch in a file container to Coveo."""

    def upload(self, data: bytes | Body, tried: str) -> Uploaded:
        """Upload data into a new file container."""


class Overrides:
    """
    The steps that a hook does differently from ``CoveoPushHook``.

    :param hook: The hook.
    :param own: The steps as ``CoveoPushHook`` defines them.
    :param own_branch: Returns a branch of the hook, without a warning.
    """

    def __init__(
        self, hook: HookWithSteps, own: Mapping[str, object], own_branch: Callable[[], HookWithSteps]
    ) -> None:
        self.hook = hook
        self._own = own
        self._own_branch = own_branch

    def has(self, step: str) -> bool:
        """
        Return whether a subclass, or an attribute set on the hook itself, replaces a step.

        :param step: The name of the method.
        """
        return step in vars(self.hook) or getattr(type(self.hook), step) is not self._own[step]

    def branch(self) -> HookWithSteps:
        """Return a branch of the hook."""
        return self.hook.branch() if self.has("branch") else self._own_branch()


class HookClient(CoveoClient):
    """
    A client that sends requests with the steps of a hook.

    Its ``caller`` and ``containers`` do not use these steps, because an override may call them.

    :param caller: Sends the requests.
    :param overrides: The hook's steps.
    """

    def __init__(self, caller: Caller, overrides: Overrides) -> None:
        self._overrides = overrides
        self._compose(caller)

    def _compose(self, caller: Caller) -> None:
        self.caller = caller
        #: Sends requests with the hook's ``repeated``.
        self.hook_caller = _HookCaller(caller, self._overrides)
        #: Uploads and submits with the hook's ``upload`` and ``take_batch``.
        self.hook_containers = _HookContainers(self.hook_caller, self._overrides)
        self.containers = Containers(self.hook_caller)
        self._compose_resources(
            self.hook_caller,
            self.hook_containers,
            daily_items=self._daily_items,
            remaining_daily_items=self._remaining_daily_items,
        )

    def _daily_items(self) -> tuple[int, int]:
        limits = self._overrides.hook if self._overrides.has("daily_items") else self.limits
        return limits.daily_items()

    def _remaining_daily_items(self) -> int | None:
        limits = self._overrides.hook if self._overrides.has("remaining_daily_items") else self.limits
        return limits.remaining_daily_items()


class _HookCaller(Caller):
    def __init__(self, caller: Caller, overrides: Overrides) -> None:
        self.__dict__.update(caller.__dict__)
        self._overrides = overrides

    def repeat(self, attempt: Callable[[int], R], retry: RetryPolicy | None = None) -> R:
        if self._overrides.has("repeated"):
            return self._overrides.hook.repeated(attempt, retry)
        return super().repeat(attempt, retry)


class _HookContainers(Containers):
    def __init__(self, caller: Caller, overrides: Overrides) -> None:
        super().__init__(caller)
        self._overrides = overrides

    def stoppable(self) -> Containers:
        return self._overrides.branch().client.hook_containers

    @property
    def stop(self) -> StopSignal:
        if self._overrides.has("stop") or self._overrides.has("is_stopped"):
            return _HookStop(self._overrides.hook)
        return super().stop

    def upload(self, data: bytes | Body, action: str) -> Uploaded:
        if self._overrides.has("upload"):
            return self._overrides.hook.upload(data, action)
        return super().upload(data, action)

    def submit(self, path: str, file_id: str, action: str, retry: RetryPolicy | None = None) -> Response:
        if retry is None or not self._overrides.has("take_batch"):
            return super().submit(path, file_id, action, retry)
        response = self._overrides.hook.take_batch(path, file_id, action, retry)
        if isinstance(response, Response):
            return response
        # A response of requests, because an override may have sent the request itself.
        return Response(response.status_code, response.headers, response.content, raw=response)


class _HookStop(StopSignal):
    def __init__(self, hook: HookWithSteps) -> None:
        super().__init__()
        self._hook = hook

    def set(self) -> None:
        self._hook.stop()

    def is_set(self) -> bool:
        return self._hook.is_stopped
