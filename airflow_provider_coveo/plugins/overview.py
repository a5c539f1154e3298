"""
The rows of the page *Push sources*: the active sources, their owners, and the latest pushes.

The data comes from the provider's records and from the runs in Airflow's metadata database. This module does
not import Airflow, and sends no request to Coveo. An unreadable record or a failed query appears in the row
that it affects.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar

from airflow_provider_coveo.coveo.statuses import SourceStatus
from airflow_provider_coveo.plugins.source_records import MAX_UPDATES, SourceRecords, cannot_show, collect
from airflow_provider_coveo.state.airflow_runs import ACTIVE_RUN_STATES, WORKING_STATES
from airflow_provider_coveo.state.database import DagRow, RunKey, RunRow, Store, TaskRow
from airflow_provider_coveo.state.ledger import Holder, Phase, SourceRecord
from airflow_provider_coveo.state.liveness import has_ended
from airflow_provider_coveo.state.run_records import RunRecord
from airflow_provider_coveo.state.watch_record import WatchRecord

#: The watchdog's DAG until a watchdog records its own: the DAG in ``dags_examples``.
WATCHDOG_DAG_ID: Final = "coveo_close_abandoned"
#: The number of failed tasks that are named.
_MAX_FAILED: Final = 5
#: The order of states: those that need attention come first.
_ORDER: Final = ("abandoned", "unreadable", "unsure", "working", "unknown", "idle")
#: The tasks of a bracket that end it.
_ENDS: Final = ("close", "outcome")
#: The counts of pushed items that a task saves; the page uses the same names.
_COUNTS: Final = ("accepted", "deleted", "refused", "rejected", "rejected_batches", "unchanged")

T = TypeVar("T")
#: A row or one of its parts.
Json: TypeAlias = dict[str, Any]


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

    def last_run(self, source: SourceRecords) -> RunRecord | None:
        """Return the latest run that changed a source's content, of those that the user can see."""
        return next((run for run in reversed(source.runs) if self.reads(run.dag_id)), None)


@dataclass
class _Facts:
    """The metadata database's data about the runs and DAGs in the records."""

    runs: dict[RunKey, RunRow] = field(default_factory=dict)
    dags: dict[str, DagRow] = field(default_factory=dict)
    states: dict[RunKey, set[tuple[str, str | None]]] = field(default_factory=dict)
    ends: dict[RunKey, list[TaskRow]] = field(default_factory=dict)
    outcomes: dict[RunKey, list[TaskRow]] = field(default_factory=dict)
    failed: dict[RunKey, list[str]] = field(default_factory=dict)
    #: The task groups of all brackets of runs, and the map indexes of failed tasks in those that are mapped.
    groups: dict[RunKey, set[str]] = field(default_factory=dict)
    failed_indexes: dict[RunKey, set[tuple[str, int]]] = field(default_factory=dict)
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


def overview(store: Store, find_viewer: Callable[[], Viewer], now: float) -> Json:
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
    is_read = not facts.troubles
    sources, watches, unattributed = collect(records)
    visible = [
        source
        for source in sources.values()
        if viewer.sees_records
        or not viewer.readable.isdisjoint(source.dag_ids | _watch_dags(watches, source.organization_id))
    ]
    _ask(store, facts, viewer, visible, watches)
    rows = [
        _row_or_reason(source, watches.get(source.organization_id), facts, viewer, now) for source in visible
    ]
    rows.sort(key=_place)
    organizations = {
        organization_id: _organization(organization_id, watches, facts, viewer)
        for organization_id in sorted({source.organization_id for source in visible} | {""})
    }
    return as_json(
        {
            "now": now,
            # Without it, no row would mean that there is no source.
            "is_read": is_read,
            "rows": rows,
            "organizations": organizations,
            "troubles": [*dict.fromkeys(facts.troubles), *(unattributed if viewer.sees_records else [])],
        }
    )


def _place(row: Json) -> tuple[object, ...]:
    """Return the position of a row. Numbers in names count as numbers."""
    name = re.sub(r"[0-9]+", lambda digits: digits[0].zfill(20), row["name"].casefold())
    return _ORDER.index(row["state"]), row["organization"], name, row["source"]


def as_json(value: Json) -> Json:
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


# --- the database ---


