"""Events at a bad time: others' changes, a second push, invalid items, a long journal."""

from __future__ import annotations

import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_coveo.content import snapshot_store
from airflow_provider_coveo.content.snapshot_push import SnapshotPush
from airflow_provider_coveo.content.snapshot_store import SnapshotStore
from airflow_provider_coveo.coveo.errors import CoveoError, CoveoInputError
from airflow_provider_coveo.coveo.items import Delete
from airflow_provider_coveo.coveo.only_changes import OnlyChanges
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE
from tests.unit.changes.conftest import Push, items
from tests.unit.push.model import indexed

pytestmark = pytest.mark.usefixtures("connect", "variables")


def snapshot_push(folder: Path) -> SnapshotPush:
    push = SnapshotPush(SnapshotStore(str(folder)), target="t")
    push.load()
    push.begin("c")
    return push


def test_changes_by_others_before_the_first_batch_of_a_failed_push_are_detected(
    coveo: Simulator, push: Push
) -> None:
    push(items(*range(10)))
    after = [*items(*range(5)), *items(*range(5, 10), data="y")]

    def content() -> Iterator[Any]:
        yield from after[:5]
        push([Delete("a://1")], only_changes=False, run_id="other")
        coveo.faults.answer(400, error_code="INVALID_JSON", operation="batch", after=1)
        yield from after[5:]

    with pytest.raises(CoveoError, match="INVALID_JSON"):
        push(content(), run_id="r")
    coveo.faults.clear()
    assert "a://1" not in indexed(coveo, SOURCE)
    assert push(after, run_id="r")["full_because"] is not None
    assert indexed(coveo, SOURCE) == {item["documentId"]: item["data"] for item in after}


def test_an_old_snapshot_is_not_used(coveo: Simulator, push: Push, tmp_path: Path) -> None:
    push(items(1, 2))
    shutil.copytree(tmp_path / "snapshots", tmp_path / "backup")
    push(items(1, 2, _1="y"), run_id="r")
    shutil.rmtree(tmp_path / "snapshots")
    shutil.copytree(tmp_path / "backup", tmp_path / "snapshots")
    assert "older than the last push" in push(items(1, 2), run_id="r")["full_because"]
    assert indexed(coveo, SOURCE)["a://1"] == "x" * 300
    assert push(items(1, 2))["unchanged"] == 2


@pytest.mark.parametrize("map_index", [-1, 3])
def test_a_snapshot_is_not_used_if_the_last_push_used_another_folder(
    coveo: Simulator, push: Push, tmp_path: Path, map_index: int
) -> None:
    push(items(1, 2), map_index=map_index)
    push(items(1, 2, _1="y"), map_index=map_index, snapshot_path=str(tmp_path / "other"))
    push(items(1, 2), map_index=map_index)
    assert indexed(coveo, SOURCE)["a://1"] == "x" * 300


def test_the_hook_does_not_use_an_old_snapshot(coveo: Simulator, hook: CoveoPushHook, tmp_path: Path) -> None:
    for content, folder in ((items(1), "one"), (items(1, _1="y"), "other"), (items(1), "one")):
        hook.push_items(SOURCE, content, changes=OnlyChanges(str(tmp_path / folder), name="catalog"))
    assert indexed(coveo, SOURCE)["a://1"] == "x" * 300


def test_a_batch_that_is_accepted_after_another_push_is_pushed_again(tmp_path: Path) -> None:
    first = snapshot_push(tmp_path)
    first.write_down(0, [("+", "a://1", b"old")])
    assert first.finish("c")
    late = snapshot_push(tmp_path)
    late.write_down(0, [("+", "a://1", b"late")])
    other = snapshot_push(tmp_path)
    other.write_down(0, [("+", "a://1", b"other")])
    assert other.finish("c")
    # The other push has applied the late one's journal. Then Coveo accepts the late one's batch.
    assert not late.finish("c")
    after = snapshot_push(tmp_path)
    assert after.snapshot.lookup(["a://1"])["a://1"][1] is None
    for each in (first, late, other, after):
        each.close()


def test_nothing_is_deleted_if_too_many_items_are_invalid(coveo: Simulator, push: Push) -> None:
    push(items(*range(10)))
    invalid = [{"documentId": f"a://invalid{number}", "data": 1} for number in range(20)]
    with pytest.raises(CoveoInputError, match="more than the 10%"):
        push([*items(*range(5), _1="y"), *invalid], on_invalid="skip", max_invalid="10%")
    assert len(indexed(coveo, SOURCE)) == 10
    assert indexed(coveo, SOURCE)["a://1"] == "y" * 300
    push([*items(*range(5), _1="y"), *invalid], on_invalid="skip", max_invalid="90%")
    assert len(indexed(coveo, SOURCE)) == 5


def test_neither_id_of_an_invalid_item_with_two_ids_is_deleted(coveo: Simulator, push: Push) -> None:
    push(items(1, 2, 3))
    twice = b'{"documentId": "a://2", "documentId": "a://new", "data": "x"}'
    push([*items(1, 3), twice], on_invalid="skip")
    assert set(indexed(coveo, SOURCE)) == {"a://1", "a://2", "a://3"}


def test_a_long_journal_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = snapshot_push(tmp_path)
    batches, size = 20, 5000
    for batch in range(batches):
        killed.write_down(batch, [("+", f"product://{batch}/{n:030}", bytes(16)) for n in range(size)])
    killed.accepted = batches
    killed.fail()
    killed.close()
    monkeypatch.setattr(snapshot_store, "_MAX_HELD", 300_000)
    tracemalloc.start()
    retry = snapshot_push(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert retry.snapshot.items == batches * size
    assert retry.snapshot.lookup([f"product://7/{7:030}"])[f"product://7/{7:030}"][1] == bytes(16)
    assert peak < 10_000_000
    retry.close()


def test_a_journal_that_another_push_applies_meanwhile_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = snapshot_push(tmp_path)
    killed.write_down(0, [("+", "a://1", b"1")])
    killed.accepted = 1
    killed.fail()
    killed.close()
    monkeypatch.setattr(snapshot_store, "_MAX_HELD", 0)
    journal = SnapshotStore.journal
    others: list[SnapshotPush] = []

    def journal_then_another(self: SnapshotStore) -> Any:
        records = journal(self)
        if not others:
            others.append(None)  # type: ignore[arg-type]
            others[0] = snapshot_push(tmp_path)
        return records

    monkeypatch.setattr(SnapshotStore, "journal", journal_then_another)
    late = snapshot_push(tmp_path)
    assert late.snapshot.lookup(["a://1"])["a://1"][1] == b"1"
    for each in (late, *others):
        each.close()
