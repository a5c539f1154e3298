"""The options of a push of only changes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.max_deleted import MaxDeleted

#: The default maximum share of the items in the snapshot that the input may lack.
DEFAULT_MAX_DELETED: Final = "20%"
DEFAULT_FULL_AFTER: Final = timedelta(days=7)


@dataclass(frozen=True)
class OnlyChanges:
    """
    The options of a push of only what changed since the last push.

    The result of such a push has additional keys: ``added`` and ``updated``: the number of new and of changed
    input entries; ``deleted``: the number of deletions sent; ``unchanged``: the number of entries left out;
    ``saved_items`` and ``saved_calls``: how many fewer items, and about how many fewer requests, were sent
    than for a push of everything; ``full_because``: why everything was pushed, or ``None`` if only changes
    were; ``snapshot``: the URL or path of the snapshot.

    :param snapshot_path: The folder for snapshots, local or on object storage. All workers must be able to
        reach it. Default: the connection's extra ``snapshot_path``.
    :param max_deleted: The maximum number of items to delete because the input lacks them: a number, or a
        share of the items in the snapshot, such as ``"5%"``. If more are missing, none is deleted, and the
        push fails. Default ``"20%"``.
    :param full_after: The time after which everything is pushed again. Default seven days.
    :param on_damaged_snapshot: ``fail`` (the default), or ``push_all`` to push everything as if there were
        no snapshot.
    :param name: The name of the snapshot. Default: the DAG, the task and the map index of the running task.
    """

    snapshot_path: str | None = None
    max_deleted: int | str = DEFAULT_MAX_DELETED
    full_after: timedelta = DEFAULT_FULL_AFTER
    on_damaged_snapshot: str = "fail"
    name: str | None = None

    def validate(self) -> MaxDeleted:
        """
        Validate the parameters, except the path.

        :return: The limit for deletions.
        :raises CoveoInputError: if one is invalid.
        """
        if self.on_damaged_snapshot not in ("fail", "push_all"):
            raise CoveoInputError(
                f"Invalid on_damaged_snapshot: {short_repr(self.on_damaged_snapshot)}",
                remedy="Use 'fail' or 'push_all'",
            )
        if not isinstance(self.full_after, timedelta) or self.full_after <= timedelta(0):
            raise CoveoInputError(
                f"Invalid full_after: {short_repr(self.full_after)}", remedy="Pass a timedelta above zero"
            )
        if self.name is not None and (not isinstance(self.name, str) or not self.name.strip()):
            raise CoveoInputError(
                f"Invalid snapshot name: {short_repr(self.name)}", remedy="Pass a text, or omit it"
            )
        return MaxDeleted.parse(self.max_deleted)
