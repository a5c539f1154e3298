"""
The latest stored snapshot of each part of a mapped task, to detect that somebody restored an older one.

The Airflow Variable ``coveo_part__<organization>__<source>__<task>__<map index>`` is the record of one part.
Parts that run at the same time write different Variables. ``coveo_parts__<organization>__<source>`` counts
them, so that they can be deleted.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Final

from airflow_provider_coveo.state.variables import (
    forget_variable,
    read_variable,
    variable_name,
    write_variable,
)

#: The number of tasks whose parts are recorded.
_MAX_TASKS: Final = 50
_DESCRIPTION: Final = (
    "Snapshots of a mapped task that pushes to Coveo; without it, the task pushes everything."
)


@dataclass(frozen=True)
class StoredPart:
    """
    The stored snapshot of one part.

    :param versions: The version of its snapshot; while it is being replaced, the old and the new version.
    :param push: The push that has written to its journal since, empty if there is none.
    """

    versions: tuple[str, ...] = ()
    push: str = ""

    def is_stored(self, version: str, pushes: Container[str]) -> bool:
        """
        Return whether a snapshot can be the latest stored one.

        :param version: Its version, empty if there is none.
        :param pushes: The pushes in its journal, and those that it already contains.
        """
        return version in self.versions and (not self.push or self.push in pushes)


class SnapshotParts:
    """
    The parts of the mapped tasks that push to one source.

    :param organization_id: The organization.
    :param source_id: The source.
    """

    def __init__(self, organization_id: str, source_id: str) -> None:
        self._names = (organization_id, source_id)
        self._counts_variable = variable_name("coveo_parts", *self._names)

    def read(self, task: str, map_index: int) -> StoredPart | None:
        """
        Return the record of a part, ``None`` if there is none.

        :param task: A short name of the task.
        :param map_index: The part's map index.
        """
        value = read_variable(self._variable(task, map_index))
        versions = value.get("versions") if isinstance(value, Mapping) else None
        if not isinstance(versions, list) or not all(isinstance(each, str) for each in versions):
            return None
        return StoredPart(tuple(versions), str(value.get("push") or ""))

    def write(self, task: str, map_index: int, part: StoredPart) -> None:
        """
        Record the stored snapshot of a part.

        :param task: A short name of the task.
        :param map_index: The part's map index.
        :param part: The stored snapshot.
        """
        value = {"versions": list(part.versions), "push": part.push}
        write_variable(self._variable(task, map_index), value, _DESCRIPTION)

    def fit(self, task: str, map_index: int, count: int | None) -> None:
        """
        Record the number of a task's parts. The first part deletes the records of parts that no longer exist.

        :param task: A short name of the task.
        :param map_index: The map index of the part that runs.
        :param count: The number of parts, ``None`` if unknown.
        """
        counts = self._counts()
        known = counts.get(task, 0)
        wanted = max(known, map_index + 1) if count is None else count
        if wanted > known or (map_index == 0 and wanted < known):
            self._forget_from(task, wanted, known)
            counts.pop(task, None)
            counts[task] = wanted
            for oldest in list(counts)[:-_MAX_TASKS]:
                self._forget_from(oldest, 0, counts.pop(oldest))
            write_variable(self._counts_variable, {"tasks": counts}, _DESCRIPTION)

    def forget(self) -> None:
        """Delete the records of a deleted source."""
        for task, count in self._counts().items():
            self._forget_from(task, 0, count)
        forget_variable(self._counts_variable)

    def _counts(self) -> dict[str, int]:
        value = read_variable(self._counts_variable)
        tasks = value.get("tasks") if isinstance(value, Mapping) else None
        if not isinstance(tasks, Mapping):
            return {}
        return {str(task): count for task, count in tasks.items() if type(count) is int}

    def _forget_from(self, task: str, first: int, count: int) -> None:
        for map_index in range(first, count):
            forget_variable(self._variable(task, map_index))

    def _variable(self, task: str, map_index: int) -> str:
        return variable_name("coveo_part", *self._names, task, str(map_index))
