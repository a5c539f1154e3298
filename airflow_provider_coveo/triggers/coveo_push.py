"""Triggers that wait at Coveo on the triggerer's event loop, for the sensors."""

from __future__ import annotations

import asyncio
import importlib
import random
import sys
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

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

#: How long the last look may take.
LAST_LOOK_SECONDS = 30.0

if TYPE_CHECKING:
    pass


class _CoveoTrigger(BaseTrigger):
    """
    Look again and again until what is waited for has come, can't come any more, or it takes too long.

    All that it knows is in its parameters, so that it may go on in another triggerer at any time. The event
    is a dict: ``outcome`` is ``there``, ``too_late`` or ``error``; ``words`` say what was seen; ``result``
    and ``warning`` are those of what has come; ``error`` describes the error.

    :param coveo_conn_id: The Coveo connection.
    :param poke_interval: Seconds from one look to the next.
    :param give_up_at: When to look for the last time, in seconds since the epoch.
    :param organization_id: The organization, where it is not the connection's.
    :param silent_fail: Whether to go on waiting after an error that may pass.
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
        """Return what is waited for."""

    @abstractmethod
    def _parameters(self) -> dict[str, Any]:
        """Return the parameters that only this kind of trigger has."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what another triggerer needs to go on."""
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
        # DAG files import this module by way of the sensors; the client brings aiohttp with it. To load that
        # takes longer than a triggerer's loop may be held up.
        await asyncio.to_thread(importlib.import_module, "airflow_provider_coveo.hooks.async_client")
        from airflow_provider_coveo.hooks.async_client import CoveoAsyncClient

        last = "Nothing was seen yet."
        async with CoveoAsyncClient(
            self.coveo_conn_id, organization_id=self.organization_id, caller=type(self).__name__
        ) as client:
            # The task itself has just looked. Many triggers may begin at once, and must not look at once.
            pause = random.uniform(0, self.poke_interval)  # noqa: S311
            while True:
                await asyncio.sleep(min(pause, self._time_left()))
                is_last = self._time_left() == 0
                began = time.monotonic()
                seen: PollResult | None = None
                try:
                    # Not wait_for, which before Python 3.12 can lose that the trigger was cancelled.
                    async with timeout(max(self._time_left(), LAST_LOOK_SECONDS)):
                        seen = await client.poll(self.wait())
                except asyncio.TimeoutError:
                    self.log.info("The last look took too long.")
                except CoveoError as error:
                    if not (self.silent_fail and error.retry_can_help):
                        yield TriggerEvent({"outcome": "error", "error": error_to_json(error)})
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


class PushSourceStatusTrigger(_CoveoTrigger):
    """
    Wait until a Push source has one of some statuses; for ``PushSourceStatusSensor``.

    :param source_id: The source.
    :param statuses: The statuses, in the Push API's words.
    :param coveo_conn_id: The Coveo connection.
    :param poke_interval: Seconds from one look to the next.
    :param give_up_at: When to look for the last time, in seconds since the epoch.
    :param organization_id: The organization, where it is not the connection's.
    :param silent_fail: Whether to go on waiting after an error that may pass.
    """

    def __init__(self, *, source_id: str, statuses: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source_id = source_id
        self.statuses = list(statuses)

    def wait(self) -> Condition:
        """Return what is waited for."""
        return SourceStatusCondition(
            self.source_id, tuple(SourceStatus.parse(name) for name in self.statuses)
        )

    def _parameters(self) -> dict[str, Any]:
        return {"source_id": self.source_id, "statuses": self.statuses}


class PushedItemsIndexedTrigger(_CoveoTrigger):
    """
    Wait until Coveo's pipeline is through with what was pushed; for ``PushedItemsIndexedSensor``.

    :param source_id: The source.
    :param operations: How many additions, updates and deletions were sent.
    :param started: Before the first was sent: epoch milliseconds by Coveo's clock.
    :param max_refused: How many refused items are put up with.
    :param settle_seconds: For how long the logs must have shown that all is through.
    :param refusals: The results of a stage that count as refused.
    :param repeated: How many were sent although Coveo may have taken them before. Default none.
    :param adds: How many are additions and updates, at least. Default 0.
    :param children: How many delete other items as well. Default: not known.
    :param repeated_children: How many of those that were sent twice delete other items as well. Default none.
    :param earlier: How many an earlier try sent as well, which may still be in the pipeline. Default none.
    :param on_repeated: What to do if the logs can't tell whether all is through: ``fail`` or ``warn``.
    :param quiet_seconds: How long the logs must have been still before that.
    :param coveo_conn_id: The Coveo connection.
    :param poke_interval: Seconds from one look to the next.
    :param give_up_at: When to look for the last time, in seconds since the epoch.
    :param organization_id: The organization, where it is not the connection's.
    :param silent_fail: Whether to go on waiting after an error that may pass.
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
        **kwargs: Any,
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
        """Return what is waited for."""
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

    def _parameters(self) -> dict[str, Any]:
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
    Wait until so many items may still be pushed today; for ``PushApiQuotaSensor``.

    :param items: How many.
    :param coveo_conn_id: The Coveo connection.
    :param poke_interval: Seconds from one look to the next.
    :param give_up_at: When to look for the last time, in seconds since the epoch.
    :param organization_id: The organization, where it is not the connection's.
    :param silent_fail: Whether to go on waiting after an error that may pass.
    """

    def __init__(self, *, items: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.items = items

    def wait(self) -> Condition:
        """Return what is waited for."""
        return DailyQuotaCondition(self.items)

    def _parameters(self) -> dict[str, Any]:
        return {"items": self.items}
