"""Keeping a task from sending anything while the run of its bracket is dry."""

from __future__ import annotations

from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.state.dry_tasks import sends_in_dry_run


def reject_in_dry_run(method: str, path: str) -> None:
    """
    Reject a request that would change something in a bracket whose run is dry.

    :param method: The HTTP method.
    :param path: The path.
    :raises CoveoInputError: if it would; nothing is sent.
    """
    if sends_in_dry_run(method, path):
        raise CoveoInputError(
            f"Nothing was sent: {method} {path}",
            cause="the run of this task's bracket is dry, and this would change something at Coveo",
            remedy="Pass dry_run=True where the task pushes, or leave the call out if the run is dry",
        )
