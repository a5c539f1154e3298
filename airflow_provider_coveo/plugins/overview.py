"""
The rows of the page *Push sources*: the active sources, their owners, and the latest pushes.

The data comes from the provider's records and from the runs in Airflow's metadata database. This module does
not import Airflow, and sends no request to Coveo. An unreadable record or a failed query appears in the row
that it affects.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from airflow_provider_coveo.coveo.statuses import SourceStatus
from airflow_provider_coveo.state.airflow_runs import (
    ACTIVE_RUN_STATES,
    FINISHED_STATES,
    PENDING_STATES,
    WORKING_STATES,
)
from airflow_provider_coveo.state.database import (
    RECORD_PREFIXES,
    DagRow,
    RunKey,
    RunRow,
    Store,
    TaskRow,
    UnreadableRecordError,
)
from airflow_provider_coveo.state.ledger import (
    BracketRecord,
    Holder,
    Phase,
    SourceRecord,
    bracket_in,
    bracket_variable,
    holders_in,
)
from airflow_provider_coveo.state.liveness import may_still_work
from airflow_provider_coveo.state.run_records import RunRecord, runs_in
from airflow_provider_coveo.state.watch_record import SeenSource, WatchRecord, watch_in

log = logging.getLogger(__name__)

#: The watchdog's DAG until a watchdog records its own: the DAG in ``dags_examples``.
WATCHDOG_DAG_ID: Final = "coveo_close_abandoned"
#: The number of updates shown for a source.
MAX_UPDATES: Final = 10
#: The number of failed tasks that are named, and of brackets of one run that are read.
_MAX_FAILED: Final = 5
_MAX_BRACKETS: Final = 5
#: The order of states: those that need attention come first.
_ORDER: Final = ("abandoned", "unreadable", "unsure", "working", "unknown", "idle")
#: The tasks of a bracket that end it.
_ENDS: Final = ("close", "outcome")
#: The counts of pushed items that a task saves; the page uses the same names.
_COUNTS: Final = ("accepted", "deleted", "refused", "rejected", "rejected_batches", "unchanged")

T = TypeVar("T")


@dataclass(frozen=True)
class Viewer:
    """
    The user of the page, and the user's permissions.

    :param readable: The DAGs that the user can read.
    :param sees_records: Whether the user can read Airflow's Variables, and so records that name no DAG.
    :param may_trigger: Returns whether the user can start a run of a DAG.
    """

    readable: frozenset[str]
    sees_records: bool
    may_trigger: Callable[[str], bool]

    def reads(self, dag_id: str) -> bool:
        """Return whether the user can see a DAG's ID; those who can read the records find it there."""
        return self.sees_records or dag_id in self.readable


@dataclass
class _Source:
    """The records of one source."""

    organization_id: str
    source_id: str
    holders: tuple[SourceRecord, ...] = ()
    runs: list[RunRecord] = field(default_factory=list)
    brackets: dict[Holder, BracketRecord] = field(default_factory=dict)
    seen: SeenSource | None = None
    troubles: list[str] = field(default_factory=list)

    @property
    def dag_ids(self) -> set[str]:
        """The DAGs that relate to the source."""
        return {each.dag_id for each in self.holders} | {each.dag_id for each in self.runs}

    @property
    def last_run(self) -> RunKey | None:
        """The latest run that changed the source's content."""
        return (self.runs[-1].dag_id, self.runs[-1].run_id) if self.runs else None

    @property
    def name(self) -> str:
        """The source's name, or its ID if the name is unknown."""
        return (self.seen.name if self.seen else "") or self.source_id


@dataclass
class _Facts:
    """The metadata database's data about the runs and DAGs in the records."""

    runs: dict[RunKey, RunRow] = field(default_factory=dict)
    dags: dict[str, DagRow] = field(default_factory=dict)
    states: dict[RunKey, set[tuple[str, str | None]]] = field(default_factory=dict)
    ends: dict[RunKey, list[TaskRow]] = field(default_factory=dict)
    outcomes: dict[RunKey, list[TaskRow]] = field(default_factory=dict)
    failed: dict[RunKey, list[str]] = field(default_factory=dict)
    counts: dict[RunKey, dict[str, dict[str, int]]] = field(default_factory=dict)
    #: The reason why the states of runs are unknown, if they are.
    unknown: str = ""
    troubles: list[str] = field(default_factory=list)

    def asked(self, what: str, ask: Callable[[], T], otherwise: T) -> T:
        """Return the result of a query, the other value if the query failed."""
        try:
            return ask()
        except Exception as error:
            # A driver's message can contain values of the query.
            reason = str(error) if isinstance(error, TimeoutError) else type(error).__name__
            self.troubles.append(f"Could not read {what} from Airflow's database: {reason}")
            return otherwise


