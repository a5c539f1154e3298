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

#: Reads for which Coveo's APIs use POST.
_READS: Final = r"/indexes/fields/search|/activities/(public|latest)|/logs/v1/organizations/[^/]+.*"

_dry: set[tuple[str, str, str, int]] = set()
_deleting: dict[tuple[str, str, str, int], tuple[Holder, ...]] = {}


def mark_task(task_instance: object, *, is_dry: bool, deleting: Sequence[Holder] = ()) -> None:
    """
    Record whether a task's brackets do a dry run, and which of them delete old items.

    :param task_instance: The task instance.
    :param is_dry: Whether they do a dry run.
    :param deleting: The brackets that do no dry run and delete old items. Default none.
    """
    name = _name(task_instance)
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
    return bool(_dry) and not is_read(method, path) and _running() in _dry


def deleting_brackets() -> Sequence[Holder]:
    """Return the brackets of the running task that do no dry run and delete old items."""
    return _deleting.get(_running(), ()) if _deleting else ()


def _running() -> tuple[str, str, str, int]:
    """Return the running task, or an empty name."""
    try:
        return _name(get_current_context()["ti"])
    except Exception:
        # No task is running; the type of the error depends on Airflow's version.
        return "", "", "", -1


def _name(task_instance: Any) -> tuple[str, str, str, int]:
    return (
        str(task_instance.dag_id),
        str(task_instance.run_id),
        str(task_instance.task_id),
        int(getattr(task_instance, "map_index", -1)),
    )
