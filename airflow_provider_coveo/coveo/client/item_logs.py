"""The item logs, which alone show what became of accepted items."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime

from airflow_provider_coveo.coveo.caller import Caller
from airflow_provider_coveo.coveo.item_logs import ENTRIES_PER_PAGE, LogPage, counts_call, page_call
from airflow_provider_coveo.coveo.responses import JsonObject
from airflow_provider_coveo.coveo.results import LogCounts
from airflow_provider_coveo.coveo.transport import Call


class ItemLogs:
    """
    What the pipeline did with the items of a source.

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
        Count the entries of the item logs of a source: one for each stage that each item went through.

        Coveo keeps them for 14 days, answers for at most 7 days at once, and may take a minute to do so: ask
        rarely. The key needs the privileges to view the organization and all sources. See
        https://docs.coveo.com/en/59/ and https://docs.coveo.com/en/1864/.

        :param source_id: The source.
        :param start: From when: a ``datetime``, ISO 8601, or milliseconds since the epoch.
        :param end: Until when, likewise.
        :param operations: Only these, such as ``ADD``, ``UPDATE`` and ``DELETE``. Default all.
        :param results: Only these: ``COMPLETED``, ``WARNING``, ``ERROR``, ``REJECTED``, ``SKIPPED``. Default
            all.
        :param tasks: Only these stages, such as ``CONSUMING``, ``PROCESSING`` and ``INDEXING``. Default all.
        :return: ``results``, ``tasks``, ``operations`` and ``sourceIds``, each with how many entries there
            are of each kind.
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
        Go through the entries of the item logs of a source, page by page, in Coveo's order.

        Coveo does not document which order that is. A page is asked for when its first entry is. Entries that
        come in meanwhile may move the others from page to page, so choose an ``end`` that is past. For the
        rest see :meth:`count_item_logs`.

        :param source_id: The source.
        :param start: From when: a ``datetime``, ISO 8601, or milliseconds since the epoch.
        :param end: Until when, likewise.
        :param document_id: Only entries of this item. Default all.
        :param document_id_matching: ``EXACT`` (the default), ``PARTIAL`` for any ID that contains it, or
            ``WILDCARD`` with ``*`` and ``?``.
        :param operations: Only these, such as ``ADD``, ``UPDATE`` and ``DELETE``. Default all.
        :param results: Only these: ``COMPLETED``, ``WARNING``, ``ERROR``, ``REJECTED``, ``SKIPPED``. Default
            all.
        :param tasks: Only these stages, such as ``CONSUMING``, ``PROCESSING`` and ``INDEXING``. Default all.
        :param per_page: The number of entries on a page. Default 100.
        :return: The entries as Coveo gives them: ``id``, ``datetime``, ``operation``, ``task``, ``result``,
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
