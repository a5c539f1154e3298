"""The requests that concern sources as a whole; a part of the hook."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Final

from airflow_provider_coveo.coveo.endpoints import checked_source_id, platform_path
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.hooks.answers import (
    CoveoRequests,
    final_errors_fail_at_once,
    json_object,
    unexpected,
)

_SOURCES_PER_PAGE: Final = 100


class SourceRequests(CoveoRequests):
    """The sources of an organization: to look at them, and to make, copy and delete them."""

    @final_errors_fail_at_once
    def get_source(self, source_id: str) -> dict[str, Any]:
        """
        Return what Coveo knows of a source: its configuration, and its status under ``information``.

        :param source_id: The source.
        :raises AccessDeniedError: if the key may not view sources, as a push-only key.
        :raises CoveoError: if Coveo refuses otherwise, or does not answer.
        """
        source_id = checked_source_id(source_id)
        tried = f"Could not read source {source_id!r}"
        answer = self._request(
            tried, "GET", platform_path(self.organization_id, "sources", source_id), platform_api=True
        )
        return json_object(answer, tried, "id")

    @final_errors_fail_at_once
    def list_sources(self) -> list[dict[str, Any]]:
        """
        Return the organization's Push sources, as :meth:`get_source` does each.

        :raises AccessDeniedError: if the key may not view sources, as a push-only key.
        :raises CoveoError: if Coveo refuses otherwise, or does not answer.
        """
        return list(self._push_sources())

    def _push_sources(self) -> Iterator[dict[str, Any]]:
        for page in itertools.count():
            answer = self._sources_page(page, _SOURCES_PER_PAGE)
            yield from answer["sourceModels"]
            if not answer["sourceModels"] or page + 1 >= answer.get("totalPages", 0):
                return

    def _sources_page(
        self, page: int, per_page: int, *, base: str | None = None, retry: RetryPolicy | None = None
    ) -> dict[str, Any]:
        tried = f"Could not list the Push sources of organization {self.organization_id!r}"
        answer = self._request(
            tried,
            "GET",
            platform_path(self.organization_id, "sources", "pages"),
            platform_api=True,
            query={"page": page, "perPage": per_page, "filterHostType": "PUSH"},
            base=base,
            retry=retry,
        )
        found = json_object(answer, tried, "sourceModels")
        models, counts = found["sourceModels"], [found.get(key, 0) for key in ("totalPages", "totalEntries")]
        if (
            isinstance(models, list)
            and all(isinstance(model, dict) for model in models)
            and all(isinstance(count, int) for count in counts)
        ):
            return found
        raise unexpected(answer, tried, "not a page of sources")
