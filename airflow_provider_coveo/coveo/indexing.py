"""
Wait until Coveo's pipeline has processed what was pushed.

Coveo accepts a push before it reads the items. Only the item logs show the outcome. They have one entry for
each stage that an item went through, but no key of the item's batch. So entries are assigned to a push by
source and time. Counting shows whether everything is processed: the operations that the last stage completed,
plus those that some stage stopped.

If no response showed whether Coveo accepted a batch, the batch is sent again and may count twice. An item
that appears twice must not stand for one that is still missing. So everything is processed for certain only
if the logs show as many operations as were sent, including repeats, or as many different ones as were pushed.
If they show neither, the condition waits until the logs have had no new entries for a while. Even then, it
does not conclude that all is well.
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final, NamedTuple

from airflow_provider_coveo.coveo.conditions import PollResult
from airflow_provider_coveo.coveo.endpoints import validate_source_id
from airflow_provider_coveo.coveo.errors import (
    CoveoInputError,
    IndexingUnknownError,
    ItemsRefusedError,
    short_repr,
)
from airflow_provider_coveo.coveo.integers import parse_int
from airflow_provider_coveo.coveo.item_logs import (
    ENTRIES_PER_PAGE,
    LOG_RETENTION,
    MAX_WINDOW,
    LogPage,
    counts_call,
    iso,
    page_call,
    parse_datetime,
)
from airflow_provider_coveo.coveo.quantities import quantity
from airflow_provider_coveo.coveo.rejections import (
    DEFAULT_REFUSALS,
    DELETES,
    MAX_NAMED,
    Rejection,
    count_rejections,
    rejection_table,
    rejections_of,
)
from airflow_provider_coveo.coveo.transport import Ask

if TYPE_CHECKING:
    from airflow_provider_coveo.coveo.results import LogCounts

#: How long the logs must have shown an item as indexed, in seconds. An index commits about once a minute
#: (https://docs.coveo.com/en/32/); only then can searches find the item.
DEFAULT_SETTLE_SECONDS: Final = 60.0
#: How long the logs must have had no new entries, in seconds, before the outcome counts as unknown.
DEFAULT_QUIET_SECONDS: Final = 600.0

_LAST_STAGE: Final = "INDEXING"
_ADDS: Final = ("ADD", "ADD_BY_REFERENCE", "UPDATE")
_PASSED: Final = ("COMPLETED", "WARNING")
_NOT_PASSED: Final = ("ERROR", "REJECTED", "SKIPPED")
_MAX_PAGES: Final = 10
#: The maximum number of operations to list one by one: each hundred is a request.
_MAX_LOOKED_UP: Final = _MAX_PAGES * ENTRIES_PER_PAGE


@dataclass(frozen=True)
class Pushed:
    """
    The operations to find in the logs.

    :param source_id: The source.
    :param operations: The number of additions, updates and deletions sent.
    :param started: The time on Coveo's clock before the first was sent, in epoch milliseconds.
    :param repeated: How many of them were sent again although Coveo may already have accepted them.
    :param adds: How many of them are additions and updates, at least.
    :param children: How many of them also delete other items, so that the logs may show several entries for
        each; ``None`` if unknown.
    :param earlier: How many of them an earlier attempt also sent, so that they may still be in the pipeline.
    :param repeated_children: How many of the repeated operations also delete other items.
    :param snapshots: The snapshots with which the pushes compared their input.
    """

    source_id: str
    operations: int
    started: int
    repeated: int = 0
    adds: int = 0
    children: int | None = None
    earlier: int = 0
    repeated_children: int = 0
    snapshots: tuple[str, ...] = ()

    @classmethod
    def read(cls, result: object, source_id: str | None = None) -> Pushed:
        """
        Read the results of push tasks.

        :param result: The result of one push task, or a list of results, such as those of mapped tasks.
        :param source_id: The source that the results must be for.
        :raises CoveoInputError: if it is not the result of a push task, or the results are for several
            sources.
        """
        results = _results(result)
        counted = [_counted(one) for one in results]
        sources = {str(one["source_id"]) for one in results}
        if len(sources) == 1 and source_id and source_id not in sources:
            raise CoveoInputError(
                f"Could not check source {source_id!r}: the result is of source {min(sources)!r}",
                cause="source_id was given for another task, such as in default_args",
                remedy="Omit source_id; if it comes from default_args, pass source_id=None",
            )
        if source_id:
            sources.add(source_id)
        if len(sources) != 1:
            raise CoveoInputError(
                f"The results are for several sources: {', '.join(sorted(sources))}",
                remedy="Use a separate task for each source",
            )
        operations = sum(counted)
        started = [one.get("ordering_id") for one, count in zip(results, counted, strict=True) if count]
        if not all(isinstance(start, int) for start in started):
            raise _no_result(result, "it has no start time")
        known = all("deletes_with_children" in one for one in results)
        return cls(
            validate_source_id(sources.pop()),
            operations,
            min((int(str(start)) for start in started), default=0),
            # 0.1.0 and 0.1.1 did not return this count.
            sum(_number(one, "repeated_items") for one in results),
            sum(max(0, _number(one, "accepted_adds") - _number(one, "replaced")) for one in results),
            sum(_number(one, "deletes_with_children") for one in results) if known else None,
            sum(_number(one, "earlier_items") for one in results),
            sum(_number(one, "repeated_deletes_with_children") for one in results),
            tuple(path for one in results if isinstance(path := one.get("snapshot"), str)),
        )


def _results(result: object) -> list[Mapping[str, object]]:
    if isinstance(result, str):
        result = _rendered(result)
    if isinstance(result, Mapping):
        results = [result]
    elif isinstance(result, Iterable) and not isinstance(result, (str, bytes)):
        results = list(result)
    else:
        raise _no_result(result, "it is not a JSON object")
    if not results or not all(isinstance(one, Mapping) and one.get("source_id") for one in results):
        raise _no_result(result, "it has no source_id")
    return results


def _rendered(text: str) -> object:
    """Parse the text that a template rendered: JSON, or the Python notation for the same data."""
    for read in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return read(text)
    return text


def _counted(result: Mapping[str, object]) -> int:
    if result.get("dry_run") is True:
        return 0
    numbers = [
        number
        for name in ("accepted_adds", "accepted_deletes", "replaced")
        if isinstance(number := result.get(name, 0), int) and number >= 0
    ]
    if not {"accepted_adds", "accepted_deletes"} & result.keys() or len(numbers) < 3:
        raise _no_result(result, "it has no count of accepted items")
    adds, deletes, replaced = numbers
    return max(0, int(adds + deletes - replaced))


def _number(result: Mapping[str, object], name: str) -> int:
    number = result.get(name, 0)
    if not isinstance(number, int) or number < 0:
        raise _no_result(result, f"its {name} is not a valid count")
    return int(number)


def _no_result(result: object, why: str) -> CoveoInputError:
    return CoveoInputError(
        f"{short_repr(result)} is not the result of a push task: {why}",
        remedy="Pass the result of PushItemsOperator, @task.coveo_push or hook.push_items",
    )


def validate_refusals(value: object) -> tuple[str, ...]:
    """
    Return the results that count as rejected.

    :raises CoveoInputError: if one of them is not a result for items that did not pass a stage.
    """
    named = value.split(",") if isinstance(value, str) else value
    wanted = tuple(str(one).strip().upper() for one in named) if isinstance(named, Iterable) else ()
    if not wanted or not set(wanted) <= set(_NOT_PASSED):
        raise CoveoInputError(
            f"Invalid refusals: {short_repr(value)}",
            remedy=f"Pass one or more of {', '.join(_NOT_PASSED)}",
        )
    return wanted


def validate_max_refused(value: object) -> int:
    """
    Return the number of rejected items that are allowed.

    :raises CoveoInputError: if it is not an integer, or below zero.
    """
    number = parse_int(value)
    if number is None or number < 0:
        raise CoveoInputError(
            f"Invalid max_refused: {short_repr(value)}", remedy="Pass an integer, zero or more"
        )
    return number


def validate_on_repeated(value: object) -> str:
    """
    Return what to do if it is unknown whether everything is processed.

    :raises CoveoInputError: if it is neither ``fail`` nor ``warn``.
    """
    if isinstance(value, str) and value.strip().lower() in {"fail", "warn"}:
        return value.strip().lower()
    raise CoveoInputError(f"Invalid on_repeated: {short_repr(value)}", remedy="Use 'fail' or 'warn'")


def validate_settle_seconds(value: object, name: str = "settle_time") -> float:
    """
    Return how long the logs must have shown something, in seconds.

    :param value: The value of the parameter.
    :param name: The name of the parameter. Default ``settle_time``.
    :raises CoveoInputError: if it is not a duration, is below zero, or is longer than the logs can cover.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, str):
        with suppress(ValueError):
            seconds = float(seconds)
    longest = MAX_WINDOW.total_seconds()
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < longest:
        raise CoveoInputError(
            f"Invalid {name}: {short_repr(value)}",
            remedy=f"Pass seconds or a timedelta, from zero to less than {MAX_WINDOW.days} days",
        )
    return float(seconds)


