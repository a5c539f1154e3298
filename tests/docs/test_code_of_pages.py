"""The code on the pages runs, and its output matches the pages."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.models import Connection

from airflow_provider_coveo.coveo.connection import ConnectionSettings
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.simulator import Simulator

DOCS = Path(__file__).resolve().parents[2] / "docs"
FORMS = DOCS / "connection-forms"
KEY = "xx01234567-89ab-cdef-0123-456789abcdef"


def _words(file: str) -> list[str]:
    """Return the words of a shell command."""
    text = (FORMS / file).read_text().replace("\\\n", " ")
    return shlex.split(text.replace("$COVEO_API_KEY", KEY))


def _of_environment(text: str) -> Connection:
    from airflow.secrets.environment_variables import EnvironmentVariablesBackend

    backend = EnvironmentVariablesBackend()
    return _found(backend.deserialize_connection("coveo_default", text))


def _found(connection: Any) -> Connection:
    assert isinstance(connection, Connection)
    return connection


def _command_line() -> Connection:
    words = _words("command-line.sh")
    assert words[:4] == ["airflow", "connections", "add", "coveo_default"]
    given = dict(zip(words[4::2], words[5::2], strict=True))
    return Connection(
        conn_id="coveo_default",
        conn_type=given["--conn-type"],
        login=given["--conn-login"],
        password=given["--conn-password"],
        extra=given["--conn-extra"],
    )


def _vault() -> Connection:
    words = _words("vault.sh")
    assert words[:4] == ["vault", "kv", "put", "secret/connections/coveo_default"]
    return Connection(conn_id="coveo_default", **dict(word.split("=", 1) for word in words[4:]))


def _terraform() -> Connection:
    text = (FORMS / "terraform.tf").read_text()
    (described,) = re.findall(r"jsonencode\((\{.*?\n  \})\)", text, re.DOTALL)
    as_json = re.sub(
        r"^\s*(\w+)\s*=\s*(.*?)$",
        r'"\1": \2,',
        described.replace("var.coveo_api_key", f'"{KEY}"'),
        flags=re.M,
    )
    as_json = re.sub(r"\{,", "{", as_json)
    return _of_environment(json.dumps(yaml.safe_load(as_json)))


def _python() -> Connection:
    names: dict[str, Any] = {}
    exec(compile((FORMS / "from_python.py").read_text(), "from_python.py", "exec"), names)  # noqa: S102
    return _found(names["connection"])


def _local_file() -> Connection:
    from airflow.secrets.local_filesystem import LocalFilesystemBackend

    backend = LocalFilesystemBackend(connections_file_path=str(FORMS / "connections.json"))
    return _found(backend.get_connection("coveo_default"))


def _kubernetes() -> Connection:
    secret = yaml.safe_load((FORMS / "kubernetes-secret.yaml").read_text())
    return _of_environment(secret["stringData"]["AIRFLOW_CONN_COVEO_DEFAULT"])


def _exported() -> Connection:
    script = f". {shlex.quote(str(FORMS / 'environment.sh'))}; printenv AIRFLOW_CONN_COVEO_DEFAULT"
    ran = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True)
    return _of_environment(ran.stdout)


WAYS = {
    "environment variable": _exported,
    "JSON": lambda: _of_environment((FORMS / "connection.json").read_text()),
    "URI": lambda: _of_environment((FORMS / "connection.uri").read_text().strip()),
    "command line": _command_line,
    "Python": _python,
    "Kubernetes": _kubernetes,
    "local file": _local_file,
    "Vault": _vault,
    "Terraform": _terraform,
}


@pytest.mark.parametrize("way", WAYS)
def test_each_documented_form_creates_the_same_connection(way: str) -> None:
    connection = WAYS[way]()
    assert connection.conn_type == "coveo"
    settings = ConnectionSettings.read(
        login=connection.login,
        password=connection.password,
        host=connection.host,
        port=connection.port,
        schema=connection.schema,
        extra=connection.extra_dejson,
    )
    assert settings == ConnectionSettings.read(
        login="myorganizationg8tp8wu3",
        password=KEY,
        host=None,
        port=None,
        schema=None,
        extra={"region": "eu", "timeout": "10,120"},
    )


def test_the_connection_page_shows_every_connection_form() -> None:
    page = (DOCS / "connection.md").read_text()
    assert [path.name for path in FORMS.iterdir() if f"connection-forms/{path.name}" not in page] == []


PAGES = [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS.parent)))
def test_python_code_in_a_page_compiles_and_imports_existing_names(page: Path) -> None:
    for code in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        tree = ast.parse(code)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("airflow_provider_coveo"):
                module = importlib.import_module(str(node.module))
                assert [name.name for name in node.names if not hasattr(module, name.name)] == []


def _slugs(page: Path) -> set[str]:
    """Return the anchors that GitHub and the site both give to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.parent.name != "_parts"],
    ids=lambda page: str(page.relative_to(DOCS.parent)),
)
def test_links_between_pages_also_work_on_github(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    wrong = []
    for words, link in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", text):
        path, _, fragment = link.partition("#")
        if ":" in path or path.startswith(("_parts/", "../_parts/")):
            continue
        target = page.parent / path if path else page
        # GitHub shows nothing for a link without a text, and knows no explicit targets.
        if not words or not target.exists() or (fragment and fragment not in _slugs(target)):
            wrong.append(f"[{words}]({link})")
    assert wrong == []


def test_the_hook_s_page_names_each_of_its_methods() -> None:
    own = {
        name
        for base in CoveoPushHook.__mro__
        if base.__module__.startswith("airflow_provider_coveo")
        for name, value in vars(base).items()
        if not name.startswith("_") and inspect.isfunction(value)
    }
    named = set(re.findall(r"`(\w+)`", (DOCS / "guides" / "hook.md").read_text()))
    # The methods that operators and Airflow itself call.
    inner = {
        *("branch", "current_cut_off", "get_conn", "poll", "repeated", "run_and_check", "stop"),
        *("take_batch", "test_connection", "upload", "wait"),
    }
    assert own - named - inner == set()


def _shell(script: str, folder: Path, env: dict[str, str]) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-euc", script],
        cwd=folder,
        env={**os.environ, "PATH": path, **env},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]


@pytest.fixture
def quick_start() -> Iterator[Simulator]:
    with Simulator(organization="acme", sources=["acme-products"]) as simulator:
        yield simulator


@pytest.mark.timeout(900)
def test_the_commands_of_the_quick_start_end_with_a_successful_run(
    quick_start: Simulator, tmp_path: Path
) -> None:
    prepare, run = ((DOCS / "quickstart" / name).read_text() for name in ("prepare.sh", "run.sh"))
    put = f"cp {shlex.quote(str(DOCS / 'quickstart' / 'catalog_to_coveo.py'))} airflow-home/dags/"
    _shell(
        "\n".join([prepare, put, run]),
        tmp_path,
        {"AIRFLOW_CONN_COVEO_DEFAULT": quick_start.connection_json()},
    )
    assert quick_start.statuses("acme-products") == ["REBUILD", "IDLE"]
    assert set(quick_start.items("acme-products")) == {"product://4711", "product://4712"}
