"""A push that compares with a snapshot: load it, record each batch before it is sent, and replace it."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Container
from datetime import timedelta
from pathlib import Path
from typing import Final

from airflow_provider_coveo.content.scratch import ScratchFolder
from airflow_provider_coveo.content.snapshot_store import JournalRecord, SnapshotStore
from airflow_provider_coveo.content.snapshots import Snapshot
from airflow_provider_coveo.coveo.changes import REMOVED, Operation
from airflow_provider_coveo.coveo.errors import SnapshotDamagedError, SnapshotError, SnapshotFormatError

log = logging.getLogger(__name__)

#: The maximum number of attempts to load a snapshot that other pushes replace meanwhile.
_LOADS: Final = 5
#: The value of a snapshot's ``since`` if no change of the source's content was recorded.
NO_CHANGES: Final = "-"


class _TakenInMeanwhileError(Exception):
    """A record of the journal is gone, because another push has applied it to the snapshot."""


class StoredVersions:
    """Remembers, outside the storage, what was stored last, to detect an older copy. This one does not."""

    def why_old(self, version: str, pushes: Container[str]) -> str | None:
        """
        Return why a snapshot may be older than the one that was stored last, ``None`` if it is not.

        :param version: The version of the stored snapshot, empty if there is none.
        :param pushes: The pushes in its journal, and those whose journals it includes.
        """
        return None

    def journaled(self, version: str, push: str) -> None:
        """
        Remember that a push began to write a journal.

        :param version: The version of the stored snapshot, empty if there is none.
        :param push: The push.
        """

    def replacing(self, old: str, new: str) -> None:
        """
        Remember that the snapshot is about to be replaced.

        :param old: The version that is stored, empty if there is none.
        :param new: The version that will be.
        """

    def replaced(self, version: str) -> None:
        """
        Remember that the snapshot was replaced.

        :param version: The version that is stored now.
        """


class SnapshotPush:
    """
    One push that compares with a snapshot.

    :param store: The store of the snapshot.
    :param target: The target of the push, in a form that distinguishes it from other targets.
    :param push_all_if_damaged: Whether to push everything if the snapshot is damaged, instead of failing.
    :param versions: Remembers what was stored last. Default nothing does.
    """

    def __init__(
        self,
        store: SnapshotStore,
        *,
        target: str,
        push_all_if_damaged: bool = False,
        versions: StoredVersions | None = None,
    ) -> None:
        self._store = store
        self._target = target
        self._push_all_if_damaged = push_all_if_damaged
        self._versions = StoredVersions() if versions is None else versions
        self._now = time.time()
        self._push = uuid.uuid4().hex[:16]
        self._records = 0
        self._scratch: ScratchFolder | None = None
        self._folder = Path()
        self._boot = store.boot()
        #: The version of the stored snapshot, ``None`` if it can't be read.
        self._base: str | None = ""
        self._has_changed = False
        #: The local copy, once it is loaded.
        self.snapshot = Snapshot(self._folder)
        #: The reason for pushing everything, ``None`` to push only changes.
        self.full_because: str | None = None
        #: The change of the source's content that this push made, once it has begun.
        self.since = ""
        #: The number of batches that Coveo has accepted.
        self.accepted = 0
        #: The number of batches that were recorded.
        self.batches = 0

    # --- loading ---

    def load(self) -> None:
        """
        Read the snapshot, and apply what earlier attempts recorded.

        :raises SnapshotDamagedError: if it is damaged, unless ``push_all_if_damaged`` is set.
        :raises SnapshotError: if the storage fails.
        """
        self._scratch = ScratchFolder("coveo-snapshot-")
        self._folder = self._scratch.path
        for _ in range(_LOADS):
            if self._load():
                return
        raise SnapshotError(
            f"Could not read the snapshot {self._store}",
            answer="other pushes keep replacing it",
            cause="several runs of the DAG push at the same time",
            remedy="Set max_active_runs=1 for the DAG",
        )

    def _load(self) -> bool:
        self._begin_anew()
        try:
            # The journal first: a record deleted meanwhile is included in the snapshot that is read next.
            records = self._store.journal()
            self._open_stored()
        except SnapshotFormatError as error:
            self._count_as_none(str(error))
            return True
        except SnapshotDamagedError as error:
            if not self._push_all_if_damaged:
                raise
            log.warning("%s", error)
            self._count_as_none("the snapshot was damaged")
            self._store.delete_journal()
            return True
        if self.snapshot.version and self.snapshot.facts.target != self._target:
            base = self.snapshot.version
            self._count_as_none("the snapshot belongs to another Coveo host, organization or source")
            self._base = base
            return True
        self._base = self.snapshot.version
        pushes = {record.push for record in records} | self.snapshot.facts.absorbed.keys()
        why_old = self._versions.why_old(self._base, pushes)
        try:
            is_loaded = self._take_in(records, is_old=why_old is not None)
        except _TakenInMeanwhileError:
            return False
        self.full_because = self.full_because or why_old
        return is_loaded

    def _begin_anew(self) -> None:
        self.snapshot.close()
        for path in self._folder.iterdir():
            path.unlink()
        self.snapshot = Snapshot(self._folder)
        self.snapshot.facts.target = self._target
        self.full_because = None

    def _open_stored(self) -> None:
        if self._store.download(self.snapshot.path):
            self.snapshot.open(str(self._store))
        else:
            self.snapshot.create()
            self.full_because = "there is no snapshot yet"

    def _count_as_none(self, why: str) -> None:
        self._begin_anew()
        self.snapshot.create()
        self.full_because = why
        self._base = None

    def _take_in(self, records: list[JournalRecord], *, is_old: bool) -> bool:
        """Apply the journal to the snapshot, and return whether that succeeded."""
        snapshot, absorbed = self.snapshot, self.snapshot.facts.absorbed
        fresh = [record for record in records if record.number >= absorbed.get(record.push, 0)]
        if not fresh:
            self._store.delete(record.name for record in records)
            return True
        forgotten = [record for record in fresh if record.push.startswith("forget-")]
        pushes: dict[str, list[JournalRecord]] = {}
        for record in fresh:
            if record not in forgotten:
                pushes.setdefault(record.push, []).append(record)
        if len(pushes) == 1 and not is_old:
            self._replay(next(iter(pushes.values())))
        else:
            for its_records in pushes.values():
                self._forget_all_in(its_records)
        if is_old:
            # It is about to become the last one, and says nothing then that may be outdated.
            snapshot.forget_digests()
        operations = [each for record in forgotten for each in self._operations(record)]
        snapshot.forget((each[1] for each in operations if each[0] != REMOVED), known_only=True)
        # If such an item was not deleted after all, it is in the source but not in the input.
        snapshot.forget(each[1] for each in operations if each[0] == REMOVED)
        for record in fresh:
            absorbed[record.push] = max(absorbed.get(record.push, 0), record.number + 1)
        if not self._replace():
            return False
        snapshot.open(str(self._store))
        self._store.delete(record.name for record in records)
        log.info("Applied the journals of earlier pushes to the snapshot %s", self._store)
        return True

    def _replay(self, records: list[JournalRecord]) -> None:
        records.sort(key=lambda record: record.number)
        first, snapshot = records[0], self.snapshot
        is_whole = [record.number for record in records] == list(range(len(records)))
        if first.base != (self._base or "") or first.target != self._target or not is_whole:
            self._forget_all_in(records)
            if not is_whole:
                snapshot.forget_digests()
            return
        if first.boot and first.boot != self._store.boot() and records[-1].batch >= 0:
            # The machine may have crashed: another machine or an earlier boot wrote these records, and none
            # records the end of the push. The last records may be lost.
            self._forget_all_in(records)
            snapshot.forget_digests()
            return
        if first.full:
            snapshot.forget_digests()
        for record in records:
            snapshot.add(record.batch, self._operations(record))
        snapshot.apply(max(record.accepted for record in records))
        snapshot.facts.since, snapshot.facts.full_at = first.since, first.full_at
        if first.full or self.full_because:
            # This push resumes the one that began to push everything.
            self.full_because = None

    def _forget_all_in(self, records: list[JournalRecord]) -> None:
        for record in records:
            self.snapshot.add(max(0, record.batch), self._operations(record))
        self.snapshot.apply(0)

    def _operations(self, record: JournalRecord) -> list[Operation]:
        operations = self._store.operations(record)
        if operations is None:
            raise _TakenInMeanwhileError
        return operations

    def why_full(self, full_after: timedelta) -> str | None:
        """
        Return why the snapshot requires pushing everything, ``None`` if it does not.

        :param full_after: The maximum age of the last full push.
        """
        if self.full_because is not None:
            return self.full_because
        facts = self.snapshot.facts
        if not facts.since:
            return "others may have changed the source's content during the last push"
        if abs(self._now - facts.full_at) > full_after.total_seconds():
            return f"everything was last pushed more than {full_after} ago"
        return None

    # --- the journal ---

    def begin(self, since: str) -> None:
        """
        Record the change of the source's content that the push is about to make.

        :param since: The name of the change.
        """
        self.since = since

    def write_down(self, batch: int, operations: list[Operation]) -> None:
        """
        Record the operations of a batch before it is sent.

        :param batch: The number of the batch; -1 for operations that are not sent.
        :param operations: The operations.
        :raises SnapshotError: if the storage fails.
        """
        self._has_changed = True
        self.snapshot.add(batch, operations)
        if batch >= 0:
            self._write(batch, operations)
            self.batches = batch + 1

    def _write(self, batch: int, operations: list[Operation]) -> None:
        record = JournalRecord(
            self._push,
            self._records,
            base=self._base or "",
            accepted=self.accepted,
            full=self.full_because is not None,
            since=self.since,
            full_at=self._full_at,
            target=self._target,
            batch=batch,
            operations=operations,
            boot=self._boot,
        )
        self._store.write(record)
        self._records += 1
        if record.number == 0:
            self._versions.journaled(record.base, record.push)

    @property
    def _full_at(self) -> float:
        return self.snapshot.facts.full_at if self.full_because is None else self._now

    # --- the end ---

    def fail(self) -> None:
        """Record what was accepted for the next attempt, if possible."""
        if not self._records:
            return
        try:
            self._write(-1, [])
        except Exception as problem:
            log.warning(
                "Could not save the progress of the push; a retry will push some batches again: %s", problem
            )

    def finish(self, since: str) -> bool:
        """
        Replace the snapshot after everything was accepted.

        :param since: The change of the source's content since which it is valid, empty if it is not.
        :return: Whether the next push will compare with it. It will not if another push replaced it.
        :raises SnapshotError: if the storage fails.
        """
        is_full = self.full_because is not None
        if not self._has_changed and not is_full:
            return True
        if is_full:
            self.snapshot.forget_digests()
        self.snapshot.apply(self.batches)
        facts = self.snapshot.facts
        facts.since, facts.full_at = since, self._full_at
        if self._records:
            facts.absorbed[self._push] = self._records
        if not self._replace():
            if self._records:
                # The other push may have applied this one's records before their batches were accepted.
                self._write(-1, [])
            log.warning(
                "Another push replaced the snapshot %s meanwhile; the next push will repeat this one. Set "
                "max_active_runs=1 for the DAG",
                self._store,
            )
            return False
        self._store.delete(f"{self._push}.{number:08d}" for number in range(self._records))
        return True

    def _replace(self) -> bool:
        """Store the snapshot, and return whether it is the stored one afterwards."""
        version = self.snapshot.write()
        if self._base is not None and self._store.version() != self._base:
            return False
        self._versions.replacing(self._base or "", version)
        self._store.replace(self.snapshot.path)
        if self._store.version() != version:
            return False
        self._versions.replaced(version)
        self._base = version
        return True

    def close(self) -> None:
        """Delete the local files."""
        self.snapshot.close()
        if self._scratch is not None:
            self._scratch.close()