def _ask(
    store: Store,
    facts: _Facts,
    viewer: Viewer,
    sources: Iterable[SourceRecords],
    watches: Mapping[str, WatchRecord],
) -> None:
    holders = [each for source in sources for each in source.holders]
    holders += [each for source in sources if (each := source.run_without_bracket)]
    held = {(each.dag_id, each.run_id) for each in holders}
    last_runs = [run for run in map(viewer.last_run, sources) if run is not None]
    last = {(run.dag_id, run.run_id) for run in last_runs}
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
    mapped = set()
    for run in last_runs:
        key = (run.dag_id, run.run_id)
        groups = _groups(run)
        facts.groups.setdefault(key, set()).update(groups)
        for group in (group for group, indexes in groups.items() if indexes != {-1}):
            mapped |= {(key, task_id) for task_id in facts.failed.get(key, []) if task_id.startswith(group)}
    if mapped:
        keys, task_ids = zip(*mapped, strict=True)
        rows: dict[RunKey, list[TaskRow]] = facts.asked(
            "the failed tasks", lambda: store.tasks(keys, task_ids), {}
        )
        for key, tasks in rows.items():
            found = {(task.task_id, task.map_index) for task in tasks if task.state == "failed"}
            facts.failed_indexes[key] = found
    facts.outcomes = facts.asked(
        "how updates ended",
        lambda: store.tasks(
            {(each.dag_id, each.run_id) for each in brackets},
            {each.task_id("outcome") for each in brackets},
        ),
        {},
    )


def _brackets(run: RunRecord) -> list[Holder]:
    return [Holder(run.dag_id, run.run_id, *name) for name in run.brackets]


def _groups(run: RunRecord) -> dict[str, set[int]]:
    """Return the map indexes of a run's brackets, by the prefix of the IDs of their tasks."""
    found: dict[str, set[int]] = {}
    for bracket in _brackets(run):
        found.setdefault(bracket.task_id(""), set()).add(bracket.map_index)
    return found


# --- a row ---


def _row_or_reason(
    source: SourceRecords, watch: WatchRecord | None, facts: _Facts, viewer: Viewer, now: float
) -> Json:
    """Return a source's row, with the reason if its records decode to impossible values."""
    try:
        return _row(source, watch, facts, viewer, now)
    except Exception as error:
        troubles = [*source.troubles, cannot_show(source, error)]
        bare = SourceRecords(source.organization_id, source.source_id, troubles=troubles)
        return _row(bare, None, facts, viewer, now)


def _row(source: SourceRecords, watch: WatchRecord | None, facts: _Facts, viewer: Viewer, now: float) -> Json:
    status = _status(source)
    judged = [(holder, *_judged(holder, facts)) for holder in source.holders]
    other = source.run_without_bracket
    if other is not None:
        is_live, why = _judged(other, facts)
        if is_live is not False:
            judged.append(
                (other, None, why or "its run is active, and updates it without push_source_update")
            )
    damage = [*source.troubles, *_bracket_troubles(source, viewer)]
    state = _state(status, [is_live for _, is_live, _ in judged], is_damaged=bool(damage))
    last = _last(source, facts, viewer)
    updates = list(_updates(source, facts, viewer, status, now))
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
        "last": last,
        "updates": updates,
        "next_run": _next_run(source, facts, viewer),
        "troubles": [
            *damage,
            *([source.seen.error] if source.seen and source.seen.error else []),
            *_unlisted(source, watch, status, last),
        ],
    }


def _bracket_troubles(source: SourceRecords, viewer: Viewer) -> Iterable[str]:
    """Return what is wrong with the records of brackets, whose keys name their DAGs."""
    hidden = "A record of a DAG that you are not allowed to read can't be read."
    return dict.fromkeys(
        text if viewer.reads(bracket.dag_id) else hidden for bracket, text in source.bracket_troubles.items()
    )


def _unlisted(
    source: SourceRecords,
    watch: WatchRecord | None,
    status: Json | None,
    last: Json | None,
) -> list[str]:
    """Return whether Coveo did not list a source, in a check of all sources after its latest update."""
    if watch is None or not watch.at or watch.left_out or source.seen is not None:
        return []
    times = [status and status["as_of"], *(last[name] for name in ("began", "ended") if last)]
    known = [each for each in times if each]
    if not known or max(known) >= watch.at:
        return []
    variables = " and ".join(source.variables)
    reason = "the source was deleted, or the watchdog's key can't view it"
    remedy = f"If it was deleted, delete {variables} in Airflow's Variables."
    return [f"Coveo's list of sources does not include it: {reason}. {remedy}"]


