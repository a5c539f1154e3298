"""
Whatever is done to a run with ``push_source_update``, the source ends IDLE and the run tells the truth.

Each cell is a situation on a real Airflow, with the simulated Coveo as the witness; see ``cells.py``. A
representative set runs always, all of them with ``COVEO_BRACKET=full`` (``make test-bracket``), single ones
with ``COVEO_BRACKET=S07,S09``.
"""

from __future__ import annotations

import pytest

from tests.airflow.bracket.conftest import chosen_cells
from tests.airflow.bracket.driver import Record, differences, matches

# All cells are played beside each other before the first test; that takes as long as it takes.
pytestmark = pytest.mark.timeout(1800)


@pytest.mark.parametrize("cell_id", [cell.id for cell in chosen_cells()])
def test_the_source_is_closed_and_the_run_tells_the_truth(cell_id: str, records: dict[str, Record]) -> None:
    if cell_id not in records:
        pytest.skip(next(cell.only_3 for cell in chosen_cells() if cell.id == cell_id))
    record = records[cell_id]
    expected = record.expected
    found = (
        f"\n{record.cell.title}: {record.sequence()}; run {record.run_state()}; {record.tasks}{record.logs}"
    )
    assert not record.error, f"{record.error}{found}"
    assert matches(expected.sequence, record.sequence()), f"Coveo should have seen {expected.sequence}{found}"
    assert record.run_state() == expected.run, found
    assert differences(expected, record.tasks) == [], found
    assert {status or "" for status in record.last_statuses.values()} == {expected.last}, found
    if expected.items is not None:
        assert [*record.items.values()] == [sorted(expected.items.split())], found


def test_the_callbacks_of_the_user_are_called_before_and_after_that_of_the_bracket(
    records: dict[str, Record],
) -> None:
    for record in records.values():
        assert record.callbacks == ["user", "end"] * (len(record.callbacks) // 2), record.cell.id
    assert any(record.callbacks for record in records.values())
