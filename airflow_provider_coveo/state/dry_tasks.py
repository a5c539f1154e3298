"""The tasks of this process whose bracket does a dry run: none of their requests may change anything."""

from __future__ import annotations

import re
from typing import Any, Final

from airflow.providers.common.compat.sdk import get_current_context

#: Reads for which Coveo's APIs use POST.
_READS: Final = r"/indexes/fields/search|/activities/(public|latest)|/logs/v1/organizations/[^/]+.*"

_dry: set[tuple[str, str, str, int]] = set()


def mark_task(task_instance: object, *, is_dry: bool) -> None:
    """
    Record whether a task's bracket does a dry run.

    :param task_instance: The task instance.
    :param is_dry: Whether it does a dry run.
    """
    if is_dry:
        _dry.add(_name(task_instance))
    else:
        _dry.discard(_name(task_instance))


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
    if not _dry or is_read(method, path):
        return False
    try:
        context = get_current_context()
        return _name(context["ti"]) in _dry
    except Exception:
        # No task is running; the type of the error depends on Airflow's version.
        return False


def _name(task_instance: Any) -> tuple[str, str, str, int]:
    return (
        str(task_instance.dag_id),
        str(task_instance.run_id),
        str(task_instance.task_id),
        int(getattr(task_instance, "map_index", -1)),
    )
