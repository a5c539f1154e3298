"""
Attempts in processes that can be killed. Each is forked from one process that has finished all imports.

The process reads orders as lines of JSON, and answers each with two lines: the attempt's process ID once it
runs, and its exit status.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any


def serve(execute: Callable[[dict[str, Any]], None], load: Callable[[], object]) -> None:
    """
    Carry out orders.

    :param execute: Carries out an order, in a new process.
    :param load: Loads once, for all attempts, what Airflow loads on first use.
    """
    # Log lines must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    load()
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                execute(json.loads(line))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(pid, file=answers, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=answers, flush=True)
