"""Snapshots on an S3 over a socket: replaced atomically, and not treated as missing if unreadable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("s3fs")
pytest.importorskip("moto")
pytest.importorskip("airflow.providers.amazon")

from airflow_provider_coveo.coveo.errors import CoveoError, SnapshotDamagedError, SnapshotError
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE
from tests.unit.changes.conftest import Push, items
from tests.unit.push.model import indexed
from tests.unit.push.object_storage import Request, Storage, connection_to, running_storage

# Airflow caches a file system for each connection, so no other module may use this one.
ROOT = "s3://coveo_snapshots_s3@bucket/snapshots"
KEY = f"snapshots/acme/{SOURCE}/d/t"

pytestmark = pytest.mark.usefixtures("connect", "variables")


@pytest.fixture(scope="module")
def _running() -> Iterator[Storage]:
    with running_storage() as (storage, url), pytest.MonkeyPatch.context() as patched:
        patched.setenv("AIRFLOW_CONN_COVEO_SNAPSHOTS_S3", connection_to(url))
        yield storage


@pytest.fixture
def storage(_running: Storage) -> Iterator[Storage]:
    _running.clear()
    found = _running.client.list_objects_v2(Bucket="bucket", Prefix="snapshots/").get("Contents", [])
    for each in found:
        _running.client.delete_object(Bucket="bucket", Key=each["Key"])
    yield _running
    _running.clear()


def journal(storage: Storage) -> list[str]:
    found = storage.client.list_objects_v2(Bucket="bucket", Prefix=f"{KEY}/journal/")
    return [each["Key"] for each in found.get("Contents", [])]


def counts(result: dict[str, Any]) -> tuple[int, int, int, int]:
    return (result["added"], result["updated"], result["deleted"], result["unchanged"])


def test_a_snapshot_is_stored_in_one_object(coveo: Simulator, storage: Storage, push: Push) -> None:
    result = push(items(1, 2, 3), snapshot_path=ROOT)
    assert result["snapshot"] == f"{ROOT}/acme/{SOURCE}/d/t/snapshot"
    assert storage.has(f"{KEY}/snapshot")
    assert counts(push(items(1, 2, 4, _1="y"), snapshot_path=ROOT)) == (1, 1, 1, 1)
    assert counts(push(items(1, 2, 4, _1="y"), snapshot_path=ROOT)) == (0, 0, 0, 3)
    assert journal(storage) == []


def test_a_retry_resumes_by_comparing(coveo: Simulator, storage: Storage, push: Push) -> None:
    coveo.faults.answer(400, error_code="INVALID_JSON", operation="batch", after=2)
    with pytest.raises(CoveoError, match="INVALID_JSON"):
        push(items(*range(10)), snapshot_path=ROOT)
    assert journal(storage)
    accepted = len(indexed(coveo, SOURCE))
    assert push(items(*range(10)), snapshot_path=ROOT)["unchanged"] == accepted > 0
    assert journal(storage) == []


@pytest.mark.parametrize("method", ["HEAD", "GET", "PUT", "DELETE"])
def test_whichever_request_the_storage_rejects_nothing_is_lost(
    coveo: Simulator, storage: Storage, push: Push, method: str
) -> None:
    push(items(1, 2, 3), snapshot_path=ROOT)

    def fault(request: Request) -> int | None:
        return 403 if request.method == method else None

    storage.fault = fault
    with pytest.raises(SnapshotError, match="snapshots"):
        push(items(1, 2, 4, _1="y"), snapshot_path=ROOT)
    storage.fault = lambda request: None
    push(items(1, 2, 4, _1="y"), snapshot_path=ROOT)
    assert indexed(coveo, SOURCE) == {"a://1": "y" * 300, "a://2": "x" * 300, "a://4": "x" * 300}
    assert counts(push(items(1, 2, 4, _1="y"), snapshot_path=ROOT)) == (0, 0, 0, 3)


def test_the_error_of_a_damaged_snapshot_names_the_object(
    coveo: Simulator, storage: Storage, push: Push
) -> None:
    push(items(1, 2), snapshot_path=ROOT)
    storage.put(f"{KEY}/snapshot", b"cut off")
    with pytest.raises(SnapshotDamagedError, match=f"{KEY}/snapshot"):
        push(items(1, 2), snapshot_path=ROOT)


def test_a_missing_bucket_is_an_error_before_anything_is_sent(
    coveo: Simulator, storage: Storage, push: Push
) -> None:
    with pytest.raises(SnapshotError):
        push(items(1), snapshot_path="s3://coveo_snapshots_s3@nowhere/snapshots")
    assert indexed(coveo, SOURCE) == {}
