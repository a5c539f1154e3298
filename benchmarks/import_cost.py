"""
Measure what a DAG file and a task pay for importing the provider, compared to Airflow's HTTP operator.

Airflow parses DAG files often, so each parse pays for the imports of an operator module. A task also imports
the hook. Each figure is the median CPU time of several new interpreters, which alternate. They load
``airflow.sdk`` (Airflow 2: its base operator) first, as every DAG file does, and HTTP libraries, if it is the
hook that is measured.

    python benchmarks/import_cost.py [--runs 5] [--against COMMIT]

With COMMIT, an older version, that version is measured as well. It is checked out into a temporary worktree.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.unused_features import ROOT, checked_out

_MODULES = (
    "airflow_provider_coveo.operators.coveo_push",
    "airflow_provider_coveo.sensors.coveo_push",
    "airflow_provider_coveo.task_groups.coveo_push",
    "airflow_provider_coveo.hooks.coveo_push",
    "airflow.providers.http.operators.http",
)

_MEASURE = """
import sys, time
tree, module = sys.argv[1:]
sys.path.insert(0, tree)
from airflow.providers.common.compat.sdk import DAG, BaseOperator, BaseSensorOperator, TaskGroup
if ".hooks." in module:
    from airflow.providers.http.hooks.http import HttpHook
before, started = set(sys.modules), time.process_time()
__import__(module)
print(time.process_time() - started, len(set(sys.modules) - before))
import airflow_provider_coveo
assert airflow_provider_coveo.__file__.startswith(tree), airflow_provider_coveo.__file__
"""


def measure(tree: Path, module: str) -> tuple[float, int]:
    """Return the CPU seconds of importing a version's ``module``, and the number of loaded modules."""
    command = [sys.executable, "-c", _MEASURE, str(tree), module]
    # Installed packages are compiled, too.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    seconds, modules = done.stdout.splitlines()[-1].split()
    return float(seconds), int(modules)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--against", metavar="COMMIT")
    options = parser.parse_args()
    with ExitStack() as stack:
        trees = {"this version": ROOT}
        if options.against:
            trees[options.against] = stack.enter_context(checked_out(options.against))
        seconds: dict[tuple[str, str], list[float]] = {}
        modules: dict[tuple[str, str], int] = {}
        # The first round only compiles the modules.
        for number in range(options.runs + 1):
            for module in _MODULES:
                for version, tree in trees.items():
                    taken, modules[module, version] = measure(tree, module)
                    if number:
                        seconds.setdefault((module, version), []).append(taken)
    print(f"{'module':48} {'version':>14} {'CPU ms':>8} {'modules':>8}")
    for (module, version), taken in seconds.items():
        median = 1000 * statistics.median(taken)
        print(f"{module:48} {version:>14} {median:8.1f} {modules[module, version]:8d}")


if __name__ == "__main__":
    main()
