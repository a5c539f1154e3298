"""The counters of a push: accepted entries, the daily quota and invalid items."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from logging import Logger
from typing import TYPE_CHECKING

from airflow_provider_coveo.coveo.batches import Batch
from airflow_provider_coveo.coveo.errors import CoveoError, CoveoInputError, short_repr
from airflow_provider_coveo.coveo.invalid_items import InvalidEntries
from airflow_provider_coveo.coveo.items import InvalidItemError
from airflow_provider_coveo.coveo.max_invalid import MaxInvalid
from airflow_provider_coveo.coveo.observer import RejectedItems
from airflow_provider_coveo.coveo.quantities import next_day_in_words, quantity

if TYPE_CHECKING:
    from airflow_provider_coveo.coveo.results import InvalidResult, RejectedResult


@dataclass(eq=False, repr=False)
class PushStats:
    """
    The counts of what was accepted so far.

    :param entries: The number of input entries, by section of the batches.
    :param replaced: How many of them were not sent, because a later entry of their batch replaced them.
    :param batches: The number of batches.
    :param resumed_batches: How many of the batches an earlier attempt got accepted, so that they are not sent
        again.
    :param resumed_entries: The number of input entries in those batches.
    :param resumed_size: The size of those batches in bytes of JSON.
    :param repeated_batches: How many times a batch was sent again although Coveo may already have accepted
        it, in this or an earlier attempt.
    :param repeated_items: The number of entries in those batches.
    :param earlier_items: The number of entries that an earlier, successful attempt may also have sent; its
        checkpoint is already removed.
    :param children: The number of deletions that also delete other items.
    :param repeated_children: How many of those were in repeated batches.
    :param size: The size in bytes of JSON.
    :param first_request_id: The request ID of the first batch sent.
    :param last_request_id: The request ID of the last batch sent.
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
        """Count an accepted batch."""
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
        """Count that a batch is sent again although Coveo may already have accepted it."""
        self.repeated_batches += 1
        self.repeated_items += batch.sent
        self.repeated_children += batch.children

    @property
    def total(self) -> int:
        """The number of input entries."""
        return sum(self.entries.values())


@dataclass(eq=False, repr=False)
class Quota:
    """
    The number of items that can still be pushed today.

    :param remaining: The number, or ``None`` if unknown.
    :param expected: The number of items in the input, or ``None`` if unknown.
    """

    remaining: int | None = None
    expected: int | None = None
    _warned: bool = False

    def warning(self, enqueued: int) -> str | None:
        """
        Return a warning if the quota is too small, once.

        :param enqueued: The number of items read from the input so far.
        """
        if self.remaining is None or self._warned:
            return None
        wanted = max(enqueued, self.expected or 0)
        if wanted <= self.remaining:
            return None
        self._warned = True
        return (
            f"The daily quota is too small: {quantity(self.remaining, 'item')} can still be pushed today, "
            f"and this push has {wanted:,} or more. Coveo will reject the rest, and the task will fail."
        )


def quota_renewal(error: CoveoError) -> str:
    """
    Return when the daily quota renews, as text.

    :param error: The error of the request that exceeded the quota.
    """
    now = datetime.now(timezone.utc)
    if error.retry_after is not None:
        return f"it renews at {(now + timedelta(seconds=error.retry_after)).isoformat(timespec='seconds')}"
    return f"it {next_day_in_words(now)}"


class InvalidItems:
    """
    The handling of a push's invalid items.

    :param skips: Whether the push skips them instead of failing.
    :param limit: The maximum number to skip.
    :param target: The target of the push, for messages.
    :param rejected: Collects them, or ``None``.
    """

    #: The exception that the input raised after an invalid item.
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
        Return the handling that the parameters describe.

        :raises CoveoInputError: if one is invalid.
        """
        if on_invalid not in ("fail", "skip"):
            raise CoveoInputError(f"Invalid on_invalid: {on_invalid!r}", remedy="Use 'fail' or 'skip'")
        limit = MaxInvalid.parse(max_invalid, keeps_them=keeps_them or rejected is not None)
        return cls(on_invalid == "skip", limit, target, rejected)

    def skip(self, index: int, error: InvalidItemError) -> bool:
        """Count an invalid item, and return whether the push skips it instead of ending."""
        self.found.add(index, error)
        if self._rejected is not None:
            self._rejected.add(index, error)
        skips = self._skips and self._limit.allows_so_far(self.found.count, index + 1)
        self._ended_push = self._ended_push or not skips
        return skips

    def input_failed(self, failure: Exception) -> None:
        """Record that the input raised an exception after an invalid item."""
        self.failure = failure

    def add_note(self, failure: Exception, log: Logger) -> Exception:
        """Return the error of a failed push, with a note of the items that were invalid before it."""
        if not self.found.count:
            return failure
        words = (
            f"Before that, the push found {quantity(self.found.count, 'invalid item')}: {self.found.words()}"
        )
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
        Return the input; count its entries if the limit is a share of them.

        :param entries: The input.
        """
        return self._count(entries) if self._limit.is_share else entries

    def _count(self, entries: Iterable[object]) -> Iterator[object]:
        for entry in entries:
            self._read += 1
            yield entry

    @property
    def ended_push(self) -> bool:
        """Whether invalid items ended the push, or exceed the limit at the end."""
        count = self.found.count
        return self._ended_push or (count > 0 and not self._limit.allows(count, self._read))

    def end(self, *, succeeded: bool) -> None:
        """
        Write the file of rejected items, if the push has one.

        :param succeeded: Whether the push succeeded.
        """
        if self._rejected is not None:
            self._rejected.end(succeeded=succeeded)

    def error(self, note: str, accepted: dict[str, object]) -> CoveoInputError:
        """
        Return the error of a push that ended because of invalid items.

        :param note: A sentence on what was accepted before.
        :param accepted: The result up to then.
        """
        failed = "" if self.failure is None else f" After them, the input failed: {short_repr(self.failure)}"
        allowed = f", more than the {self._limit} that may be skipped" if self._skips else ""
        path = self.result().get("rejected_path")
        if path:
            note = f"{note} The rejected items are in {path}.".strip()
        return CoveoInputError(
            f"Could not push all items to {self._target}: Coveo would reject {self.found.count:,} of them"
            f"{allowed}. {self.found.words()}{failed}",
            remedy="Correct them, or pass a higher max_invalid"
            if self._skips
            else "Correct them, or skip them with on_invalid='skip'",
            note=note,
            accepted={**accepted, **self.result()},
        )

    def result(self) -> InvalidResult:
        """Return the number of invalid items, and the first of them, as small JSON."""
        rejected: RejectedResult = {} if self._rejected is None else self._rejected.result()
        return {"invalid": self.found.count, "invalid_items": self.found.shown, **rejected}
