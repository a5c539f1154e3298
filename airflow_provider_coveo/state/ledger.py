"""
Who holds a source open, what each bracket of each run did, and what each run did to a source.

Three kinds of records, each in an Airflow Variable of its own, because other runs, other DAGs, callbacks in
the DAG processor and the watchdog read them:

- ``coveo_open__<organization>__<source>``: the brackets that hold the source open, the latest first. It
  exists while one does.
- ``coveo_bracket__<dag>__<task>__<digest of the run>``: one bracket in one run: the source and the connection
  that its first opening pinned, the phase it is in, and its first cut-off. It exists before anything is sent,
  so that an absent record never stands for "nothing was opened".
- ``coveo_content__<organization>__<source>``: which run last changed the source's content, and for the last
  runs their first cut-off and whether Coveo accepted an item of theirs. Of a thousand runs before those it is
  known that they did; their first cut-off is then unknown, not the next opening's.

A Variable has no compare-and-set. So each record has few writers, what must outlive a race is stored twice,
and if a fact can't be established the record says so: an unknown cut-off deletes nothing.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import Any, Final

from airflow_provider_coveo.state.records import as_pair, from_record
from airflow_provider_coveo.state.run_records import (
    FORGOTTEN,
    MAX_RUNS,
    RunRecord,
    forgotten_with,
    run_among,
    run_or_what_is_left,
    runs_in,
)
from airflow_provider_coveo.state.variables import (
    delete_variable,
    forget_variable,
    read_variable,
    update_variable,
    variable_name,
    write_variable,
)

#: The version of what is written here. 0.1.0 and 0.1.1 wrote none.
_VERSION: Final = 2
#: How many brackets that hold a source at the same time are recorded.
_MAX_HOLDERS: Final = 20
#: For how many of them the records of their brackets are kept.
_MAX_RUNS_WITH_BRACKETS: Final = 10
#: What a bracket's record holds at least; one without it was edited by hand, and says nothing.
_NEEDED_OF_A_BRACKET: Final = frozenset({"organization_id", "source_id", "coveo_conn_id", "phase"})


class Phase(str, Enum):
    """How far a bracket is in a run."""

    #: Nothing was sent yet.
    WAITING = "waiting"
    #: The active status may have been sent; nobody knows yet whether Coveo accepted it.
    OPENING = "opening"
    #: Coveo accepted the active status.
    OPEN = "open"
    #: The request for the active status failed, and Coveo may have carried it out all the same.
    UNSURE = "unsure"
    #: Coveo rejected the active status, so there is nothing to close.
    REJECTED = "rejected"
    #: ``IDLE`` is about to be sent.
    CLOSING = "closing"
    #: Coveo accepted ``IDLE``.
    CLOSED = "closed"
    #: Left open for another bracket that was at work, and that closes the source.
    LEFT = "left"


#: The phases in which the source may be active by the bracket's doing.
_MAY_BE_OPEN: Final = frozenset({Phase.OPENING, Phase.OPEN, Phase.UNSURE, Phase.CLOSING})


@dataclass(frozen=True)
class Holder:
    """
    A bracket in a run.

    :param dag_id: Its DAG.
    :param run_id: Its run.
    :param open_task_id: Its ``open`` task, which tells it from other brackets of the run.
    :param map_index: Its map index if it stands in a mapped task group, else -1.
    """

    dag_id: str
    run_id: str
    open_task_id: str
    map_index: int = -1

    def __str__(self) -> str:
        mapped = f"[{self.map_index}]" if self.map_index >= 0 else ""
        return f"run {self.run_id!r} of DAG {self.dag_id!r} (task {self.open_task_id}{mapped})"

    @property
    def bracket(self) -> Holder:
        """The bracket alone, without what else a record holds."""
        return Holder(self.dag_id, self.run_id, self.open_task_id, self.map_index)

    def task_id(self, name: str) -> str:
        """Return the ID of another of the bracket's tasks, such as ``close``."""
        return f"{self.open_task_id.removesuffix('open')}{name}"

    @classmethod
    def of_source(cls, organization_id: str, source_id: str) -> Holder | None:
        """Return the bracket that opened the source last and holds it, ``None`` if none is known to."""
        holders = SourceLedger(organization_id).holders(source_id)
        return holders[0].bracket if holders else None

    def take(self, organization_id: str, source_id: str) -> None:
        """Record that this bracket holds the source open."""
        SourceLedger(organization_id).hold(source_id, SourceRecord(**asdict(self)))

    def release(self, organization_id: str, source_id: str) -> None:
        """Record that this bracket holds the source open no longer."""
        SourceLedger(organization_id).release(source_id, self)


