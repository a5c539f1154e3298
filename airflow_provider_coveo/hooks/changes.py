"""The hook's part in a push of only changes: the snapshot, and the detection of other writers."""

from __future__ import annotations

import hashlib
import itertools
import uuid
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_coveo.content.snapshot_push import NO_CHANGES, SnapshotPush, StoredVersions
from airflow_provider_coveo.content.snapshot_store import SnapshotStore, new_forget_record, snapshot_folder
from airflow_provider_coveo.coveo.batches import Batch
from airflow_provider_coveo.coveo.changes import ADDED, REMOVED, Comparison, Operation
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.coveo.item_logs import MAX_WINDOW, parse_datetime
from airflow_provider_coveo.coveo.observer import ComparedPush
from airflow_provider_coveo.coveo.rejections import DELETES, rejections_of
from airflow_provider_coveo.hooks.content_changes import RunPushRecords, run_of
from airflow_provider_coveo.hooks.recording import RecordingHook, task_context
from airflow_provider_coveo.state.airflow_runs import map_index_of, map_length
from airflow_provider_coveo.state.content_changes import Change, new_name
from airflow_provider_coveo.state.forgotten_items import ForgottenItems
from airflow_provider_coveo.state.ledger import SourceLedger
from airflow_provider_coveo.state.run_marks import current_run
from airflow_provider_coveo.state.snapshot_parts import SnapshotParts, StoredPart

if TYPE_CHECKING:
    from airflow_provider_coveo.coveo.indexing import Pushed
    from airflow_provider_coveo.coveo.items import InvalidItemError
    from airflow_provider_coveo.coveo.max_deleted import MaxDeleted
    from airflow_provider_coveo.coveo.only_changes import OnlyChanges
    from airflow_provider_coveo.coveo.results import ComparedResult
    from airflow_provider_coveo.hooks.rejected_items import ReadsLogs

_SNAPSHOT_IS_OLD: Final = "the snapshot is older than the last push of this task"
_LAST_IS_UNKNOWN: Final = "it is unknown whether the snapshot is the last one of this task"
#: The calls saved for each batch that is not pushed: create a container, upload the batch, submit it.
_CALLS_PER_BATCH: Final = 3
#: The maximum number of rejected items that one journal record removes from a snapshot.
_FORGOTTEN_AT_ONCE: Final = 10_000


