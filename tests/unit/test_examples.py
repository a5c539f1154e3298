from __future__ import annotations

import runpy
import warnings
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import DAG, Param, TaskGroup, task  # noqa: F401 - loaded before

import airflow_provider_coveo.task_groups.coveo_push  # noqa: F401 - what these warn of is Airflow's

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "dags_examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_parsed_without_a_warning(path: Path) -> None:
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        dag = runpy.run_path(str(path))["dag"]
    assert [str(warning.message) for warning in given] == []
    assert dag.dag_id == path.stem
    assert dag.doc_md
    assert dag.max_active_runs == 1
