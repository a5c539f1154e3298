"""The page Push sources by itself in a browser, with answers that a test makes up, below a path."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_coveo.plugins.page import content_security_policy, page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

expect = pytest.importorskip("playwright.sync_api").expect

NOW = time.time()
LONG = "x" * 250
#: What a name can hold: markup, a template's marks, and what turns the text behind it around.
NASTY = "<img src=x onerror=\"document.title='1'\"></script>${1}`\u202e"


class Server:
    """A server that has the page below a path, and keeps what the page posts."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.posted: list[tuple[str, Any]] = []
        #: Why it takes no order, and whether it doesn't show what became of one.
        self.refusal = ""
        self.hides_runs = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/deep/below/coveo/":
                    self.answer(page(), "text/html; charset=utf-8")
                elif path == "/deep/below/coveo/sources":
                    self.answer(json.dumps({"now": time.time(), **outer.data}))
                elif path.startswith("/deep/below/api/v2/dags/dog/dagRuns/"):
                    self.answer('{"state": "success"}', status=403 if outer.hides_runs else 200)
                else:
                    self.send_error(404)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.posted.append((self.path, json.loads(body)))
                if outer.refusal:
                    self.answer(json.dumps({"detail": outer.refusal}), status=400)
                    return
                self.answer('{"dag_run_id": "manual__1+2"}')

            def answer(self, text: str, kind: str = "application/json", status: int = 200) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Security-Policy", content_security_policy())
                self.end_headers()
                self.wfile.write(text.encode())

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/deep/below/coveo/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def show(self, *rows: dict[str, Any], watchdog: Any = None, troubles: Any = ()) -> None:
        """Answer with these rows."""
        dog = {"dag_id": "dog", "usable": "ready", **(watchdog or {})}
        organization = {"watchdog": dog, "looked_at": NOW, "left_out": 0, "quota": None}
        names = {"", *(row["organization"] for row in rows)}
        self.data = {
            "is_read": True,
            "rows": rows,
            "organizations": dict.fromkeys(names, organization),
            "troubles": list(troubles),
        }

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Page]:
    made = browser.new_page(viewport={"width": 1200, "height": 900})
    made.set_default_timeout(60_000)
    problems: list[str] = []
    made.on("pageerror", lambda error: problems.append(str(error)))
    yield made
    made.close()
    assert problems == []


def active(name: str, organization: str = "acme", **fields: Any) -> dict[str, Any]:
    """Return the row of an abandoned source, whose names are all the same."""
    holder = {"dag_id": name, "run_id": name, "task_id": name, "map_index": 3, "since": NOW - 7200}
    update = {"dag_id": name, "run_id": name, "status": name, "label": name, "began": NOW - 7200}
    status = {
        "status": name,
        "label": name,
        "is_active": True,
        "since": NOW - 7200,
        "as_of": NOW,
        "by": "coveo",
    }
    return {
        "organization": organization,
        "source": name,
        "name": name,
        "state": "abandoned",
        "status": status,
        "holders": [{**holder, "is_live": False, "why": name}, {"hidden": True, "is_live": False}],
        "last": {
            "dag_id": name,
            "run_id": name,
            "began": NOW - 7200,
            "ended": NOW - 60,
            "result": name,
            "failed": [name] * 5,
            "closed_by": name,
            "counts": None,
        },
        "updates": [{**update, "ended": NOW - 60, "result": "failed", "closed_by": name}],
        "next_run": {"dag_id": name, "at": NOW + 60, "is_paused": False, "is_gone": False},
        "troubles": [name],
        **fields,
    }


@pytest.mark.parametrize(
    ("width", "usable"), [(390, "deaf"), (390, "ready"), (1000, "ready"), (1500, "deaf")]
)
def test_names_of_any_length_stay_within_the_window(
    server: Server, tab: Page, width: int, usable: str
) -> None:
    rows = active(LONG, LONG), active(f"{LONG}2", LONG)
    server.show(*rows, watchdog={"dag_id": LONG, "usable": usable}, troubles=[LONG])
    quota = {"limit": 10**18, "used": 1, "as_of": NOW}
    server.data["organizations"][LONG] |= {"quota": quota, "left_out": 3}
    tab.set_viewport_size({"width": width, "height": 900})
    tab.goto(server.url)
    tab.locator("summary").first.click()
    expect(tab.locator("#ps-quota")).to_contain_text("can still be pushed")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_names_are_shown_as_text_and_do_not_reverse_the_text_after_them(server: Server, tab: Page) -> None:
    server.show(active(NASTY, NASTY), troubles=[NASTY])
    tab.goto(server.url)
    shown = NASTY.replace("\u202e", "\ufffd")
    expect(tab.locator(".name")).to_have_text(shown)
    tab.get_by_role("button", name="to IDLE").click()
    expect(tab.locator("#ps-dialog")).to_contain_text(f"Set {shown} to IDLE?")
    assert tab.title() == "Push sources"
    assert "\u202e" not in tab.locator("main").inner_text()
    assert tab.locator("main img").count() == 0


