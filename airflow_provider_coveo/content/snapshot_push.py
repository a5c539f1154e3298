"""A push and its snapshot: what it begins with, what it writes down before each batch, and how it ends."""

from __future__ import annotations

import logging
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Final

from airflow_provider_coveo.content.scratch import ScratchFolder
from airflow_provider_coveo.content.snapshot_store import JournalRecord, SnapshotStore
from airflow_provider_coveo.content.snapshots import Snapshot
from airflow_provider_coveo.coveo.changes import REMOVED, Operation
from airflow_provider_coveo.coveo.errors import SnapshotDamagedError, SnapshotError, SnapshotFormatError

log = logging.getLogger(__name__)

#: How often it is read again if another push replaces it meanwhile.
_LOADS: Final = 5
#: What ``since`` of a snapshot is if no change of the source's content was on record.
NO_CHANGES: Final = "-"


class _TakenInMeanwhileError(Exception):
    """A record of the journal is gone, because another push has taken it in."""


class SnapshotPush:
    """
    One push that compares with a snapshot.

    :param store: Where the snapshot is kept.
    :param target: Where the push goes, in a form that tells it from other targets.
    :param push_all_if_damaged: Whether a damaged snapshot counts as none.
    """

    def __init__(
        self,
        store: SnapshotStore,
        *,
        target: str,
        push_all_if_damaged: bool = False,
    ) -> None:
        self._store = store
        self._target = target
        self._push_all_if_damaged = push_all_if_damaged
        self._now = time.time()
        self._push = uuid.uuid4().hex[:16]
        self._records = 0
        self._scratch: ScratchFolder | None = None
        self._folder = Path()
        self._boot = store.boot()
        #: The version of the snapshot that is stored, ``None`` if what is stored can't be read.
        self._base: str | None = ""
        self._has_changed = False
        #: The local copy, once it was loaded.
        self.snapshot = Snapshot(self._folder)
        #: Why everything is pushed, ``None`` if only changes are.
        self.full_because: str | None = None
        #: The change of the source's content since which this push stands, once it has begun.
        self.since = ""
        #: How many batches Coveo has accepted.
        self.accepted = 0
        #: How many batches were handed over.
        self.batches = 0

    # --- the beginning ---

    def load(self) -> None:
        """
        Read the snapshot, with what earlier tries wrote down.

        :raises SnapshotDamagedError: if it is damaged, unless that counts as none.
        :raises SnapshotError: if the storage fails.
        """
        self._scratch = ScratchFolder("coveo-snapshot-")
        self._folder = self._scratch.path
        for _ in range(_LOADS):
            if self._load():
                return
        raise SnapshotError(
            f"Could not read the snapshot {self._store}",
            answer="other pushes replace it again and again",
            cause="several runs of the DAG push at the same time",
            remedy="Set max_active_runs=1 for the DAG",
        )

    def _load(self) -> bool:
        self._begin_anew()
        try:
            # The journal first: what is deleted from it meanwhile is in the snapshot that is read then.
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
            self._count_as_none("the snapshot is of another Coveo host, organization or source")
            self._base = base
            return True
        self._base = self.snapshot.version
        try:
            return self._take_in(records)
        except _TakenInMeanwhileError:
            return False

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

    def _take_in(self, records: list[JournalRecord]) -> bool:
        """Make what the journal says part of the snapshot, and say whether that is done."""
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
        if len(pushes) == 1:
            self._replay(next(iter(pushes.values())))
        else:
            for its_records in pushes.values():
                self._forget_all_in(its_records)
        operations = [each for record in forgotten for each in self._operations(record)]
        snapshot.forget((each[1] for each in operations if each[0] != REMOVED), known_only=True)
        # One that was not deleted after all is there, and missing from the input.
        snapshot.forget(each[1] for each in operations if each[0] == REMOVED)
        for record in fresh:
            absorbed[record.push] = max(absorbed.get(record.push, 0), record.number + 1)
        if not self._replace():
            return False
        snapshot.reopen(str(self._store))
        self._store.delete(record.name for record in records)
        log.info("Read what earlier pushes wrote down beside the snapshot %s", self._store)
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
            # Another machine wrote it, or this one before it was started again, and did not say how it ended.
            # What it wrote last may be lost.
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
            # The push that began to push everything goes on.
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
        Return why everything has to be pushed by what the snapshot itself says, ``None`` if it need not.

        :param full_after: After how long it has to.
        """
        if self.full_because is not None:
            return self.full_because
        facts = self.snapshot.facts
        if not facts.since:
            return "others may have changed the source's content during the last push"
        if abs(self._now - facts.full_at) > full_after.total_seconds():
            return f"everything was last pushed more than {full_after} ago"
        return None

    # --- what is handed over ---

    def begin(self, since: str) -> None:
        """
        Take note of the change of the source's content that the push is about to make.

        :param since: The name of the change.
        """
        self.since = since

    def write_down(self, batch: int, operations: list[Operation]) -> None:
        """
        Write down what is in a batch, before it is sent.

        :param batch: The number of the batch; -1 for what is not sent.
        :param operations: What is in it.
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

    @property
    def _full_at(self) -> float:
        return self.snapshot.facts.full_at if self.full_because is None else self._now

    # --- the end ---

    def fail(self) -> None:
        """Write down what was accepted, for the next try, if that can be done."""
        if not self._records:
            return
        try:
            self._write(-1, [])
        except Exception as problem:
            log.warning(
                "Could not save the progress of the push; a retry pushes some batches again: %s", problem
            )

    def finish(self, since: str) -> bool:
        """
        Replace the snapshot, since everything was accepted.

        :param since: The change of the source's content since which it stands, empty if it does not.
        :return: Whether it is what the next push compares with. It is not if another push replaced it.
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
                # The other push may have taken in what this one wrote down before it was accepted.
                self._write(-1, [])
            log.warning(
                "Another push replaced the snapshot %s meanwhile: the next push sends again what this one "
                "sent. Set max_active_runs=1 for the DAG",
                self._store,
            )
            return False
        self._store.delete(f"{self._push}.{number:08d}" for number in range(self._records))
        return True

    def _replace(self) -> bool:
        """Store the snapshot, and say whether it is there then."""
        version = self.snapshot.write()
        if self._base is not None and self._store.version() != self._base:
            return False
        self._store.replace(self.snapshot.path)
        if self._store.version() != version:
            return False
        self._base = version
        return True

    def close(self) -> None:
        """Delete the local files."""
        self.snapshot.close()
        if self._scratch is not None:
            self._scratch.close()
