"""Pushes in processes that kill themselves, one attempt each. Variables are files."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import airflow.providers.common.compat.sdk as sdk

from airflow_provider_coveo.content.snapshot_store import SnapshotStore
from airflow_provider_coveo.coveo.only_changes import OnlyChanges
from airflow_provider_coveo.hooks.changes import ChangesPush
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from tests.forked import serve
from tests.unit.operators.tries import FileVariables

#: The points at which an attempt can be killed: before or after it downloads, records a batch, records an
#: acceptance, replaces the snapshot, and deletes its journal.
POINTS: dict[str, tuple[Any, str]] = {
    "download": (SnapshotStore, "download"),
    "journal": (SnapshotStore, "write"),
    "accepted": (ChangesPush, "accepted"),
    "replace": (SnapshotStore, "replace"),
    "delete": (SnapshotStore, "delete"),
}


def deadly(method: Callable[..., Any], nth: int, *, before: bool) -> Callable[..., Any]:
    calls = iter(range(1, 1_000_000))

    def call(*args: Any, **kwargs: Any) -> Any:
        is_it = next(calls) == nth
        if is_it and before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = method(*args, **kwargs)
        if is_it:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call


def execute(order: dict[str, Any]) -> None:
    folder = Path(order["folder"])
    sdk.Variable = FileVariables(folder, None, False)  # type: ignore[misc,assignment]
    # Only the process dies, not the machine.
    os.fsync = lambda descriptor: None  # type: ignore[assignment]
    if order.get("point"):
        owner, name = POINTS[order["point"]]
        setattr(owner, name, deadly(getattr(owner, name), order["nth"], before=order["before"]))
    changes = OnlyChanges(str(folder / "snapshots"), name="catalog", max_deleted="100%")
    CoveoPushHook().push_items(
        order["source"], order["items"], batch_bytes=1024, upload_concurrency=1, changes=changes
    )


if __name__ == "__main__":
    serve(execute, lambda: CoveoPushHook().settings)
