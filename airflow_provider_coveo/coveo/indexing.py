"""
Waiting until Coveo's pipeline is through with what was pushed.

Coveo accepts a push before it looks at its items, and what becomes of them shows in the item logs only. The
logs have one entry for each stage that an item went through, and no key of the batch that brought it. So what
belongs to a push is told by the source and by the time, and whether all of it is through by counting: those
that the last stage completed, and those that some stage did not let pass.

A batch that was sent again, because no answer told whether Coveo had taken it, may count twice, and an item
that shows twice must not stand for one that is still missing. So all is through for certain if as many
operations show as were sent, repeats included, or if as many different ones show as were pushed. Where the
logs say neither, nothing is concluded before they have been still for a while, and then not that all is well.
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Final

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
    counts_call,
    iso,
    page_call,
    parse_datetime,
)
from airflow_provider_coveo.coveo.rejections import (
    DEFAULT_REFUSALS,
    DELETES,
    MAX_NAMED,
    Rejection,
    count_rejections,
    rejection_table,
    rejections_of,
)
from airflow_provider_coveo.coveo.results import LogCounts
from airflow_provider_coveo.coveo.transport import Ask

#: How long the logs must have shown an item as indexed: an index commits about once a minute
#: (https://docs.coveo.com/en/32/), and only then is the item found.
DEFAULT_SETTLE_SECONDS: Final = 60.0
#: How long the logs must have been still before it counts that they can't tell whether all is through.
DEFAULT_QUIET_SECONDS: Final = 600.0

_LAST_STAGE: Final = "INDEXING"
_ADDS: Final = ("ADD", "ADD_BY_REFERENCE", "UPDATE")
_PASSED: Final = ("COMPLETED", "WARNING")
_NOT_PASSED: Final = ("ERROR", "REJECTED", "SKIPPED")
_MAX_PAGES: Final = 10
#: Of how many operations it is looked up which they are: each hundred is a request.
_MAX_LOOKED_UP: Final = _MAX_PAGES * ENTRIES_PER_PAGE


@dataclass(frozen=True)
class Pushed:
    """
    What is looked for in the logs.

    :param source_id: The source.
    :param operations: How many additions, updates and deletions were sent.
    :param started: Before the first was sent: epoch milliseconds on Coveo's clock.
    :param repeated: How many of them were sent although Coveo may have taken them before.
    :param adds: How many of them are additions and updates, at least.
    :param children: How many of them delete other items as well, of which the logs may tell more than once;
        ``None`` where that is not known.
    :param earlier: How many of them an earlier try sent as well, which may still be in the pipeline.
    :param repeated_children: How many of those that were sent twice delete other items as well.
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
        Read what push tasks returned.

        :param result: What one push task returned, or a list of what several returned, as mapped ones do.
        :param source_id: The source, where the results are not to be trusted with it.
        :raises CoveoInputError: if it is not what a push task returns, or of several sources.
        """
        results = _results(result)
        counted = [_counted(one) for one in results]
        sources = {str(one["source_id"]) for one in results} | ({source_id} if source_id else set())
        if len(sources) != 1:
            raise CoveoInputError(
                f"The push was to several sources: {', '.join(sorted(sources))}",
                remedy="Wait for the items of each source in a task of its own",
            )
        operations = sum(counted)
        started = [one.get("ordering_id") for one, count in zip(results, counted, strict=True) if count]
        if not all(isinstance(start, int) for start in started):
            raise _no_result(result, "it does not say when the push began")
        known = all("deletes_with_children" in one for one in results)
        return cls(
            validate_source_id(sources.pop()),
            operations,
            min((int(str(start)) for start in started), default=0),
            # 0.1.0 and 0.1.1 did not count them.
            sum(_number(one, "repeated_items") for one in results),
            sum(max(0, _number(one, "accepted_adds") - _number(one, "replaced")) for one in results),
            sum(_number(one, "deletes_with_children") for one in results) if known else None,
            sum(_number(one, "earlier_items") for one in results),
            sum(_number(one, "repeated_deletes_with_children") for one in results),
            tuple(one["snapshot"] for one in results if isinstance(one.get("snapshot"), str)),
        )


def _results(result: object) -> list[Mapping[str, Any]]:
    if isinstance(result, str):
        result = _rendered(result)
    if isinstance(result, Mapping):
        results = [result]
    elif isinstance(result, Iterable) and not isinstance(result, (str, bytes)):
        results = list(result)
    else:
        raise _no_result(result, "it is no JSON object")
    if not results or not all(isinstance(one, Mapping) and one.get("source_id") for one in results):
        raise _no_result(result, "it names no source")
    return results


def _rendered(text: str) -> object:
    """Return what a template rendered: JSON, or Python's way to write the same."""
    for read in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return read(text)
    return text


