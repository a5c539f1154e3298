"""
Marks of runs: what tells a run from an earlier one with the same ID, which was deleted.

Records are named after the run's ID, the only identifier that every process knows. A run can be deleted and
created again with the same ID: by the scheduler, a backfill, the API, or ``airflow dags test``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)

#: The XCom in which 0.1.0's `open` task saves what it is about to open. It is still written, so that a run
#: whose tasks use different versions of the provider can be closed by any of them; and because Airflow
#: deletes it with the run, so that it tells a run from a deleted one.
OPENING_XCOM_KEY: Final = "coveo_opening"
#: The maximum difference between two readings of one start, in seconds. Texts and databases may round it.
_SAME: Final = 0.01


class RunMark(NamedTuple):
    """
    What identifies a run apart from its ID.

    :param began: The start of its current pass, in epoch seconds. A clear of an ended run starts another one,
        as do a backfill on Airflow 2 and whoever sets a run's state to queued or running.
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


def is_another_run(
    recorded: tuple[float, int, int] | None, now: tuple[float, int, int] | None
) -> bool | None:
    """
    Return whether a record belongs to a deleted run with the same ID; ``None`` if the marks can't tell.

    From 3.2 on, Airflow counts each clear, also one of a task in a running run, which keeps its start. A pass
    with a higher number that starts later is one of the same run, or of a new one that was cleared. And if
    only the start differs, the run was deleted and created again, or started again without a clear.

    :param recorded: The mark in the record, from any earlier pass; ``None`` in a record of 0.1.
    :param now: The mark of the current run.
    """
    if recorded is None or now is None:
        return False
    then, mark = RunMark(*recorded), RunMark(*now)
    has_numbers = bool(then.number and mark.number)
    if has_numbers and then.number != mark.number:
        return True
    if abs(mark.began - then.began) <= _SAME:
        return False
    if mark.clears < then.clears:
        return True
    return False if mark.clears > then.clears and has_numbers else None


@dataclass(frozen=True)
class CurrentRun:
    """
    The run of a task, with what tells it from a deleted run with the same ID.

    :param mark: Its mark.
    :param context: The context of the task.
    :param opens: The bracket that the task opens, if it is an ``open``: its ID and map index. What it has
        just announced tells nothing about earlier.
    """

    mark: RunMark
    context: Context
    opens: tuple[str, int] | None = None

    @property
    def was_continued(self) -> bool:
        """Whether the task was started again in this run, other than by its retries."""
        number = int(getattr(self.context["ti"], "try_number", 1))
        return was_cleared(self.context) or number > (self.context["task"].retries or 0) + 1

    def was_cleared_since(self, recorded: tuple[float, int, int] | None) -> bool:
        """
        Return whether the run was cleared since a record was made, if the record is of this run.

        :param recorded: The mark in the record.
        """
        return recorded is not None and recorded[1] != self.mark.clears

    def has_opened(self, open_task_id: str, map_index: int, source_id: str) -> bool:
        """
        Return whether a bracket's ``open`` has announced in this run that it opens a source.

        Airflow deletes a run's XComs with the run, and those of a task when it starts again.

        :param open_task_id: The bracket's ``open``.
        :param map_index: Its map index, or -1.
        :param source_id: The source.
        """
        if (open_task_id, map_index) == self.opens:
            return False
        announced = self.context["ti"].xcom_pull(
            task_ids=open_task_id, key=OPENING_XCOM_KEY, map_indexes=map_index
        )
        return isinstance(announced, dict) and announced.get("source_id") == source_id

    def is_another(
        self, recorded: tuple[float, int, int] | None, source_id: str, brackets: Iterable[tuple[str, int]]
    ) -> bool | None:
        """
        Return whether a record belongs to a deleted run with the ID of this one; ``None`` if nothing tells.

        :param recorded: The mark in the record.
        :param source_id: The source.
        :param brackets: The brackets that opened it in the record's run: their ``open`` and map index.
        """
        answer = is_another_run(recorded, self.mark)
        if answer is not None:
            return answer
        brackets = tuple(brackets)
        try:
            if self.was_continued or any(self.has_opened(*each, source_id) for each in brackets):
                return False
        except Exception as error:
            log.warning("Could not read what this run has opened: %r", error)
            return None
        return None if self.was_cleared_since(recorded) or not brackets else True


def current_run(context: Context) -> CurrentRun | None:
    """
    Return the run of a task, ``None`` if Airflow doesn't report what its mark consists of.

    :param context: The context of the task.
    """
    mark = mark_of(context)
    return None if mark is None else CurrentRun(mark, context)


def was_cleared(context: Context) -> bool:
    """Return whether the task was cleared in this run, which raises its ``max_tries``."""
    return bool(context["ti"].max_tries > (context["task"].retries or 0))
