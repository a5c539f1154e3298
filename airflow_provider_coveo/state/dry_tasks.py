"""
The tasks of this process whose bracket does a dry run: none of their requests may change anything.

And those whose bracket deletes old items: a dry run of a push in it would let the items be deleted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.common.compat.sdk import get_current_context

if TYPE_CHECKING:
    from airflow_provider_coveo.state.ledger import Holder

#: The name of a task instance: its DAG, run, task and map index.
TaskName = tuple[str, str, str, int]
#: Reads for which Coveo's APIs use POST.
_READS: Final = r"/indexes/fields/search|/activities/(public|latest)|/logs/v1/organizations/[^/]+.*"

_dry: set[TaskName] = set()
_deleting: dict[TaskName, tuple[Holder, ...]] = {}


def mark_task(task_instance: object, *, is_dry: bool, deleting: Sequence[Holder] = ()) -> None:
    """
    Record whether a task's brackets do a dry run, and which of them delete old items.

    :param task_instance: The task instance.
    :param is_dry: Whether they do a dry run.
    :param deleting: The brackets that do no dry run and delete old items. Default none.
    """
    name = name_of_task(task_instance)
    if is_dry:
        _dry.add(name)
    else:
        _dry.discard(name)
    if deleting:
        _deleting[name] = tuple(deleting)
    else:
        _deleting.pop(name, None)


def is_read(method: str, path: str) -> bool:
    """
    Return whether a request changes nothing.

    :param method: The HTTP method.
    :param path: The path.
    """
    verb = method.upper()
    return verb in {"GET", "HEAD", "OPTIONS"} or (verb == "POST" and re.search(_READS, path) is not None)


def sends_in_dry_run(method: str, path: str) -> bool:
    """
    Return whether a request would change something, and comes from a task whose bracket does a dry run.

    :param method: The HTTP method.
    :param path: The path.
    """
    return bool(_dry) and not is_read(method, path) and running_task_name() in _dry


def deleting_brackets() -> Sequence[Holder]:
    """Return the brackets of the running task that do no dry run and delete old items."""
    return _deleting.get(running_task_name(), ()) if _deleting else ()


def running_task_name() -> TaskName:
    """Return the running task, or an empty name."""
    try:
        return name_of_task(get_current_context()["ti"])
    except Exception:
        # No task is running; the type of the error depends on Airflow's version.
        return "", "", "", -1


def name_of_task(task_instance: Any) -> TaskName:
    """
    Return the name of a task instance.

    :param task_instance: The task instance.
    """
    return (
        str(task_instance.dag_id),
        str(task_instance.run_id),
        str(task_instance.task_id),
        int(getattr(task_instance, "map_index", -1)),
    )
