"""
Records of the owners of a source, the actions of each bracket, and the changes of each run to a source.

There are three kinds of records, each in its own Airflow Variable, because other runs, other DAGs, callbacks
in the DAG processor and the watchdog read them:

- ``coveo_open__<organization>__<source>``: the brackets that own the source, the latest first. It exists
  while there is one.
- ``coveo_bracket__<dag>__<task>__<digest of the run>``: one bracket in one run: the source and the connection
  that its first opening pinned, its phase, and its first cut-off. It is written before anything is sent, so
  that a missing record never means "nothing was opened".
- ``coveo_content__<organization>__<source>``: the run that last changed the source's content, and for the
  latest runs, their first cut-off and whether Coveo accepted an item from them. For a thousand earlier runs,
  only the fact that they changed the content is recorded: their first cut-off is unknown, not that of the
  next opening.

A Variable has no compare-and-set. So each record has few writers, and data that must survive a race is stored
twice. If a fact can't be established, the record says so: with an unknown cut-off, nothing is deleted.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import Any, Final

from airflow_provider_coveo.state.records import as_tuple, from_record
from airflow_provider_coveo.state.run_marks import CurrentRun, mark_in
from airflow_provider_coveo.state.run_records import (
    MAX_RUNS,
    RunRecord,
    forgotten_with,
    run_among,
    run_or_what_is_left,
    runs_in,
    split_runs,
)
from airflow_provider_coveo.state.variables import (
    delete_variable,
    forget_variable,
    read_variable,
    update_variable,
    variable_name,
    write_variable,
)

#: The version of the records. 0.1.0 and 0.1.1 wrote none.
_VERSION: Final = 2
#: The maximum number of brackets on record that own a source at the same time.
_MAX_HOLDERS: Final = 50
#: The required fields of a bracket's record; a record without them was edited by hand and is ignored.
_NEEDED_OF_A_BRACKET: Final = frozenset({"organization_id", "source_id", "coveo_conn_id", "phase"})


class Phase(str, Enum):
    """The phase of a bracket in a run."""

    #: Nothing was sent yet.
    WAITING = "waiting"
    #: The active status may have been sent; nobody knows yet whether Coveo accepted it.
    OPENING = "opening"
    #: Coveo accepted the active status.
    OPEN = "open"
    #: The request for the active status failed, but Coveo may have carried it out.
    UNSURE = "unsure"
    #: Coveo rejected the active status, so there is nothing to close.
    REJECTED = "rejected"
    #: ``IDLE`` is about to be sent.
    CLOSING = "closing"
    #: Coveo accepted ``IDLE``.
    CLOSED = "closed"
    #: Left open for another running bracket, which closes the source.
    LEFT = "left"


#: The phases in which the source may be active because of the bracket.
_MAY_BE_OPEN: Final = frozenset({Phase.OPENING, Phase.OPEN, Phase.UNSURE, Phase.CLOSING})


@dataclass(frozen=True)
class Holder:
    """
    A bracket in a run.

    :param dag_id: Its DAG.
    :param run_id: Its run.
    :param open_task_id: Its ``open`` task, which distinguishes it from other brackets of the run.
    :param map_index: Its map index if it is in a mapped task group, else -1.
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
        """The bracket alone, without the other fields of a record."""
        return Holder(self.dag_id, self.run_id, self.open_task_id, self.map_index)

    def task_id(self, name: str) -> str:
        """Return the ID of another of the bracket's tasks, such as ``close``."""
        return f"{self.open_task_id.removesuffix('open')}{name}"

    @classmethod
    def of_source(cls, organization_id: str, source_id: str) -> Holder | None:
        """Return the bracket that owns the source and opened it last, or ``None`` if none is known."""
        holders = SourceLedger(organization_id).holders(source_id)
        return holders[0].bracket if holders else None

    def take(self, organization_id: str, source_id: str) -> None:
        """Record that this bracket owns the source."""
        SourceLedger(organization_id).hold(source_id, SourceRecord(**asdict(self)))

    def release(self, organization_id: str, source_id: str) -> None:
        """Record that this bracket no longer owns the source."""
        SourceLedger(organization_id).release(source_id, self)