def overview(store: Store, find_viewer: Callable[[], Viewer], now: float) -> dict[str, Any]:
    """
    Return the page's data as JSON.

    :param store: The metadata database.
    :param find_viewer: Returns the page's user. Without the user's permissions, there are no rows.
    :param now: The current time in epoch seconds.
    """
    facts = _Facts()
    nobody = Viewer(frozenset(), False, lambda _: False)
    viewer = facts.asked("your permissions", find_viewer, nobody)
    records: Mapping[str, Callable[[], object]] = {}
    if viewer is not nobody:
        records = facts.asked("the records", store.records, {})
    sources, watches, unattributed = _collect(records)
    visible = [
        source
        for source in sources.values()
        if viewer.sees_records
        or not viewer.readable.isdisjoint(source.dag_ids | _watch_dags(watches, source.organization_id))
    ]
    _ask(store, facts, visible, watches)
    rows = [_row_or_reason(source, facts, viewer, now) for source in visible]
    rows.sort(key=lambda row: (_ORDER.index(row["state"]), row["organization"], row["name"], row["source"]))
    organizations = {
        organization_id: _organization(watches.get(organization_id), facts, viewer)
        for organization_id in sorted({source.organization_id for source in visible} | {""})
    }
    return as_json(
        {
            "now": now,
            "rows": rows,
            "organizations": organizations,
            "troubles": [*dict.fromkeys(facts.troubles), *(unattributed if viewer.sees_records else [])],
        }
    )


def as_json(value: dict[str, Any]) -> dict[str, Any]:
    """
    Return data that any JSON encoder accepts.

    Records can contain values that Python's decoder accepts, but not an encoder: numbers that are not finite,
    and incomplete surrogate pairs.

    :param value: The data.
    """
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:
        # JSON escapes what UTF-8 can't encode, and replaces the numbers when decoded.
        text = json.dumps(value, ensure_ascii=False).encode(errors="replace")
        return dict(json.loads(text, parse_constant=lambda _: None))
    return value


# --- the records ---


def _collect(
    records: Mapping[str, Callable[[], object]],
) -> tuple[dict[tuple[str, str], _Source], dict[str, WatchRecord], list[str]]:
    sources: dict[tuple[str, str], _Source] = {}
    watches: dict[str, WatchRecord] = {}
    unattributed: list[str] = []
    for key in sorted(records):
        prefix = next(prefix for prefix in RECORD_PREFIXES if key.startswith(prefix))
        if prefix == "coveo_bracket__":
            continue
        value, trouble = _decoded(key, records[key])
        if prefix == "coveo_watch__":
            watch = watch_in(value)
            if watch is None:
                unattributed.append(
                    trouble or f"The Variable {key} contains nothing that this version can read"
                )
                continue
            watches[watch.organization_id] = watch
            for seen in watch.sources:
                _source(sources, watch.organization_id, seen.id).seen = seen
            continue
        source = _source(sources, *_identity(key.removeprefix(prefix), value))
        if trouble:
            source.troubles.append(trouble)
        elif prefix == "coveo_open__":
            source.holders = holders_in(value)
            if not source.holders:
                source.troubles.append(f"The Variable {key} contains nothing that this version can read")
        elif isinstance(value, Mapping):
            source.runs = runs_in(_recent(value)) or _runs_of_0_1(value)
        else:
            source.troubles.append(f"The Variable {key} contains nothing that this version can read")
    for source in sources.values():
        try:
            _add_brackets(source, records)
        except Exception as error:
            source.troubles.append(_cannot_show(source, error))
    return sources, watches, unattributed


def _decoded(key: str, decode: Callable[[], object]) -> tuple[object, str]:
    try:
        return decode(), ""
    except UnreadableRecordError as error:
        return None, f"The Variable {key} can't be read ({error})"


def _identity(name: str, value: object) -> tuple[str, str]:
    """Return the organization and the source of a record; before 0.2.0, only its key contained them."""
    if isinstance(value, Mapping):
        ids = (value.get("organization_id"), value.get("source_id"))
        if all(isinstance(each, str) and each for each in ids):
            return str(ids[0]), str(ids[1])
    organization_id, _, source_id = name.partition("__")
    return organization_id, source_id


