"""Run example DAGs on a real Airflow against a simulated Coveo: a failure, and the three kinds of updates.

One run succeeds and one fails: whatever happens to the pushes, the source is IDLE afterwards, and a failed
push fails the run. Then the demo updates another source in three ways: push everything, push only changes,
and push a single change. The exit code is 0 if all results are as expected. Run it with `make demo`, or `make
demo KEEP=1` to explore both systems afterwards.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

from airflow_client import FINISHED
from local_airflow import LocalAirflow

from airflow_provider_coveo.coveo.statuses import SourceStatus
from airflow_provider_coveo.simulator import Simulator

DAGS_FOLDER = Path(__file__).resolve().parent.parent / "dags_examples"
DAG_ID = "coveo_full_rebuild"
SOURCE_ID = "acme-products"
CATALOG = "acme-catalog"
#: The kinds of updates: the status, the DAG, additions to the run's conf, and the number of items sent.
UPDATES: Sequence[tuple[str, str, Mapping[str, Any], int]] = (
    ("REBUILD", "coveo_push_changes", {"status": "REBUILD"}, 1_000),
    ("REFRESH", "coveo_push_changes", {"status": "REFRESH"}, 10),
    ("INCREMENTAL", "coveo_push_api_increments", {}, 1),
)
RUNS = 2 + len(UPDATES)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", action="store_true", help="keep both running afterwards, until Ctrl-C")
    keep = parser.parse_args(arguments).keep
    # `kill` cleans up like Ctrl-C. A shell's background job ignores Ctrl-C, so its handler is set, too.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        return demonstrate(keep=keep)
    except KeyboardInterrupt:
        say("\nInterrupted.")
        return 130


def demonstrate(*, keep: bool) -> int:
    began = time.monotonic()
    with Simulator(organization="acme", sources=[SOURCE_ID, CATALOG]) as coveo:
        airflow = LocalAirflow(DAGS_FOLDER, env={"AIRFLOW_CONN_COVEO_DEFAULT": coveo.connection_json()})
        say(f"Simulated Coveo listening at {coveo.url}")
        say(f"Starting Airflow {airflow.version}: scheduler, API server and DAG processor ...")
        with airflow:
            say(f"... ready after {time.monotonic() - began:.0f} s.")

            well = follow_run(airflow, coveo, f"Run 1 of {RUNS}: everything succeeds", {})
            after_first = len(coveo.timeline(SOURCE_ID))
            failing = follow_run(airflow, coveo, f"Run 2 of {RUNS}: a push fails on purpose", {"fail": True})

            say(f"\nThe timeline of the source {SOURCE_ID} in Coveo")
            timeline = coveo.timeline(SOURCE_ID)
            for title, events in (("run 1", timeline[:after_first]), ("run 2", timeline[after_first:])):
                for number, (at, line) in enumerate(story(events)):
                    say(f"  {title if number == 0 else '':6}  {clock_time(at)}  {line}")
            say(f"  It now contains {len(coveo.items(SOURCE_ID))} items and is {console_name(timeline)}.")

            problems = list(check(well, failing, coveo.statuses(SOURCE_ID), coveo.items(SOURCE_ID)))
            problems += show_updates(airflow, coveo)
            say("")
            for problem in problems:
                say(f"NOT as expected: {problem}")
            if not problems:
                say(
                    "As expected: only the second run failed, each source is IDLE after each run, and each "
                    "kind of update sent the right items."
                )
            if keep:
                say(f"\nCoveo    {coveo.url}/")
                say(f"Airflow  {airflow.url}/dags/{DAG_ID} (no password)")
                say("Both run until you press Ctrl-C.")
                with suppress(KeyboardInterrupt):
                    signal.pause()
            else:
                say("To explore both afterwards: make demo KEEP=1")
    say(f"Everything is cleaned up. The demo took {time.monotonic() - began:.0f} s.")
    return 1 if problems else 0


def show_updates(airflow: LocalAirflow, coveo: Simulator) -> Iterator[str]:
    """Push a catalog in each of the three ways, print what each sent, and return unexpected results."""
    sent: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="coveo-snapshots-") as snapshots:
        for number, (status, dag_id, conf, expected) in enumerate(UPDATES, 3):
            conf = {"source_id": CATALOG, **conf}
            if dag_id == "coveo_push_changes":
                conf["snapshot_path"] = snapshots
            before = len(coveo.timeline(CATALOG))
            items = "one item" if expected == 1 else f"{expected:,} items"
            title = f"Run {number} of {RUNS}: {status} with {items} to send"
            state = follow_run(airflow, coveo, title, conf, dag_id=dag_id, source_id=CATALOG)
            batches = [event for event in coveo.timeline(CATALOG)[before:] if event["event"] == "batch"]
            sent[status] = sum(event["added"] for event in batches)
            if state != "success":
                yield f"run {number} is {state}, not success"
            if sent[status] != expected:
                yield f"run {number} sent {sent[status]:,} items, not {expected:,}"
    held = len(coveo.items(CATALOG))
    say(f"\nThe items that each kind of update sent to {CATALOG}, which contains {held:,}")
    for status, count in sent.items():
        say(f"  {status:12}{count:6,}")
    if coveo.statuses(CATALOG) != [status for update in UPDATES for status in (update[0], "IDLE")]:
        yield f"the statuses of {CATALOG} were {', '.join(coveo.statuses(CATALOG))}"


def follow_run(
    airflow: LocalAirflow,
    coveo: Simulator,
    title: str,
    conf: Mapping[str, Any],
    *,
    dag_id: str = DAG_ID,
    source_id: str = SOURCE_ID,
) -> str:
    """Trigger a run, print the events on both sides as they happen, and return the run's final state."""
    say(f"\n{title}, conf {json.dumps(conf)}")
    seen_events = len(coveo.timeline(source_id))
    run_id = airflow.trigger(dag_id, conf)
    began = time.monotonic()
    seen_states: dict[str, str] = {}

    def step() -> str | None:
        nonlocal seen_events
        # Read the run's state first, so that no event before it is missed.
        run = airflow.run_state(dag_id, run_id)
        elapsed = f"  {time.monotonic() - began:4.1f} s "
        for event in coveo.timeline(source_id)[seen_events:]:
            seen_events += 1
            say(f"{elapsed} Coveo    {describe(event)}")
        for task, (state, _) in sorted(airflow.task_states(dag_id, run_id).items()):
            if state in ("running", "success", "failed", "skipped", "upstream_failed", "up_for_retry"):
                if seen_states.get(task) != state:
                    say(f"{elapsed} Airflow  {task:26} {state}")
                seen_states[task] = state
        return run if run in FINISHED else None

    state = airflow.wait_until(step, 300, f"run {run_id} is finished")
    say(f"  The run's state: {state}")
    return str(state)


