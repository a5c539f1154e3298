"""What a push counts: the accepted entries, the daily quota and the invalid items."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from logging import Logger
from typing import cast

from airflow_provider_coveo.coveo.batches import Batch
from airflow_provider_coveo.coveo.errors import CoveoError, CoveoInputError, short_repr
from airflow_provider_coveo.coveo.invalid_items import InvalidEntries
from airflow_provider_coveo.coveo.items import InvalidItemError
from airflow_provider_coveo.coveo.max_invalid import MaxInvalid
from airflow_provider_coveo.coveo.observer import RejectedItems
from airflow_provider_coveo.coveo.results import InvalidResult


@dataclass
class PushStats:
    """
    What was accepted so far.

    :param entries: How many entries of the input, by section of the batches.
    :param replaced: How many of them a later one of their batch replaced before they were sent.
    :param batches: How many batches.
    :param resumed_batches: How many of these an earlier attempt got accepted, so that they are not sent
        again.
    :param resumed_entries: How many entries of the input those stand for.
    :param resumed_size: How many bytes of JSON those are.
    :param repeated_batches: How many times a batch was sent although Coveo may have accepted it before, by
        earlier attempts as well.
    :param repeated_items: How many entries those batches held.
    :param earlier_items: How many entries an earlier attempt may have sent as well, of whose batches nothing
        is saved any more because it succeeded.
    :param children: How many deletions delete other items as well.
    :param repeated_children: How many of those were in the batches that were repeated.
    :param size: How many bytes of JSON.
    :param first_request_id: The request ID of the first batch that was sent.
    :param last_request_id: The request ID of the last one.
    :param started: The time on Coveo's clock, in epoch milliseconds, before the first batch was sent, by an
        earlier attempt if that got it accepted.
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
        """Count a batch that an earlier attempt got accepted."""
        self.add(batch)
        self.resumed_batches += 1
        self.resumed_entries += batch.entries
        self.resumed_size += batch.size
        self.started = started

    def add_repeated(self, batch: Batch) -> None:
        """Count that a batch is sent although Coveo may have accepted it before."""
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

    :param remaining: How many, ``None`` if unknown.
    :param expected: How many the input has, ``None`` if unknown.
    """

    remaining: int | None = None
    expected: int | None = None
    _warned: bool = False

    def warning(self, enqueued: int) -> str | None:
        """
        Return a warning if the quota is too small, once.

        :param enqueued: How many items were read from the input so far.
        """
        if self.remaining is None or self._warned:
            return None
        wanted = max(enqueued, self.expected or 0)
        if wanted <= self.remaining:
            return None
        self._warned = True
        return (
            f"The daily quota is too small: {self.remaining:,} items may still be pushed today, and this "
            f"push has {wanted:,} or more. Coveo will reject the rest, and the task will fail."
        )


def quota_renewal(error: CoveoError) -> str:
    """
    Return the words for when the daily quota renews.

    :param error: The error of the request that was above it.
    """
    now = datetime.now(timezone.utc)
    if error.retry_after is not None:
        return f"it renews at {(now + timedelta(seconds=error.retry_after)).isoformat(timespec='seconds')}"
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    minutes = int((midnight - now).total_seconds() // 60)
    return f"it renews the next day, which in UTC begins in {minutes // 60} h {minutes % 60} min"


class InvalidItems:
    """
    What a push does with invalid items.

    :param skips: Whether it skips them, rather than fails.
    :param limit: The most that it skips.
    :param target: Where it pushes to, in words.
    :param rejected: Where it leaves them, ``None`` for nowhere.
    """

    #: The exception that the input raised when more of it was read.
    failure: Exception | None = None

    def __init__(
        self, skips: bool, limit: MaxInvalid, target: str, rejected: RejectedItems | None = None
    ) -> None:
        self.found = InvalidEntries()
        self._skips = skips
        self._limit = limit
        self._target = target
        self._rejected = rejected
        self._ended_push = False
        self._read = 0

    @classmethod
    def validate(
        cls,
        on_invalid: object,
        max_invalid: object,
        target: str,
        rejected: RejectedItems | None = None,
        *,
        keeps_them: bool = False,
    ) -> InvalidItems:
        """
        Return what the parameters ask for.

        :raises CoveoInputError: if one is invalid.
        """
        if on_invalid not in {"fail", "skip"}:
            raise CoveoInputError(f"Invalid on_invalid: {on_invalid!r}", remedy="Use 'fail' or 'skip'")
        limit = MaxInvalid.parse(max_invalid, keeps_them=keeps_them or rejected is not None)
        return cls(on_invalid == "skip", limit, target, rejected)

    def skip(self, index: int, error: InvalidItemError) -> bool:
        """Count an invalid item, and return whether the push skips it rather than ends."""
        self.found.add(index, error)
        if self._rejected is not None:
            self._rejected.add(index, error)
        skips = self._skips and self._limit.allows_so_far(self.found.count, index + 1)
        self._ended_push = self._ended_push or not skips
        return skips

    def input_failed(self, failure: Exception) -> None:
        """Record that the input raised an exception when more of it was read."""
        self.failure = failure

    def add_note(self, failure: Exception, log: Logger) -> Exception:
        """Return what a push failed with, with a note of the items that were invalid before."""
        if not self.found.count:
            return failure
        words = f"Before that, {self.found.count:,} items were invalid: {self.found.words()}"
        log.error("%s", words)
        with suppress(Exception):
            if isinstance(failure, CoveoError):
                fields = failure.fields()
                fields["note"] = f"{failure.note} {words}".strip()
                return type(failure)(failure.tried, **fields)
            # From Python 3.11.
            failure.add_note(words)  # type: ignore[attr-defined,unused-ignore]
        return failure

    def counted(self, entries: Iterable[object]) -> Iterable[object]:
        """
        Return the input, counted if a share of it may be skipped.

        :param entries: The input.
        """
        return self._count(entries) if self._limit.is_share else entries

    def _count(self, entries: Iterable[object]) -> Iterator[object]:
        for entry in entries:
            self._read += 1
            yield entry

    @property
    def ended_push(self) -> bool:
        """Whether invalid items ended the push, or are more than may be skipped in the end."""
        count = self.found.count
        return self._ended_push or (count > 0 and not self._limit.allows(count, self._read))

    def end(self, *, succeeded: bool) -> None:
        """
        Write the file of rejected items, if the push has one.

        :param succeeded: Whether the push did.
        """
        if self._rejected is not None:
            self._rejected.end(succeeded=succeeded)

    def error(self, note: str, accepted: dict[str, object]) -> CoveoInputError:
        """
        Return the error of a push that invalid items ended.

        :param note: What was accepted before, in words.
        :param accepted: The same as a result.
        """
        failed = "" if self.failure is None else f" After them, the input failed: {short_repr(self.failure)}"
        allowed = f", more than the {self._limit} that may be skipped" if self._skips else ""
        path = self.result().get("rejected_path")
        if path:
            note = f"{note} The rejected items are in {path}.".strip()
        return CoveoInputError(
            f"Could not push all items to {self._target}: Coveo would reject {self.found.count:,} of them"
            f"{allowed}. {self.found.words()}{failed}",
            remedy="Correct them, or skip them with on_invalid='skip'",
            note=note,
            accepted={**accepted, **self.result()},
        )

    def result(self) -> InvalidResult:
        """Return how many were invalid, and the first of them, as small JSON."""
        rejected = {} if self._rejected is None else self._rejected.result()
        found = {"invalid": self.found.count, "invalid_items": self.found.shown}
        return cast("InvalidResult", {**found, **rejected})
