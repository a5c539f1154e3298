"""The requests of the item logs, which alone tell what became of accepted items; a part of the hook."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_coveo.coveo.endpoints import checked_source_id
from airflow_provider_coveo.coveo.errors import AccessDeniedError, CoveoError
from airflow_provider_coveo.coveo.item_logs import (
    ANSWER_SECONDS,
    ENTRIES_PER_PAGE,
    checked_matching,
    counts_of_entries,
    log_filters,
    log_window,
    logs_path,
    may_not_view_logs,
    page_of_entries,
)
from airflow_provider_coveo.hooks.answers import (
    CoveoRequests,
    failing_at_once,
    final_errors_fail_at_once,
    json_object,
    unexpected,
)

if TYPE_CHECKING:
    import requests


class ItemLogRequests(CoveoRequests):
    """What the pipeline did with the items of a source."""

    @final_errors_fail_at_once
    def count_item_logs(
        self,
        source_id: str,
        start: datetime | int | str,
        end: datetime | int | str,
        *,
        operations: Iterable[str] = (),
        results: Iterable[str] = (),
        tasks: Iterable[str] = (),
    ) -> dict[str, dict[str, int]]:
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
        :raises CoveoInputError: before anything is sent, if an argument can't be right.
        :raises AccessDeniedError: if the key may not view logs, as a push-only key.
        :raises CoveoError: if Coveo refuses otherwise, or does not answer.
        """
        source_id = checked_source_id(source_id)
        tried = f"Could not count the item logs of source {source_id!r}"
        answer = self._ask_logs(
            tried,
            logs_path(self.organization_id, "facetsStats"),
            log_window(start, end),
            log_filters(source_id, operations=operations, results=results, tasks=tasks),
        )
        counts = counts_of_entries(json_object(answer, tried, "results"))
        if counts is None:
            raise unexpected(answer, tried, "not counts of log entries")
        return counts

    @final_errors_fail_at_once
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
    ) -> Iterator[dict[str, Any]]:
        """
        Go through the entries of the item logs of a source, page by page, the newest first.

        A page is asked for when its first entry is. Entries that come in meanwhile move the others from page
        to page, so choose an ``end`` that is past. For the rest see :meth:`count_item_logs`.

        :param source_id: The source.
        :param start: From when: a ``datetime``, ISO 8601, or milliseconds since the epoch.
        :param end: Until when, likewise.
        :param document_id: Only entries of this item. Default all.
        :param document_id_matching: ``EXACT`` (the default), ``PARTIAL`` for any id that contains it, or
            ``WILDCARD`` with ``*`` and ``?``.
        :param operations: Only these, such as ``ADD``, ``UPDATE`` and ``DELETE``. Default all.
        :param results: Only these: ``COMPLETED``, ``WARNING``, ``ERROR``, ``REJECTED``, ``SKIPPED``. Default
            all.
        :param tasks: Only these stages, such as ``CONSUMING``, ``PROCESSING`` and ``INDEXING``. Default all.
        :param per_page: How many entries a page has. Default 100.
        :return: The entries as Coveo gives them: ``id``, ``datetime``, ``operation``, ``task``, ``result``,
            ``meta``, ``requestId``, ``guid``.
        :raises CoveoInputError: before anything is sent, if an argument can't be right.
        :raises AccessDeniedError: if the key may not view logs, as a push-only key.
        :raises CoveoError: if Coveo refuses otherwise, or does not answer.
        """
        source_id = checked_source_id(source_id)
        query: dict[str, Any] = log_window(start, end)
        if document_id is not None:
            query["documentId"] = document_id
            query["documentIdMatching"] = checked_matching(document_id_matching)
        body = log_filters(source_id, operations=operations, results=results, tasks=tasks)
        return self._entries(source_id, {**query, "perPage": per_page}, body)

    def _entries(
        self, source_id: str, query: Mapping[str, Any], body: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        tried = f"Could not read the item logs of source {source_id!r}"
        for page in itertools.count():
            try:
                answer = self._ask_logs(tried, logs_path(self.organization_id), {**query, "page": page}, body)
                found = page_of_entries(json_object(answer, tried, "documentLogEntries"))
                if found is None:
                    raise unexpected(answer, tried, "not a page of log entries")
            except CoveoError as error:
                raise failing_at_once(error) from None
            entries, goes_on = found
            yield from entries
            if not goes_on:
                return

    def _ask_logs(
        self, tried: str, path: str, query: Mapping[str, Any], body: Mapping[str, Any]
    ) -> requests.Response:
        try:
            return self._request(
                tried,
                "POST",
                path,
                query=query,
                body=json.dumps(body).encode(),
                answer_seconds=ANSWER_SECONDS,
            )
        except AccessDeniedError as error:
            raise may_not_view_logs(error) from None
