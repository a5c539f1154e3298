"""
Executes operators in processes that can be killed, one try each.

Variables are files, and a try can kill itself when it writes one.
"""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import airflow.providers.common.compat.sdk as sdk

from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.operators import coveo_source
from tests.forked import serve


class FileVariables:
    """
    Airflow Variables that survive a process.

    :param folder: Their folder.
    :param deadly_write: The number of the write that kills the process, from 1.
    :param before: Whether it is killed before the write.
    """

    def __init__(self, folder: Path, deadly_write: int | None, before: bool) -> None:
        self.folder = folder
        self.deadly_write = deadly_write
        self.before = before
        self.writes = 0

    def get(self, key: str, deserialize_json: bool = False) -> Any:
        try:
            text = (self.folder / key).read_text()
        except FileNotFoundError:
            raise KeyError(f"Variable {key} does not exist") from None
        return json.loads(text) if deserialize_json else text

    def set(self, key: str, value: Any, description: str | None = None, serialize_json: bool = False) -> None:
        self.writes += 1
        if self.writes == self.deadly_write and self.before:
            os.kill(os.getpid(), signal.SIGKILL)
        (self.folder / f"{key}.new").write_text(json.dumps(value) if serialize_json else value)
        (self.folder / f"{key}.new").rename(self.folder / key)
        if self.writes == self.deadly_write:
            os.kill(os.getpid(), signal.SIGKILL)

    def delete(self, key: str) -> None:
        (self.folder / key).unlink()


def execute(order: dict[str, Any]) -> None:
    folder = Path(order["folder"])
    sdk.Variable = FileVariables(folder, order.get("deadly_write"), order.get("before", False))  # type: ignore[misc,assignment]
    ti = SimpleNamespace(max_tries=0, dag_id="d", task_id="t", run_id="r", map_index=-1)
    operator = getattr(coveo_source, order["operator"])(task_id="t", **order["values"])
    result = operator.execute({"ti": ti})
    (folder / "result.json").write_text(json.dumps(result))


def load() -> None:
    assert CoveoPushHook().settings
    with suppress(CoveoInputError):
        coveo_source.CreatePushSourceOperator(task_id="t", source_name="", visibility="").execute({})


if __name__ == "__main__":
    serve(execute, load)
