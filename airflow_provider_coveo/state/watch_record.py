"""
The watchdog's latest view of an organization's sources at Coveo, for Airflow's page *Push sources*.

It is one Variable for each organization, ``coveo_watch__<organization>``, which only the watchdog writes.
No change of a source depends on it, so it can be deleted at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Final

from airflow_provider_coveo.state.records import from_record
from airflow_provider_coveo.state.variables import read_variable, variable_name, write_variable

_VERSION: Final = 1
#: The number of sources of an organization that are recorded; active ones come first.
MAX_SOURCES: Final = 2000
#: The maximum length of a name or a text from Coveo.
_MAX_TEXT: Final = 200


@dataclass(frozen=True)
class SeenSource:
    """
    A source as the watchdog saw it at Coveo.

    :param id: Its ID.
    :param name: Its name.
    :param status: ``REBUILD``, ``REFRESH``, ``INCREMENTAL`` or ``IDLE``; empty in a state without one.
    :param words: Coveo's name of the state if it has no such status.
    :param is_active: Whether it shows an activity.
    :param since_ms: The start of the activity, on Coveo's clock in epoch milliseconds.
    :param at: The time of the check, on Airflow's clock in epoch seconds.
    :param error: The reason why it could not be read or closed this time.
    """

    id: str
    name: str = ""
    status: str = ""
    words: str = ""
    is_active: bool = False
    since_ms: int | None = None
    at: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class WatchRecord:
    """
    The watchdog's view of an organization.

    :param organization_id: The organization.
    :param dag_id: The watchdog's DAG.
    :param task_id: Its task.
    :param takes_conf: Whether its runs accept a conf.
    :param at: The time of the last check of all its sources, on Airflow's clock in epoch seconds.
    :param quota_limit: The number of items that can be pushed in a day.
    :param quota_used: The number of items that have been pushed today.
    :param left_out: The number of sources that are not recorded because there are too many.
    :param sources: The sources.
    """

    organization_id: str
    dag_id: str = ""
    task_id: str = ""
    takes_conf: bool = False
    at: float = 0.0
    quota_limit: int | None = None
    quota_used: int | None = None
    left_out: int = 0
    sources: tuple[SeenSource, ...] = field(default=())

    def source(self, source_id: str) -> SeenSource | None:
        """Return the watchdog's view of a source."""
        return next((each for each in self.sources if each.id == source_id), None)

    def with_sources(self, seen: Iterable[SeenSource], *, only: bool) -> WatchRecord:
        """
        Return the record, updated with the latest view of sources.

        :param seen: The sources.
        :param only: Whether these are all sources, so that others are removed.
        """
        now = {each.id: each for each in seen}
        before = [] if only else [each for each in self.sources if each.id not in now]
        every = sorted((*before, *now.values()), key=lambda each: (not each.is_active, each.name, each.id))
        return replace(self, sources=tuple(every[:MAX_SOURCES]), left_out=max(0, len(every) - MAX_SOURCES))


def watch_variable(organization_id: str) -> str:
    """
    Return the key of the Variable with the watchdog's view of an organization.

    :param organization_id: The organization.
    """
    return variable_name("coveo_watch", organization_id)


def watch_in(value: object) -> WatchRecord | None:
    """
    Return the watchdog's view from its record, ``None`` if the record is invalid.

    :param value: The value of its Variable.
    """
    record = from_record(WatchRecord, value)
    if record is None or not isinstance(value, Mapping):
        return None
    entries = (from_record(SeenSource, entry) for entry in value.get("sources") or ())
    return replace(record, sources=tuple(entry for entry in entries if entry is not None))


def read_watch(organization_id: str) -> WatchRecord | None:
    """
    Return the watchdog's latest view of an organization, ``None`` if none is recorded.

    :param organization_id: The organization.
    """
    return watch_in(read_variable(watch_variable(organization_id)))


def write_watch(record: WatchRecord) -> None:
    """
    Save the watchdog's view.

    :param record: The view.
    """
    write_variable(
        watch_variable(record.organization_id),
        {**asdict(record), "version": _VERSION},
        "The watchdog's view of a Coveo organization's sources, for the page Push sources; safe to delete.",
    )


def brief(text: object) -> str:
    """
    Return a text from Coveo, truncated to the limit of a record.

    :param text: The text.
    """
    words = str(text)
    return words if len(words) <= _MAX_TEXT else f"{words[: _MAX_TEXT - 1]}…"
