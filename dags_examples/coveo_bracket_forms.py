"""
Three forms of the bracket: as a decorator, with `exclusive=True`, and with tasks created elsewhere.

Each of the three updates the source once the one before it is IDLE again.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_coveo.task_groups.coveo_push import ensure_source_open, push_source_update

SOURCE_ID = "{{ params.source_id }}"

with DAG(
    dag_id="coveo_bracket_forms",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2025, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    params={"source_id": Param("acme-products", type="string", description="The ID of the Push source")},
    tags=["coveo"],
) as dag:

    @task
    def push(document_id: str, params: dict[str, Any] | None = None) -> str:
        from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

        assert params is not None
        item = {"documentId": document_id, "title": "Page", "data": "Welcome."}
        CoveoPushHook().add_or_update_item(params["source_id"], item)
        return document_id

    # [START decorator]
    @push_source_update(source_id=SOURCE_ID, status="REFRESH")
    def refresh_pages() -> None:
        push.override(task_id="push_home")("page://home")
        push.override(task_id="push_contact")("page://contact")

    pages = refresh_pages()
    # [END decorator]

    # [START exclusive]
    with push_source_update(
        source_id=SOURCE_ID,
        status="INCREMENTAL",
        group_id="alone",
        # Wait in the triggerer while someone else updates the source.
        exclusive=True,
        exclusive_timeout=timedelta(hours=2),
    ) as alone:
        push.override(task_id="push_news")("page://news")
    # [END exclusive]

    # [START own_wiring]
    with push_source_update(source_id=SOURCE_ID, status="REFRESH", group_id="wired") as wired:
        push.override(task_id="push_first")("page://first")

    @task
    def push_slowly(params: dict[str, Any] | None = None) -> None:
        from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

        assert params is not None
        for number in range(3):
            # During a long task: if the source was closed meanwhile, open it again.
            ensure_source_open()
            item = {"documentId": f"page://slow/{number}", "title": "Page", "data": "Welcome."}
            CoveoPushHook().add_or_update_item(params["source_id"], item)

    # A task from outside joins the bracket once it is wired downstream of `open`.
    wired.open >> push_slowly()
    # [END own_wiring]

    pages >> alone >> wired
