"""Only changes are pushed, and the index is the same as after a full push."""

from __future__ import annotations

import base64
import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_coveo.content.snapshot_push import SnapshotPush
from airflow_provider_coveo.content.snapshot_store import SnapshotStore
from airflow_provider_coveo.coveo.errors import (
    CoveoError,
    CoveoInputError,
    NoAnswerError,
    SnapshotDamagedError,
    SnapshotError,
    TooManyDeletionsError,
)
from airflow_provider_coveo.coveo.items import MAX_INLINE_DATA, Delete
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.operators.coveo_push import PushItemsOperator
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE
from tests.unit.changes.conftest import Push, items
from tests.unit.push.model import indexed, on_both

pytestmark = pytest.mark.usefixtures("connect", "variables")


def counts(result: dict[str, Any]) -> tuple[int, int, int, int]:
    return (result["added"], result["updated"], result["deleted"], result["unchanged"])


def sent(coveo: Simulator) -> int:
    return sum(request.operation == "batch" for request in coveo.requests)


def snapshot_file(tmp_path: Path) -> Path:
    (found,) = (tmp_path / "snapshots").rglob("snapshot")
    return found


def journal(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "snapshots").rglob("journal/*"))


# --- what is pushed ---


def test_the_first_push_sends_everything_and_reports_why(
    coveo: Simulator, push: Push, tmp_path: Path
) -> None:
    result = push(items(1, 2, 3))
    assert counts(result) == (3, 0, 0, 0)
    assert result["full_because"] == "there is no snapshot yet"
    assert result["snapshot"] == str(snapshot_file(tmp_path))
    assert len(indexed(coveo, SOURCE)) == 3
    assert journal(tmp_path) == []


def test_the_next_push_sends_only_changes_and_deletes_missing_items(coveo: Simulator, push: Push) -> None:
    push(items(1, 2, 3, 4, 5))
    before = sent(coveo)
    result = push(items(1, 2, 3, 6, _2="y"))
    assert counts(result) == (1, 1, 2, 2)
    assert (result["full_because"], result["saved_items"]) == (None, 2)
    assert sent(coveo) - before == 1
    assert indexed(coveo, SOURCE) == {f"a://{n}": ("y" if n == 2 else "x") * 300 for n in (1, 2, 3, 6)}


def test_without_changes_nothing_is_sent_and_nothing_is_saved(
    coveo: Simulator, push: Push, tmp_path: Path
) -> None:
    push(items(1, 2, 3))
    before, stored = len(coveo.requests), snapshot_file(tmp_path).read_bytes()
    result = push(items(3, 2, 1))
    assert counts(result) == (0, 0, 0, 3)
    assert result["saved_calls"] >= 3
    assert len(coveo.requests) == before
    assert snapshot_file(tmp_path).read_bytes() == stored


@pytest.mark.parametrize(
    "change",
    [
        {"title": "another"},
        {"price": 2},
        {"data": "another"},
        {"permissions": [{"allowAnonymous": True, "allowedPermissions": [], "deniedPermissions": []}]},
        {"fileExtension": ".html"},
    ],
    ids=str,
)
def test_a_change_of_any_part_of_an_item_is_pushed(
    coveo: Simulator, push: Push, change: dict[str, Any]
) -> None:
    item = {"documentId": "a://1", "data": "x", "title": "t", "price": 1}
    push([item, *items(2)])
    assert counts(push([{**item, **change}, *items(2)])) == (0, 1, 0, 1)


def test_changes_of_large_and_compressed_content_are_pushed(coveo: Simulator, push: Push) -> None:
    def content(last: bytes, compression: str = "UNCOMPRESSED") -> list[dict[str, Any]]:
        data = base64.b64encode(b"x" * MAX_INLINE_DATA + last).decode()
        return [
            {"documentId": "a://1", "data": "x" * MAX_INLINE_DATA + last.decode()},
            {"documentId": "a://2", "compressedBinaryData": data, "compressionType": compression},
        ]

    push(content(b"1"))
    assert counts(push(content(b"1"))) == (0, 0, 0, 2)
    assert counts(push(content(b"2"))) == (0, 2, 0, 0)
    assert counts(push(content(b"2", "GZIP"))) == (0, 1, 0, 1)


def test_items_compare_equal_however_they_are_read(coveo: Simulator, push: Push, tmp_path: Path) -> None:
    content = [{"documentId": f"a://{n}", "data": "x" * 100, "size": n} for n in range(50)]
    push(content)
    file = tmp_path / "items.ndjson"
    file.write_text("\n".join(json.dumps(item, separators=(",", ":")) for item in content))
    assert counts(push(None, path=str(file))) == (0, 0, 0, 50)


