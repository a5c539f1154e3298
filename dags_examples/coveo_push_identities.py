"""
Update a secured source: first the security identities, then the items whose permissions name them.

Members of the group `warehouse` can see the items. Afterwards, identities that the run did not push again are
disabled, and items that it did not push again are deleted.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_coveo.operators.coveo_push import PushSecurityIdentitiesOperator
from airflow_provider_coveo.task_groups.coveo_push import push_source_update

with DAG(
    dag_id="coveo_push_identities",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2025, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1)},
    params={
        "source_id": Param("acme-stock", type="string", description="The ID of a secured Push source"),
        "provider_id": Param("acme-directory", type="string", description="Its security identity provider"),
    },
    tags=["coveo"],
) as dag:
    with push_source_update(
        source_id="{{ params.source_id }}", status="REBUILD", delete_old_items=True, group_id="rebuild"
    ) as rebuild:
        # [START push_identities]
        push_identities = PushSecurityIdentitiesOperator(
            task_id="push_identities",
            provider_id="{{ params.provider_id }}",
            members=[
                {
                    "identity": {"name": "warehouse", "type": "GROUP"},
                    "members": [{"name": "wile", "type": "USER"}],
                }
            ],
            mappings=[
                {
                    "identity": {"name": "wile", "type": "USER"},
                    "mappings": [
                        {"name": "wile@acme.example", "type": "USER", "provider": "Email Security Provider"}
                    ],
                }
            ],
            delete_old=True,
        )
        # [END push_identities]

        # [START permissions]
        @task.coveo_push(source_id="{{ params.source_id }}")
        def push_stock() -> Iterator[dict[str, Any]]:
            yield {
                "documentId": "stock://4711",
                "title": "Anvils in stock",
                "data": "There are 13 anvils.",
                "permissions": [
                    {
                        "allowAnonymous": False,
                        "allowedPermissions": [{"identity": "warehouse", "identityType": "Group"}],
                    }
                ],
            }

        # [END permissions]
        push_identities >> push_stock()
