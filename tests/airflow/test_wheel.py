"""The published distributions can be installed, and contain the right files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from email.message import Message
from importlib.metadata import version
from pathlib import Path

import pytest
from trove_classifiers import classifiers

# A wheel does not depend on the installed Airflow.
pytestmark = [
    pytest.mark.skipif(version("apache-airflow").startswith("2."), reason="once, on Airflow 3, is enough"),
    pytest.mark.timeout(900),
]

PROJECT = Path(__file__).resolve().parents[2]
#: Files in a used checkout that are not part of the project.
LEFTOVERS = shutil.ignore_patterns(
    *(".*_cache", ".git", ".hypothesis", ".venv", "__pycache__", "*.egg-info", "_parts", "build", "dist")
)


#: Possible locations of a repository.
URL = "https://code.example/acme/airflow-provider-coveo"
#: The date of the files in a wheel, in seconds since the epoch.
BUILT_AT = "1700000000"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's files, because a build writes into their folder."""
    folder = tmp_path_factory.mktemp("build") / "project"
    shutil.copytree(PROJECT, folder, ignore=LEFTOVERS)
    return folder


@pytest.fixture(scope="module")
def dist(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both distributions; the wheel is built from the source distribution."""
    return build(project, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("*.whl")
    return path


def build(project: Path, folder: Path, *options: str, url: str = "") -> Path:
    built = subprocess.run(
        [sys.executable, "-m", "build", *options, "--outdir", folder, project],
        env={**os.environ, "PROJECT_URL": url, "SOURCE_DATE_EPOCH": BUILT_AT},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def metadata(wheel: Path) -> Message:
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    return message_from_string(archive.read(name).decode())


def test_the_wheel_contains_only_the_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    info = f"airflow_provider_coveo-{version('airflow-provider-coveo')}.dist-info"
    assert {name.split("/")[0] for name in names} == {"airflow_provider_coveo", info}
    assert "airflow_provider_coveo/py.typed" in names
    assert "airflow_provider_coveo/simulator/page.html" in names
    assert f"{info}/licenses/LICENSE" in names
    packaged = {name for name in names if name.startswith("airflow_provider_coveo/")}
    package = PROJECT / "airflow_provider_coveo"
    assert packaged == {
        str(path.relative_to(PROJECT))
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_source_distribution_contains_tests_examples_and_scripts(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {
        "CHANGELOG.md",
        "LICENSE",
        "Makefile",
        "constraints/matrix.json",
        "constraints/airflow-3.3.txt",
        "dags_examples/coveo_full_rebuild.py",
        "scripts/local_airflow.py",
        "tests/airflow/test_wheel.py",
    } <= names
    assert not [name for name in names if name.endswith(".pyc")]


def test_a_wheel_that_is_built_again_from_the_project_is_identical_byte_for_byte(
    project: Path, wheel: Path, tmp_path: Path
) -> None:
    (again,) = build(project, tmp_path, "--wheel").glob("*.whl")
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


def test_a_package_index_can_show_the_readme_and_accepts_the_metadata(dist: Path, wheel: Path) -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "twine", "--no-color", "check", "--strict", *map(str, dist.iterdir())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    described = metadata(wheel)
    assert set(described.get_all("Classifier", [])) <= classifiers
    assert described["License-Expression"] == "Apache-2.0"
    text = described.get_payload()
    assert "## What's included" in text
    assert relative_targets(text) == []
    # Without a known repository, the README can't show its pictures.
    assert "![" not in text
    assert "Project-URL" not in described


def test_links_and_pictures_point_to_the_version_s_tag_if_the_repository_is_known(
    project: Path, tmp_path: Path
) -> None:
    (wheel,) = build(project, tmp_path, "--wheel", url=f"{URL}/").glob("*.whl")
    described = metadata(wheel)
    tag = f"v{version('airflow-provider-coveo')}"
    text = described.get_payload()
    assert f"]({URL}/raw/{tag}/docs/pictures/bracket-graph.png)" in text
    assert f"]({URL}/blob/{tag}/docs/bracket-table.md)" in text
    assert relative_targets(text) == []
    assert described.get_all("Project-URL") == [
        f"Source, {URL}",
        f"Changelog, {URL}/blob/{tag}/CHANGELOG.md",
        f"Issues, {URL}/issues",
    ]


def relative_targets(text: str) -> list[str]:
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match("https?://|#", target)]


def test_every_link_of_the_readme_has_a_target() -> None:
    # After the #, a link names an anchor of the page.
    targets = [target.partition("#")[0] for target in relative_targets((PROJECT / "README.md").read_text())]
    assert [target for target in targets if not (PROJECT / target).exists()] == []


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
