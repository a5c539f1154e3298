"""The effects of ordering IDs on updates, deletions, and the deletion of old items."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

from airflow_provider_coveo.simulator import Simulator
from tests.simulator.client import SOURCE, Client, error
from tests.simulator.test_items import failures

A, B, C = "https://acme.com/a", "https://acme.com/b", "https://acme.com/c"


def test_an_update_takes_effect_only_with_a_higher_ordering_id(coveo: Simulator, client: Client) -> None:
    client.put(A, {"data": "first"}, orderingId=10)
    assert client.put(A, {"data": "second"}, orderingId=10).status_code == 202
    assert client.put(A, {"data": "third"}, orderingId=9).status_code == 202
    assert coveo.items(SOURCE)[A]["data"] == "first"
    assert failures(coveo) == [(A, "CONSUMING", "REJECTED")] * 2
    client.put(A, {"data": "fourth"}, orderingId=11)
    assert coveo.items(SOURCE)[A]["data"] == "fourth"


def test_a_deletion_older_than_the_item_has_no_effect(coveo: Simulator, client: Client) -> None:
    client.put(A, orderingId=10)
    assert client.delete(A, orderingId=9).status_code == 202
    assert list(coveo.items(SOURCE)) == [A]
    client.delete(A, orderingId=10)
    assert coveo.items(SOURCE) == {}


def test_old_items_are_deleted_strictly_below_the_cut_off(coveo: Simulator, client: Client) -> None:
    for ordering_id, document_id in enumerate((A, B, C), start=10):
        client.put(document_id, orderingId=ordering_id)
    assert client.older_than(11, queueDelay=0).status_code == 202
    assert list(coveo.items(SOURCE)) == [B, C]


def test_old_items_stay_until_the_queue_delay_is_over(coveo: Simulator, client: Client) -> None:
    client.put(A)
    client.older_than(coveo.clock.now_ms() + 1)
    coveo.clock.advance(minutes=14)
    assert list(coveo.items(SOURCE)) == [A]
    coveo.clock.shift(minutes=30)
    assert list(coveo.items(SOURCE)) == [A]
    coveo.clock.advance(minutes=1)
    assert coveo.items(SOURCE) == {}
    events = [event for event in coveo.timeline(SOURCE) if event["event"].startswith("delete_old_items")]
    assert [event["event"] for event in events] == ["delete_old_items_queued", "delete_old_items"]
    assert events[0]["queue_delay"] == 15
    assert events[1]["removed"] == 1


def test_items_pushed_after_the_cut_off_survive_its_delayed_deletion(
    coveo: Simulator, client: Client
) -> None:
    client.put(A)
    cut_off = coveo.clock.now_ms() + 1
    client.older_than(cut_off)
    coveo.clock.advance(seconds=1)
    client.put(B)
    coveo.clock.advance(minutes=15)
    assert list(coveo.items(SOURCE)) == [B]


def test_after_the_deletion_pushes_below_the_cut_off_are_rejected(coveo: Simulator, client: Client) -> None:
    client.older_than(100, queueDelay=0)
    assert client.put(A, orderingId=99).status_code == 202
    assert failures(coveo) == [(A, "CONSUMING", "REJECTED")]
    client.put(A, orderingId=100)
    assert list(coveo.items(SOURCE)) == [A]


def test_until_a_cut_off_in_the_future_all_new_content_is_rejected(coveo: Simulator, client: Client) -> None:
    client.older_than(coveo.clock.now_ms() + 3_600_000, queueDelay=0)
    client.put(A)
    client.batch({"addOrUpdate": [{"documentId": B, "data": "text"}]})
    assert coveo.items(SOURCE) == {}
    coveo.clock.advance(hours=1)
    client.put(C)
    assert list(coveo.items(SOURCE)) == [C]


def test_a_shifted_clock_shows_in_the_date_header_and_the_ordering_ids(
    coveo: Simulator, client: Client
) -> None:
    coveo.clock.shift(days=-365)
    before = coveo.clock.utcnow()
    answer = client.put(A)
    after = coveo.clock.utcnow()
    assert before.replace(microsecond=0) <= parsedate_to_datetime(answer.headers["Date"]) <= after
    stamp = coveo.items(SOURCE)[A]["orderingId"]
    assert int(before.timestamp() * 1000) <= stamp <= after.timestamp() * 1000


def test_a_cut_off_is_required_and_must_be_an_integer(client: Client) -> None:
    assert error(client.older_than("")) == (412, "MISSING_PARAMETER")
    assert error(client.older_than("yesterday")) == (412, "INVALID_PARAMETER")
    assert error(client.older_than(1, queueDelay=-1)) == (412, "INVALID_PARAMETER")
    assert error(client.older_than(1, queueDelay="soon")) == (412, "INVALID_PARAMETER")
