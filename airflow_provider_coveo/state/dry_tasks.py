"""Which tasks of this process work in a bracket whose run is dry, so that nothing of theirs may be sent."""

from __future__ import annotations

import re
from typing import Any, Final

from airflow.providers.common.compat.sdk import get_current_context

#: The reads that Coveo's APIs make a POST.
_READS: Final = re.compile(
    r"/indexes/fields/search|/activities/(public|latest)|/logs/v1/organizations/[^/]+.*"
)

_dry: set[tuple[str, str, str, int]] = set()


def mark_task(task_instance: object, *, is_dry: bool) -> None:
    """
    Record whether a task works in a bracket whose run is dry.

    :param task_instance: The task instance.
    :param is_dry: Whether it does.
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
    return verb in {"GET", "HEAD", "OPTIONS"} or (verb == "POST" and _READS.search(path) is not None)


def sends_in_dry_run(method: str, path: str) -> bool:
    """
    Return whether a request would change something, and comes from a task in a bracket whose run is dry.

    :param method: The HTTP method.
    :param path: The path.
    """
    if not _dry or is_read(method, path):
        return False
    try:
        context = get_current_context()
        return _name(context["ti"]) in _dry
    except Exception:
        # No task is running; which error says so depends on Airflow's version.
        return False


def _name(task_instance: Any) -> tuple[str, str, str, int]:
    return (
        str(task_instance.dag_id),
        str(task_instance.run_id),
        str(task_instance.task_id),
        int(getattr(task_instance, "map_index", -1)),
    )