class _Logs(NamedTuple):
    """
    The item logs of a push's source.

    :param organization_id: The organization.
    :param source_id: The source.
    :param ask: Runs a call.
    """

    organization_id: str
    source_id: str
    ask: Ask

    async def counts(self, start: datetime, end: datetime, **narrowed: Sequence[str]) -> LogCounts:
        """Count the entries of a period."""
        return await self.ask(counts_call(self.organization_id, self.source_id, start, end, **narrowed))

    async def page(
        self,
        start: datetime,
        end: datetime,
        page: int = 0,
        *,
        results: Sequence[str],
        operations: Sequence[str],
        tasks: Sequence[str] = (),
        document_id: str | None = None,
    ) -> LogPage:
        """Read a page of the entries of a period."""
        call = page_call(
            self.organization_id,
            self.source_id,
            start,
            end,
            page=page,
            document_id=document_id,
            results=results,
            operations=operations,
            tasks=tasks,
        )
        return await self.ask(call)


@dataclass(frozen=True)
class ItemsIndexedCondition:
    """
    The condition that the pipeline has processed what was pushed.

    :param pushed: The operations to find in the logs.
    :param max_refused: The number of rejected items to allow.
    :param settle_seconds: How long the logs must have shown the operations.
    :param refusals: The results that count as rejected. Items with another result are processed, even if they
        did not pass a stage.
    :param on_repeated: What to do if operations were sent twice, and the logs can't show whether everything
        is processed: ``fail`` or ``warn``.
    :param quiet_seconds: How long the logs must have had no new entries before that.
    """

    pushed: Pushed
    max_refused: int = 0
    settle_seconds: float = DEFAULT_SETTLE_SECONDS
    refusals: tuple[str, ...] = DEFAULT_REFUSALS
    on_repeated: str = "fail"
    quiet_seconds: float = DEFAULT_QUIET_SECONDS

    async def poll(self, organization_id: str, ask: Ask) -> PollResult:
        """
        Count log entries with two requests; read the entries if something was rejected or sent twice.

        :raises ItemsRefusedError: if more items were rejected than allowed.
        :raises IndexingUnknownError: with ``on_repeated="fail"``, if the logs can't show whether everything
            that was sent twice is processed.
        :raises CoveoInputError: if Coveo no longer keeps the logs of the push.
        """
        if not self.pushed.operations:
            return self._seen(0, Counter(), [])
        start, end = self._window(datetime.now(timezone.utc))
        settled = end - timedelta(seconds=self.settle_seconds)
        if settled <= start:
            wait = (start - settled).total_seconds()
            return PollResult(
                False,
                f"The push to source {self.pushed.source_id} began less than settle_time "
                f"({self.settle_seconds:,g} s) ago: the logs are not requested for another {wait:,.0f} s.",
            )
        logs = _Logs(organization_id, self.pushed.source_id, ask)
        passed = await logs.counts(
            start, settled, tasks=[_LAST_STAGE], results=_PASSED, operations=_ADDS + DELETES
        )
        held = await logs.counts(start, end, results=_NOT_PASSED, operations=(*_ADDS, *DELETES, "BATCH_FILE"))
        indexed = sum(passed["results"].values()) - self._of_children(passed, held)
        entries = sum(held["results"].values())
        if held["operations"].get("BATCH_FILE"):
            await self._check_batches(logs, start, end)
        if indexed + entries < self.pushed.operations or self._lacks_additions(passed, held):
            return self._not_through(indexed, entries)
        refused: list[Rejection] = []
        more: Counter[str] = Counter()
        if entries:
            refused, more = await self._read(logs, start, end, held["results"])
            if indexed + count_rejections(refused) + more.total() > self.pushed.operations:
                refused, more = await self._without_those_indexed_after_all(logs, start, end, refused, more)
            if indexed + count_rejections(refused) + more.total() < self.pushed.operations:
                return self._not_through(indexed, count_rejections(refused) + more.total())
        seen = self._seen(indexed, more, refused)
        surplus = _number(seen.result, "repeated") + _number(seen.result, "others")
        if self.pushed.earlier and surplus < self.pushed.earlier + self.pushed.repeated:
            # Operations of an earlier attempt, still in the pipeline, may have the same IDs.
            return await self._if_not_told(logs, start, end, seen)
        if self.pushed.repeated > surplus:
            is_told = await self._all_are_different(logs, start, settled, indexed, refused)
            if not is_told:
                return await self._if_not_told(logs, start, end, seen)
        return seen

    def _of_children(self, *counted: LogCounts) -> int:
        """Return the number of entries for items that were deleted along with other items."""
        if self.pushed.children is None:
            return 0
        told = sum(counts["operations"].get("DELETE_AND_CHILDREN", 0) for counts in counted)
        return max(0, told - self.pushed.children - self.pushed.repeated_children)

    def _lacks_additions(self, *counted: LogCounts) -> bool:
        """Whether the logs show fewer additions than were sent: deletions must not count for them."""
        operations = [counts["operations"] for counts in counted]
        told = sum(counts.get(operation, 0) for counts in operations for operation in _ADDS)
        # Without a facet, additions and deletions can't be distinguished.
        return any(operations) and told < self.pushed.adds

    async def _all_are_different(
        self, logs: _Logs, start: datetime, end: datetime, indexed: int, held: list[Rejection]
    ) -> bool:
        """
        Check whether as many different operations are processed as were pushed.

        If so, the count includes no repeats. If there are too many to list, the answer is unknown. A push
        with an item in two batches has fewer different operations.
        """
        if indexed > _MAX_LOOKED_UP:
            return False
        different = {(rejection.document_id, rejection.operation) for rejection in held}
        for page in range(_MAX_PAGES):
            log_page = await logs.page(
                start, end, page, tasks=[_LAST_STAGE], results=_PASSED, operations=_ADDS + DELETES
            )
            different |= {(str(entry.get("id")), str(entry.get("operation"))) for entry in log_page.entries}
            if not log_page.has_next:
                break
        with_children = sorted(name for name, operation in different if operation == DELETES[1])
        alone = {(name, operation in DELETES) for name, operation in different if operation != DELETES[1]}
        return len(alone) + self._most_with_children(with_children) >= self.pushed.operations

    def _most_with_children(self, names: list[str]) -> int:
        """
        Return how many of the push's deletions with children the entries may stand for.

        :param names: The different items of the entries, sorted: an item that is deleted along with another
            one begins with that one's ID, and directly follows it.
        """
        count, above = 0, None
        for name in names:
            if above is None or not name.startswith(above):
                count, above = count + 1, name
        return count if self.pushed.children is None else min(count, self.pushed.children)

    async def _if_not_told(self, logs: _Logs, start: datetime, end: datetime, seen: PollResult) -> PollResult:
        """Wait until the logs have no new entries; then the outcome is unknown."""
        pushed = self.pushed
        repeated = _number(seen.result, "repeated")
        shows = pushed.operations + repeated + _number(seen.result, "others")
        shown_of_all = (
            f"The logs show {quantity(shows, 'operation')} on source {pushed.source_id}, and the push had "
            f"{pushed.operations:,}, {pushed.repeated + pushed.earlier:,} of them sent twice: it is unknown "
            "whether all of them are processed"
        )
        quiet_since = end - timedelta(seconds=self.quiet_seconds)
        if quiet_since > start:
            lately = await logs.counts(quiet_since, end)
            if not any(lately["results"].values()):
                if pushed.repeated <= repeated:
                    # Nothing of the earlier attempt or of this one is in the pipeline anymore.
                    return seen
                if self.on_repeated != "warn":
                    raise IndexingUnknownError(
                        f"Could not determine if source {pushed.source_id!r} has indexed all items",
                        cause=f"{shown_of_all}, and no new ones came for {self.quiet_seconds:,.0f} s",
                    )
                return PollResult(
                    True,
                    f"{shown_of_all}.",
                    seen.result,
                    " ".join((f"{shown_of_all}.", seen.warning)).strip(),
                )
        return PollResult(False, f"{shown_of_all} yet.")

    def _window(self, now: datetime) -> tuple[datetime, datetime]:
        start = parse_datetime(self.pushed.started)
        if now - start > LOG_RETENTION:
            raise CoveoInputError(
                f"Could not determine the outcome of the push to source {self.pushed.source_id!r}",
                cause=f"it began at {iso(start)}, and Coveo keeps logs for {LOG_RETENTION.days} days",
                remedy="Push again, and run the sensor sooner",
            )
        return start, min(max(now, start), start + MAX_WINDOW)

    async def _read(
        self, logs: _Logs, start: datetime, end: datetime, counted: Mapping[str, int]
    ) -> tuple[list[Rejection], Counter[str]]:
        """Return the rejections that were read, and the number of unread entries by result."""
        found: list[dict[str, object]] = []
        more: Counter[str] = Counter()
        # Read the results that the error lists first, however many others there are.
        for results in (self.refusals, tuple(set(_NOT_PASSED) - set(self.refusals))):
            unread = Counter({result: counted.get(result, 0) for result in results})
            for page in range(_MAX_PAGES if unread.total() else 0):
                log_page = await logs.page(start, end, page, results=results, operations=_ADDS + DELETES)
                found += log_page.entries
                unread -= Counter(str(entry.get("result")) for entry in log_page.entries)
                if not log_page.has_next:
                    break
            else:
                more += unread
        return rejections_of(found, self.refusals), more

    async def _without_those_indexed_after_all(
        self,
        logs: _Logs,
        start: datetime,
        end: datetime,
        refused: list[Rejection],
        more: Counter[str],
    ) -> tuple[list[Rejection], Counter[str]]:
        """
        Remove operations that a later stage completed after all.

        A stage can report an item without stopping it, such as a failed extension that is set to be skipped.
        The logs then show more operations than were pushed. The first few are looked up. If all of those were
        indexed, the others count as indexed too.
        """
        doubtful = [rejection for rejection in refused if rejection.task != _LAST_STAGE]
        looked_up = doubtful[:MAX_NAMED]
        indexed = []
        for rejection in looked_up:
            log_page = await logs.page(
                start,
                end,
                document_id=rejection.document_id,
                tasks=[_LAST_STAGE],
                results=_PASSED,
                operations=DELETES if rejection.key[1] else _ADDS,
            )
            if any(str(entry.get("datetime") or "") >= rejection.at for entry in log_page.entries):
                indexed.append(rejection.key)
        if doubtful and len(indexed) == len(looked_up):
            return [rejection for rejection in refused if rejection.task == _LAST_STAGE], Counter()
        return [rejection for rejection in refused if rejection.key not in indexed], more

    async def _check_batches(self, logs: _Logs, start: datetime, end: datetime) -> None:
        log_page = await logs.page(start, end, results=_NOT_PASSED, operations=["BATCH_FILE"])
        batches = rejections_of(log_page.entries)
        if batches:
            raise ItemsRefusedError(
                f"Coveo rejected whole batches of the push to source {self.pushed.source_id!r}: "
                f"{count_rejections(batches):,}",
                cause="Coveo could not read the uploaded content",
                note="\n" + rejection_table(batches, count_rejections(batches)),
                rejected={"rejected_batches": count_rejections(batches)},
            )

    def _not_through(self, indexed: int, held: int) -> PollResult:
        words = (
            f"Coveo has processed {indexed:,} of {quantity(self.pushed.operations, 'operation')} on source "
            f"{self.pushed.source_id}"
        )
        return PollResult(False, f"{words}; {held:,} more did not pass a stage." if held else f"{words}.")

    def _seen(self, indexed: int, more: Counter[str], held: list[Rejection]) -> PollResult:
        pushed = self.pushed
        refused = [rejection for rejection in held if rejection.result in self.refusals]
        # An operation that was sent twice and rejected twice counts as one rejection.
        twice = min(pushed.repeated, sum(rejection.times - 1 for rejection in refused))
        total = count_rejections(refused) - twice + sum(more[result] for result in self.refusals)
        not_passed = count_rejections(held) - twice + more.total()
        table = rejection_table(refused, total) if total else ""
        of_these = f"{total:,} of {quantity(pushed.operations, 'operation')} on source {pushed.source_id!r}"
        if total > self.max_refused:
            raise ItemsRefusedError(
                f"Coveo accepted the push, but its pipeline rejected {of_these}",
                note="\n" + table,
                rejected={"rejected": total},
            )
        surplus = max(0, indexed + not_passed + twice - pushed.operations)
        repeated = min(surplus, pushed.repeated)
        others = surplus - repeated
        words = (
            f"Coveo has processed the push to source {pushed.source_id}: "
            f"{quantity(pushed.operations, 'operation')}, {total:,} of them rejected."
        )
        if repeated:
            words += f" The logs show {repeated:,} of them twice, because batches were sent again."
        if others:
            words += (
                f" The logs show {others:,} more in that time, but not which operations belong to this push: "
                "somebody else is pushing to the source."
            )
        result = {
            "source_id": pushed.source_id,
            "operations": pushed.operations,
            "indexed": max(0, pushed.operations - not_passed),
            "refused": total,
            "skipped": not_passed - total,
            "repeated": repeated,
            "others": others,
        }
        return PollResult(True, words, result, f"Coveo rejected {of_these}:\n{table}" if total else "")
