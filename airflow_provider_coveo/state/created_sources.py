"""
Records of the sources that tasks created, in one Airflow Variable for each name.

The Variable is named ``coveo_made__<organization>__<digest of the name>``. It exists from before the request
until a task deletes the source. It distinguishes a source whose creation had no known result from one that
somebody else created. A later run can resume the creation.
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
    A source that a task is about to create, or has created.

    :param name: Its name, which no source had at that time.
    :param since: The time before the request, on Coveo's clock in epoch milliseconds.
    :param source_id: Its ID, once it is known.
    :param original_id: The source that was duplicated.
    :param original_name: The name of that source.
    :param tested: Whether the source has indexed its test item.
    """

    name: str
    since: int
    source_id: str | None = None
    original_id: str | None = None
    original_name: str | None = None
    tested: bool = False

    @classmethod
    def named(cls, organization_id: str, name: str) -> MadeSource | None:
        """Return the record of a source name, ``None`` if there is none."""
        made = from_record(cls, read_variable(cls._variable(organization_id, name)))
        return made if made is not None and made.name == name else None

    def keep(self, organization_id: str) -> None:
        """Save the record for later attempts and runs."""
        write_variable(
            self._variable(organization_id, self.name),
            asdict(self),
            f"The creation of the Coveo source {self.name!r}; safe to delete while no task is creating it.",
        )

    def forget(self, organization_id: str) -> None:
        """Delete the record, unless another task has changed it since."""
        if MadeSource.named(organization_id, self.name) == self:
            delete_variable(self._variable(organization_id, self.name))

    @staticmethod
    def _variable(organization_id: str, name: str) -> str:
        # A name can contain any character, and a Variable's key becomes part of URLs.
        return variable_name("coveo_made", organization_id, hashlib.sha256(name.encode()).hexdigest()[:16])
