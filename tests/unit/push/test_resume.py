"""The cost of resuming a push that was killed near its end."""

from __future__ import annotations

from benchmarks.resume import measure

ITEMS = 50_000


def test_a_push_that_was_killed_at_90_percent_sends_the_remaining_10_percent() -> None:
    killed, resumed = measure(ITEMS, 0.9, 65_536, latency=0.1)
    batches = resumed.result["batches"]
    assert killed.result["batches"] >= 0.9 * batches > 45
    assert resumed.result["accepted_adds"] == ITEMS
    assert resumed.requests == 3 * (batches - resumed.result["resumed_batches"])
    # The batches of the last half second were not saved yet: five batches of 100 ms each. On a busy machine,
    # it can be a second or more, because slow saves become less frequent.
    assert resumed.items <= (0.1 + 14 / batches) * ITEMS
    assert resumed.kept < 2000
