"""Disks that are full or read-only: an error that names the disk and the remedy, and nothing is lost."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_coveo.coveo.errors import RejectedItemsError, SnapshotError
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE
from tests.unit.changes.conftest import Push, items
from tests.unit.push.model import indexed

pytestmark = pytest.mark.usefixtures("connect", "variables")

FULL = "is full"


class Disk:
    """A small file system."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", self.path], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield Disk(path)
    subprocess.run(["umount", "--lazy", path], check=True)


def many(data: str = "x") -> list[dict[str, Any]]:
    return [{"documentId": f"a://{'y' * 100}{number}", "data": data} for number in range(3000)]


def test_a_full_snapshot_folder_fails_the_push_and_a_retry_succeeds(
    coveo: Simulator, push: Push, disk: Disk
) -> None:
    options: Any = {"snapshot_path": str(disk.path), "batch_bytes": 100_000}
    with pytest.raises(SnapshotError, match=FULL):
        push(many(), **options)
    disk.remount("size=20m")
    push(many(), **options)
    assert len(indexed(coveo, SOURCE)) == 3000
    assert push(many(), **options)["unchanged"] == 3000


def test_a_snapshot_that_cannot_be_replaced_on_a_full_disk_fails_the_push(
    coveo: Simulator, push: Push, disk: Disk
) -> None:
    options: Any = {"snapshot_path": str(disk.path), "batch_bytes": 100_000}
    disk.remount("size=20m")
    push(many(), **options)
    # The record of the journal fits beside it, and a second snapshot does not.
    filler = disk.path / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(disk.path).free - 100_000))
    changed = [*many()[:-1], *many("y")[-1:]]
    with pytest.raises(SnapshotError, match=f"/snapshot: .*{FULL}"):
        push(changed, **options)
    filler.unlink()
    assert push(changed, **options)["unchanged"] == 3000


@pytest.mark.parametrize("size", ["100k", "400k"])
def test_a_full_temporary_folder_fails_the_push_and_a_retry_succeeds(
    coveo: Simulator, push: Push, disk: Disk, size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.remount(f"size={size}")
    monkeypatch.setattr(tempfile, "tempdir", str(disk.path))
    with pytest.raises(SnapshotError, match=f"temporary folder {disk.path} {FULL}.* Remedy: Free space"):
        push(many(), batch_bytes=100_000)
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert push(many(), batch_bytes=100_000)["accepted_adds"] > 0
    assert push(many(), batch_bytes=100_000)["unchanged"] == 3000


def test_a_read_only_snapshot_folder_fails_a_push_of_changes_before_anything_is_sent(
    coveo: Simulator, push: Push, disk: Disk
) -> None:
    folder = str(disk.path)
    push(items(1, 2), snapshot_path=folder)
    disk.remount("ro")
    assert push(items(1, 2), snapshot_path=folder)["unchanged"] == 2
    assert push(items(1, 2, 3), snapshot_path=folder, dry_run=True)["added"] == 1
    before = len(coveo.requests)
    with pytest.raises(SnapshotError, match="Read-only file system"):
        push(items(1, 3), snapshot_path=folder)
    assert [request for request in coveo.requests[before:] if request.method != "GET"] == []
    disk.remount("rw")
    push(items(1, 3), snapshot_path=folder)
    assert set(indexed(coveo, SOURCE)) == {"a://1", "a://3"}


@pytest.mark.parametrize(
    ("options", "what"), [("ro", "Read-only file system.* Remedy: Check rejected_path"), ("size=16k", FULL)]
)
def test_a_full_or_read_only_folder_for_rejected_items_fails_the_push_after_the_valid_items(
    coveo: Simulator, push: Push, disk: Disk, options: str, what: str
) -> None:
    path = disk.path / "rejected.ndjson"
    bad = [{"documentId": "bad", "data": "x" * 1000}] * 50
    how: Any = {"only_changes": False, "on_invalid": "skip", "rejected_path": str(path)}
    disk.remount(options)
    with pytest.raises(RejectedItemsError, match=f"Could not write the rejected items to {path}: .*{what}"):
        push([*items(1), *bad, *items(2)], **how)
    # All others were pushed, and no part of a file is left.
    assert set(indexed(coveo, SOURCE)) == {"a://1", "a://2"}
    assert list(disk.path.iterdir()) == []
    disk.remount("rw,size=20m")
    push([*items(1), *bad, *items(2)], **how)
    assert len(path.read_text().splitlines()) == 50


def test_the_error_names_a_temporary_folder_without_space_for_rejected_items(
    coveo: Simulator, push: Push, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(disk.path))
    bad = [{"documentId": "bad", "data": "x" * 1000}] * 500
    with pytest.raises(RejectedItemsError, match=f"temporary folder {disk.path}, {FULL}"):
        push(
            [*items(1), *bad], only_changes=False, on_invalid="skip",
            rejected_path=str(tmp_path / "r.ndjson"),
        )  # fmt: skip
