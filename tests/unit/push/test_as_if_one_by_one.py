"""The index after a push equals that of pushing one by one, whatever the batches."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_coveo.coveo.checkpoints import AcceptedBatches
from airflow_provider_coveo.coveo.errors import CoveoError
from airflow_provider_coveo.coveo.items import Delete
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.simulator import Simulator
from tests.strict_coveo import StrictCoveo
from tests.unit.push.conftest import Judged
from tests.unit.push.model import examples, indexed, one_by_one

_IDS = st.sampled_from(["a://1", "a://1/x", "a://1/x/y", "a://10", "a://2", "a://2/x"])
_ADDS = st.builds(
    lambda document_id, data: {"documentId": document_id, "data": data}, _IDS, st.text("xyz", max_size=400)
)
_OPERATIONS = st.one_of(_ADDS, _ADDS, st.builds(Delete, _IDS), st.builds(Delete, _IDS, st.booleans()))
_sources = itertools.count()


@settings(
    max_examples=examples(150),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    operations=st.lists(_OPERATIONS, max_size=40),
    batch_bytes=st.sampled_from([1024, 1500, 4000, 100_000]),
    concurrency=st.integers(1, 5),
    as_bytes=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_the_index_is_as_if_pushed_one_by_one(
    coveo: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    operations: list[Any],
    batch_bytes: int,
    concurrency: int,
    as_bytes: bool,
    seed: int,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_COVEO_DEFAULT", coveo.connection_json())
    coveo.reset()
    source = f"source-{next(_sources)}"
    coveo.add_source(source)
    fault = coveo.faults.random(seed=seed, rate=0.15)
    hook = CoveoPushHook(retry=RetryPolicy(total_seconds=30, first_wait=0.001, longest_wait=0.002))
    result = hook.push_items(
        source,
        (
            json.dumps(operation).encode() if as_bytes and isinstance(operation, dict) else operation
            for operation in operations
        ),
        batch_bytes=batch_bytes,
        upload_concurrency=concurrency,
    )
    assert indexed(coveo, source) == one_by_one(operations)
    assert result["accepted_adds"] == sum(isinstance(operation, dict) for operation in operations)
    assert result["accepted_adds"] + result["accepted_deletes"] == len(operations)
    assert coveo.undocumented == [], fault


#: Which items a deletion with children takes along, as one of Coveo's pages says, and as another says.
_BEHIND = {"with a slash": lambda of: f"{of}/", "any prefix": lambda of: of}
_CHILDREN = st.builds(Delete, _IDS, st.just(True))
_MOSTLY_CHILDREN = st.one_of(_ADDS, _ADDS, _CHILDREN, _CHILDREN, st.builds(Delete, _IDS))


def _applied(batches: list[dict[str, Any]], behind: Any, random: Random, order: str) -> dict[str, str]:
    """Return the index after batches whose entries take effect in an order that Coveo does not document."""
    index: dict[str, str] = {}
    for batch in batches:
        entries = [*batch.get("addOrUpdate", []), *batch.get("delete", [])]
        if order == "deletions first":
            entries = [*batch.get("delete", []), *batch.get("addOrUpdate", [])]
        elif order == "backwards":
            entries.reverse()
        elif order == "shuffled":
            random.shuffle(entries)
        for entry in entries:
            name = entry["documentId"]
            if "deleteChildren" not in entry:
                index[name] = entry["data"]
                continue
            index.pop(name, None)
            if entry["deleteChildren"]:
                index = {key: data for key, data in index.items() if not key.startswith(behind(name))}
    return index


@settings(
    max_examples=examples(100),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    operations=st.lists(_MOSTLY_CHILDREN, min_size=2, max_size=12) | st.lists(_OPERATIONS, max_size=40),
    deleted=st.lists(st.builds(Delete, _IDS, st.booleans()), max_size=4),
    batch_bytes=st.sampled_from([1024, 1500, 100_000]),
    as_bytes=st.booleans(),
    random=st.randoms(use_true_random=False),
)
def test_the_order_within_a_batch_and_the_meaning_of_children_do_not_change_the_index(
    strict_coveo: StrictCoveo,
    monkeypatch: pytest.MonkeyPatch,
    operations: list[Any],
    deleted: list[Delete],
    batch_bytes: int,
    as_bytes: bool,
    random: Random,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_COVEO_DEFAULT", Judged(strict_coveo).connection_json())
    strict_coveo.reset()
    result = CoveoPushHook().push_items(
        "any-source",
        (
            json.dumps(operation).encode() if as_bytes and isinstance(operation, dict) else operation
            for operation in operations
        ),
        delete=deleted,
        batch_bytes=batch_bytes,
    )
    assert strict_coveo.objections == []
    everything = [*operations, *deleted]
    for batch in strict_coveo.batches:
        entries = [*batch["addOrUpdate"], *batch["delete"]]
        assert len({entry["documentId"] for entry in entries}) == len(entries)
    for behind in _BEHIND.values():
        expected = one_by_one(everything, behind)
        for order in ("as they stand", "deletions first", "backwards", "shuffled"):
            assert _applied(strict_coveo.batches, behind, random, order) == expected, order
    assert result["accepted_adds"] + result["accepted_deletes"] == len(everything)
    assert result["deletes_with_children"] == sum(
        entry["deleteChildren"] for batch in strict_coveo.batches for entry in batch["delete"]
    )


class _Kept:
    """The record of accepted batches between tries."""

    def __init__(self) -> None:
        self.accepted = AcceptedBatches()

    def read(self) -> AcceptedBatches:
        return self.accepted

    def write(self, accepted: AcceptedBatches) -> None:
        self.accepted = accepted

    def forget(self) -> None:
        self.accepted = AcceptedBatches()

    def lose(self, count: int) -> None:
        """Lose the last accepted batches, like a try that is killed before it saves them."""
        digests = self.accepted.digests
        self.accepted = AcceptedBatches(digests[: max(0, len(digests) - count)], self.accepted.started)


@settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    operations=st.lists(_OPERATIONS, min_size=10, max_size=60),
    failures=st.lists(st.tuples(st.booleans(), st.integers(0, 12), st.integers(0, 2)), max_size=5),
    concurrency=st.integers(1, 4),
)
def test_the_index_is_the_same_after_any_number_of_attempts(
    coveo: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    operations: list[Any],
    failures: list[tuple[bool, int, int]],
    concurrency: int,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_COVEO_DEFAULT", coveo.connection_json())
    coveo.reset()
    source = f"source-{next(_sources)}"
    coveo.add_source(source)
    kept = _Kept()

    def push(items: Iterable[Any]) -> dict[str, Any]:
        return CoveoPushHook().push_items(
            source, items, batch_bytes=1024, upload_concurrency=concurrency, checkpoint=kept
        )

    def killed_at(count: int) -> Iterator[Any]:
        yield from operations[:count]
        raise KeyboardInterrupt

    for is_killed, place, lost in failures:
        if is_killed:
            with pytest.raises(KeyboardInterrupt):
                push(killed_at(place))
        else:
            fault = coveo.faults.answer(400, operation="batch", after=place)
            try:
                push(operations)
            except CoveoError:
                assert fault.used
            else:
                break
            finally:
                coveo.faults.clear()
        kept.lose(lost)
    else:
        result = push(operations)
        assert result["accepted_adds"] + result["accepted_deletes"] == len(operations)
    assert indexed(coveo, source) == one_by_one(operations)
    assert not kept.accepted.digests
    assert coveo.undocumented == []
