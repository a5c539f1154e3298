"""An Airflow with the page Push sources, a Coveo, and signed-in users; also for the pictures."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
from local_airflow import LocalAirflow

from airflow_provider_coveo.simulator import Simulator

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Frame, Page

HERE = Path(__file__).parent
DAGS = HERE / "dags_of_push_sources"
WATCHDOG = "coveo_close_abandoned"
EXAMPLE = HERE.parents[1] / "dags_examples" / f"{WATCHDOG}.py"
USERS = {name: name for name in ("viewer", "user", "op", "admin")}
#: The sources of the DAGs; the last one's name contains markup.
SOURCES = ("catalog", "paused", "left", "failing", "odd")
DAG_IDS = (WATCHDOG, "update_catalog", "update_paused", "left_active", "fails", "rejected_by_indexing")
MARKUP = '<img src=x onerror="document.title=1">'
#: The base path of Airflow 3, as behind a proxy.
BELOW = "/below"


@dataclass
class Stage:
    """
    The environment of a test.

    :param airflow: The Airflow.
    :param coveo: The Coveo that its DAGs push to.
    :param runs: The active runs, by source.
    :param signed_in: The cookies of signed-in users.
    """

    airflow: LocalAirflow
    coveo: Simulator
    runs: dict[str, str] = field(default_factory=dict)
    signed_in: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The address of Airflow's web interface."""
        return self.airflow.url

    @contextmanager
    def client(self, name: str | None) -> Iterator[httpx.Client]:
        """A client for a signed-in user, or without signing in."""
        with httpx.Client(base_url=self.url, timeout=60, trust_env=False) as client:
            if name is not None:
                if name not in self.signed_in:
                    self._sign_in(client, name)
                    self.signed_in[name] = dict(client.cookies)
                client.cookies.clear()
                for cookie, value in self.signed_in[name].items():
                    client.cookies.set(cookie, value, domain="127.0.0.1", path="/")
            yield client

    def _sign_in(self, client: httpx.Client, name: str) -> None:
        if self.airflow.is_airflow_3:
            answer = client.post("/auth/token", json={"username": name, "password": name})
            answer.raise_for_status()
            client.cookies.set("_token", answer.json()["access_token"], domain="127.0.0.1", path="/")
            return
        form = client.get("/login/").text
        token = form.split('name="csrf_token" type="hidden" value="')[1].split('"')[0]
        data = {"username": name, "password": name, "csrf_token": token}
        answer = client.post("/login/", data=data, follow_redirects=False)
        assert answer.status_code == 302, answer.text
        assert "/login" not in answer.headers["location"], answer.headers

    @contextmanager
    def page(self, browser: Browser, name: str, **options: Any) -> Iterator[Page]:
        """A browser page of a signed-in user."""
        context = browser.new_context(**{"viewport": {"width": 1500, "height": 900}, **options})
        context.set_default_timeout(60_000)
        with self.client(name) as client:
            host = urlsplit(self.url).hostname
            context.add_cookies(
                [
                    {"name": each.name, "value": str(each.value), "domain": str(host), "path": "/"}
                    for each in client.cookies.jar
                ]
            )
        yield context.new_page()
        context.close()

    def show(self, page: Page, query: str = "") -> Frame:
        """Open the page Push sources in Airflow, and return its frame."""
        if not self.airflow.is_airflow_3:
            page.goto(f"{self.url}/coveo/{query}")
            page.wait_for_selector("#push-sources")
            return page.main_frame
        page.goto(f"{self.url}/plugin/coveo_push_sources{query}")
        return self._frame(page)

    def find(self, page: Page) -> Frame:
        """Open the page from Airflow's navigation, and return its frame."""
        page.goto(f"{self.url}/")
        if not self.airflow.is_airflow_3:
            page.get_by_role("link", name="Browse", exact=True).click()
            page.get_by_role("link", name="Push sources", exact=True).click()
            page.wait_for_selector("#push-sources")
            return page.main_frame
        page.get_by_role("button", name="Browse", exact=True).click()
        page.get_by_role("menuitem", name="Push sources", exact=True).click()
        return self._frame(page)

    def _frame(self, page: Page) -> Frame:
        frame = page.wait_for_selector("iframe").content_frame()
        assert frame is not None
        frame.wait_for_selector("#push-sources")
        return frame


@contextmanager
def push_sources_stage(folder: Path, **options: Any) -> Iterator[Stage]:
    """Start both."""
    dags = Path(shutil.copytree(DAGS, folder / "dags", ignore=shutil.ignore_patterns("__pycache__")))
    # A scheduled run could start in the middle of a test.
    example = EXAMPLE.read_text().replace("schedule=timedelta(minutes=5)", "schedule=None")
    (dags / EXAMPLE.name).write_text(example)
    with Simulator(organization="acme", sources=SOURCES) as coveo:
        coveo.state.source("odd").name = MARKUP
        coveo.reject_item("product://1", "PROCESSING", "REJECTED", "unreadable")
        env = {"AIRFLOW_CONN_COVEO_DEFAULT": coveo.connection_json()}
        with LocalAirflow(dags, env=env, users=USERS, base_path=BELOW, **options) as airflow:
            for dag_id in DAG_IDS:
                airflow.wait_for_dag(dag_id)
                airflow.unpause(dag_id)
            yield Stage(airflow, coveo)
