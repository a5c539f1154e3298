"""A push with a connection that was created in Airflow's form."""

from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_coveo.operators.coveo_push import PushItemsOperator

with DAG("from_the_form", schedule=None, start_date=datetime(2025, 1, 1)):
    PushItemsOperator(
        task_id="push",
        source_id="acme-products",
        items=[{"documentId": "product://4711", "data": "The famous Anvil."}],
        coveo_conn_id="coveo_from_the_form",
    )
