"""
What is counted of the talk with Coveo, through Airflow's own metrics.

============================ ===================================================== =======================
Counter                      What it counts                                        Tags
============================ ===================================================== =======================
``coveo.requests``           requests that were sent, each attempt for itself      ``status``
``coveo.requests.<status>``  the same, by the HTTP status of the answer, or the    none
                             name of an error without one (``NoAnswerError``)
``coveo.retries``            repetitions, after 429, 5xx or no answer              ``error``
``coveo.items_accepted``     items that Coveo has accepted, without the batches    ``source_id``
                             that an earlier try got accepted
``coveo.deletions_accepted`` deletions by ID, likewise                             ``source_id``
``coveo.bytes``              bytes that were accepted: JSON, and content of a      ``source_id``
                             batch that went by a container of its own
============================ ===================================================== =======================

They go wherever Airflow's metrics go: StatsD, Datadog or OpenTelemetry, as ``[metrics]`` says. Plain StatsD
knows no tags and leaves them out. Where metrics are off, nothing of them is loaded.
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

    :param outcome: The HTTP status of the answer, or the name of an error without one.
    """
    _count("coveo.requests", status=outcome)
    _count(f"coveo.requests.{outcome}")


def count_retry(error: BaseException) -> None:
    """Count that a request is repeated."""
    _count("coveo.retries", error=type(error).__name__)


def count_accepted(source_id: str, counts: Mapping[str, int], size: int) -> None:
    """
    Count a batch that Coveo accepted.

    :param source_id: The source.
    :param counts: How many entries it has, by section.
    :param size: How many bytes it is.
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
    """Return Airflow's metrics, ``None`` where they are off."""
    if not any(conf.getboolean("metrics", switch, fallback=False) for switch in _SWITCHES):
        return None
    from airflow.providers.common.compat.sdk import Stats

    return Stats
