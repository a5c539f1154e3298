"""
Counters of the traffic with Coveo, in Airflow's own metrics.

============================ ===================================================== =======================
Counter                      Counts                                                Tags
============================ ===================================================== =======================
``coveo.requests``           requests sent; each attempt counts                    ``status``
``coveo.requests.<status>``  the same, by HTTP status of the response; without a   none
                             response, by name of the error (``NoAnswerError``)
``coveo.retries``            retries, after 429, 5xx or no response                ``error``
``coveo.items_accepted``     items that Coveo accepted, except those in batches    ``source_id``
                             that an earlier attempt got accepted
``coveo.deletions_accepted`` deletions by ID, likewise                             ``source_id``
``coveo.bytes``              bytes that Coveo accepted: JSON, and large content    ``source_id``
                             uploaded into its own container
============================ ===================================================== =======================

They go wherever ``[metrics]`` sends Airflow's metrics: StatsD, Datadog or OpenTelemetry. Plain StatsD has no
tags, so they are left out. If metrics are off, no metrics code is loaded.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

from airflow.providers.common.compat.sdk import conf

from airflow_provider_coveo.coveo.batches import ADD, DELETE

_SWITCHES: Final = ("statsd_on", "statsd_datadog_enabled", "otel_on")


def count_request(outcome: object) -> None:
    """
    Count a request.

    :param outcome: The HTTP status of the response, or the name of the error if there is none.
    """
    _count("coveo.requests", status=outcome)
    _count(f"coveo.requests.{outcome}")


def count_retry(error: BaseException) -> None:
    """Count a retry of a request."""
    _count("coveo.retries", error=type(error).__name__)


def count_accepted(source_id: str, counts: Mapping[str, int], size: int) -> None:
    """
    Count a batch that Coveo accepted.

    :param source_id: The source.
    :param counts: The number of its entries, by section.
    :param size: Its size in bytes.
    """
    _count("coveo.items_accepted", counts.get(ADD, 0), source_id=source_id)
    _count("coveo.deletions_accepted", counts.get(DELETE, 0), source_id=source_id)
    _count("coveo.bytes", size, source_id=source_id)


def _count(name: str, count: int = 1, **tags: object) -> None:
    stats = _stats()
    if stats is not None and count:
        stats.incr(name, count, tags={tag: str(value) for tag, value in tags.items()})


@functools.cache
def _stats() -> Any:
    """Return Airflow's metrics, or ``None`` if they are off."""
    if not any(conf.getboolean("metrics", switch, fallback=False) for switch in _SWITCHES):
        return None
    from airflow.providers.common.compat.sdk import Stats

    return Stats
