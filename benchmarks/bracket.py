"""
Measure the cost of a bracket when its DAG is parsed, compared to another commit: time, tasks, edges, imports.

    python benchmarks/bracket.py                        # this checkout only
    git worktree add ../before v0.1.0 && python benchmarks/bracket.py ../before

The two alternate, each in a new process. The ratio is that of the fastest runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
TURNS = 3
#: The code of each process. It builds, validates and serializes a DAG, as the DAG processor does.
CODE = """
import json, sys, time, warnings
from datetime import datetime
began = time.process_time()
from airflow.providers.common.compat.sdk import DAG, BaseOperator
imported = time.process_time()
from airflow_provider_coveo.task_groups.coveo_push import push_source_update
ours = time.process_time()
try:
    from airflow.serialization.serialized_objects import DagSerialization
except ImportError:
    from airflow.serialization.serialized_objects import SerializedDAG as DagSerialization

def build(members):
    with DAG(f"d{members}", start_date=datetime(2025, 1, 1), schedule=None, max_active_runs=1) as dag:
        with push_source_update(source_id="s", delete_old_items=True) as update:
            for number in range(members):
                BaseOperator(task_id=f"work{number}")
        update >> BaseOperator(task_id="after")
    dag.validate()
    DagSerialization.to_dict(dag)
    return dag

found = {"import of ours (s)": ours - imported}
for members in (1, 10, 100):
    dag = build(members)
    times = []
    for _ in range(5):
        before = time.process_time()
        build(members)
        times.append(time.process_time() - before)
    found[f"parse, {members} tasks inside (ms)"] = min(times) * 1000
    found[f"tasks of the DAG, {members} inside"] = len(dag.tasks)
    found[f"edges, {members} inside"] = sum(len(task.downstream_task_ids) for task in dag.tasks)
print(json.dumps(found))
"""


def measure(checkout: Path, home: str) -> dict[str, float]:
    """Measure a checkout in a new process."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "AIRFLOW_HOME": home}
    printed = subprocess.check_output(
        [sys.executable, "-W", "ignore", "-c", CODE], env=environment, text=True
    )
    found: dict[str, float] = json.loads(printed.splitlines()[-1])
    return found


def main() -> None:
    """Measure both alternately, and print the fastest runs and their ratio."""
    checkouts = [HERE, *(Path(path).resolve() for path in sys.argv[1:2])]
    best: list[dict[str, Any]] = [{} for _ in checkouts]
    with tempfile.TemporaryDirectory() as home:
        for _ in range(TURNS):
            for checkout, quickest in zip(checkouts, best, strict=True):
                for name, value in measure(checkout, home).items():
                    quickest[name] = min(value, quickest.get(name, value))
    for name, value in best[0].items():
        before = best[1].get(name) if len(best) > 1 else None
        print(
            f"{name:34} {value:9.3f}"
            + (f"   before {before:9.3f}   x {value / before:.2f}" if before else "")
        )


if __name__ == "__main__":
    main()