class ChangesPush(ComparedPush):
    """
    A push of only changes.

    :param hook: The hook that pushes.
    :param source_id: The source.
    :param options: The options of the comparison.
    :param dry_run: Whether to only compare, and change neither the snapshot nor any record.
    :raises CoveoInputError: if an option is invalid; nothing has been read yet.
    """

    def __init__(
        self, hook: RecordingHook, source_id: str, options: OnlyChanges, *, dry_run: bool = False
    ) -> None:
        self._is_dry = dry_run
        self._max_deleted, path = validate_options(hook, options)
        self._hook = hook
        self._source_id = source_id
        self._options = options
        names = _names(hook, options)
        folder = snapshot_folder(path, hook.organization_id, source_id, *names)
        self.store = SnapshotStore(folder, read_only=dry_run)
        # All parts of a mapped task share one mark, whatever their number.
        task = names[: 1 if options.name else 2]
        self._records = ChangesRecords(hook, source_id, (path, *task), is_part=task != names)
        self._push = SnapshotPush(
            self.store,
            target=f"{hook.settings.push_url} {hook.organization_id} {source_id}",
            push_all_if_damaged=options.on_damaged_snapshot == "push_all",
            versions=(
                RecordedVersions(hook, source_id, str(self.store), is_dry=dry_run)
                if task == names
                else PartVersions(hook, source_id, str(self.store), (path, *task), is_dry=dry_run)
            ),
        )
        self._comparison: Comparison | None = None

    def __enter__(self) -> ChangesPush:
        try:
            self._load()
        except BaseException:
            self._push.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not None:
                self._push.fail()
        finally:
            self._push.close()

    @property
    def records(self) -> ChangesRecords:
        """Records the push's changes to the source."""
        return self._records

    def _load(self) -> None:
        """
        Read the snapshot, and check whether it is still valid.

        :raises SnapshotDamagedError: if it is damaged, unless the options treat that as no snapshot.
        :raises SnapshotError: if the storage fails.
        """
        push = self._push
        push.load()
        # Always read the records: changes made later are detected by comparison with them.
        changed = self._records.why_changed(push.snapshot.facts.since)
        push.full_because = push.why_full(self._options.full_after) or changed
        if push.full_because is None and not self._is_dry:
            push.full_because = self._why_not_on_record()
        if push.full_because is not None:
            self._hook.log.info(
                "Source %s: pushing everything, because %s", self._source_id, push.full_because
            )
        self._comparison = Comparison(
            push.snapshot,
            max_deleted=self._max_deleted,
            target=f"source {self._source_id!r}",
            holds=push.full_because is None,
            on_batch=self._write_down,
        )

    def _why_not_on_record(self) -> str | None:
        """Record for the run that unchanged items are left out; return why that is impossible."""
        context = task_context(self._hook)
        if context is None:
            return None
        run = context["ti"]
        ledger = SourceLedger(self._hook.organization_id)
        try:
            ledger.pushed_only_changes(
                self._source_id, run.dag_id, run.run_id, run.task_id, current_run(context)
            )
        except Exception as error:
            return f"a deletion of old items could not know that unchanged ones are left out ({error!r})"
        return None

    def batches(
        self,
        items: Iterable[object],
        limit: int,
        on_invalid: Callable[[int, InvalidItemError], bool],
        on_failure: Callable[[Exception], object] | None = None,
        may_delete: Callable[[], bool] | None = None,
    ) -> Iterator[Batch]:
        """
        Cut the changes into batches.

        See :meth:`~airflow_provider_coveo.coveo.changes.Comparison.batches`.
        """
        return self._compared.batches(items, limit, on_invalid, on_failure, may_delete)

    @property
    def _compared(self) -> Comparison:
        assert self._comparison is not None, "the snapshot was not loaded"
        return self._comparison

    def _write_down(self, batch: int, operations: list[Operation]) -> None:
        if batch == 0 and not self._is_dry:
            self._push.begin(self._records.begin())
        self._push.write_down(batch, operations)

    def accepted(self, batch: Batch) -> None:
        """Note that Coveo accepted a batch."""
        self._push.accepted = batch.number + 1

    def finish(self) -> None:
        """
        Replace the snapshot.

        :raises SnapshotError: if the storage fails.
        """
        if self._compared.kept_because:
            self._hook.log.warning("Source %s: %s", self._source_id, self._compared.kept_because)
        self._push.finish(self._records.since_now())

    def result(self, accepted: Mapping[str, Any]) -> ComparedResult:
        """
        Return the result of the comparison, as small JSON.

        :param accepted: The rest of the push's result.
        """
        compared = self._compared
        return {
            "added": compared.added,
            "updated": compared.updated,
            "deleted": accepted["accepted_deletes"],
            "unchanged": compared.unchanged,
            "saved_items": compared.unchanged,
            "saved_calls": _CALLS_PER_BATCH * max(0, compared.full_batches - accepted["batches"]),
            "full_because": self._push.full_because,
            "snapshot": str(self.store),
        }


def validate_options(hook: RecordingHook, options: OnlyChanges) -> tuple[MaxDeleted, str]:
    """
    Return the limit for deletions and the folder for snapshots.

    :param hook: The hook that pushes.
    :param options: The options of the comparison.
    :raises CoveoInputError: if an option is invalid.
    """
    return options.validate(), _snapshot_path(options.snapshot_path or hook.settings.snapshot_path)


def _snapshot_path(path: object) -> str:
    if not isinstance(path, str) or not path.strip():
        raise CoveoInputError(
            "Could not push only changes: there is no snapshot_path",
            cause="neither the task nor the connection's extra sets a folder for snapshots",
            remedy="Set snapshot_path to a folder that all workers can reach, such as s3://conn_id@bucket/coveo",
        )
    path = path.strip()
    if "://" not in path and not path.startswith(("/", "~")):
        raise CoveoInputError(
            f"Invalid snapshot_path: {path!r}",
            cause="the path is relative, so it is a different folder on each worker",
            remedy="Pass an absolute path or a URL, such as s3://conn_id@bucket/coveo",
        )
    return path


def _names(hook: RecordingHook, options: OnlyChanges) -> tuple[str, ...]:
    """Return the names that distinguish a snapshot from others of the same source."""
    if options.name is not None:
        return (options.name,)
    context = task_context(hook)
    if context is None:
        raise CoveoInputError(
            "Could not push only changes: the snapshot has no name",
            cause="outside a task, there are no DAG and task IDs to name it after",
            remedy="Pass OnlyChanges a name that no other push to the source uses",
        )
    task_instance = context["ti"]
    map_index = int(getattr(task_instance, "map_index", -1))
    names = (str(task_instance.dag_id), str(task_instance.task_id))
    return names if map_index < 0 else (*names, f"map_index={map_index}")


