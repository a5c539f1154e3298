"""What the hook tells Airflow's lineage, for tasks that use it from Python code."""

from __future__ import annotations

import sys


def tell_lineage(hook: object, organization_id: str, source_id: str) -> None:
    """
    Name a source as an output of the running task.

    :param hook: The hook that wrote to it.
    :param organization_id: The organization.
    :param source_id: The source.
    """
    # Airflow finds out whether anybody reads lineage by loading all providers, which takes a third of a
    # second, and 2.11 warns where nobody does. Its OpenLineage provider is loaded where somebody does.
    if "airflow.providers.openlineage" not in sys.modules:
        return
    from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector

    get_hook_lineage_collector().add_output_asset(
        context=hook,
        scheme="coveo",
        asset_kwargs={"organization_id": organization_id, "source_id": source_id},
    )