@dataclass(frozen=True)
class SourceRecord(Holder):
    """
    A bracket that owns a source.

    :param opening: The unique name of the opening.
    :param since_ms: The time of the opening, on Coveo's clock in epoch milliseconds; ``None`` until Coveo
        responds.
    :param status: The status that it set.
    :param coveo_conn_id: The connection that it uses.
    :param reopened_by: The task that opened it again after its ``outcome`` had run, and its map index.
    :param members_outside: The bracket's tasks that are not in its task group.
    :param is_claim: Whether it only claims the source, to open it next: it has set no status yet, so it
        closes nothing.
    :param left_conn_id: The connection of another bracket that left the source open for this one; empty if
        none did.
    """

    opening: str = ""
    since_ms: int | None = None
    status: str = ""
    coveo_conn_id: str = ""
    reopened_by: tuple[str, int] | None = None
    members_outside: tuple[str, ...] = ()
    is_claim: bool = False
    left_conn_id: str = ""

    def has_member(self, task_name: str) -> bool:
        """
        Return whether a task instance belongs to the bracket, by the unique name of the instance.

        :param task_name: The name. Airflow appends the map index in one of two forms.
        """
        if task_name.startswith(self.task_id("")):
            return True
        names = {task_name, task_name.rpartition("_")[0], task_name.rpartition("[")[0]}
        return not names.isdisjoint(self.members_outside)


@dataclass(frozen=True)
class BracketRecord:
    """
    The actions of one bracket in one run.

    :param organization_id: The organization that the run's first opening used.
    :param source_id: The source that it opened. It stays the same for the run, whatever templates render to.
    :param coveo_conn_id: The connection that it used.
    :param status: The status that was set last.
    :param phase: The phase of the bracket.
    :param opening: The last opening.
    :param is_concluded: Whether that opening has ended: none of its requests can still arrive.
    :param first_cut_off_ms: The time before the run's first push to the source, on Coveo's clock.
    :param why_unknown: The reason why that time can no longer be known.
    :param opened_at: The start of the last opening, on Airflow's clock in epoch seconds.
    :param closed_at: The time when Coveo accepted ``IDLE``, on Airflow's clock in epoch seconds.
    :param reopened_by: The task that opened the bracket again, and its map index.
    :param waiting: The series of attempts that waits for a source, and the start of the wait.
    :param waiting_for: That source.
    :param closed_by: The component that closed the source, if not the bracket itself: ``watchdog``.
    :param left_for: The bracket for which it left the source open: DAG, run, ``open`` and map index.
    :param left_conn_id: The connection of a bracket that left the source open for this one; empty if none
        did, or if its own connection has worked since.
    :param mark: What tells the run of the last opening from a deleted one with its ID; ``None`` in a record
        of 0.1.
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
    waiting_for: str = ""
    closed_by: str = ""
    left_for: tuple[str, str, str, int] | None = None
    left_conn_id: str = ""
    mark: tuple[float, int, int] | None = None
    version: int = _VERSION

    @property
    def is_pinned(self) -> bool:
        """Whether an opening of this run may have reached Coveo, which fixes the run's source."""
        return bool(self.source_id)

    @property
    def may_be_open(self) -> bool:
        """Whether the source may be active because of the bracket."""
        return self.is_pinned and self.phase in _MAY_BE_OPEN


def read_bracket(holder: Holder) -> BracketRecord | None:
    """Return the record of a bracket in its run, or ``None`` if it is missing or incomplete."""
    return bracket_in(read_variable(bracket_variable(holder)))


def bracket_in(value: Any) -> BracketRecord | None:
    """
    Return the record in a Variable's value, or ``None`` if it is missing or incomplete.

    :param value: The value of its Variable.
    """
    record = from_record(BracketRecord, value)
    if record is None or not value.keys() >= _NEEDED_OF_A_BRACKET:
        return None
    try:
        phase = Phase(record.phase)
    except ValueError:
        # A later version may have more phases; a source in an unknown phase must be closed.
        phase = Phase.UNSURE
    if phase in _MAY_BE_OPEN and not (record.source_id and record.organization_id):
        return None
    return replace(
        record,
        phase=phase,
        reopened_by=as_tuple(record.reopened_by),
        waiting=as_tuple(record.waiting),
        left_for=as_tuple(record.left_for, 4),
        mark=mark_in(record.mark),
    )


def write_bracket(holder: Holder, record: BracketRecord) -> None:
    """Store the record of a bracket in its run."""
    write_variable(
        bracket_variable(holder),
        {**asdict(record), "phase": record.phase.value},
        f"The actions of the bracket of {holder}; the Coveo provider deletes it some runs later.",
    )