@dataclass(frozen=True)
class SourceRecord(Holder):
    """
    A bracket that holds a source open.

    :param opening: The opening by which it does, different for each one.
    :param since_ms: Since when, on Coveo's clock in epoch milliseconds; ``None`` until Coveo has answered.
    :param status: The status that it set.
    :param coveo_conn_id: The connection that it uses.
    :param reopened_by: The task that opened it again after its ``outcome`` had run, and its map index.
    """

    opening: str = ""
    since_ms: int | None = None
    status: str = ""
    coveo_conn_id: str = ""
    reopened_by: tuple[str, int] | None = None


@dataclass(frozen=True)
class BracketRecord:
    """
    What one bracket did in one run.

    :param organization_id: The organization that the run's first opening used.
    :param source_id: The source that it opened. Everything later goes by it, whatever templates render to.
    :param coveo_conn_id: The connection that it used.
    :param status: The status that was set last.
    :param phase: How far the bracket is.
    :param opening: The last opening.
    :param is_concluded: Whether that opening has ended: no request of it can arrive any more.
    :param first_cut_off_ms: The moment before the run's first push to the source, on Coveo's clock.
    :param why_unknown: Why that moment is not known, if it can't be any more.
    :param opened_at: When the last opening began, on Airflow's clock in epoch seconds.
    :param closed_at: When Coveo accepted ``IDLE``, on Airflow's clock in epoch seconds.
    :param reopened_by: The task that opened the bracket again, and its map index.
    :param waiting: The series of attempts that waits for the source, and since when.
    :param closed_by: What closed the source if not the bracket itself: ``watchdog``.
    :param version: The version of the record.
    """

    organization_id: str = ""
    source_id: str = ""
    coveo_conn_id: str = ""
    status: str = ""
    phase: Phase = Phase.WAITING
    opening: str = ""
    is_concluded: bool = True
    first_cut_off_ms: int | None = None
    why_unknown: str = ""
    opened_at: float = 0.0
    closed_at: float = 0.0
    reopened_by: tuple[str, int] | None = None
    waiting: tuple[str, float] | None = None
    closed_by: str = ""
    version: int = _VERSION

    @property
    def is_pinned(self) -> bool:
        """Whether an opening of this run may have reached Coveo, so that its source is the run's."""
        return bool(self.source_id)

    @property
    def may_be_open(self) -> bool:
        """Whether the source may be active by the bracket's doing."""
        return self.is_pinned and self.phase in _MAY_BE_OPEN


def read_bracket(holder: Holder) -> BracketRecord | None:
    """Return what a bracket did in its run, ``None`` if that is not on record, or not fully."""
    return bracket_in(read_variable(bracket_variable(holder)))


def bracket_in(value: Any) -> BracketRecord | None:
    """
    Return what a record says of a bracket, ``None`` if that is nothing, or not all that is needed.

    :param value: The value of its Variable.
    """
    record = from_record(BracketRecord, value)
    if record is None or not value.keys() >= _NEEDED_OF_A_BRACKET:
        return None
    try:
        phase = Phase(record.phase)
    except ValueError:
        # A later version knows more phases; what it can't tell must be closed.
        phase = Phase.UNSURE
    if phase in _MAY_BE_OPEN and not (record.source_id and record.organization_id):
        return None
    return replace(
        record, phase=phase, reopened_by=as_pair(record.reopened_by), waiting=as_pair(record.waiting)
    )


