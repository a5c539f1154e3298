"""
What changed the content of a source, so that a push knows whether its batches still stand.

The record is the Airflow Variable ``coveo_changes__<organization>__<source>``: the last changes, the latest
last, each with a name of its own, the run that made it, and the push that made it, if it was one that can be
resumed. What Coveo accepted of such a push still stands if nobody but that push itself changed the content
since. Pushes of one run that only add items are not told apart: in which order they come is left open by
their DAG.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from airflow_provider_coveo.state.variables import (
    forget_variable,
    read_variable,
    update_variable,
    variable_name,
    write_variable,
)

#: How many changes are recorded, the latest ones. A push whose beginning is older is not resumed.
_MAX_CHANGES: Final = 50
#: Of how many tasks it is recorded how much they pushed, and for how long that may matter: the pipeline is
#: through with most items in minutes.
_MAX_PUSHES: Final = 100
_SECONDS_IN_PIPELINE: Final = 3600


@dataclass(frozen=True)
class Change:
    """
    A change of a source's content.

    :param name: A name that no other change has.
    :param run: The run that made it.
    :param push: The push that made it, if it can be resumed; the run itself where pushes of it that only add
        items began.
    """

    name: str
    run: str
    push: str = ""


class ContentChanges:
    """
    The changes of the content of one source.

    :param organization_id: The organization.
    :param source_id: The source.
    """

    def __init__(self, organization_id: str, source_id: str) -> None:
        self._variable = variable_name("coveo_changes", organization_id, source_id)

    def all(self) -> list[Change]:
        """Return the changes that are on record, the latest last."""
        return _changes_in(read_variable(self._variable))

    def last(self) -> Change | None:
        """Return the latest change, ``None`` if none is on record."""
        changes = self.all()
        return changes[-1] if changes else None

    def add(self, run: str, push: str = "", *, mark: str = "") -> Change:
        """
        Record a change, before it is made or after.

        :param run: The run that makes it.
        :param push: The push that makes it, if it can be resumed.
        :param mark: What its name begins with, by which a push of only what changed knows its own.
        :return: The change.
        """
        change = Change(mark + uuid.uuid4().hex[:16], run, push)

        def with_change(value: object) -> tuple[dict[str, Any], Change]:
            changes = [*_changes_in(value), change][-_MAX_CHANGES:]
            return {"changes": [[each.name, each.run, each.push] for each in changes]}, change

        return update_variable(
            self._variable,
            with_change,
            "What changed a Coveo source's content last; safe to delete while no task pushes to it.",
        )

    def of_run(self, run: str) -> Change:
        """Return the latest change, once one of that run is: to be recorded when a push of it begins."""
        last = self.last()
        is_of_pushes = last is not None and last.run == run and last.push
        return last if last is not None and is_of_pushes else self.add(run, run)

    def still_stands(self, name: str, run: str, push: str) -> bool:
        """
        Say whether nothing but one push changed the content since, pushes of its run that add items apart.

        :param name: The change since which.
        :param run: The run.
        :param push: The push.
        """
        changes = self.all()
        names = [change.name for change in changes]
        if name not in names:
            return False
        return all(change.push in {run, push} for change in changes[names.index(name) + 1 :])

    def forget(self) -> None:
        """Delete the record, because the source is deleted."""
        forget_variable(self._variable)


class RecentPushes:
    """
    How much each task pushed to a source lately, so that a try knows what of others may be in the pipeline.

    The Airflow Variable ``coveo_pushed__<organization>__<source>`` holds it. Where two tasks write at the
    same time, one of the two may be lost.

    :param organization_id: The organization.
    :param source_id: The source.
    """

    def __init__(self, organization_id: str, source_id: str) -> None:
        self._variable = variable_name("coveo_pushed", organization_id, source_id)

    def batches_before(self, push: str, this_try: str) -> int:
        """
        Return how many batches other tries of a task sent within the last hour.

        :param push: The task.
        :param this_try: Its present try.
        """
        return sum(
            batches
            for (its_push, its_try), (batches, _) in self._recent().items()
            if its_push == push and its_try != this_try
        )

    def add(self, push: str, this_try: str, batches: int) -> None:
        """
        Record that a try has sent batches.

        :param push: The task.
        :param this_try: Its present try.
        :param batches: How many.
        """
        recent = self._recent()
        before, _ = recent.pop((push, this_try), (0, 0))
        recent[push, this_try] = (before + batches, int(time.time()))
        write_variable(
            self._variable,
            {"pushes": [[*key, *value] for key, value in recent.items()][-_MAX_PUSHES:]},
            "How much was pushed to a Coveo source within the last hour; safe to delete.",
        )

    def forget(self) -> None:
        """Delete the record, because the source is deleted."""
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
