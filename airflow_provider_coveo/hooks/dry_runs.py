"""Prevent a task from sending anything while its bracket does a dry run."""

from __future__ import annotations

from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.state.dry_tasks import sends_in_dry_run


def reject_in_dry_run(method: str, path: str) -> None:
    """
    Reject a request that would change something while the task's bracket does a dry run.

    :param method: The HTTP method.
    :param path: The path.
    :raises CoveoInputError: if the request would change something; nothing is sent.
    """
    if sends_in_dry_run(method, path):
        raise CoveoInputError(
            f"Could not send {method} {path}",
            cause="the bracket of this task does a dry run, and the request would change something at Coveo",
            remedy="Pass dry_run=True to the task's pushes, or skip this call in a dry run",
        )
