"""The names that 0.1.0 had here, which are now in :mod:`airflow_provider_coveo.state`."""

from __future__ import annotations

from airflow_provider_coveo.state.airflow_runs import task_states
from airflow_provider_coveo.state.created_sources import MadeSource
from airflow_provider_coveo.state.ledger import Holder, SourceLedger
from airflow_provider_coveo.state.task_store import RUNS_REMEMBERED, RunState, retry_series

__all__ = [
    "RUNS_REMEMBERED",
    "Holder",
    "MadeSource",
    "RunState",
    "forget_content",
    "retry_series",
    "take_over_content",
    "task_states",
]


def take_over_content(organization_id: str, source_id: str, dag_id: str, run_id: str) -> str:
    """
    Record that a run changes the content of a source from now on.

    :return: A name for this change, which stays the same until another run changes the content.
    """
    return SourceLedger(organization_id).content_changed(source_id, dag_id, run_id)


def forget_content(organization_id: str, source_id: str) -> None:
    """Delete the records of a source's content, because the source is deleted."""
    SourceLedger(organization_id).forget_content(source_id)
