"""Airflow's connection form, filled in a browser; supports 2.11 and 3.x.

    form = connection_form(page, airflow)
    form.add("coveo_default", {"login": "acme", "password": "xx…", "region": "eu"})
    print(form.save_and_test())

Fields have their names in the connection, including those in its extra.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping

from airflow_client import AirflowClient
from playwright.sync_api import Locator, Page, expect

from airflow_provider_coveo.get_provider_info import CONNECTION_FORM

EXTRAS = tuple(CONNECTION_FORM["conn-fields"])


class ConnectionForm(ABC):
    """
    The form of a connection to Coveo.

    :param page: The page of the browser.
    :param url: Airflow's address.
    """

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.conn_id = ""

    def add(self, conn_id: str, fields: Mapping[str, str]) -> None:
        """Fill the form of a new connection."""
        self.conn_id = conn_id
        self._open_new()
        self.fill(fields)

    @abstractmethod
    def edit(self, conn_id: str) -> None:
        """Open the form of a saved connection."""

    @abstractmethod
    def fill(self, fields: Mapping[str, str]) -> None:
        """Type into fields."""

    @abstractmethod
    def save_and_test(self) -> str:
        """Press *Save* and *Test*, in the order that this Airflow requires, and return the message."""

    @abstractmethod
    def label(self, name: str) -> str:
        """Return the label of a field."""

    @abstractmethod
    def value(self, name: str) -> str:
        """Return the value of a field."""

    @abstractmethod
    def is_shown(self, name: str) -> bool:
        """Whether there is a visible field of that name."""

    @abstractmethod
    def _open_new(self) -> None: ...


class ConnectionForm3(ConnectionForm):
    """The form of Airflow 3: a dialog on the page of all connections, which also has *Test*."""

    @property
    def dialog(self) -> Locator:
        """The form itself."""
        return self.page.get_by_role("dialog")

    def edit(self, conn_id: str) -> None:
        self.conn_id = conn_id
        self.page.goto(f"{self.url}/connections")
        self._row.get_by_role("button", name="Edit Connection").click()
        self._unfold(EXTRAS[0])

    def fill(self, fields: Mapping[str, str]) -> None:
        for name, text in fields.items():
            self._unfold(name)
            if "enum" in CONNECTION_FORM["conn-fields"].get(name, {}).get("schema", {}):
                self._choose(self.dialog.locator(f"#element_{name}"), text)
            else:
                self._field(name).fill(text)

    def save_and_test(self) -> str:
        self.dialog.get_by_role("button", name="Save").click()
        expect(self.dialog).to_have_count(0)
        self._row.get_by_role("button", name="Test Connection").click()
        told = self.page.locator("[data-scope=toast][data-part=root]").filter(has_text="Test Connection")
        expect(told).to_be_visible()
        return told.inner_text()

    def label(self, name: str) -> str:
        self._unfold(name)
        around = self._field(name).locator("xpath=ancestor::*[.//label][1]")
        return around.locator("label").inner_text().strip()

    def value(self, name: str) -> str:
        self._unfold(name)
        if "enum" in CONNECTION_FORM["conn-fields"].get(name, {}).get("schema", {}):
            return self.dialog.locator(f"#element_{name}").inner_text()
        return self._field(name).input_value()

    def is_shown(self, name: str) -> bool:
        self._unfold(name)
        return self._field(name).is_visible()

    def _open_new(self) -> None:
        self.page.goto(f"{self.url}/connections")
        self.page.get_by_role("button", name="Add Connection").click()
        self.dialog.locator("[name=connection_id]").fill(self.conn_id)
        self._choose(self.dialog, CONNECTION_FORM["hook-name"])

    def _unfold(self, name: str) -> None:
        """Expand the section of a field, which collapses the other one."""
        part = "Extra Fields" if name in EXTRAS else "Standard Fields"
        heading = self.dialog.get_by_role("button", name=part, exact=True)
        if heading.get_attribute("aria-expanded") != "true":
            heading.click()
        expect(heading).to_have_attribute("aria-expanded", "true")

    def _choose(self, where: Locator, option: str) -> None:
        where.get_by_role("combobox").first.click()
        self.page.get_by_role("option", name=option, exact=True).click()

    def _field(self, name: str) -> Locator:
        return self.dialog.locator(f"[name={f'element_{name}' if name in EXTRAS else name}]")

    @property
    def _row(self) -> Locator:
        named = self.page.get_by_role("cell", name=self.conn_id, exact=True)
        return self.page.get_by_role("row").filter(has=named)


class ConnectionForm2(ConnectionForm):
    """The form of Airflow 2.11: a page, on which *Test* sends the current values, saved or not."""

    def edit(self, conn_id: str) -> None:
        self.conn_id = conn_id
        self.page.goto(f"{self.url}/connection/list/")
        named = self.page.get_by_role("cell", name=conn_id, exact=True)
        self.page.get_by_role("row").filter(has=named).locator("a[href*='/connection/edit/']").click()
        self._wait()

    def fill(self, fields: Mapping[str, str]) -> None:
        for name, text in fields.items():
            self._field(name).fill(text)

    def save_and_test(self) -> str:
        told = self.page.locator(".container .row .alert")
        before = told.text_content() or ""
        self.page.locator("#test-connection").click()
        expect(told).not_to_have_text(before)
        text = told.text_content() or ""
        self.page.get_by_role("button", name="Save").click()
        expect(self.page).not_to_have_url(re.compile("/connection/(add|edit)"))
        return text

    def label(self, name: str) -> str:
        return self.page.locator(f"label[for={self._id(name)}]").inner_text().strip()

    def value(self, name: str) -> str:
        return self._field(name).input_value()

    def is_shown(self, name: str) -> bool:
        return self._field(name).is_visible()

    def _open_new(self) -> None:
        self.page.goto(f"{self.url}/connection/add")
        self._field("conn_id").fill(self.conn_id)
        self.page.locator("#select2-conn_type-container").click()
        self.page.locator(".select2-search__field").fill(CONNECTION_FORM["hook-name"])
        self.page.keyboard.press("Enter")
        self._wait()

    def _wait(self) -> None:
        expect(self._field(EXTRAS[-1])).to_be_visible()

    def _id(self, name: str) -> str:
        return f"extra__{CONNECTION_FORM['connection-type']}__{name}" if name in EXTRAS else name

    def _field(self, name: str) -> Locator:
        return self.page.locator(f"#{self._id(name)}")


def connection_form(page: Page, airflow: AirflowClient) -> ConnectionForm:
    """Return the form of this version of Airflow."""
    return (ConnectionForm3 if airflow.is_airflow_3 else ConnectionForm2)(page, airflow.url)
