"""The links to Coveo's console: the right page for each region, and none if it is unknown."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from datetime import datetime
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
import requests
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_coveo.decorators.coveo_push import coveo_push_task
from airflow_provider_coveo.links.coveo_push import (
    CoveoLogBrowserLink,
    CoveoSourcesLink,
    PushSourceLink,
)
from airflow_provider_coveo.operators.coveo_push import (
    CloseAbandonedPushSourcesOperator,
    PushSecurityIdentitiesOperator,
    SetPushSourceStatusOperator,
)
from airflow_provider_coveo.simulator import Simulator
from airflow_provider_coveo.task_groups.coveo_push import push_source_update

BOTH = ["Coveo log browser", "Coveo sources"]
ALL = [*BOTH, "Push source"]


class TaskInstance:
    """The part of a task instance that a link needs: its saved values."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.kept[key] = value


def kept_links(**parameters: Any) -> dict[str, Any]:
    operator = SetPushSourceStatusOperator(
        task_id="t", source_id="acme-products", status="IDLE", **parameters
    )
    task_instance = TaskInstance()
    operator.pre_execute({"ti": task_instance})
    row = task_instance.kept.pop("coveo_push_source_link", "")
    assert not row or row.endswith("=" + quote(f"{operator.hook.organization_id}/acme-products", safe=""))
    return task_instance.kept


@pytest.mark.parametrize(
    ("region", "console"),
    [
        (None, "https://platform.cloud.coveo.com"),
        ("us", "https://platform.cloud.coveo.com"),
        ("ca", "https://platform-ca.cloud.coveo.com"),
        ("eu", "https://platform-eu.cloud.coveo.com"),
        ("au", "https://platform-au.cloud.coveo.com"),
        ("hipaa", "https://platformhipaa.cloud.coveo.com"),
    ],
)
def test_a_task_saves_links_to_the_console_of_its_region(
    connect: Callable[..., None], region: str | None, console: str
) -> None:
    connect(host="", extra={"region": region})
    assert kept_links() == {
        "coveo_sources_link": f"{console}/admin/#/acme/content/sources/",
        "coveo_log_browser_link": f"{console}/admin/#/acme/logs/browser/",
    }


def test_the_links_lead_to_the_organization_that_the_task_sets(connect: Callable[..., None]) -> None:
    connect(host="")
    kept = kept_links(organization_id="other")
    assert kept["coveo_sources_link"] == "https://platform.cloud.coveo.com/admin/#/other/content/sources/"


@pytest.mark.parametrize(
    "fields",
    [
        {"host": "https://api-eu.cloud.coveo.com"},
        {"host": "proxy.example.com", "extra": {"platform_host": "platform-eu.cloud.coveo.com"}},
    ],
)
def test_one_of_coveo_s_own_hosts_determines_the_region_of_the_links(
    connect: Callable[..., None], fields: dict[str, Any]
) -> None:
    connect(**fields)
    assert kept_links()["coveo_sources_link"].startswith("https://platform-eu.cloud.coveo.com/admin/#/acme/")


@pytest.mark.parametrize(
    "fields",
    [
        {"host": "https://proxy.example.com"},
        {"host": "https://proxy.example.com", "extra": {"region": "eu"}},
        {"host": "http://127.0.0.1:8642"},
        {"host": "http://127.0.0.1:8642", "extra": {"platform_host": "https://platform.example.com"}},
    ],
)
def test_there_is_no_link_if_the_console_is_unknown(
    connect: Callable[..., None], fields: dict[str, Any]
) -> None:
    connect(**fields)
    assert kept_links() == {}


