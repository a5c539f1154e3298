"""What is published can be installed, and holds what it should."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

# A wheel is the same whatever Airflow is installed beside it.
pytestmark = pytest.mark.skipif(
    version("apache-airflow").startswith("2."), reason="once, on Airflow 3, is enough"
)

PROJECT = Path(__file__).resolve().parents[2]
#: What is in a checkout that was worked in, and not part of the project.
LEFTOVERS = shutil.ignore_patterns(".*_cache", ".git", ".venv", "__pycache__", "*.egg-info", "build", "dist")


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both distributions; the wheel is built from the source distribution."""
    folder = tmp_path_factory.mktemp("build")
    shutil.copytree(PROJECT, folder / "project", ignore=LEFTOVERS)
    built = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", folder / "dist", folder / "project"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("*.whl")
    return path


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    info = f"airflow_provider_coveo-{version('airflow-provider-coveo')}.dist-info"
    assert {name.split("/")[0] for name in names} == {"airflow_provider_coveo", info}
    assert "airflow_provider_coveo/py.typed" in names
    assert f"{info}/licenses/LICENSE" in names
    packaged = {name for name in names if name.startswith("airflow_provider_coveo/")}
    package = PROJECT / "airflow_provider_coveo"
    assert packaged == {
        str(path.relative_to(PROJECT))
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_source_distribution_can_be_tested_and_shown(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {
        "LICENSE",
        "Makefile",
        "constraints/airflow-3.3.txt",
        "dags_examples/coveo_full_rebuild.py",
        "scripts/local_airflow.py",
        "tests/airflow/test_wheel.py",
    } <= names
    assert not [name for name in names if name.endswith(".pyc")]


def test_the_wheel_installs_into_an_empty_virtualenv_and_its_entry_point_needs_no_airflow(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    environment = tmp_path_factory.mktemp("empty") / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True)

    ask = (
        "from importlib.metadata import entry_points\n"
        "(point,) = entry_points(group='apache_airflow_provider')\n"
        "print(point.load()()['package-name'])"
    )
    answer = subprocess.run([python, "-c", ask], capture_output=True, text=True, cwd=environment, check=True)
    assert answer.stdout.strip() == "airflow-provider-coveo"
