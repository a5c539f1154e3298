"""The hook's observers of its client: metrics, records of the run, and lineage."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from airflow_provider_coveo.coveo.errors import CoveoError
from airflow_provider_coveo.coveo.observer import ComparedPush, Observer, RejectedItems, is_batch_of_push
from airflow_provider_coveo.hooks.content_changes import RunPushRecords, changed_source, recording
from airflow_provider_coveo.hooks.dry_runs import reject_dry_push, reject_in_dry_run
from airflow_provider_coveo.hooks.lineage import tell_lineage
from airflow_provider_coveo.hooks.metrics import count_accepted, count_request, count_retry
from airflow_provider_coveo.hooks.recording import RecordingHook
from airflow_provider_coveo.hooks.run_records import record_accepted, record_pushed
from airflow_provider_coveo.state.moved_sources import reject_moved_source

if TYPE_CHECKING:
    from airflow_provider_coveo.coveo.only_changes import OnlyChanges


class RequestCounter(Observer):
    """Counts requests in Airflow's metrics."""

    def requested(self, outcome: int | str) -> None:
        """Count an attempt."""
        count_request(outcome)

    def retrying(self, error: CoveoError) -> None:
        """Count a retry."""
        count_retry(error)


class HookObserver(RequestCounter):
    """
    Counts in Airflow's metrics, and records the run's changes.

    :param hook: The hook whose client is observed.
    """

    def __init__(self, hook: RecordingHook) -> None:
        self._hook = hook

    def requesting(self, method: str, path: str) -> AbstractContextManager[None]:
        """Record that a request changes the content of a source; reject it if its task must not do that."""
        reject_in_dry_run(method, path)
        source_id = changed_source(method, path)
        reject_moved_source(self._hook.organization_id, source_id)
        # A push records its own batches.
        if is_batch_of_push():
            return nullcontext()
        return recording(self._hook, source_id)

    def accepted(self, source_id: str, counts: Mapping[str, int], size: int) -> None:
        """Count an accepted batch."""
        count_accepted(source_id, counts, size)

    def item_added(self, source_id: str) -> None:
        """Record that the run pushed an item."""
        record_accepted(self._hook, source_id)

    def dry_push(self, source_id: str) -> None:
        """Reject a dry run in a bracket that would delete what it does not push."""
        reject_dry_push(source_id)

    def push_records(self, source_id: str, *, resumable: bool) -> RunPushRecords:
        """Return the records of a push; reject it if its task must not push to the source."""
        reject_moved_source(self._hook.organization_id, source_id)
        return RunPushRecords(self._hook, source_id, resumable=resumable)

    def compared_push(self, source_id: str, changes: OnlyChanges, *, dry_run: bool = False) -> ComparedPush:
        """Return a push that compares its input with a snapshot."""
        # It imports sqlite3, which other pushes don't need.
        from airflow_provider_coveo.hooks.changes import ChangesPush

        return ChangesPush(self._hook, source_id, changes, dry_run=dry_run)

    def rejected_items(self, source_id: str, path: object) -> RejectedItems:
        """Return the collector of a push's invalid items."""
        # It imports the file readers, which other pushes don't need.
        from airflow_provider_coveo.hooks.rejected_items import RunRejectedItems

        return RunRejectedItems(self._hook, source_id, path)

    def pushed(self, source_id: str, result: Mapping[str, object], *, is_complete: bool) -> None:
        """Record how many items the run pushed."""
        if is_complete:
            tell_lineage(self._hook, self._hook.organization_id, source_id)
            if result["accepted_adds"]:
                record_accepted(self._hook, source_id)
        record_pushed(self._hook, source_id, result)
