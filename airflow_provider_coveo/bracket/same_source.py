"""
Other brackets of a run that update the same source.

The cut-off is that of the run's first opening. So a deletion by it would also remove what another bracket of
the run pushed in the previous run, and has not pushed again yet.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from airflow_provider_coveo.bracket.dry_runs import said_dry
from airflow_provider_coveo.bracket.expansion import expanded_fields, indexes_of_source
from airflow_provider_coveo.bracket.members import (
    UpdateTasks,
    bracket_map_index,
    bracket_role,
    dag_of,
    is_exclusive,
    mapped_group_id,
    member_ids,
    opening_of,
)
from airflow_provider_coveo.state.airflow_runs import FINISHED_STATES, task_states
from airflow_provider_coveo.state.ledger import Holder, read_bracket

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_coveo.state.airflow_types import Operator

log = logging.getLogger(__name__)

#: The states of a task that pushes nothing more to the source in this run.
_ENDED: Final = FINISHED_STATES - {"failed", "upstream_failed"}
_FAILED: Final = FINISHED_STATES - _ENDED


class Beside(NamedTuple):
    """
    The ``open`` tasks of other brackets that update a source in this run, and have not ended well.

    :param keep: Those for which old items must stay: they failed, keep their own old items, or delete old
        items themselves.
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
    dag, below = dag_of(context["task"]), context["task"].get_flat_relative_ids(upstream=False)
    others = {
        task.task_id: task
        for task in dag.tasks
        if bracket_role(task) == "open" and task.task_id not in {*below, update_tasks.open}
    }
    if not others:
        return Beside([], [])
    found: set[tuple[str, int]] = {each for each in opened if each[0] in others}
    for name, opening in others.items():
        indexes = _indexes_with_source(context, opening, update_tasks, source_id)
        found.update((name, index) for index in indexes)
    if not found:
        return Beside([], [])
    tasks = {name: [name, *member_ids(dag, others[name].update_tasks)] for name, _ in found}  # type: ignore[union-attr]
    every = {task_id for task_ids in tasks.values() for task_id in task_ids}
    states = task_states(context["ti"].dag_id, context["ti"].run_id, every)
    in_state: dict[str, str] = {}
    for name, index in sorted(found):
        by_task = [states[task_id] for task_id in tasks[name]]
        state = _state_of(context, others[name], index, source_id, by_task)
        if state != "ended":
            in_state[name] = state
    is_exclusive_here = is_exclusive(opening_of(context, update_tasks))
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
        is_beside = group == mapped_group_id(opening_of(context, update_tasks))
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


def _state_of(
    context: Context,
    opening: Operator,
    index: int,
    source_id: str,
    by_task: Iterable[Mapping[int, str | None]],
) -> str:
    """Return whether a bracket has ``ended`` well, ``works``, or has ``failed``."""
    # All tasks of a mapped bracket are in its task group.
    states = {state for by_index in by_task for each, state in by_index.items() if index in {-1, each}}
    has_ended = bool(states) and states <= _ENDED
    is_dry = getattr(opening, "is_dry_run", False) is not False and said_dry(context, opening, index)
    # What a skipped task did not push again stays, whichever bracket deletes last.
    keeps_items = _deletes(opening) and {"skipped", "success"} <= states
    if has_ended and not is_dry and not keeps_items:
        return "ended"
    run = context["ti"]
    record = read_bracket(Holder(run.dag_id, run.run_id, opening.task_id, index))
    if record is not None and record.is_pinned and record.source_id != source_id:
        return "ended"
    return "failed" if has_ended or states & _FAILED else "works"


def _deletes(opening: Operator) -> bool:
    return bool(opening.deletes_old_items)  # type: ignore[union-attr]
