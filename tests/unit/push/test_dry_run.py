"""Pushes that send nothing, at the socket."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_coveo.coveo.checkpoints import AcceptedBatches
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.coveo.items import Delete
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE, keep_off_midnight

READS = {"limit", "list_fields", "light_source", "source"}


def item(number: int, **metadata: Any) -> dict[str, Any]:
    return {"documentId": f"product://{number}", "data": "x", **metadata}


@pytest.fixture(autouse=True)
def _nothing_is_sent(coveo: Simulator) -> Iterator[None]:
    yield
    assert {request.operation for request in coveo.requests} <= READS
    assert coveo.statuses(SOURCE) == []


def test_a_dry_run_counts_what_would_be_sent(coveo: Simulator, hook: Any, logged: Callable[[], str]) -> None:
    items = [item(1), item(2, weight=1), item(1), Delete("product://3"), Delete("product://4", True)]
    result = hook.push_items(SOURCE, items, delete=["product://5"], dry_run=True)
    seconds = result.pop("seconds")
    size = result.pop("bytes")
    assert result == {
        "source_id": SOURCE,
        "dry_run": True,
        "adds": 3,
        "deletes": 3,
        "deletes_with_children": 1,
        "replaced": 1,
        "batches": 2,
        "calls": 4,
        "invalid": 0,
        "invalid_items": [],
        "invalid_by_rule": {},
        "problems": [],
        "remaining_daily_items": 1_000_000_000,
        "unknown_fields": ["weight"],
    }
    assert seconds >= 0
    assert size > 100
    text = logged()
    assert f"Dry run, nothing was sent. Source {SOURCE}: 3 items and 3 deletions in 2 batches" in text
    json.dumps(result)


def test_a_push_sends_what_its_dry_run_reported(hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

    def items() -> Iterator[dict[str, Any]]:
        return (item(n, text="y" * (n % 700)) for n in range(500))

    dry = hook.push_items(SOURCE, items(), batch_bytes=20_000, dry_run=True)
    with Simulator(organization="acme", sources=(SOURCE,)) as other:
        monkeypatch.setenv("AIRFLOW_CONN_COVEO_OTHER", other.connection_json())
        real = CoveoPushHook("coveo_other").push_items(SOURCE, items(), batch_bytes=20_000)
        calls = [one for one in other.requests if one.operation in {"files", "batch"}]
    assert (dry["adds"], dry["batches"]) == (real["accepted_adds"], real["batches"])
    assert (dry["bytes"], dry["calls"]) == (real["bytes"], len(calls))


def test_large_content_needs_one_more_call(hook: Any) -> None:
    result = hook.push_items(SOURCE, [item(1, data="x" * 6_000_000)], dry_run=True)
    assert (result["batches"], result["calls"]) == (1, 3)


def test_every_invalid_item_is_counted_by_rule(hook: Any) -> None:
    items = [item(1), {"documentId": "nothing"}, item(2, bad={}), item(3, bad={}), item(4)]
    result = hook.push_items(SOURCE, items, dry_run=True)
    assert (result["adds"], result["invalid"]) == (2, 3)
    assert [one["index"] for one in result["invalid_items"]] == [1, 2, 3]
    assert sorted(result["invalid_by_rule"].values()) == [1, 2]
    assert result["problems"] == ["3 invalid items; the push would end at item 1"]


@pytest.mark.parametrize(("most", "problems"), [(3, 0), (2, 1)])
def test_skipped_invalid_items_are_a_problem_only_above_the_limit(
    hook: Any, most: int, problems: int
) -> None:
    items = [item(n, bad={}) for n in range(3)]
    result = hook.push_items(SOURCE, items, on_invalid="skip", max_invalid=most, dry_run=True)
    assert len(result["problems"]) == problems


def test_the_number_of_reported_rules_is_limited(hook: Any) -> None:
    items = [item(n, **{f"k{n}": {}}) for n in range(500)]
    result = hook.push_items(SOURCE, items, dry_run=True)
    assert result["invalid"] == 500
    assert len(result["invalid_by_rule"]) <= 21
    assert sum(result["invalid_by_rule"].values()) == 500


def test_a_quota_that_is_too_small_is_a_problem(coveo: Simulator, hook: Any) -> None:
    keep_off_midnight(coveo)
    coveo.daily_documents = 2
    result = hook.push_items(SOURCE, map(item, range(3)), dry_run=True)
    assert result["remaining_daily_items"] == 2
    assert result["problems"] == ["2 items can still be pushed today, and the push has 3"]
    assert hook.push_items(SOURCE, map(item, range(2)), dry_run=True)["problems"] == []
    deletions = hook.push_items(SOURCE, (), delete=[f"a://{n}" for n in range(9)], dry_run=True)
    assert deletions["problems"] == []


def test_a_field_check_that_would_fail_is_a_problem(hook: Any) -> None:
    result = hook.push_items(SOURCE, [item(1, weight=1), item(2, width=2)], check_fields="fail", dry_run=True)
    assert (result["adds"], result["unknown_fields"]) == (2, ["weight", "width"])
    assert result["problems"] == ["no field for 2 metadata keys"]


def test_a_dry_run_with_a_push_only_key_omits_what_the_key_cannot_read(
    coveo: Simulator, hook: Any, connect: Callable[..., None]
) -> None:
    connect(password=coveo.push_only_key)
    result = hook.push_items(SOURCE, [item(1, weight=1)], dry_run=True)
    assert (result["adds"], result["problems"]) == (1, [])
    assert not {"remaining_daily_items", "unknown_fields"} & result.keys()


def test_fields_are_not_read_if_check_fields_is_off(coveo: Simulator, hook: Any) -> None:
    result = hook.push_items(SOURCE, [item(1, weight=1)], check_fields="off", dry_run=True)
    assert "unknown_fields" not in result
    assert [request.operation for request in coveo.requests] == ["limit"]


def test_an_input_that_fails_fails_the_dry_run(hook: Any) -> None:
    def items() -> Iterator[dict[str, Any]]:
        yield item(1)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        hook.push_items(SOURCE, items(), dry_run=True)


def test_a_dry_run_keeps_the_checkpoint_of_an_earlier_attempt(hook: Any) -> None:
    class Kept:
        """A checkpoint that must not be used."""

        def read(self) -> AcceptedBatches:
            raise AssertionError("read")

        def write(self, accepted: AcceptedBatches) -> None:
            raise AssertionError("written")

        def forget(self) -> None:
            raise AssertionError("forgotten")

    assert hook.push_items(SOURCE, [item(1)], checkpoint=Kept(), dry_run=True)["adds"] == 1


@pytest.mark.parametrize(
    "options",
    [
        {"batch_bytes": 1},
        {"upload_concurrency": 0},
        {"on_invalid": "no"},
        {"max_invalid": -1},
        {"delete": "a://1"},
    ],
)
def test_a_dry_run_rejects_invalid_parameters(coveo: Simulator, hook: Any, options: Any) -> None:
    with pytest.raises(CoveoInputError):
        hook.push_items(SOURCE, [item(1)], dry_run=True, **options)
    assert [one for one in coveo.requests if one.operation != "list_fields"] == []


@pytest.mark.parametrize("value", ["", None, "None", "maybe", 2])
def test_an_invalid_dry_run_value_sends_nothing(coveo: Simulator, hook: Any, value: Any) -> None:
    with pytest.raises(CoveoInputError, match="Invalid dry_run"):
        hook.push_items(SOURCE, [item(1)], dry_run=value)
    assert coveo.requests == []


def test_a_dry_run_deletes_no_old_items(coveo: Simulator, hook: Any) -> None:
    cut_off = coveo.clock.now_ms() - 1000
    result = hook.delete_old_items(SOURCE, cut_off, queue_delay=3, dry_run=True)
    assert result == {
        "source_id": SOURCE,
        "ordering_id": cut_off,
        "queue_delay": 3,
        "request_id": None,
        "dry_run": True,
    }
    with pytest.raises(CoveoInputError, match="in the future"):
        hook.delete_old_items(SOURCE, coveo.clock.now_ms() + 86_400_000, dry_run=True)


def test_identities_are_counted(hook: Any) -> None:
    member = {"identity": {"name": "a@acme.com", "type": "USER"}, "members": [], "wellKnowns": []}
    result = hook.push_identities(
        "provider", members=[member], deleted=[{"name": "b", "type": "USER"}, {"name": 1}], dry_run=True
    )
    assert (result["provider_id"], result["dry_run"]) == ("provider", True)
    assert (result["members"], result["mappings"], result["deleted"]) == (1, 0, 1)
    assert (result["batches"], result["calls"], result["invalid"]) == (1, 2, 1)
    assert len(result["problems"]) == 1
