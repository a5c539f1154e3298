"""Snapshots of the parts of a mapped task: an older one is noticed, and their records are bounded."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_coveo.coveo.errors import CoveoError
from airflow_provider_coveo.operators.coveo_source import DeletePushSourceOperator
from airflow_provider_coveo.sensors.coveo_push import PushedItemsIndexedSensor
from airflow_provider_coveo.simulator import Simulator
from airflow_provider_coveo.state.airflow_runs import map_length
from airflow_provider_coveo.state.forgotten_items import ForgottenItems
from tests.conftest import SOURCE, index_now
from tests.unit.changes.conftest import Push, items
from tests.unit.conftest import Variables
from tests.unit.push.model import indexed
from tests.unit.push.object_storage import Storage, connection_to, running_storage

pytestmark = pytest.mark.usefixtures("connect", "variables")

#: Airflow keeps a file system for each connection, so that no other module may use this one.
ROOT = "s3://coveo_parts_s3@bucket/snapshots"
OLD = "the snapshot is older than the last push of this task"

_numbers = itertools.count()

each_kind = pytest.mark.parametrize("map_index", [-1, 3])


class Folder:
    """A folder for snapshots that can be backed up and restored."""

    url: str

    def back_up(self) -> None:
        raise NotImplementedError

    def restore(self) -> None:
        raise NotImplementedError


class LocalFolder(Folder):
    def __init__(self, path: Path) -> None:
        self._path, self._backup = path / "snapshots", path / "backup"
        self.url = str(self._path)

    def back_up(self) -> None:
        self._path.mkdir(exist_ok=True)
        shutil.copytree(self._path, self._backup)

    def restore(self) -> None:
        shutil.rmtree(self._path)
        shutil.copytree(self._backup, self._path)


class Bucket(Folder):
    url = ROOT

    def __init__(self, storage: Storage) -> None:
        self._client = storage.client
        self._backup: dict[str, bytes] = {}

    def _keys(self) -> list[str]:
        found = self._client.list_objects_v2(Bucket="bucket", Prefix="snapshots/").get("Contents", [])
        return [each["Key"] for each in found]

    def clear(self) -> None:
        for key in self._keys():
            self._client.delete_object(Bucket="bucket", Key=key)

    def back_up(self) -> None:
        get = self._client.get_object
        self._backup = {key: get(Bucket="bucket", Key=key)["Body"].read() for key in self._keys()}

    def restore(self) -> None:
        self.clear()
        for key, body in self._backup.items():
            self._client.put_object(Bucket="bucket", Key=key, Body=body)


@pytest.fixture(scope="module")
def _running() -> Iterator[Storage]:
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    pytest.importorskip("airflow.providers.amazon")
    with running_storage() as (storage, url), pytest.MonkeyPatch.context() as patched:
        patched.setenv("AIRFLOW_CONN_COVEO_PARTS_S3", connection_to(url))
        yield storage


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    if request.param == "local":
        yield LocalFolder(tmp_path)
        return
    bucket = Bucket(request.getfixturevalue("_running"))
    yield bucket
    bucket.clear()


@pytest.fixture
def push_there(push: Push, folder: Folder) -> Callable[..., dict[str, Any]]:
    return lambda content, **options: push(content, snapshot_path=folder.url, **options)


@each_kind
def test_a_restored_snapshot_is_not_used(
    coveo: Simulator, folder: Folder, push_there: Push, map_index: int
) -> None:
    push_there(items(1, 2), map_index=map_index)
    folder.back_up()
    push_there(items(1, 2, _1="y"), map_index=map_index)
    folder.restore()
    assert push_there(items(1, 2), map_index=map_index)["full_because"] == OLD
    assert indexed(coveo, SOURCE)["a://1"] == "x" * 300
    result = push_there(items(1, 2), map_index=map_index)
    assert (result["unchanged"], result["full_because"]) == (2, None)


@each_kind
def test_a_snapshot_restored_without_a_failed_push_s_progress_is_not_used(
    coveo: Simulator, folder: Folder, push_there: Push, map_index: int
) -> None:
    push_there(items(1, 2, 3, 4), map_index=map_index)
    folder.back_up()
    coveo.faults.answer(400, error_code="INVALID_JSON", operation="batch", after=1)
    with pytest.raises(CoveoError, match="INVALID_JSON"):
        push_there(items(1, 2, 3, 4, data="y"), map_index=map_index)
    folder.restore()
    assert push_there(items(1, 2, 3, 4), map_index=map_index)["full_because"] == OLD
    assert set(indexed(coveo, SOURCE).values()) == {"x" * 300}
    assert push_there(items(1, 2, 3, 4), map_index=map_index)["unchanged"] == 4


@each_kind
def test_a_push_that_fails_with_a_restored_snapshot_does_not_make_it_look_current(
    coveo: Simulator, folder: Folder, push_there: Push, map_index: int
) -> None:
    coveo.faults.answer(400, error_code="INVALID_JSON", operation="batch", after=1)
    with pytest.raises(CoveoError, match="INVALID_JSON"):
        push_there(items(1, 2, 3, 4), map_index=map_index)
    folder.back_up()
    push_there(items(1, 2, 3, 4, data="y"), map_index=map_index)
    folder.restore()
    coveo.faults.answer(400, error_code="INVALID_JSON", operation="batch", times=1)
    with pytest.raises(CoveoError, match="INVALID_JSON"):
        push_there(items(1, 2, 3, 4), map_index=map_index)
    push_there(items(1, 2, 3, 4), map_index=map_index)
    assert set(indexed(coveo, SOURCE).values()) == {"x" * 300}


@each_kind
def test_a_retry_with_a_restored_snapshot_resumes(
    coveo: Simulator, folder: Folder, push_there: Push, map_index: int
) -> None:
    push_there(items(*range(10)), map_index=map_index)
    folder.back_up()
    push_there(items(*range(10), data="y"), map_index=map_index)
    folder.restore()
    coveo.faults.answer(400, error_code="INVALID_JSON", operation="batch", after=2)
    with pytest.raises(CoveoError, match="INVALID_JSON"):
        push_there(items(*range(10)), map_index=map_index, run_id="r")
    accepted = list(indexed(coveo, SOURCE).values()).count("x" * 300)
    assert push_there(items(*range(10)), map_index=map_index, run_id="r")["unchanged"] == accepted > 0
    assert set(indexed(coveo, SOURCE).values()) == {"x" * 300}


@pytest.mark.parametrize("kinds", [(3, -1), (-1, 3)])
def test_a_task_that_was_mapped_only_in_some_runs_does_not_use_older_snapshots(
    coveo: Simulator, push: Push, kinds: tuple[int, int]
) -> None:
    first, second = kinds
    push(items(1), map_index=first)
    push(items(1, data="y"), map_index=second)
    assert "another task, run or call" in push(items(1), map_index=first)["full_because"]
    assert indexed(coveo, SOURCE)["a://1"] == "x" * 300
    assert push(items(1), map_index=first)["unchanged"] == 1


@each_kind
def test_a_restored_snapshot_that_lacks_only_a_rejection_is_not_used(
    coveo: Simulator, folder: Folder, push_there: Push, variables: Variables, map_index: int
) -> None:
    coveo.reject_item("a://2", "PROCESSING", "REJECTED", "unreadable")
    result = push_there(items(1, 2, 3), map_index=map_index)
    folder.back_up()
    wait_for(coveo, result)
    folder.restore()
    assert push_there(items(1, 2, 3), map_index=map_index, dry_run=True)["full_because"] == OLD
    assert push_there(items(1, 2, 3), map_index=map_index)["full_because"] == OLD
    result = push_there(items(1, 2, 3), map_index=map_index)
    assert (result["unchanged"], result["full_because"]) == (3, None)
    assert rejections(variables) == []


@each_kind
def test_a_restored_snapshot_is_not_used_after_a_push_that_read_the_rejection_and_sent_nothing(
    coveo: Simulator, folder: Folder, push_there: Push, map_index: int
) -> None:
    coveo.reject_item("a://2", "PROCESSING", "REJECTED", "unreadable")
    result = push_there(items(1, 2, 3), map_index=map_index)
    folder.back_up()
    wait_for(coveo, result)
    with pytest.raises(CoveoError):
        push_there([{"no": "ID"}], map_index=map_index)
    folder.restore()
    assert push_there(items(1, 2, 3), map_index=map_index)["full_because"] == OLD


@each_kind
def test_without_a_restore_only_the_rejected_item_is_pushed_again(
    coveo: Simulator, push_there: Push, variables: Variables, map_index: int
) -> None:
    coveo.reject_item("a://2", "PROCESSING", "REJECTED", "unreadable")
    for _ in range(3):
        result = push_there(items(1, 2, 3), map_index=map_index)
        wait_for(coveo, result)
    assert (result["updated"], result["unchanged"], result["full_because"]) == (1, 2, None)
    assert len(rejections(variables)) == 1


def test_a_part_without_rejections_still_uses_its_restored_snapshot(
    coveo: Simulator, push: Push, tmp_path: Path
) -> None:
    coveo.reject_item("a://2", "PROCESSING", "REJECTED", "unreadable")
    folder = LocalFolder(tmp_path)
    results = [push(items(number), map_index=number, run_id="r", parts=4) for number in range(4)]
    folder.back_up()
    wait_for(coveo, results[2])
    folder.restore()
    again = [push(items(number), map_index=number, run_id="s", parts=4) for number in range(4)]
    assert [result["full_because"] for result in again] == [None, None, OLD, None]


def test_the_number_of_recorded_rejections_is_limited(
    coveo: Simulator, push: Push, variables: Variables
) -> None:
    recorded = ForgottenItems("acme", SOURCE)
    for number in range(600):
        recorded.add([f"/snapshots/{number}"], "forget-1")
    assert len(rejections(variables)) == 500
    assert recorded.of("/snapshots/599") == {"forget-1"}


def rejections(variables: Variables) -> list[str]:
    recorded: list[str] = variables.get(f"coveo_forgotten__acme__{SOURCE}", deserialize_json=True)["records"]
    return recorded


def wait_for(coveo: Simulator, result: dict[str, Any]) -> None:
    """Let the sensor find what the pipeline rejected."""
    index_now(coveo)
    task_id = f"sensor{next(_numbers)}"
    PushedItemsIndexedSensor(task_id=task_id, result=result, max_refused=5, settle_time=0).poke({})


def test_only_the_part_that_was_restored_pushes_everything(
    coveo: Simulator, push: Push, tmp_path: Path
) -> None:
    def run(data: str) -> list[str | None]:
        return [
            push(items(number, data=data), map_index=number, run_id=data, parts=2)["full_because"]
            for number in (0, 1)
        ]

    run("x")
    part = next((tmp_path / "snapshots").rglob("*map_index*1"))
    shutil.copytree(part, tmp_path / "backup")
    assert run("y") == [None, None]
    shutil.rmtree(part)
    shutil.copytree(tmp_path / "backup", part)
    assert run("x") == [None, OLD]
    assert set(indexed(coveo, SOURCE).values()) == {"x" * 300}


def test_without_its_record_a_part_pushes_everything_once(
    coveo: Simulator, push: Push, variables: Variables
) -> None:
    push(items(1, 2), map_index=0, parts=1)
    for name in records(variables):
        variables.delete(name)
    assert "no longer a record of the snapshot" in push(items(1, 2), map_index=0, parts=1)["full_because"]
    assert push(items(1, 2), map_index=0, parts=1)["unchanged"] == 2


def test_a_dry_run_detects_a_restored_snapshot_and_records_nothing(
    coveo: Simulator, push: Push, variables: Variables, tmp_path: Path
) -> None:
    folder = LocalFolder(tmp_path)
    push(items(1, 2), map_index=0, parts=1)
    folder.back_up()
    push(items(1, 2, _1="y"), map_index=0, parts=1)
    folder.restore()
    before = dict(variables.values)
    assert push(items(1, 2), map_index=0, parts=5, dry_run=True)["full_because"] == OLD
    assert variables.values == before


def test_parts_that_record_their_change_at_the_same_time_can_all_use_their_snapshots(
    coveo: Simulator, push: Push, variables: Variables
) -> None:
    changes = f"coveo_changes__acme__{SOURCE}"
    push(items(9), map_index=9, run_id="earlier")
    before = variables.values[changes]
    for number in range(3):
        # Each part read the changes before another one recorded its own.
        variables.values[changes] = before
        push(items(number), map_index=number, run_id="r")
    again = [push(items(number), map_index=number, run_id="s") for number in range(3)]
    assert [result["full_because"] for result in again] == [None] * 3


def test_a_cleared_run_of_parts_detects_the_pushes_of_other_tasks(coveo: Simulator, push: Push) -> None:
    push(items(1), map_index=0, run_id="r")
    push(items(1, data="y"), name="another")
    assert "another task" in push(items(1), map_index=0, run_id="r")["full_because"]
    assert indexed(coveo, SOURCE)["a://1"] == "x" * 300
    assert push(items(1), map_index=0, run_id="s")["unchanged"] == 1


# --- how many records there are ---


def records(variables: Variables) -> list[str]:
    return sorted(name for name in variables.values if name.startswith(f"coveo_part__acme__{SOURCE}__"))


def test_records_of_removed_parts_are_deleted(coveo: Simulator, push: Push, variables: Variables) -> None:
    def run(parts: int, known: bool = True) -> int:
        for number in range(parts):
            push(items(number), map_index=number, run_id="r", parts=parts if known else None)
        return len(records(variables))

    assert [run(5), run(2), run(3), run(1, known=False), run(1)] == [5, 2, 3, 3, 1]
    # A part that comes back compares with nothing that it can't know to be the last.
    assert push(items(1), map_index=1, parts=2)["full_because"] is not None


def test_a_part_that_fails_does_not_prevent_the_deletion_of_records_of_removed_parts(
    coveo: Simulator, push: Push, variables: Variables
) -> None:
    for number in (4, 3, 2, 1):
        push(items(number), map_index=number, parts=5)
    with pytest.raises(CoveoError):
        push([{"no": "ID"}], map_index=0, parts=5)
    push(items(0), map_index=0, parts=1)
    assert len(records(variables)) == 1


def test_an_unmapped_task_has_no_record_of_parts(coveo: Simulator, push: Push, variables: Variables) -> None:
    push(items(1))
    assert not [name for name in variables.values if name.startswith("coveo_part")]


def test_deleting_the_source_deletes_the_records_of_its_parts_and_rejections(
    coveo: Simulator, push: Push, variables: Variables
) -> None:
    for number in range(3):
        push(items(number), map_index=number, parts=3)
    ForgottenItems("acme", SOURCE).add(["/snapshots"], "forget-1")
    operator = DeletePushSourceOperator(
        task_id="delete", source_id=SOURCE, source_name=coveo.source(SOURCE)["name"]
    )
    store: dict[str, Any] = {}
    ti = SimpleNamespace(dag_id="d", task_id="delete", run_id="r", map_index=-1, max_tries=0, try_number=1)
    operator.execute(
        {
            "ti": ti,
            "task_state_store": SimpleNamespace(
                get=lambda key, default=None: store.get(key, default), set=store.__setitem__
            ),
        }
    )
    assert not [name for name in variables.values if name.startswith(("coveo_part", "coveo_forgotten"))]


def test_the_number_of_parts_is_read_from_airflow_s_context() -> None:
    ti: Any = SimpleNamespace(dag_id="d", task_id="t", run_id="r")
    assert map_length({"ti": ti, "expanded_ti_count": 7}) == 7  # type: ignore[typeddict-unknown-key, typeddict-item]
    assert map_length({"ti": ti}) is None  # type: ignore[typeddict-item]
