"""The safety limit of a rebuild: ``delete_old_items`` deletes no more than ``max_deleted`` allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_coveo.bracket.errors import TooManyDeletions
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.simulator import Simulator
from airflow_provider_coveo.state.ledger import SourceLedger
from airflow_provider_coveo.task_groups.coveo_push import push_source_update
from tests.conftest import SOURCE
from tests.unit.task_groups.test_coveo_push_tasks import Run

pytestmark = pytest.mark.usefixtures("connect")


@pytest.fixture
def ten_items(coveo: Simulator, connect: Callable[..., None]) -> None:
    CoveoPushHook().push_items(SOURCE, [{"documentId": f"a://{n}", "data": "x"} for n in range(10)])


@pytest.fixture
def a_run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    def make(pushed: Any = 8, **options: Any) -> Run:
        run = Run(monkeypatch, **{"delete_old_items": True, **options})
        run.execute("open")
        SourceLedger("acme").accepted(SOURCE, "d", "r")
        task_id = run.task("work").task_id
        run.states[task_id] = "success"
        if pushed is not None:
            run.xcoms[task_id, "coveo_pushed"] = pushed if not isinstance(pushed, int) else counts(pushed)
        return run

    return make


def counts(accepted: int, source: str = SOURCE) -> dict[str, dict[str, int]]:
    return {f"acme/{source}": {"accepted": accepted, "deleted": 0}}


def deletions(coveo: Simulator) -> int:
    return len([one for one in coveo.requests if one.operation == "olderthan"])


def reads(coveo: Simulator) -> int:
    return len([one for one in coveo.requests if one.operation == "source"])


@pytest.mark.usefixtures("ten_items")
@pytest.mark.parametrize(
    ("limit", "pushed"),
    [("20%", 8), ("20%", 10), ("20%", 50), (2, 8), ("2", 8), ("100%", 0), (0, 10), ("0%", 10), ("12.5%", 9)],
)
def test_deletions_within_the_limit_are_sent(
    coveo: Simulator, a_run: Callable[..., Run], limit: Any, pushed: int
) -> None:
    a_run(pushed, max_deleted=limit).execute("delete_old_items")
    assert deletions(coveo) == 1


@pytest.mark.usefixtures("ten_items")
@pytest.mark.parametrize(
    ("limit", "pushed"), [("20%", 7), ("20%", 1), (2, 7), ("0%", 9), (0, 9), ("12.5%", 8)]
)
def test_beyond_the_limit_nothing_is_deleted_and_both_numbers_are_named(
    coveo: Simulator, a_run: Callable[..., Run], limit: Any, pushed: int
) -> None:
    run = a_run(pushed, max_deleted=limit)
    with pytest.raises(
        TooManyDeletions, match=rf"the run pushed {pushed} items?, and the source has 10, so at"
    ):
        run.execute("delete_old_items")
    assert deletions(coveo) == 0
    # The source is still closed.
    run.execute("close")
    assert coveo.statuses(SOURCE)[-1] == "IDLE"


@pytest.mark.usefixtures("ten_items")
def test_without_a_limit_the_number_of_items_is_not_read(coveo: Simulator, a_run: Callable[..., Run]) -> None:
    a_run(1).execute("delete_old_items")
    assert (deletions(coveo), reads(coveo)) == (1, 0)


@pytest.mark.usefixtures("ten_items")
def test_the_pushes_of_all_tasks_and_map_indexes_count(coveo: Simulator, a_run: Callable[..., Run]) -> None:
    run = a_run([counts(3), None, counts(5), counts(9, "another-source")], max_deleted="20%")
    run.execute("delete_old_items")
    assert deletions(coveo) == 1


@pytest.mark.usefixtures("ten_items")
@pytest.mark.parametrize(
    "pushed", [None, {}, [], "text", {"acme/acme-products": {}}, counts(100, "another-source")]
)
def test_pushes_without_known_counts_count_as_zero(
    coveo: Simulator, a_run: Callable[..., Run], pushed: Any
) -> None:
    with pytest.raises(TooManyDeletions, match="the run pushed 0 items"):
        a_run(pushed, max_deleted="20%").execute("delete_old_items")
    assert deletions(coveo) == 0


@pytest.mark.usefixtures("ten_items")
def test_the_limit_can_be_raised_for_an_intended_deletion(
    coveo: Simulator, a_run: Callable[..., Run]
) -> None:
    run = a_run(1, max_deleted="20%")
    with pytest.raises(TooManyDeletions, match="raise max_deleted, and clear delete_old_items"):
        run.execute("delete_old_items")
    # Like a template that renders to another value by then.
    run.task("delete_old_items").max_deleted = "90%"
    run.execute("delete_old_items")
    assert deletions(coveo) == 1


@pytest.mark.usefixtures("ten_items")
def test_with_a_key_that_cannot_view_the_source_the_check_is_skipped_and_logged_once(
    coveo: Simulator,
    a_run: Callable[..., Run],
    connect: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    connect(password=coveo.push_only_key)
    a_run(1, max_deleted="20%").execute("delete_old_items")
    assert deletions(coveo) == 1
    assert caplog.text.count("Could not check max_deleted") == 1


@pytest.mark.usefixtures("ten_items")
def test_the_check_is_skipped_if_coveo_does_not_return_the_number_of_items(
    coveo: Simulator, a_run: Callable[..., Run], caplog: pytest.LogCaptureFixture
) -> None:
    run = a_run(1, max_deleted="20%")
    coveo.faults.answer(200, operation="source", body='{"id": "acme-products", "information": {}}')
    run.execute("delete_old_items")
    assert deletions(coveo) == 1
    assert "Could not check max_deleted" in caplog.text


@pytest.mark.usefixtures("ten_items")
@pytest.mark.parametrize("value", [None, "", "many", "-1", -1, 1.5, "101%", "5 %%"])
def test_an_invalid_limit_deletes_nothing(coveo: Simulator, a_run: Callable[..., Run], value: Any) -> None:
    run = a_run(10, max_deleted="{{ params.limit }}")
    # The result of a native template.
    run.task("delete_old_items").max_deleted = value
    with pytest.raises(CoveoInputError, match="Invalid max_deleted"):
        run.execute("delete_old_items")
    assert deletions(coveo) == 0


@pytest.mark.parametrize("value", ["many", "-1", -1, 1.5, "101%"])
def test_an_invalid_limit_is_rejected_when_the_dag_is_parsed(value: Any) -> None:
    with pytest.raises(CoveoInputError, match="Invalid max_deleted"):
        push_source_update(source_id=SOURCE, delete_old_items=True, max_deleted=value)


def test_a_limit_can_be_a_template() -> None:
    update = push_source_update(source_id=SOURCE, delete_old_items=True, max_deleted="{{ params.limit }}")
    assert update.max_deleted == "{{ params.limit }}"


def test_an_empty_source_is_within_any_limit(coveo: Simulator, a_run: Callable[..., Run]) -> None:
    a_run(0, max_deleted="0%").execute("delete_old_items")
    assert deletions(coveo) == 1


def test_a_limit_without_a_deletion_is_rejected_when_the_dag_is_parsed() -> None:
    with pytest.raises(CoveoInputError, match="has max_deleted, but not delete_old_items"):
        push_source_update(source_id=SOURCE, max_deleted="20%")
