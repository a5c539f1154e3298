"""A document arrives unchanged, whichever way it was pushed on a real Airflow."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from local_airflow import LocalAirflow

from airflow_provider_coveo.simulator import Simulator
from tests.unit.push.model import indexed

pytestmark = pytest.mark.timeout(900)

#: A text that would change, or fail, if it were rendered.
ID = "{{ds}}/{{params}}"
TYPED = (
    "{{ ds }} {{ undefined.x }} {% raw %} {# note #} {{ '%s' % params }} $x ${y} {z} %(name)s \\n \u2028 '\""
)

DAG_FILE = """
from datetime import datetime
import json

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_coveo.coveo.items import Delete, Item
from airflow_provider_coveo.operators.coveo_push import (
    DeleteItemsOperator, PushItemsOperator, PushSecurityIdentitiesOperator, SqlToCoveoPushOperator,
)

ID, TYPED, FOLDER = {values!r}
default_args = {{"source_id": "typed", "retries": 0}}

def items(name):
    return [{{"documentId": name + "://" + ID, "data": TYPED, "title": TYPED, "{{{{ds}}}}": TYPED}}]

with DAG("typed", schedule=None, start_date=datetime(2025, 1, 1), default_args=default_args):
    @task
    def returned(name):
        return items(name)

    @task
    def text():
        return TYPED

    @task
    def names():
        return [items("mapped-1"), items("mapped-2")]

    @task.coveo_push(source_id="typed")
    def yielded(text):
        yield from items("yielded")
        yield Item("item://" + ID, data=TYPED)
        yield json.dumps(items("bytes")[0]).encode()
        yield {{"documentId": "argument://" + ID, "data": text}}

    @task.coveo_push(source_id="typed")
    def undone():
        yield from items("gone")
        yield Delete("gone://" + ID)

    given = PushItemsOperator(task_id="given", items=[*items("given"), *items("deleted")])
    PushItemsOperator(task_id="pulled", items=returned("pulled"))
    PushItemsOperator.partial(task_id="mapped").expand(items=names())
    for name in ["file.ndjson", "file.json", "file.csv"]:
        PushItemsOperator(task_id=name, path=FOLDER + "/{{{{ params.name }}}}", params={{"name": name}})
    SqlToCoveoPushOperator(task_id="rows", sql_conn_id="shop", sql="SELECT * FROM typed")
    yielded(text())
    undone()
    given >> DeleteItemsOperator(task_id="deleting", document_ids=["deleted://" + ID])
    PushSecurityIdentitiesOperator(
        task_id="identities", provider_id="typed",
        members=[{{"identity": {{"name": TYPED, "type": "USER"}}, "members": [], "wellKnowns": []}}],
    )
"""


def test_braces_in_documents_are_not_rendered(
    local_airflow: LocalAirflow, coveo_server: Simulator, shop: Callable[[str], None], tmp_path: Path
) -> None:
    def an_item(name: str) -> dict[str, str]:
        return {"documentId": f"{name}://{ID}", "data": TYPED}

    (tmp_path / "file.ndjson").write_text(json.dumps(an_item("ndjson")) + "\n")
    (tmp_path / "file.json").write_text(json.dumps([an_item("json")]))
    with (tmp_path / "file.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, ["documentId", "data"])
        rows.writeheader()
        rows.writerow(an_item("csv"))
    row = TYPED.replace("'", "''")
    shop(f"""CREATE TABLE typed AS SELECT 'rows://{ID}' AS "documentId", '{row}' AS data""")
    coveo_server.add_source("typed")
    values = (ID, TYPED, str(tmp_path))
    local_airflow.write_dag("typed.py", DAG_FILE.format(values=values))

    run_id = local_airflow.trigger("typed")
    assert local_airflow.wait_for_run("typed", run_id) == "success"

    names = ["given", "pulled", "mapped-1", "mapped-2", "ndjson", "json", "csv", "rows", "yielded", "item"]
    assert indexed(coveo_server, "typed") == {
        f"{name}://{ID}": TYPED for name in [*names, "bytes", "argument"]
    }
    for item in coveo_server.items("typed").values():
        assert set(item) <= {"documentId", "data", "orderingId", "title", "{{ds}}"}
        assert item.get("title", TYPED) == item.get("{{ds}}", TYPED) == TYPED
    (identity,) = coveo_server.identities("typed")
    assert identity["identity"] == {"name": TYPED, "type": "USER"}