class SourceLedger:
    """
    The records of one organization's sources.

    :param organization_id: The organization.
    """

    def __init__(self, organization_id: str) -> None:
        self._organization_id = organization_id

    # --- owners of a source ---

    def holders(self, source_id: str) -> tuple[SourceRecord, ...]:
        """Return the brackets that own a source, the latest first."""
        return holders_in(read_variable(self._variable("coveo_open", source_id)))

    def hold(
        self, source_id: str, record: SourceRecord, among: tuple[SourceRecord, ...] | None = None
    ) -> None:
        """
        Record that a bracket owns a source, in addition to any other owners.

        :param source_id: The source.
        :param record: The bracket.
        :param among: The owners of the source, if they were just read.
        """
        holders = self.holders(source_id) if among is None else among
        others = [other for other in holders if other.bracket != record.bracket]
        self._write_holders(source_id, [record, *others])

    def leave(
        self,
        source_id: str,
        bracket: Holder,
        coveo_conn_id: str,
        to: SourceRecord,
    ) -> bool:
        """
        Record that a bracket leaves a source open for another one, which closes it.

        :param source_id: The source.
        :param bracket: The bracket that no longer owns it.
        :param coveo_conn_id: Its connection.
        :param to: The other one.
        :return: Whether the other one still owns it.
        """
        others = {each.bracket: each for each in self.holders(source_id)}
        own, its = others.pop(bracket.bracket, None), others.get(to.bracket)
        if its is not None:
            # The activity that it closes then may be the one that the other bracket began.
            since_ms = its.since_ms
            if own is not None and own.since_ms is not None and since_ms is not None:
                since_ms = max(since_ms, own.since_ms)
            others[to.bracket] = replace(its, left_conn_id=coveo_conn_id, since_ms=since_ms)
            self._write_holders(source_id, list(others.values()))
        return its is not None

    def release(
        self,
        source_id: str,
        bracket: Holder,
        among: tuple[SourceRecord, ...] | None = None,
        opening: str | None = None,
    ) -> tuple[SourceRecord, ...]:
        """
        Record that a bracket no longer owns a source.

        :param source_id: The source.
        :param bracket: The bracket.
        :param among: The owners of the source, if they were just read.
        :param opening: The opening that ends. Default: any of the bracket's.
        :return: The brackets that still own it.
        """
        holders = self.holders(source_id) if among is None else among
        own = bracket.bracket
        others = [each for each in holders if each.bracket != own or opening not in {None, each.opening}]
        if len(others) != len(holders):
            self._write_holders(source_id, others)
        return tuple(others)

    def release_all(
        self, source_id: str, among: tuple[SourceRecord, ...], claims: tuple[SourceRecord, ...] = ()
    ) -> None:
        """
        Record that nobody owns a source anymore.

        :param source_id: The source.
        :param among: The previous owners.
        :param claims: Those of them that claim it and open it next. Default: none.
        """
        if among != claims:
            self._write_holders(source_id, list(claims))

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
            "The DAG runs that own a Coveo source; the Coveo provider deletes it when the source is closed.",
        )

    # --- changes of runs to a source ---

    def run(self, source_id: str, dag_id: str, run_id: str, this_run: CurrentRun | None = None) -> RunRecord:
        """Return the record of a run's changes to a source, as far as known."""
        return run_or_what_is_left(self._content(source_id), source_id, dag_id, run_id, this_run)

    def opened(
        self,
        source_id: str,
        bracket: Holder,
        at_ms: int | None,
        known: BracketRecord,
        among: tuple[SourceRecord, ...] = (),
        this_run: CurrentRun | None = None,
    ) -> RunRecord:
        """
        Record that a bracket opened a source, and establish the run's first cut-off.

        The first cut-off is that of the first bracket of the run to open the source. If the run pushed to the
        source before, the first cut-off can't be established and stays unknown.

        :param source_id: The source.
        :param bracket: The bracket.
        :param at_ms: The cut-off of this opening, on Coveo's clock.
        :param known: The bracket's record of earlier openings.
        :param among: The owners of the source; their records are kept, however many runs follow. Default:
            none.
        :param this_run: What tells the run from a deleted one with its ID. Default: unknown.
        """

        def with_opening(run: RunRecord) -> RunRecord:
            this = (bracket.open_task_id, bracket.map_index)
            return run.with_opening(this, at_ms, known.first_cut_off_ms, known.why_unknown)

        holding = {(holder.dag_id, holder.run_id) for holder in among}
        return self._change_run(source_id, bracket.dag_id, bracket.run_id, with_opening, holding, this_run)[0]

    def content_changed(
        self,
        source_id: str,
        dag_id: str,
        run_id: str,
        this_run: CurrentRun | None = None,
        *,
        pushes: bool = False,
    ) -> str:
        """
        Record that a run changes the content of a source from now on.

        :param source_id: The source.
        :param dag_id: The run's DAG.
        :param run_id: The run.
        :param this_run: What tells the run from a deleted one with its ID. Default: unknown.
        :param pushes: Whether it adds items. Default ``False``.
        :return: A name for the start of its changes; it stays the same until another run changes the content.
        """

        def pushing(run: RunRecord) -> RunRecord:
            if not pushes or run.first_cut_off_ms is not None or run.why_unknown:
                return run
            return replace(run, pushed_unopened=True)

        return self._change_run(source_id, dag_id, run_id, pushing, this_run=this_run)[1]

    def accepted(self, source_id: str, dag_id: str, run_id: str, this_run: CurrentRun | None = None) -> None:
        """Record that Coveo accepted an item that a run pushed to a source."""
        self._change_run(
            source_id, dag_id, run_id, lambda run: replace(run, accepted=True), this_run=this_run
        )

    def pushed_only_changes(
        self, source_id: str, dag_id: str, run_id: str, task_id: str, this_run: CurrentRun | None = None
    ) -> None:
        """Record that a task of a run leaves out what a snapshot or a cursor shows as unchanged."""

        def without_the_rest(run: RunRecord) -> RunRecord:
            known = task_id in run.only_changes
            return run if known else replace(run, only_changes=(*run.only_changes, task_id))

        self._change_run(source_id, dag_id, run_id, without_the_rest, this_run=this_run)

    def forget_content(self, source_id: str) -> None:
        """Delete the record of a source's content, because the source is deleted."""
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
        this_run: CurrentRun | None = None,
    ) -> tuple[RunRecord, str]:
        """
        Change the record of a run, and make it the last run that changed the source's content.

        :return: The record, and a name for the start of the run's changes.
        """

        def changed(value: object) -> tuple[dict[str, object] | None, tuple[RunRecord, str, list[RunRecord]]]:
            content = dict(value) if isinstance(value, Mapping) else {}
            since = str(content.get("since") or uuid.uuid4().hex)
            is_last = (content.get("dag_id"), content.get("run_id")) == (dag_id, run_id)
            if not is_last:
                # Derived, so that tasks of one run that start at the same time get the same name.
                since = hashlib.sha256(f"{since} {dag_id} {run_id}".encode()).hexdigest()[:16]
            before = run_among(content, dag_id, run_id)
            run = change(run_or_what_is_left(content, source_id, dag_id, run_id, this_run))
            if is_last and run == before:
                return None, (run, since, [])
            if is_last and before is None and run == RunRecord(dag_id, run_id, mark=run.mark):
                # A record of 0.1.0.
                return None, (run, since, [])
            runs = [each for each in runs_in(content) if (each.dag_id, each.run_id) != (dag_id, run_id)]
            old, recent = split_runs(runs, holding)
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
            "The DAG runs that changed a Coveo source's content; safe to delete while none is running.",
        )
        _forget_brackets(old)
        return run, since

    # --- the watchdog's view ---

    def seen(self, source_id: str) -> dict[str, object]:
        """Return the watchdog's latest view of a source at Coveo."""
        value = read_variable(self._variable("coveo_seen", source_id))
        if not isinstance(value, Mapping) or not isinstance(value.get("holders"), Mapping):
            return {}
        return dict(value)

    def saw(self, source_id: str, seen: Mapping[str, object] | None) -> None:
        """Store or delete the watchdog's view of a source."""
        name = self._variable("coveo_seen", source_id)
        if seen is None:
            delete_variable(name)
            return
        write_variable(
            name,
            {**seen, "version": _VERSION},
            "The watchdog's latest view of an active Coveo source; safe to delete.",
        )

    def _variable(self, kind: str, source_id: str) -> str:
        return variable_name(kind, self._organization_id, source_id)


