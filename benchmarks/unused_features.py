"""
Measure what a push pays for the features that it does not use.

These are `only_changes`, cursors, rejected items, `dry_run` and `check_fields`.

    python benchmarks/unused_features.py COMMIT [--items 200000] [--runs 5]

COMMIT is an older version, such as the last one without them. It is checked out into a temporary worktree.
Each figure is the median of several new processes of each version, which alternate. A push goes through
`PushItemsOperator`, to a receiver on loopback in another process. CPU time is that of all threads of the
process. Memory is the peak of the imports above that of Airflow, and of the push above that of the imports.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.receiver import Receiver
from benchmarks.worker import run_worker

ROOT = Path(__file__).resolve().parents[1]

#: Runs with one of the versions first in ``sys.path``: the tree, what to do, the receiver's URL and a count.
_WORK = """
import json, os, re, sys, time
tree, kind, url, count = sys.argv[1:]
sys.path.insert(0, tree)
import airflow_provider_coveo
os.environ["AIRFLOW_CONN_COVEO_DEFAULT"] = json.dumps(
    {"conn_type": "coveo", "login": "acme", "password": "key", "host": url}
)
from airflow.providers.common.compat.sdk import DAG, BaseOperator, TaskGroup
from airflow.providers.http.hooks.http import HttpHook
of_airflow = set(sys.modules)

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

def items(count):
    text = "dehydrated boulders and a giant rubber band " * 40
    for number in range(count):
        yield {
            "documentId": f"https://shop.example.com/products/{number:08d}", "title": f"Product {number}",
            "data": text, "fileExtension": ".txt", "brand": "ACME", "price": number % 1000, "instock": True,
            "categories": ["tools", "toys"],
        }

def loaded():
    return set(sys.modules)

def measured(work):
    before, modules = peak(), loaded()
    cpu, start = time.process_time(), time.perf_counter()
    work()
    return {
        "CPU ms": (time.process_time() - cpu) * 1000, "wall ms": (time.perf_counter() - start) * 1000,
        "MB": peak() - before, "modules": len(loaded() - modules),
    }

def import_operators():
    import airflow_provider_coveo.operators.coveo_push
    import airflow_provider_coveo.decorators.coveo_push
    import airflow_provider_coveo.task_groups.coveo_push
    airflow_provider_coveo.operators.coveo_push.PushItemsOperator

def import_hook():
    import airflow_provider_coveo.hooks.coveo_push

def push(number):
    operator = airflow_provider_coveo.operators.coveo_push.PushItemsOperator(
        task_id=f"push{number}", source_id="acme-products", items=items(number), check_quota=False
    )
    result = operator.execute({})
    assert result["accepted_adds"] == number, result

if kind == "operators":
    told = measured(import_operators)
elif kind == "hook":
    import_operators()
    told = measured(import_hook)
else:
    import_operators()
    import_hook()
    # One-time imports and reads.
    push(2)
    told = measured(lambda: push(int(count)))
assert airflow_provider_coveo.__file__.startswith(tree), airflow_provider_coveo.__file__
of_features = ("sqlite3", "snapshot", "changes", "cursor", "increments", "rejected", "dry_run", "fields")
told["of these features"] = sorted(
    name for name in loaded() - of_airflow
    if any(each in name for each in of_features)
)
print("RESULT " + json.dumps(told))
"""
_KINDS = {"operators": "import operators", "hook": "import the hook", "push": "push"}


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """
    Check out a commit into a temporary worktree.

    :param commit: The commit.
    """
    git = shutil.which("git")
    assert git is not None, "git is not installed"
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run([git, "-C", ROOT, "worktree", "add", "--quiet", "--detach", tree, commit], check=True)
        try:
            yield tree
        finally:
            subprocess.run([git, "-C", ROOT, "worktree", "remove", "--force", tree], check=True)


def run(tree: Path, kind: str, receiver: Receiver, count: int) -> dict[str, Any]:
    """
    Run one version in a new process.

    :param tree: The version.
    :param kind: ``operators``, ``hook`` or ``push``.
    :param receiver: What pushes are sent to.
    :param count: The number of items.
    """
    receiver.count()
    command = [sys.executable, "-c", _WORK, str(tree), kind, receiver.url, str(count)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    found = run_worker(command, cwd=tree, env=environment)
    return {**found, **(receiver.count() if kind == "push" else {})}


def compare(commit: str, count: int, runs: int) -> None:
    """
    Print the figures of an older version and of this one, and their ratios.

    :param commit: The older version.
    :param count: The number of items.
    :param runs: The number of processes of each version.
    """
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with checked_out(commit) as old, Receiver() as receiver:
        versions = {"old": old, "new": ROOT}
        for number in range(runs):
            for kind in _KINDS:
                # Which version is the first in a pair must make no difference.
                for name in sorted(versions, reverse=bool(number % 2)):
                    found.setdefault((kind, name), []).append(run(versions[name], kind, receiver, count))
    print(f"{'':18} {'':9} {commit[:12]:>12} {'now':>12} {'ratio':>7}")
    for kind, title in _KINDS.items():
        for figure in found[kind, "new"][0]:
            if figure == "of these features":
                continue
            before, after = (
                statistics.median(each[figure] for each in found[kind, name]) for name in ("old", "new")
            )
            ratio = f"{after / before:7.3f}" if before else ""
            print(f"{title:18} {figure:9} {before:12,.1f} {after:12,.1f} {ratio:>7}")
    print("loaded of these features by a push:", *found["push", "new"][0]["of these features"])
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commit")
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    compare(given.commit, given.items, given.runs)


if __name__ == "__main__":
    main()
