"""Prevent a task from sending anything in its bracket's dry run, and from a dry run that would do harm."""

from __future__ import annotations

from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.state.dry_tasks import deleting_brackets, sends_in_dry_run


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


def reject_dry_push(source_id: str) -> None:
    """
    Reject the dry run of a push in a bracket that deletes the items that its run does not push.

    :param source_id: The source of the push.
    :raises CoveoInputError: if the bracket updates that source.
    """
    brackets = deleting_brackets()
    if not brackets:
        return
    # Otherwise, every push would load it.
    from airflow_provider_coveo.state.ledger import read_bracket

    records = [read_bracket(bracket) for bracket in brackets]
    if any(record is None or record.source_id == source_id for record in records):
        raise CoveoInputError(
            f"Could not do a dry run of a push to source {source_id!r}",
            cause="the bracket of this task is no dry run and deletes old items, so it would delete the "
            "items that are not pushed",
            remedy="Pass the same dry_run to push_source_update, or push in this run",
        )
