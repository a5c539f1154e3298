"""New Pythons that have imported only Airflow, any number of them for the cost of one import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from types import TracebackType

RunFresh = Callable[[str], "subprocess.CompletedProcess[str]"]

#: The start of the process. It is then forked for each script: it reads a script as a line of JSON, and
#: answers with the exit code of the fork.
_SERVER = """
import json, os, sys
{preparation}
for line in sys.stdin:
    asked = json.loads(line)
    pid = os.fork()
    if not pid:
        os.environ.clear()
        os.environ.update(asked["environment"])
        output = os.open(asked["output"], os.O_WRONLY)
        for number in (1, 2):
            os.dup2(output, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        code = 1
        try:
            exec(compile(asked["script"], "<script>", "exec"), {{"__name__": "__main__"}})
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=sys.__stdout__, flush=True)
"""


class FreshPython:
    """
    Runs scripts, each in a new process that is independent of the previous ones. Use it as a context manager.

    :param preparation: Python code to run once, before all scripts. It must not start threads.
    :param environment: additions to its environment.
    """

    def __init__(self, preparation: str, environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER.format(preparation=preparation)],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> FreshPython:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def run(
        self, script: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a script in the current environment, and return its exit code and its whole output."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.NamedTemporaryFile("r", encoding="utf-8") as output:
            asked = {
                "script": script,
                "environment": {**os.environ, **(environment or {})},
                "output": output.name,
            }
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            # Airflow can print lines of its own.
            while not (answer := self._process.stdout.readline().strip()).lstrip("-").isdigit():
                assert self._process.poll() is None or answer, "the process that is copied has ended"
            return subprocess.CompletedProcess(script, int(answer), output.read(), "")
