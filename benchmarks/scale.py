"""
Calculate the calls and the time of a rebuild of many items, and which of Coveo's limits it reaches first.

    python benchmarks/scale.py                 # print the tables of docs/scale.md
    python benchmarks/scale.py --write         # write them into it

Nothing is sent. The number of batches comes from this provider's own batching of items of that size; a test
verifies against the simulator that a batch takes two calls. In the second table, tasks push these batches on
a simulated clock that jumps from event to event. They wait like the provider's throttle and its RetryPolicy,
and the simulator's organization counts their calls.

The overhead of workers and network is a guess, see below. It is small compared to the effect of Coveo's
limits.
"""

from __future__ import annotations

import argparse
import functools
import heapq
import itertools
import math
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from airflow_provider_coveo.coveo.batches import DEFAULT_BATCH_BYTES, item_batches
from airflow_provider_coveo.coveo.retries import COUNTED_OVER_SECONDS, RetryPolicy
from airflow_provider_coveo.simulator.clock import Clock
from airflow_provider_coveo.simulator.errors import ApiError
from airflow_provider_coveo.simulator.state import Organization, Settings

#: Guidance of https://docs.coveo.com/en/63/ for batches in a production organization.
SUSTAINED_ITEMS_PER_HOUR = 300_000
BURST_ITEMS_PER_HOUR = 1_000_000
#: The limits of a production organization, from https://docs.coveo.com/en/l62e0540/.
CALLS_PER_DAY = 15_000
CALLS_PER_FIVE_MINUTES = 250

#: Creating a container and submitting it. The upload in between goes to the object storage.
CALLS_PER_BATCH = 2
#: Open, delete old items, close.
CALLS_PER_BRACKET = 3

#: Guesses: the time for Airflow to start a task, for a response, and for an upload.
SECONDS_PER_TASK = 5.0
SECONDS_PER_CALL = 0.25
BYTES_PER_SECOND = 20e6

ITEMS = 50_000_000
ITEMS_PER_SHARD = 500_000
DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "scale.md"
KB, MIB = 1000, 1024 * 1024


def item(number: int, item_bytes: int) -> bytes:
    """Return an item of that size, as a line of JSON."""
    head, tail = b'{"documentId":"a://%012d","data":"' % number, b'"}'
    return head + b"x" * (item_bytes - len(head) - len(tail)) + tail


@functools.cache
def items_per_batch(item_bytes: int, batch_bytes: int) -> int:
    """Return the number of items of a size in a full batch of this provider."""
    endless = (item(number, item_bytes) for number in itertools.count())
    return next(item_batches(endless, batch_bytes, _refused)).entries


def _refused(index: int, error: Exception) -> bool:
    raise error


