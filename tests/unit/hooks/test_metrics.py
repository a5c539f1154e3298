"""Metrics, as a StatsD daemon receives them from a process that pushes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_coveo.hooks import metrics
from airflow_provider_coveo.simulator import Simulator
from tests.statsd import Daemon

pytest.importorskip("statsd")

# Since Airflow 3.2, a task's process starts like this; before, metrics need no initialization.
PUSH = """
try:
    from airflow.sdk.observability import stats
    from airflow.sdk.observability.metrics import stats_utils
except ImportError:
    pass
else:
    if hasattr(stats, "initialize"):
        stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True)
    else:  # Airflow 3.2
        stats.Stats.initialize(factory=stats_utils.get_stats_factory(stats.Stats))
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
hook = CoveoPushHook(retry=RetryPolicy(total_seconds=5, first_wait=0.01, longest_wait=0.02))
items = [{"documentId": f"product://{n}", "data": "x"} for n in range(20)]
hook.push_items("acme-products", items, delete=["product://20", "product://21"])
hook.add_or_update_item("acme-products", items[0])
hook.delete_item("acme-products", "product://1")
"""


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with Daemon() as made:
        yield made


def push(daemon: Daemon, **settings: Any) -> None:
    environment = {
        **os.environ,
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": str(daemon.port),
        **{f"AIRFLOW__METRICS__{name}": value for name, value in settings.items()},
    }
    subprocess.run(
        [sys.executable, "-c", PUSH], check=True, env=environment, timeout=120, capture_output=True
    )


def test_a_push_is_counted_with_each_of_its_requests(
    coveo: Simulator, connect: Callable[..., None], daemon: Daemon
) -> None:
    coveo.faults.answer(503, operation="batch", times=2)
    push(daemon)
    counted = daemon.counters()
    sent = Counter(request.status for request in coveo.requests)
    size = counted.pop("coveo.bytes")
    assert counted == {
        "coveo.requests": sent.total(),
        **{f"coveo.requests.{status}": times for status, times in sent.items()},
        "coveo.retries": 2,
        "coveo.items_accepted": 21,
        "coveo.deletions_accepted": 3,
    }
    assert sent[503] == 2
    uploads = [request.body for request in coveo.requests if request.operation == "upload"]
    assert size == len(uploads[-1]) + len('{"data":"x"}')


def test_tags_contain_status_and_source_if_airflow_supports_them(
    coveo: Simulator, connect: Callable[..., None], daemon: Daemon
) -> None:
    push(daemon, STATSD_INFLUXDB_ENABLED="True")
    counted = daemon.counters()
    assert counted["coveo.items_accepted,source_id=acme-products"] == 21
    assert counted["coveo.requests,status=202"] == counted["coveo.requests.202"] > 0


def test_without_metrics_nothing_is_computed_for_them(hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert metrics._stats() is None
    assert (
        hook.push_items("acme-products", [{"documentId": "product://1", "data": "x"}])["accepted_adds"] == 1
    )
