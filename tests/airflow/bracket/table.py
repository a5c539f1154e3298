"""The table of the results of all cells, on each version of Airflow."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from tests.airflow.bracket.driver import Record, differences, line_of, matches

INTRODUCTION = """\
# What the bracket survives

| form | the source stays active after | the run looks like a success after | also |
| --- | --- | --- | --- |
| two operators, the second with `trigger_rule="all_done"` | a run marked failed or success, a short \
circuit, `dagrun_timeout`, Coveo rejecting IDLE permanently | any failed task | after a clear, a task \
pushes while the source is IDLE |
| two operators as setup and teardown | the death of the opening task after its request, a run marked \
failed during it, `dagrun_timeout`, Coveo rejecting IDLE permanently | a run marked failed, a failed \
closing task | after a clear of failed tasks, they push while the source is IDLE; on 2.11, the source is \
closed too early after a clear of a task in the middle |
| `push_source_update` | Coveo rejecting IDLE permanently | none of these situations | a paused DAG \
closes the source when it continues |

The rest of this page shows the last row. The first two rows were measured in the same situations, on \
the same versions, when the bracket was designed. The watchdog closes any source left active.

Below, each row is a situation on a real Airflow (LocalExecutor, PostgreSQL) with the simulated Coveo. It \
shows the statuses in order with the pushes between them, `IDLE→503` for a failed one, `delete-old` for \
the deletion of old items, and actions in parentheses. *Pushes after IDLE* are those of a task that \
Airflow had not ended yet. How long that takes depends on settings, which were lowered (heartbeats once a \
second, 30 seconds until a lost task is detected). `make test-bracket` plays all situations.

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
