"""Explores."""

from __future__ import annotations

from tests.stepped import shapes
from tests.stepped.engine import Engine


def make_engine() -> Engine:
    """Make the stepped Airflow of this process, with all shapes."""
    engine = Engine()
    engine.add(
        *[make() for make in shapes.SHAPES.values()],
        shapes.other(),
        shapes.exclusive_other(),
        shapes.watchdog(),
    )

    def told(run_id: str, task_id: str, map_index: int) -> str:
        words = (
            engine.told.get((run_id, task_id, map_index)) or engine.told.get((run_id, task_id, -1)) or [""]
        )
        return words.pop(0) if words != [""] else ""

    shapes.told = told
    return engine
