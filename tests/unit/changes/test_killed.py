"""If a push is killed at any point, the index after the next one equals that of a rebuild."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_coveo.content.scratch import ScratchFolder
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE, wait_for_what_is_under_way
from tests.unit.changes.conftest import items
from tests.unit.changes.tries import POINTS
from tests.unit.push.model import indexed

Attempt = Callable[..., int]
_folders = itertools.count()


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for temporary files of the processes."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def _process(_running_simulator: Simulator, temporary: Path) -> Iterator[Any]:
    described = _running_simulator.connection_json()
    environment = {**os.environ, "AIRFLOW_CONN_COVEO_DEFAULT": described, "TMPDIR": str(temporary)}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.changes.tries"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).resolve().parents[3],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def attempt(_process: Any, coveo: Simulator, tmp_path: Path) -> Attempt:
    """Push in a new process, and return its exit code."""
    folder = tmp_path / str(next(_folders))
    folder.mkdir()

    def _attempt(content: list[dict[str, Any]], **order: Any) -> int:
        line = json.dumps({"folder": str(folder), "source": SOURCE, "items": content, **order})
        _process.stdin.write(line + "\n")
        _process.stdin.flush()
        assert int(_process.stdout.readline()) > 0
        return int(_process.stdout.readline())

    return _attempt


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("point", POINTS)
def test_pushes_after_a_kill_at_any_point_make_the_index_equal_the_input(
    coveo: Simulator, attempt: Attempt, point: str, nth: int, before: bool
) -> None:
    old = items(*range(12))
    new = items(*range(2, 14), _3="y", _4="y", _5="y", _6="y", _7="y")
    assert attempt(old) == 0
    ended = attempt(new, point=point, nth=nth, before=before)
    assert ended in {0, -signal.SIGKILL}
    if nth == 1:
        assert ended == -signal.SIGKILL
    wait_for_what_is_under_way(coveo)
    # The input returns to the state that the snapshot knows, and then changes again.
    for content in (old, new):
        assert attempt(content) == 0
        assert indexed(coveo, SOURCE) == {item["documentId"]: item["data"] for item in content}


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("point", ["journal", "accepted", "replace", "delete"])
def test_a_push_after_kills_of_the_first_two_pushes_makes_the_index_equal_the_input(
    coveo: Simulator, attempt: Attempt, point: str, before: bool
) -> None:
    old, new = items(*range(8)), items(*range(1, 9), _3="y", _4="y")
    assert attempt(old, point=point, nth=1, before=before) in {0, -signal.SIGKILL}
    wait_for_what_is_under_way(coveo)
    assert attempt(new, point=point, nth=1, before=before) in {0, -signal.SIGKILL}
    wait_for_what_is_under_way(coveo)
    assert attempt(old) == 0
    assert indexed(coveo, SOURCE) == {item["documentId"]: item["data"] for item in old}


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_old_files_of_a_killed_push_are_deleted_from_the_worker(attempt: Attempt, temporary: Path) -> None:
    assert attempt(items(1, 2)) == 0
    for left in temporary.glob("coveo-snapshot-*"):
        age(left, 7200)
    assert attempt(items(2, 3), point="journal", nth=1, before=False) == -signal.SIGKILL
    (left,) = temporary.glob("coveo-snapshot-*")
    assert list(left.iterdir())
    # A new one may not be locked yet.
    assert attempt(items(2, 3)) == 0
    assert left.exists()
    age(left, 7200)
    in_use = ScratchFolder("coveo-snapshot-", temporary)
    age(in_use.path, 7200)
    assert attempt(items(3, 4)) == 0
    assert list(temporary.glob("coveo-snapshot-*")) == [in_use.path]
    in_use.close()
    assert not list(temporary.glob("coveo-snapshot-*"))


def test_old_files_of_a_killed_push_are_deleted_from_the_snapshot_folder(
    coveo: Simulator, attempt: Attempt, tmp_path: Path
) -> None:
    assert attempt(items(1, 2)) == 0
    (snapshot,) = tmp_path.glob("*/snapshots/**/snapshot")
    old = [snapshot.with_name(".snapshot.0123"), snapshot.parent / "journal" / ".0123.00000000.4567"]
    new = [snapshot.with_name(".snapshot.89ab"), snapshot.parent / "journal" / ".89ab.00000000.cdef"]
    (snapshot.parent / "journal").mkdir(exist_ok=True)
    for path in (*old, *new):
        path.write_bytes(b"{")
    for path in old:
        age(path, 25 * 3600)
    assert attempt(items(2, 3)) == 0
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in new)
    assert indexed(coveo, SOURCE) == {item["documentId"]: item["data"] for item in items(2, 3)}