def new_opening() -> str:
    """Return a unique name for an opening."""
    return uuid.uuid4().hex[:16]


def bracket_variable(holder: Holder) -> str:
    """
    Return the key of the Variable with the record of a bracket in its run.

    :param holder: The bracket.
    """
    mapped = [str(holder.map_index)] if holder.map_index >= 0 else []
    names = (holder.dag_id, holder.open_task_id)
    # Names that contain the separator would be ambiguous.
    hashed = "\0".join((*names, holder.run_id)) if any("__" in name for name in names) else holder.run_id
    digest = hashlib.sha256(hashed.encode()).hexdigest()[:16]
    return variable_name("coveo_bracket", *names, *mapped, digest)


def _forget_brackets(runs: list[RunRecord]) -> None:
    """Delete the records of the brackets of old runs."""
    for run in runs:
        for open_task_id, map_index in run.brackets:
            # Nothing depends on the deletion.
            with suppress(Exception):
                delete_variable(bracket_variable(Holder(run.dag_id, run.run_id, open_task_id, map_index)))


def holders_in(value: object) -> tuple[SourceRecord, ...]:
    """
    Return the brackets that own a source, from its record, the latest first.

    :param value: The value of its Variable.
    """
    if not isinstance(value, Mapping):
        return ()
    others = value.get("others")
    entries = [value, *(others if isinstance(others, list) else [])]
    records = [from_record(SourceRecord, entry) for entry in entries]
    return tuple(
        replace(
            record,
            reopened_by=as_tuple(record.reopened_by),
            members_outside=tuple(map(str, record.members_outside)),
        )
        for record in records
        if record is not None
    )