def _source(sources: dict[tuple[str, str], _Source], organization_id: str, source_id: str) -> _Source:
    return sources.setdefault((organization_id, source_id), _Source(organization_id, source_id))


def _recent(content: Mapping[str, Any]) -> Mapping[str, object]:
    """Return a record without the runs that are too old for the page."""
    runs = content.get("runs")
    return {**content, "runs": runs[-MAX_UPDATES:]} if isinstance(runs, list) else content


def _runs_of_0_1(content: Mapping[str, Any]) -> list[RunRecord]:
    dag_id, run_id = content.get("dag_id"), content.get("run_id")
    return [RunRecord(dag_id, run_id)] if isinstance(dag_id, str) and isinstance(run_id, str) else []


def _add_brackets(source: _Source, records: Mapping[str, Callable[[], object]]) -> None:
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
        value, trouble = _decoded(key, records[key])
        record = bracket_in(value)
        if record is None:
            source.troubles.append(
                trouble or f"The Variable {key} contains nothing that this version can read"
            )
        elif (record.organization_id, record.source_id) == (source.organization_id, source.source_id):
            source.brackets[holder] = record


# --- the database ---


def _ask(store: Store, facts: _Facts, sources: Iterable[_Source], watches: Mapping[str, WatchRecord]) -> None:
    holders = [each for source in sources for each in source.holders]
    held = {(each.dag_id, each.run_id) for each in holders}
    last = {source.last_run for source in sources if source.last_run}
    brackets = [holder for source in sources for holder in source.brackets]
    dag_ids = {WATCHDOG_DAG_ID, *(watch.dag_id for watch in watches.values())}
    dag_ids |= {dag_id for dag_id, _ in held | last}
    facts.dags = facts.asked("the DAGs", lambda: store.dags(dag_ids), {})
    facts.runs = facts.asked("the runs", lambda: store.runs(held | last), {})
    if held:
        ends = {each.task_id(role) for each in holders for role in _ENDS}
        facts.states = facts.asked("the states of tasks", lambda: store.states(held), {})
        facts.ends = facts.asked("the states of tasks", lambda: store.tasks(held, ends), {})
    facts.unknown = "; ".join(dict.fromkeys(facts.troubles))
    if not last:
        return
    facts.counts = facts.asked("what was pushed", lambda: _counts(store.pushed(last)), {})
    facts.failed = facts.asked("the failed tasks", lambda: store.failed(last), {})
    facts.outcomes = facts.asked(
        "how updates ended",
        lambda: store.tasks(
            {(each.dag_id, each.run_id) for each in brackets},
            {each.task_id("outcome") for each in brackets},
        ),
        {},
    )


# --- a row ---


def _row_or_reason(source: _Source, facts: _Facts, viewer: Viewer, now: float) -> dict[str, object]:
    """Return a source's row, with the reason if its records decode to impossible values."""
    try:
        return _row(source, facts, viewer, now)
    except Exception as error:
        troubles = [*source.troubles, _cannot_show(source, error)]
        return _row(_Source(source.organization_id, source.source_id, troubles=troubles), facts, viewer, now)


def _cannot_show(source: _Source, error: Exception) -> str:
    log.warning("Could not show source %s of %s", source.source_id, source.organization_id, exc_info=error)
    return f"Its records contain an impossible value ({type(error).__name__}); see the web server's log"


def _row(source: _Source, facts: _Facts, viewer: Viewer, now: float) -> dict[str, object]:
    status = _status(source)
    judged = [(holder, *_judged(holder, facts)) for holder in source.holders]
    state = _state(status, [is_live for _, is_live, _ in judged], is_damaged=bool(source.troubles))
    updates = list(_updates(source, facts, viewer, status, now))
    next_run = _next_run(source, facts, viewer)
    return {
        "organization": source.organization_id,
        "source": source.source_id,
        "name": source.name,
        "state": state,
        "status": status,
        "holders": [
            {
                "dag_id": holder.dag_id,
                "run_id": holder.run_id,
                "task_id": holder.open_task_id,
                "map_index": holder.map_index,
                "since": holder.since_ms / 1000 if holder.since_ms is not None else None,
                "is_live": is_live,
                "why": why,
            }
            if viewer.reads(holder.dag_id)
            else {"hidden": True, "is_live": is_live}
            for holder, is_live, why in judged
        ],
        "last": _last(source, facts, viewer),
        "updates": updates,
        "next_run": next_run,
        "troubles": [*source.troubles, *([source.seen.error] if source.seen and source.seen.error else [])],
    }


