"""One real Airflow and one simulated Coveo for all tests here, started by the first one that asks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_airflow import LocalAirflow

from airflow_provider_coveo.simulator import Simulator

EXAMPLES = Path(__file__).resolve().parents[2] / "dags_examples"


@pytest.fixture(scope="session")
def coveo_server() -> Iterator[Simulator]:
    """The Coveo that the running Airflow talks to. Each test adds a source of its own."""
    with Simulator(organization="acme") as simulator:
        yield simulator


@pytest.fixture(scope="session")
def local_airflow(
    coveo_server: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalAirflow]:
    """The Airflow of this virtualenv, with the examples and what tests write into its DAG folder."""
    dags_folder = tmp_path_factory.mktemp("dags")
    shutil.copytree(EXAMPLES, dags_folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    env = {"AIRFLOW_CONN_COVEO_DEFAULT": coveo_server.connection_json()}
    with LocalAirflow(dags_folder, env=env) as airflow:
        yield airflow
