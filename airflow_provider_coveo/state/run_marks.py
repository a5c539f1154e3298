"""
Marks of runs: what tells a run from an earlier one with the same ID, which was deleted.

Records are named after the run's ID, the only identifier that every process knows. A run can be deleted and
created again with the same ID: by the scheduler, a backfill, the API, or ``airflow dags test``.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

#: The maximum difference between two readings of one start, in seconds. Texts and databases may round it.
_SAME: Final = 0.01


class RunMark(NamedTuple):
    """
    What identifies a run apart from its ID.

    :param began: The start of its current pass, in epoch seconds. A clear of an ended run starts another one.
    :param clears: The number of passes before that.
    :param number: Its key in the database, 0 on Airflow 3, which reports none. SQLite may use it again.
    """

    began: float
    clears: int
    number: int = 0


def mark_of(context: Context) -> RunMark | None:
    """
    Return the mark of the run of a task, ``None`` if Airflow doesn't report what it consists of.

    :param context: The context of the task.
    """
    run: Any = context.get("dag_run")
    try:
        began, clears, number = run.start_date, run.clear_number, getattr(run, "id", 0)
    except Exception:
        # Airflow 2 may no longer be able to load it.
        return None
    if not isinstance(began, datetime) or not isinstance(clears, int):
        return None
    return RunMark(began.timestamp(), clears, number if isinstance(number, int) else 0)


def mark_in(value: object) -> RunMark | None:
    """
    Return a mark that JSON stores as a list, ``None`` for anything else.

    :param value: The stored value.
    """
    if not isinstance(value, (list, tuple)) or len(value) < len(RunMark._fields):
        return None
    fields = value[: len(RunMark._fields)]
    if not all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in fields):
        return None
    return RunMark(float(fields[0]), int(fields[1]), int(fields[2]))


def is_another_run(recorded: tuple[float, int, int] | None, now: tuple[float, int, int] | None) -> bool:
    """
    Return whether a record belongs to a deleted run with the same ID.

    Within one run, a pass with a higher number begins later. If the numbers can't tell two runs apart, they
    count as one: a new run that was cleared before anything could notice that it is new.

    :param recorded: The mark in the record, from any earlier pass; ``None`` in a record of 0.1.
    :param now: The mark of the current run.
    """
    if recorded is None or now is None:
        return False
    then, mark = RunMark(*recorded), RunMark(*now)
    if then.number and mark.number and then.number != mark.number:
        return True
    if mark.clears != then.clears:
        return mark.clears < then.clears
    return abs(mark.began - then.began) > _SAME