def story(events: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, str]]:
    """Return the time and text of each event, with consecutive pushes combined."""
    for kind, group in groupby(events, key=lambda event: event["event"]):
        same = list(group)
        if kind == "push" and len(same) > 1:
            yield same[0]["at"], f"{len(same)} items pushed"
        else:
            yield from ((event["at"], describe(event)) for event in same)


def describe(event: Mapping[str, Any]) -> str:
    match event["event"]:
        case "status":
            return f"source status {SourceStatus(event['status'])}"
        case "push":
            return f"item {event['document_id']} pushed"
        case "batch":
            return f"a batch of {event['added']} items pushed"
        case "delete_old_items_queued":
            return f"items older than this run will be deleted in {event['queue_delay']} minutes"
        case kind:
            return str(kind).replace("_", " ")


def check(well: str, failing: str, statuses: Sequence[str], items: Mapping[str, Any]) -> Iterator[str]:
    """Return the unexpected results."""
    if well != "success":
        yield f"run 1 is {well}, not success"
    if failing != "failed":
        yield f"run 2 is {failing}, not failed"
    if list(statuses) != ["REBUILD", "IDLE"] * 2:
        yield f"the source's statuses were {', '.join(statuses)}, not REBUILD, IDLE for each of the runs"
    if not items:
        yield "no item was indexed"


def console_name(timeline: Sequence[Mapping[str, Any]]) -> str:
    last = [event["status"] for event in timeline if event["event"] == "status"][-1]
    return str(SourceStatus(last))


def clock_time(milliseconds: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(milliseconds / 1000))


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
