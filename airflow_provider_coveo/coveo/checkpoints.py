"""Checkpoints: which batches of a push were accepted, so that a later attempt resumes the push."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from logging import Logger
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from airflow_provider_coveo.coveo.batches import Batch

if TYPE_CHECKING:
    from airflow_provider_coveo.coveo.observer import PushRecords
    from airflow_provider_coveo.coveo.push_stats import PushStats

#: The maximum share of the time to spend on saving. If saving is slow, it happens less often.
_MAX_SHARE_OF_TIME: Final = 0.05
#: The number of batches recorded in advance as possibly accepted, at first: a process that is killed without
#: warning can't record how far it got.
_BATCHES_AHEAD: Final = 8
_MAX_BATCHES_AHEAD: Final = 4_096
#: The number of batches for which this is done.
_MAX_BATCHES_KEPT: Final = 40_000


class AcceptedBatches(NamedTuple):
    """
    The accepted batches at the beginning of an input, and how many more may have been accepted.

    :param digests: Their digests, in order.
    :param started: The time on Coveo's clock, in epoch milliseconds, before the first of them was sent.
    :param since: The change of the source's content from which on they are valid; see
        :mod:`airflow_provider_coveo.state.content_changes`.
    :param sent: How many batches may have been accepted, including those not saved as accepted.
    :param repeated_batches: How many times a batch was sent again although Coveo may already have accepted
        it.
    :param repeated_items: The number of entries in those batches.
    :param repeated_children: How many of those are deletions that also delete other items.
    """

    digests: Sequence[str] = ()
    started: int | None = None
    since: str = ""
    sent: int = 0
    repeated_batches: int = 0
    repeated_items: int = 0
    repeated_children: int = 0


class Checkpoint(Protocol):
    """Saves which batches of a push were accepted, for a later attempt with the same input."""

    def read(self) -> AcceptedBatches:
        """Return the accepted batches of earlier attempts."""

    def write(self, accepted: AcceptedBatches) -> None:
        """Save the batches accepted so far, and replace what was saved before."""

    def forget(self) -> None:
        """Remove the checkpoint: the push is complete."""


class CheckpointWriter:
    """
    Saves the accepted batches, in a thread other than the one that waits for Coveo.

    If saving fails, the push continues. A later attempt then pushes more than necessary.

    :param checkpoint: Stores the accepted batches.
    :param target: The URL to which batches are submitted.
    :param log: The logger.
    :param records: Records that the push changes the source's content; ``None`` to record nothing.
    :param stats: The counts of the push.
    """

    def __init__(
        self, checkpoint: Checkpoint, target: str, log: Logger, records: PushRecords | None, stats: PushStats
    ) -> None:
        self.earlier = checkpoint.read()
        #: The batch that Coveo may have accepted, but that was neither confirmed nor sent again.
        self.unsure: Batch | None = None
        self._checkpoint = checkpoint
        self._log = log
        self._target = target
        self._records = records
        self._stats = stats
        stats.repeated_batches = self.earlier.repeated_batches
        stats.repeated_items = self.earlier.repeated_items
        stats.repeated_children = self.earlier.repeated_children
        self._known = self.earlier.digests
        if self._known and records is not None and not records.still_stands(self.earlier.since):
            self._log.info(
                "The content changed since an earlier attempt, or may have changed; pushing everything"
            )
            self._known = ()
        self._digests: list[str] = []
        self._started = self.earlier.started
        self._has_begun = False
        self._since = ""
        self._step = _BATCHES_AHEAD
        self._sent_at = time.monotonic()
        # Guarded by the lock:
        self._lock = threading.Lock()
        self._is_saved = self.earlier != AcceptedBatches()
        self._saved: AcceptedBatches | None = None
        self._sent = 0
        self._due_at = 0.0

    def has(self, batch: Batch) -> bool:
        """Return whether an earlier attempt got this batch accepted after the same batches; call in order."""
        if batch.number >= len(self._known):
            return False
        if self._records is not None and not self._records.is_alone:
            # The code that yields the items has itself changed the source's content.
            return False
        digest = self.digest(batch)
        if digest != self._known[batch.number]:
            return False
        self._digests.append(digest)
        return True

    @property
    def since(self) -> str:
        """The change from which on the batches of an earlier attempt are valid, if there are any."""
        return self.earlier.since if self._digests else ""

    def digest(self, batch: Batch) -> str:
        """Return a digest that also differs for the same batch sent to another source."""
        return batch.digest(self._target)

    def begin(self, since: str) -> None:
        """
        Discard an earlier attempt's batches after the first difference, before anything is sent.

        :param since: The change of the content from which on the batches of this attempt are valid.
        """
        self._has_begun = True
        self._since = since
        self._sent = len(self._digests) + self._step
        try:
            self._write()
        except Exception as problem:
            if self._is_saved:
                # Otherwise, a later attempt could skip batches that this one is about to replace.
                raise
            self._warn(problem)

    def sending(self, batch: Batch) -> bool:
        """
        Save that Coveo may accept a batch from now on.

        :param batch: The batch.
        :return: Whether an earlier attempt may have sent it.
        """
        if batch.number >= self._sent:
            began = time.monotonic()
            self._sent = batch.number + self._step
            self.save()
            ended = time.monotonic()
            if ended - began > (ended - self._sent_at) * _MAX_SHARE_OF_TIME:
                self._step = min(2 * self._step, _MAX_BATCHES_AHEAD)
            self._sent_at = ended
        if batch.number >= self.earlier.sent:
            return False
        self._stats.add_repeated(batch)
        return True

    def accepted(self, digest: str, started: int | None) -> None:
        """Add the next accepted batch."""
        self.unsure = None
        if len(self._digests) < _MAX_BATCHES_KEPT:
            self._started = started
            self._digests.append(digest)

    def save_if_due(self) -> None:
        """Save new batches, unless the last save was just now."""
        if time.monotonic() >= self._due_at:
            self.save()

    def save(self) -> None:
        """Save new batches."""
        with self._lock:
            if self._saved is not None and self._accepted_batches() == self._saved:
                return
            began = time.monotonic()
            try:
                self._write()
            except Exception as problem:
                self._warn(problem)
            ended = time.monotonic()
            self._due_at = ended + (ended - began) / _MAX_SHARE_OF_TIME

    def end(self, *, is_drained: bool) -> None:
        """
        Save new batches because the push ended early.

        :param is_drained: Whether no request is in flight anymore.
        """
        if not self._has_begun:
            return
        if is_drained:
            self._sent = self._stats.batches
        self.save()

    def clear(self) -> None:
        """Remove the checkpoint: everything is accepted."""
        with self._lock:
            # A late save must find nothing to do.
            self._saved = self._accepted_batches()
            if not self._is_saved:
                return
            try:
                self._checkpoint.forget()
            except Exception as problem:
                self._log.warning("Could not remove the checkpoint of a complete push: %r", problem)

    def _accepted_batches(self) -> AcceptedBatches:
        unsure = self.unsure
        return AcceptedBatches(
            list(self._digests),
            self._started,
            self._since,
            self._sent,
            self._stats.repeated_batches + (unsure is not None),
            self._stats.repeated_items + (0 if unsure is None else unsure.sent),
            self._stats.repeated_children + (0 if unsure is None else unsure.children),
        )

    def _write(self) -> None:
        accepted = self._accepted_batches()
        self._checkpoint.write(accepted)
        self._saved, self._is_saved = accepted, True

    def _warn(self, problem: Exception) -> None:
        self._log.warning("Could not save the checkpoint; a retry will push more than necessary: %r", problem)
