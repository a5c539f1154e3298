"""What a push costs to finish that was killed near its end."""

from __future__ import annotations

from benchmarks.resume import measure

ITEMS = 50_000


def test_a_push_that_was_killed_at_nine_tenths_costs_a_tenth_to_finish() -> None:
    killed, resumed = measure(ITEMS, 0.9, 65_536, latency=0.1)
    batches = resumed.result["batches"]
    assert killed.result["batches"] >= 0.9 * batches > 45
    assert resumed.result["accepted_adds"] == ITEMS
    assert resumed.requests == 3 * (batches - resumed.result["resumed_batches"])
    # What the last half second got accepted was not kept yet: five batches, each of which takes 100 ms. On a
    # busy machine it may be a second and more, since what takes a moment to keep is kept less often.
    assert resumed.items <= (0.1 + 14 / batches) * ITEMS
    assert resumed.kept < 2000
