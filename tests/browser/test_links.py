"""The links to Coveo's console in Airflow's UI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from local_airflow import LocalAirflow

from tests.browser.conftest import Lab

if TYPE_CHECKING:
    from playwright.sync_api import Page

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = pytest.mark.timeout(900)

EUROPE = "https://platform-eu.cloud.coveo.com/admin/#/acme"


def open_task(page: Page, airflow: LocalAirflow, run_id: str, task_id: str) -> None:
    """Go to a task's page."""
    run = quote(run_id, safe="")
    if airflow.is_airflow_3:
        page.goto(f"{airflow.url}/dags/shown/runs/{run}/tasks/{task_id}/details")
    else:
        page.goto(f"{airflow.url}/dags/shown/grid?dag_run_id={run}&task_id={task_id}&tab=details")


def links(lab: Lab, run_id: str, task_id: str, dag_id: str = "shown") -> dict[str, Any]:
    """Return a task's links from the REST API."""
    path = f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task_id}/links"
    answer: dict[str, Any] = lab.airflow.rest("GET", path)
    found: dict[str, Any] = answer.get("extra_links", answer)
    row = found.pop("Push source", None)
    assert row is None or "source=acme%2F" in row
    return found


def test_the_link_of_a_task_opens_the_console(lab: Lab, page: Page, run_id: str) -> None:
    open_task(page, lab.airflow, run_id, "push")
    link = page.get_by_role("link", name="Coveo sources")
    expect(link).to_be_visible()
    with page.context.expect_page(timeout=60_000) as opened:
        link.click()
    console = opened.value
    expect(console).to_have_url(f"{lab.coveo.url}/admin/#/acme/content/sources/")
    expect(console.locator("#organization")).to_contain_text("acme")
    console.close()


def test_a_task_that_failed_links_to_the_console_of_its_region(lab: Lab, page: Page, run_id: str) -> None:
    open_task(page, lab.airflow, run_id, "failed_in_europe")
    for name, address in {"Coveo sources": "content/sources/", "Coveo log browser": "logs/browser/"}.items():
        expect(page.get_by_role("link", name=name)).to_have_attribute("href", f"{EUROPE}/{address}")


@pytest.mark.parametrize("task_id", ["push", "sensor"])
def test_the_rest_api_returns_the_links_of_a_task(lab: Lab, run_id: str, task_id: str) -> None:
    console = f"{lab.coveo.url}/admin/#/acme"
    assert links(lab, run_id, task_id) == {
        "Coveo sources": f"{console}/content/sources/",
        "Coveo log browser": f"{console}/logs/browser/",
    }


def test_a_task_has_its_links_while_it_is_running_and_after_it_was_killed(lab: Lab) -> None:
    airflow = lab.airflow
    stall = lab.coveo.faults.stall(120, operation="batch", source="killed")
    run_id = airflow.trigger("killed")
    airflow.wait_until(lambda: stall.used, 120, "the push waits for Coveo")
    expected = f"{lab.coveo.url}/admin/#/acme/content/sources/"
    assert links(lab, run_id, "push", "killed")["Coveo sources"] == expected

    airflow.mark_task("killed", run_id, "push", "failed")
    assert airflow.wait_for_run("killed", run_id) == "failed"
    assert links(lab, run_id, "push", "killed")["Coveo sources"] == expected
    lab.coveo.faults.clear()
