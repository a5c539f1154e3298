"""The page Push sources in a real Airflow's web interface: content, permissions and buttons."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_coveo.coveo.statuses import SourceStatus
from airflow_provider_coveo.links.push_sources_page import airflow_line, page_exists
from tests.browser.push_sources import DAG_IDS, MARKUP, SOURCES, WATCHDOG, Stage, push_sources_stage
from tests.push_sources_routes import ROLES, ROUTES

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Frame

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not page_exists(), reason="Airflow 3.0 has no place for the page"),
]

WORD = "push_source_update.wait_for_the_word"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """An Airflow with an active run, an abandoned run, and a source that was left active by hand."""
    with push_sources_stage(tmp_path_factory.mktemp("stage")) as made:
        airflow, coveo = made.airflow, made.coveo
        assert airflow.wait_for_run("left_active", airflow.trigger("left_active")) == "success"
        assert airflow.wait_for_run("fails", airflow.trigger("fails")) == "failed"
        rejected = airflow.trigger("rejected_by_indexing")
        assert airflow.wait_for_run("rejected_by_indexing", rejected) == "success"
        runs = {name: airflow.trigger(f"update_{name}") for name in ("catalog", "paused")}
        for name, run_id in runs.items():
            airflow.wait_for_task(f"update_{name}", run_id, WORD, {"running"})
        airflow.pause("update_paused")
        coveo.state.source("paused").name = "go on"
        airflow.wait_for_task("update_paused", runs["paused"], WORD, {"success"})
        look = airflow.trigger(WATCHDOG, {"report_only": True})
        assert airflow.wait_for_run(WATCHDOG, look) == "success"
        made.runs = runs
        yield made


def rows(stage: Stage, name: str = "admin") -> dict[str, dict[str, Any]]:
    with stage.client(name) as client:
        return {row["source"]: row for row in client.get("/coveo/sources").json()["rows"]}


# --- permissions ---


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("name", [None, *ROLES])
def test_each_route_returns_the_expected_status_for_each_role(
    stage: Stage, path: str, name: str | None
) -> None:
    with stage.client(name) as client:
        answer = client.get(f"/coveo{path}", follow_redirects=False)
        expected = ROUTES[path][name]
        if airflow_line() < (3, 0) and expected == 401:
            # Airflow 2.11 redirects to its form instead.
            assert answer.status_code == 302
            assert "/login/" in answer.headers["location"]
            return
        assert answer.status_code == expected
        if expected == 200:
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
def test_every_method_that_could_change_something_is_rejected(
    stage: Stage, path: str, method: str, kind: str
) -> None:
    headers = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "Content-Type": kind}
    with stage.client("admin") as client:
        answer = client.request(method, f"/coveo{path}", headers=headers, content="{}")
        # 2.11 checks its token first.
        assert answer.status_code in {400, 405}


@pytest.mark.parametrize("name", ["viewer", "admin"])
def test_no_response_contains_a_key_or_content(stage: Stage, name: str) -> None:
    with stage.client(name) as client:
        text = "".join(client.get(f"/coveo{path}").text for path in ROUTES)
    for secret in (stage.coveo.api_key, "coveo_default", "product://", "X-Amz", "password"):
        assert secret not in text


def test_without_permission_to_trigger_the_watchdog_the_buttons_are_disabled(
    stage: Stage, browser: Browser
) -> None:
    with stage.page(browser, "viewer") as page:
        frame = stage.show(page)
        row = frame.locator('tbody[data-key="acme/left"]')
        expect(row.get_by_role("button", name="Check now")).to_be_disabled()
        expect(row.get_by_role("button", name="to IDLE")).to_be_disabled()
        expect(frame.locator("#ps-notes")).to_contain_text("Read-only: to use the buttons")


@pytest.fixture(scope="module")
def roles_of_single_dags(stage: Stage) -> None:
    """Users whose roles cover single DAGs, as DAGs with ``access_control`` create them."""
    catalog, watchdog = "DAG:update_catalog", f"DAG:{WATCHDOG}"
    looking = [("can_read", "DAG Runs"), ("can_read", watchdog)]
    for name, allowed in {
        "no-dag": [("can_read", "DAG Runs")],
        "one-dag": [("can_read", "DAG Runs"), ("can_read", catalog), ("can_create", "DAG Runs")],
        "watchdog-reader": [*looking, ("can_create", "DAG Runs")],
        "watchdog-editor": [*looking, ("can_edit", watchdog), ("can_create", f"DAG Run:{WATCHDOG}")],
    }.items():
        actions = [
            {"action": {"name": action}, "resource": {"name": resource}}
            for action, resource in [("can_read", "Website"), *allowed]
        ]
        stage.airflow.rest("POST", "/roles", {"name": name, "actions": actions})
        names = dict.fromkeys(("username", "password", "first_name", "last_name"), name)
        user = {**names, "email": f"{name}@example.com", "roles": [{"name": name}]}
        stage.airflow.rest("POST", "/users", user)


SINGLE_DAGS = pytest.mark.skipif(
    airflow_line() >= (3, 0), reason="roles of single DAGs need FAB, which the tests' Airflow 3 is without"
)


@SINGLE_DAGS
@pytest.mark.usefixtures("roles_of_single_dags")
@pytest.mark.parametrize(
    ("name", "sources", "dags", "usable"),
    [
        ("no-dag", set(), set(), "forbidden"),
        ("one-dag", {"catalog"}, {"update_catalog"}, "forbidden"),
        ("watchdog-reader", {"catalog", "paused", "left", "failing", "odd"}, {WATCHDOG}, "forbidden"),
        ("watchdog-editor", {"catalog", "paused", "left", "failing", "odd"}, {WATCHDOG}, "ready"),
    ],
)
def test_a_role_for_single_dags_shows_their_sources_and_names_no_other_dag(
    stage: Stage, name: str, sources: set[str], dags: set[str], usable: str
) -> None:
    with stage.client(name) as client:
        text = client.get("/coveo/sources").text
    found = json.loads(text)
    assert {row["source"] for row in found["rows"]} == sources
    assert {dag_id for dag_id in DAG_IDS if f'"{dag_id}"' in text} == dags
    assert {each["watchdog"]["usable"] for each in found["organizations"].values()} == {usable}
    holders = {row["source"]: row["holders"] for row in found["rows"]}
    if WATCHDOG in dags:
        assert holders["paused"] == [{"hidden": True, "is_live": False}]


@SINGLE_DAGS
@pytest.mark.usefixtures("roles_of_single_dags")
def test_a_role_for_single_dags_can_use_the_buttons_if_it_can_trigger_the_watchdog(
    stage: Stage, browser: Browser
) -> None:
    row = 'tbody[data-key="acme/catalog"]'
    with stage.page(browser, "one-dag") as page:
        frame = stage.show(page)
        expect(frame.locator(row).get_by_role("button", name="Check now")).to_be_disabled()
        expect(frame.locator("#ps-notes")).to_contain_text("permission to trigger the watchdog's DAG")
    with stage.page(browser, "watchdog-editor") as page:
        frame = stage.show(page)
        expect(frame.locator(row)).to_contain_text("a DAG that you are not allowed to read")
        frame.locator(row).get_by_role("button", name="Check now").click()
        expect(frame.locator(row)).to_contain_text("Checked in Coveo at", timeout=120_000)


# --- content ---


def test_each_source_shows_its_state_the_reason_and_its_last_update(stage: Stage) -> None:
    found = rows(stage)
    assert {name: row["state"] for name, row in found.items()} == {
        "catalog": "working",
        "paused": "abandoned",
        "left": "abandoned",
        "failing": "idle",
        "odd": "idle",
    }
    assert found["paused"]["holders"][0]["why"] == "the DAG is paused, and no task of the run is running"
    assert found["failing"]["last"]["result"] == "failed"
    assert "push_source_update.push" in found["failing"]["last"]["failed"]
    assert found["catalog"]["last"]["counts"] == {"accepted": 3, "deleted": 0, "refused": 1}
    counts = {"accepted": 3, "deleted": 0, "refused": 0, "rejected": 1}
    assert found["odd"]["last"]["counts"] == counts
    assert found["catalog"]["holders"][0]["run_id"] == stage.runs["catalog"]


def test_the_page_updates_while_a_dag_runs_and_shows_markup_as_text(stage: Stage, browser: Browser) -> None:
    airflow = stage.airflow
    with stage.page(browser, "admin") as page:
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        frame = stage.show(page)
        expect(frame.locator('tbody[data-key="acme/odd"] .name')).to_have_text(MARKUP)
        odd = frame.locator('tbody[data-key="acme/odd"]')
        expect(odd).to_contain_text("3 accepted, 1 rejected by indexing")
        row = frame.locator('tbody[data-key="acme/catalog"]')
        expect(row.locator(".status")).to_have_text("Rebuild")
        expect(row).to_contain_text("3 accepted, 1 invalid")
        stage.coveo.state.source("catalog").name = "go on"
        run_id = stage.runs["catalog"]
        assert airflow.wait_for_run("update_catalog", run_id) == "success"
        expect(row.locator(".status")).to_have_text("Ready to receive content")
        expect(row).to_contain_text("succeeded")
        assert page.title() != "1"
        # 2.11's own script searches each page for the fields of a form.
        assert not [each for each in problems if "autocomplete" not in each]
        # The link leads to the run in Airflow's own pages, not in the frame.
        row.get_by_role("link", name="update_catalog").first.click()
        page.wait_for_url("**/dags/update_catalog/**")
        assert page.url.startswith(stage.url)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_uses_the_color_scheme_of_airflow(stage: Stage, browser: Browser, scheme: Any) -> None:
    with stage.page(browser, "admin", color_scheme=scheme) as page:
        frame = stage.show(page)
        # 2.11 inverts the colors of its whole page.
        expected = scheme if airflow_line() >= (3, 1) else "light"
        expect(frame.locator("#push-sources")).to_have_attribute("data-theme", expected)


def test_rows_can_be_filtered_and_a_link_marks_a_row(stage: Stage, browser: Browser) -> None:
    with stage.page(browser, "admin") as page:
        frame = stage.show(page, "?source=acme%2Fleft")
        expect(frame.locator("tbody.marked")).to_have_attribute("data-key", "acme/left")
        frame.get_by_label("State").select_option("abandoned")
        keys = frame.locator("tbody")
        expect(keys).to_have_count(2)
        frame.get_by_label("DAG").select_option("update_paused")
        expect(keys).to_have_count(1)
        frame.get_by_label("DAG").select_option("")
        frame.get_by_label("State").select_option("")
        frame.get_by_role("searchbox", name="Source").fill("IMG SRC")
        expect(keys).to_have_count(1)


def test_a_task_links_to_the_row_of_its_source(stage: Stage) -> None:
    path = f"/dags/update_paused/dagRuns/{stage.runs['paused'].replace('+', '%2B')}"
    answer = stage.airflow.rest("GET", f"{path}/taskInstances/push_source_update.open/links")
    address = answer.get("extra_links", answer)["Push source"]
    assert address.startswith(f"{stage.url}/")
    assert address.endswith("?source=acme%2Fpaused")


def test_asset_events_contain_the_numbers_of_pushed_and_rejected_items(stage: Stage) -> None:
    kind = "asset" if stage.airflow.is_airflow_3 else "dataset"
    events = stage.airflow.rest("GET", f"/{kind}s/events")[f"{kind}_events"]
    extras = {each["source_task_id"]: each["extra"] for each in events}
    assert extras["push"].items() >= {"accepted": 3, "deleted": 0, "refused": 0}.items()
    assert extras["wait"]["rejected"] == 1


@pytest.mark.skipif(airflow_line() < (3, 4), reason="an asset has tabs of plugins since 3.4")
def test_an_asset_has_a_tab_that_shows_its_source(stage: Stage, browser: Browser) -> None:
    (asset,) = stage.airflow.rest("GET", "/assets?uri_pattern=coveo")["assets"]
    with stage.page(browser, "admin") as page:
        page.goto(f"{stage.url}/assets/{asset['id']}")
        page.get_by_role("link", name="Push source", exact=True).click()
        rows = page.frame_locator("iframe").locator("tbody")
        expect(rows).to_have_count(1)
        expect(rows).to_have_attribute("data-key", "acme/odd")


def test_the_page_fits_the_width_of_a_phone(stage: Stage, browser: Browser) -> None:
    size = {"width": 390, "height": 844}
    with stage.page(browser, "admin", viewport=size, is_mobile=True, has_touch=True) as page:
        page.goto(f"{stage.url}/coveo/")
        page.wait_for_selector("tbody")
        wide = "document.querySelector('#push-sources').scrollWidth"
        assert page.evaluate(wide) <= page.evaluate("document.querySelector('#push-sources').clientWidth")


NOTHING_READ = {
    "now": 1.0,
    "rows": [],
    "organizations": {"": {"watchdog": {"usable": "ready", "dag_id": None}}},
    "troubles": ["Could not read the records from Airflow's database"],
}


@pytest.mark.parametrize("answer", [{"json": NOTHING_READ}, {"status": 500, "body": ""}])
def test_if_sources_could_not_be_read_the_page_does_not_say_that_there_are_none(
    stage: Stage, browser: Browser, answer: dict[str, Any]
) -> None:
    with stage.page(browser, "admin") as page:
        # Playwright would pass the request to a second parameter.
        page.route("**/coveo/sources", lambda route: route.fulfill(**answer))
        frame = stage.show(page)
        expect(frame.locator("#ps-empty")).to_contain_text("No source could be read")


def test_abandoned_sources_are_counted_and_explained_above_the_rows(stage: Stage, browser: Browser) -> None:
    with stage.page(browser, "admin", timezone_id="America/New_York") as page:
        frame = stage.show(page)
        expect(frame.locator("#ps-notes")).to_contain_text("2 sources abandoned (orange).")
        expect(frame.locator("#ps-notes")).to_contain_text("press Set to IDLE")
        expect(frame.locator("#ps-count")).to_have_text("5 sources, 2 abandoned")
        expect(frame.locator("#ps-fresh")).to_contain_text(re.compile(r"UTC-0[45]:00"))
        expect(frame.locator("#ps-legend")).to_contain_text("status in the last 24 hours")
        # The tab of an asset shows only that source.
        for source, words in (("catalog", "1 source"), ("left", "1 source, 1 abandoned")):
            page.goto(f"{stage.url}/coveo/?asset=coveo%3A%2F%2Facme%2F{source}")
            expect(page.locator("#ps-count")).to_have_text(words)
            expect(page.locator("#ps-filters")).to_be_hidden()


@pytest.mark.skipif(airflow_line() < (3, 1), reason="2.11 shows the page in no frame")
def test_the_tab_of_an_asset_grows_to_show_the_whole_row(stage: Stage, browser: Browser) -> None:
    html = (
        "<iframe src='coveo/?asset=coveo%3A%2F%2Facme%2Fleft' style='width: 360px; height: 150px'></iframe>"
    )
    with stage.page(browser, "admin") as page:
        page.route("**/around", lambda route: route.fulfill(body=html, content_type="text/html"))
        page.goto(f"{stage.url}/around")
        frame = page.frame_locator("iframe")
        expect(frame.get_by_role("button", name="Set left to IDLE")).to_be_in_viewport()
        expect(frame.locator("#ps-legend")).to_be_hidden()


# --- its buttons ---


def closed(stage: Stage, frame: Frame, source: str) -> None:
    row = frame.locator(f'tbody[data-key="acme/{source}"]')
    expect(row).to_contain_text("Set to IDLE at", timeout=120_000)
    expect(row.locator(".status")).to_have_text("Ready to receive content")
    assert stage.coveo.statuses(source)[-1] == "IDLE"


def test_a_source_that_was_left_active_can_be_set_to_idle_with_the_keyboard_alone(
    stage: Stage, browser: Browser
) -> None:
    with stage.page(browser, "user") as page:
        frame = stage.show(page)
        button = frame.locator('tbody[data-key="acme/left"]').get_by_role("button", name="to IDLE")
        button.focus()
        page.keyboard.press("Enter")
        dialog = frame.locator("#ps-dialog")
        expect(dialog).to_contain_text("Airflow has no record of a run that opened it")
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        expect(button).to_be_focused()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        closed(stage, frame, "left")
    events = json.dumps(stage.airflow.rest("GET", "/eventLogs?limit=200"))
    assert '"owner": "user"' in events


def test_a_user_can_set_an_abandoned_source_to_idle_by_following_the_page(
    stage: Stage, browser: Browser, record_property: Any
) -> None:
    """Start on Airflow's home page, find the page, read the reason, press the button, and record the time."""
    with stage.page(browser, "admin") as page:
        began = time.monotonic()
        frame = stage.find(page)
        expect(frame.locator("#ps-notes")).to_contain_text("Read why in the row.")
        row = frame.locator("tbody.abandoned").filter(has_text="update_paused")
        expect(row).to_contain_text("the DAG is paused, and no task of the run is running")
        row.get_by_role("button", name="to IDLE").click()
        expect(frame.locator("#ps-dialog")).to_contain_text("the DAG is paused")
        frame.locator("#ps-dialog").get_by_role("button", name="Set to IDLE").click()
        closed(stage, frame, "paused")
        record_property("seconds", round(time.monotonic() - began, 1))
        row = frame.locator('tbody[data-key="acme/paused"]')
        expect(row).to_contain_text("closed by the watchdog")
        expect(row).to_contain_text("not finished")


