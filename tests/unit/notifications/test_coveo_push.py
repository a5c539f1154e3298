"""The notifier for failure callbacks."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseHook, BaseNotifier, Connection
from asgiref.sync import async_to_sync

from airflow_provider_coveo.coveo.errors import CoveoError, CoveoInputError
from airflow_provider_coveo.notifications.coveo_push import CoveoSourceStatusNotifier
from airflow_provider_coveo.simulator import Simulator

SOURCE = "acme-products"


def context(**values: Any) -> dict[str, Any]:
    return {"dag": DAG("notifying", schedule=None, start_date=datetime(2025, 1, 1)), **values}


def test_the_notifier_sets_the_source_to_idle(coveo: Simulator, connect: Callable[..., None]) -> None:
    CoveoSourceStatusNotifier(source_id=SOURCE)(context())
    assert coveo.statuses(SOURCE) == ["IDLE"]
    assert "caller/CoveoSourceStatusNotifier" in coveo.requests[-1].headers["user-agent"]


def test_every_parameter_is_templated(
    coveo: Simulator, connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    notifier = CoveoSourceStatusNotifier(
        source_id="{{ params.source }}",
        status="{{ params.status }}",
        coveo_conn_id="coveo_{{ params.conn }}",
        organization_id="{{ params.organization }}",
    )
    params = {"source": SOURCE, "status": "refresh", "conn": "default", "organization": "acme"}
    notifier(context(params=params))
    assert coveo.statuses(SOURCE) == ["REFRESH"]


def test_an_invalid_status_is_rejected_when_the_notifier_is_called(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    notifier = CoveoSourceStatusNotifier(source_id=SOURCE, status="RESCAN")
    with pytest.raises(CoveoInputError, match="Invalid status of a Push source: 'RESCAN'"):
        notifier.notify(context())
    assert not coveo.requests


def test_the_notifier_retries_for_no_longer_than_a_callback_can_run(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    coveo.faults.answer(503, headers={"Retry-After": "30"}, operation="status")
    with pytest.raises(CoveoError):
        CoveoSourceStatusNotifier(source_id=SOURCE).notify(context())
    coveo.faults.clear()
    coveo.faults.answer(503, headers={"Retry-After": "0"}, operation="status", times=1)
    CoveoSourceStatusNotifier(source_id=SOURCE).notify(context())
    assert coveo.statuses(SOURCE) == ["IDLE"]


def test_the_notifier_does_not_wait_for_the_call_interval(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    connect(extra={"call_interval": 30})
    started = time.monotonic()
    CoveoSourceStatusNotifier(source_id=SOURCE).notify(context())
    assert time.monotonic() - started < 28
    assert coveo.statuses(SOURCE) == ["IDLE"]


@pytest.mark.skipif(not hasattr(BaseNotifier, "async_notify"), reason="notifiers can be awaited since 3.1")
def test_the_notifier_can_be_awaited(coveo: Simulator, connect: Callable[..., None]) -> None:
    async def alert() -> None:
        # Called like this by Airflow's triggerer.
        await CoveoSourceStatusNotifier(source_id=SOURCE, context={"run": "r"})

    asyncio.run(alert())
    assert coveo.statuses(SOURCE) == ["IDLE"]


@pytest.mark.skipif(not hasattr(BaseNotifier, "async_notify"), reason="notifiers can be awaited since 3.1")
def test_the_notifier_can_read_its_connection_in_a_triggerer_of_3_1(
    coveo: Simulator, connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    loops = []
    read = BaseHook.get_connection

    async def note_loop() -> None:
        loops.append(asyncio.get_running_loop())

    def read_by_loop(_: type[BaseHook], conn_id: str) -> Connection:
        # Airflow 3.1 sends the request by the triggerer's loop.
        async_to_sync(note_loop)()
        return read(conn_id)

    async def alert() -> None:
        await note_loop()
        await CoveoSourceStatusNotifier(source_id=SOURCE, context={"run": "r"})

    monkeypatch.setattr(BaseHook, "get_connection", classmethod(read_by_loop))
    asyncio.run(alert())
    assert coveo.statuses(SOURCE) == ["IDLE"]
    assert len(loops) > 1
    assert len(set(loops)) == 1


def test_the_notifier_can_be_sent_to_another_process() -> None:
    notifier = pickle.loads(pickle.dumps(CoveoSourceStatusNotifier(source_id=SOURCE)))
    assert (notifier.source_id, notifier.status) == (SOURCE, "IDLE")