def test_invalid_and_rejected_items_are_counted_separately(server: Server, tab: Page) -> None:
    row = active("s")
    counts = {
        "accepted": 2000,
        "deleted": 0,
        "refused": 1,
        "rejected": 2,
        "rejected_batches": 1,
        "unchanged": 4,
    }
    row["last"]["counts"] = counts
    server.show(row)
    tab.goto(server.url)
    words = "2,000 accepted, 1 invalid, 2 rejected by indexing, 1 batch rejected by indexing, 4 unchanged"
    expect(tab.get_by_text(words)).to_be_visible()
    expect(tab.locator(".bad", has_text="2 rejected by indexing")).to_be_visible()


def test_two_organizations_can_have_a_source_with_the_same_id(server: Server, tab: Page) -> None:
    server.show(active("s", "one"), active("s", "two"))
    tab.goto(f"{server.url}?source=two%2Fs")
    rows = tab.locator("tbody")
    expect(rows).to_have_count(2)
    expect(tab.locator("tbody.marked")).to_have_attribute("data-key", "two/s")
    tab.locator('tbody[data-key="two/s"]').get_by_role("button", name="Check now").click()
    expect(tab.locator('tbody[data-key="two/s"]')).to_contain_text("Checked in Coveo at")
    expect(tab.locator('tbody[data-key="one/s"]')).not_to_contain_text("Checked")
    conf = {"source_ids": ["s"], "organization_id": "two", "report_only": True}
    assert server.posted == [("/deep/below/api/v2/dags/dog/dagRuns", {"conf": conf, "logical_date": None})]
    tab.get_by_label("Organization").select_option("one")
    expect(rows).to_have_count(1)
    # The tab of an asset shows the source of its organization only.
    tab.goto(f"{server.url}?asset=coveo%3A%2F%2Fone%2Fs")
    expect(rows).to_have_count(1)
    expect(rows).to_have_attribute("data-key", "one/s")


@pytest.mark.parametrize(
    ("usable", "words"),
    [
        ("absent", "Put coveo_close_abandoned.py of the provider's dags_examples into your DAGs folder"),
        ("paused", "The buttons need the watchdog, but its DAG is paused: unpause dog"),
        ("deaf", "set takes_conf=True on the operator in the DAG dog"),
        ("forbidden", "you need permission to trigger dog"),
        ("elsewhere", "The watchdog dog checks another organization. To use the buttons for acme, add"),
    ],
)
def test_the_page_says_why_the_buttons_are_disabled(
    server: Server, tab: Page, usable: str, words: str
) -> None:
    server.show(active("s"), watchdog={"usable": usable})
    tab.goto(server.url)
    expect(tab.locator("#ps-notes")).to_contain_text(words)
    expect(tab.get_by_role("button", name="Check now")).to_be_disabled()
    expect(tab.get_by_role("button", name="Set s to IDLE")).to_be_disabled()


def test_if_a_refresh_fails_the_sources_and_the_time_of_the_last_one_stay(server: Server, tab: Page) -> None:
    server.show(active("s"))
    tab.goto(server.url)
    expect(tab.locator("tbody")).to_have_count(1)
    when = tab.locator("#ps-fresh").inner_text()
    # Its next second differs.
    tab.wait_for_timeout(1100)
    server.data |= {"is_read": False, "rows": [], "troubles": ["Could not read the records"]}
    tab.get_by_role("button", name="Refresh").click()
    expect(tab.locator("#ps-notes")).to_contain_text("Could not read the records")
    expect(tab.locator("tbody")).to_have_count(1)
    expect(tab.locator("#ps-fresh")).to_have_text(when)
    server.data |= {"is_read": True, "troubles": []}
    tab.get_by_role("button", name="Refresh").click()
    expect(tab.locator("tbody")).to_have_count(0)
    expect(tab.locator("#ps-fresh")).not_to_have_text(when)


def test_the_page_says_if_the_watchdog_has_not_checked_for_hours(server: Server, tab: Page) -> None:
    server.show(active("s"))
    tab.goto(server.url)
    expect(tab.locator("tbody")).to_have_count(1)
    expect(tab.locator("#ps-notes")).not_to_contain_text("last checked")
    server.data["organizations"]["acme"]["looked_at"] = NOW - 3 * 3600
    tab.get_by_role("button", name="Refresh").click()
    expect(tab.locator("#ps-notes")).to_contain_text("The watchdog last checked all sources of acme at")
    # It keeps the focus, whether or not it is drawn again.
    link = tab.locator("#ps-notes").get_by_role("link", name="dog")
    link.focus()
    for troubles in ([], ["more"]):
        server.data["troubles"] = troubles
        with tab.expect_response("**/sources"):
            tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        expect(tab.locator("#ps-notes p")).to_have_count(2 + len(troubles))
        expect(link).to_be_focused()


