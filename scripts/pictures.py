"""Take the documentation's screenshots of a real Airflow's UI and the simulator's page, for docs/pictures.

    make pictures

The example DAG runs twice: successfully, and with a push that fails on purpose. It needs Airflow 3.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from connection_form import ConnectionForm3
from local_airflow import LocalAirflow
from local_chromium import chromium
from playwright.sync_api import Browser, Frame, Locator, Page, expect

from airflow_provider_coveo.coveo.statuses import SourceStatus
from airflow_provider_coveo.simulator import Simulator

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "pictures"
DAG_ID = "coveo_full_rebuild"
SOURCE_ID = "acme-products"
GROUP_ID = "rebuild"
WATCHDOG = "coveo_close_abandoned"


@dataclass
class Studio:
    """The subjects of the pictures: an Airflow, a Coveo, and a run of each kind."""

    browser: Browser
    airflow: LocalAirflow
    coveo: Simulator
    well: str
    failed: str

    def run_url(self, run_id: str) -> str:
        return f"{self.airflow.url}/dags/{DAG_ID}/runs/{quote(run_id, safe='')}"

    @contextmanager
    def page(self, width: int, height: int, scale: float = 2) -> Iterator[Page]:
        """A page that looks the same on every machine, except for its fonts."""
        context = self.browser.new_context(
            viewport={"width": width, "height": height},
            device_scale_factor=scale,
            color_scheme="light",
            reduced_motion="reduce",
            locale="en-US",
            timezone_id="UTC",
            # The simulator's security policy blocks even this script's code.
            bypass_csp=True,
        )
        context.set_default_timeout(60_000)
        yield context.new_page()
        context.close()


def connection_form_standard(studio: Studio, path: Path) -> None:
    with _connection_form(studio) as form:
        # This expands the section of the field.
        form.value("login")
        form.dialog.screenshot(path=path)


def connection_form_extra(studio: Studio, path: Path) -> None:
    with _connection_form(studio) as form:
        form.value("region")
        form.dialog.screenshot(path=path)


@contextmanager
def _connection_form(studio: Studio) -> Iterator[ConnectionForm3]:
    with studio.page(1000, 1500, scale=1.5) as page:
        form = ConnectionForm3(page, studio.airflow.url)
        form.add(
            "coveo_default",
            {
                "login": "mycoveoorganizationg8tp8wu3",
                "password": "xx-nobody-s-key-in-a-picture",
                "region": "eu",
            },
        )
        # No field should have the focus.
        form.dialog.get_by_text("Add Connection").click()
        yield form


def graph_of_the_run_that_went_well(studio: Studio, path: Path) -> None:
    _graph(studio, studio.well, path)


def graph_of_the_run_that_failed(studio: Studio, path: Path) -> None:
    _graph(studio, studio.failed, path)


def _graph(studio: Studio, run_id: str, path: Path) -> None:
    # The UI's settings in the browser: show the graph from left to right, with the bracket expanded.
    remembered = {
        "default_dag_view": '"graph"',
        f"{DAG_ID}/open-groups": f'["{GROUP_ID}"]',
        f"direction-{DAG_ID}": '"RIGHT"',
    }
    with studio.page(1700, 480) as page:
        page.goto(studio.airflow.url)
        for key, value in remembered.items():
            page.evaluate("([key, value]) => localStorage.setItem(key, value)", [key, value])
        page.goto(studio.run_url(run_id))
        expect(page.locator(".react-flow").get_by_text("outcome").first).to_be_visible()
        bracket = page.locator(".react-flow__node").filter(has_text="Task Group").first
        page.add_style_tag(content=".react-flow__panel { display: none !important }")
        _take(page, path, bracket, margin=(12, 12))


def console_link(studio: Studio, path: Path) -> None:
    with studio.page(1200, 700) as page:
        page.goto(f"{studio.run_url(studio.failed)}/tasks/{GROUP_ID}.push_products/details")
        link = page.get_by_role("link", name="Coveo sources")
        expect(link).to_be_visible()
        heading = page.get_by_role("heading", name="push_products")
        _take(page, path, heading, link, page.get_by_role("heading", name="Dag Version"), margin=(40, 10))


def simulator(studio: Studio, path: Path) -> None:
    with _simulator(studio, 1360, 1.5) as page:
        page.screenshot(path=path, full_page=True)


def timeline(studio: Studio, path: Path) -> None:
    with _simulator(studio, 1000, 2) as page:
        page.locator("section.card").filter(has=page.locator("#timeline-title")).screenshot(path=path)


@contextmanager
def _simulator(studio: Studio, width: int, scale: float) -> Iterator[Page]:
    with studio.page(width, 900, scale) as page:
        page.goto(studio.coveo.url)
        # All rows of all tables, in the font of Airflow's pages.
        page.add_style_tag(content=".scroll { max-height: none } body { font-family: 'Liberation Sans' }")
        expect(page.locator("#bar .span.REBUILD")).to_have_count(2)
        # The last status is wide enough for its name after some seconds.
        page.wait_for_function("(s => s.textContent && s.scrollWidth <= s.clientWidth)(bar.lastElementChild)")
        yield page


def push_sources(studio: Studio, path: Path) -> None:
    with _push_sources(studio, (1500, 560)) as (page, _):
        page.screenshot(path=path)


def push_sources_dialog(studio: Studio, path: Path) -> None:
    with _push_sources(studio, (1200, 560)) as (_, frame):
        frame.get_by_role("button", name="Set Manuals to IDLE").click()
        frame.locator("#ps-dialog").screenshot(path=path)


@contextmanager
def _push_sources(studio: Studio, size: tuple[int, int]) -> Iterator[tuple[Page, Frame]]:
    """The page, with a source that is active although no run is updating it."""
    coveo = studio.coveo
    if "acme-manuals" not in coveo.state.sources:
        coveo.add_source("acme-manuals")
        coveo.state.source("acme-manuals").name = "Manuals"
        coveo.state.source(SOURCE_ID).name = "Products"
        coveo.state.set_status("acme-manuals", SourceStatus.REFRESH, "somebody")
        run_id = studio.airflow.trigger(WATCHDOG, {"report_only": True})
        studio.airflow.wait_for_run(WATCHDOG, run_id)
    with studio.page(*size, scale=1) as page:
        page.goto(f"{studio.airflow.url}/plugin/coveo_push_sources")
        frame = page.wait_for_selector("iframe").content_frame()
        if frame is None:
            raise RuntimeError("The page is not in a frame")
        frame.locator("#ps-range").select_option("3600")
        expect(frame.locator("tbody")).to_have_count(2)
        yield page, frame


def _take(page: Page, path: Path, *things: Locator, margin: tuple[int, int]) -> None:
    """Take a picture of the rectangle around these elements, with a margin at the sides and the top."""
    boxes = [box for thing in things if (box := thing.bounding_box())]
    left = min(box["x"] for box in boxes) - margin[0]
    right = max(box["x"] + box["width"] for box in boxes) + margin[0]
    top = min(box["y"] for box in boxes) - margin[1]
    bottom = max(box["y"] + box["height"] for box in boxes) + margin[1]
    page.screenshot(path=path, clip={"x": left, "y": top, "width": right - left, "height": bottom - top})


PICTURES: dict[str, Callable[[Studio, Path], None]] = {
    "simulator.png": simulator,
    "timeline.png": timeline,
    "connection-form.png": connection_form_standard,
    "connection-form-extra.png": connection_form_extra,
    "bracket-graph-success.png": graph_of_the_run_that_went_well,
    "bracket-graph.png": graph_of_the_run_that_failed,
    "console-link.png": console_link,
    # These add a source, which the others should not show.
    "push-sources.png": push_sources,
    "push-sources-dialog.png": push_sources_dialog,
}


def main() -> int:
    FOLDER.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=60_000)
    with Simulator(organization="acme", sources=[SOURCE_ID]) as coveo:
        env = {"AIRFLOW_CONN_COVEO_DEFAULT": coveo.connection_json()}
        with LocalAirflow(ROOT / "dags_examples", env=env) as airflow, chromium() as browser:
            airflow.wait_for_dag(DAG_ID)
            # Restart the timeline.
            coveo.reset()
            runs = []
            for conf, state in (({}, "success"), ({"fail": True}, "failed")):
                runs.append(airflow.trigger(DAG_ID, conf))
                if (found := airflow.wait_for_run(DAG_ID, runs[-1])) != state:
                    raise RuntimeError(f"The run is {found}, not {state}")
            studio = Studio(browser, airflow, coveo, *runs)
            for name, take in PICTURES.items():
                take(studio, FOLDER / name)
                print(f"{(FOLDER / name).relative_to(ROOT)}: {(FOLDER / name).stat().st_size // 1024} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
