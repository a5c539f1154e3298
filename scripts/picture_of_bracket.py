"""Take the README's picture: the bracket's graph in a real Airflow's UI, after a run whose push failed.

    make pictures

It needs Airflow 3.
"""

from __future__ import annotations

import sys
from pathlib import Path

from local_airflow import LocalAirflow
from local_chromium import chromium

from airflow_provider_coveo.simulator import Simulator

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "pictures" / "bracket-graph.png"
DAG_ID = "coveo_full_rebuild"
GROUP_ID = "rebuild"


def main() -> int:
    with Simulator(organization="acme", sources=["acme-products"]) as coveo:
        env = {"AIRFLOW_CONN_COVEO_DEFAULT": coveo.connection_json()}
        with LocalAirflow(ROOT / "dags_examples", env=env) as airflow:
            run_id = airflow.trigger(DAG_ID, {"fail": True})
            state = airflow.wait_for_run(DAG_ID, run_id)
            take_picture(f"{airflow.url}/dags/{DAG_ID}/runs/{run_id}")
    print(f"{PICTURE.relative_to(ROOT)}: the run is {state}")
    return 0


def take_picture(url: str) -> None:
    # What the UI remembers in the browser: to show the graph, left to right, with the bracket unfolded.
    remembered = {
        f"dag_view-{DAG_ID}": '"graph"',
        "default_dag_view": '"graph"',
        f"{DAG_ID}/open-groups": f'["{GROUP_ID}"]',
        f"direction-{DAG_ID}": '"RIGHT"',
    }
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1700, "height": 480}, color_scheme="light")
        page.goto(url)
        for key, value in remembered.items():
            page.evaluate("([key, value]) => localStorage.setItem(key, value)", [key, value])
        page.goto(url)
        graph = page.locator(".react-flow")
        graph.wait_for(timeout=60_000)
        page.get_by_text("outcome").first.wait_for(timeout=60_000)
        controls = ".react-flow__minimap, .react-flow__controls, .react-flow__panel"
        page.add_style_tag(content=f"{controls} {{ display: none !important }}")
        PICTURE.parent.mkdir(parents=True, exist_ok=True)
        graph.screenshot(path=PICTURE)


if __name__ == "__main__":
    sys.exit(main())
