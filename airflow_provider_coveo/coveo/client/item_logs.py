"""The item logs, the only place that shows whether accepted items were indexed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_provider_coveo.coveo.caller import Caller
from airflow_provider_coveo.coveo.item_logs import ENTRIES_PER_PAGE, LogPage, counts_call, page_call
from airflow_provider_coveo.coveo.responses import JsonObject
from airflow_provider_coveo.coveo.transport import Call

if TYPE_CHECKING:
    from airflow_provider_coveo.coveo.results import LogCounts


class ItemLogs:
    """
    The item logs of a source: how the pipeline processed its items.

    :param caller: Makes the requests.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def count_item_logs(
        self,
        source_id: str,
        start: datetime | int | str,
        end: datetime | int | str,
        *,
        operations: Iterable[str] = (),
        results: Iterable[str] = (),
        tasks: Iterable[str] = (),
    ) -> LogCounts:
        """
        Count the entries in a source's item logs. Each item has one entry per pipeline stage.

        Coveo keeps the logs for 14 days. One request covers at most 7 days and can take a minute, so call
        this rarely. The key needs the privileges to view the organization and all sources. See
        https://docs.coveo.com/en/59/ and https://docs.coveo.com/en/1864/.

        :param source_id: The source.
        :param start: The start of the time range: a ``datetime``, ISO 8601, or epoch milliseconds.
        :param end: The end of the time range, in the same formats.
        :param operations: Only these operations, such as ``ADD``, ``UPDATE`` and ``DELETE``. Default all.
        :param results: Only these results: ``COMPLETED``, ``WARNING``, ``ERROR``, ``REJECTED``, ``SKIPPED``.
            Default all.
        :param tasks: Only these stages, such as ``CONSUMING``, ``PROCESSING`` and ``INDEXING``. Default all.
        :return: ``results``, ``tasks``, ``operations`` and ``sourceIds``, each with the number of entries of
            each kind.
        :raises CoveoInputError: before anything is sent, if an argument is invalid.
        :raises AccessDeniedError: if the key lacks the privilege to view logs, like a push-only key.
        :raises CoveoError: if the request fails otherwise.
        """
        call = counts_call(
            self._caller.organization_id,
            source_id,
            start,
            end,
            operations=operations,
            results=results,
            tasks=tasks,
        )
        return self._caller.call(call)

    def list_item_logs(
        self,
        source_id: str,
        start: datetime | int | str,
        end: datetime | int | str,
        *,
        document_id: str | None = None,
        document_id_matching: str = "EXACT",
        operations: Iterable[str] = (),
        results: Iterable[str] = (),
        tasks: Iterable[str] = (),
        per_page: int = ENTRIES_PER_PAGE,
    ) -> Iterator[JsonObject]:
        """
        Iterate over the entries of a source's item logs, page by page, in Coveo's order.

        Coveo does not document that order. A page is requested when its first entry is needed. New entries
        can shift the others between pages, so choose an ``end`` in the past. See also
        :meth:`count_item_logs`.

        :param source_id: The source.
        :param start: The start of the time range: a ``datetime``, ISO 8601, or epoch milliseconds.
        :param end: The end of the time range, in the same formats.
        :param document_id: Only entries for this item. Default: all.
        :param document_id_matching: ``EXACT`` (the default), ``PARTIAL`` for any ID that contains it, or
            ``WILDCARD`` with ``*`` and ``?``.
        :param operations: Only these operations, such as ``ADD``, ``UPDATE`` and ``DELETE``. Default all.
        :param results: Only these results: ``COMPLETED``, ``WARNING``, ``ERROR``, ``REJECTED``, ``SKIPPED``.
            Default all.
        :param tasks: Only these stages, such as ``CONSUMING``, ``PROCESSING`` and ``INDEXING``. Default all.
        :param per_page: The number of entries on a page. Default 100.
        :return: The entries as Coveo returns them: ``id``, ``datetime``, ``operation``, ``task``, ``result``,
            ``meta``, ``requestId``, ``guid``.
        :raises CoveoInputError: before anything is sent, if an argument is invalid.
        :raises AccessDeniedError: if the key lacks the privilege to view logs, like a push-only key.
        :raises CoveoError: if the request fails otherwise.
        """
        first = page_call(
            self._caller.organization_id,
            source_id,
            start,
            end,
            per_page=per_page,
            document_id=document_id,
            document_id_matching=document_id_matching,
            operations=operations,
            results=results,
            tasks=tasks,
        )
        return self._entries(first)

    def _entries(self, first: Call[LogPage]) -> Iterator[JsonObject]:
        for index in itertools.count():
            request = replace(first.request, query={**first.request.query, "page": index})
            page = self._caller.call(replace(first, request=request))
            yield from page.entries
            if not page.has_next:
                return
