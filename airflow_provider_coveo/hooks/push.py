"""Pushing batches through file containers: uploads in parallel, acceptance in order, and an exact account."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

import requests

from airflow_provider_coveo.coveo.batches import DELETE, AcceptedBatches, Batch, Checkpoint, InvalidEntries
from airflow_provider_coveo.coveo.errors import (
    CoveoError,
    CoveoInputError,
    DailyQuotaExceededError,
    InvalidParameterError,
    NoAnswerError,
    NotFoundError,
    RedirectError,
    ServiceError,
    UnexpectedAnswerError,
    short_repr,
)
from airflow_provider_coveo.coveo.integers import parse_int
from airflow_provider_coveo.coveo.items import InvalidItemError, Item
from airflow_provider_coveo.coveo.ordering_ids import CoveoClock
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.hooks.responses import request_id_of

if TYPE_CHECKING:
    from airflow_provider_coveo.hooks.content_changes import PushRecords
    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

#: How many uploads are under way at the same time, unless one says otherwise.
DEFAULT_UPLOAD_CONCURRENCY: Final = 3
_MAX_UPLOADS: Final = 32
#: How many invalid items are left out at most, where they are, unless one says otherwise.
DEFAULT_MAX_INVALID: Final = 100

#: A container lives for 60 minutes (https://docs.coveo.com/en/43/). One that is older than this many seconds
#: is not relied on any more.
_MAX_CONTAINER_AGE: Final = 45 * 60
#: How many containers are made for one batch because the one before it was gone.
_CONTAINERS_PER_BATCH: Final = 3
_SECONDS_BETWEEN_PROGRESS: Final = 5.0
#: How often what was accepted is kept where there is something new; less often where that would take more
#: than such a share of the time.
_SECONDS_BETWEEN_LOOKS: Final = 0.5
_MAX_SHARE_OF_TIME: Final = 0.05
#: How many batches are sent, at first, before it is kept that they may have been accepted: a process that is
#: killed without warning can't say how far it came.
_BATCHES_AHEAD: Final = 8
_MAX_BATCHES_AHEAD: Final = 4_096
#: For how many batches that is done.
_MAX_BATCHES_KEPT: Final = 40_000
#: How long a killed task waits for a request that is under way, to say whether it was accepted.
_SECONDS_TO_SETTLE: Final = 5.0

_ONE_ATTEMPT: Final = RetryPolicy(total_seconds=0)


@dataclass(frozen=True)
class Uploaded:
    """
    A file container with something in it.

    :param file_id: Its ``fileId``.
    :param made_at: This machine's monotonic clock in seconds before it was made.
    :param clock: Coveo's clock when it was made.
    """

    file_id: str
    made_at: float
    clock: CoveoClock


@dataclass
class Account:
    """
    What was accepted so far.

    :param entries: How many entries of the input, by section of the batches.
    :param replaced: How many of them a later one of their batch replaced before they were sent.
    :param batches: How many batches.
    :param resumed_batches: How many of these an earlier try got accepted, so that they were not sent again.
    :param resumed_entries: How many entries of the input those stand for.
    :param resumed_size: How many bytes of JSON those are.
    :param repeated_batches: How many times a batch was sent although Coveo may have taken it before, by
        earlier tries as well.
    :param repeated_items: How many entries those batches held.
    :param earlier_items: How many entries an earlier try may have sent as well, of whose batches nothing is
        kept any more because it succeeded.
    :param children: How many deletions take other items with them.
    :param repeated_children: How many of those were in the batches that were repeated.
    :param size: How many bytes of JSON.
    :param first_request_id: The request ID of the first batch that was sent.
    :param last_request_id: The request ID of the last one.
    :param started: The moment by Coveo's clock, in epoch milliseconds, before the first batch was sent,
        by an earlier try where that got it accepted.
    """

    entries: dict[str, int] = field(default_factory=dict)
    replaced: int = 0
    batches: int = 0
    resumed_batches: int = 0
    resumed_entries: int = 0
    resumed_size: int = 0
    repeated_batches: int = 0
    repeated_items: int = 0
    earlier_items: int = 0
    children: int = 0
    repeated_children: int = 0
    size: int = 0
    first_request_id: str | None = None
    last_request_id: str | None = None
    started: int | None = None

    def add(self, batch: Batch) -> None:
        """Count a batch that was accepted."""
        for section, count in batch.counts.items():
            self.entries[section] = self.entries.get(section, 0) + count
        self.replaced += batch.replaced
        self.children += batch.children
        self.batches += 1
        self.size += batch.size

    def add_resumed(self, batch: Batch, started: int | None) -> None:
        """Count a batch that an earlier try got accepted."""
        self.add(batch)
        self.resumed_batches += 1
        self.resumed_entries += batch.entries
        self.resumed_size += batch.size
        self.started = started

    def add_repeated(self, batch: Batch) -> None:
        """Count that a batch is sent although Coveo may have taken it before."""
        self.repeated_batches += 1
        self.repeated_items += batch.sent
        self.repeated_children += batch.children

    @property
    def total(self) -> int:
        """How many entries of the input."""
        return sum(self.entries.values())


@dataclass
class Quota:
    """
    How many items may still be pushed today.

    :param remaining: How many, ``None`` where it is not known.
    :param expected: How many are to be pushed, ``None`` where it is not known.
    """

    remaining: int | None = None
    expected: int | None = None
    _warned: bool = False

    def warning(self, handed_over: int) -> str | None:
        """Return what to warn of once that many items were handed over; each warning is given once."""
        if self.remaining is None or self._warned:
            return None
        wanted = max(handed_over, self.expected or 0)
        if wanted <= self.remaining:
            return None
        self._warned = True
        return (
            f"The daily quota will not do: {self.remaining:,} items may still be pushed today, and this push "
            f"has {wanted:,} or more. Coveo will refuse the rest, and the task will fail."
        )


def validate_concurrency(value: object) -> int:
    """
    Return how many uploads may be under way at the same time.

    :raises CoveoInputError: if it is not a whole number within 1 and 32.
    """
    uploads = parse_int(value)
    if uploads is None or not 1 <= uploads <= _MAX_UPLOADS:
        raise CoveoInputError(
            f"{short_repr(value)} is not a number of parallel uploads",
            remedy=f"Give a whole number within 1 and {_MAX_UPLOADS}; the default is "
            f"{DEFAULT_UPLOAD_CONCURRENCY}",
        )
    return uploads


class ContainerPush:
    """
    One push of many batches.

    Threads upload the batches. One more thread has Coveo take them, in order and one at a time, each once
    its own upload is through; so what was accepted is always the beginning of the input. At most
    ``concurrency`` + 1 batches are held in memory besides the one that is being filled.

    :param hook: The hook whose connection to use.
    :param path: The path that has Coveo take a batch.
    :param target: Where to, in words: ``source 'acme-products'``.
    :param noun: What is pushed, in words: ``items``.
    :param names: How the result calls what was accepted in each section of the batches.
    :param concurrency: How many uploads are under way at the same time.
    :param checkpoint: Where to keep, for a later try, which batches were accepted.
    :param records: What is on record of the source's content, ``None`` where nothing is kept of the target.
    :param progress: Called with the result so far after each batch that was accepted.
    :param count: Called with each batch that was accepted.
    """

    def __init__(
        self,
        hook: CoveoPushHook,
        *,
        path: str,
        target: str,
        noun: str,
        names: Mapping[str, str],
        concurrency: int,
        checkpoint: Checkpoint | None = None,
        records: PushRecords | None = None,
        progress: Callable[[dict[str, Any]], None] | None = None,
        count: Callable[[Batch], None] | None = None,
    ) -> None:
        self.account = Account()
        self.quota = Quota()
        self._hook = hook.branch()
        self._path = path
        self._target = target
        self._noun = noun
        self._names = dict(names)
        self._concurrency = concurrency
        self._progress = progress
        self._count = count
        self._records = records
        self._checkpoints = None
        if checkpoint is not None:
            self._checkpoints = _Checkpoints(checkpoint, hook, path, records, self.account)
        self._began = time.monotonic()
        self._changed = threading.Condition()
        # Guarded by the condition:
        self._waiting: deque[tuple[Batch, Future[tuple[Uploaded, str | None]]]] = deque()
        self._in_flight = 0
        self._no_more = False
        self._failure: BaseException | None = None
        self._taker: threading.Thread | None = None
        # Known once that thread begins:
        self._batches_before = 0
        self._ended = threading.Event()

    @property
    def seconds(self) -> float:
        """How long the push has taken so far."""
        return time.monotonic() - self._began

    def run(self, batches: Iterable[Batch]) -> None:
        """
        Push batches; returns once all are accepted.

        :raises CoveoError: if one is not, with what was accepted before it. Whatever the iterator raises is
            raised too, once the batches that it gave before are through.
        """
        uploads = ThreadPoolExecutor(self._concurrency, thread_name_prefix="coveo-upload")
        succeeded = False
        try:
            self._run(batches, uploads)
            succeeded = True
        except Exception as error:
            self._settle()
            self._say_what_was_accepted(error)
            raise
        except BaseException:
            # The task is being killed: nothing new begins.
            self._hook.stop()
            self._settle()
            self._hook.log.error("The push was interrupted. %s", self.so_far())  # noqa: TRY400
            raise
        finally:
            self._ended.set()
            self._hook.stop()
            uploads.shutdown(wait=False, cancel_futures=True)
            if not succeeded:
                self.keep()
            if self._records is not None:
                self._records.end(self.account.batches - self.account.resumed_batches)

    def _run(self, batches: Iterable[Batch], uploads: ThreadPoolExecutor) -> None:
        handed_over = 0
        for batch in batches:
            if self._taker is None and self._is_accepted_already(batch):
                continue
            handed_over += batch.entries
            warning = self.quota.warning(handed_over)
            if warning is not None:
                self._hook.log.warning("%s", warning)
            self._hand_over(batch, uploads)
        if not self._settle():
            raise self._killed()
        self._raise_failure()

    def _settle(self) -> bool:
        """
        Wait until all that was handed over is through, or the push has failed.

        Once the push was stopped, what is under way gets a moment to end.

        :return: Whether it came to that.
        """
        with self._changed:
            self._no_more = True
            self._changed.notify_all()
        until = None
        while self._taker is not None and self._taker.is_alive():
            if until is None and self._hook.is_stopped:
                until = time.monotonic() + _SECONDS_TO_SETTLE
            if until is not None and time.monotonic() >= until:
                return False
            self._taker.join(_SECONDS_BETWEEN_LOOKS)
        return True

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def keep(self) -> None:
        """Keep what was accepted for the next try, since the push is not complete."""
        if self._checkpoints is not None:
            self._checkpoints.end(is_settled=self._taker is None or not self._taker.is_alive())

    def complete(self) -> None:
        """Take note that the whole input was pushed, so that the next try of the task begins anew."""
        if self._checkpoints is not None:
            self._checkpoints.forget()

    def result(self) -> dict[str, Any]:
        """Return what was accepted, as small JSON."""
        account = self.account
        accepted = {name: account.entries.get(section, 0) for section, name in self._names.items()}
        return {
            **accepted,
            "replaced": account.replaced,
            "batches": account.batches,
            "resumed_batches": account.resumed_batches,
            "resumed_entries": account.resumed_entries,
            "repeated_batches": account.repeated_batches,
            "repeated_items": account.repeated_items,
            "earlier_items": account.earlier_items,
            "bytes": account.size,
            "seconds": round(self.seconds, 3),
            "first_request_id": account.first_request_id,
            "last_request_id": account.last_request_id,
            "ordering_id": account.started,
        }

    # --- resuming ---

    def _is_accepted_already(self, batch: Batch) -> bool:
        if self._checkpoints is None or not self._checkpoints.has(batch):
            return False
        self.account.add_resumed(batch, self._checkpoints.earlier.started)
        return True

    # --- the thread that reads the input ---

    def _hand_over(self, batch: Batch, uploads: ThreadPoolExecutor) -> None:
        if self._taker is None:
            self._begin()
        with self._changed:
            # Nobody tells of a stop, which may come from a signal.
            while not self._changed.wait_for(self._may_go_on, _SECONDS_BETWEEN_LOOKS):
                pass
            self._raise_failure()
            if not self._hook.is_stopped:
                self._in_flight += 1
                self._waiting.append((batch, uploads.submit(self._upload, batch)))
                self._changed.notify_all()
                return
        self._settle()
        raise self._killed()

    def _may_go_on(self) -> bool:
        return self._failure is not None or self._in_flight <= self._concurrency or self._hook.is_stopped

    def _begin(self) -> None:
        # The connection is read here, so that the threads don't all do it.
        self._hook.settings  # noqa: B018
        since = ""
        if self._records is not None:
            since = self._records.begin(self._checkpoints.since if self._checkpoints is not None else "")
            if self._checkpoints is None or not self._checkpoints.earlier.sent:
                self._batches_before = self._records.batches_before()
        if self._checkpoints is not None:
            self._checkpoints.begin(since)
        if self.account.resumed_batches:
            self._hook.log.info(
                "An earlier try got the first %d batches (%d %s) accepted, and they are unchanged: the push "
                "goes on behind them.",
                self.account.resumed_batches,
                self.account.total,
                self._noun,
            )
        self._taker = threading.Thread(target=self._take_in_order, name="coveo-batches", daemon=True)
        self._taker.start()
        threading.Thread(target=self._watch, name="coveo-watch", daemon=True).start()

    # --- the threads that upload ---

    def _upload(self, batch: Batch) -> tuple[Uploaded, str | None]:
        digest = None if self._checkpoints is None else self._checkpoints.digest(batch)
        return self._upload_anew(batch), digest

    def _upload_anew(self, batch: Batch) -> Uploaded:
        tried = f"Could not upload {self._named(batch)}"
        earliest: list[Uploaded] = []

        def upload_content(content: bytes) -> str:
            uploaded = self._hook.upload(content, tried)
            earliest.append(uploaded)
            return uploaded.file_id

        uploaded = self._hook.upload(batch.body(upload_content), tried)
        if not earliest:
            return uploaded
        # The batch is good for as long as the oldest container that it names.
        return Uploaded(uploaded.file_id, earliest[0].made_at, earliest[0].clock)

    # --- the thread that has Coveo take the batches ---

    def _take_in_order(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._no_more)
                if not self._waiting:
                    return
                batch, upload = self._waiting.popleft()
            try:
                try:
                    self._take(batch, upload)
                except CoveoError as error:
                    raise self._incomplete(error, batch) from error.__cause__
            except BaseException as error:
                # Whatever it is: if this thread ended without telling, the push would pass for complete.
                self._fail(error)
                return
            finally:
                del batch, upload
            with self._changed:
                self._in_flight -= 1
                self._changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._failure = error
            self._waiting.clear()
            self._changed.notify_all()
        # After that, so that nobody takes it for the task being killed.
        self._hook.stop()

    def _take(self, batch: Batch, upload: Future[tuple[Uploaded, str | None]]) -> None:
        uploaded, digest = upload.result()
        account = self.account
        if account.started is None:
            account.started = uploaded.clock.now_ms() - int((time.monotonic() - uploaded.made_at) * 1000)
        if self._records is not None:
            sent_before = self.account.batches - self.account.resumed_batches
            self._records.sending(sent_before, deletes=bool(batch.counts.get(DELETE)))
        if self._checkpoints is not None and self._checkpoints.sending(batch):
            self._hook.log.warning(
                "An earlier try may have got %s accepted already, without its being kept: it is sent again.",
                self._named(batch),
            )
        if batch.number < self._batches_before:
            account.earlier_items += batch.sent
        request_id = request_id_of(self._accepted(batch, uploaded))
        account.add(batch)
        account.first_request_id = account.first_request_id or request_id
        account.last_request_id = request_id
        if self._checkpoints is not None and digest is not None:
            self._checkpoints.accepted(digest, account.started)
        if self._count is not None:
            self._count(batch)
        if self._progress is not None:
            self._progress(self.result())

    def _accepted(self, batch: Batch, first: Uploaded) -> requests.Response:
        tried = f"Could not push {self._named(batch)}"
        uploaded: Uploaded | None = first
        refused_containers = 0
        may_be_taken = False

        def attempt(number: int) -> requests.Response:
            nonlocal uploaded, refused_containers, may_be_taken
            while True:
                if uploaded is None or time.monotonic() - uploaded.made_at > _MAX_CONTAINER_AGE:
                    uploaded = self._upload_anew(batch)
                if may_be_taken:
                    may_be_taken = False
                    self._sent_again(batch)
                try:
                    return self._hook.take_batch(self._path, uploaded.file_id, tried, _ONE_ATTEMPT)
                except (ServiceError, NoAnswerError) as error:
                    # Coveo may have taken the batch all the same, and with it used up the container. To
                    # take the same batch twice in a row makes no difference to the index.
                    uploaded = None
                    if error.may_be_done:
                        may_be_taken = True
                        if self._checkpoints is not None:
                            self._checkpoints.unsure = batch
                    raise
                except (UnexpectedAnswerError, RedirectError):
                    # Whoever answered in Coveo's place may have passed the request on.
                    if self._checkpoints is not None:
                        self._checkpoints.unsure = batch
                    raise
                except (InvalidParameterError, NotFoundError) as error:
                    uploaded = None
                    refused_containers += 1
                    if refused_containers == _CONTAINERS_PER_BATCH:
                        raise
                    self._hook.log.warning("The batch's container may be gone; a new one is made. %s", error)

        return self._hook.repeated(attempt)

    def _sent_again(self, batch: Batch) -> None:
        self.account.add_repeated(batch)
        if self._checkpoints is not None:
            self._checkpoints.unsure = None
        self._hook.log.warning(
            "Coveo may have taken %s, which is sent again: its %s may show twice in the item logs.",
            self._named(batch),
            self._noun,
        )

    # --- words ---

    def _named(self, batch: Batch) -> str:
        return (
            f"batch {batch.number + 1} ({self._noun} {batch.first:,} to {batch.last:,} of the input, counted "
            f"from 0) to {self._target}"
        )

    def _killed(self) -> CoveoError:
        """Return the error of a push that was stopped, to be raised once what was under way is through."""
        self._raise_failure()
        return NoAnswerError(
            f"Could not push all {self._noun} to {self._target}",
            answer="nothing more was sent",
            cause="the task was killed or marked",
            remedy="Clear the task to push again",
            note=self.so_far(),
            accepted=self.result(),
        )

    def _incomplete(self, error: CoveoError, batch: Batch) -> CoveoError:
        """Return the error with what was accepted before it."""
        fields = error.fields()
        note = self.so_far()
        unsure = (ServiceError, NoAnswerError, UnexpectedAnswerError, RedirectError)
        if isinstance(error, unsure) and error.tried.startswith("Could not push"):
            note += " Whether Coveo took this batch as well is not known; to push it again is safe."
        if isinstance(error, DailyQuotaExceededError):
            fields["cause"] = f"the organization's daily quota of items is used up; {_renewal(error)}"
        fields.update(note=note, accepted=self.result())
        complete = type(error)(error.tried, **fields)
        complete.__cause__ = error.__cause__
        return complete

    def _say_what_was_accepted(self, error: Exception) -> None:
        if not isinstance(error, CoveoError) or not error.note:
            self._hook.log.error("The push did not come to its end. %s", self.so_far())

    def so_far(self) -> str:
        """Say in words what was accepted."""
        account = self.account
        if not account.batches:
            return "Nothing was accepted."
        return (
            f"Accepted before: the first {account.total:,} valid entries of the input, in "
            f"{account.batches:,} batches."
        )

    def _watch(self) -> None:
        """Keep what was accepted, and tell of progress, for as long as the push lasts."""
        told_at = time.monotonic()
        while not self._ended.wait(_SECONDS_BETWEEN_LOOKS):
            if self._checkpoints is not None:
                self._checkpoints.save_if_due()
            if time.monotonic() - told_at < _SECONDS_BETWEEN_PROGRESS:
                continue
            told_at = time.monotonic()
            seconds = max(self.seconds, 0.001)
            account = self.account
            self._hook.log.info(
                "%s: %d %s (%.1f MB) in %d batches accepted, %d batches in flight; %.0f/s, %.1f MB/s",
                self._target,
                account.total,
                self._noun,
                account.size / 1e6,
                account.batches,
                self._in_flight,
                (account.total - account.resumed_entries) / seconds,
                (account.size - account.resumed_size) / 1e6 / seconds,
            )


def validate_iterable(items: object, name: str) -> Iterable[Any]:
    """
    Return what is to be pushed if one can go through it.

    :raises CoveoInputError: if it is a single item, a string, or nothing to go through.
    """
    single = (str, bytes, bytearray, memoryview, Mapping, Item)
    if isinstance(items, single) or not isinstance(items, Iterable):
        raise CoveoInputError(
            f"{name} must be something to go through, such as a list or a generator, not "
            f"{type(items).__name__}",
            remedy="Put a single one into a list",
        )
    return items


class InvalidItems:
    """
    What becomes of invalid items.

    :param skips: Whether they are left out, rather than ending the push.
    :param most: How many are left out at most.
    :param target: Where to, in words.
    """

    #: The exception that the input raised when it was read on.
    failure: Exception | None = None

    def __init__(self, skips: bool, most: int, target: str) -> None:
        self.found = InvalidEntries()
        self._skips = skips
        self._most = most
        self._target = target

    @classmethod
    def checked(cls, on_invalid: object, max_invalid: object, target: str) -> InvalidItems:
        """
        Return what the two parameters ask for.

        :raises CoveoInputError: if one can't be right.
        """
        if on_invalid not in {"fail", "skip"}:
            raise CoveoInputError(f"on_invalid is {on_invalid!r}", remedy="Use 'fail' or 'skip'")
        most = parse_int(max_invalid)
        if most is None or most < 0:
            raise CoveoInputError(
                f"max_invalid is {short_repr(max_invalid)}", remedy="Give a whole number, zero or more"
            )
        return cls(on_invalid == "skip", most, target)

    def goes_on(self, index: int, error: InvalidItemError) -> bool:
        """Take note of an invalid item, and say whether the push goes on."""
        self.found.add(index, error)
        return self._skips and self.found.count <= self._most

    def input_failed(self, failure: Exception) -> None:
        """Take note that the input raised an exception when it was read on."""
        self.failure = failure

    def told_with(self, failure: Exception, log: Any) -> Exception:
        """Return what a push failed with so that it tells of the items too that were invalid before."""
        if not self.found.count:
            return failure
        words = f"Before that, Coveo would have refused {self.found.count:,} items: {self.found.words()}"
        log.error("%s", words)
        with suppress(Exception):
            if isinstance(failure, CoveoError):
                fields = failure.fields()
                fields["note"] = f"{failure.note} {words}".strip()
                return type(failure)(failure.tried, **fields)
            # From Python 3.11.
            failure.add_note(words)  # type: ignore[attr-defined,unused-ignore]
        return failure

    def raise_if_too_many(self, push: ContainerPush) -> None:
        """
        Raise the error that invalid items ended the push with, if they did.

        :raises CoveoInputError: if so, naming the first ones, and the exception that the input raised behind
            them.
        """
        if not self.found.count or (self._skips and self.found.count <= self._most):
            return
        push.keep()
        failed = "" if self.failure is None else f" Behind them, the input failed: {short_repr(self.failure)}"
        allowed = f", more than the {self._most:,} that may be left out" if self._skips else ""
        raise CoveoInputError(
            f"Could not push all items to {self._target}: Coveo would refuse {self.found.count:,} of them"
            f"{allowed}. {self.found.words()}{failed}",
            remedy="Correct them, or leave them out with on_invalid='skip'",
            note=push.so_far(),
            accepted={**push.result(), **self.result()},
        )

    def result(self) -> dict[str, Any]:
        """Return how many were left out, and the first of them, as small JSON."""
        return {"invalid": self.found.count, "invalid_items": self.found.shown}


def _renewal(error: CoveoError) -> str:
    now = datetime.now(timezone.utc)
    if error.retry_after is not None:
        return f"it renews at {(now + timedelta(seconds=error.retry_after)).isoformat(timespec='seconds')}"
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    minutes = int((midnight - now).total_seconds() // 60)
    return f"it renews the next day, which in UTC begins in {minutes // 60} h {minutes % 60} min"


class _Checkpoints:
    """
    What was accepted, kept now and then by another thread than the one that waits for Coveo.

    A push does not fail because it can't be kept: then a later try has more to do.

    :param checkpoint: Where it is kept.
    :param hook: The hook that pushes.
    :param path: The path that has Coveo take a batch.
    :param records: What is on record of the source's content.
    :param account: What is accepted.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        hook: CoveoPushHook,
        path: str,
        records: PushRecords | None,
        account: Account,
    ) -> None:
        self.earlier = checkpoint.read()
        #: The batch that Coveo may have taken, and that was neither accepted nor sent again.
        self.unsure: Batch | None = None
        self._checkpoint = checkpoint
        self._log = hook.log
        self._target = hook.settings.push_url + path
        self._records = records
        self._account = account
        account.repeated_batches = self.earlier.repeated_batches
        account.repeated_items = self.earlier.repeated_items
        account.repeated_children = self.earlier.repeated_children
        self._known = self.earlier.digests
        if self._known and records is not None and not records.still_stands(self.earlier.since):
            self._log.info(
                "The content was changed since an earlier try, or that can't be told: all is pushed."
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
        self._is_kept = self.earlier != AcceptedBatches()
        self._kept: AcceptedBatches | None = None
        self._sent = 0
        self._due_at = 0.0

    def has(self, batch: Batch) -> bool:
        """Whether an earlier try got this batch accepted after the same ones; asked in their order."""
        if batch.number >= len(self._known):
            return False
        if self._records is not None and not self._records.is_alone:
            # What gives the items has changed the source's content meanwhile.
            return False
        digest = self.digest(batch)
        if digest != self._known[batch.number]:
            return False
        self._digests.append(digest)
        return True

    @property
    def since(self) -> str:
        """The change of the content since which stands what an earlier try got accepted, if anything."""
        return self.earlier.since if self._digests else ""

    def digest(self, batch: Batch) -> str:
        """Return what tells a batch from others, and from the same for another source."""
        return batch.digest(self._target)

    def begin(self, since: str) -> None:
        """Forget what an earlier try got accepted behind the first difference, before anything is sent."""
        self._has_begun = True
        self._since = since
        self._sent = len(self._digests) + self._step
        try:
            self._write()
        except Exception as problem:
            if self._is_kept:
                # Without that, a later try could take for accepted what this one is about to replace.
                raise
            self._warn(problem)

    def sending(self, batch: Batch) -> bool:
        """
        Keep that a batch may be accepted from now on, and say whether an earlier try may have sent it.

        :param batch: The batch.
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
        self._account.add_repeated(batch)
        return True

    def accepted(self, digest: str, started: int | None) -> None:
        """Take note of the next batch that was accepted."""
        self.unsure = None
        if len(self._digests) < _MAX_BATCHES_KEPT:
            self._started = started
            self._digests.append(digest)

    def save_if_due(self) -> None:
        """Keep what was not kept yet, unless that was done a moment ago."""
        if time.monotonic() >= self._due_at:
            self.save()

    def save(self) -> None:
        """Keep what was not kept yet."""
        with self._lock:
            if self._kept is not None and self._accepted_so_far() == self._kept:
                return
            began = time.monotonic()
            try:
                self._write()
            except Exception as problem:
                self._warn(problem)
            ended = time.monotonic()
            self._due_at = ended + (ended - began) / _MAX_SHARE_OF_TIME

    def end(self, *, is_settled: bool) -> None:
        """
        Keep what was not kept yet, because the push has ended before its time.

        :param is_settled: Whether nothing is under way any more.
        """
        if not self._has_begun:
            return
        if is_settled:
            self._sent = self._account.batches
        self.save()

    def forget(self) -> None:
        """Keep nothing more: all is accepted."""
        with self._lock:
            # So that a save that comes late finds nothing to do.
            self._kept = self._accepted_so_far()
            if not self._is_kept:
                return
            try:
                self._checkpoint.forget()
            except Exception as problem:
                self._log.warning("What was accepted is still kept, though it all was: %r", problem)

    def _accepted_so_far(self) -> AcceptedBatches:
        unsure = self.unsure
        return AcceptedBatches(
            list(self._digests),
            self._started,
            self._since,
            self._sent,
            self._account.repeated_batches + (unsure is not None),
            self._account.repeated_items + (0 if unsure is None else unsure.sent),
            self._account.repeated_children + (0 if unsure is None else unsure.children),
        )

    def _write(self) -> None:
        accepted = self._accepted_so_far()
        self._checkpoint.write(accepted)
        self._kept, self._is_kept = accepted, True

    def _warn(self, problem: Exception) -> None:
        self._log.warning("A later try will have to push more again than it should: %r", problem)