def _status(source: SourceRecords) -> dict[str, object] | None:
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
    ends = {
        each.task_id: each.state for each in facts.ends.get(key, []) if each.map_index == holder.map_index
    }
    closing = [ends.get(holder.task_id(role)) for role in _ENDS]
    if has_ended(holder, closing, lambda: states, in_active_run=True):
        return False, "its tasks close and outcome have run"
    if dag is not None and not dag.is_paused and not dag.is_gone:
        return True, ""
    what = "is paused" if dag is not None and not dag.is_gone else "no longer exists"
    if WORKING_STATES.intersection(state for _, state in states):
        return True, f"the DAG {what}, but a task of the run is running"
    return False, f"the DAG {what}, and no task of the run is running"


def _updates(
    source: SourceRecords, facts: _Facts, viewer: Viewer, status: Json | None, now: float
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


def _last(source: SourceRecords, facts: _Facts, viewer: Viewer) -> Json | None:
    last = viewer.last_run(source)
    if last is None:
        return None
    key = (last.dag_id, last.run_id)
    run = facts.runs.get(key)
    brackets = [(bracket, source.brackets.get(bracket)) for bracket in _brackets(last)]
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
        # After a success, the run's failed tasks belong to other sources.
        "failed": [] if result == "success" else _failed(last, facts)[:_MAX_FAILED],
        "closed_by": next((record.closed_by for _, record in known if record.closed_by), ""),
        "counts": facts.counts.get(key, {}).get(f"{source.organization_id}/{source.source_id}"),
    }


def _failed(last: RunRecord, facts: _Facts) -> list[str]:
    """Return the failed tasks of a run, without those of brackets of other sources."""
    key = (last.dag_id, last.run_id)
    own, every, failed = _groups(last), facts.groups.get(key, set()), facts.failed_indexes.get(key, set())

    def is_ours(task_id: str) -> bool:
        # The innermost one, because task groups can be nested.
        group = max((each for each in every if task_id.startswith(each)), key=len, default=None)
        if group is None:
            return True
        indexes = own.get(group, set())
        return -1 in indexes or any((task_id, index) in failed for index in indexes)

    return sorted(filter(is_ours, facts.failed.get(key, [])))


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


def _next_run(source: SourceRecords, facts: _Facts, viewer: Viewer) -> dict[str, object] | None:
    """Return the next run of the DAG that updated the source last."""
    last = viewer.last_run(source)
    if last is None or facts.unknown:
        return None
    # Airflow's own page can delete a DAG with all its rows.
    dag = facts.dags.get(last.dag_id, DagRow(is_paused=False, is_gone=True, next_run=None))
    return {"dag_id": last.dag_id, "at": dag.next_run, "is_paused": dag.is_paused, "is_gone": dag.is_gone}


# --- an organization ---


def _watch_dags(watches: Mapping[str, WatchRecord], organization_id: str) -> set[str]:
    watch = watches.get(organization_id)
    return {watch.dag_id} if watch is not None else set()


def _organization(
    organization_id: str, watches: Mapping[str, WatchRecord], facts: _Facts, viewer: Viewer
) -> dict[str, object]:
    watch = watches.get(organization_id)
    dag_id = (watch.dag_id if watch else "") or WATCHDOG_DAG_ID
    dag = facts.dags.get(dag_id)
    is_known = viewer.reads(dag_id)
    if dag is None or dag.is_gone:
        usable = "absent"
        # The DAG to add, rather than the ID of one that the user could not read.
        dag_id, is_known = (dag_id if is_known else WATCHDOG_DAG_ID), True
    elif organization_id and watch is None and dag_id in {each.dag_id for each in watches.values()}:
        usable = "elsewhere"
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
        "watchdog": {"dag_id": dag_id if is_known else None, "usable": usable},
        "looked_at": watch.at if watch else None,
        "left_out": watch.left_out if watch else 0,
        "quota": quota,
    }
