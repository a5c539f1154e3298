"""One stepped Airflow for all of its tests, in a process that Airflow isn't imported in yet."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.stepped.engine import Engine

IS_AIRFLOW_3 = not version("apache-airflow").startswith("2.")


@pytest.fixture(scope="session")
def airflow() -> Engine:
    if not IS_AIRFLOW_3:
        pytest.skip("the harness steps Airflow 3, whose tasks ask for everything through its execution API")
    if "airflow.settings" in sys.modules:
        pytest.skip("Airflow is imported already: play these tests by themselves (make test-stepped)")
    from tests.stepped.airflow_home import make_home

    make_home()
    from tests.stepped.explore import make_engine

    return make_engine()


@pytest.fixture
def engine(airflow: Engine) -> Engine:
    airflow.reset()
    return airflow
