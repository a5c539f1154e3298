"""The requests that concern sources as a whole; a part of the hook."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_coveo.airflow_errors import non_retryable_errors
from airflow_provider_coveo.coveo.endpoints import platform_path, validate_source_id
from airflow_provider_coveo.coveo.errors import (
    CoveoInputError,
    NoAnswerError,
    NotFoundError,
    ServiceError,
    SourceDoesNotExistError,
    SourceNameTakenError,
    short_repr,
)
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.coveo.sources import validate_source_name, validate_visibility
from airflow_provider_coveo.hooks.responses import (
    CoveoRequests,
    explain_missing_privilege,
    json_object,
    request_id_of,
    unexpected,
)

if TYPE_CHECKING:
    import requests

_SOURCES_PER_PAGE: Final = 100
_ONE_ATTEMPT: Final = RetryPolicy(total_seconds=0)
#: After these it isn't known whether Coveo did what it was asked.
_OPEN_ENDS: Final = (NoAnswerError, ServiceError)
#: How Coveo says that a source is not there.
_NO_SUCH_SOURCE: Final = (NotFoundError, SourceDoesNotExistError)


class SourceRequests(CoveoRequests):
    """
    The sources of an organization: to look at them, and to make, copy and delete them.

    Which privilege is for what: https://docs.coveo.com/en/1707/.
    """

    @non_retryable_errors
    def get_source(self, source_id: str) -> dict[str, Any]:
        """
        Return what Coveo knows of a source: its configuration, and its status under ``information``.

        :param source_id: The source.
        :raises AccessDeniedError: if the key may not view sources, as a push-only key.
        :raises CoveoError: if Coveo refuses otherwise, or does not answer.
        """
        source_id = validate_source_id(source_id)
        tried = f"Could not read source {source_id!r}"
        with explain_missing_privilege("view sources", "the privilege Sources: View"):
            answer = self._request(
                tried, "GET", platform_path(self.organization_id, "sources", source_id), platform_api=True
            )
        return json_object(answer, tried, "id")

    @non_retryable_errors
    def list_sources(self) -> list[dict[str, Any]]:
        """
        Return the organization's Push sources, as :meth:`get_source` does each.

        :raises AccessDeniedError: if the key may not view sources, as a push-only key.
        :raises CoveoError: if Coveo refuses otherwise, or does not answer.
        """
        return list(self._sources(host_type="PUSH"))

    @non_retryable_errors
    def sources_named(self, name: str) -> list[dict[str, Any]]:
        """
        Return the sources of any kind that have exactly this name, as :meth:`get_source` does each.

        :param name: The name.
        :raises AccessDeniedError: if the key may not view sources, as a push-only key.
        :raises CoveoError: if Coveo refuses otherwise, or does not answer.
        """
        return self._sources_named(validate_source_name(name))

    @non_retryable_errors
    def create_source(self, name: str, *, visibility: str) -> dict[str, Any]:
        """
        Create a Push source.

        It can't come to two sources: a request without an answer is repeated only if it made none. Coveo may
        need some minutes until the source takes items, for the first source of an organization about ten. An
        API key for the source is made by hand, in the Administration Console: Coveo lets no API key make
        another one (https://docs.coveo.com/en/60/). See https://docs.coveo.com/en/94/.

        :param name: Its name, which can't be changed later.
        :param visibility: ``SECURED`` for the users that each item's permissions name, ``SHARED`` for
            everybody, ``PRIVATE`` for the users that the source names.
        :return: The source, as :meth:`get_source` returns it.
        :raises CoveoInputError: before anything is sent, if an argument can't be right.
        :raises SourceNameTakenError: if there is a source of that name.
        :raises AccessDeniedError: if the key may not view and create sources, as a push-only key.
        :raises CoveoError: if Coveo refuses otherwise, or does not answer.
        """
        name, visibility = validate_source_name(name), validate_visibility(visibility)
        tried = f"Could not create source {name!r} in organization {self.organization_id!r}"
        body = {"sourceType": "PUSH", "name": name, "sourceVisibility": visibility, "pushEnabled": True}
        return self._make_once(
            tried,
            name,
            lambda: self._request(
                tried,
                "POST",
                platform_path(self.organization_id, "sources"),
                platform_api=True,
                body=json.dumps(body).encode(),
                retry=_ONE_ATTEMPT,
                expected=201,
            ),
            "the privilege Sources: Create",
        )

    @non_retryable_errors
    def duplicate_source(self, source_id: str, new_name: str) -> dict[str, Any]:
        """
        Make an empty source with the configuration of another one.

        It is how a source is recreated whose items can't be deleted by time, such as one that Coveo for
        Sitecore or the Crawling Module manages. It can't come to two copies: a request without an answer is
        repeated only if it made none. See https://docs.coveo.com/en/35/.

        :param source_id: The source to copy.
        :param new_name: The copy's name, which can't be changed later.
        :return: The copy, as :meth:`get_source` returns it.
        :raises CoveoInputError: before anything is sent, if an argument can't be right.
        :raises SourceNameTakenError: if there is a source of that name.
        :raises AccessDeniedError: if the key may not view, edit and create sources, as a push-only key.
        :raises CoveoError: if Coveo refuses otherwise, or does not answer.
        """
        source_id, new_name = validate_source_id(source_id), validate_source_name(new_name)
        tried = f"Could not duplicate source {source_id!r} as {new_name!r}"
        return self._make_once(
            tried,
            new_name,
            lambda: self._request(
                tried,
                "POST",
                platform_path(self.organization_id, "sources", source_id, "duplicate"),
                platform_api=True,
                query={"newSourceName": new_name},
                retry=_ONE_ATTEMPT,
                expected=201,
            ),
            "the privileges Sources: Edit and Create",
        )

    @non_retryable_errors
    def delete_source(self, source_id: str) -> dict[str, Any]:
        """
        Delete a source and all items in it, for good.

        :param source_id: The source.
        :return: ``source_id`` and ``request_id``.
        :raises CoveoInputError: before anything is sent, if the argument can't be right.
        :raises AccessDeniedError: if the key may not edit the source, as a push-only key.
        :raises CoveoError: if Coveo refuses otherwise, or does not answer.
        """
        source_id = validate_source_id(source_id)
        tried = f"Could not delete source {source_id!r}"
        may_be_deleted = False

        def attempt(number: int) -> str | None:
            nonlocal may_be_deleted
            try:
                answer = self._request(
                    tried,
                    "DELETE",
                    platform_path(self.organization_id, "sources", source_id),
                    platform_api=True,
                    retry=_ONE_ATTEMPT,
                )
            except _OPEN_ENDS:
                may_be_deleted = True
                raise
            except _NO_SUCH_SOURCE:
                if not may_be_deleted:
                    raise
                return None
            return request_id_of(answer)

        with explain_missing_privilege("delete this source", "the privilege Sources: Edit for it"):
            request_id = self.repeated(attempt)
        self.log.info("Source %s is deleted.", source_id)
        return {"source_id": source_id, "request_id": request_id}

    @non_retryable_errors
    def abort_activity(self, source_id: str, activity_id: str) -> dict[str, Any]:
        """
        Abort an activity of a source, such as an update that was begun and is not to be ended as a success.

        :param source_id: The source.
        :param activity_id: The activity. That of the update which runs is in :meth:`get_source`, as
            ``activityId`` of its ``information.sourceStatus``.
        :return: ``source_id``, ``activity_id`` and ``request_id``.
        :raises CoveoInputError: before anything is sent, if an argument can't be right.
        :raises AccessDeniedError: if the key may not edit the source, as a push-only key.
        :raises CoveoError: if Coveo refuses otherwise, or does not answer.
        """
        source_id = validate_source_id(source_id)
        if not isinstance(activity_id, str) or not activity_id.strip():
            raise CoveoInputError(
                f"{short_repr(activity_id)} is not the ID of an activity",
                remedy="Take activityId from the source's information.sourceStatus",
            )
        with explain_missing_privilege("edit this source", "the privilege Sources: Edit for it"):
            answer = self._request(
                f"Could not abort activity {activity_id!r} of source {source_id!r}",
                "POST",
                platform_path(self.organization_id, "sources", source_id, "tasks", "abort"),
                platform_api=True,
                query={"activityId": activity_id},
            )
        self.log.info("Activity %s of source %s is aborted.", activity_id, source_id)
        return {"source_id": source_id, "activity_id": activity_id, "request_id": request_id_of(answer)}

    def _make_once(
        self, tried: str, name: str, request: Callable[[], requests.Response], privileges: str
    ) -> dict[str, Any]:
        taken = self._sources_named(name)
        if taken:
            raise SourceNameTakenError(
                tried, cause=f"that is the name of source {' and '.join(str(s['id']) for s in taken)} already"
            )
        may_be_made = False

        def attempt(number: int) -> dict[str, Any]:
            nonlocal may_be_made
            made = self._sources_named(name, retry=_ONE_ATTEMPT) if may_be_made else []
            if made:
                return made[0]
            try:
                return json_object(request(), tried, "id")
            except _OPEN_ENDS:
                may_be_made = True
                raise

        with explain_missing_privilege("make sources", privileges):
            source = self.repeated(attempt)
        self.log.info("Source %s is made: %s.", source["id"], name)
        return source

    def _sources_named(self, name: str, *, retry: RetryPolicy | None = None) -> list[dict[str, Any]]:
        # Not by Coveo's own filter, which does not say what it takes for equal, and can't be of one letter.
        return [source for source in self._sources(retry=retry) if source.get("name") == name]

    def _sources(
        self, *, host_type: str | None = None, retry: RetryPolicy | None = None
    ) -> Iterator[dict[str, Any]]:
        for page in itertools.count():
            answer = self._sources_page(page, _SOURCES_PER_PAGE, host_type=host_type, retry=retry)
            yield from answer["sourceModels"]
            if not answer["sourceModels"] or page + 1 >= answer.get("totalPages", 0):
                return

    def _sources_page(
        self,
        page: int,
        per_page: int,
        *,
        host_type: str | None = None,
        retry: RetryPolicy | None = None,
    ) -> dict[str, Any]:
        kind = "Push sources" if host_type == "PUSH" else "sources"
        tried = f"Could not list the {kind} of organization {self.organization_id!r}"
        with explain_missing_privilege("view sources", "the privilege Sources: View"):
            answer = self._request(
                tried,
                "GET",
                platform_path(self.organization_id, "sources", "pages"),
                platform_api=True,
                query={
                    "page": page,
                    "perPage": per_page,
                    **({} if host_type is None else {"filterHostType": host_type}),
                },
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
