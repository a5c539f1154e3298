"""
Create the fields that a catalog's metadata needs, then push the catalog.

Coveo keeps metadata only if a field of that name exists. To see what would be created and pushed, run it with
`{"dry_run": true}`: nothing is sent, and the source stays as it is. The key needs the privileges to view and
create fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_coveo.operators.coveo_push import CreateFieldsOperator
from airflow_provider_coveo.task_groups.coveo_push import push_source_update

PRODUCTS: list[dict[str, Any]] = [
    {"sku": "4711", "name": "Anvil", "price": 89.9, "stock": 12, "colors": ["black"]},
    {"sku": "4712", "name": "Rocket skates", "price": 249.0, "stock": 3, "colors": ["red", "blue"]},
]

with DAG(
    dag_id="coveo_create_fields",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2025, 1, 1),
    catchup=False,
    max_active_runs=1,
    # [START default_args]
    default_args={
        "dry_run": "{{ params.dry_run }}",
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
    },
    # [END default_args]
    params={
        "source_id": Param("acme-products", type="string", description="The ID of the Push source"),
        "dry_run": Param(False, type="boolean", description="Send nothing, and log what would be sent"),
    },
    tags=["coveo"],
) as dag:
    # [START create_fields]
    create_fields = CreateFieldsOperator(
        task_id="create_fields",
        fields={
            "price": "DOUBLE",
            "stock": "LONG",
            "colors": {"type": "STRING", "multiValueFacet": True, "description": "Each color"},
        },
    )
    # [END create_fields]
    # [START dry_run]
    with push_source_update(
        source_id="{{ params.source_id }}",
        status="REBUILD",
        delete_old_items=True,
        max_deleted="20%",
        dry_run="{{ params.dry_run }}",
        group_id="rebuild",
    ) as rebuild:

        @task.coveo_push(source_id="{{ params.source_id }}", check_fields="fail")
        def push_products() -> Iterator[dict[str, Any]]:
            for product in PRODUCTS:
                yield {
                    "documentId": f"product://{product['sku']}",
                    "title": product["name"],
                    "data": f"The famous {product['name']}.",
                    "price": product["price"],
                    "stock": product["stock"],
                    "colors": product["colors"],
                }

        push_products()
    # [END dry_run]
    create_fields >> rebuild
