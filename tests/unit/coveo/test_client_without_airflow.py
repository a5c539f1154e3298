"""The client in a plain script, in a virtualenv without Airflow."""

from __future__ import annotations

import json
import os
import re
import subprocess
import textwrap
import venv
from importlib.metadata import distribution
from pathlib import Path

import pytest

import airflow_provider_coveo
from airflow_provider_coveo.coveo import client
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE, index_now

SCRIPT = """
import importlib.util, json, sys

assert importlib.util.find_spec("airflow") is None
from airflow_provider_coveo.coveo.client import CoveoClient
from airflow_provider_coveo.coveo.connection import ConnectionSettings
from airflow_provider_coveo.transports.requests_transport import RequestsTransport

url, key, source = sys.argv[1:4]
settings = ConnectionSettings.read(login="acme", password=key, host=url, extra={"platform_host": url})
client = CoveoClient(settings, RequestsTransport())
if len(sys.argv) > 4:
    client.push.add_or_update_item(source, {"documentId": sys.argv[4], "data": "An old anvil."})
    sys.exit()
status = client.sources.set_source_status(source, "REBUILD")
items = ({"documentId": f"product://{number}", "data": "An anvil."} for number in range(1000))
pushed = client.push.push_items(source, items)
client.push.delete_old_items(source, status["ordering_id"], queue_delay=0)
client.sources.set_source_status(source, "IDLE")
assert not [name for name in sys.modules if name.split(".")[0] in {"airflow", "aiohttp", "tenacity"}]
print(json.dumps(pushed))
"""


def needed(*names: str) -> set[str]:
    """Return distributions and all of their dependencies."""
    found: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop().lower()
        if name not in found:
            found.add(name)
            requirements = [each for each in distribution(name).requires or () if ";" not in each]
            todo += [re.split(r"[^\w.\-]", each)[0] for each in requirements]
    return found


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with only the package and its client's dependencies."""
    folder = tmp_path_factory.mktemp("plain")
    venv.create(folder, symlinks=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    for name in needed("requests", "msgspec"):
        files = distribution(name).files or ()
        for top in {file.parts[0] for file in files if file.parts[0] not in {"..", "__pycache__"}}:
            (site_packages / top).symlink_to(Path(str(distribution(name).locate_file(top))))
    (site_packages / "airflow_provider_coveo").symlink_to(Path(airflow_provider_coveo.__file__).parent)
    return folder / "bin" / "python"


def run(python: Path, coveo: Simulator, *arguments: str) -> str:
    done = subprocess.run(
        [python, "-I", "-c", SCRIPT, coveo.url, coveo.api_key, SOURCE, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_plain_script_updates_a_source(coveo: Simulator, python: Path) -> None:
    run(python, coveo, "old://1")
    # Coveo's dates are truncated to the second.
    coveo.clock.advance(seconds=2)
    result = json.loads(run(python, coveo))
    assert (result["accepted_adds"], result["invalid"]) == (1000, 0)
    index_now(coveo)
    assert set(coveo.items(SOURCE)) == {f"product://{number}" for number in range(1000)}
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]
    assert coveo.undocumented == []


def test_the_script_in_the_documentation_updates_a_source(coveo: Simulator, python: Path) -> None:
    script = Path(__file__).resolve().parents[3] / "docs" / "without-airflow" / "push_catalog.py"
    connection = {
        "COVEO_ORGANIZATION": "acme",
        "COVEO_API_KEY": coveo.api_key,
        "COVEO_HOST": coveo.url,
    }
    done = subprocess.run(
        [python, "-I", script],
        env={**os.environ, **connection},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Coveo accepted 2 items.\n"
    index_now(coveo)
    assert set(coveo.items(SOURCE)) == {"product://4711", "product://4712"}
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


def test_the_example_in_the_client_s_docstring_runs(coveo: Simulator, python: Path) -> None:
    docstring = client.__doc__ or ""
    (block,) = re.findall(r"code-block:: python\n\n((?:    .*\n|\n)+)", docstring)
    code = (
        textwrap.dedent(block)
        .replace('extra={"region": "eu"}', f'host="{coveo.url}"')
        .replace('"myorganization"', '"acme"')
    )
    script = f"api_key = {coveo.api_key!r}\n{code}"
    done = subprocess.run(
        [python, "-I", "-c", script], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert coveo.statuses(SOURCE) == ["REFRESH", "IDLE"]
