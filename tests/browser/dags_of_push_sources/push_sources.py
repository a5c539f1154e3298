"""DAGs with sources for the page Push sources."""

from __future__ import annotations

import time
from datetime import datetime

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_coveo.assets.coveo_push import push_source_asset
from airflow_provider_coveo.operators.coveo_push import PushItemsOperator, SetPushSourceStatusOperator
from airflow_provider_coveo.sensors.coveo_push import PushedItemsIndexedSensor
from airflow_provider_coveo.task_groups.coveo_push import push_source_update

OPTIONS = {"schedule": None, "start_date": datetime(2025, 1, 1), "max_active_runs": 1}
ITEMS = [{"documentId": f"product://{number}", "title": f"{number}", "data": "x"} for number in range(3)]


@task
def wait_for_the_word(source):
    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

    while "go on" not in str(CoveoPushHook().get_source(source)["name"]):
        time.sleep(0.3)


for source in ("catalog", "paused"):
    with DAG(f"update_{source}", **OPTIONS), push_source_update(source_id=source, status="REBUILD"):
        push = PushItemsOperator(
            task_id="push", source_id=source, items=[*ITEMS, {"documentId": "no uri"}], on_invalid="skip"
        )
        push >> wait_for_the_word(source) >> PushItemsOperator(task_id="more", source_id=source, items=ITEMS)

with DAG("left_active", **OPTIONS):
    SetPushSourceStatusOperator(task_id="rebuild", source_id="left", status="REFRESH")

with DAG("fails", **OPTIONS), push_source_update(source_id="failing", status="INCREMENTAL"):
    PushItemsOperator(task_id="push", source_id="failing", items=[*ITEMS, {"documentId": "no uri"}])

with DAG("rejected_by_indexing", **OPTIONS):
    outlets = [push_source_asset(source_id="odd", organization_id="acme")]
    push = PushItemsOperator(task_id="push", source_id="odd", items=ITEMS, outlets=outlets)
    how = {"max_refused": 1, "poke_interval": 1, "settle_time": 0, "deferrable": False}
    PushedItemsIndexedSensor(task_id="wait", result=push.output, outlets=outlets, **how)