def write_bracket(holder: Holder, record: BracketRecord) -> None:
    """Store what a bracket did in its run."""
    write_variable(
        bracket_variable(holder),
        {**asdict(record), "phase": record.phase.value},
        f"What the bracket of {holder} did; the Coveo provider deletes it some runs later.",
    )


def record_closing(
    holder: SourceRecord,
    source_id: str,
    phase: Phase,
    closed_by: str = "",
    *,
    also_while_opening: bool = True,
) -> None:
    """
    Record of a bracket that held a source how far something else is that closes the source.

    :param holder: The bracket.
    :param source_id: The source.
    :param phase: ``CLOSING`` or ``CLOSED``.
    :param closed_by: What closes it, as its record names it. Default nothing.
    :param also_while_opening: Whether also a bracket whose request to open is under way is told, so that it
        closes the source again. Default ``True``.
    """
    record = read_bracket(holder.bracket)
    if record is None or record.source_id != source_id:
        return
    if record.is_concluded or also_while_opening:
        record = replace(record, phase=phase, closed_at=time.time(), reopened_by=None, closed_by=closed_by)
        write_bracket(holder.bracket, record)


class SourceLedger:
    """
    The records of one organization's sources.

    :param organization_id: The organization.
    """

    def __init__(self, organization_id: str) -> None:
        self._organization_id = organization_id

    # --- who holds a source open ---

    def holders(self, source_id: str) -> tuple[SourceRecord, ...]:
        """Return the brackets that hold a source open, the latest first."""
        return holders_in(read_variable(self._variable("coveo_open", source_id)))

    def hold(
        self, source_id: str, record: SourceRecord, among: tuple[SourceRecord, ...] | None = None
    ) -> None:
        """
        Record that a bracket holds a source open, beside those that do.

        :param source_id: The source.
        :param record: The bracket.
        :param among: Who holds the source, if that was just read.
        """
        holders = self.holders(source_id) if among is None else among
        others = [other for other in holders if other.bracket != record.bracket]
        self._write_holders(source_id, [record, *others])

    def release(
        self, source_id: str, bracket: Holder, among: tuple[SourceRecord, ...] | None = None
    ) -> tuple[SourceRecord, ...]:
        """
        Record that a bracket holds a source open no longer.

        :param source_id: The source.
        :param bracket: The bracket.
        :param among: Who holds the source, if that was just read.
        :return: The brackets that still do.
        """
        holders = self.holders(source_id) if among is None else among
        others = [other for other in holders if other.bracket != bracket.bracket]
        if len(others) != len(holders):
            self._write_holders(source_id, others)
        return tuple(others)

    def release_all(self, source_id: str, among: tuple[SourceRecord, ...]) -> None:
        """
        Record that nobody holds a source open any more.

        :param source_id: The source.
        :param among: Who did.
        """
        if among:
            self._write_holders(source_id, [])

    def _write_holders(self, source_id: str, holders: list[SourceRecord]) -> None:
        name = self._variable("coveo_open", source_id)
        if not holders:
            delete_variable(name)
            return
        first, *others = (asdict(record) for record in holders[:_MAX_HOLDERS])
        write_variable(
            name,
            {
                **first,
                "version": _VERSION,
                "others": others,
                "organization_id": self._organization_id,
                "source_id": source_id,
            },
            "Which DAG runs hold a Coveo source open; the Coveo provider deletes it with the closing.",
        )

    # --- what runs did to a source ---

    def run(self, source_id: str, dag_id: str, run_id: str) -> RunRecord:
        """Return what a run did to a source, as far as that is on record."""
        return run_or_what_is_left(self._content(source_id), dag_id, run_id)

    def opened(
        self,
        source_id: str,
        bracket: Holder,
        at_ms: int | None,
        known: BracketRecord,
        among: tuple[SourceRecord, ...] = (),
    ) -> RunRecord:
        """
        Record that a bracket opened a source, and establish the run's first cut-off.

        The first cut-off is that of the first bracket of the run to open the source. It can't be
        established once the run has pushed to the source without one, and then stays unknown.

        :param source_id: The source.
        :param bracket: The bracket.
        :param at_ms: The cut-off of this opening, on Coveo's clock.
        :param known: What the bracket knows from earlier openings.
        :param among: Who holds the source, whose records stay however many runs came since. Default none.
        """

        def with_opening(run: RunRecord) -> RunRecord:
            # The bracket's own record outlives the source's of the run.
            is_known = known.first_cut_off_ms is not None and run.why_unknown == FORGOTTEN
            why_unknown = known.why_unknown if is_known else run.why_unknown or known.why_unknown
            first = run.first_cut_off_ms if known.first_cut_off_ms is None else known.first_cut_off_ms
            if first is not None and run.first_cut_off_ms is not None:
                first = min(first, run.first_cut_off_ms)
            if first is None and not why_unknown:
                if run.pushed_unopened or run.accepted:
                    why_unknown = "the run pushed to the source before the bracket opened it"
                elif at_ms is None:
                    why_unknown = "Coveo's answer to the opening gave no time"
                else:
                    first = at_ms
            this = (bracket.open_task_id, bracket.map_index)
            brackets = run.brackets if this in run.brackets else (*run.brackets, this)
            return replace(run, first_cut_off_ms=first, why_unknown=why_unknown, brackets=brackets)

        holding = {(holder.dag_id, holder.run_id) for holder in among}
        return self._change_run(source_id, bracket.dag_id, bracket.run_id, with_opening, holding)[0]

    def content_changed(self, source_id: str, dag_id: str, run_id: str, *, pushes: bool = False) -> str:
        """
        Record that from here on a run changes the content of a source.

        :param source_id: The source.
        :param dag_id: The run's DAG.
        :param run_id: The run.
        :param pushes: Whether it adds items. Default ``False``.
        :return: A name for the time since when it does, the same until another run changes the content.
        """

        def pushing(run: RunRecord) -> RunRecord:
            if not pushes or run.first_cut_off_ms is not None or run.why_unknown:
                return run
            return replace(run, pushed_unopened=True)

        return self._change_run(source_id, dag_id, run_id, pushing)[1]

    def accepted(self, source_id: str, dag_id: str, run_id: str) -> None:
        """Record that Coveo accepted an item that a run pushed to a source."""
        self._change_run(source_id, dag_id, run_id, lambda run: replace(run, accepted=True))

    def forget_content(self, source_id: str) -> None:
        """Delete what is on record of a source's content, because the source is deleted."""
        forget_variable(self._variable("coveo_content", source_id))

    def _content(self, source_id: str) -> dict[str, object]:
        value = read_variable(self._variable("coveo_content", source_id))
        return dict(value) if isinstance(value, Mapping) else {}

    def _change_run(
        self,
        source_id: str,
        dag_id: str,
        run_id: str,
        change: Callable[[RunRecord], RunRecord],
        holding: set[tuple[str, str]] | None = None,
    ) -> tuple[RunRecord, str]:
        """
        Change the record of a run, which thereby is the last one to change the source's content.

        :return: The record, and a name for the time since when the run changes the content.
        """

        def changed(value: object) -> tuple[dict[str, object] | None, tuple[RunRecord, str, list[RunRecord]]]:
            content = dict(value) if isinstance(value, Mapping) else {}
            since = str(content.get("since") or uuid.uuid4().hex)
            is_last = (content.get("dag_id"), content.get("run_id")) == (dag_id, run_id)
            if not is_last:
                # Derived, so that tasks of one run that begin at the same time come to the same.
                since = hashlib.sha256(f"{since} {dag_id} {run_id}".encode()).hexdigest()[:16]
            before = run_among(content, dag_id, run_id)
            run = change(before or run_or_what_is_left(content, dag_id, run_id))
            if is_last and run == before:
                return None, (run, since, [])
            if is_last and before is None and run == RunRecord(dag_id, run_id):
                # 0.1.0 wrote the rest.
                return None, (run, since, [])
            runs = [each for each in runs_in(content) if (each.dag_id, each.run_id) != (dag_id, run_id)]
            old, recent = _split(runs, holding)
            every = [*(replace(each, brackets=()) for each in old), *recent, run]
            record = {
                "dag_id": dag_id,
                "run_id": run_id,
                "since": since,
                "version": _VERSION,
                "organization_id": self._organization_id,
                "source_id": source_id,
                "runs": [asdict(each) for each in every[-MAX_RUNS:]],
                "forgotten": forgotten_with(content, every[:-MAX_RUNS]),
            }
            return record, (run, since, old)

        run, since, old = update_variable(
            self._variable("coveo_content", source_id),
            changed,
            "Which DAG runs changed a Coveo source's content; safe to delete while none is running.",
        )
        _forget_brackets(old)
        return run, since

    # --- what the watchdog saw ---

    def seen(self, source_id: str) -> dict[str, Any]:
        """Return what the watchdog saw last at Coveo, of a source."""
        value = read_variable(self._variable("coveo_seen", source_id))
        if not isinstance(value, Mapping) or not isinstance(value.get("holders"), Mapping):
            return {}
        return dict(value)

    def saw(self, source_id: str, seen: Mapping[str, object] | None) -> None:
        """Store what the watchdog saw at Coveo, or delete it."""
        name = self._variable("coveo_seen", source_id)
        if seen is None:
            delete_variable(name)
            return
        write_variable(
            name,
            {**seen, "version": _VERSION},
            "What the watchdog last saw of a Coveo source that is active; safe to delete.",
        )

    def _variable(self, kind: str, source_id: str) -> str:
        return variable_name(kind, self._organization_id, source_id)


