"""
The latest changes of a source's content, by which a push knows whether its accepted batches are still valid.

The record is the Airflow Variable ``coveo_changes__<organization>__<source>``. It lists the latest changes in
order, each with a unique name, its run, and its push if that can be resumed. The batches that Coveo accepted
from such a push are still valid if only the push itself has changed the content since. Pushes of one run that
only add items count as one, because their DAG does not define their order.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Final, NamedTuple

from airflow_provider_coveo.state.variables import (
    forget_variable,
    read_variable,
    update_variable,
    variable_name,
    write_variable,
)

#: The number of changes that are recorded. A push that began before them is not resumed.
_MAX_CHANGES: Final = 50
#: The number of tasks whose pushes are recorded, and the seconds for which these matter: the pipeline
#: processes most items within minutes.
_MAX_PUSHES: Final = 100
_SECONDS_IN_PIPELINE: Final = 3600


class Change(NamedTuple):
    """
    A change of a source's content.

    :param name: Its unique name.
    :param run: The run that made it.
    :param push: The push that made it, if that can be resumed; the run itself for pushes that only add items.
    """

    name: str
    run: str
    push: str = ""


def new_name() -> str:
    """Return a unique name for a change."""
    return uuid.uuid4().hex[:16]


class ContentChanges:
    """
    The changes of the content of one source.

    :param organization_id: The organization.
    :param source_id: The source.
    """

    def __init__(self, organization_id: str, source_id: str) -> None:
        self._variable = variable_name("coveo_changes", organization_id, source_id)

    def all(self) -> list[Change]:
        """Return the recorded changes, the latest last."""
        return _changes_in(read_variable(self._variable))

    def last(self) -> Change | None:
        """Return the latest change, ``None`` if none is recorded."""
        changes = self.all()
        return changes[-1] if changes else None

    def add(self, run: str, push: str = "", *, name: str = "") -> Change:
        """
        Record a change, before or after it is made.

        :param run: The run that makes it.
        :param push: The push that makes it, if it can be resumed.
        :param name: Its name. Default: a new one. If the latest change has this name, no other is recorded.
        :return: The change.
        """
        change = Change(name or new_name(), run, push)

        def with_change(value: object) -> tuple[dict[str, object] | None, Change]:
            before = _changes_in(value)
            if before and before[-1].name == change.name:
                return None, change
            changes = [*before, change][-_MAX_CHANGES:]
            return {"changes": [[each.name, each.run, each.push] for each in changes]}, change

        return update_variable(
            self._variable,
            with_change,
            "The latest changes of a Coveo source's content; safe to delete while no task pushes to it.",
        )

    def of_run(self, run: str) -> Change:
        """Return the latest change when a push of a run begins; record one of the run first if needed."""
        last = self.last()
        is_of_pushes = last is not None and last.run == run and last.push
        return last if last is not None and is_of_pushes else self.add(run, run)

    def still_stands(self, name: str, run: str, push: str) -> bool:
        """
        Return whether only one push, or pushes of its run that add items, changed the content after a change.

        :param name: The change.
        :param run: The run.
        :param push: The push.
        """
        changes = self.all()
        names = [change.name for change in changes]
        if name not in names:
            return False
        return all(change.push in {run, push} for change in changes[names.index(name) + 1 :])

    def forget(self) -> None:
        """Delete the record of a source that is deleted."""
        forget_variable(self._variable)


class RecentPushes:
    """
    The recent pushes of each task to a source, by which an attempt knows what can still be in the pipeline.

    They are in the Airflow Variable ``coveo_pushed__<organization>__<source>``. If two tasks write at the
    same time, one of the two values can be lost.

    :param organization_id: The organization.
    :param source_id: The source.
    """

    def __init__(self, organization_id: str, source_id: str) -> None:
        self._variable = variable_name("coveo_pushed", organization_id, source_id)

    def batches_before(self, push: str, this_try: str) -> int:
        """
        Return the number of batches that other attempts of a task sent within the last hour.

        :param push: The task.
        :param this_try: Its current attempt.
        """
        return sum(
            batches
            for (its_push, its_try), (batches, _) in self._recent().items()
            if its_push == push and its_try != this_try
        )

    def add(self, push: str, this_try: str, batches: int) -> None:
        """
        Record that an attempt has sent batches.

        :param push: The task.
        :param this_try: Its current attempt.
        :param batches: The number of batches.
        """
        recent = self._recent()
        before, _ = recent.pop((push, this_try), (0, 0))
        recent[push, this_try] = (before + batches, int(time.time()))
        write_variable(
            self._variable,
            {"pushes": [[*key, *value] for key, value in recent.items()][-_MAX_PUSHES:]},
            "Pushes to a Coveo source within the last hour; safe to delete.",
        )

    def forget(self) -> None:
        """Delete the record of a source that is deleted."""
        forget_variable(self._variable)

    def _recent(self) -> dict[tuple[str, str], tuple[int, int]]:
        value = read_variable(self._variable)
        entries = value.get("pushes") if isinstance(value, Mapping) else None
        now = time.time()
        return {
            (entry[0], entry[1]): (entry[2], entry[3])
            for entry in (entries if isinstance(entries, list) else ())
            if isinstance(entry, list)
            and [type(each) for each in entry] == [str, str, int, int]
            and abs(now - entry[3]) < _SECONDS_IN_PIPELINE
        }


def _changes_in(value: object) -> list[Change]:
    entries = value.get("changes") if isinstance(value, Mapping) else None
    return [change for entry in entries or () if (change := _change(entry)) is not None]


def _change(entry: object) -> Change | None:
    if isinstance(entry, (list, tuple)) and len(entry) == 3 and all(isinstance(each, str) for each in entry):
        return Change(*entry)
    return None
