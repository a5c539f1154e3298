"""One real Airflow that plays all cells of the bracket suite, and the records of the results."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_airflow import LocalAirflow

from airflow_provider_coveo.simulator import Simulator
from tests.airflow.bracket import table
from tests.airflow.bracket.cells import CELLS
from tests.airflow.bracket.driver import Cell, Lab, Record, describe, line_of
from tests.airflow.conftest import QUICK

DAGS = Path(__file__).parent / "dags"


def chosen_cells() -> list[Cell]:
    """Return the cells to play: ``COVEO_BRACKET`` is ``full``, or the IDs of some cells, or not set."""
    wanted = os.environ.get("COVEO_BRACKET", "")
    if wanted == "full":
        return CELLS
    if wanted:
        return [cell for cell in CELLS if cell.id in wanted.split(",")]
    return [cell for cell in CELLS if cell.representative]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Record]]:
    """What happened in each cell."""
    folder = tmp_path_factory.mktemp("bracket")
    # A copy, so that edits of the file don't remove the DAGs from a running Airflow.
    dags_folder = Path(shutil.copytree(DAGS, folder / "dags", ignore=shutil.ignore_patterns("__pycache__")))
    with Simulator(organization="acme", sources=()) as coveo:
        connection = json.loads(coveo.connection_json())
        (folder / "connections.json").write_text(json.dumps({"coveo_in_secrets": connection}))
        env = {
            "AIRFLOW_CONN_COVEO_DEFAULT": json.dumps(connection),
            "BRACKET_FOLDER": str(folder),
        }
        backend = {
            "backend": "airflow.secrets.local_filesystem.LocalFilesystemBackend",
            "backend_kwargs": json.dumps({"connections_file_path": str(folder / "connections.json")}),
        }
        airflow = LocalAirflow(
            dags_folder,
            env=env,
            config={**QUICK, "core": {"parallelism": 14}, "secrets": backend},
            database="postgres",
            triggerer=True,
        )
        cells = [cell for cell in chosen_cells() if not cell.why_not(line_of(airflow.version))]
        (folder / "cells.json").write_text(describe(cells))
        for cell in cells:
            for source in cell.sources or (cell.id,):
                coveo.add_source(source)
        # Parallel cells would query more than they wait for.
        airflow.poll_interval = 0.7
        with airflow:
            airflow.rest("POST", "/connections", {"connection_id": "coveo_in_database", **connection})
            found = Lab(airflow, coveo, folder).run(cells)
        table.write(found.values(), airflow.version)
        yield found