def test_all_abandoned_sources_that_are_shown_can_be_set_to_idle_at_once(server: Server, tab: Page) -> None:
    many = [active(f"s{number:03}") for number in range(101)]
    server.show(*many, active("t", state="unsure"), active("of-two", "two"))
    tab.goto(server.url)
    button = tab.get_by_role("button", name="Set all 101 of acme to IDLE")
    button.click()
    dialog = tab.locator("#ps-dialog")
    expect(dialog).to_contain_text("Set 101 sources of acme to IDLE?")
    expect(dialog).to_contain_text("s018, s019 and 81 more")
    tab.keyboard.press("Escape")
    expect(button).to_be_focused()
    assert server.posted == []
    button.click()
    idle = {
        "status": "IDLE",
        "label": "Ready",
        "is_active": False,
        "since": None,
        "as_of": NOW,
        "by": "coveo",
    }
    left = [active("s100"), *(active(row["source"], state="idle", status=idle) for row in many[:100])]
    server.show(*left, active("t", state="unsure"), active("of-two", "two"))
    dialog.get_by_role("button", name="Set to IDLE").click()
    expect(tab.locator('tbody[data-key="acme/s000"]')).to_contain_text("Set to IDLE at")
    expect(tab.locator('tbody[data-key="acme/s100"]')).to_contain_text("Not set to IDLE")
    confs = [body["conf"] for _, body in server.posted]
    assert [conf["source_ids"] for conf in confs] == [
        [f"s{number:03}" for number in range(100)],
        ["s100"],
    ]
    assert {(conf["organization_id"], conf["close_now"]) for conf in confs} == {("acme", True)}
    # The filters choose the sources, and one source has its own button.
    server.show(*(active(name) for name in ("a1", "a2", "b1")))
    tab.goto(server.url)
    expect(tab.get_by_role("button", name="Set all 3 of acme")).to_be_visible()
    tab.get_by_role("searchbox", name="Source").fill("a")
    expect(tab.get_by_role("button", name="Set all 2 of acme")).to_be_visible()
    tab.get_by_role("searchbox", name="Source").fill("b1")
    expect(tab.get_by_role("button", name="Set all")).to_have_count(0)
    server.show(active("a1"), active("a2"), watchdog={"usable": "forbidden"})
    tab.goto(server.url)
    expect(tab.locator("tbody")).to_have_count(2)
    expect(tab.get_by_role("button", name="Set all")).to_have_count(0)


def test_the_page_says_why_airflow_does_not_start_the_watchdog(server: Server, tab: Page) -> None:
    server.show(active("s"))
    server.refusal = "the DAG has import errors and cannot be triggered <b>"
    tab.goto(server.url)
    tab.get_by_role("button", name="Check now").click()
    expect(tab.locator(".said .bad")).to_have_text(f"Airflow returned status 400. {server.refusal}")
    server.refusal, server.hides_runs = "", True
    tab.get_by_role("button", name="Check now").click()
    expect(tab.locator(".said .bad")).to_have_text("You are not allowed to see how the watchdog's run ends.")


def test_the_sources_whose_last_update_failed_can_be_found(server: Server, tab: Page) -> None:
    failed = active("failed", state="idle")
    failed["last"]["result"] = "failed"
    server.show(active("s"), failed, active("never", state="idle", last=None))
    tab.goto(server.url)
    tab.get_by_label("State").select_option("Last update failed")
    expect(tab.locator("tbody")).to_have_count(1)
    expect(tab.locator("tbody")).to_have_attribute("data-key", "acme/failed")


def test_a_late_run_shows_as_due_and_an_update_without_an_end_as_not_finished(
    server: Server, tab: Page
) -> None:
    row = active("s", state="idle")
    row["next_run"]["at"] = NOW - 3600
    row["last"] |= {"result": "running", "closed_by": "watchdog"}
    row["holders"] = [{**row["holders"][0], "map_index": 17}]
    server.show(row)
    tab.goto(server.url)
    expect(tab.locator("tbody")).to_contain_text("was due")
    expect(tab.locator("tbody")).to_contain_text("not finished")
    expect(tab.locator("tbody")).to_contain_text("(map index 17)")


def test_without_any_source_the_page_says_so(server: Server, tab: Page) -> None:
    server.show(watchdog={"usable": "absent"})
    tab.goto(server.url)
    expect(tab.locator("#ps-empty")).to_contain_text("No Push source is on record yet")
    expect(tab.locator("#ps-count")).to_have_text("0 sources")
    expect(tab.locator("#ps-notes")).to_contain_text("coveo_close_abandoned.py")