def test_the_last_of_two_items_with_the_same_id_counts(coveo: Simulator, push: Push) -> None:
    push(items(1, 2, _1="y"))
    # The last one equals the known state, but must be sent because it follows the first.
    result = push([*items(1), *items(2), *items(1, _1="y")])
    assert indexed(coveo, SOURCE)["a://1"] == "y" * 300
    assert counts(result) == (0, 2, 0, 1)
    assert counts(push(items(1, 2, _1="y"))) == (0, 0, 0, 2)


def test_deletions_in_the_input_are_remembered(coveo: Simulator, push: Push) -> None:
    push([*items(1, 2), Delete("a://3")])
    assert counts(push([*items(1, 2), Delete("a://3")])) == (0, 0, 0, 3)
    assert counts(push([*items(1, 2, 3)])) == (1, 0, 0, 2)
    assert counts(push(items(1, 2), delete=["a://3"])) == (0, 0, 1, 2)
    # It is already gone, so nothing needs to be deleted once the input lacks it.
    assert counts(push(items(1, 2))) == (0, 0, 0, 2)
    assert set(indexed(coveo, SOURCE)) == {"a://1", "a://2"}


def test_items_deleted_as_children_are_pushed_again(coveo: Simulator, push: Push) -> None:
    of_two = {"documentId": "a://1/2", "data": "x"}
    content = [Delete("a://1", delete_children=True), *items(1, 10, 2), of_two]
    push(content)
    # Coveo calls it a prefix, so the tenth may be gone, too.
    assert counts(push(content)) == (0, 3, 1, 1)
    assert set(indexed(coveo, SOURCE)) == {"a://1", "a://10", "a://2", "a://1/2"}
    push([*items(1, 10, 2), of_two, Delete("a://1", delete_children=True)])
    assert counts(push([*items(1, 10, 2), of_two])) == (2, 1, 0, 1)
    assert set(indexed(coveo, SOURCE)) == {"a://1", "a://10", "a://2", "a://1/2"}


def test_an_item_deleted_with_its_parent_does_not_count_as_missing(coveo: Simulator, push: Push) -> None:
    of_one = [{"documentId": f"a://1/{number}", "data": "x"} for number in range(8)]
    push([*items(1, 2), *of_one])
    result = push([*items(2), Delete("a://1", delete_children=True)], max_deleted=0)
    assert counts(result) == (0, 0, 1, 1)
    assert set(indexed(coveo, SOURCE)) == {"a://2"}
    assert counts(push(items(2), max_deleted=0)) == (0, 0, 0, 1)


def test_each_part_of_a_mapped_task_has_its_own_snapshot(coveo: Simulator, push: Push) -> None:
    for run in ("r1", "r2"):
        results = [push(items(n, n + 1), run_id=run, map_index=n) for n in (1, 5, 9)]
    assert [counts(result) for result in results] == [(0, 0, 0, 2)] * 3
    assert len(indexed(coveo, SOURCE)) == 6


def test_a_renamed_task_continues_with_the_renamed_folder_of_its_snapshot(
    coveo: Simulator, push: Push, tmp_path: Path
) -> None:
    push(items(1, 2))
    folder = snapshot_file(tmp_path).parent
    folder.rename(folder.with_name("u"))
    assert counts(push(items(2, 3), name="u")) == (1, 0, 1, 1)
    assert set(indexed(coveo, SOURCE)) == {"a://2", "a://3"}
    assert push(items(2, 3), name="u")["unchanged"] == 2


def test_another_source_or_organization_or_host_has_a_snapshot_of_its_own(
    coveo: Simulator, push: Push, tmp_path: Path
) -> None:
    coveo.add_source("other")
    push(items(1))
    result = push(items(1), source_id="other")
    assert (counts(result), result["full_because"]) == ((1, 0, 0, 0), "there is no snapshot yet")


@on_both
def test_the_index_ends_as_if_everything_had_been_pushed(coveo: Simulator, push: Push) -> None:
    for step in range(1, 6):
        content = [
            {"documentId": f"a://{number * step % 30}", "data": "uvw"[number * step % 7 % 3] * 400}
            for number in range(25)
        ]
        push([json.dumps(item).encode() if number % 3 else item for number, item in enumerate(content)])
        assert indexed(coveo, SOURCE) == {item["documentId"]: item["data"] for item in content}


