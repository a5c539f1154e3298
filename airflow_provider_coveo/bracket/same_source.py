"""
Other brackets of a run that update the same source.

The cut-off is that of the run's first opening. So a deletion by it would also remove what another bracket of
the run pushed in the previous run, and has not pushed again yet.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from airflow_provider_coveo.bracket.dry_runs import DRY_RUN_XCOM_KEY
from airflow_provider_coveo.bracket.expansion import expanded_fields, indexes_of_source
from airflow_provider_coveo.bracket.members import (
    UpdateTasks,
    bracket_map_index,
    bracket_role,
    dag_of,
    is_exclusive,
    mapped_group_id,
    member_ids,
)
from airflow_provider_coveo.state.airflow_runs import task_states
from airflow_provider_coveo.state.ledger import Holder, read_bracket

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_coveo.state.airflow_types import Operator

log = logging.getLogger(__name__)

#: The states of a task that pushes nothing more to the source in this run.
_ENDED: Final = frozenset({"success", "skipped", "removed"})
_FAILED: Final = frozenset({"failed", "upstream_failed"})


class Beside(NamedTuple):
    """
    The ``open`` tasks of other brackets that update a source in this run, and have not ended well.

    :param keep: Those for which old items must stay: they failed, or delete old items themselves.
    :param work: Those that are at work, and after which old items can be deleted.
    """

    keep: list[str]
    work: list[str]


def brackets_beside(
    context: Context, update_tasks: UpdateTasks, source_id: str, opened: Iterable[tuple[str, int]]
) -> Beside:
    """
    Return the other brackets that update a source in this run, and have not ended well.

    A bracket that follows this one updates what this one leaves, so it does not count.

    :param context: The context of one of the bracket's tasks.
    :param update_tasks: The bracket's tasks.
    :param source_id: The source.
    :param opened: The brackets of the run that have opened it: their ``open`` and map index.
    """
    below = context["task"].get_flat_relative_ids(upstream=False) | {update_tasks.open}
    others = {
        task.task_id: task
        for task in dag_of(context["task"]).tasks
        if bracket_role(task) == "open" and task.task_id not in below
    }
    if not others:
        return Beside([], [])
    found: set[tuple[str, int]] = {each for each in opened if each[0] in others}
    for opening in others.values():
        found |= {
            (opening.task_id, index)
            for index in _indexes_with_source(context, opening, update_tasks, source_id)
        }
    in_state = {
        name: state
        for name, index in sorted(found)
        if (state := _state_of(context, others[name], index, source_id)) != "ended"
    }
    is_exclusive_here = is_exclusive(dag_of(context["task"]).get_task(update_tasks.open))
    # An exclusive one would wait for the other to close its source.
    waits = {
        name
        for name, state in in_state.items()
        if state == "works"
        and not (is_exclusive_here or is_exclusive(others[name]) or _deletes(others[name]))
    }
    return Beside([name for name in in_state if name not in waits], sorted(waits))


def _indexes_with_source(
    context: Context, opening: Operator, update_tasks: UpdateTasks, source_id: str
) -> Iterable[int]:
    """Return the map indexes of another bracket whose source is the given one, as far as it is known now."""
    run = context["ti"]
    group = mapped_group_id(opening)
    own = bracket_map_index(context, update_tasks)
    try:
        is_beside = group == mapped_group_id(dag_of(context["task"]).get_task(update_tasks.open))
        if group is None or is_beside or "source_id" not in expanded_fields(opening):
            value = opening.render_template(getattr(opening, "source_id", None), context)
            if value != source_id:
                return []
            if group is None or is_beside:
                return [-1 if group is None else own]
        indexes = task_states(run.dag_id, run.run_id, [opening.task_id])[opening.task_id]
        return indexes_of_source(context, opening, source_id, [each for each in indexes if each >= 0]) or []
    except Exception as error:
        # It may depend on a task that has not run yet.
        log.info("Could not find out which source %s opens: %s", opening.task_id, error)
        return []


def _state_of(context: Context, opening: Operator, index: int, source_id: str) -> str:
    """Return whether a bracket has ``ended`` well, ``works``, or has ``failed``."""
    run = context["ti"]
    names = [opening.task_id, *member_ids(dag_of(context["task"]), opening.update_tasks)]  # type: ignore[union-attr]
    found = task_states(run.dag_id, run.run_id, names)
    # All tasks of a mapped bracket are in its task group.
    states = {state for name in names for each, state in found[name].items() if index in {-1, each}}
    has_ended = bool(states) and states <= _ENDED
    if has_ended and not _was_dry(context, opening, index):
        return "ended"
    record = read_bracket(Holder(run.dag_id, run.run_id, opening.task_id, index))
    if record is not None and record.is_pinned and record.source_id != source_id:
        return "ended"
    return "failed" if has_ended or states & _FAILED else "works"


def _deletes(opening: Operator) -> bool:
    return bool(opening.deletes_old_items)  # type: ignore[union-attr]


def _was_dry(context: Context, opening: Operator, index: int) -> bool:
    if getattr(opening, "is_dry_run", False) is False:
        return False
    return bool(context["ti"].xcom_pull(task_ids=opening.task_id, key=DRY_RUN_XCOM_KEY, map_indexes=index))
