"""Pushing items at the socket: the requests to Coveo and their order, and the results for the caller."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_coveo.coveo.batches import DEFAULT_BATCH_BYTES, MAX_ENTRIES, item_batches
from airflow_provider_coveo.coveo.errors import (
    AuthenticationError,
    CoveoError,
    CoveoInputError,
    DailyQuotaExceededError,
    NoAnswerError,
    ServiceError,
    UploadError,
)
from airflow_provider_coveo.coveo.items import MAX_INLINE_DATA, MAX_UPLOAD, Delete, Item
from airflow_provider_coveo.coveo.only_changes import OnlyChanges
from airflow_provider_coveo.coveo.ordering_ids import now_ms
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE, keep_off_midnight
from tests.unit.push.model import indexed, on_both, one_by_one


def item(number: int, size: int = 20, **more: Any) -> dict[str, Any]:
    return {"documentId": f"product://{number}", "data": f"{number}:" + "x" * size, **more}


def operations(coveo: Simulator) -> list[str]:
    return [request.operation for request in coveo.requests]


def contents(coveo: Simulator) -> list[bytes]:
    """The contents of the containers that Coveo accepted, in order."""
    uploads = {
        request.path.rpartition("/")[2]: request.body
        for request in coveo.requests
        if request.operation == "upload"
    }
    return [uploads[request.query["fileId"]] for request in coveo.requests if request.operation == "batch"]


def batches(coveo: Simulator) -> list[dict[str, Any]]:
    """The same, parsed as JSON."""
    return [json.loads(content) for content in contents(coveo)]


# --- what is sent ---


def test_one_batch_is_three_requests(coveo: Simulator, hook: CoveoPushHook) -> None:
    before = now_ms()
    result = hook.push_items(SOURCE, [item(1), item(2), Delete("product://3")])
    after = now_ms()
    assert operations(coveo) == ["files", "upload", "batch"]
    assert batches(coveo) == [
        {
            "addOrUpdate": [item(1), item(2)],
            "delete": [{"documentId": "product://3", "deleteChildren": False}],
        }
    ]
    request_id = coveo.requests[-1].response_headers["x-request-id"]
    assert result == {
        "source_id": SOURCE,
        "accepted_adds": 2,
        "accepted_deletes": 1,
        "replaced": 0,
        "batches": 1,
        "resumed_batches": 0,
        "resumed_entries": 0,
        "repeated_batches": 0,
        "repeated_items": 0,
        "earlier_items": 0,
        "deletes_with_children": 0,
        "repeated_deletes_with_children": 0,
        "bytes": len(coveo.requests[1].body),
        "seconds": result["seconds"],
        "first_request_id": request_id,
        "last_request_id": request_id,
        "ordering_id": result["ordering_id"],
        "invalid": 0,
        "invalid_items": [],
    }
    # Coveo's dates are cut to the second, and the latency of its response is unknown.
    assert before - 1000 - (after - before) <= result["ordering_id"] <= after
    assert coveo.undocumented == []
    json.dumps(result)


@on_both
def test_no_request_has_an_ordering_id_and_no_upload_has_the_key(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    hook.push_items(SOURCE, [item(number) for number in range(50)], batch_bytes=1024)
    assert not [request for request in coveo.requests if "orderingId" in request.query]
    uploads = [request for request in coveo.requests if request.operation == "upload"]
    assert uploads
    assert not [request for request in uploads if "authorization" in request.headers]


def test_an_empty_push_sends_no_request(coveo: Simulator, hook: CoveoPushHook) -> None:
    result = hook.push_items(SOURCE, [])
    assert coveo.requests == []
    assert (result["batches"], result["ordering_id"], result["first_request_id"]) == (0, None, None)


@on_both
def test_items_can_be_dicts_items_and_bytes(coveo: Simulator, hook: CoveoPushHook) -> None:
    moment = datetime(2026, 11, 24, 8, tzinfo=timezone.utc)
    written = b'{ "DocumentId" : "a://3", "data": "\\u00e9", "price": 1.50 }'
    result = hook.push_items(
        SOURCE,
        iter(
            [
                {"documentId": "a://1", "data": "{{ ds }}"},
                Item("a://2", "two", title="Two", date=moment, metadata={"sizes": [1, 2]}),
                written,
            ]
        ),
    )
    assert result["accepted_adds"] == 3
    items = coveo.items(SOURCE)
    assert items["a://1"]["data"] == "{{ ds }}"
    assert {**items["a://2"], "orderingId": 0} == {
        "documentId": "a://2", "data": "two", "title": "Two", "date": "2026-11-24T08:00:00+00:00",
        "sizes": [1, 2], "orderingId": 0,
    }  # fmt: skip
    assert items["a://3"]["data"] == "é"
    assert written in next(request.body for request in coveo.requests if request.operation == "upload")


@on_both
def test_the_size_limit_of_a_batch_applies_to_the_bytes_that_are_sent(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    items = [item(number, 100, title="é" * (number % 40)) for number in range(300)]
    result = hook.push_items(SOURCE, items, batch_bytes=4000)
    sizes = [len(content) for content in contents(coveo)]
    assert max(sizes) <= 4000
    assert min(sizes[:-1]) > 3000
    assert sum(sizes) == result["bytes"]
    assert [added for batch in batches(coveo) for added in batch["addOrUpdate"]] == items


@pytest.mark.parametrize("as_json", [False, True])
def test_no_batch_exceeds_the_limit_by_a_byte_and_none_is_much_smaller(as_json: bool) -> None:
    entries: list[Any] = [item(number, number % 7) for number in range(100)]
    entries = [json.dumps(entry).encode() if as_json else entry for entry in entries]
    entries += [Delete(f"product://{number}") for number in range(200, 300)]
    for limit in range(1024, 1124):
        sizes = [
            len(batch.body(lambda content: "")) for batch in item_batches(entries, limit, lambda *_: False)
        ]
        assert max(sizes) <= limit
        # The unused space can be up to the size of the next entry.
        assert min(sizes[:-1]) > limit - 100


@on_both
def test_an_item_larger_than_a_batch_is_sent_alone(coveo: Simulator, hook: CoveoPushHook) -> None:
    hook.push_items(SOURCE, [item(1), item(2, 5000), item(3)], batch_bytes=1024)
    assert [len(batch["addOrUpdate"]) for batch in batches(coveo)] == [1, 1, 1]


@on_both
def test_the_number_of_entries_in_a_batch_is_limited(coveo: Simulator, hook: CoveoPushHook) -> None:
    result = hook.push_items(SOURCE, (), delete=(f"a://{number}" for number in range(MAX_ENTRIES + 1)))
    assert (result["accepted_deletes"], result["batches"]) == (MAX_ENTRIES + 1, 2)


def test_the_default_size_of_a_batch_fits_into_a_container() -> None:
    assert DEFAULT_BATCH_BYTES <= MAX_UPLOAD <= 256 * 1024 * 1024


@on_both
@pytest.mark.parametrize("batch_bytes", [1024, "1024", MAX_UPLOAD])
def test_the_smallest_and_the_largest_batch_size_are_accepted(
    coveo: Simulator, hook: CoveoPushHook, batch_bytes: int | str
) -> None:
    assert hook.push_items(SOURCE, [item(1)], batch_bytes=batch_bytes)["accepted_adds"] == 1


@on_both
@pytest.mark.parametrize("as_json", [False, True])
def test_an_item_too_large_for_a_container_is_rejected_before_anything_is_sent(
    coveo: Simulator, hook: CoveoPushHook, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    # A quarter of a gigabyte would take too long.
    limit = MAX_INLINE_DATA + 10_000
    for module in ("items", "item_encoding"):
        monkeypatch.setattr(f"airflow_provider_coveo.coveo.{module}.MAX_UPLOAD", limit)

    def push(**content: Any) -> dict[str, Any]:
        pushed = {"documentId": "a://large", **content}
        return hook.push_items(SOURCE, [json.dumps(pushed).encode() if as_json else pushed])

    for content in ({"data": "x" * (limit + 1)}, {"data": "x", "title": "x" * limit}):
        with pytest.raises(CoveoInputError, match=r"a://large.*a (file )?container can hold") as refused:
            push(**content)
        assert isinstance(refused.value, AirflowFailException)
    assert coveo.requests == []
    assert push(data="x" * limit)["accepted_adds"] == 1
    assert push(data="x", title="x" * MAX_INLINE_DATA)["accepted_adds"] == 1


@on_both
def test_deletions_follow_the_items(coveo: Simulator, hook: CoveoPushHook) -> None:
    result = hook.push_items(SOURCE, [item(1)], delete=["product://1", Delete("product://2")])
    assert coveo.items(SOURCE) == {}
    assert (result["accepted_adds"], result["accepted_deletes"], result["batches"]) == (1, 2, 2)


@on_both
def test_add_and_delete_of_one_id_never_share_a_batch(coveo: Simulator, hook: CoveoPushHook) -> None:
    pushed = [item(1), Delete("product://1"), item(2), item(1, 30), Delete("product://2")]
    result = hook.push_items(SOURCE, pushed)
    for batch in batches(coveo):
        added = {entry["documentId"] for entry in batch["addOrUpdate"]}
        assert not added & {entry["documentId"] for entry in batch["delete"]}
    assert indexed(coveo, SOURCE) == one_by_one(pushed)
    assert (result["accepted_adds"], result["accepted_deletes"]) == (3, 2)
    assert coveo.undocumented == []


@on_both
def test_if_a_batch_has_two_items_with_the_same_id_the_later_one_is_sent(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    result = hook.push_items(SOURCE, [item(1), item(2), item(1, 30)])
    assert batches(coveo) == [{"addOrUpdate": [item(1, 30), item(2)], "delete": []}]
    assert (result["accepted_adds"], result["replaced"]) == (3, 1)
    assert coveo.undocumented == []


@on_both
def test_a_replaced_item_takes_no_space_in_its_batch(coveo: Simulator, hook: CoveoPushHook) -> None:
    result = hook.push_items(SOURCE, [item(1, 500 + number) for number in range(20)], batch_bytes=1500)
    assert (result["batches"], result["replaced"]) == (1, 19)
    assert batches(coveo) == [{"addOrUpdate": [item(1, 519)], "delete": []}]


@on_both
def test_a_deletion_with_children_shares_no_batch_with_items(coveo: Simulator, hook: CoveoPushHook) -> None:
    pushed = [
        item(1),
        {"documentId": "product://1/a", "data": "a"},
        Delete("product://1", delete_children=True),
        Delete("product://1"),
        {"documentId": "product://1/b", "data": "b"},
    ]
    hook.push_items(SOURCE, pushed)
    assert batches(coveo)[1]["delete"] == [{"documentId": "product://1", "deleteChildren": True}]
    assert [len(batch["addOrUpdate"]) for batch in batches(coveo)] == [2, 0, 1]
    assert indexed(coveo, SOURCE) == one_by_one(pushed)


@on_both
def test_large_text_uses_its_own_container(coveo: Simulator, hook: CoveoPushHook) -> None:
    text = "é" * (MAX_INLINE_DATA // 2 + 1)
    result = hook.push_items(
        SOURCE, [item(1), {"documentId": "a://large", "data": text, "title": "Large"}, item(2)]
    )
    (batch,) = batches(coveo)
    file_id = batch["addOrUpdate"][1]["compressedBinaryDataFileId"]
    assert batch["addOrUpdate"] == [
        item(1),
        {
            "documentId": "a://large",
            "title": "Large",
            "compressedBinaryDataFileId": file_id,
            "compressionType": "UNCOMPRESSED",
        },
        item(2),
    ]
    content = next(request for request in coveo.requests if request.path.endswith(file_id))
    assert content.body == text.encode()
    assert set(coveo.items(SOURCE)) == {"product://1", "product://2", "a://large"}
    assert result["accepted_adds"] == 3
    assert coveo.undocumented == []


@on_both
@pytest.mark.parametrize("key", ["data", "compressedBinaryData"])
def test_large_content_of_json_bytes_uses_its_own_container_too(
    coveo: Simulator, hook: CoveoPushHook, key: str
) -> None:
    large = {"documentId": "a://large", key: "0" * (MAX_INLINE_DATA + 4)}
    if key == "compressedBinaryData":
        large["compressionType"] = "UNCOMPRESSED"
    entries = [item(1), large, item(2)]
    hook.push_items(SOURCE, [json.dumps(entry).encode() + b"\n" for entry in entries])
    (batch,) = batches(coveo)
    assert [entry.get("compressedBinaryDataFileId") is not None for entry in batch["addOrUpdate"]] == [
        False,
        True,
        False,
    ]
    assert set(coveo.items(SOURCE)) == {"product://1", "product://2", "a://large"}


@on_both
def test_large_binary_content_is_sent_decoded_and_keeps_its_compression(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    raw = bytes(range(256)) * (MAX_INLINE_DATA // 256)
    hook.push_items(SOURCE, [Item("a://b", compressed_binary_data=raw, compression_type="UNCOMPRESSED")])
    (batch,) = batches(coveo)
    assert batch["addOrUpdate"][0]["compressionType"] == "UNCOMPRESSED"
    assert raw in [request.body for request in coveo.requests]


# --- in parallel, but in order ---


def test_uploads_run_in_parallel_and_batches_are_submitted_in_input_order(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    coveo.faults.stall(1, operation="upload")
    items = [item(number, 500) for number in range(40)]
    hook.push_items(SOURCE, items, batch_bytes=1500, upload_concurrency=4)
    uploads = [request for request in coveo.requests if request.operation == "upload"]
    (stalled,) = (request for request in uploads if request.fault)
    ended = stalled.at + stalled.seconds * 1000
    meanwhile = [upload for upload in uploads if upload is not stalled and stalled.at <= upload.at < ended]
    assert len(meanwhile) >= 3, "other uploads continued while one stalled"
    assert [added for batch in batches(coveo) for added in batch["addOrUpdate"]] == items


def test_a_batch_whose_upload_failed_is_not_submitted(coveo: Simulator, hook: CoveoPushHook) -> None:
    coveo.faults.answer(403, operation="upload", after=2, times=None)
    with pytest.raises(UploadError) as failed:
        hook.push_items(
            SOURCE, [item(number, 900) for number in range(20)], batch_bytes=1024, upload_concurrency=1
        )
    assert operations(coveo).count("batch") == 2
    assert failed.value.accepted is not None
    assert failed.value.accepted["accepted_adds"] == 2
    assert set(coveo.items(SOURCE)) == {"product://0", "product://1"}


def test_the_number_of_batches_in_memory_is_limited(coveo: Simulator, hook: CoveoPushHook) -> None:
    coveo.faults.stall(0.5, operation="batch", times=2)
    ahead = []

    def items() -> Iterator[dict[str, Any]]:
        for number in range(100):
            # The last submitted batch may still be in flight.
            ahead.append(number + 1 - operations(coveo).count("batch"))
            yield item(number, 900)

    hook.push_items(SOURCE, items(), batch_bytes=1024, upload_concurrency=2)
    assert max(ahead) <= 2 + 1 + 2
    assert len(coveo.items(SOURCE)) == 100


# --- faults ---


def test_an_expired_container_is_replaced(coveo: Simulator, hook: CoveoPushHook) -> None:
    coveo.faults.expire_container(operation="batch", times=2)
    coveo.faults.expire_container(operation="upload", times=2)
    assert hook.push_items(SOURCE, [item(1)])["accepted_adds"] == 1
    assert set(coveo.items(SOURCE)) == {"product://1"}


def test_a_container_that_waited_too_long_is_replaced(
    coveo: Simulator, hook: CoveoPushHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_coveo.coveo import pusher

    # The second container is created while the first batch is being uploaded, and waits for it.
    monkeypatch.setattr(pusher, "_MAX_CONTAINER_AGE", 1)
    coveo.faults.stall(2.5, operation="batch")
    hook.push_items(SOURCE, [item(number, 900) for number in range(2)], batch_bytes=1024)
    assert operations(coveo).count("files") == 3
    assert coveo.undocumented == []


def test_a_batch_is_uploaded_again_if_the_containers_that_it_names_are_too_old(
    coveo: Simulator, hook: CoveoPushHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_coveo.coveo import pusher

    # Long enough to create both containers again on a busy machine.
    monkeypatch.setattr(pusher, "_MAX_CONTAINER_AGE", 3)
    # The first container is that of the content; that of its batch is created afterwards.
    coveo.faults.stall(3.5, operation="upload")
    hook.push_items(SOURCE, [item(1, MAX_INLINE_DATA)])
    assert operations(coveo) == ["files", "upload"] * 4 + ["batch"]
    assert set(coveo.items(SOURCE)) == {"product://1"}


@pytest.mark.parametrize("applied", [True, False])
def test_a_batch_with_an_unknown_outcome_is_pushed_again(
    coveo: Simulator, hook: CoveoPushHook, applied: bool
) -> None:
    coveo.faults.drop(before=not applied, operation="batch")
    coveo.faults.answer(500, applied=applied, operation="batch")
    assert hook.push_items(SOURCE, [item(1)])["accepted_adds"] == 1
    assert set(coveo.items(SOURCE)) == {"product://1"}
    assert operations(coveo).count("upload") == 3
    assert coveo.undocumented == [], "a container that may be used up was not named again"


def test_a_rate_limited_call_keeps_its_container(coveo: Simulator, hook: CoveoPushHook) -> None:
    coveo.faults.answer(429, headers={"Retry-After": "0"}, operation="batch", times=2)
    hook.push_items(SOURCE, [item(1)])
    assert operations(coveo) == ["files", "upload", "batch", "batch", "batch"]


def test_an_error_names_the_accepted_items_and_the_failed_batch(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    coveo.faults.answer(503, operation="batch", after=3, times=None)
    coveo.faults.answer(400, error_code="NOT_REACHED", operation="status")
    patient = CoveoPushHook(retry=RetryPolicy(total_seconds=0.2, first_wait=0.01, longest_wait=0.02))
    with pytest.raises(ServiceError) as failed:
        patient.push_items(SOURCE, [item(number, 900) for number in range(20)], batch_bytes=1024)
    accepted = failed.value.accepted
    assert accepted is not None
    assert (accepted["accepted_adds"], accepted["batches"]) == (3, 3)
    assert set(coveo.items(SOURCE)) == {"product://0", "product://1", "product://2"}
    message = str(failed.value)
    assert "batch 4 (item 3 of the input" in message
    assert "the first 3 valid entries" in message
    assert "It is unknown whether Coveo also accepted this batch" in message
    assert not isinstance(failed.value, AirflowFailException)


def test_an_exhausted_daily_quota_fails_at_once_and_the_error_says_when_it_renews(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    keep_off_midnight(coveo)
    coveo.daily_documents, coveo.retry_after = 2, False
    with pytest.raises(DailyQuotaExceededError, match="it renews the next day") as failed:
        hook.push_items(SOURCE, [item(number, 900) for number in range(20)], batch_bytes=1024)
    assert isinstance(failed.value, AirflowFailException)
    assert failed.value.accepted is not None
    assert failed.value.accepted["accepted_adds"] == 2
    assert operations(coveo).count("batch") == 3


def test_the_error_says_when_the_quota_renews_if_coveo_returns_the_time(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    headers = {"Retry-After": "7200"}
    coveo.faults.answer(
        429, error_code="TOO_MANY_DOCUMENTS_DAILY", headers=headers, operation="batch", times=None
    )
    with pytest.raises(DailyQuotaExceededError, match=r"it renews at 20\d\d-.*\+00:00"):
        hook.push_items(SOURCE, [item(1)])


def test_a_quota_whose_renewal_is_out_of_range_still_raises_the_quota_error(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    coveo.clock.shift(hours=-1)
    headers = {"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}
    coveo.faults.answer(
        429, error_code="TOO_MANY_DOCUMENTS_DAILY", headers=headers, operation="batch", after=1, times=None
    )
    with pytest.raises(DailyQuotaExceededError) as failed:
        hook.push_items(SOURCE, [item(number, 900) for number in range(3)], batch_bytes=1024)
    assert failed.value.accepted is not None
    assert failed.value.accepted["accepted_adds"] == 1


@pytest.mark.parametrize("limit", ["null", "NaN", "Infinity", '"many"'])
def test_a_quota_that_is_not_a_number_does_not_fail_the_push(
    coveo: Simulator, hook: CoveoPushHook, limit: str
) -> None:
    coveo.faults.answer(200, body=f'{{"limit": {limit}, "actualCount": 1}}', operation="limit")
    assert hook.push_items(SOURCE, [item(1)], check_quota=True)["accepted_adds"] == 1


class _StopError(CoveoError):
    """Another library's error, whose constructor differs from the provider's errors."""

    def __init__(self) -> None:
        super().__init__("that is enough")


@on_both
def test_a_push_never_looks_complete_because_an_error_could_not_be_created(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    def stop(result: dict[str, Any]) -> None:
        raise _StopError

    with pytest.raises(Exception, match=r"_StopError|that is enough"):
        hook.push_items(SOURCE, [item(number, 900) for number in range(3)], batch_bytes=1024, progress=stop)
    assert len(coveo.items(SOURCE)) == 1


def test_a_wrong_key_fails_at_once(
    coveo: Simulator, hook: CoveoPushHook, connect: Callable[..., None]
) -> None:
    connect(password="wrong")
    with pytest.raises(AuthenticationError) as failed:
        CoveoPushHook().push_items(SOURCE, [item(number, 900) for number in range(20)], batch_bytes=1024)
    assert isinstance(failed.value, AirflowFailException)
    assert "Nothing was accepted" in str(failed.value)


@on_both
def test_a_stopped_push_ends_before_its_next_request(coveo: Simulator, hook: CoveoPushHook) -> None:
    def items() -> Iterator[dict[str, Any]]:
        for number in range(1000):
            if number == 500:
                hook.stop()
            yield item(number, 900)

    with pytest.raises(NoAnswerError, match="the task was killed") as failed:
        hook.push_items(SOURCE, items(), batch_bytes=1024)
    assert failed.value.accepted is not None
    assert set(coveo.items(SOURCE)) == {
        f"product://{number}" for number in range(failed.value.accepted["accepted_adds"])
    }
    assert 400 < failed.value.accepted["accepted_adds"] <= 500


def test_a_stopped_push_does_not_wait_for_its_next_attempt(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    coveo.faults.answer(503, headers={"Retry-After": "60"}, times=None)
    hook = CoveoPushHook()
    threading.Timer(0.3, hook.stop).start()
    started = time.monotonic()
    with pytest.raises(CoveoError):
        hook.push_items(SOURCE, [item(number, 900) for number in range(20)], batch_bytes=1024)
    assert time.monotonic() - started < 50


@on_both
def test_an_error_of_the_input_is_raised_after_earlier_items_are_accepted(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    def items() -> Iterator[dict[str, Any]]:
        yield from (item(number, 900) for number in range(5))
        raise LookupError("the database went away")

    with pytest.raises(LookupError, match="the database went away"):
        hook.push_items(SOURCE, items(), batch_bytes=1024)
    assert len(coveo.items(SOURCE)) == 4, "the batch in progress is dropped"


def test_an_interrupted_push_ends_soon(
    coveo: Simulator, connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_coveo.coveo import pusher

    class Killed(BaseException):
        pass

    def items() -> Iterator[dict[str, Any]]:
        yield from (item(number, 900) for number in range(5))
        raise Killed

    monkeypatch.setattr(pusher, "_SECONDS_TO_DRAIN", 50)
    coveo.faults.answer(503, headers={"Retry-After": "60"}, operation="batch")
    started = time.monotonic()
    with pytest.raises(Killed):
        CoveoPushHook().push_items(SOURCE, items(), batch_bytes=1024)
    # It did not wait for requests in flight, either.
    assert time.monotonic() - started < 45


@on_both
def test_a_hook_can_run_two_pushes_at_a_time_and_push_again_afterwards(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    coveo.add_source("other")
    threads = [
        threading.Thread(
            target=hook.push_items,
            args=(source, [item(number, 100) for number in range(200)]),
            kwargs={"batch_bytes": 2000},
        )
        for source in (SOURCE, "other")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(coveo.items(SOURCE)) == len(coveo.items("other")) == 200
    assert hook.push_items(SOURCE, [item(1)])["accepted_adds"] == 1


# --- invalid items ---


def test_invalid_items_are_reported_with_index_id_and_rule(coveo: Simulator, hook: CoveoPushHook) -> None:
    items = [item(1), item(2, price={"amount": 1}), item(3), {"documentId": "4", "data": "x"}]
    with pytest.raises(CoveoInputError) as refused:
        hook.push_items(SOURCE, items)
    message = str(refused.value)
    assert re.search(r"number 1 \(product://2\): the value of 'price' is a dict", message)
    assert re.search(r"number 3 .*Invalid documentId: '4'", message)
    assert SOURCE in message
    assert coveo.requests == []
    assert isinstance(refused.value, AirflowFailException)
    accepted = refused.value.accepted
    assert accepted is not None
    assert [entry["index"] for entry in accepted["invalid_items"]] == [1, 3]


@pytest.mark.parametrize("as_json", [False, True])
def test_an_id_with_a_line_break_is_rejected(coveo: Simulator, hook: CoveoPushHook, as_json: bool) -> None:
    entries: list[Any] = [item(1), {"documentId": "product://2\nproduct://3", "data": "x"}, item(4)]
    pushed = [json.dumps(entry).encode() for entry in entries] if as_json else entries
    with pytest.raises(CoveoInputError, match=r"number 1 .*Invalid documentId"):
        hook.push_items(SOURCE, pushed)
    assert coveo.requests == []


def test_the_report_of_invalid_items_is_limited_and_raised_early(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    started = time.monotonic()
    with pytest.raises(CoveoInputError) as refused:
        hook.push_items(SOURCE, ({"documentId": "x" * 10**6, "data": ""} for _ in range(10**9)))
    assert len(str(refused.value)) < 20_000
    assert refused.value.accepted is not None
    assert len(refused.value.accepted["invalid_items"]) == 20
    assert time.monotonic() - started < 100


@on_both
def test_batches_before_an_invalid_item_are_pushed_and_its_own_is_not(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    items = [item(number, 900) for number in range(10)]
    with pytest.raises(CoveoInputError) as refused:
        hook.push_items(SOURCE, [*items, {}, *items], batch_bytes=1024)
    assert refused.value.accepted is not None
    assert refused.value.accepted["accepted_adds"] == len(coveo.items(SOURCE)) == 9


@on_both
def test_invalid_items_can_be_skipped(coveo: Simulator, hook: CoveoPushHook) -> None:
    items = [item(1), {}, item(2), b"{", item(3), Delete("no id")]
    result = hook.push_items(SOURCE, items, on_invalid="skip", max_invalid=3)
    assert set(coveo.items(SOURCE)) == {"product://1", "product://2", "product://3"}
    assert result["accepted_adds"] == 3
    assert result["invalid"] == 3
    assert [entry["index"] for entry in result["invalid_items"]] == [1, 3, 5]
    json.dumps(result)


def test_too_many_skipped_items_fail_the_push(coveo: Simulator, hook: CoveoPushHook) -> None:
    with pytest.raises(CoveoInputError, match="more than the 2 that may be skipped") as failed:
        hook.push_items(SOURCE, [{}, {}, {}], on_invalid="skip", max_invalid=2)
    assert "Remedy: Correct them, or pass a higher max_invalid." in str(failed.value)
    with pytest.raises(CoveoInputError, match="or skip them with on_invalid='skip'"):
        hook.push_items(SOURCE, [{}])


@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_bytes": 0},
        {"batch_bytes": 1023},
        {"batch_bytes": MAX_UPLOAD + 1},
        {"batch_bytes": 1.5e6},
        {"upload_concurrency": 0},
        {"upload_concurrency": 33},
        {"upload_concurrency": True},
        {"on_invalid": "ignore"},
        {"on_invalid": ["skip"]},
        {"changes": OnlyChanges("snapshots", name="a", on_damaged_snapshot=["fail"])},  # type: ignore[arg-type]
        {"max_invalid": -1},
        {"items": "product://1"},
        {"items": item(1)},
        {"items": 5},
        {"items": None},
        {"delete": "product://1"},
        {"delete": 5},
        {"source_id": "a b"},
    ],
)
def test_an_invalid_argument_is_rejected_before_anything_is_sent(
    coveo: Simulator, hook: CoveoPushHook, arguments: dict[str, Any]
) -> None:
    with pytest.raises(CoveoInputError):
        hook.push_items(**{"source_id": SOURCE, "items": [item(1)], **arguments})
    assert coveo.requests == []


# --- progress ---


@on_both
def test_progress_is_reported_after_each_batch(coveo: Simulator, hook: CoveoPushHook) -> None:
    told: list[dict[str, Any]] = []
    hook.push_items(
        SOURCE, [item(number, 900) for number in range(5)], batch_bytes=1024, progress=told.append
    )
    assert [entry["accepted_adds"] for entry in told] == [1, 2, 3, 4, 5]


def test_progress_is_logged_during_the_push(
    coveo: Simulator,
    hook: CoveoPushHook,
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], str],
) -> None:
    from airflow_provider_coveo.coveo import pusher

    monkeypatch.setattr(pusher, "_SECONDS_BETWEEN_CHECKS", 0.1)
    monkeypatch.setattr(pusher, "_SECONDS_BETWEEN_PROGRESS", 0.1)
    coveo.faults.stall(2, operation="batch", after=1)
    hook.push_items(SOURCE, [item(number, 900) for number in range(3)], batch_bytes=1024)
    assert re.search(r"1 item \(0\.0 MB\) in 1 batch accepted, 2 batches in flight", logged())


def test_neither_the_key_nor_a_presigned_url_appears_in_logs_or_errors(
    coveo: Simulator, connect: Callable[..., None], logged: Callable[[], str]
) -> None:
    coveo.faults.drop(operation="upload", times=2)
    coveo.faults.answer(403, operation="upload", times=None)
    hook = CoveoPushHook(retry=RetryPolicy(total_seconds=1, first_wait=0.01))
    with pytest.raises(CoveoError) as failed:
        hook.push_items(SOURCE, [item(number, 900) for number in range(3)], batch_bytes=1024)
    shown = logged() + str(failed.value) + repr(failed.value) + repr(failed.value.__dict__)
    assert "Signature=" not in shown
    assert coveo.api_key not in shown


def test_items_and_uploads_are_sent_over_https_with_the_connection_s_certificate_authority(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Simulator(tls=(str(certificate[0]), str(certificate[1]))) as coveo:
        described = json.loads(coveo.connection_json())
        described["extra"] = {"verify": str(certificate[0])}
        monkeypatch.setenv("AIRFLOW_CONN_COVEO_DEFAULT", json.dumps(described))
        CoveoPushHook().push_items(SOURCE, [item(1)])
        assert coveo.url.startswith("https://")
        assert list(coveo.items(SOURCE)) == ["product://1"]