def _status(source: _Source) -> dict[str, object] | None:
    """Return the latest status that Coveo reported or a bracket set, ``None`` if it is unknown."""
    found: list[tuple[float, dict[str, object]]] = []
    seen = source.seen
    if seen is not None and (seen.status or seen.words):
        since = seen.since_ms / 1000 if seen.is_active and seen.since_ms is not None else None
        found.append(
            (seen.at, _described(seen.status or seen.words, seen.is_active, since, seen.at, "coveo"))
        )
    held = {holder.bracket: holder for holder in source.holders}
    for bracket, record in source.brackets.items():
        if record.phase is Phase.CLOSED and record.closed_at:
            at = record.closed_at
            found.append((at, _described("IDLE", False, None, at, "airflow")))
        elif bracket in held:
            found.append(_opened(held.pop(bracket), record.opened_at, record.status))
    found += [
        _opened(holder, 0.0, holder.status)
        for bracket, holder in held.items()
        if bracket not in source.brackets
    ]
    return max(found, key=lambda each: each[0])[1] if found else None


def _opened(holder: SourceRecord, opened_at: float, status: str) -> tuple[float, dict[str, object]]:
    since = holder.since_ms / 1000 if holder.since_ms is not None else opened_at or None
    at = opened_at or since or 0.0
    return at, _described(status or holder.status, True, since, at or None, "airflow")


def _described(
    status: str, is_active: bool, since: float | None, as_of: float | None, reported_by: str
) -> dict[str, object]:
    try:
        label = SourceStatus(status).console_name
    except ValueError:
        # Records of 0.1.0 contain no status.
        label = status or ("Active" if is_active else "Unknown")
    return {
        "status": status,
        "label": label,
        "is_active": is_active,
        "since": since,
        "as_of": as_of,
        "by": reported_by,
    }


def _state(status: dict[str, object] | None, live: list[bool | None], *, is_damaged: bool) -> str:
    if status is None:
        return "unreadable" if is_damaged else "unknown"
    if not status["is_active"]:
        return "unreadable" if is_damaged else "idle"
    if True in live:
        return "working"
    return "unsure" if None in live or is_damaged else "abandoned"


def _judged(holder: SourceRecord, facts: _Facts) -> tuple[bool | None, str]:
    """
    Return whether a bracket is still running, and if not, the reason. The watchdog uses the same rules.

    :return: ``None`` if the database query failed.
    """
    if facts.unknown:
        return None, facts.unknown
    key = (holder.dag_id, holder.run_id)
    run, dag = facts.runs.get(key), facts.dags.get(holder.dag_id)
    if run is None:
        return False, "the run no longer exists"
    if run.state not in ACTIVE_RUN_STATES:
        return False, f"the run has ended ({run.state})"
    states = facts.states.get(key, set())
    closing = {holder.task_id(role) for role in _ENDS}
    ends = [
        each
        for each in facts.ends.get(key, [])
        if each.task_id in closing and each.map_index == holder.map_index
    ]
    is_over = len(ends) == len(closing) and all(each.state in FINISHED_STATES for each in ends)
    pending = [task_id for task_id, state in states if state in PENDING_STATES]
    if is_over and not any(may_still_work(holder, task_id) for task_id in pending):
        return False, "its tasks close and outcome have run"
    if dag is not None and not dag.is_paused and not dag.is_gone:
        return True, ""
    what = "is paused" if dag is not None and not dag.is_gone else "no longer exists"
    if WORKING_STATES.intersection(state for _, state in states):
        return True, f"the DAG {what}, but a task of the run is running"
    return False, f"the DAG {what}, and no task of the run is running"


def _updates(
    source: _Source, facts: _Facts, viewer: Viewer, status: dict[str, Any] | None, now: float
) -> Iterator[dict[str, object]]:
    held = {holder.bracket for holder in source.holders}
    is_active = status is not None and status["is_active"]
    idle_since = status["as_of"] if status is not None and not is_active else None
    every = sorted(source.brackets.items(), key=lambda each: each[1].opened_at)
    shown = [each for each in every if viewer.reads(each[0].dag_id) and each[1].opened_at]
    for bracket, record in shown[-MAX_UPDATES:]:
        is_open = bracket in held and is_active
        ended = record.closed_at if record.closed_at >= record.opened_at else None
        if not is_open and ended is None:
            ended = idle_since if idle_since and idle_since > record.opened_at else record.opened_at
        yield {
            "dag_id": bracket.dag_id,
            "run_id": bracket.run_id,
            "status": record.status,
            "label": _described(record.status, True, None, None, "")["label"],
            "began": record.opened_at,
            "ended": None if is_open else ended,
            "result": _result(bracket, facts),
            "closed_by": record.closed_by,
        }


