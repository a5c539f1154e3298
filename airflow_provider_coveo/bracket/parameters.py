"""The parameters of a bracket that shape its DAG, or that are validated while the DAG is parsed."""

from __future__ import annotations

from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.max_deleted import MaxDeleted


def is_template(value: object) -> bool:
    """
    Return whether a value is known only when the task runs: a template, or another task's output.

    :param value: The value.
    """
    return "{" in value if isinstance(value, str) else not isinstance(value, (int, float, bytes, type(None)))


def validate_flag(name: str, value: object) -> bool:
    """
    Return a parameter that is ``True`` or ``False``.

    :param name: The parameter.
    :param value: Its value.
    :raises CoveoInputError: if it is something else.
    """
    if isinstance(value, bool):
        return value
    raise CoveoInputError(
        f"Invalid {name}: {short_repr(value)}",
        cause="any string counts as true in Python, even one that renders to 'false'",
        remedy=f"Use True or False; {name} shapes the DAG, so it can't be a template",
    )


def validate_deleting_status(status: object) -> str:
    """
    Return a status that allows deleting old items.

    :param status: The status.
    :raises CoveoInputError: if it is ``INCREMENTAL``.
    """
    if str(status).strip().upper() == "INCREMENTAL":
        raise CoveoInputError(
            "Invalid delete_old_items: True with status INCREMENTAL",
            cause="an incremental update pushes only what changed, so this would delete everything else",
            remedy="Delete items by their IDs, or use REBUILD and push everything",
        )
    return str(status)


def validate_deletion_limit(max_deleted: object, source_id: object, *, deletes: bool) -> None:
    """
    Validate the limit of a bracket's deletion.

    :param max_deleted: The limit, or a template.
    :param source_id: The source.
    :param deletes: Whether the bracket deletes old items.
    :raises CoveoInputError: if it is invalid, or there is nothing to limit.
    """
    if max_deleted is None:
        return
    if not deletes:
        raise CoveoInputError(
            f"The bracket of source {source_id!r} has max_deleted, but not delete_old_items",
            cause="the limit is for the deletion of old items, which the bracket does not do",
            remedy="Pass delete_old_items=True; or, if a push with only_changes deletes, pass max_deleted to "
            "that push",
        )
    if not is_template(max_deleted):
        MaxDeleted.parse(max_deleted)
