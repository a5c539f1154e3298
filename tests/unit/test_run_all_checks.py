"""The parts of `make test` run in parallel, show their output in one piece, and leave nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

PROJECT = Path(__file__).resolve().parents[2]
SCRIPT = PROJECT / "scripts" / "run_all_checks"

#: The parts of the tests in the project's own Makefile.
PARTS = (
    *("test-running-3", "test-running-2", "test-browser-3", "test-browser-2", "test-rest-3", "test-rest-2"),
    "test-stepped",
)
#: `meet-a` and `meet-b` end only if both run at the same time: a pipe opens once both of its ends do.
MAKEFILE = """
SHELL := bash
good bad: ; @echo begin $@; echo end $@ >&2; test $@ = good
meet-a: ; @echo begin $@; echo > one.fifo; cat two.fifo; echo end $@
meet-b: ; @echo begin $@; cat one.fifo; echo > two.fifo; echo end $@
first: ; @touch first.done
second: ; @test -e first.done
alone-%: ; @mkdir alone && rmdir alone
leaving: ; @sleep 1000 & echo $$! > leaving.pid
endless: ; @trap 'touch cleaned-up' EXIT; echo begin $@; echo $$$$ > endless.pid; sleep 1000
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the script in a folder with this Makefile."""
    (tmp_path / "Makefile").write_text(MAKEFILE)
    for name in ("one.fifo", "two.fifo"):
        os.mkfifo(tmp_path / name)
    started = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("M")}
        process = subprocess.Popen(
            [sys.executable, SCRIPT, *arguments],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=200)
    return process.returncode, output


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def under_way(path: Path) -> int:
    """Wait until a shell has written its process ID and reached its last command; return the ID."""
    wait_for(lambda: path.exists() and path.read_text().strip())
    shell = psutil.Process(int(path.read_text()))
    wait_for(lambda: any(child.name() == "sleep" for child in shell.children()))
    return shell.pid


def test_a_failed_part_does_not_stop_others_and_is_in_the_summary(
    run: Callable[..., subprocess.Popen[str]],
) -> None:
    code, output = ended(run("--jobs", "1", "Bad", "bad", "Good", "good"))
    assert code == 1
    summary = output[output.index("==== summary") :]
    assert re.search(r"^Bad +FAILED +\d+ s$", summary, re.M)
    assert re.search(r"^Good +passed +\d+ s$", summary, re.M)

    code, output = ended(run("Good", "good"))
    assert code == 0
    assert "FAILED" not in output


def test_parts_run_in_parallel_and_the_output_of_each_is_shown_in_one_piece(
    run: Callable[..., subprocess.Popen[str]],
) -> None:
    code, output = ended(run("--jobs", "2", "A", "meet-a", "B", "meet-b", "Bad", "bad"))
    assert code == 1
    for label, target in {"A": "meet-a", "B": "meet-b", "Bad": "bad"}.items():
        piece = re.escape(f"==== {label} (make {target})\nbegin {target}\n") + r"\s*"
        assert re.search(piece + re.escape(f"end {target}\n"), output), output


def test_no_more_parts_run_at_the_same_time_than_allowed(run: Callable[..., subprocess.Popen[str]]) -> None:
    parts = [word for number in range(6) for word in (f"{number}", f"alone-{number}")]
    assert ended(run("--jobs", "1", *parts))[0] == 0


def test_parts_after_then_wait_for_those_before_it(run: Callable[..., subprocess.Popen[str]]) -> None:
    assert ended(run("--jobs", "4", "1", "first", "then", "2", "second"))[0] == 0
    assert ended(run("--jobs", "4", "1", "bad", "then", "2", "second"))[0] == 1


def test_several_targets_of_a_part_run_one_after_the_other(
    run: Callable[..., subprocess.Popen[str]],
) -> None:
    assert ended(run("Both", "first second"))[0] == 0


def test_processes_that_a_part_leaves_behind_are_killed(
    run: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    assert ended(run("Leaving", "leaving"))[0] == 0
    assert not is_alive(int((tmp_path / "leaving.pid").read_text()))


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_parts_and_shows_their_output(
    run: Callable[..., subprocess.Popen[str]], tmp_path: Path, sig: signal.Signals
) -> None:
    process = run("--jobs", "1", "Endless", "endless", "Good", "good")
    pid = under_way(tmp_path / "endless.pid")
    process.send_signal(sig)
    code, output = ended(process)
    assert code == 128 + sig
    assert "begin endless" in output
    assert re.search(r"^Endless +interrupted ", output, re.M)
    assert re.search(r"^Good +not run ", output, re.M)
    assert not is_alive(pid)
    assert (tmp_path / "cleaned-up").exists()


def test_no_process_outlives_a_killed_script(
    run: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = run("Endless", "endless")
    pid = under_way(tmp_path / "endless.pid")
    process.kill()
    wait_for(lambda: not is_alive(pid))
    wait_for(lambda: (tmp_path / "cleaned-up").exists())


def test_a_label_without_a_target_is_reported(run: Callable[..., subprocess.Popen[str]]) -> None:
    code, output = ended(run("Good", "good", "Lonely"))
    assert code == 1
    assert "Lonely has no target" in output
    assert "started" not in output


# ---- the Makefile -------------------------------------------------------------------------------


def dry_run(*targets: str) -> str:
    # Don't search for the interpreters.
    found = [f"PYTHON_{line}={sys.executable}" for line in (3, 2)]
    command = ["make", "--dry-run", "--always-make", *found, *targets]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("venv", "parts", "left_out"),
    [
        (".venv/airflow-3", ("test-running-3", "test-browser-3", "test-rest-3", "test-stepped"), {"cluster"}),
        # Only Airflow 3.3 is stepped, and the simulator is independent of Airflow (see test_lines.py).
        (
            ".venv/airflow-2",
            ("test-running-2", "test-browser-2", "test-rest-2"),
            {"cluster", "stepped", "simulator"},
        ),
    ],
)
def test_each_folder_of_tests_is_in_exactly_one_part_of_a_line(
    venv: str, parts: tuple[str, ...], left_out: set[str]
) -> None:
    folders = {path.name for path in (PROJECT / "tests").iterdir() if (path / "__init__.py").exists()}
    given = re.findall(rf"{venv}/bin/python -m pytest ([^;\n]*)", dry_run(*parts))
    assert len(given) == len(parts)
    played: list[str] = []
    for arguments in given:
        ignored = set(re.findall(r"--ignore=tests/(\w+)(?= |$)", arguments))
        named = re.findall(r"(?:^| )tests/(\w+)", arguments)
        played += named or folders - ignored - {"cluster"}
    assert sorted(played) == sorted(folders - left_out)


def test_make_test_runs_every_part_after_everything_is_installed() -> None:
    before, _, command = dry_run("test").partition("scripts/run_all_checks")
    for target in (*PARTS, "lint"):
        assert f" {target}" in command
    for venv in (".venv/airflow-3", ".venv/airflow-2"):
        assert f"touch {venv}/.installed" in before


def test_the_tests_of_both_lines_are_those_of_their_parts() -> None:
    commands = re.findall(r"-m pytest ([^;\n]*)", dry_run("test-airflow-3", "test-airflow-2"))
    assert sorted(commands) == sorted(re.findall(r"-m pytest ([^;\n]*)", dry_run(*PARTS)))
