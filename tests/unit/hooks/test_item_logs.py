"""The requests to the item logs, and the results for the caller."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_coveo.coveo.errors import AccessDeniedError, CoveoInputError, UnexpectedAnswerError
from airflow_provider_coveo.coveo.ordering_ids import now_ms
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE

GOOD, BAD = "product://1", "product://2"


@pytest.fixture
def pushed(coveo: Simulator, hook: CoveoPushHook) -> int:
    """Two items in a source, one of which the pipeline rejects, and one item in another source."""
    before = now_ms() - 1000
    coveo.add_source("other")
    coveo.reject_item(BAD, reason="unreadable")
    for source, document_id in ((SOURCE, GOOD), (SOURCE, BAD), ("other", GOOD)):
        hook.add_or_update_item(source, {"documentId": document_id, "data": "text"})
    return before


def test_the_entries_of_one_source_are_counted_by_one_request(
    coveo: Simulator, hook: CoveoPushHook, pushed: int
) -> None:
    counts = hook.count_item_logs(SOURCE, pushed, now_ms())
    assert counts["results"] == {"COMPLETED": 4, "REJECTED": 1}
    assert counts["tasks"] == {"CONSUMING": 2, "PROCESSING": 2, "INDEXING": 1}
    assert counts["sourceIds"] == {SOURCE: 5}
    (request,) = [one for one in coveo.requests if one.operation == "log_counts"]
    assert request.path == "/logs/v1/organizations/acme/facetsStats"
    assert json.loads(request.body) == {"sourcesIds": [SOURCE]}


def test_counts_and_entries_can_be_narrowed_down(hook: CoveoPushHook, pushed: int) -> None:
    assert hook.count_item_logs(SOURCE, pushed, now_ms(), tasks=["INDEXING"])["results"] == {"COMPLETED": 1}
    (entry,) = hook.list_item_logs(SOURCE, pushed, now_ms(), results=["ERROR", "REJECTED"])
    assert (entry["id"], entry["task"], entry["meta"]) == (BAD, "PROCESSING", {"error": "unreadable"})
    found = hook.list_item_logs(SOURCE, pushed, now_ms(), document_id=GOOD)
    assert {entry["id"] for entry in found} == {GOOD}
    found = hook.list_item_logs(
        SOURCE, pushed, now_ms(), document_id="product://?", document_id_matching="wildcard"
    )
    assert {entry["id"] for entry in found} == {GOOD, BAD}


def test_entries_are_read_page_by_page_and_only_as_needed(
    coveo: Simulator, hook: CoveoPushHook, pushed: int
) -> None:
    def pages() -> list[str]:
        return [one.query["page"] for one in coveo.requests if one.operation == "logs"]

    entries = hook.list_item_logs(SOURCE, pushed, now_ms(), per_page=2)
    assert pages() == []
    next(entries)
    assert pages() == ["0"]
    assert len(list(entries)) == 4
    assert pages() == ["0", "1", "2"]


@pytest.mark.parametrize(
    "moment",
    [
        lambda now: now,
        lambda now: str(now),
        lambda now: datetime.fromtimestamp(now / 1000, timezone.utc),
        lambda now: datetime.fromtimestamp(now / 1000, timezone(timedelta(hours=9))),
        lambda now: datetime.fromtimestamp(now / 1000, timezone.utc).isoformat(),
        lambda now: datetime.fromtimestamp(now / 1000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        lambda now: datetime.fromtimestamp(now / 1000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f000Z"),
    ],
)
def test_a_time_can_be_passed_in_any_form(
    coveo: Simulator, hook: CoveoPushHook, moment: Callable[[int], Any]
) -> None:
    hook.count_item_logs(SOURCE, moment(1_700_000_000_123), moment(1_700_000_000_123))
    assert coveo.requests[-1].query == {"from": "2023-11-14T22:13:20.123Z", "to": "2023-11-14T22:13:20.123Z"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("no such id!", 0, 1), "Invalid source ID"),
        ((SOURCE, "yesterday", 1), "Invalid time: 'yesterday'"),
        ((SOURCE, datetime(2025, 1, 1), 1), "no time zone"),
        ((SOURCE, True, 1), "can't be read"),
        ((SOURCE, 10**15, 10**16), "can't be read"),
        ((SOURCE, 2, 1), "the end is before the start"),
        ((SOURCE, 0, 7 * 86_400_000 + 1), "at most 7 days"),
    ],
)
def test_invalid_arguments_are_rejected_before_anything_is_sent(
    coveo: Simulator, hook: CoveoPushHook, arguments: tuple[Any, ...], words: str
) -> None:
    for ask in (hook.count_item_logs, hook.list_item_logs):
        with pytest.raises(CoveoInputError, match=words) as raised:
            ask(*arguments)
        assert isinstance(raised.value, AirflowFailException)
    assert coveo.requests == []


@pytest.mark.parametrize(
    "narrowed",
    [
        {"operations": ["PUT"]},
        {"operations": [["ADD"]]},
        {"results": "DONE"},
        {"tasks": ["QUEUED"]},
        {"document_id": GOOD, "document_id_matching": "REGEX"},
    ],
)
def test_unknown_filters_are_rejected_before_anything_is_sent(
    coveo: Simulator, hook: CoveoPushHook, narrowed: dict[str, Any]
) -> None:
    with pytest.raises(CoveoInputError, match="Remedy: Use "):
        hook.list_item_logs(SOURCE, 0, 1, **narrowed)
    assert coveo.requests == []


def test_the_error_of_a_push_only_key_names_the_missing_privileges(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    coveo.faults.answer(403, error_code="ACCESS_DENIED", operation=("logs", "log_counts"), times=None)
    for ask in (hook.count_item_logs, lambda *window: list(hook.list_item_logs(*window))):
        with pytest.raises(AccessDeniedError, match=r"Organization: View and Sources: View") as raised:
            ask(SOURCE, 0, 1)
        assert isinstance(raised.value, AirflowFailException)
        assert raised.value.error_code == "ACCESS_DENIED"


def test_requests_for_logs_have_a_longer_read_timeout(coveo: Simulator, connect: Callable[..., None]) -> None:
    connect(extra=json.dumps({"timeout": 0.2}))
    coveo.faults.stall(0.5, operation="log_counts", times=None)
    CoveoPushHook().count_item_logs(SOURCE, 0, 1)


def test_a_longer_timeout_of_the_connection_is_respected(
    coveo: Simulator, connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_coveo.coveo.item_logs.MIN_READ_TIMEOUT", 0.1)
    connect(extra=json.dumps({"timeout": 30}))
    coveo.faults.stall(0.5, operation="log_counts", times=None)
    CoveoPushHook(retry=RetryPolicy(total_seconds=0)).count_item_logs(SOURCE, 0, 1)


@pytest.mark.parametrize("body", ["[]", '{"documentLogEntries": {}}', '{"documentLogEntries": ["x"]}', "<x>"])
def test_a_response_that_is_not_a_page_of_entries_is_an_error(
    coveo: Simulator, hook: CoveoPushHook, body: str
) -> None:
    coveo.faults.answer(200, body=body, operation="logs")
    with pytest.raises(UnexpectedAnswerError, match=r"log entries|not a JSON object"):
        list(hook.list_item_logs(SOURCE, 0, 1))


@pytest.mark.parametrize("body", ['{"results": ["x"]}', '{"results": {"COMPLETED": "4"}}'])
def test_a_response_without_counts_is_an_error(coveo: Simulator, hook: CoveoPushHook, body: str) -> None:
    coveo.faults.answer(200, body=body, operation="log_counts")
    with pytest.raises(UnexpectedAnswerError):
        hook.count_item_logs(SOURCE, 0, 1)