def _counted(result: Mapping[str, Any]) -> int:
    if result.get("dry_run") is True:
        return 0
    numbers = [result.get(name, 0) for name in ("accepted_adds", "accepted_deletes", "replaced")]
    if not {"accepted_adds", "accepted_deletes"} & result.keys() or not all(
        isinstance(number, int) and number >= 0 for number in numbers
    ):
        raise _no_result(result, "it does not say how many items were accepted")
    adds, deletes, replaced = numbers
    return max(0, int(adds + deletes - replaced))


def _number(result: Mapping[str, object], name: str) -> int:
    number = result.get(name, 0)
    if not isinstance(number, int) or number < 0:
        raise _no_result(result, f"its {name} is no number")
    return int(number)


def _no_result(result: object, why: str) -> CoveoInputError:
    return CoveoInputError(
        f"{short_repr(result)} is not what a push task returns: {why}",
        remedy="Give the output of PushItemsOperator, @task.coveo_push or hook.push_items",
    )


def validate_refusals(value: object) -> tuple[str, ...]:
    """
    Return the results that count as refused.

    :raises CoveoInputError: if one is not a result of an item that did not pass a stage.
    """
    named = value.split(",") if isinstance(value, str) else value
    wanted = tuple(str(one).strip().upper() for one in named) if isinstance(named, Iterable) else ()
    if not wanted or not set(wanted) <= set(_NOT_PASSED):
        raise CoveoInputError(
            f"{short_repr(value)} are not results that refuse an item",
            remedy=f"Give some of {', '.join(_NOT_PASSED)}",
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
    Return what is done if it can't be told whether all is through.

    :raises CoveoInputError: if it is neither ``fail`` nor ``warn``.
    """
    if isinstance(value, str) and value.strip().lower() in {"fail", "warn"}:
        return value.strip().lower()
    raise CoveoInputError(f"on_repeated is {short_repr(value)}", remedy="Use 'fail' or 'warn'")


def validate_settle_seconds(value: object, name: str = "settle_time") -> float:
    """
    Return for how long the logs must have shown something.

    :param value: What was given.
    :param name: The parameter. Default ``settle_time``.
    :raises CoveoInputError: if it is no time, below zero, or longer than the logs can show.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, str):
        with suppress(ValueError):
            seconds = float(seconds)
    longest = MAX_WINDOW.total_seconds()
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < longest:
        raise CoveoInputError(
            f"{name} is {short_repr(value)}",
            remedy=f"Give seconds or a timedelta, from zero to less than {MAX_WINDOW.days} days",
        )
    return float(seconds)


