"""The forks of a Python that has imported Airflow behave like new processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fresh import FreshPython


@pytest.fixture(scope="module")
def python() -> Iterator[FreshPython]:
    with FreshPython("import decimal", {"PREPARED": "yes"}) as made:
        yield made


def test_a_script_has_the_prepared_modules_and_nothing_of_the_previous_script(python: FreshPython) -> None:
    script = "import sys; assert {'decimal', 'colorsys'} & set(sys.modules) == {'decimal'}"
    script += "; import colorsys; x = 1"
    assert python.run(script).returncode == 0
    assert python.run(f"assert 'x' not in globals(); {script}").returncode == 0


@pytest.mark.parametrize(
    ("script", "code", "written"),
    [
        ("print('well')", 0, "well"),
        ("import sys; print('told', file=sys.stderr); sys.exit(3)", 3, "told"),
        ("raise SystemExit('no')", 1, ""),
        ("assert 1 == 2", 1, "AssertionError"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9, ""),
        ("import subprocess; subprocess.run(['echo', 'of a child'])", 0, "of a child"),
        ("print(input())", 1, "EOFError"),
    ],
)
def test_the_exit_code_and_output_of_a_script_are_returned(
    python: FreshPython, script: str, code: int, written: str
) -> None:
    done = python.run(script)
    assert (done.returncode, written in done.stdout) == (code, True), done.stdout


def test_a_script_has_the_current_environment(python: FreshPython, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import os; print(os.environ['OF_THE_TEST'], os.environ.get('OF_THIS_CALL'))"
    monkeypatch.setenv("OF_THE_TEST", "1")
    assert python.run(script, {"OF_THIS_CALL": "2"}).stdout == "1 2\n"
    monkeypatch.setenv("OF_THE_TEST", "3")
    assert python.run(script).stdout == "3 None\n"
