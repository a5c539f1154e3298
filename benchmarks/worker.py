"""Run a measurement in its own process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

_RESULT = "RESULT "


def report(result: dict[str, Any]) -> None:
    """Write a result, in the process that measures."""
    sys.stdout.write(_RESULT + json.dumps(result) + "\n")


def run_worker(command: Sequence[str], **options: Any) -> dict[str, Any]:
    """
    Run a process that measures, and return its result.

    :param command: The command. It may write more than its result, such as logs.
    :param options: Further options of :func:`subprocess.run`.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    for line in done.stdout.splitlines():
        if line.startswith(_RESULT):
            result: dict[str, Any] = json.loads(line.removeprefix(_RESULT))
            return result
    raise RuntimeError(f"{command[:3]} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