def test_links_lead_to_the_simulator_s_page_instead_of_the_console(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    address = kept_links()["coveo_sources_link"]
    assert address == f"{coveo.url}/admin/#/acme/content/sources/"
    assert "<title>" in requests.get(address, timeout=30).text


@pytest.mark.parametrize(
    "fields", [{"password": ""}, {"extra": {"region": "mars"}}, {"host": "http://far.away"}]
)
def test_an_unusable_connection_only_omits_the_links(
    connect: Callable[..., None], fields: dict[str, Any]
) -> None:
    connect(**fields)
    assert kept_links() == {}
    assert kept_links(coveo_conn_id="no_such_connection") == {}


def test_a_link_that_cannot_be_saved_does_not_fail_the_task(connect: Callable[..., None]) -> None:
    class Refusing(TaskInstance):
        def xcom_push(self, key: str, value: Any) -> None:
            raise RuntimeError("the XCom backend is away")

    operator = SetPushSourceStatusOperator(task_id="t", source_id="acme-products", status="IDLE")
    operator.pre_execute({"ti": Refusing()})


def test_without_a_saved_link_the_address_is_computed_from_the_operator(
    connect: Callable[..., None],
) -> None:
    connect(host="", extra={"region": "ca"})
    operator = SetPushSourceStatusOperator(task_id="t", source_id="acme-products", status="IDLE")
    address = CoveoLogBrowserLink().get_link(operator, ti_key=None)
    assert address == "https://platform-ca.cloud.coveo.com/admin/#/acme/logs/browser/"


def _read_again(dag: DAG) -> Any:
    """Serialize a DAG and load it, like the web server."""
    module = importlib.import_module("airflow.serialization.serialized_objects")
    serialization = getattr(module, "DagSerialization", None) or module.SerializedDAG
    return serialization.from_dict(serialization.to_dict(dag))


def test_every_task_of_the_provider_still_has_its_links_after_its_dag_was_serialized() -> None:
    with DAG("links", schedule=None, start_date=datetime(2025, 1, 1), max_active_runs=1) as dag:
        with push_source_update(source_id="acme-products", delete_old_items=True):

            @coveo_push_task(source_id="acme-products")
            def push() -> list[Any]:
                return []

            push()
        SetPushSourceStatusOperator.partial(task_id="mapped", status="IDLE").expand(source_id=["a", "b"])
        PushSecurityIdentitiesOperator(task_id="identities", provider_id="p")
        CloseAbandonedPushSourcesOperator(task_id="watchdog")
    shown = {task.task_id: list(task.extra_links) for task in _read_again(dag).tasks}
    without = {"push_source_update.begin", "push_source_update.done"}
    assert {name for name, links in shown.items() if not links} == without
    assert {name: sorted(links) for name, links in shown.items() if name not in without} == {
        f"push_source_update.{name}": ALL for name in ("open", "push", "delete_old_items", "close", "outcome")
    } | {"mapped": ALL, "identities": BOTH, "watchdog": BOTH}


@pytest.mark.parametrize("module", ["operators.coveo_push", "sensors.coveo_push"])
def test_every_operator_and_sensor_has_the_links(module: str) -> None:
    found = vars(importlib.import_module(f"airflow_provider_coveo.{module}"))
    classes = [
        value
        for name, value in found.items()
        if isinstance(value, type) and name.endswith(("Operator", "Sensor")) and name[:1] not in "_B"
    ]
    assert len(classes) >= 3
    for operator in classes:
        links = sorted(link.name for link in operator.operator_extra_links)
        of_a_source = "source_id" in getattr(operator, "template_fields", ())
        assert links == (ALL if of_a_source else BOTH), operator


def test_the_links_are_registered() -> None:
    from airflow_provider_coveo.get_provider_info import get_provider_info

    registered = get_provider_info()["extra-links"]
    assert registered == [
        f"{link.__module__}.{link.__name__}"
        for link in (CoveoSourcesLink, CoveoLogBrowserLink, PushSourceLink)
    ]


# --- the row on the page Push sources ---


@pytest.mark.parametrize(
    ("version", "base_url", "address"),
    [
        ("2.11.2", "https://airflow.example.com/below", "https://airflow.example.com/below/coveo/"),
        ("3.0.6", "https://airflow.example.com", ""),
        ("3.1.8", "https://airflow.example.com/", "https://airflow.example.com/plugin/coveo_push_sources"),
        (
            "3.3.2",
            "https://airflow.example.com/below",
            "https://airflow.example.com/below/plugin/coveo_push_sources",
        ),
        ("3.4.0b2", "", "/plugin/coveo_push_sources"),
    ],
)
def test_the_link_to_the_row_exists_if_the_page_exists(
    connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch, version: str, base_url: str, address: str
) -> None:
    connect()
    monkeypatch.setattr("airflow.__version__", version)
    section = "WEBSERVER" if version.startswith("2") else "API"
    monkeypatch.setenv(f"AIRFLOW__{section}__BASE_URL", base_url)
    operator = SetPushSourceStatusOperator(task_id="t", source_id="a-source", status="IDLE")
    row = "?source=acme%2Fa-source" if address else ""
    assert PushSourceLink().get_link(operator, ti_key=None) == f"{address}{row}"


@pytest.mark.parametrize("off", ["False", "false", "0"])
def test_there_is_no_link_to_the_row_if_the_page_is_turned_off(
    connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch, off: str
) -> None:
    connect()
    operator = SetPushSourceStatusOperator(task_id="t", source_id="a-source", status="IDLE")
    monkeypatch.setattr("airflow.__version__", "3.3.2")
    assert PushSourceLink().address(operator)
    monkeypatch.setenv("AIRFLOW__COVEO__PUSH_SOURCES_PAGE", off)
    assert PushSourceLink().address(operator) == ""


def test_neither_an_invalid_setting_nor_a_link_that_cannot_be_created_fails_a_task(
    connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connect()
    operator = SetPushSourceStatusOperator(task_id="t", source_id="a-source", status="IDLE")
    monkeypatch.setattr("airflow.__version__", "3.3.2")
    monkeypatch.setenv("AIRFLOW__COVEO__PUSH_SOURCES_PAGE", "perhaps")
    saved: dict[str, str] = {}
    context: Any = {"ti": SimpleNamespace(xcom_push=lambda key, value: saved.update({key: value}))}
    operator.pre_execute(context)
    assert set(saved) == {"coveo_sources_link", "coveo_log_browser_link"}
    assert "[coveo] push_sources_page is no boolean" in caplog.text
    monkeypatch.setenv("AIRFLOW__COVEO__PUSH_SOURCES_PAGE", "True")
    monkeypatch.setattr("airflow.__version__", "no version")
    operator.pre_execute(context)
    assert "Could not save the link Push source" in caplog.text


def test_there_is_no_link_to_the_row_while_the_source_is_unknown(connect: Callable[..., None]) -> None:
    connect()
    operator = SetPushSourceStatusOperator(task_id="t", source_id="a-source", status="IDLE")
    operator.source_id = None  # type: ignore[assignment]
    assert PushSourceLink().address(operator) == ""
