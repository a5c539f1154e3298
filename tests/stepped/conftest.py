"""One stepped Airflow for all tests here, in a process that has not imported Airflow yet."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.stepped.engine import Engine

#: It uses internals of Airflow from 3.3 on; earlier versions are tested only with a real scheduler.
IS_STEPPED = tuple(map(int, version("apache-airflow").split(".")[:2])) >= (3, 3)


@pytest.fixture(scope="session")
def airflow() -> Engine:
    if not IS_STEPPED:
        pytest.skip("the harness steps Airflow from 3.3 on, by its execution API and its supervisor")
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
