"""
What the watchdog saw of an organization's sources at Coveo, for who looks at them in Airflow.

One Variable for each organization, ``coveo_watch__<organization>``, which the watchdog alone writes. Nothing
that changes a source goes by it: it may be deleted at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Final

from airflow_provider_coveo.state.records import from_record
from airflow_provider_coveo.state.variables import read_variable, variable_name, write_variable

_VERSION: Final = 1
#: How many sources of an organization are recorded, those that are active first.
MAX_SOURCES: Final = 2000
#: How long a name or a text of Coveo's may be.
_MAX_TEXT: Final = 200


@dataclass(frozen=True)
class SeenSource:
    """
    A source as the watchdog saw it at Coveo.

    :param id: Its ID.
    :param name: Its name.
    :param status: ``REBUILD``, ``REFRESH``, ``INCREMENTAL`` or ``IDLE``; empty in a state without one.
    :param words: The state as Coveo calls it where it has no such status.
    :param is_active: Whether it shows an activity.
    :param since_ms: Since when, on Coveo's clock in epoch milliseconds.
    :param at: When that was seen, on Airflow's clock in epoch seconds.
    :param error: Why it could not be read or closed this time.
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
    What the watchdog saw of an organization.

    :param organization_id: The organization.
    :param dag_id: The watchdog's DAG.
    :param task_id: Its task.
    :param takes_conf: Whether a run of it can be told what to do.
    :param at: When it looked at all its sources last, on Airflow's clock in epoch seconds.
    :param quota_limit: How many items may be pushed in a day.
    :param quota_used: How many have been pushed today.
    :param left_out: How many sources are not recorded, because there are too many.
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
        """Return what was seen of a source."""
        return next((each for each in self.sources if each.id == source_id), None)

    def with_sources(self, seen: Iterable[SeenSource], *, only: bool) -> WatchRecord:
        """
        Return the record with what was just seen.

        :param seen: The sources.
        :param only: Whether these are all that there are, so that others are forgotten.
        """
        now = {each.id: each for each in seen}
        before = [] if only else [each for each in self.sources if each.id not in now]
        every = sorted((*before, *now.values()), key=lambda each: (not each.is_active, each.name, each.id))
        return replace(self, sources=tuple(every[:MAX_SOURCES]), left_out=max(0, len(every) - MAX_SOURCES))


def watch_variable(organization_id: str) -> str:
    """
    Return the key of the Variable with what the watchdog saw of an organization.

    :param organization_id: The organization.
    """
    return variable_name("coveo_watch", organization_id)


def watch_in(value: object) -> WatchRecord | None:
    """
    Return what the watchdog saw by its record, ``None`` if that says nothing.

    :param value: The value of its Variable.
    """
    record = from_record(WatchRecord, value)
    if record is None or not isinstance(value, Mapping):
        return None
    entries = (from_record(SeenSource, entry) for entry in value.get("sources") or ())
    return replace(record, sources=tuple(entry for entry in entries if entry is not None))


def read_watch(organization_id: str) -> WatchRecord | None:
    """
    Return what the watchdog saw last of an organization, ``None`` if nothing is on record.

    :param organization_id: The organization.
    """
    return watch_in(read_variable(watch_variable(organization_id)))


def write_watch(record: WatchRecord) -> None:
    """
    Store what the watchdog saw.

    :param record: What it saw.
    """
    write_variable(
        watch_variable(record.organization_id),
        {**asdict(record), "version": _VERSION},
        "What the watchdog saw of a Coveo organization's sources, for the page Push sources; safe to delete.",
    )


def brief(text: object) -> str:
    """
    Return a text of Coveo's, shortened to what a record keeps.

    :param text: The text.
    """
    words = str(text)
    return words if len(words) <= _MAX_TEXT else f"{words[: _MAX_TEXT - 1]}…"