class ChangesRecords(RunPushRecords):
    """
    The records of a push of only changes, and the check whether others changed the source's content.

    The names of its changes begin with a mark of its task. This distinguishes changes of the task's earlier
    runs, and of the other parts of a mapped task, from changes of others: the snapshots cover the former.

    :param hook: The hook that pushes.
    :param source_id: The source.
    :param names: The folder for snapshots, and the names of the task.
    :param is_part: Whether the push is one part of a mapped task.
    """

    def __init__(
        self, hook: RecordingHook, source_id: str, names: tuple[str, ...], *, is_part: bool = False
    ) -> None:
        super().__init__(hook, source_id, resumable=False)
        # If the task was mapped in some runs only, no snapshot of its parts covers what the others pushed.
        self._mark = f"~{_short_name((*names, 'parts') if is_part else names)}~"
        self._is_part = is_part
        run = run_of(hook) if is_part else None
        #: Parts record their run, because one record for each part would be too many; other pushes record an
        #: ID.
        self._own_run = uuid.uuid4().hex[:16] if run is None else run[0]
        #: The latest change when the snapshot was read; ``None`` if unknown.
        self._last_at_load: str | None = None
        self._since: str | None = None

    def why_changed(self, since: str) -> str | None:
        """
        Return why a snapshot is no longer valid, or ``None`` if it still is.

        :param since: The last change that the snapshot covers.
        """
        try:
            changes = self._changes.all()
        except Exception as problem:
            self._warn_unknown(problem)
            return "it is unknown whether the source's content was changed since the last push"
        self._last_at_load = changes[-1].name if changes else NO_CHANGES
        later = _after(changes, since)
        if later is None:
            return "the records no longer go back to the last push"
        if any(not change.name.startswith(self._mark) for change in later):
            return "another task, run or call changed the source's content since the last push"
        if later and not self._is_part:
            return _SNAPSHOT_IS_OLD
        return None

    def begin(self, since: str = "") -> str:
        """Record, once, that the push sends its first batch."""
        if self._since is None:
            # With a change already on record, the base class records no other.
            super().begin(since or self._mark)
            self._since = self._recorded_since()
        return self._since

    def _recorded_since(self) -> str:
        try:
            last = self._changes.last()
            if last is None or not self._is_own(last):
                last = self._changes.add(self._own_run, name=self._name_after(last))
            # A later attempt could not see what others changed between reading the snapshot and this.
            return "" if self._others_changed(self._changes.all()) else last.name
        except Exception as problem:
            self._warn_unknown(problem)
            return ""

    def _name_after(self, last: Change | None) -> str:
        """Return the name of the push's change, if it follows a given one."""
        if not self._is_part:
            return self._mark + new_name()
        # Parts that begin at the same time can't see each other's change, and one of them can overwrite the
        # other. So all of them record the same one.
        before = "" if last is None else last.name
        return self._mark + hashlib.sha256(f"{self._own_run} {before}".encode()).hexdigest()[:16]

    def _add(self) -> None:
        self._recorded_since()

    def since_now(self) -> str:
        """Return the last change that a snapshot written now covers; empty if it would be invalid."""
        try:
            changes = self._changes.all()
        except Exception as problem:
            self._warn_unknown(problem)
            return ""
        if self._others_changed(changes):
            self._hook.log.warning(
                "The content of source %s changed during the push; the next push sends everything",
                self._source_id,
            )
            return ""
        return changes[-1].name if changes else NO_CHANGES

    def _others_changed(self, changes: list[Change]) -> bool:
        """Return whether others may have changed the content since the snapshot was read."""
        later = None if self._last_at_load is None else _after(changes, self._last_at_load)
        return later is None or any(not self._is_own(change) for change in later)

    def _is_own(self, change: Change) -> bool:
        return change.name.startswith(self._mark) and change.run == self._own_run

    def _warn_unknown(self, problem: Exception) -> None:
        self._hook.log.warning(
            "Could not read or write the changes of source %s: %r", self._source_id, problem
        )


class RecordedVersions(StoredVersions):
    """
    The records that a snapshot must contain, because a sensor wrote them to its journal.

    Of what else was stored last, the recorded changes of the source's content show the same.

    :param hook: The hook that pushes.
    :param source_id: The source.
    :param snapshot: The URL of the snapshot.
    :param is_dry: Whether to record nothing.
    """

    def __init__(self, hook: RecordingHook, source_id: str, snapshot: str, *, is_dry: bool) -> None:
        self._hook = hook
        self._source_id = source_id
        self._forgotten = ForgottenItems(hook.organization_id, source_id)
        self._forget_records: set[str] = set()
        self._snapshot = snapshot
        self._is_dry = is_dry

    def why_old(self, version: str, pushes: Container[str]) -> str | None:
        """Return why a snapshot may be older than the latest one, or ``None`` if it is the latest."""
        try:
            self._forget_records = self._forgotten.of(self._snapshot)
        except Exception as problem:
            self._warn(problem)
            return _LAST_IS_UNKNOWN
        is_whole = all(record in pushes for record in self._forget_records)
        return None if is_whole else _SNAPSHOT_IS_OLD

    def journaled(self, version: str, push: str) -> None:
        """
        Forget the records, which the push has taken in or makes unnecessary by pushing everything.

        From now on, the change of the source's content that the push recorded shows an older snapshot.
        """
        if not self._forget_records or self._is_dry:
            return
        try:
            self._forgotten.remove(self._snapshot, self._forget_records)
        except Exception as problem:
            self._warn(problem)

    def _warn(self, problem: Exception) -> None:
        self._hook.log.warning(
            "Could not read or write the record of the stored snapshot of source %s: %r",
            self._source_id,
            problem,
        )


