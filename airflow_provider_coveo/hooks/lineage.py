"""Reports sources to Airflow's lineage, for tasks that use the hook from Python code."""

from __future__ import annotations

import sys


def tell_lineage(hook: object, organization_id: str, source_id: str) -> None:
    """
    Report a source as an output of the running task.

    :param hook: The hook that wrote to it.
    :param organization_id: The organization.
    :param source_id: The source.
    """
    # To check whether anything reads lineage, Airflow loads all providers, which takes a third of a
    # second; 2.11 also warns if nothing does. If anything does, the OpenLineage provider is already loaded.
    if "airflow.providers.openlineage" not in sys.modules:
        return
    from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector

    get_hook_lineage_collector().add_output_asset(
        context=hook,
        scheme="coveo",
        asset_kwargs={"organization_id": organization_id, "source_id": source_id},
    )
