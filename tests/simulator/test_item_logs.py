"""The Source Logs API, the only one that shows rejected items."""

from __future__ import annotations

import time
from typing import Any

import pytest

from airflow_provider_coveo.simulator import Simulator
from tests.simulator.client import SOURCE, Client, error

A, B = "https://acme.com/a", "https://acme.com/b?x=1"


@pytest.fixture
def pushed(coveo: Simulator, client: Client) -> Client:
    """Two items, one of which the pipeline rejected."""
    coveo.reject_item(B, reason="unreadable")
    client.batch({"addOrUpdate": [{"documentId": A, "data": "text"}, {"documentId": B, "data": "text"}]})
    return client


def found(client: Client, body: dict[str, Any] | None = None, **parameters: Any) -> set[tuple[str, str, str]]:
    answer = client.item_logs(body, **parameters)
    assert answer.status_code == 200, answer.text
    return {(one["id"], one["task"], one["result"]) for one in answer.json()["documentLogEntries"]}


def test_the_logs_show_each_stage_of_each_item(pushed: Client) -> None:
    assert found(pushed, {"operations": ["ADD"]}) == {
        (A, "CONSUMING", "COMPLETED"),
        (A, "PROCESSING", "COMPLETED"),
        (A, "INDEXING", "COMPLETED"),
        (B, "CONSUMING", "COMPLETED"),
        (B, "PROCESSING", "REJECTED"),
    }
    (entry,) = pushed.item_logs({"results": ["REJECTED"]}).json()["documentLogEntries"]
    assert entry["meta"] == {"error": "unreadable"}
    assert entry["sourceId"] == SOURCE
    assert entry["requestId"] == pushed.coveo.timeline(SOURCE)[-1]["request_id"]


def test_the_logs_can_be_filtered(coveo: Simulator, pushed: Client) -> None:
    coveo.add_source("other")
    pushed.put(A, source="other")
    assert found(pushed, {"results": ["REJECTED"], "sourcesIds": [SOURCE]}) == {(B, "PROCESSING", "REJECTED")}
    assert found(pushed, {"results": ["REJECTED"], "sourcesIds": ["other"]}) == set()
    assert len(found(pushed, {"excludeTasks": ["CONSUMING"], "sourcesIds": ["other"]})) == 2
    assert {one[0] for one in found(pushed, documentId=A)} == {A}
    assert {one[0] for one in found(pushed, documentId="?x=", documentIdMatching="PARTIAL")} == {B}
    assert {one[0] for one in found(pushed, documentId="*/b?x=?", documentIdMatching="WILDCARD")} == {B}
    assert error(pushed.item_logs({"results": ["FINE"]})) == (400, "INVALID_JSON")


def test_the_counts_agree_with_the_logs(pushed: Client) -> None:
    counts = pushed.log_counts({"sourcesIds": [SOURCE]}).json()
    assert counts["results"] == {"COMPLETED": 5, "REJECTED": 1}
    assert counts["operations"] == {"BATCH_FILE": 1, "ADD": 5}
    assert counts["sourceIds"] == {SOURCE: 6}
    assert sum(counts["tasks"].values()) == 6


def test_the_logs_come_in_pages_newest_first(coveo: Simulator, client: Client) -> None:
    for number in range(3):
        client.put(f"https://acme.com/{number}")
        coveo.clock.advance(seconds=1)
    stage = {"tasks": ["INDEXING"]}
    first = client.item_logs(stage, perPage=2).json()
    second = client.item_logs(stage, perPage=2, page=1).json()
    assert [one["id"][-1] for one in first["documentLogEntries"]] == ["2", "1"]
    assert first["hasNextPage"] is True
    assert [one["id"][-1] for one in second["documentLogEntries"]] == ["0"]
    assert second["hasNextPage"] is False


def test_updates_and_deletions_are_logged_as_such(client: Client) -> None:
    client.put(A)
    client.put(A)
    client.delete(A)
    client.older_than(1, queueDelay=0)
    assert client.log_counts().json()["operations"].keys() == {"ADD", "UPDATE", "DELETE", "DELETE_OLDER_THAN"}


def test_the_window_is_required_and_limited_to_7_days(client: Client) -> None:
    week: dict[str, Any] = {"from": "2024-01-01T00:00:00Z", "to": "2024-01-08T00:00:00Z"}
    assert client.item_logs(**week).status_code == 200
    assert error(client.item_logs(**{**week, "to": "2024-01-08T00:00:01Z"})) == (412, "INVALID_PARAMETER")
    assert error(client.item_logs(**{**week, "to": "2023-01-08T00:00:00Z"})) == (412, "INVALID_PARAMETER")
    assert error(client.item_logs(**{**week, "from": "yesterday"})) == (412, "INVALID_PARAMETER")
    assert error(client.session.post(client.logs, json={})) == (412, "MISSING_PARAMETER")


def test_logs_are_kept_for_14_days(coveo: Simulator, pushed: Client) -> None:
    window: dict[str, Any] = pushed.window()
    coveo.clock.advance(days=13)
    assert found(pushed, **window)
    coveo.clock.advance(days=2)
    assert not found(pushed, **window)


def test_the_filters_must_be_json(client: Client) -> None:
    answer = client.session.post(client.logs, params=client.window(), data=b"{}")
    assert error(answer) == (415, "UNSUPPORTED_MEDIA_TYPE")
    answer = client.session.post(client.logs, params=client.window())
    assert error(answer) == (400, "INVALID_JSON")


def test_items_are_indexed_after_the_indexing_delay(coveo: Simulator, client: Client) -> None:
    coveo.indexing_delay = 0.1
    began = time.monotonic()
    client.put(A)
    while "INDEXING" not in client.log_counts().json()["tasks"]:
        assert time.monotonic() < began + 30
    assert time.monotonic() - began >= 0.1
