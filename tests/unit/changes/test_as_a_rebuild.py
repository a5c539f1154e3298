"""After any sequence of inputs and failures, the index equals that of a push of only the last input."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_coveo.content.snapshot_push import SnapshotPush
from airflow_provider_coveo.content.snapshot_store import SnapshotStore
from airflow_provider_coveo.coveo.batches import Batch
from airflow_provider_coveo.coveo.changes import Comparison
from airflow_provider_coveo.coveo.errors import TooManyDeletionsError
from airflow_provider_coveo.coveo.items import Delete
from airflow_provider_coveo.coveo.max_deleted import MaxDeleted
from tests.unit.push.model import examples


class PushFailedError(Exception):
    """The error that fails a push."""


class KilledError(BaseException):
    """Simulates the sudden end of a push's process."""


def delete(index: dict[str, str], document_id: str, children: bool, behind: str) -> None:
    if children:
        for each in [each for each in index if each.startswith(document_id + behind)]:
            del index[each]
    index.pop(document_id, None)


def apply(index: dict[str, str], batch: Batch, behind: str) -> None:
    body = json.loads(b"".join(map(bytes, batch.body(lambda content: "file"))))
    for each in body["delete"]:
        delete(index, each["documentId"], each["deleteChildren"], behind)
    index.update((each["documentId"], each["data"]) for each in body["addOrUpdate"])


def rebuilt(entries: list[Any], behind: str) -> dict[str, str]:
    index: dict[str, str] = {}
    for entry in entries:
        if isinstance(entry, Delete):
            delete(index, entry.document_id, entry.delete_children, behind)
        else:
            item = json.loads(entry) if isinstance(entry, bytes) else entry
            index[item["documentId"]] = item["data"]
    return index


IDS = st.sampled_from([f"p://{first}{rest}" for first in "ab" for rest in ("", "1", "2", "11", "/x", "1/y")])
ITEMS = st.builds(
    lambda document_id, data, as_bytes: (
        json.dumps({"documentId": document_id, "data": data}).encode()
        if as_bytes
        else {"documentId": document_id, "data": data}
    ),
    IDS,
    st.sampled_from(["u", "v", "w" * 200]),
    st.booleans(),
)
ENTRIES = st.lists(st.one_of(ITEMS, ITEMS, ITEMS, st.builds(Delete, IDS, st.booleans())), max_size=12)
FAULTS = st.sampled_from(
    [None, None, None, "input", "refused", "unknown", "killed before", "killed behind", "replace", "delete"]
)
RUNS = st.lists(st.tuples(ENTRIES, FAULTS, st.integers(0, 3), st.sampled_from([300, 1024])), max_size=6)


def push(folder: Path, index: dict[str, str], run: tuple[Any, ...], behind: str) -> bool:
    """Push like a run that meets a fault, and return whether it succeeded."""
    entries, fault, at, limit = run
    store = SnapshotStore(str(folder))
    attempt = SnapshotPush(store, target="t")
    attempt.load()
    attempt.full_because = attempt.why_full(timedelta(days=1))
    attempt.begin("c")
    comparison = Comparison(
        attempt.snapshot,
        max_deleted=MaxDeleted.parse("100%"),
        target="t",
        holds=attempt.full_because is None,
        on_batch=attempt.write_down,
    )

    def failing(kind: type[BaseException]) -> Any:
        def fail(*_: object) -> None:
            raise kind

        return fail

    def given() -> Iterator[Any]:
        for number, entry in enumerate(entries):
            if fault == "input" and number >= 2 * at:
                raise PushFailedError
            yield entry

    def send(batch: Batch) -> None:
        is_it = batch.number == at
        if is_it and fault == "refused":
            raise PushFailedError
        if is_it and fault == "killed before":
            raise KilledError
        apply(index, batch, behind)
        if is_it and fault == "unknown":
            raise PushFailedError
        if is_it and fault == "killed behind":
            raise KilledError
        attempt.accepted = batch.number + 1

    try:
        for batch in comparison.batches(given(), limit, lambda place, error: False):
            send(batch)
        if fault == "replace":
            store.replace = failing(PushFailedError)  # type: ignore[method-assign]
        if fault == "delete":
            store.delete = failing(KilledError)  # type: ignore[method-assign]
        attempt.finish("c")
    except (PushFailedError, TooManyDeletionsError):
        attempt.fail()
        return False
    except KilledError:
        return False
    finally:
        attempt.close()
    return True


@settings(
    max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(runs=RUNS, last=ENTRIES, behind=st.sampled_from(["", "/"]))
def test_after_any_earlier_pushes_the_index_equals_that_of_a_rebuild(
    tmp_path_factory: pytest.TempPathFactory, runs: list[Any], last: list[Any], behind: str
) -> None:
    folder = tmp_path_factory.mktemp("snapshot")
    index: dict[str, str] = {}
    for run in [*runs, (last, None, 0, 1024)]:
        if push(folder, index, run, behind):
            assert index == rebuilt(run[0], behind)
        elif run[1] is None:
            # An input of only deletions, or an empty one, must not delete everything else.
            assert not any(not isinstance(entry, Delete) for entry in run[0])
