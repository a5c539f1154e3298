"""
The sources that a task of a bracket must not change, because its run opened another one.

A bracket keeps to the source that its run opened first. If the DAG file, a Variable or the result of a task
names another one since, a task that takes it from there would change a source that is not open. And the
bracket would delete from its own source what that task has not pushed to it again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.state.dry_tasks import TaskName, name_of_task, running_task_name

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenedSource:
    """
    The source that a bracket of the task's run opened.

    :param organization_id: Its organization.
    :param source_id: Its ID.
    :param open_task_id: The bracket's ``open``.
    :param named_now: Returns the organization and the source that the bracket's parameters name now.
    """

    organization_id: str
    source_id: str
    open_task_id: str
    named_now: Callable[[], tuple[str, str]]


_opened: dict[TaskName, tuple[OpenedSource, ...]] = {}
#: The sources that a task can change, by its own name, because they were checked.
_checked: set[tuple[TaskName, str, str]] = set()


def keep_to_sources(task_instance: object, opened: Sequence[OpenedSource]) -> None:
    """
    Record which sources the brackets of a task have opened.

    :param task_instance: The task instance.
    :param opened: The sources.
    """
    name = name_of_task(task_instance)
    _checked.difference_update([each for each in _checked if each[0] == name])
    if opened:
        _opened[name] = tuple(opened)
    else:
        _opened.pop(name, None)


def reject_moved_source(organization_id: str, source_id: str | None) -> None:
    """
    Reject a change of a source that a bracket of the running task names now, but has not opened.

    :param organization_id: The organization.
    :param source_id: The source, or ``None`` if a request changes none.
    :raises CoveoInputError: if the run opened another one; nothing is sent.
    """
    if not _opened or source_id is None:
        return
    name = running_task_name()
    opened, wanted = _opened.get(name, ()), (organization_id, source_id)
    if (name, *wanted) in _checked:
        return
    if not any((each.organization_id, each.source_id) == wanted for each in opened):
        for each in opened:
            if _named_now(each) == wanted:
                raise CoveoInputError(
                    f"Could not change the content of source {source_id!r}",
                    cause=f"this run opened source {each.source_id!r} by {each.open_task_id}, whose "
                    f"parameters name {source_id!r} since. That one is not open; and what goes there would "
                    f"be missing in {each.source_id!r}, where old items may be deleted",
                    remedy="Start a new run, which opens the other source; or change it back, and clear "
                    "this task",
                )
    _checked.add((name, *wanted))


def _named_now(opened: OpenedSource) -> tuple[str, str] | None:
    try:
        return opened.named_now()
    except Exception as error:
        log.info("Could not find out which source %s names now: %r", opened.open_task_id, error)
        return None
