"""The documentation builds without warnings or dead links, and contains every public name."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import airflow_provider_coveo
from airflow_provider_coveo.coveo import errors

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

if find_spec("sphinx") is None:
    pytest.skip("the site is built where the extra [docs] is installed", allow_module_level=True)

pytestmark = pytest.mark.timeout(900)

#: Modules that are used only over HTTP: the simulator's internals, and the server of the page Push sources.
NOT_API = {
    f"airflow_provider_coveo.simulator.{name}"
    for name in (
        *("__main__", "app", "call", "content", "control", "errors", "fields", "fields_api"),
        *("items", "json_body", "logs_api"),
        *("models", "permissions", "platform_api", "push_api", "records", "state", "uploads"),
    )
} | {f"airflow_provider_coveo.plugins.{name}" for name in ("appbuilder_view", "fastapi_app")}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", DOCS, folder]
    built = subprocess.run(build, capture_output=True, text=True, timeout=800, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


class _Page(HTMLParser):
    """The links, the loaded files and the anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "id" in given:
            self.anchors.add(given["id"])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in {"img", "script", "source", "iframe"} and "src" in given:
            self.loads.append(given["src"])
        if tag == "link" and given.get("rel") == "stylesheet":
            self.loads.append(given["href"])


def _pages(site: Path) -> dict[Path, _Page]:
    return {path: _Page(path.read_text()) for path in site.rglob("*.html")}


def test_no_internal_link_is_dead(site: Path) -> None:
    pages = _pages(site)
    assert len(pages) > 30
    dead = []
    for path, page in pages.items():
        for link in (*page.links, *page.loads):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[target].anchors if target in pages else {""}
            if not target.exists() or unquote(parts.fragment) not in anchors:
                dead.append(f"{path.relative_to(site)}: {link}")
    assert dead == []


def test_the_site_loads_nothing_from_other_servers(site: Path) -> None:
    loads = {load for page in _pages(site).values() for load in page.loads if "//" in load}
    assert loads == set()


def _public_names() -> Iterator[str]:
    for found in pkgutil.walk_packages(airflow_provider_coveo.__path__, "airflow_provider_coveo."):
        if found.name in NOT_API:
            continue
        module = importlib.import_module(found.name)
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", None) != found.name:
                continue
            if inspect.isclass(value) or inspect.isfunction(value):
                yield f"{found.name}.{name}"
            if inspect.isclass(value):
                for attribute, member in vars(value).items():
                    if not attribute.startswith("_") and (
                        inspect.isfunction(member)
                        or isinstance(member, (property, classmethod, staticmethod))
                    ):
                        yield f"{found.name}.{name}.{attribute}"


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    from sphinx.util.inventory import InventoryFile

    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, path: path)
    documented = {name for kind in inventory if kind.startswith("py:") for name in inventory[kind]}
    public = set(_public_names())
    assert len(public) > 200
    assert sorted(public - documented) == []


def test_the_picture_of_the_layers_matches_the_linter_s_contract() -> None:
    from docs.diagrams import LAYERS

    (layers,) = re.findall(
        r"^layers = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE
    )
    rows = [tuple(re.findall(r"\w+", row)) for row in re.findall(r'"(.*)"', layers)]
    assert rows == list(LAYERS)


def test_the_architecture_page_names_every_layer() -> None:
    page = (DOCS / "architecture.md").read_text()
    package = Path(airflow_provider_coveo.__file__).parent
    layers = {path.name for path in package.iterdir() if (path / "__init__.py").exists()}
    tests = {f"tests/{path.name}" for path in (ROOT / "tests").iterdir() if (path / "__init__.py").exists()}
    assert {layer for layer in layers if f"`{layer}/`" not in page} == set()
    assert {folder for folder in tests if f"`{folder}`" not in page} == set()


def test_every_error_is_on_the_troubleshooting_page(site: Path) -> None:
    text = (site / "troubleshooting.html").read_text()
    classes = {value for value in vars(errors).values() if inspect.isclass(value)}
    for error_class in classes - {errors.CoveoError}:
        if issubclass(error_class, errors.CoveoError):
            assert f"errors.{error_class.__name__}" in text
    for code in errors._BY_ERROR_CODE:
        assert f'id="{code.lower().replace("_", "-")}"' in text
