"""
OpenLineage metadata of push tasks: the source that they write, the amount, and the inputs.

Airflow's OpenLineage provider (the extra ``[openlineage]``) requests it from a task's operator. Without that
provider, nothing calls this module.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_coveo.assets.coveo_push import source_dataset

if TYPE_CHECKING:
    from airflow.providers.common.compat.openlineage.facet import Dataset, OutputDataset
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.facet_v2 import JobFacet, OutputDatasetFacet, RunFacet

    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

    Lineage: TypeAlias = OperatorLineage[Dataset, JobFacet | RunFacet]

log = logging.getLogger(__name__)

_GLOB_CHARACTERS = re.compile(r"[*?\[]")


class Query(NamedTuple):
    """
    A query that a task reads.

    :param sql: The query.
    :param conn_id: The connection to the database.
    :param hook_params: Further arguments for its hook.
    """

    sql: str
    conn_id: str
    hook_params: Mapping[str, object]


class PushTask(Protocol):
    """A task that pushes to a source."""

    source_id: str

    @property
    def hook(self) -> CoveoPushHook:
        """The hook for the task's connection."""


def lineage_of_push(
    operator: PushTask,
    accepted: Mapping[str, object] | None = None,
    *,
    paths: object = None,
    query: Query | None = None,
) -> Lineage | None:
    """
    Return the lineage of a push, ``None`` if Airflow's OpenLineage provider is missing.

    :param operator: The task's operator.
    :param accepted: The result of the push, if it has one already.
    :param paths: The files that are pushed: one path, or several.
    :param query: The query whose rows are pushed.
    """
    try:
        from airflow.providers.openlineage.extractors import OperatorLineage
    except ImportError:
        return None
    lineage: Lineage = OperatorLineage()
    if query is not None:
        lineage = _lineage_of_query(query)
    elif paths is not None:
        each = paths if isinstance(paths, (list, tuple)) else [paths]
        read = {(dataset.namespace, dataset.name): dataset for dataset in map(_of_path, each)}
        lineage = OperatorLineage(inputs=list(read.values()))
    lineage.outputs = [_output(operator, accepted)]
    return lineage


def _output(operator: PushTask, accepted: Mapping[str, object] | None) -> OutputDataset:
    from airflow.providers.common.compat.openlineage import facet

    dataset = source_dataset(operator.hook.organization_id, operator.source_id)
    facets: dict[str, OutputDatasetFacet] = {}
    if accepted is not None:
        facets["outputStatistics"] = facet.OutputStatisticsOutputDatasetFacet(
            rowCount=_count(accepted["accepted_adds"]), size=_count(accepted["bytes"])
        )
    return facet.OutputDataset(namespace=dataset.namespace, name=dataset.name, outputFacets=facets)


def _count(number: object) -> int | None:
    return number if isinstance(number, int) else None


def _of_path(path: object) -> Dataset:
    """Return the dataset of a path; for a glob, the folder above its first pattern."""
    from airflow.providers.common.compat.openlineage.facet import Dataset

    scheme, separator, rest = str(path).partition("://")
    if not separator or scheme == "file":
        name = str(Path(rest if separator else scheme).absolute())
        return Dataset(namespace="file", name=_above_patterns(name) or "/")
    bucket, _, key = rest.partition("/")
    # The part before an "@" is a connection in Airflow's object storage URLs, or a secret.
    return Dataset(namespace=f"{scheme}://{bucket.rpartition('@')[2]}", name=_above_patterns(key) or "/")


def _above_patterns(path: str) -> str:
    parts = path.split("/")
    for index, part in enumerate(parts):
        if _GLOB_CHARACTERS.search(part):
            return "/".join(parts[:index])
    return path


def _lineage_of_query(query: Query) -> Lineage:
    """Return the tables of a query, or the query itself if its tables are unknown."""
    from airflow.providers.common.compat.openlineage import facet
    from airflow.providers.common.compat.openlineage.utils.sql import get_openlineage_facets_with_sql
    from airflow.providers.openlineage.extractors import OperatorLineage

    job_facets = {"sql": facet.SQLJobFacet(query=query.sql)}
    try:
        hook = BaseHook.get_connection(query.conn_id).get_hook(hook_params=dict(query.hook_params))
        found = get_openlineage_facets_with_sql(
            hook=hook, sql=query.sql, conn_id=query.conn_id, database=getattr(hook, "database", None)
        )
    except Exception as error:
        log.info("OpenLineage could not determine the tables of the query: %s", type(error).__name__)
        found = None
    return OperatorLineage(
        inputs=[] if found is None else found.inputs,
        run_facets={} if found is None else found.run_facets,
        job_facets=job_facets if found is None else {**job_facets, **found.job_facets},
    )
