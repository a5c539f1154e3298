"""The records of each source, collected from all records in Airflow's metadata database."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from airflow_provider_coveo.state.database import RECORD_PREFIXES, UnreadableRecordError
from airflow_provider_coveo.state.ledger import (
    BracketRecord,
    Holder,
    SourceRecord,
    bracket_in,
    bracket_variable,
    holders_in,
)
from airflow_provider_coveo.state.run_records import RunRecord, runs_in
from airflow_provider_coveo.state.watch_record import SeenSource, WatchRecord, watch_in

log = logging.getLogger(__name__)

#: The number of updates shown for a source.
MAX_UPDATES: Final = 10
#: The number of brackets of one run that are read.
_MAX_BRACKETS: Final = 5


@dataclass
class SourceRecords:
    """The records of one source."""

    organization_id: str
    source_id: str
    holders: tuple[SourceRecord, ...] = ()
    runs: list[RunRecord] = field(default_factory=list)
    brackets: dict[Holder, BracketRecord] = field(default_factory=dict)
    seen: SeenSource | None = None
    #: The keys of its own Variables.
    variables: list[str] = field(default_factory=list)
    #: Why its records can't be read or shown, and the same for the records of brackets.
    troubles: list[str] = field(default_factory=list)
    bracket_troubles: dict[Holder, str] = field(default_factory=dict)

    @property
    def dag_ids(self) -> set[str]:
        """The DAGs that relate to the source."""
        return {each.dag_id for each in self.holders} | {each.dag_id for each in self.runs}

    @property
    def run_without_bracket(self) -> SourceRecord | None:
        """The latest run, if it has no bracket and may be why the source is active."""
        if not self.runs or self.seen is None or not self.seen.is_active:
            return None
        last = self.runs[-1]
        if last.brackets or (last.dag_id, last.run_id) in {
            (each.dag_id, each.run_id) for each in self.holders
        }:
            return None
        return SourceRecord(last.dag_id, last.run_id, open_task_id="")

    @property
    def name(self) -> str:
        """The source's name, or its ID if the name is unknown."""
        return (self.seen.name if self.seen else "") or self.source_id


def collect(
    records: Mapping[str, Callable[[], object]],
) -> tuple[dict[tuple[str, str], SourceRecords], dict[str, WatchRecord], list[str]]:
    """
    Return the records by source, the watchdog's by organization, and what is wrong with records of neither.

    :param records: A decoder of each record, by the key of its Variable.
    """
    sources: dict[tuple[str, str], SourceRecords] = {}
    watches: dict[str, WatchRecord] = {}
    unattributed: list[str] = []
    for key in sorted(records):
        prefix = next(prefix for prefix in RECORD_PREFIXES if key.startswith(prefix))
        if prefix == "coveo_bracket__":
            continue
        value, why = _decoded(records[key])
        if prefix == "coveo_watch__":
            watch = watch_in(value)
            if watch is None:
                unattributed.append(_damaged(key, why, "Delete that Variable: the watchdog writes it again"))
                continue
            watches[watch.organization_id] = watch
            for seen in watch.sources:
                _source(sources, watch.organization_id, seen.id).seen = seen
            continue
        source = _source(sources, *_identity(key.removeprefix(prefix), value))
        source.variables.append(key)
        if not why and prefix == "coveo_open__":
            source.holders = holders_in(value)
            is_damaged = not source.holders
        elif not why and isinstance(value, Mapping):
            source.runs = runs_in(_recent(value)) or _runs_of_0_1(value)
            is_damaged = False
        else:
            is_damaged = True
        if is_damaged:
            source.troubles.append(_damaged(key, why))
    for source in sources.values():
        try:
            _add_brackets(source, records)
        except Exception as error:
            source.troubles.append(cannot_show(source, error))
    return sources, watches, unattributed


def cannot_show(source: SourceRecords, error: Exception) -> str:
    """Return that a source's records contain an impossible value, and log the error."""
    log.warning("Could not show source %s of %s", source.source_id, source.organization_id, exc_info=error)
    return f"Its records contain an impossible value ({type(error).__name__}); see the web server's log"


def _decoded(decode: Callable[[], object]) -> tuple[object, str]:
    """Return a record's value, or why it can't be read."""
    try:
        return decode(), ""
    except UnreadableRecordError as error:
        return None, str(error)


def _damaged(
    key: str, why: str, remedy: str = "If no run is updating the source, delete that Variable"
) -> str:
    what = f"can't be read ({why})" if why else "contains nothing that this version can read"
    return f"The Variable {key} {what}. {remedy}."


def _identity(name: str, value: object) -> tuple[str, str]:
    """Return the organization and the source of a record; before 0.2.0, only its key contained them."""
    if isinstance(value, Mapping):
        ids = (value.get("organization_id"), value.get("source_id"))
        if all(isinstance(each, str) and each for each in ids):
            return str(ids[0]), str(ids[1])
    organization_id, _, source_id = name.partition("__")
    return organization_id, source_id


def _source(
    sources: dict[tuple[str, str], SourceRecords], organization_id: str, source_id: str
) -> SourceRecords:
    return sources.setdefault((organization_id, source_id), SourceRecords(organization_id, source_id))


def _recent(content: Mapping[str, Any]) -> Mapping[str, object]:
    """Return a record without the runs that are too old for the page."""
    runs = content.get("runs")
    return {**content, "runs": runs[-MAX_UPDATES:]} if isinstance(runs, list) else content


def _runs_of_0_1(content: Mapping[str, Any]) -> list[RunRecord]:
    dag_id, run_id = content.get("dag_id"), content.get("run_id")
    return [RunRecord(dag_id, run_id)] if isinstance(dag_id, str) and isinstance(run_id, str) else []


def _add_brackets(source: SourceRecords, records: Mapping[str, Callable[[], object]]) -> None:
    named = [
        *(holder.bracket for holder in source.holders),
        *(
            Holder(run.dag_id, run.run_id, open_task_id, map_index)
            for run in source.runs[-MAX_UPDATES:]
            for open_task_id, map_index in run.brackets[:_MAX_BRACKETS]
        ),
    ]
    for holder in dict.fromkeys(named):
        key = bracket_variable(holder)
        if key not in records:
            continue
        value, why = _decoded(records[key])
        record = bracket_in(value)
        if record is None:
            source.bracket_troubles[holder] = _damaged(key, why)
        elif (record.organization_id, record.source_id) == (source.organization_id, source.source_id):
            source.brackets[holder] = record
