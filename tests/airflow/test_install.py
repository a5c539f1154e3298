"""Installing the package does not break Airflow's command line, and Airflow finds its features."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.fresh import FreshPython

pytestmark = pytest.mark.timeout(900)

#: Commands, and the text of this package in the output of each.
COMMANDS = {
    "version": version("apache-airflow"),
    "providers list": "airflow-provider-coveo",
    "providers get airflow-provider-coveo": version("airflow-provider-coveo"),
    "providers hooks": "airflow_provider_coveo.hooks.coveo_push.CoveoPushHook",
    "providers widgets": "extra__coveo__region",
    "providers behaviours": "coveo",
    "providers links": "",
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, subprocess.CompletedProcess[str]]:
    """The output of each command, in a new Airflow home."""
    # Airflow cuts tables to the width of the terminal.
    home = tmp_path_factory.mktemp("airflow-home")
    environment = {"AIRFLOW_HOME": str(home), "COLUMNS": "400"}
    first, *others = COMMANDS
    asked = [Path(sys.executable).parent / "airflow", *first.split()]
    found = {
        first: subprocess.run(
            asked, env={**os.environ, **environment}, capture_output=True, text=True, timeout=600, check=False
        )
    }
    # This is the installed command. The others are also separate processes, but start after Airflow is
    # loaded, which takes most of the time.
    with FreshPython("import airflow.__main__", environment) as python:
        for command in others:
            script = f"import sys; sys.argv = ['airflow', *{command.split()!r}]; airflow.__main__.main()"
            found[command] = python.run(f"import airflow.__main__; {script}", environment)
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_airflow_answers_and_shows_the_provider(
    answers: dict[str, subprocess.CompletedProcess[str]], command: str
) -> None:
    answer = answers[command]

    assert answer.returncode == 0, answer.stderr
    assert "Traceback" not in answer.stdout + answer.stderr
    assert COMMANDS[command] in answer.stdout
