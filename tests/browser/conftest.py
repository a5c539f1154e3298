"""One real Airflow for all tests here, with metrics and lineage enabled, and a browser for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import BaseNotifier
from local_airflow import LocalAirflow

from airflow_provider_coveo.simulator import Simulator
from tests.statsd import Daemon

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DAGS = Path(__file__).with_name("dags")
DAGS_SINCE_3_1 = Path(__file__).with_name("dags_since_3_1")
HAS_DEADLINES = hasattr(BaseNotifier, "async_notify")
EXAMPLE = Path(__file__).resolve().parents[2] / "dags_examples" / "coveo_asset_schedule.py"
SOURCES = ("acme-products", "shown", "killed", "notified-by-the-notified", "notified-by-the-fail", "alerted")


@dataclass
class Lab:
    """
    The environment of a test.

    :param airflow: The Airflow.
    :param coveo: Its Coveo.
    :param statsd: The receiver of its metrics.
    :param events: The file with its OpenLineage events.
    """

    airflow: LocalAirflow
    coveo: Simulator
    statsd: Daemon
    events: Path

    def lineage(self, dag_id: str, task_id: str) -> list[dict[str, Any]]:
        """Return the OpenLineage events of a task."""
        text = self.events.read_text() if self.events.exists() else ""
        # A task may be writing after the last line.
        events = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        return [event for event in events if event["job"]["name"] == f"{dag_id}.{task_id}"]


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The Airflow of this virtualenv and its environment."""
    folder = tmp_path_factory.mktemp("lab")
    dags = Path(shutil.copytree(DAGS, folder / "dags", ignore=shutil.ignore_patterns("__pycache__")))
    shutil.copy(EXAMPLE, dags)
    if HAS_DEADLINES:
        shutil.copytree(DAGS_SINCE_3_1, dags, dirs_exist_ok=True)
    events = folder / "lineage.json"
    with Simulator(organization="acme", sources=SOURCES) as coveo, Daemon() as statsd:
        connection = json.loads(coveo.connection_json())
        env = {
            "AIRFLOW_CONN_COVEO_DEFAULT": json.dumps(connection),
            "AIRFLOW_CONN_COVEO_EUROPE": json.dumps(
                {**connection, "host": "", "extra": json.dumps({"region": "eu"})}
            ),
        }
        config = {
            # It has the privileges for the connection form's Test.
            "core": {"test_connection": "Enabled"},
            "metrics": {
                "statsd_on": True,
                "statsd_host": "127.0.0.1",
                "statsd_port": statsd.port,
                "metrics_allow_list": "coveo.",
            },
            "openlineage": {
                "transport": json.dumps({"type": "file", "log_file_path": str(events), "append": True}),
            },
        }
        with LocalAirflow(dags, env=env, config=config, triggerer=HAS_DEADLINES) as airflow:
            airflow.rest("POST", "/connections", {"connection_id": "coveo_in_database", **connection})
            yield Lab(airflow, coveo, statsd, events)


@pytest.fixture(scope="session")
def run_id(lab: Lab) -> str:
    """A run of the DAG ``shown`` that has ended."""
    run_id = lab.airflow.trigger("shown")
    assert lab.airflow.wait_for_run("shown", run_id) == "failed"
    return run_id


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A browser, closed as soon as possible, because Playwright runs an event loop in this thread."""
    from local_chromium import chromium
    from playwright.sync_api import expect

    expect.set_options(timeout=60_000)

    with chromium() as found:
        yield found


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    """A page of the browser without saved data; its final screenshot is saved with the test's files."""
    made = browser.new_page(viewport={"width": 1600, "height": 1000})
    made.set_default_timeout(60_000)
    yield made
    made.screenshot(path=tmp_path / "page.png")
    made.close()
