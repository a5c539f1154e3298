"""
Whatever happens to a run with ``push_source_update``, the source ends IDLE and the run's state is correct.

Each cell is a situation on a real Airflow, observed by the simulated Coveo; see ``cells.py``. A
representative set always runs, all of them with ``COVEO_BRACKET=full`` (``make test-bracket``), and single
ones with ``COVEO_BRACKET=S07,S09``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.airflow.bracket.conftest import chosen_cells
from tests.airflow.bracket.driver import Expected, Record, differences, matches

# All cells are played in parallel before the first test, without a timeout.
pytestmark = pytest.mark.timeout(1800)


@pytest.mark.parametrize("cell_id", [cell.id for cell in chosen_cells()])
def test_the_source_is_closed_and_the_run_and_its_tasks_have_the_expected_states(
    cell_id: str, records: dict[str, Record]
) -> None:
    if cell_id not in records:
        # Only one of the two applies, because each is for another Airflow.
        pytest.skip(next(cell.only_3 or cell.not_on_3_0 for cell in chosen_cells() if cell.id == cell_id))
    record = records[cell_id]
    found = (
        f"\n{record.cell.title}: {record.sequence()}; run {record.run_state()}; {record.tasks}{record.logs}"
    )
    assert not record.error, f"{record.error}{found}"
    wrong = list(what_is_wrong(record.expected, record))
    if wrong and record.expected.otherwise is not None:
        wrong = list(what_is_wrong(record.expected.otherwise, record))
    assert not wrong, f"{'; '.join(wrong)}{found}"


def what_is_wrong(expected: Expected, record: Record) -> Iterator[str]:
    """Return the differences from the expected outcome."""
    if not matches(expected.sequence, record.sequence()):
        yield f"Coveo should have seen {expected.sequence}"
    if record.run_state() != expected.run:
        yield f"the run should be {expected.run}"
    yield from differences(expected, record.tasks)
    # If there are several sources, some may never have been opened.
    if ({status for status in record.last_statuses.values() if status} or {""}) != {expected.last}:
        yield f"the source should be left {expected.last}"
    if expected.items is not None and [*record.items.values()] != [sorted(expected.items.split())]:
        yield f"the items should be {expected.items}"


def test_the_user_s_callbacks_before_and_after_that_of_the_bracket_are_called(
    records: dict[str, Record],
) -> None:
    if not any("failed" in record.expected.run for record in records.values()):
        pytest.skip("no run of the chosen cells is to fail")
    for record in records.values():
        assert record.callbacks == ["user", "end"] * (len(record.callbacks) // 2), record.cell.id
    assert any(record.callbacks for record in records.values())
