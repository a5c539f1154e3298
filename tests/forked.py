"""
Attempts in processes that can be killed: each is forked from one process that has all imports done.

The process reads orders as lines of JSON, and answers each with two lines: the process ID of the attempt once
it runs, and how it ended.
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
    Answer orders.

    :param execute: Carries an order out, in a process of its own.
    :param load: Loads once, for all attempts, what Airflow loads at the first use.
    """
    # What is logged must not come between the answers.
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
