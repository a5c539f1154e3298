"""How a push finds out what changed since the last one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.max_deleted import MaxDeleted

#: By default, that share of the items that the snapshot knows may be missing from the input.
DEFAULT_MAX_DELETED: Final = "20%"
DEFAULT_FULL_AFTER: Final = timedelta(days=7)


@dataclass(frozen=True)
class OnlyChanges:
    """
    How a push finds out what changed since the last one.

    The result of such a push has more keys: ``added``, ``updated`` and ``deleted``: how many entries of the
    input were new, how many known with another content, and how many deletions were sent; ``unchanged``: how
    many entries were left out; ``saved_items`` and ``saved_calls``: how many items fewer were sent than to
    push everything, and about how many requests; ``full_because``: why everything was pushed, ``None`` if
    only changes were; ``snapshot``: where the snapshot is.

    :param snapshot_path: The folder for snapshots, local or on an object storage, that all workers reach.
        Default: as the connection's extra ``snapshot_path`` says.
    :param max_deleted: How many items may be deleted because the input lacks them: a number, or a share of
        those that the snapshot knows, such as ``"5%"``. If more are missing, none is deleted, and the push
        fails. Default ``"20%"``.
    :param full_after: How long only changes are pushed before everything is pushed again. Default seven days.
    :param on_damaged_snapshot: ``fail`` (the default), or ``push_all`` to push everything as if there were
        none.
    :param name: The name of the snapshot. Default: the DAG, the task and the map index of the running task.
    """

    snapshot_path: str | None = None
    max_deleted: int | str = DEFAULT_MAX_DELETED
    full_after: timedelta = DEFAULT_FULL_AFTER
    on_damaged_snapshot: str = "fail"
    name: str | None = None

    def validate(self) -> MaxDeleted:
        """
        Check the parameters, but for the path.

        :return: How many items may be deleted.
        :raises CoveoInputError: if one is invalid.
        """
        if self.on_damaged_snapshot not in {"fail", "push_all"}:
            raise CoveoInputError(
                f"Invalid on_damaged_snapshot: {short_repr(self.on_damaged_snapshot)}",
                remedy="Use 'fail' or 'push_all'",
            )
        if not isinstance(self.full_after, timedelta) or self.full_after <= timedelta(0):
            raise CoveoInputError(
                f"Invalid full_after: {short_repr(self.full_after)}", remedy="Give a timedelta above zero"
            )
        if self.name is not None and (not isinstance(self.name, str) or not self.name.strip()):
            raise CoveoInputError(
                f"Invalid name of a snapshot: {short_repr(self.name)}", remedy="Give a text, or leave it out"
            )
        return MaxDeleted.parse(self.max_deleted)
