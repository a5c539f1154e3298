"""
What runs did to the content of a source, as the source's record says it.

The record is the value of the Variable ``coveo_content__<organization>__<source>``, which
:class:`~airflow_provider_coveo.state.ledger.SourceLedger` reads and writes. Here it is only looked through.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from airflow_provider_coveo.state.records import as_pair, from_record

#: How many runs a source's record keeps, the latest ones.
MAX_RUNS: Final = 30
#: Of how many runs that it no longer keeps it is known that they worked on the source, by a digest of each.
MAX_FORGOTTEN: Final = 1000
_DIGITS_OF_A_FORGOTTEN: Final = 8
FORGOTTEN: Final = "thirty other runs have worked on the source since the run first did"


@dataclass(frozen=True)
class RunRecord:
    """
    What one run did to one source.

    :param dag_id: The run's DAG.
    :param run_id: The run.
    :param first_cut_off_ms: The moment before the run's first push to the source, on Coveo's clock.
    :param why_unknown: Why that moment is not known, if it can't be any more.
    :param pushed_unopened: Whether the run pushed before a bracket of it had opened the source.
    :param accepted: Whether Coveo accepted an item of the run.
    :param brackets: The brackets that opened the source: their ``open`` tasks and map indexes.
    """

    dag_id: str
    run_id: str
    first_cut_off_ms: int | None = None
    why_unknown: str = ""
    pushed_unopened: bool = False
    accepted: bool = False
    brackets: tuple[tuple[str, int], ...] = ()


def runs_in(content: Mapping[str, Any]) -> list[RunRecord]:
    """
    Return what runs did to a source by its record, the latest last.

    :param content: The value of its Variable.
    """
    entries = content.get("runs")
    found = [from_record(RunRecord, entry) for entry in (entries if isinstance(entries, list) else [])]
    return [
        replace(run, brackets=tuple(pair for each in run.brackets if (pair := _bracket_name(each))))
        for run in found
        if run is not None
    ]


def run_among(content: Mapping[str, Any], dag_id: str, run_id: str) -> RunRecord | None:
    """
    Return the record of a run, ``None`` if it is not kept.

    :param content: The source's record.
    :param dag_id: The run's DAG.
    :param run_id: The run.
    """
    return next((run for run in runs_in(content) if (run.dag_id, run.run_id) == (dag_id, run_id)), None)


def run_or_what_is_left(content: Mapping[str, Any], dag_id: str, run_id: str) -> RunRecord:
    """
    Return the record of a run; of one that is no longer kept, that its first cut-off can't be known.

    :param content: The source's record.
    :param dag_id: The run's DAG.
    :param run_id: The run.
    """
    found = run_among(content, dag_id, run_id)
    if found is not None:
        return found
    run = RunRecord(dag_id, run_id)
    return replace(run, why_unknown=FORGOTTEN) if _digest(run) in _forgotten(content) else run


def _forgotten(content: Mapping[str, Any]) -> list[str]:
    text, size = content.get("forgotten"), _DIGITS_OF_A_FORGOTTEN
    if not isinstance(text, str):
        return []
    return [text[start : start + size] for start in range(0, len(text), size)]


def forgotten_with(content: Mapping[str, Any], runs: list[RunRecord]) -> str:
    """
    Return what is kept of the runs that no longer are, with some that no longer will be.

    :param content: The source's record.
    :param runs: The runs.
    """
    # Without a separator, as a source may see many runs: 8 kB at most.
    digests = dict.fromkeys([*_forgotten(content), *map(_digest, runs)])
    return "".join(list(digests)[-MAX_FORGOTTEN:])


def _digest(run: RunRecord) -> str:
    return hashlib.sha256(f"{run.dag_id} {run.run_id}".encode()).hexdigest()[:_DIGITS_OF_A_FORGOTTEN]


def _bracket_name(value: object) -> tuple[str, int] | None:
    pair = as_pair(value)
    is_one = pair is not None and isinstance(pair[0], str) and isinstance(pair[1], int)
    return pair if is_one else None
