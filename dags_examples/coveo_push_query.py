"""
Push the rows of a database query as a stream: a table of any size needs only the memory of a few batches.

It needs a connection `catalog_db` to a database with a table `product`, the extra `[sql]`, and the provider
of the database, such as `apache-airflow-providers-postgres`.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_provider_coveo.operators.coveo_push import SqlToCoveoPushOperator
from airflow_provider_coveo.task_groups.coveo_push import push_source_update

with DAG(
    dag_id="coveo_push_query",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2025, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1)},
    params={"source_id": Param("acme-products", type="string", description="The ID of the Push source")},
    tags=["coveo"],
) as dag:
    with push_source_update(source_id="{{ params.source_id }}", status="REBUILD", delete_old_items=True):
        # [START push_query]
        SqlToCoveoPushOperator(
            task_id="push_rows",
            source_id="{{ params.source_id }}",
            sql_conn_id="catalog_db",
            # A retry can resume where the task failed only if the rows have an order.
            sql="SELECT sku, name, price, updated FROM product ORDER BY sku",
            columns={
                "documentId": "product://{sku}",
                "title": "name",
                "data": "The famous {name}.",
                "price": "price",
                "date": "updated",
            },
        )
        # [END push_query]
