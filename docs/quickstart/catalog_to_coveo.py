from datetime import datetime

from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_coveo.task_groups.coveo_push import push_source_update


@dag(schedule="@daily", start_date=datetime(2025, 1, 1), catchup=False, max_active_runs=1)
def catalog_to_coveo():
    @task.coveo_push(source_id="acme-products")
    def push_catalog():
        for sku, name in [("4711", "Anvil"), ("4712", "Rocket skates")]:
            yield {"documentId": f"product://{sku}", "title": name, "data": f"The famous {name}."}

    with push_source_update(source_id="acme-products", status="REBUILD", delete_old_items=True):
        push_catalog()


catalog_to_coveo()
