"""The plugin: every process of Airflow loads it, but only web servers load a web framework with it."""

from __future__ import annotations

import configparser
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_coveo.get_provider_info import get_provider_info
from airflow_provider_coveo.links.push_sources_page import airflow_line
from airflow_provider_coveo.plugins import push_sources
from airflow_provider_coveo.plugins.push_sources import PushSourcesPlugin

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("fastapi_apps", "external_views", "appbuilder_views")


@pytest.fixture(autouse=True)
def _made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setattr(vars(PushSourcesPlugin)[name], "_made", None)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set the version of Airflow, whose web framework may be missing."""

    def as_of(version: str) -> None:
        monkeypatch.setattr("airflow.__version__", version)
        for name in ("fastapi_app", "appbuilder_view"):
            module: Any = type(sys)(name)
            module.make_app = lambda: "an app"
            module.PushSourcesView = lambda: "a view"
            monkeypatch.setitem(sys.modules, f"airflow_provider_coveo.plugins.{name}", module)

    return as_of


def test_the_entry_point_and_the_metadata_name_the_same_plugin() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    (entry,) = setup["options.entry_points"]["airflow.plugins"].strip().splitlines()
    name, _, path = entry.partition(" = ")
    (described,) = get_provider_info()["plugins"]
    assert described == {"name": name, "plugin-class": path.replace(":", ".")}
    assert PushSourcesPlugin.name == name
    assert path == f"{PushSourcesPlugin.__module__}:{PushSourcesPlugin.__name__}"


@pytest.mark.parametrize(
    ("version", "fastapi", "destinations", "views"),
    [
        ("2.11.2", 0, [], 1),
        ("3.0.6", 0, [], 0),
        ("3.1.8", 1, ["nav"], 0),
        ("3.2.2", 1, ["nav"], 0),
        ("3.3.2", 1, ["nav"], 0),
        ("3.4.0b2", 1, ["nav", "asset"], 0),
        ("3.10.0", 1, ["nav", "asset"], 0),
    ],
)
@pytest.mark.parametrize("read", [lambda: PushSourcesPlugin, PushSourcesPlugin])
def test_each_airflow_version_gets_the_views_that_it_supports(
    served: Any, version: str, fastapi: int, destinations: list[str], views: int, read: Any
) -> None:
    """Through the class or an instance: Airflow uses either, depending on ``lazy_load_providers``."""
    served(version)
    plugin = read()
    assert len(plugin.fastapi_apps) == fastapi
    assert [view["destination"] for view in plugin.external_views] == destinations
    assert len(plugin.appbuilder_views) == views
    assert all(not view["href"].startswith(("/", "http")) for view in plugin.external_views)


def test_one_setting_turns_the_page_off(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__COVEO__PUSH_SOURCES_PAGE", "False")
    for version in ("2.11.2", "3.3.2", "3.4.0"):
        served(version)
        assert [getattr(PushSourcesPlugin, name) for name in NAMES] == [[], [], []]


@pytest.mark.parametrize(
    "broken", [ImportError("no FastAPI"), RuntimeError("of another version"), SyntaxError()]
)
def test_a_page_that_cannot_be_created_is_left_out_and_logged(
    served: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: Exception
) -> None:
    served("3.3.2")

    def fail() -> None:
        raise broken

    monkeypatch.setattr(sys.modules["airflow_provider_coveo.plugins.fastapi_app"], "make_app", fail)
    # In Airflow's order, and in the opposite one.
    for names in (NAMES, reversed(NAMES)):
        assert [getattr(PushSourcesPlugin, name) for name in names] == [[], [], []]
        for name in NAMES:
            monkeypatch.setattr(vars(PushSourcesPlugin)[name], "_made", None)
    assert "Could not create the page" in caplog.text


def test_an_invalid_setting_does_not_break_airflow(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    served("3.3.2")
    monkeypatch.setenv("AIRFLOW__COVEO__PUSH_SOURCES_PAGE", "perhaps")
    assert [getattr(PushSourcesPlugin, name) for name in NAMES] == [[], [], []]


def test_importing_the_plugin_loads_neither_a_web_framework_nor_the_page() -> None:
    script = """
import json, sys
import airflow.plugins_manager, airflow.providers.common.compat.sdk
import airflow_provider_coveo.operators.coveo_push, airflow_provider_coveo.triggers.coveo_push
assert not [name for name in sys.modules if name.startswith("airflow_provider_coveo.plugins")]
before = set(sys.modules)
from airflow_provider_coveo.plugins.push_sources import PushSourcesPlugin
PushSourcesPlugin()
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], timeout=120, capture_output=True, text=True, check=True
    )
    brought = json.loads(done.stdout.splitlines()[-1])
    frameworks = {"fastapi", "starlette", "flask", "flask_appbuilder", "requests"}
    assert not frameworks.intersection(name.split(".")[0] for name in brought)
    ours = {name.removeprefix("airflow_provider_coveo.plugins.") for name in brought if ".plugins." in name}
    assert {"push_sources"} <= ours
    assert not ours & {"fastapi_app", "appbuilder_view", "overview", "page"}


def test_the_version_of_a_beta_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for version, line in {"2.11.2": (2, 11), "3.4.0b2": (3, 4), "3.10.1.dev0": (3, 10)}.items():
        monkeypatch.setattr("airflow.__version__", version)
        assert airflow_line() == line
    assert push_sources.PushSourcesPlugin.name
