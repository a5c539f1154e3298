"""Installing the package does not break Airflow's command line, and Airflow finds its features."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from airflow_provider_coveo.links.push_sources_page import airflow_line
from tests.fresh import FreshPython, RunFresh

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
    "plugins": "coveo_push_sources",
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
def test_the_commands_of_airflow_succeed_and_show_the_provider(
    answers: dict[str, subprocess.CompletedProcess[str]], command: str
) -> None:
    answer = answers[command]

    assert answer.returncode == 0, answer.stderr
    assert "Traceback" not in answer.stdout + answer.stderr
    assert COMMANDS[command] in answer.stdout


#: What each web server does with plugins when it starts.
START = (
    "from airflow.api_fastapi.app import create_app; paths = [route.path for route in create_app().routes]"
    if airflow_line() >= (3, 0)
    else "from airflow import plugins_manager; plugins_manager.initialize_web_ui_plugins(); "
    "paths = [each['view'].route_base for each in plugins_manager.flask_appbuilder_views] + ['/api']"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunFresh]:
    """A function that runs a script where Airflow's command line and web server are loaded."""
    modules = "sys, airflow.__main__, " + ("airflow.api_fastapi.app" if airflow_line() >= (3, 0) else "flask")
    home = {"AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow-home"))}
    with FreshPython(f"import {modules}", home) as python:
        yield lambda script: python.run(f"import {modules}\n{script}", home)


#: What does not load: all of the plugin, what a web server needs of it, or nothing.
@pytest.mark.parametrize(
    "broken",
    [
        "airflow_provider_coveo.plugins",
        "airflow_provider_coveo.plugins.push_sources",
        "airflow_provider_coveo.plugins.overview",
        "airflow_provider_coveo.state.database",
        "airflow_provider_coveo.links.push_sources_page",
        "",
    ],
)
def test_a_page_that_cannot_be_imported_breaks_neither_command_line_nor_web_server(
    run: RunFresh, broken: str
) -> None:
    breaking = f"sys.modules[{broken!r}] = None; " if broken else ""
    answer = run(f"{breaking}sys.argv = ['airflow', 'version']; airflow.__main__.main()")
    assert answer.returncode == 0, answer.stdout
    assert version("apache-airflow") in answer.stdout
    started = run(f"{breaking}{START}; print('PATHS', *paths)")
    assert started.returncode == 0, started.stdout
    paths = started.stdout.rpartition("PATHS")[2].split()
    assert ("/coveo" in paths) is (not broken and airflow_line() != (3, 0))
    assert any(path.startswith("/api") for path in paths)
