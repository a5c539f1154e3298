"""
Measure the cost of importing the operators into a DAG file, compared to Airflow's HTTP operator.

Airflow parses DAG files often, so each parse pays for the imports of an operator module. Each figure is the
median of several new interpreters, which alternate. They load ``airflow.sdk`` (Airflow 2: its base operator)
first, as every DAG file does.

    python benchmarks/import_cost.py [RUNS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys

_MODULES = (
    "airflow_provider_coveo.operators.coveo_push",
    "airflow_provider_coveo.sensors.coveo_push",
    "airflow_provider_coveo.task_groups.coveo_push",
    "airflow.providers.http.operators.http",
)

_MEASURE = """
import sys, time
from airflow.providers.common.compat.sdk import DAG, BaseOperator, TaskGroup
before, started = set(sys.modules), time.perf_counter()
__import__({module!r})
print(time.perf_counter() - started, len(set(sys.modules) - before))
"""


def measure(module: str) -> tuple[float, int]:
    """Return the seconds of importing ``module``, and the number of modules that this loads."""
    script = _MEASURE.format(module=module)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    seconds, modules = done.stdout.splitlines()[-1].split()
    return float(seconds), int(modules)


def main() -> None:
    """Print the table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    seconds: dict[str, list[float]] = {module: [] for module in _MODULES}
    modules: dict[str, int] = {}
    for _ in range(runs):
        for module in _MODULES:
            taken, modules[module] = measure(module)
            seconds[module].append(taken)
    reference = statistics.median(seconds[_MODULES[-1]])
    print(f"{'module':48} {'ms':>8} {'modules':>8} {'ratio':>7}")
    for module in _MODULES:
        median = statistics.median(seconds[module])
        print(f"{module:48} {median * 1000:8.1f} {modules[module]:8d} {median / reference:7.3f}")


if __name__ == "__main__":
    main()
