"""The memory of a push of only changes does not depend on the snapshot or the number of changes."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_coveo.content import snapshots
from airflow_provider_coveo.coveo.batches import Batch, item_batches
from airflow_provider_coveo.coveo.client import push as pushing
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE
from tests.unit.changes.conftest import Push, items


@pytest.mark.usefixtures("connect", "variables")
def test_changed_items_are_pushed_in_batches_of_at_most_ten_thousand(coveo: Simulator, push: Push) -> None:
    pushed = push(
        ({"documentId": f"a://{number}", "data": "x"} for number in range(20_001)), batch_bytes=10**8
    )
    batches = [event["added"] for event in coveo.timeline(SOURCE) if event["event"] == "batch"]
    assert batches == [10_000, 10_000, 1]
    assert pushed["saved_calls"] == 0


def test_the_bitmaps_of_a_large_snapshot_reduce_its_page_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_CACHE_KIB", 40)
    monkeypatch.setattr(snapshots, "_MIN_CACHE_KIB", 20)
    snapshot = snapshots.Snapshot(tmp_path)
    snapshot.create()
    sizes = []
    for ids in (0, 50_000, 30_000, 20_000):
        snapshot.forget(f"a://{snapshot.numbers + number}" for number in range(ids))
        snapshot.write()
        snapshot.open("a snapshot")
        assert snapshot._database is not None
        sizes.append(-snapshot._database.execute("PRAGMA main.cache_size").fetchone()[0])
    snapshot.close()
    # Two bits per item.
    assert sizes == [40, 40 - 12, 40 - 19, 20]


def test_a_batch_is_released_while_the_next_one_is_filled(
    coveo: Simulator, hook: CoveoPushHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[weakref.ref[Batch]] = []

    def noted(*args: Any) -> Iterator[Batch]:
        for batch in item_batches(*args):
            batches.append(weakref.ref(batch))
            yield batch
            del batch

    left = -1

    def content() -> Iterator[dict[str, Any]]:
        nonlocal left
        for number, item in enumerate(items(*range(24))):
            until = time.monotonic() + 5
            while number == 16 and left and time.monotonic() < until:
                left = sum(batch() is not None for batch in batches)
                time.sleep(0.01)
            yield item

    monkeypatch.setattr(pushing, "item_batches", noted)
    hook.push_items(SOURCE, content(), batch_bytes=1024)
    assert len(batches) > 7
    assert left == 0
