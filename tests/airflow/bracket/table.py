"""The table of the results of all cells, on each version of Airflow."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from tests.airflow.bracket.driver import Record, differences, line_of, matches

INTRODUCTION = """\
# What the bracket survives

| form | the source stays active after | the run looks like a success after | besides |
| --- | --- | --- | --- |
| two operators, the second with `trigger_rule="all_done"` | a run marked failed or success, a short \
circuit, `dagrun_timeout`, an IDLE that is refused for good | any failed task | after a clear of a task \
it pushes while the source is IDLE |
| two operators as setup and teardown | an opening that dies after its request, a run marked failed \
meanwhile, `dagrun_timeout`, an IDLE that is refused for good | a run marked failed, a closing that \
failed | after a clear of what failed it pushes while the source is IDLE; 2.11 closes early after a \
clear of a task in the middle |
| `push_source_update` | an IDLE that is refused for good | nothing that was tried | a paused DAG closes \
when it goes on |

The last line is what the rest of this page shows; the first two were measured in the same situations, \
on the same versions, when the bracket was designed. What stays active is the watchdog's to close.

Below, each line is a situation, played on a real Airflow (LocalExecutor, PostgreSQL) against the \
simulated Coveo: the statuses in their order with the pushes between them, `IDLE→503` for one that was \
refused, `delete-old` for the deletion of old items, and in parentheses what was done at that moment. \
*Pushes after IDLE* are those of a task that Airflow had not ended yet; how long that takes depends on \
settings, which were lowered (heartbeats once a second, 30 seconds until a lost task is noticed). `make \
test-bracket` plays all of it.

"""
HEAD = ["situation", "what Coveo saw", "run", "source", "pushes after IDLE"]


def write(records: Iterable[Record], version: str) -> None:
    """
    Add the rows of one version to the file ``COVEO_BRACKET_TABLE``, if it is set.

    A JSON file next to it keeps the rows of other lines.
    """
    path = os.environ.get("COVEO_BRACKET_TABLE")
    if not path:
        return
    kept = Path(path).with_suffix(".json")
    rows = json.loads(kept.read_text()) if kept.exists() else {}
    rows = {other: lines for other, lines in rows.items() if line_of(other) != line_of(version)}
    rows[version] = [row(record) for record in records]
    kept.write_text(json.dumps(rows, ensure_ascii=False, indent=1))
    Path(path).write_text(markdown(rows))


def row(record: Record) -> list[str]:
    """Return the table's text for a cell."""
    expected = record.expected
    run = record.run_state()
    if expected.otherwise is not None:
        # The outcome depends on a race in Airflow itself.
        both = " or ".join(sorted({run, expected.run, expected.otherwise.run}, reverse=True))
        expected = expected if run == expected.run else expected.otherwise
        run = both
    as_expected = not record.error and matches(expected.sequence, record.sequence())
    ends = {status or "never opened" for status in record.last_statuses.values()}
    if expected.impossible:
        ends = {f"{end}: {expected.impossible}" for end in ends}
    late = f"{record.late_pushes} within {record.late_seconds:.1f} s" if record.late_pushes else ""
    good = as_expected and not differences(expected, record.tasks)
    return [
        f"{record.cell.id} {record.cell.title}",
        record.sequence() or "(nothing)",
        run + ("" if good else " ⚠"),
        " / ".join(sorted(ends)),
        late,
    ]


def markdown(rows: dict[str, list[list[str]]]) -> str:
    """Return the tables of all versions."""
    parts = [INTRODUCTION]
    for version, lines in sorted(rows.items(), key=lambda item: line_of(item[0]), reverse=True):
        parts += [f"## Airflow {version}", ""]
        parts += ["| " + " | ".join(HEAD) + " |", "|" + " --- |" * len(HEAD)]
        parts += ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
        parts.append("")
    return "\n".join(parts)
