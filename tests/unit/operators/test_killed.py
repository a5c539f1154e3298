"""A task that is killed at any step and retried ends with one source, and has deleted no other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE

NAME = "acme-products-2"
VARIABLE = "acme_products_source_id"
#: The maximum number of requests or Variable writes of a try.
ENOUGH = 40


class Tries:
    """The process that forks tries; see :mod:`tests.unit.operators.tries`."""

    def __init__(self, coveo: Simulator, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(exist_ok=True)
        root = Path(__file__).resolve().parents[3]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.unit.operators.tries"],
            cwd=root,
            env={
                **os.environ,
                "AIRFLOW_CONN_COVEO_DEFAULT": coveo.connection_json(),
                "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.read() == "ready"

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def begin(self, operator: str, values: dict[str, Any], **how: Any) -> int:
        """Start a try, and return its process ID."""
        assert self.process.stdin is not None
        order = {"operator": operator, "values": values, "folder": str(self.folder), **how}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.read())

    def end(self) -> int:
        """Wait for the end of the try; return its exit code, or the negative number of the killing signal."""
        return int(self.read())

    def run(self, operator: str, values: dict[str, Any], **how: Any) -> int:
        self.begin(operator, values, **how)
        return self.end()

    @property
    def result(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads((self.folder / "result.json").read_text())
        return result

    def forget(self) -> None:
        for file in self.folder.iterdir():
            file.unlink()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def forking(_running_simulator: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tries]:
    tries = Tries(_running_simulator, tmp_path_factory.mktemp("variables"))
    yield tries
    tries.close()


@pytest.fixture
def tries(forking: Tries, coveo: Simulator) -> Tries:
    forking.forget()
    return forking


def named(coveo: Simulator) -> list[str]:
    return [source.id for source in coveo.state.sources.values() if source.name == NAME]


def each_kill(
    coveo: Simulator, tries: Tries, operator: str, values: dict[str, Any], prepare: Callable[[], None]
) -> Iterator[str]:
    """For each step, kill a first try there, run a second try undisturbed, and yield."""
    for applied in (False, True):
        for number in range(ENOUGH):
            coveo.reset()
            tries.forget()
            prepare()
            fault = coveo.faults.stall(60, applied=applied, after=number)
            pid = tries.begin(operator, values)
            coveo.wait_for(lambda fault=fault, pid=pid: fault.used or _is_over(pid), timeout=60)
            if not fault.used:
                assert tries.end() == 0
                break
            os.kill(pid, signal.SIGKILL)
            assert tries.end() == -signal.SIGKILL
            where = (
                f"request {number + 1}, {'done' if applied else 'not done'}: {coveo.requests[-1].operation}"
            )
            assert tries.run(operator, values) == 0, where
            yield where
        else:
            pytest.fail(f"more than {ENOUGH} requests")
    for before in (True, False):
        for number in range(1, ENOUGH):
            coveo.reset()
            tries.forget()
            prepare()
            code = tries.run(operator, values, deadly_write=number, before=before)
            if code == 0:
                break
            assert code == -signal.SIGKILL
            where = f"{'before' if before else 'after'} write {number}"
            assert tries.run(operator, values) == 0, where
            yield where


def _is_over(pid: int) -> bool:
    try:
        return " Z " in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


def test_recreate_killed_at_any_step_ends_with_one_copy(coveo: Simulator, tries: Tries) -> None:
    def prepare() -> None:
        (tries.folder / VARIABLE).write_text(SOURCE)

    values = {"source_id": SOURCE, "new_name": NAME, "source_id_variable": VARIABLE}
    killed = []
    for where in each_kill(coveo, tries, "RecreatePushSourceOperator", values, prepare):
        killed.append(where)
        assert named(coveo) == [tries.result["new_source_id"]], where
        assert (tries.folder / VARIABLE).read_text() == tries.result["new_source_id"], where
        assert coveo.items(tries.result["new_source_id"]) == {}, where
        assert tries.result["source_id"] == SOURCE, where
        assert SOURCE in coveo.state.sources, where
        # A template of the Variable renders to this, now that it is written.
        first, rendered = tries.result, {**values, "source_id": tries.result["new_source_id"]}
        assert tries.run("RecreatePushSourceOperator", rendered) == 0, where
        assert tries.result == first, where
        assert named(coveo) == [first["new_source_id"]], where
        assert coveo.undocumented == [], where
    # Both kinds of kills, at each request and each write.
    assert len(killed) >= 2 * (7 + 4)
    for operation in ("source", "page_sources", "duplicate_source", "item", "logs", "delete"):
        assert len([where for where in killed if where.endswith(f": {operation}")]) >= 2, operation


def test_create_killed_at_any_step_ends_with_one_source(coveo: Simulator, tries: Tries) -> None:
    values = {"source_name": NAME, "visibility": "SECURED"}
    for where in each_kill(coveo, tries, "CreatePushSourceOperator", values, lambda: None):
        assert named(coveo) == [tries.result["source_id"]], where
        assert coveo.undocumented == [], where


def test_delete_killed_at_any_step_ends_with_the_source_gone(coveo: Simulator, tries: Tries) -> None:
    values = {"source_id": "old", "source_name": "Old"}
    for where in each_kill(
        coveo, tries, "DeletePushSourceOperator", values, lambda: coveo.add_source("old", name="Old")
    ):
        assert set(coveo.state.sources) == {SOURCE}, where