def new_opening() -> str:
    """Return a name for an opening that no other one has."""
    return uuid.uuid4().hex[:16]


def bracket_variable(holder: Holder) -> str:
    """
    Return the key of the Variable that says what a bracket did in its run.

    :param holder: The bracket.
    """
    mapped = [str(holder.map_index)] if holder.map_index >= 0 else []
    digest = hashlib.sha256(holder.run_id.encode()).hexdigest()[:16]
    return variable_name("coveo_bracket", holder.dag_id, holder.open_task_id, *mapped, digest)


def _split(
    runs: list[RunRecord], holding: set[tuple[str, str]] | None
) -> tuple[list[RunRecord], list[RunRecord]]:
    """Part the runs whose brackets' records go from those whose records stay."""
    if holding is None:
        return [], runs
    recent = runs[-_MAX_RUNS_WITH_BRACKETS + 1 :]
    stay = [run for run in runs if run in recent or (run.dag_id, run.run_id) in holding]
    return [run for run in runs if run not in stay], stay


def _forget_brackets(runs: list[RunRecord]) -> None:
    """Delete the records of brackets of runs that were long ago."""
    for run in runs:
        for open_task_id, map_index in run.brackets:
            # Nothing depends on it.
            with suppress(Exception):
                delete_variable(bracket_variable(Holder(run.dag_id, run.run_id, open_task_id, map_index)))


def holders_in(value: object) -> tuple[SourceRecord, ...]:
    """
    Return the brackets that hold a source open by its record, the latest first.

    :param value: The value of its Variable.
    """
    if not isinstance(value, Mapping):
        return ()
    others = value.get("others")
    entries = [value, *(others if isinstance(others, list) else [])]
    records = [from_record(SourceRecord, entry) for entry in entries]
    return tuple(
        replace(record, reopened_by=as_pair(record.reopened_by)) for record in records if record is not None
    )
