"""
The runs that changed the content of a source, from the source's record.

The record is the value of the Variable ``coveo_content__<organization>__<source>``, which
:class:`~airflow_provider_coveo.state.ledger.SourceLedger` reads and writes. This module only parses it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from airflow_provider_coveo.state.records import as_tuple, from_record
from airflow_provider_coveo.state.run_marks import CurrentRun, mark_in

#: The number of runs, the latest ones, that a source's record keeps.
MAX_RUNS: Final = 30
#: The number of earlier runs of which it keeps only a digest, to know that they updated the source.
MAX_FORGOTTEN: Final = 1000
#: The number of runs whose bracket records are kept.
_MAX_RUNS_WITH_BRACKETS: Final = 10
_DIGITS_OF_A_FORGOTTEN: Final = 8
FORGOTTEN: Final = "thirty other runs have worked on the source since the run first did"


@dataclass(frozen=True)
class RunRecord:
    """
    The changes of one run to one source.

    :param dag_id: The run's DAG.
    :param run_id: The run.
    :param first_cut_off_ms: The time before the run's first push to the source, on Coveo's clock.
    :param why_unknown: The reason why that time can no longer be known.
    :param pushed_unopened: Whether the run pushed before one of its brackets opened the source.
    :param accepted: Whether Coveo accepted an item from the run.
    :param only_changes: The tasks that left out what a snapshot or a cursor shows as unchanged, so that a
        deletion by time would remove it.
    :param brackets: The brackets that opened the source: their ``open`` tasks and map indexes.
    :param mark: What tells the run from a deleted one with its ID; ``None`` in a record of 0.1.
    """

    dag_id: str
    run_id: str
    first_cut_off_ms: int | None = None
    why_unknown: str = ""
    pushed_unopened: bool = False
    accepted: bool = False
    only_changes: tuple[str, ...] = ()
    brackets: tuple[tuple[str, int], ...] = ()
    mark: tuple[float, int, int] | None = None

    def with_opening(
        self,
        bracket: tuple[str, int],
        at_ms: int | None,
        known_cut_off_ms: int | None,
        known_why_unknown: str,
    ) -> RunRecord:
        """
        Return the record after a bracket opened the source, with the run's first cut-off.

        :param bracket: The bracket: its ``open`` and map index.
        :param at_ms: The cut-off of this opening, on Coveo's clock.
        :param known_cut_off_ms: The first cut-off on the bracket's own record.
        :param known_why_unknown: The reason on that record why the first cut-off is unknown.
        """
        # The bracket's own record outlives the record of its run.
        is_known = known_cut_off_ms is not None and self.why_unknown == FORGOTTEN
        why_unknown = known_why_unknown if is_known else self.why_unknown or known_why_unknown
        known = [at for at in (known_cut_off_ms, self.first_cut_off_ms) if at is not None]
        first = min(known, default=None)
        if first is None and not why_unknown:
            if self.pushed_unopened or self.accepted:
                why_unknown = "the run pushed to the source before the bracket opened it"
            elif at_ms is None:
                why_unknown = "Coveo's response to the opening had no time"
            else:
                first = at_ms
        brackets = self.brackets if bracket in self.brackets else (*self.brackets, bracket)
        return replace(self, first_cut_off_ms=first, why_unknown=why_unknown, brackets=brackets)


def runs_in(content: Mapping[str, object]) -> list[RunRecord]:
    """
    Return the runs in a source's record, the latest last.

    :param content: The value of its Variable.
    """
    entries = content.get("runs")
    found = [from_record(RunRecord, entry) for entry in (entries if isinstance(entries, list) else [])]
    return [
        replace(
            run,
            brackets=tuple(pair for each in run.brackets if (pair := _bracket_name(each))),
            only_changes=tuple(str(task_id) for task_id in run.only_changes),
            mark=mark_in(run.mark),
        )
        for run in found
        if run is not None
    ]


def run_among(content: Mapping[str, object], dag_id: str, run_id: str) -> RunRecord | None:
    """
    Return the record of a run, ``None`` if there is none.

    :param content: The source's record.
    :param dag_id: The run's DAG.
    :param run_id: The run.
    """
    return next((run for run in runs_in(content) if (run.dag_id, run.run_id) == (dag_id, run_id)), None)


def run_or_what_is_left(
    content: Mapping[str, object],
    source_id: str,
    dag_id: str,
    run_id: str,
    this_run: CurrentRun | None = None,
) -> RunRecord:
    """
    Return the record of a run. If the run is no longer kept, its first cut-off is unknown.

    A run inherits nothing from a deleted one with its ID. If nothing tells whether it is another one, it
    inherits only what keeps items.

    :param content: The source's record.
    :param source_id: The source.
    :param dag_id: The run's DAG.
    :param run_id: The run.
    :param this_run: What tells the run from a deleted one with its ID. Default: unknown.
    """
    found = run_among(content, dag_id, run_id)
    mark = None if this_run is None else this_run.mark
    if found is not None:
        is_another = False if this_run is None else this_run.is_another(found.mark, source_id, found.brackets)
        # A task that opened the source instead of an `open` that was marked by hand announced nothing.
        if is_another and not found.why_unknown:
            return RunRecord(dag_id, run_id, mark=mark)
        if is_another is not False:
            pushed = found.pushed_unopened or found.accepted
            return replace(found, accepted=False, pushed_unopened=pushed, mark=mark)
        return found if found.mark is not None else replace(found, mark=mark)
    run = RunRecord(dag_id, run_id, mark=mark)
    return replace(run, why_unknown=FORGOTTEN) if _digest(run) in _forgotten(content) else run


def split_runs(
    runs: list[RunRecord], holding: set[tuple[str, str]] | None
) -> tuple[list[RunRecord], list[RunRecord]]:
    """Split runs into those whose bracket records are deleted, and those whose records are kept."""
    if holding is None:
        return [], runs
    recent = runs[-_MAX_RUNS_WITH_BRACKETS + 1 :]
    stay = [run for run in runs if run in recent or (run.dag_id, run.run_id) in holding]
    return [run for run in runs if run not in stay], stay


def _forgotten(content: Mapping[str, object]) -> list[str]:
    text, size = content.get("forgotten"), _DIGITS_OF_A_FORGOTTEN
    if not isinstance(text, str):
        return []
    return [text[start : start + size] for start in range(0, len(text), size)]


def forgotten_with(content: Mapping[str, object], runs: list[RunRecord]) -> str:
    """
    Return the digests of runs that are no longer kept, including some new ones.

    :param content: The source's record.
    :param runs: The runs.
    """
    # No separator, because a source can have many runs: 8 kB at most.
    digests = dict.fromkeys([*_forgotten(content), *map(_digest, runs)])
    return "".join(list(digests)[-MAX_FORGOTTEN:])


def _digest(run: RunRecord) -> str:
    return hashlib.sha256(f"{run.dag_id} {run.run_id}".encode()).hexdigest()[:_DIGITS_OF_A_FORGOTTEN]


def _bracket_name(value: object) -> tuple[str, int] | None:
    pair = as_tuple(value)
    is_one = pair is not None and isinstance(pair[0], str) and isinstance(pair[1], int)
    return pair if is_one else None