def test_check_now_reads_the_status_from_coveo_and_changes_none(stage: Stage, browser: Browser) -> None:
    before = {name: stage.coveo.statuses(name) for name in SOURCES}
    with stage.page(browser, "admin") as page:
        row = stage.show(page).locator('tbody[data-key="acme/odd"]')
        row.get_by_role("button", name="Check now").click()
        expect(row).to_contain_text("Checked in Coveo at", timeout=120_000)
    assert {name: stage.coveo.statuses(name) for name in SOURCES} == before


def test_one_run_sets_several_abandoned_sources_to_idle(stage: Stage, browser: Browser) -> None:
    for source in ("left", "odd"):
        stage.coveo.state.set_status(source, SourceStatus.REFRESH, "somebody")
    look = stage.airflow.trigger(WATCHDOG, {"report_only": True})
    assert stage.airflow.wait_for_run(WATCHDOG, look) == "success"
    with stage.page(browser, "admin") as page:
        frame = stage.show(page)
        frame.get_by_role("searchbox", name="Source").fill("odd")
        expect(frame.locator("tbody.abandoned")).to_have_count(1)
        expect(frame.get_by_role("button", name="Set all")).to_have_count(0)
        frame.get_by_role("searchbox", name="Source").fill("")
        frame.get_by_role("button", name=re.compile(r"Set all \d of acme to IDLE")).click()
        frame.locator("#ps-dialog").get_by_role("button", name="Set to IDLE").click()
        closed(stage, frame, "left")
        closed(stage, frame, "odd")


def test_while_the_watchdog_is_paused_the_page_says_so_and_the_buttons_are_disabled(
    stage: Stage, browser: Browser
) -> None:
    airflow = stage.airflow
    airflow.pause(WATCHDOG)
    with stage.page(browser, "admin") as page:
        frame = stage.show(page)
        expect(frame.locator("#ps-notes")).to_contain_text("its DAG is paused: unpause")
        expect(frame.get_by_role("button", name="Check now").first).to_be_disabled()
    airflow.unpause(WATCHDOG)