# --- only the hook ---


def test_the_hook_pushes_changes_by_a_name(coveo: Simulator, hook: CoveoPushHook, tmp_path: Path) -> None:
    from airflow_provider_coveo.coveo.only_changes import OnlyChanges

    changes = OnlyChanges(str(tmp_path / "snapshots"), name="catalog")
    assert hook.push_items(SOURCE, items(1, 2), changes=changes)["added"] == 2
    assert hook.push_items(SOURCE, items(1, 2), changes=changes)["unchanged"] == 2
    with pytest.raises(CoveoInputError, match="has no name"):
        hook.push_items(SOURCE, items(1), changes=OnlyChanges(str(tmp_path)))


def test_a_push_imports_no_module_of_features_that_it_does_not_use(run_fresh: Any) -> None:
    done = run_fresh(
        """
import sys
import airflow_provider_coveo.hooks.coveo_push, airflow_provider_coveo.operators.coveo_push
features = (
    "content", "state.cursors", "state.snapshot_parts", "coveo.changes", "coveo.conditions", "coveo.fields",
    "coveo.indexing", "coveo.only_changes", "coveo.rejections",
)
names = tuple(f"airflow_provider_coveo.{name}" for name in features)
assert [name for name in sys.modules if name.startswith(names)] == []
"""
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- storage ---


def test_without_a_path_nothing_is_read(coveo: Simulator, push: Push) -> None:
    def unread() -> Any:
        raise AssertionError("it was read")
        yield

    with pytest.raises(CoveoInputError, match="there is no snapshot_path"):
        push(unread(), snapshot_path=None)
    with pytest.raises(CoveoInputError, match="relative"):
        push(unread(), snapshot_path="snapshots")
    for bad in ({"max_deleted": "120%"}, {"max_deleted": -1}, {"full_after": timedelta(0)}):
        with pytest.raises(CoveoInputError, match="Invalid"):
            push(unread(), **bad)
    assert coveo.requests == []


def test_the_connection_can_set_the_path(coveo: Simulator, connect: Any, push: Push, tmp_path: Path) -> None:
    host = {"platform_host": coveo.url, "snapshot_path": str(tmp_path / "of-connection")}
    connect(extra=json.dumps(host))
    assert push(items(1), snapshot_path=None)["snapshot"].startswith(str(tmp_path / "of-connection"))


def test_the_error_of_a_damaged_snapshot_names_it(coveo: Simulator, push: Push, tmp_path: Path) -> None:
    push(items(1, 2))
    path = snapshot_file(tmp_path)
    content = path.read_bytes()
    middle = len(content) // 2
    for damaged in (content[:-5], content[:100], b"", content[:middle] + b"?" + content[middle + 1 :]):
        path.write_bytes(damaged)
        before = len(coveo.requests)
        with pytest.raises(SnapshotDamagedError, match=str(path)):
            push(items(1, 2))
        assert len(coveo.requests) == before
    result = push(items(1, 2), on_damaged_snapshot="push_all")
    assert (counts(result), result["full_because"]) == ((2, 0, 0, 0), "the snapshot was damaged")
    assert counts(push(items(1, 2))) == (0, 0, 0, 2)


def test_a_snapshot_of_another_format_is_not_read(coveo: Simulator, push: Push, tmp_path: Path) -> None:
    push(items(1, 2))
    path = snapshot_file(tmp_path)
    path.write_bytes(
        path.read_bytes().replace(b'coveo-snapshot {"format": 1', b'coveo-snapshot {"format": 9')
    )
    result = push(items(1, 2))
    assert result["full_because"].endswith("it has format 9, but this version reads format 1.")
    assert counts(push(items(1, 2))) == (0, 0, 0, 2)


def test_a_folder_that_cannot_be_written_is_an_error_before_anything_is_sent(
    coveo: Simulator, push: Push, tmp_path: Path
) -> None:
    (tmp_path / "snapshots").write_text("no folder")
    with pytest.raises(SnapshotError, match="snapshots"):
        push(items(1))
    assert sent(coveo) == 0


# --- invalid snapshots ---


def test_after_a_change_by_another_task_run_or_call_everything_is_pushed(
    coveo: Simulator, push: Push, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(items(1, 2))
    monkeypatch.setenv("AIRFLOW_CTX_DAG_ID", "another")
    monkeypatch.setenv("AIRFLOW_CTX_DAG_RUN_ID", "r")
    for change in (
        lambda hook: hook.delete_old_items(SOURCE, queue_delay=0),
        lambda hook: hook.delete_item(SOURCE, "a://1"),
        lambda hook: hook.push_items(SOURCE, items(1, _1="z")),
        lambda hook: hook.add_or_update_item(SOURCE, items(1, _1="z")[0]),
    ):
        change(CoveoPushHook())
        result = push(items(1, 2))
        assert "another task, run or call" in result["full_because"]
        assert indexed(coveo, SOURCE) == {"a://1": "x" * 300, "a://2": "x" * 300}
        assert counts(push(items(1, 2))) == (0, 0, 0, 2)


def test_a_full_push_deletes_known_items_that_are_missing(coveo: Simulator, push: Push) -> None:
    push(items(1, 2, 3))
    result = push(items(1, 2), full_after=timedelta(microseconds=1))
    assert "everything was last pushed more than" in result["full_because"]
    assert counts(result) == (0, 2, 1, 0)
    assert set(indexed(coveo, SOURCE)) == {"a://1", "a://2"}


def test_a_resumable_push_that_ends_after_another_one_is_detected(
    coveo: Simulator, push: Push, dag: Any
) -> None:
    """A resumable push records its start; if others change the content, it also records its end."""
    push(items(1, 2))

    def content() -> Any:
        # More than one batch, so that the push has begun.
        yield from items(7, 8, 9, 10)
        push(items(1, 2, _1="y"), run_id="inner")
        yield from items(1, _1="late")

    push(content(), only_changes=False, run_id="outer")
    assert indexed(coveo, SOURCE)["a://1"] == "late" * 300
    assert "another task, run or call" in push(items(1, 2))["full_because"]
    assert indexed(coveo, SOURCE)["a://1"] == "x" * 300


# --- max_deleted ---


def test_if_more_items_are_missing_than_allowed_none_is_deleted_and_the_error_names_them(
    coveo: Simulator, push: Push
) -> None:
    push(items(*range(10)))
    with pytest.raises(TooManyDeletionsError) as raised:
        push(items(*range(7), 20), max_deleted=None)
    assert "3 of the 10 items" in str(raised.value)
    assert "30.0%" in str(raised.value)
    assert "'a://7', 'a://8', 'a://9'" in str(raised.value)
    assert "max_deleted" in raised.value.remedy
    # New items were pushed.
    assert set(indexed(coveo, SOURCE)) == {f"a://{n}" for n in (*range(10), 20)}
    assert counts(push(items(*range(7), 20), max_deleted="3")) == (0, 0, 3, 8)


@pytest.mark.parametrize(("max_deleted", "allowed"), [("20%", 2), (0, 0), ("5", 5), ("10.5%", 1)])
def test_max_deleted_is_a_number_or_a_percentage(
    coveo: Simulator, push: Push, max_deleted: Any, allowed: int
) -> None:
    push(items(*range(10)))
    with pytest.raises(TooManyDeletionsError):
        push(items(*range(10 - allowed - 1)), max_deleted=max_deleted)
    assert push(items(*range(10 - allowed)), max_deleted=max_deleted)["deleted"] == allowed


def test_an_empty_input_deletes_nothing_whatever_is_allowed(coveo: Simulator, push: Push) -> None:
    push(items(1, 2))
    for content in ([], [Delete("a://9")]):
        with pytest.raises(TooManyDeletionsError, match="the input has no items"):
            push(content)
    assert set(indexed(coveo, SOURCE)) == {"a://1", "a://2"}
    assert counts(push(items(1, 2))) == (0, 0, 0, 2)


def test_an_input_that_fails_halfway_deletes_nothing(coveo: Simulator, push: Push) -> None:
    push(items(*range(10)))

    def half() -> Any:
        yield from items(*range(5), _1="y")
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        push(half())
    assert len(indexed(coveo, SOURCE)) == 10


def test_an_invalid_item_does_not_count_as_missing(coveo: Simulator, push: Push) -> None:
    push(items(1, 2, 3))
    invalid = {"documentId": "a://2", "data": 1}
    result = push([*items(1), invalid], on_invalid="skip")
    assert counts(result) == (0, 0, 1, 1)
    assert set(indexed(coveo, SOURCE)) == {"a://1", "a://2"}
    # It is unknown which one this is, so none is deleted.
    assert counts(push([*items(1), {"data": "x"}], on_invalid="skip")) == (0, 0, 0, 1)
    assert set(indexed(coveo, SOURCE)) == {"a://1", "a://2"}


# --- failures ---


def test_a_retry_resumes_by_comparing(coveo: Simulator, push: Push, tmp_path: Path) -> None:
    coveo.faults.answer(400, error_code="INVALID_JSON", operation="batch", after=2)
    with pytest.raises(CoveoError, match="INVALID_JSON"):
        push(items(*range(10)), run_id="r")
    accepted = len(indexed(coveo, SOURCE))
    assert 0 < accepted < 10
    assert journal(tmp_path)
    result = push(items(*range(10)), run_id="r")
    # Nothing else is known of the rejected batch and those after it.
    assert (result["added"] + result["updated"], result["unchanged"]) == (10 - accepted, accepted)
    assert result["full_because"] is None
    assert journal(tmp_path) == []


def test_a_batch_whose_acceptance_is_unknown_is_pushed_again(
    coveo: Simulator, push: Push, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(items(1, 2))
    coveo.faults.drop(before=False, operation="batch", times=1000)
    with monkeypatch.context() as patch:
        patch.setattr(PushItemsOperator, "hook", CoveoPushHook(retry=RetryPolicy(total_seconds=0)))
        with pytest.raises(NoAnswerError):
            push(items(1, 2, _1="y"))
    coveo.faults.clear()
    # The input returned to the snapshot's state. It is still pushed, because Coveo may have accepted the
    # other.
    assert counts(push(items(1, 2))) == (0, 1, 0, 1)
    assert indexed(coveo, SOURCE)["a://1"] == "x" * 300


def test_a_snapshot_that_cannot_be_replaced_fails_the_task_and_loses_nothing(
    coveo: Simulator, push: Push, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(items(1, 2, 3))
    old = snapshot_file(tmp_path).read_bytes()
    replace = Path.replace

    def fail(self: Path, target: Any) -> Any:
        if Path(target).name == "snapshot":
            raise OSError(28, "No space left on device")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(SnapshotError, match="No space left"):
            push(items(1, 2, 4, _1="y"))
    assert snapshot_file(tmp_path).read_bytes() == old
    assert set(indexed(coveo, SOURCE)) == {"a://1", "a://2", "a://4"}
    result = push(items(1, 2, 4, _1="y"))
    assert result["unchanged"] >= 2
    assert counts(push(items(1, 2, 4, _1="y"))) == (0, 0, 0, 3)
    assert set(indexed(coveo, SOURCE)) == {"a://1", "a://2", "a://4"}


def test_the_push_after_two_concurrent_ones_corrects_the_index(
    coveo: Simulator, push: Push, tmp_path: Path
) -> None:
    push(items(1, 2))

    def content() -> Any:
        yield from items(1, 2, _1="outer")
        push(items(1, 2, _2="inner"), run_id="inner")

    push(content(), run_id="outer")
    assert journal(tmp_path)
    push(items(1, 2))
    assert indexed(coveo, SOURCE) == {"a://1": "x" * 300, "a://2": "x" * 300}
    assert journal(tmp_path) == []
    assert counts(push(items(1, 2))) == (0, 0, 0, 2)


def test_no_file_is_left_on_the_worker(
    coveo: Simulator, push: Push, tmp_path: Path, monkeypatch: Any
) -> None:
    import tempfile

    (tmp_path / "local").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "local"))
    push(items(1))
    with pytest.raises(TooManyDeletionsError):
        push([])
    assert list((tmp_path / "local").iterdir()) == []


def test_full_after_counts_from_the_last_push_of_everything(
    coveo: Simulator, push: Push, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(items(1, 2))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 5 * 24 * 3600)
    assert push(items(1, 2, _1="y"))["full_because"] is None
    monkeypatch.setattr(time, "time", lambda: now + 8 * 24 * 3600)
    assert "more than 7 days" in push(items(1, 2, _1="y"))["full_because"]


def test_progress_that_a_power_failure_may_have_lost_is_pushed_again(
    coveo: Simulator, push: Push, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed process loses nothing that it wrote to a folder, but a crashed machine may."""
    push(items(1, 2))
    with monkeypatch.context() as patch:
        patch.setattr(SnapshotPush, "fail", lambda push: None)
        patch.setattr(SnapshotStore, "replace", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            push(items(1, 2, _1="y"))
    # As if another batch's record had been lost.
    coveo.items(SOURCE)["a://2"]["data"] = "lost"
    monkeypatch.setattr(SnapshotStore, "boot", lambda store: "another")
    assert push(items(1, 2))["unchanged"] == 0
    assert indexed(coveo, SOURCE) == {"a://1": "x" * 300, "a://2": "x" * 300}
