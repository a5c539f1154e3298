"""
Other brackets of a run that update the same source.

The cut-off is that of the run's first opening. So a deletion by it would also remove what another bracket of
the run pushed in the previous run, and has not pushed again yet.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from airflow_provider_coveo.bracket.expansion import indexes_of_source
from airflow_provider_coveo.bracket.members import UpdateTasks, bracket_role, dag_of, member_ids
from airflow_provider_coveo.state.airflow_runs import TaskStates, task_states

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import DAG, Context

    from airflow_provider_coveo.state.airflow_types import Operator

log = logging.getLogger(__name__)

#: The states of a task that has pushed what it pushes; one that is no longer mapped pushes nothing.
_DONE: Final = frozenset({"success", "removed"})


def brackets_that_may_still_push(context: Context, update_tasks: UpdateTasks, source_id: str) -> list[str]:
    """
    Return the ``open`` tasks of the other brackets of the DAG that have not pushed all they push to a source.

    A bracket that is skipped pushes nothing. One that follows this bracket updates what this one leaves.

    :param context: The context of one of the bracket's tasks.
    :param update_tasks: The bracket's tasks.
    :param source_id: The source.
    """
    dag, below = dag_of(context["task"]), context["task"].get_flat_relative_ids(upstream=False)
    others = {
        task.task_id: member_ids(dag, task.update_tasks)  # type: ignore[union-attr]
        for task in dag.tasks
        if bracket_role(task) == "open"
        and task.task_id not in below | {update_tasks.open}
        and _has_source(context, task, source_id)
    }
    if not others:
        return []
    every = [*others, *(name for names in others.values() for name in names)]
    found = task_states(context["ti"].dag_id, context["ti"].run_id, every)
    return sorted(opening for opening, names in others.items() if not _is_done(dag, found, opening, names))


def _is_done(dag: DAG, found: TaskStates, opening: str, names: list[str]) -> bool:
    states = set(found[opening].values())
    if states and states <= {"skipped", "removed"}:
        return True
    pushing = [found[name] for name in names if not getattr(dag.get_task(name), "is_setup", False)]
    return bool(states) and all(set(by_index.values()) <= _DONE for by_index in [found[opening], *pushing])


def _has_source(context: Context, opening: Operator, source_id: str) -> bool:
    try:
        value = getattr(opening, "source_id", None)
        if getattr(opening, "expanded_fields", ()):
            return indexes_of_source(context, opening, source_id, ()) is not None
        return bool(opening.render_template(value, context) == source_id)
    except Exception as error:
        # It may depend on a task that has not run yet.
        log.info("Could not find out which source %s opens: %s", opening.task_id, error)
        return False