def _result(bracket: Holder, facts: _Facts) -> str | None:
    outcome = bracket.task_id("outcome")
    for each in facts.outcomes.get((bracket.dag_id, bracket.run_id), []):
        if (each.task_id, each.map_index) == (outcome, bracket.map_index):
            return each.state if each.state in {"success", "failed"} else None
    return None


def _last(source: _Source, facts: _Facts, viewer: Viewer) -> dict[str, object] | None:
    runs = [run for run in source.runs if viewer.reads(run.dag_id)]
    if not runs:
        return None
    last = runs[-1]
    key = (last.dag_id, last.run_id)
    run = facts.runs.get(key)
    brackets = [(Holder(*key, *name), source.brackets.get(Holder(*key, *name))) for name in last.brackets]
    known = [(bracket, record) for bracket, record in brackets if record is not None]
    began = min(
        (record.opened_at for _, record in known if record.opened_at), default=run.began if run else None
    )
    closed = [record.closed_at for _, record in known if record.closed_at]
    is_running = run is not None and run.state in ACTIVE_RUN_STATES
    results = [_result(bracket, facts) for bracket, _ in known]
    if "failed" in results:
        result: str | None = "failed"
    elif results and all(each == "success" for each in results):
        result = "success"
    else:
        result = "running" if is_running else run.state if run else None
    return {
        "dag_id": last.dag_id,
        "run_id": last.run_id,
        "began": began,
        "ended": max(closed, default=run.ended if run and not is_running else None),
        "result": result,
        "failed": sorted(facts.failed.get(key, []))[:_MAX_FAILED],
        "closed_by": next((record.closed_by for _, record in known if record.closed_by), ""),
        "counts": facts.counts.get(key, {}).get(f"{source.organization_id}/{source.source_id}"),
    }


def _counts(pushed: Iterable[tuple[RunKey, object]]) -> dict[RunKey, dict[str, dict[str, int]]]:
    """Return the number of items that all tasks of each run pushed, by source."""
    found: dict[RunKey, dict[str, dict[str, int]]] = {}
    for run, saved in pushed:
        for name, counts in saved.items() if isinstance(saved, Mapping) else ():
            for kind in _COUNTS if isinstance(counts, Mapping) else ():
                count = counts.get(kind)
                if isinstance(count, int) and not isinstance(count, bool):
                    added = found.setdefault(run, {}).setdefault(name, {})
                    added[kind] = added.get(kind, 0) + count
    return found


def _next_run(source: _Source, facts: _Facts, viewer: Viewer) -> dict[str, object] | None:
    """Return the next run of the DAG that updated the source last."""
    dag_id = next((run.dag_id for run in reversed(source.runs) if viewer.reads(run.dag_id)), None)
    if dag_id is None or facts.unknown:
        return None
    # Airflow's own page can delete a DAG with all its rows.
    dag = facts.dags.get(dag_id, DagRow(is_paused=False, is_gone=True, next_run=None))
    return {"dag_id": dag_id, "at": dag.next_run, "is_paused": dag.is_paused, "is_gone": dag.is_gone}


# --- an organization ---


def _watch_dags(watches: Mapping[str, WatchRecord], organization_id: str) -> set[str]:
    watch = watches.get(organization_id)
    return {watch.dag_id} if watch is not None else set()


def _organization(watch: WatchRecord | None, facts: _Facts, viewer: Viewer) -> dict[str, object]:
    dag_id = (watch.dag_id if watch else "") or WATCHDOG_DAG_ID
    dag = facts.dags.get(dag_id)
    is_known = viewer.reads(dag_id)
    if dag is None or dag.is_gone:
        usable = "absent"
    elif watch is not None and watch.dag_id and not watch.takes_conf:
        usable = "deaf"
    elif not (is_known and facts.asked("your permissions", lambda: viewer.may_trigger(dag_id), False)):
        usable = "forbidden"
    else:
        usable = "paused" if dag.is_paused else "ready"
    quota = None
    if watch is not None and watch.quota_limit is not None and watch.quota_used is not None:
        quota = {"limit": watch.quota_limit, "used": watch.quota_used, "as_of": watch.at}
    return {
        "watchdog": {"dag_id": dag_id if is_known or dag is None else None, "usable": usable},
        "looked_at": watch.at if watch else None,
        "left_out": watch.left_out if watch else 0,
        "quota": quota,
    }