class PartVersions(RecordedVersions):
    """
    The record of the stored snapshot of a part of a mapped task.

    An unmapped task does not need it: its recorded changes show the same. The changes of a run's parts are
    recorded together.

    :param hook: The hook that pushes.
    :param source_id: The source.
    :param snapshot: The URL of the snapshot.
    :param names: The folder for snapshots, and the names of the task.
    :param is_dry: Whether to record nothing.
    """

    def __init__(
        self, hook: RecordingHook, source_id: str, snapshot: str, names: tuple[str, ...], *, is_dry: bool
    ) -> None:
        super().__init__(hook, source_id, snapshot, is_dry=is_dry)
        self._parts = SnapshotParts(hook.organization_id, source_id)
        self._context = task_context(hook)
        self._part = (_short_name(names), -1 if self._context is None else map_index_of(self._context))

    def why_old(self, version: str, pushes: Container[str]) -> str | None:
        """Return why a snapshot may be older than the latest one, or ``None`` if it is the latest."""
        lacks_records = super().why_old(version, pushes)
        try:
            if not self._is_dry and self._context is not None:
                self._parts.fit(*self._part, map_length(self._context))
            part = self._parts.read(*self._part)
        except Exception as problem:
            self._warn(problem)
            return _LAST_IS_UNKNOWN
        if part is None:
            return "there is no longer a record of the snapshot that was stored last" if version else None
        return lacks_records if part.is_stored(version, pushes) else _SNAPSHOT_IS_OLD

    def journaled(self, version: str, push: str) -> None:
        """Record that a push started to write a journal."""
        self._write(StoredPart((version,), push))
        super().journaled(version, push)

    def replacing(self, old: str, new: str) -> None:
        """Record that the snapshot is about to be replaced."""
        self._write(StoredPart((old, new)))

    def replaced(self, version: str) -> None:
        """Record that the snapshot was replaced."""
        self._write(StoredPart((version,)))

    def _write(self, part: StoredPart) -> None:
        if self._is_dry:
            return
        try:
            self._parts.write(*self._part, part)
        except Exception as problem:
            self._warn(problem)


def _short_name(names: tuple[str, ...]) -> str:
    return hashlib.sha256(repr(names).encode()).hexdigest()[:12]


def _after(changes: list[Change], since: str) -> list[Change] | None:
    """Return the changes after the given one, or ``None`` if that one is not on record."""
    if since == NO_CHANGES:
        return changes
    names = [change.name for change in changes]
    return changes[names.index(since) + 1 :] if since in names else None


def forget_rejected(hook: ReadsLogs, pushed: Pushed, results: Sequence[str], urls: Sequence[str]) -> None:
    """
    Make the next push of only changes send the items again that Coveo's pipeline rejected.

    :param hook: The hook that reads the item logs.
    :param pushed: The push.
    :param results: The results that count as rejected.
    :param urls: The snapshots of the push.
    :raises CoveoError: if the logs can't be read, or the storage fails.
    """
    start = parse_datetime(pushed.started)
    end = min(max(datetime.now(timezone.utc), start), start + MAX_WINDOW)
    entries = hook.list_item_logs(pushed.source_id, start, end, results=results)
    found: Iterator[Operation] = (
        (REMOVED if rejection.operation in DELETES else ADDED, rejection.document_id, None)
        for entry in entries
        for rejection in rejections_of([entry], results)
    )
    stores = [SnapshotStore(url.rpartition("/")[0]) for url in urls]
    recorded = ForgottenItems(hook.organization_id, pushed.source_id)
    while operations := list(itertools.islice(found, _FORGOTTEN_AT_ONCE)):
        if len(stores) > 1:
            # No part of a mapped push knows which part a deleted item belonged to.
            operations = [each for each in operations if each[0] == ADDED]
        if operations:
            record = new_forget_record()
            # First the record that the next push must find, so that it misses nothing.
            recorded.add(map(str, stores), record)
            for store in stores:
                store.forget(operations, record)
