"""A push that sends nothing: it reads, validates and counts the input."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_coveo.coveo.batches import ADD, DELETE, Batch
from airflow_provider_coveo.coveo.invalid_items import InvalidEntries
from airflow_provider_coveo.coveo.items import Entry, InvalidItemError
from airflow_provider_coveo.coveo.quantities import quantity

if TYPE_CHECKING:
    from airflow_provider_coveo.coveo.fields import FieldCheck
    from airflow_provider_coveo.coveo.push_stats import InvalidItems

#: The number of rules of invalid items to count separately, and the length of each in the result.
_MAX_RULES: Final = 20
_MAX_RULE: Final = 200
_OTHER_RULES: Final = "other rules"


class DryRun:
    """
    Counts what a push would send.

    :param names: The result's key for the entries of each section of a batch.
    :param invalid: The handling of invalid items.
    """

    def __init__(self, names: Mapping[str, str], invalid: InvalidItems) -> None:
        self._names = dict(names)
        self._invalid = invalid
        self._found = InvalidEntries()
        self._by_rule: Counter[str] = Counter()
        self._first_end: int | None = None
        self._counts: Counter[str] = Counter()
        self._batches = self._calls = self._bytes = self._replaced = self._children = 0
        self._began = time.monotonic()
        #: Descriptions of everything that would end the push.
        self.problems: list[str] = []

    def skip(self, index: int, error: InvalidItemError) -> bool:
        """
        Count an invalid item, and continue: a dry run finds all of them.

        :param index: Its index in the input.
        :param error: The rule that it breaks.
        """
        self._found.add(index, error)
        rule = error.rule if len(error.rule) <= _MAX_RULE else error.rule[: _MAX_RULE - 1] + "…"
        if rule not in self._by_rule and len(self._by_rule) >= _MAX_RULES:
            rule = _OTHER_RULES
        self._by_rule[rule] += 1
        if not self._invalid.skip(index, error) and self._first_end is None:
            self._first_end = index
        return True

    def read(self, batches: Iterable[Batch]) -> None:
        """
        Read the input to its end.

        :param batches: The batches that the push would send. An exception of the input is raised.
        """
        for batch in batches:
            self._batches += 1
            # A container and the request that names it, and one more container for each large content.
            self._calls += 2 + sum(isinstance(piece, Entry) and bool(piece.large) for piece in batch.pieces)
            self._bytes += batch.size
            self._replaced += batch.replaced
            self._children += batch.children
            self._counts.update(batch.counts)

    def result(
        self, *, check: FieldCheck | None = None, check_fails: bool = False, remaining: int | None = None
    ) -> dict[str, Any]:
        """
        Return the counts of what the push would send, as small JSON.

        :param check: The check for metadata without a field, if any.
        :param check_fails: Whether metadata without a field would end the push.
        :param remaining: The number of items that can still be pushed today, or ``None`` if unknown.
        """
        problems = list(self.problems)
        invalid = quantity(self._found.count, "invalid item")
        if self._first_end is not None:
            problems.append(f"{invalid}; the push would end at item {self._first_end:,}")
        elif self._invalid.ended_push:
            problems.append(f"{invalid}, which is a larger share than max_invalid allows")
        if check is not None and check.count and check_fails:
            problems.append(f"no field for {quantity(check.count, 'metadata key')}")
        adds = self._counts[ADD]
        if remaining is not None and adds > remaining:
            problems.append(
                f"{quantity(remaining, 'item')} can still be pushed today, and the push has {adds:,}"
            )
        known = {} if remaining is None else {"remaining_daily_items": remaining}
        checked = {} if check is None else {"unknown_fields": check.result()}
        return {
            "dry_run": True,
            **{name: self._counts.get(section, 0) for section, name in self._names.items()},
            "replaced": self._replaced,
            **({"deletes_with_children": self._children} if DELETE in self._names else {}),
            "batches": self._batches,
            "calls": self._calls,
            "bytes": self._bytes,
            "seconds": round(time.monotonic() - self._began, 3),
            "invalid": self._found.count,
            "invalid_items": self._found.shown,
            "invalid_by_rule": dict(self._by_rule),
            "problems": problems,
            **known,
            **checked,
        }
