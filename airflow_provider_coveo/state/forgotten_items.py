"""
What the journals of a source's snapshots must contain: the items to push again, because Coveo rejected them.

The record is the Airflow Variable ``coveo_forgotten__<organization>__<source>``. A sensor writes it before it
writes such an item to a journal. If the journal lacks the item later, somebody restored an older one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from airflow_provider_coveo.state.variables import (
    forget_variable,
    read_variable,
    update_variable,
    variable_name,
)

#: The number of entries, one for each snapshot and journal record. The next push removes them.
_MAX_ENTRIES: Final = 500
_DESCRIPTION: Final = "Items that Coveo rejected; without it, an older snapshot may pass for the latest one."


class ForgottenItems:
    """
    The journal records that sensors wrote for the snapshots of one source.

    :param organization_id: The organization.
    :param source_id: The source.
    """

    def __init__(self, organization_id: str, source_id: str) -> None:
        self._variable = variable_name("coveo_forgotten", organization_id, source_id)

    def of(self, snapshot: str) -> set[str]:
        """
        Return the names of the records that a snapshot or its journal must contain.

        :param snapshot: The URL of the snapshot.
        """
        before = _entry(snapshot, "")
        return {
            entry.removeprefix(before)
            for entry in _entries(read_variable(self._variable))
            if entry.startswith(before)
        }

    def add(self, snapshots: Iterable[str], record: str) -> None:
        """
        Add a record, before it is written.

        :param snapshots: The URLs of the snapshots.
        :param record: The name of the record.
        """
        self._change(added=[_entry(snapshot, record) for snapshot in snapshots])

    def remove(self, snapshot: str, records: Iterable[str]) -> None:
        """
        Remove records that no longer matter.

        :param snapshot: The URL of the snapshot.
        :param records: Their names.
        """
        self._change(removed={_entry(snapshot, record) for record in records})

    def forget(self) -> None:
        """Delete the record of a source that is deleted."""
        forget_variable(self._variable)

    def _change(self, *, added: Collection[str] = (), removed: Collection[str] = ()) -> None:
        def changed(value: object) -> tuple[dict[str, object] | None, None]:
            before = _entries(value)
            after = [entry for entry in before if entry not in removed] + [*added]
            return (None if after == before else {"records": after[-_MAX_ENTRIES:]}), None

        update_variable(self._variable, changed, _DESCRIPTION)


def _entry(snapshot: str, record: str) -> str:
    return f"{hashlib.sha256(snapshot.encode()).hexdigest()[:12]} {record}"


def _entries(value: object) -> list[str]:
    records = value.get("records") if isinstance(value, Mapping) else None
    return [entry for entry in records if isinstance(entry, str)] if isinstance(records, list) else []
