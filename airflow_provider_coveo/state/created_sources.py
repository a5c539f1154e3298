"""
How tasks created sources, in one Airflow Variable a name.

The Variable is named ``coveo_made__<organization>__<digest of the name>`` and exists from before the request
until a task deletes the source. It tells a source whose creation nobody heard the end of from one that
somebody else created. A later run may resume what an earlier one began.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass

from airflow_provider_coveo.state.records import from_record
from airflow_provider_coveo.state.variables import (
    delete_variable,
    read_variable,
    variable_name,
    write_variable,
)


@dataclass(frozen=True)
class MadeSource:
    """
    A source that a task is about to create, or created.

    :param name: Its name, which no source had at that time.
    :param since: The time before the request, on Coveo's clock in epoch milliseconds.
    :param source_id: Its ID, once that is known.
    :param original_id: The source that it is a copy of.
    :param original_name: The name of that source.
    :param tested: Whether it has been seen to index an item.
    """

    name: str
    since: int
    source_id: str | None = None
    original_id: str | None = None
    original_name: str | None = None
    tested: bool = False

    @classmethod
    def named(cls, organization_id: str, name: str) -> MadeSource | None:
        """Return what is known of the creation of that name, ``None`` if nothing is."""
        made = from_record(cls, read_variable(cls._variable(organization_id, name)))
        return made if made is not None and made.name == name else None

    def keep(self, organization_id: str) -> None:
        """Store this for later attempts and runs."""
        write_variable(
            self._variable(organization_id, self.name),
            asdict(self),
            f"How the Coveo provider made the source {self.name!r}; safe to delete while no task makes it.",
        )

    def forget(self, organization_id: str) -> None:
        """Delete this, unless another task has stored something else by now."""
        if MadeSource.named(organization_id, self.name) == self:
            delete_variable(self._variable(organization_id, self.name))

    @staticmethod
    def _variable(organization_id: str, name: str) -> str:
        # A name may hold anything, and a Variable's key is part of URLs.
        return variable_name("coveo_made", organization_id, hashlib.sha256(name.encode()).hexdigest()[:16])