def batches_of(items: int, item_bytes: int, batch_bytes: int) -> list[int]:
    """Return the number of items in each batch of a push."""
    full = items_per_batch(item_bytes, batch_bytes)
    rest = items % full
    return [full] * (items // full) + ([rest] if rest else [])


def calls_of(items: int, item_bytes: int, batch_bytes: int) -> int:
    """Return the number of Push API calls of one push."""
    return CALLS_PER_BATCH * len(batches_of(items, item_bytes, batch_bytes))


class _ModelClock(Clock):
    """A clock that changes only when it is set."""

    seconds = 0.0

    def elapsed(self) -> float:
        return self.seconds


class _GaveUp(Exception):  # noqa: N818 - it is how a run ends
    """A call was rate-limited for longer than a task retries."""


@dataclass
class Rebuild:
    """
    A rebuild by mapped push tasks in one bracket.

    :param item_bytes: The size of an item as JSON.
    :param batch_bytes: The tasks' ``batch_bytes``.
    :param slots: The slots of the pool.
    :param call_interval: The connection's ``call_interval``.
    :param items: The total number of items.
    :param items_per_shard: The number of items per task.
    """

    item_bytes: int = 2 * KB
    batch_bytes: int = DEFAULT_BATCH_BYTES
    slots: int = 1
    call_interval: float = 0.0
    items: int = ITEMS
    items_per_shard: int = ITEMS_PER_SHARD

    # The results:
    seconds: float = 0.0
    calls: int = 0
    refused: int = 0
    accepted: int = 0
    #: The maximum number of calls in any five minutes, including rate-limited ones.
    fullest_window: int = 0
    calls_of_day: Counter[int] = field(default_factory=Counter)
    items_of_hour: Counter[int] = field(default_factory=Counter)
    stopped_by: str = ""

    def simulate(self) -> Rebuild:
        """Run the simulation."""
        self._clock = _ModelClock()
        limit = (CALLS_PER_FIVE_MINUTES, COUNTED_OVER_SECONDS)
        self._organization = Organization("model", self._clock, Settings(call_limit=limit))
        # Without jitter, for reproducible runs.
        self._policy = RetryPolicy(first_wait=0)
        self._window: deque[float] = deque()
        shards = iter(self._shards())
        slots = [self._slot(shards) for _ in range(self.slots)]
        due = [(0.0, number) for number in range(self.slots)]
        while due:
            self._clock.seconds, number = heapq.heappop(due)
            try:
                wait = next(slots[number])
            except StopIteration:
                continue
            except _GaveUp as gave_up:
                self.stopped_by = str(gave_up)
                break
            heapq.heappush(due, (self._clock.seconds + wait, number))
        self.seconds = self._clock.seconds
        self.calls += CALLS_PER_BRACKET
        return self

    def _shards(self) -> Iterator[list[int]]:
        left = self.items
        while left > 0:
            size = min(left, self.items_per_shard)
            yield batches_of(size, self.item_bytes, self.batch_bytes)
            left -= size

    def _slot(self, shards: Iterator[list[int]]) -> Iterator[float]:
        """Yield the durations of the steps of the tasks in one slot."""
        for batches in shards:
            yield SECONDS_PER_TASK
            for items in batches:
                yield from self._call()
                yield items * self.item_bytes / BYTES_PER_SECOND
                yield from self._call()
                self.accepted += items
                self.items_of_hour[int(self._clock.seconds // 3600)] += items

    def _call(self) -> Iterator[float]:
        yield self.call_interval
        began, attempt = self._clock.seconds, 0
        while True:
            attempt += 1
            self._arrived()
            if self._is_taken():
                yield SECONDS_PER_CALL
                return
            self.refused += 1
            wait = self._policy.wait(attempt, None, refused=True)
            if self._clock.seconds + wait - began >= self._policy.total_seconds:
                raise _GaveUp("the calls of a day" if self._is_day_used_up() else "calls in five minutes")
            yield wait

    def _arrived(self) -> None:
        self.calls += 1
        now = self._clock.seconds
        self._window.append(now)
        while self._window[0] <= now - COUNTED_OVER_SECONDS:
            self._window.popleft()
        self.fullest_window = max(self.fullest_window, len(self._window))

    def _is_day_used_up(self) -> bool:
        return self.calls_of_day[int(self._clock.seconds // 86_400)] >= CALLS_PER_DAY

    def _is_taken(self) -> bool:
        if self._is_day_used_up():
            return False
        try:
            self._organization.count_call()
        except ApiError:
            return False
        self.calls_of_day[int(self._clock.seconds // 86_400)] += 1
        return True


# --- the tables ---


def _size(count: int) -> str:
    if count >= MIB and count % MIB == 0:
        return f"{count // MIB} MiB"
    return f"{count / 1e6:g} MB" if count >= 1e6 else f"{count / KB:g} KB"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def limits_table() -> str:
    """Return the cost of 50 million items by item size, and the limit that is reached first."""
    rows = []
    for item_bytes, batch_bytes in (
        (200, DEFAULT_BATCH_BYTES),
        (2 * KB, DEFAULT_BATCH_BYTES),
        (10 * KB, DEFAULT_BATCH_BYTES),
        (50 * KB, DEFAULT_BATCH_BYTES),
        (50 * KB, 64 * MIB),
        (200 * KB, 64 * MIB),
        (200 * KB, 240 * MIB),
    ):
        calls = calls_of(ITEMS, item_bytes, batch_bytes) + CALLS_PER_BRACKET
        per_batch = items_per_batch(item_bytes, batch_bytes)
        by_items = ITEMS / SUSTAINED_ITEMS_PER_HOUR / 24
        by_calls = calls / CALLS_PER_DAY
        a_day = CALLS_PER_BATCH * SUSTAINED_ITEMS_PER_HOUR * 24 / per_batch
        rows.append(
            [
                _size(item_bytes),
                _size(batch_bytes),
                f"{ITEMS * item_bytes / 1e9:,.0f}",
                f"{per_batch:,}",
                f"{calls:,}",
                f"{a_day:,.0f}",
                f"{by_items:.1f}",
                f"{by_calls:.1f}",
                "items an hour" if by_items >= by_calls else "**calls a day**",
            ]
        )
    head = [
        "item", "`batch_bytes`", "GB", "items a batch", "calls",
        "calls a day at 300,000 items an hour", "days by items", "days by calls", "first limit",
    ]  # fmt: skip
    return _table(head, rows)


def interval_for(items_per_hour: int, slots: int, item_bytes: int, batch_bytes: int) -> float:
    """Return the ``call_interval`` with which the tasks of a pool push that many items per hour."""
    per_batch = items_per_batch(item_bytes, batch_bytes)
    return 3600 * slots * per_batch / (CALLS_PER_BATCH * items_per_hour)


def rebuild_table() -> str:
    """Return the results of a rebuild of 50 million items of 2 KB, by its settings."""
    rows = []
    for slots, batch_bytes, items_per_hour in (
        (4, DEFAULT_BATCH_BYTES, None),
        (4, 64 * MIB, None),
        (2, 8 * MIB, BURST_ITEMS_PER_HOUR),
        (1, 8 * MIB, SUSTAINED_ITEMS_PER_HOUR),
        (2, 4 * MIB, SUSTAINED_ITEMS_PER_HOUR),
        (4, 2 * MIB, SUSTAINED_ITEMS_PER_HOUR),
    ):
        interval = 0.0
        if items_per_hour is not None:
            interval = math.ceil(interval_for(items_per_hour, slots, 2 * KB, batch_bytes) * 10) / 10
        run = Rebuild(slots=slots, batch_bytes=batch_bytes, call_interval=interval).simulate()
        busiest_hour = max(run.items_of_hour.values())
        indexed_in = max(run.seconds, run.accepted / SUSTAINED_ITEMS_PER_HOUR * 3600)
        end = f"{run.accepted / 1e6:.1f} million accepted"
        rows.append(
            [
                str(slots),
                _size(batch_bytes),
                f"{interval:g}",
                f"{run.calls:,}",
                f"{run.refused:,}",
                f"{run.fullest_window:,}",
                f"{max(run.calls_of_day.values()):,}",
                f"{busiest_hour:,}",
                f"{run.seconds / 3600:,.1f}",
                f"{indexed_in / 3600:,.0f}",
                f"**stopped by {run.stopped_by}**, {end}" if run.stopped_by else end,
            ]
        )
    head = [
        "slots", "`batch_bytes`", "`call_interval`", "calls", "of them rate-limited", "in the fullest 5 min",
        "on the busiest day", "items in the busiest hour", "hours of pushing", "hours until indexed", "end",
    ]  # fmt: skip
    return _table(head, rows)


TABLES = {"limits": limits_table, "rebuild": rebuild_table}


def with_tables(document: str) -> str:
    """Return the document with updated tables."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, _, rest = document.partition(begin)
        _, _, after = rest.partition(end)
        document = f"{before}{begin}\n{table()}\n\n{end}{after}"
    return document


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write the tables into docs/scale.md")
    if parser.parse_args().write:
        DOCUMENT.write_text(with_tables(DOCUMENT.read_text()))
        return
    for name, table in TABLES.items():
        print(f"{name}\n\n{table()}\n")


if __name__ == "__main__":
    main()