@dataclass(frozen=True)
class ItemsIndexedCondition:
    """
    Wait until the pipeline is through with what was pushed.

    :param pushed: What.
    :param max_refused: How many refused items are put up with.
    :param settle_seconds: How long the logs must have shown it.
    :param refusals: The results that count as refused; the others of an item that did not pass count as done.
    :param on_repeated: What to do if some was sent twice, and the logs can't tell whether all is through:
        ``fail`` or ``warn``.
    :param quiet_seconds: How long the logs must have been still before that.
    """

    pushed: Pushed
    max_refused: int = 0
    settle_seconds: float = DEFAULT_SETTLE_SECONDS
    refusals: tuple[str, ...] = DEFAULT_REFUSALS
    on_repeated: str = "fail"
    quiet_seconds: float = DEFAULT_QUIET_SECONDS

    async def poll(self, organization_id: str, ask: Ask) -> PollResult:
        """
        Count in the logs, by two requests; where something was refused or sent twice, read which.

        :raises ItemsRefusedError: if more was refused than is put up with.
        :raises IndexingUnknownError: if the logs can't tell whether all that was sent twice is through, and
            that is to fail.
        :raises CoveoInputError: if the push is longer ago than Coveo keeps logs.
        """
        if not self.pushed.operations:
            return self._seen(0, Counter(), [])
        start, end = self._window(datetime.now(timezone.utc))
        settled = end - timedelta(seconds=self.settle_seconds)
        if settled <= start:
            return PollResult(False, f"The push to source {self.pushed.source_id} has only just begun.")
        passed = await self._counted(
            organization_id,
            ask,
            start,
            settled,
            tasks=[_LAST_STAGE],
            results=_PASSED,
            operations=_ADDS + DELETES,
        )
        held = await self._counted(
            organization_id, ask, start, end, results=_NOT_PASSED, operations=(*_ADDS, *DELETES, "BATCH_FILE")
        )
        indexed = sum(passed["results"].values()) - self._of_children(passed, held)
        entries = sum(held["results"].values())
        if held["operations"].get("BATCH_FILE"):
            await self._check_batches(organization_id, ask, start, end)
        if indexed + entries < self.pushed.operations or self._lacks_additions(passed, held):
            return self._not_through(indexed, entries)
        refused: list[Rejection] = []
        more: Counter[str] = Counter()
        if entries:
            refused, more = await self._read(organization_id, ask, start, end, held["results"])
            if indexed + count_rejections(refused) + more.total() > self.pushed.operations:
                refused, more = await self._without_those_indexed_after_all(
                    organization_id, ask, start, end, refused, more
                )
            if indexed + count_rejections(refused) + more.total() < self.pushed.operations:
                return self._not_through(indexed, count_rejections(refused) + more.total())
        seen = self._seen(indexed, more, refused)
        surplus = seen.result["repeated"] + seen.result["others"]
        if self.pushed.earlier and surplus < self.pushed.earlier + self.pushed.repeated:
            # What an earlier try left in the pipeline may have the same IDs.
            return await self._if_not_told(organization_id, ask, start, end, seen)
        if self.pushed.repeated > surplus:
            is_told = await self._all_are_different(organization_id, ask, start, settled, indexed, refused)
            if not is_told:
                return await self._if_not_told(organization_id, ask, start, end, seen)
        return seen

    def _of_children(self, *counted: LogCounts) -> int:
        """Return how many entries tell of what was deleted along with other items."""
        if self.pushed.children is None:
            return 0
        told = sum(counts["operations"].get("DELETE_AND_CHILDREN", 0) for counts in counted)
        return max(0, told - self.pushed.children - self.pushed.repeated_children)

    def _lacks_additions(self, *counted: LogCounts) -> bool:
        """Whether fewer additions show than were sent, so that deletions must not stand for them."""
        operations = [counts["operations"] for counts in counted]
        told = sum(counts.get(operation, 0) for counts in operations for operation in _ADDS)
        # Without a facet there is nothing to tell them apart by.
        return any(operations) and told < self.pushed.adds

    async def _all_are_different(
        self,
        organization_id: str,
        ask: Ask,
        start: datetime,
        end: datetime,
        indexed: int,
        held: list[Rejection],
    ) -> bool:
        """
        Look up whether as many different operations are through as were pushed.

        Then none shows twice. Where they are too many to be looked up, that is not known. A push that itself
        has an item in two batches has fewer different ones.
        """
        if indexed > _MAX_LOOKED_UP:
            return False
        different = {(rejection.document_id, rejection.operation) for rejection in held}
        for page in range(_MAX_PAGES):
            call = page_call(
                organization_id,
                self.pushed.source_id,
                start,
                end,
                page=page,
                tasks=[_LAST_STAGE],
                results=_PASSED,
                operations=_ADDS + DELETES,
            )
            log_page = await ask(call)
            different |= {(str(entry.get("id")), str(entry.get("operation"))) for entry in log_page.entries}
            if not log_page.has_next:
                break
        with_children = sorted(name for name, operation in different if operation == DELETES[1])
        alone = {(name, operation in DELETES) for name, operation in different if operation != DELETES[1]}
        return len(alone) + self._most_with_children(with_children) >= self.pushed.operations

    def _most_with_children(self, names: list[str]) -> int:
        """
        Return for how many of the push's deletions with children entries may stand.

        :param names: The different items that they name, sorted: what is deleted along with another item
            begins with its ID, and stands right behind it.
        """
        count, above = 0, None
        for name in names:
            if above is None or not name.startswith(above):
                count, above = count + 1, name
        return count if self.pushed.children is None else min(count, self.pushed.children)

    async def _if_not_told(
        self, organization_id: str, ask: Ask, start: datetime, end: datetime, seen: PollResult
    ) -> PollResult:
        """Wait until the logs are still; then it can't be told any more."""
        pushed = self.pushed
        shows = pushed.operations + seen.result["repeated"] + seen.result["others"]
        shown_of_all = (
            f"{shows:,} operations on source {pushed.source_id} show, and {pushed.operations:,} were pushed, "
            f"{pushed.repeated + pushed.earlier:,} of them twice: it can't be told whether all of them are "
            "through"
        )
        quiet_since = end - timedelta(seconds=self.quiet_seconds)
        if quiet_since > start:
            lately = await self._counted(organization_id, ask, quiet_since, end)
            if not any(lately["results"].values()):
                if pushed.repeated <= seen.result["repeated"]:
                    # Nothing of the earlier try, nor of this one, is under way any more.
                    return seen
                if self.on_repeated != "warn":
                    raise IndexingUnknownError(
                        f"Could not tell whether all of the push to source {pushed.source_id!r} is indexed",
                        cause=f"{shown_of_all}, and nothing came for {self.quiet_seconds:,.0f} seconds",
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
                f"What became of the push to source {self.pushed.source_id!r} can't be told any more",
                cause=f"it began at {iso(start)}, and Coveo keeps logs for {LOG_RETENTION.days} days",
                remedy="Push again, and wait for it sooner",
            )
        return start, min(max(now, start), start + MAX_WINDOW)

    async def _counted(
        self, organization_id: str, ask: Ask, start: datetime, end: datetime, **narrowed: Sequence[str]
    ) -> LogCounts:
        call = counts_call(organization_id, self.pushed.source_id, start, end, **narrowed)
        return await ask(call)

    async def _read(
        self, organization_id: str, ask: Ask, start: datetime, end: datetime, counted: Mapping[str, int]
    ) -> tuple[list[Rejection], Counter[str]]:
        """Return what was not let pass, and of the entries that were not read how many have which result."""
        found: list[dict[str, object]] = []
        more: Counter[str] = Counter()
        # Those that are to be named come first, however many others there are.
        for results in (self.refusals, tuple(set(_NOT_PASSED) - set(self.refusals))):
            unread = Counter({result: counted.get(result, 0) for result in results})
            for page in range(_MAX_PAGES if unread.total() else 0):
                call = page_call(
                    organization_id,
                    self.pushed.source_id,
                    start,
                    end,
                    page=page,
                    results=results,
                    operations=_ADDS + DELETES,
                )
                log_page = await ask(call)
                found += log_page.entries
                unread -= Counter(str(entry.get("result")) for entry in log_page.entries)
                if not log_page.has_next:
                    break
            else:
                more += unread
        return rejections_of(found, self.refusals), more

    async def _without_those_indexed_after_all(
        self,
        organization_id: str,
        ask: Ask,
        start: datetime,
        end: datetime,
        refused: list[Rejection],
        more: Counter[str],
    ) -> tuple[list[Rejection], Counter[str]]:
        """
        Leave out what a later stage completed all the same.

        A stage may complain of an item without ending its way, such as an extension that failed and is set
        to be skipped. More operations are told of then than were pushed. The first few are looked up; where
        all of those were indexed, so were the others.
        """
        doubtful = [rejection for rejection in refused if rejection.task != _LAST_STAGE]
        looked_up = doubtful[:MAX_NAMED]
        indexed = []
        for rejection in looked_up:
            call = page_call(
                organization_id,
                self.pushed.source_id,
                start,
                end,
                document_id=rejection.document_id,
                tasks=[_LAST_STAGE],
                results=_PASSED,
                operations=DELETES if rejection.key[1] else _ADDS,
            )
            log_page = await ask(call)
            if any(str(entry.get("datetime") or "") >= rejection.at for entry in log_page.entries):
                indexed.append(rejection.key)
        if doubtful and len(indexed) == len(looked_up):
            return [rejection for rejection in refused if rejection.task == _LAST_STAGE], Counter()
        return [rejection for rejection in refused if rejection.key not in indexed], more

    async def _check_batches(self, organization_id: str, ask: Ask, start: datetime, end: datetime) -> None:
        call = page_call(
            organization_id,
            self.pushed.source_id,
            start,
            end,
            results=_NOT_PASSED,
            operations=["BATCH_FILE"],
        )
        log_page = await ask(call)
        batches = rejections_of(log_page.entries)
        if batches:
            raise ItemsRefusedError(
                f"Whole batches of the push to source {self.pushed.source_id!r} were refused: "
                f"{count_rejections(batches):,}",
                cause="Coveo could not read what was uploaded",
                note="\n" + rejection_table(batches, count_rejections(batches)),
                rejected={"rejected_batches": count_rejections(batches)},
            )

    def _not_through(self, indexed: int, held: int) -> PollResult:
        words = (
            f"{indexed:,} of {self.pushed.operations:,} operations on source {self.pushed.source_id} are "
            f"through"
        )
        return PollResult(False, f"{words}, {held:,} more were not let pass." if held else f"{words}.")

    def _seen(self, indexed: int, more: Counter[str], held: list[Rejection]) -> PollResult:
        pushed = self.pushed
        refused = [rejection for rejection in held if rejection.result in self.refusals]
        # What was refused twice because it was sent twice is refused once.
        twice = min(pushed.repeated, sum(rejection.times - 1 for rejection in refused))
        total = count_rejections(refused) - twice + sum(more[result] for result in self.refusals)
        not_passed = count_rejections(held) - twice + more.total()
        table = rejection_table(refused, total) if total else ""
        of_these = f"{total:,} of {pushed.operations:,} operations on source {pushed.source_id!r}"
        if total > self.max_refused:
            raise ItemsRefusedError(
                f"{of_these} were accepted by Coveo and then refused by its pipeline",
                note="\n" + table,
                rejected={"rejected": total},
            )
        surplus = max(0, indexed + not_passed + twice - pushed.operations)
        repeated = min(surplus, pushed.repeated)
        others = surplus - repeated
        words = (
            f"All {pushed.operations:,} operations on source {pushed.source_id} are through, {total:,} of "
            "them refused."
        )
        if repeated:
            words += f" {repeated:,} of them show twice, because they were sent again."
        if others:
            words += (
                f" The logs tell of {others:,} more in that time, and not which are of this push: somebody "
                "else pushes to the source."
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
        return PollResult(True, words, result, f"{of_these} were refused:\n{table}" if total else "")
