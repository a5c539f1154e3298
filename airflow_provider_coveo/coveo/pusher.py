"""Push batches through file containers: parallel uploads, ordered submission, exact counts."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from airflow_provider_coveo.coveo.batches import DELETE, Batch
from airflow_provider_coveo.coveo.checkpoints import Checkpoint, CheckpointWriter
from airflow_provider_coveo.coveo.containers import Containers, Uploaded
from airflow_provider_coveo.coveo.errors import (
    CoveoError,
    CoveoInputError,
    DailyQuotaExceededError,
    InvalidParameterError,
    NoAnswerError,
    NotFoundError,
    RedirectError,
    UnexpectedAnswerError,
    short_repr,
)
from airflow_provider_coveo.coveo.integers import parse_int
from airflow_provider_coveo.coveo.items import Item
from airflow_provider_coveo.coveo.observer import PushRecords, batch_of_push
from airflow_provider_coveo.coveo.push_stats import PushStats, Quota, quota_renewal
from airflow_provider_coveo.coveo.quantities import quantity
from airflow_provider_coveo.coveo.responses import Response
from airflow_provider_coveo.coveo.retries import ONE_ATTEMPT, OUTCOME_UNKNOWN

#: The default of ``upload_concurrency``.
DEFAULT_UPLOAD_CONCURRENCY: Final = 3
_MAX_UPLOADS: Final = 32

#: The maximum age of a container in seconds. Coveo's limit is 60 minutes (https://docs.coveo.com/en/43/).
#: An older container is replaced.
_MAX_CONTAINER_AGE: Final = 45 * 60
#: The number of containers created for one batch if the previous one is gone.
_CONTAINERS_PER_BATCH: Final = 3
_SECONDS_BETWEEN_PROGRESS: Final = 5.0
_SECONDS_BETWEEN_CHECKS: Final = 0.5
#: How long a killed task waits for a request in flight, to report whether Coveo accepted it.
_SECONDS_TO_DRAIN: Final = 5.0


def validate_concurrency(value: object) -> int:
    """
    Return how many uploads may run in parallel.

    :raises CoveoInputError: if it is not an integer from 1 to 32.
    """
    uploads = parse_int(value)
    if uploads is None or not 1 <= uploads <= _MAX_UPLOADS:
        raise CoveoInputError(
            f"Invalid upload_concurrency: {short_repr(value)}",
            remedy=f"Pass an integer from 1 to {_MAX_UPLOADS}; the default is {DEFAULT_UPLOAD_CONCURRENCY}",
        )
    return uploads


def validate_iterable(items: object, name: str) -> Iterable[object]:
    """
    Return the input if it can be iterated over.

    :raises CoveoInputError: if it is a single item, a string, or not iterable.
    """
    single = (str, bytes, bytearray, memoryview, Mapping, Item)
    if isinstance(items, single) or not isinstance(items, Iterable):
        raise CoveoInputError(
            f"{name} must be an iterable, such as a list or a generator, not {type(items).__name__}",
            remedy="Put a single item into a list",
        )
    return items


class ContainerPush:
    """
    One push of many batches.

    Several threads upload the batches. Another thread submits them to Coveo in order, one at a time, each
    after its own upload succeeds. The accepted batches are therefore always the beginning of the input. At
    most ``concurrency`` + 1 batches are in memory, plus the one being filled. Items that are larger than a
    batch take part of that room, or wait until there is nothing else in it.

    :param containers: Uploads the batches and submits them.
    :param path: The path of the request that submits a batch.
    :param target: The target of the push, for messages: ``source 'acme-products'``.
    :param unit: The noun for the entries, for messages, in the singular and the plural: ``item``, ``items``.
    :param names: The result's key for the accepted entries of each section.
    :param concurrency: The number of parallel uploads.
    :param batch_bytes: The maximum size of a batch, unless a single item is larger.
    :param checkpoint: Saves which batches were accepted, for a later attempt.
    :param records: Records that the push changes the source's content; ``None`` to record nothing.
    :param progress: Called with the result so far after each accepted batch.
    :param count: Called with each accepted batch.
    """

    def __init__(
        self,
        containers: Containers,
        *,
        path: str,
        target: str,
        unit: tuple[str, str],
        names: Mapping[str, str],
        concurrency: int,
        batch_bytes: int,
        checkpoint: Checkpoint | None = None,
        records: PushRecords | None = None,
        progress: Callable[[dict[str, object]], None] | None = None,
        count: Callable[[Batch], None] | None = None,
    ) -> None:
        self.stats = PushStats()
        self.quota = Quota()
        self._containers = containers.stoppable()
        self._caller = caller = self._containers.caller
        self._stop = self._containers.stop
        self._log = caller.log
        self._path = path
        self._target = target
        self._unit = unit
        self._names = dict(names)
        self._concurrency = concurrency
        self._max_bytes = (concurrency + 1) * batch_bytes
        self._progress = progress
        self._count = count
        self._records = records
        self._checkpoints = None
        if checkpoint is not None:
            url = caller.settings.push_url + path
            self._checkpoints = CheckpointWriter(checkpoint, url, caller.log, records, self.stats)
        self._began = time.monotonic()
        self._changed = threading.Condition()
        # Guarded by the condition:
        self._waiting: deque[tuple[Batch, Future[tuple[Uploaded, str | None]]]] = deque()
        self._in_flight = 0
        self._bytes_in_flight = 0
        self._no_more = False
        self._failure: BaseException | None = None
        self._submitter: threading.Thread | None = None
        # Known once that thread starts:
        self._batches_before = 0
        self._ended = threading.Event()

    @property
    def seconds(self) -> float:
        """How long the push has taken so far."""
        return time.monotonic() - self._began

    def run(self, batches: Iterable[Batch]) -> None:
        """
        Push batches, and return once Coveo has accepted all of them.

        :raises CoveoError: if a batch is not accepted; the error says what was accepted before it. Any
            exception of the iterator is raised after the batches that it yielded are accepted.
        """
        uploads = ThreadPoolExecutor(self._concurrency, thread_name_prefix="coveo-upload")
        succeeded = False
        try:
            self._run(batches, uploads)
            succeeded = True
        except Exception as error:
            self._drain()
            self._log_accepted(error)
            raise
        except BaseException:
            # The task is being killed: nothing new starts.
            self._stop.set()
            self._drain()
            self._log.error("Push interrupted. %s", self.accepted_summary())
            raise
        finally:
            self._ended.set()
            self._stop.set()
            uploads.shutdown(wait=False, cancel_futures=True)
            if not succeeded:
                self.save_checkpoint()
            if self._records is not None:
                self._records.end(self.stats.batches - self.stats.resumed_batches)

    def _run(self, batches: Iterable[Batch], uploads: ThreadPoolExecutor) -> None:
        enqueued = 0
        for batch in batches:
            if self._submitter is None and self._is_accepted_already(batch):
                continue
            enqueued += batch.entries
            warning = self.quota.warning(enqueued)
            if warning is not None:
                self._log.warning("%s", warning)
            self._enqueue(batch, uploads)
            # It must not outlive its acceptance while the next one is filled.
            del batch
        if not self._drain():
            raise self._killed()
        self._raise_failure()

    def _drain(self) -> bool:
        """
        Wait until every batch that was enqueued is accepted, or the push has failed.

        After a stop, requests in flight get a few seconds to end.

        :return: Whether that happened in time.
        """
        with self._changed:
            self._no_more = True
            self._changed.notify_all()
        until = None
        while self._submitter is not None and self._submitter.is_alive():
            if until is None and self._stop.is_set():
                until = time.monotonic() + _SECONDS_TO_DRAIN
            if until is not None and time.monotonic() >= until:
                return False
            self._submitter.join(_SECONDS_BETWEEN_CHECKS)
        return True

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def save_checkpoint(self) -> None:
        """Save the accepted batches for the next attempt, since the push is not complete."""
        if self._checkpoints is not None:
            is_drained = self._submitter is None or not self._submitter.is_alive()
            self._checkpoints.end(is_drained=is_drained)

    def clear_checkpoint(self) -> None:
        """Remove the checkpoint: the push is complete, and the next attempt starts from the beginning."""
        if self._checkpoints is not None:
            self._checkpoints.clear()

    def result(self) -> dict[str, object]:
        """Return the counts of what was accepted, as small JSON."""
        stats = self.stats
        accepted = {name: stats.entries.get(section, 0) for section, name in self._names.items()}
        return {
            **accepted,
            "replaced": stats.replaced,
            "batches": stats.batches,
            "resumed_batches": stats.resumed_batches,
            "resumed_entries": stats.resumed_entries,
            "repeated_batches": stats.repeated_batches,
            "repeated_items": stats.repeated_items,
            "earlier_items": stats.earlier_items,
            "bytes": stats.size,
            "seconds": round(self.seconds, 3),
            "first_request_id": stats.first_request_id,
            "last_request_id": stats.last_request_id,
            "ordering_id": stats.started,
        }

    # --- resuming ---

    def _is_accepted_already(self, batch: Batch) -> bool:
        if self._checkpoints is None or not self._checkpoints.has(batch):
            return False
        self.stats.add_resumed(batch, self._checkpoints.earlier.started)
        return True

    # --- the thread that reads the input ---

    def _enqueue(self, batch: Batch, uploads: ThreadPoolExecutor) -> None:
        if self._submitter is None:
            self._begin()
        with self._changed:
            # A stop can come from a signal handler, so it can't notify the condition: check for it.
            while not self._changed.wait_for(lambda: self._may_enqueue(batch), _SECONDS_BETWEEN_CHECKS):
                pass
            self._raise_failure()
            if not self._stop.is_set():
                self._in_flight += 1
                self._bytes_in_flight += batch.size
                self._waiting.append((batch, uploads.submit(self._upload, batch)))
                self._changed.notify_all()
                return
        self._drain()
        raise self._killed()

    def _may_enqueue(self, batch: Batch) -> bool:
        if self._failure is not None or self._stop.is_set() or not self._in_flight:
            return True
        return self._in_flight <= self._concurrency and self._bytes_in_flight + batch.size <= self._max_bytes

    def _begin(self) -> None:
        # Read the connection once here, rather than in every thread.
        self._caller.settings  # noqa: B018
        since = ""
        if self._records is not None:
            since = self._records.begin(self._checkpoints.since if self._checkpoints is not None else "")
            if self._checkpoints is None or not self._checkpoints.earlier.sent:
                self._batches_before = self._records.batches_before()
        if self._checkpoints is not None:
            self._checkpoints.begin(since)
        if self.stats.resumed_batches:
            self._log.info(
                "Resuming after %s (%s) that an earlier attempt got accepted",
                quantity(self.stats.resumed_batches, "batch", "batches"),
                quantity(self.stats.total, *self._unit),
            )
        self._submitter = threading.Thread(target=self._submit_in_order, name="coveo-batches", daemon=True)
        self._submitter.start()
        threading.Thread(target=self._watch, name="coveo-watch", daemon=True).start()

    # --- the threads that upload ---

    def _upload(self, batch: Batch) -> tuple[Uploaded, str | None]:
        digest = None if self._checkpoints is None else self._checkpoints.digest(batch)
        return self._upload_anew(batch), digest

    def _upload_anew(self, batch: Batch) -> Uploaded:
        action = f"Could not upload {self._named(batch)}"
        earliest: list[Uploaded] = []

        def upload_content(content: bytes) -> str:
            uploaded = self._containers.upload(content, action)
            earliest.append(uploaded)
            return uploaded.file_id

        uploaded = self._containers.upload(batch.body(upload_content), action)
        if not earliest:
            return uploaded
        # The batch expires with the oldest container that it names.
        return Uploaded(uploaded.file_id, earliest[0].made_at, earliest[0].clock)

    # --- the thread that submits the batches ---

    def _submit_in_order(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._no_more)
                if not self._waiting:
                    return
                batch, upload = self._waiting.popleft()
            size = batch.size
            try:
                try:
                    self._submit(batch, upload)
                except CoveoError as error:
                    raise self._incomplete(error, batch) from error.__cause__
            except BaseException as error:
                # Catch everything: if this thread ended silently, the push would look complete.
                self._fail(error)
                return
            finally:
                del batch, upload
            with self._changed:
                self._in_flight -= 1
                self._bytes_in_flight -= size
                self._changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._failure = error
            self._waiting.clear()
            self._changed.notify_all()
        # After setting the failure, so that the stop is not reported as a killed task.
        self._stop.set()

    def _submit(self, batch: Batch, upload: Future[tuple[Uploaded, str | None]]) -> None:
        uploaded, digest = upload.result()
        stats = self.stats
        if stats.started is None:
            stats.started = uploaded.clock.now_ms() - int((time.monotonic() - uploaded.made_at) * 1000)
        if self._records is not None:
            sent_before = self.stats.batches - self.stats.resumed_batches
            self._records.sending(sent_before, deletes=bool(batch.counts.get(DELETE)))
        if self._checkpoints is not None and self._checkpoints.sending(batch):
            self._log.warning(
                "An earlier attempt may have got %s accepted without saving that; sending it again",
                self._named(batch),
            )
        if batch.number < self._batches_before:
            stats.earlier_items += batch.sent
        request_id = self._accepted(batch, uploaded).request_id
        stats.add(batch)
        stats.first_request_id = stats.first_request_id or request_id
        stats.last_request_id = request_id
        if self._checkpoints is not None and digest is not None:
            self._checkpoints.accepted(digest, stats.started)
        if self._count is not None:
            self._count(batch)
        if self._progress is not None:
            self._progress(self.result())

    def _accepted(self, batch: Batch, first: Uploaded) -> Response:
        action = f"Could not push {self._named(batch)}"
        uploaded: Uploaded | None = first
        rejected_containers = 0
        may_be_accepted = False

        def attempt(number: int) -> Response:
            nonlocal uploaded, rejected_containers, may_be_accepted
            while True:
                if uploaded is None or time.monotonic() - uploaded.made_at > _MAX_CONTAINER_AGE:
                    uploaded = self._upload_anew(batch)
                if may_be_accepted:
                    may_be_accepted = False
                    self._repeated(batch)
                try:
                    with batch_of_push():
                        return self._containers.submit(self._path, uploaded.file_id, action, ONE_ATTEMPT)
                except OUTCOME_UNKNOWN as error:
                    # Coveo may have accepted the batch anyway, which uses up the container. Accepting
                    # the same batch twice in a row does not change the index.
                    uploaded = None
                    if error.may_be_done:
                        may_be_accepted = True
                        if self._checkpoints is not None:
                            self._checkpoints.unsure = batch
                    raise
                except (UnexpectedAnswerError, RedirectError):
                    # Whatever answered in Coveo's place may have passed the request on.
                    if self._checkpoints is not None:
                        self._checkpoints.unsure = batch
                    raise
                except (InvalidParameterError, NotFoundError) as error:
                    uploaded = None
                    rejected_containers += 1
                    if rejected_containers == _CONTAINERS_PER_BATCH:
                        raise
                    self._log.warning("The batch's container may be gone; creating a new one: %s", error)

        return self._caller.repeat(attempt)

    def _repeated(self, batch: Batch) -> None:
        self.stats.add_repeated(batch)
        if self._checkpoints is not None:
            self._checkpoints.unsure = None
        self._log.warning(
            "Sending %s again, though Coveo may have accepted it: its %s may appear twice in the item logs",
            self._named(batch),
            self._unit[1],
        )

    # --- words ---

    def _named(self, batch: Batch) -> str:
        entries = f"{self._unit[1]} {batch.first:,} to {batch.last:,}"
        if batch.first == batch.last:
            entries = f"{self._unit[0]} {batch.first:,}"
        return f"batch {batch.number + 1} ({entries} of the input, counted from 0) to {self._target}"

    def _killed(self) -> CoveoError:
        """Return the error of a stopped push; raise it when nothing is in flight."""
        self._raise_failure()
        return NoAnswerError(
            f"Could not push all {self._unit[1]} to {self._target}",
            answer="nothing more was sent",
            cause="the task was killed or its state was set by hand",
            remedy="Clear the task to push again",
            note=self.accepted_summary(),
            accepted=self.result(),
        )

    def _incomplete(self, error: CoveoError, batch: Batch) -> CoveoError:
        """Add what was accepted before to an error."""
        fields = error.fields()
        note = self.accepted_summary()
        unsure = (*OUTCOME_UNKNOWN, UnexpectedAnswerError, RedirectError)
        if isinstance(error, unsure) and error.tried.startswith("Could not push"):
            note += " It is unknown whether Coveo also accepted this batch; pushing it again is safe."
        if isinstance(error, DailyQuotaExceededError):
            fields["cause"] = f"the organization's daily quota of items is used up; {quota_renewal(error)}"
        fields.update(note=note, accepted=self.result())
        complete = type(error)(error.tried, **fields)
        complete.__cause__ = error.__cause__
        return complete

    def _log_accepted(self, error: Exception) -> None:
        if not isinstance(error, CoveoError) or not error.note:
            kind = type(error).__name__
            self._log.error("Could not push to %s: %s. %s", self._target, kind, self.accepted_summary())

    def accepted_summary(self) -> str:
        """Return a sentence on what was accepted."""
        stats = self.stats
        if not stats.batches:
            return "Nothing was accepted."
        entries = quantity(stats.total, "valid entry", "valid entries").removeprefix("1 ")
        return (
            f"Accepted before: the first {entries} of the input, in "
            f"{quantity(stats.batches, 'batch', 'batches')}."
        )

    def _watch(self) -> None:
        """Save the checkpoint and log the progress until the push ends."""
        logged_at = time.monotonic()
        while not self._ended.wait(_SECONDS_BETWEEN_CHECKS):
            if self._checkpoints is not None:
                self._checkpoints.save_if_due()
            if time.monotonic() - logged_at < _SECONDS_BETWEEN_PROGRESS:
                continue
            logged_at = time.monotonic()
            seconds = max(self.seconds, 0.001)
            stats = self.stats
            self._log.info(
                "%s: %s (%.1f MB) in %s accepted, %s in flight; %.0f/s, %.1f MB/s",
                self._target,
                quantity(stats.total, *self._unit),
                stats.size / 1e6,
                quantity(stats.batches, "batch", "batches"),
                quantity(self._in_flight, "batch", "batches"),
                (stats.total - stats.resumed_entries) / seconds,
                (stats.size - stats.resumed_size) / 1e6 / seconds,
            )
