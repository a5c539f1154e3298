"""Triggers of the sensors: they poll Coveo on the triggerer's event loop."""

from __future__ import annotations

import asyncio
import importlib
import random
import sys
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, TypedDict

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_coveo.coveo.conditions import (
    Condition,
    DailyQuotaCondition,
    PollResult,
    SourceStatusCondition,
)
from airflow_provider_coveo.coveo.errors import CoveoError, error_to_json
from airflow_provider_coveo.coveo.indexing import DEFAULT_QUIET_SECONDS, ItemsIndexedCondition, Pushed
from airflow_provider_coveo.coveo.statuses import SourceStatus

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

#: The maximum duration of the last poll.
LAST_LOOK_SECONDS = 30.0

if TYPE_CHECKING:
    from typing_extensions import Unpack


class _OptionalArguments(TypedDict, total=False):
    organization_id: str | None
    silent_fail: bool


class TriggerArguments(_OptionalArguments):
    """The arguments of every trigger, which its class describes."""

    coveo_conn_id: str
    poke_interval: float
    give_up_at: float


class _CoveoTrigger(BaseTrigger):
    """
    Poll until the condition is met, can no longer be met, or the time is up.

    Its whole state is in its parameters, so that it can resume in another triggerer at any time. The event
    is a dict: ``outcome`` is ``there``, ``too_late`` or ``error``; ``words`` describe the last poll;
    ``result`` and ``warning`` belong to a condition that is met; ``error`` describes the error.

    :param coveo_conn_id: The Coveo connection.
    :param poke_interval: The interval between two polls in seconds.
    :param give_up_at: The time of the last poll, in seconds since the epoch.
    :param organization_id: The organization, if it differs from the connection's.
    :param silent_fail: Whether to continue waiting after a temporary error.
    """

    def __init__(
        self,
        *,
        coveo_conn_id: str,
        poke_interval: float,
        give_up_at: float,
        organization_id: str | None = None,
        silent_fail: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.coveo_conn_id = coveo_conn_id
        self.organization_id = organization_id
        self.poke_interval = poke_interval
        self.give_up_at = give_up_at
        self.silent_fail = silent_fail

    @abstractmethod
    def wait(self) -> Condition:
        """Return the condition to wait for."""

    @abstractmethod
    def _parameters(self) -> dict[str, object]:
        """Return the parameters that are specific to this kind of trigger."""

    def serialize(self) -> tuple[str, dict[str, object]]:
        """Return the data that another triggerer needs to resume."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                **self._parameters(),
                "coveo_conn_id": self.coveo_conn_id,
                "organization_id": self.organization_id,
                "poke_interval": self.poke_interval,
                "give_up_at": self.give_up_at,
                "silent_fail": self.silent_fail,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and fire one event."""
        # DAG files import this module through the sensors, and the client imports aiohttp. Loading that takes
        # longer than a triggerer's loop may be blocked.
        await asyncio.to_thread(importlib.import_module, "airflow_provider_coveo.hooks.async_client")
        from airflow_provider_coveo.hooks.async_client import CoveoAsyncClient

        last = "No poll has succeeded yet."
        async with CoveoAsyncClient(
            self.coveo_conn_id, organization_id=self.organization_id, caller=type(self).__name__
        ) as client:
            # The task itself has just polled. Many triggers can start at the same time, and must not poll at
            # the same time.
            pause = random.uniform(0, self.poke_interval)  # noqa: S311
            while True:
                await asyncio.sleep(min(pause, self._time_left()))
                is_last = self._time_left() == 0
                began = time.monotonic()
                seen: PollResult | None = None
                try:
                    # Before Python 3.12, wait_for can lose a cancellation of the trigger.
                    async with timeout(max(self._time_left(), LAST_LOOK_SECONDS)):
                        seen = await client.poll(self.wait())
                except asyncio.TimeoutError:
                    self.log.info("The last poll timed out")
                except CoveoError as error:
                    if not (self.silent_fail and error.retry_can_help):
                        yield TriggerEvent(_event_of(error))
                        return
                    self.log.warning("%s", error)
                    last = str(error)
                if seen is not None and seen.is_there:
                    yield TriggerEvent({"outcome": "there", **vars(seen)})
                    return
                if seen is not None and seen.words != last:
                    last = seen.words
                    self.log.info("%s", last)
                if is_last:
                    yield TriggerEvent({"outcome": "too_late", "words": last})
                    return
                pause = max(0.0, self.poke_interval - (time.monotonic() - began))

    def _time_left(self) -> float:
        return max(0.0, self.give_up_at - time.time())


def _event_of(error: CoveoError) -> dict[str, object]:
    described = error_to_json(error)
    # A worker of an earlier version can't create an error with this parameter, but ignores the key.
    rejected = described.pop("rejected", None)
    return {"outcome": "error", "error": described, **({"rejected": rejected} if rejected else {})}


class PushSourceStatusTrigger(_CoveoTrigger):
    """
    Wait until a Push source has one of several statuses; for ``PushSourceStatusSensor``.

    :param source_id: The source.
    :param statuses: The statuses, with the Push API's names.
    :param coveo_conn_id: The Coveo connection.
    :param poke_interval: The interval between two polls in seconds.
    :param give_up_at: The time of the last poll, in seconds since the epoch.
    :param organization_id: The organization, if it differs from the connection's.
    :param silent_fail: Whether to continue waiting after a temporary error.
    """

    def __init__(
        self, *, source_id: str, statuses: Sequence[str], **kwargs: Unpack[TriggerArguments]
    ) -> None:
        super().__init__(**kwargs)
        self.source_id = source_id
        self.statuses = list(statuses)

    def wait(self) -> Condition:
        """Return the condition to wait for."""
        return SourceStatusCondition(
            self.source_id, tuple(SourceStatus.parse(name) for name in self.statuses)
        )

    def _parameters(self) -> dict[str, object]:
        return {"source_id": self.source_id, "statuses": self.statuses}


class PushedItemsIndexedTrigger(_CoveoTrigger):
    """
    Wait until Coveo's pipeline has processed a push; for ``PushedItemsIndexedSensor``.

    :param source_id: The source.
    :param operations: The number of additions, updates and deletions that were sent.
    :param started: The time before the first was sent, on Coveo's clock in epoch milliseconds.
    :param max_refused: The number of rejected items that is allowed.
    :param settle_seconds: The seconds for which the logs must have shown that everything is processed.
    :param refusals: The results of a stage that count as rejected.
    :param repeated: The number of operations that were sent again although Coveo may have accepted them
        before. Default 0.
    :param adds: The minimum number of additions and updates. Default 0.
    :param children: The number of deletions that delete other items as well. Default: unknown.
    :param repeated_children: The number of such deletions that were sent twice. Default 0.
    :param earlier: The number of operations of an earlier attempt that can still be in the pipeline.
        Default 0.
    :param on_repeated: The behavior if the logs can't show whether everything is processed: ``fail`` or
        ``warn``.
    :param quiet_seconds: The seconds without new entries in the logs before that applies.
    :param coveo_conn_id: The Coveo connection.
    :param poke_interval: The interval between two polls in seconds.
    :param give_up_at: The time of the last poll, in seconds since the epoch.
    :param organization_id: The organization, if it differs from the connection's.
    :param silent_fail: Whether to continue waiting after a temporary error.
    """

    def __init__(
        self,
        *,
        source_id: str,
        operations: int,
        started: int,
        max_refused: int,
        settle_seconds: float,
        refusals: Sequence[str],
        repeated: int = 0,
        adds: int = 0,
        children: int | None = None,
        earlier: int = 0,
        repeated_children: int = 0,
        on_repeated: str = "fail",
        quiet_seconds: float = DEFAULT_QUIET_SECONDS,
        **kwargs: Unpack[TriggerArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.source_id = source_id
        self.operations = operations
        self.repeated = repeated
        self.adds = adds
        self.children = children
        self.earlier = earlier
        self.repeated_children = repeated_children
        self.on_repeated = on_repeated
        self.quiet_seconds = quiet_seconds
        self.started = started
        self.max_refused = max_refused
        self.settle_seconds = settle_seconds
        self.refusals = list(refusals)

    def wait(self) -> Condition:
        """Return the condition to wait for."""
        return ItemsIndexedCondition(
            Pushed(
                self.source_id,
                self.operations,
                self.started,
                self.repeated,
                self.adds,
                self.children,
                self.earlier,
                self.repeated_children,
            ),
            self.max_refused,
            self.settle_seconds,
            tuple(self.refusals),
            self.on_repeated,
            self.quiet_seconds,
        )

    def _parameters(self) -> dict[str, object]:
        return {
            "source_id": self.source_id,
            "operations": self.operations,
            "started": self.started,
            "max_refused": self.max_refused,
            "settle_seconds": self.settle_seconds,
            "refusals": self.refusals,
            "repeated": self.repeated,
            "adds": self.adds,
            "children": self.children,
            "earlier": self.earlier,
            "repeated_children": self.repeated_children,
            "on_repeated": self.on_repeated,
            "quiet_seconds": self.quiet_seconds,
        }


class PushApiQuotaTrigger(_CoveoTrigger):
    """
    Wait until a number of items can still be pushed today; for ``PushApiQuotaSensor``.

    :param items: The number of items.
    :param coveo_conn_id: The Coveo connection.
    :param poke_interval: The interval between two polls in seconds.
    :param give_up_at: The time of the last poll, in seconds since the epoch.
    :param organization_id: The organization, if it differs from the connection's.
    :param silent_fail: Whether to continue waiting after a temporary error.
    """

    def __init__(self, *, items: int, **kwargs: Unpack[TriggerArguments]) -> None:
        super().__init__(**kwargs)
        self.items = items

    def wait(self) -> Condition:
        """Return the condition to wait for."""
        return DailyQuotaCondition(self.items)

    def _parameters(self) -> dict[str, object]:
        return {"items": self.items}
