"""Sources: read, create, copy and delete them, and set their status."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TypeVar

from airflow_provider_coveo.coveo.caller import Caller
from airflow_provider_coveo.coveo.calls import source_call
from airflow_provider_coveo.coveo.endpoints import platform_path, push_path, validate_source_id
from airflow_provider_coveo.coveo.errors import (
    AccessDeniedError,
    CoveoInputError,
    NotFoundError,
    SourceDoesNotExistError,
    SourceNameTakenError,
    missing_privilege_error,
    short_repr,
)
from airflow_provider_coveo.coveo.responses import JsonObject, Response
from airflow_provider_coveo.coveo.retries import ONE_ATTEMPT, OUTCOME_UNKNOWN, RetryPolicy
from airflow_provider_coveo.coveo.sources import validate_source_name, validate_visibility
from airflow_provider_coveo.coveo.statuses import SourceStatus
from airflow_provider_coveo.coveo.transport import Call, Request, explain_privilege, json_call

if TYPE_CHECKING:
    from airflow_provider_coveo.coveo.results import ActivityResult, DeletedSourceResult, StatusResult

T = TypeVar("T")

_SOURCES_PER_PAGE: Final = 100
#: Coveo's error codes for a source that does not exist.
_NO_SUCH_SOURCE: Final = (NotFoundError, SourceDoesNotExistError)


class Sources:
    """
    The sources of an organization.

    For the privileges that requests need, see https://docs.coveo.com/en/1707/.

    :param caller: Sends the requests.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def set_source_status(self, source_id: str, status: SourceStatus | str) -> StatusResult:
        """
        Set the status of a source when a content update begins or ends. It sends one request.

        The status changes what the console shows and what its activity log records. It deletes nothing and
        does not wait for the indexing pipeline. Repeating it is harmless, except that Coveo may record the
        activity twice. See https://docs.coveo.com/en/35/.

        :param source_id: The Push source.
        :param status: ``REBUILD``, ``REFRESH``, ``INCREMENTAL`` or ``IDLE``, in upper or lower case.
        :return: ``source_id``, ``status``, ``request_id``, and ``ordering_id``: the time on Coveo's clock in
            epoch milliseconds; use it as the cut-off to delete older items after all content is pushed.
        :raises CoveoInputError: before anything is sent, if an argument is invalid.
        :raises CoveoError: if the request fails.
        """
        source_id = validate_source_id(source_id)
        status = SourceStatus.parse(status)
        response = self._caller.send(
            Request(
                f"Could not set the status of source {source_id!r} to {status}",
                "POST",
                push_path(self._caller.organization_id, "sources", source_id, "status"),
                query={"statusType": status.value},
                expected=201,
            )
        )
        self._caller.log.info("Source %s is %s", source_id, status)
        return {
            "source_id": source_id,
            "status": status.value,
            "ordering_id": response.clock.now_ms(),
            "request_id": response.request_id,
        }

    def get_source(self, source_id: str) -> JsonObject:
        """
        Return a source as Coveo describes it: its configuration, and its status under ``information``.

        :param source_id: The source.
        :raises AccessDeniedError: if the key lacks the privilege to view sources, like a push-only key.
        :raises CoveoError: if the request fails otherwise.
        """
        source_id = validate_source_id(source_id)
        return self._caller.call(source_call(self._caller.organization_id, source_id))

    def list_sources(self) -> list[JsonObject]:
        """
        Return the organization's Push sources, each as from :meth:`get_source`.

        :raises AccessDeniedError: if the key lacks the privilege to view sources, like a push-only key.
        :raises CoveoError: if the request fails otherwise.
        """
        return list(self._sources(host_type="PUSH"))

    def sources_named(self, name: str) -> list[JsonObject]:
        """
        Return the sources of any kind with exactly this name, each as from :meth:`get_source`.

        :param name: The name.
        :raises AccessDeniedError: if the key lacks the privilege to view sources, like a push-only key.
        :raises CoveoError: if the request fails otherwise.
        """
        return self._named(validate_source_name(name))

    def create_source(self, name: str, *, visibility: str) -> JsonObject:
        """
        Create a Push source.

        It can't create two sources: after a request without a response, it retries only if no source was
        created. Coveo may need some minutes until the source accepts items; the first source of an
        organization takes about ten. Create an API key for the source by hand, in the Administration Console:
        Coveo does not let an API key create another one (https://docs.coveo.com/en/60/). See
        https://docs.coveo.com/en/94/.

        :param name: The name. It can't be changed later.
        :param visibility: ``SECURED`` for the users named in each item's permissions, ``SHARED`` for
            everybody, ``PRIVATE`` for the users named in the source.
        :return: The source, as :meth:`get_source` returns it.
        :raises CoveoInputError: before anything is sent, if an argument is invalid.
        :raises SourceNameTakenError: if a source with that name exists.
        :raises AccessDeniedError: if the key lacks the privilege to view and create sources.
        :raises CoveoError: if the request fails otherwise.
        """
        name, visibility = validate_source_name(name), validate_visibility(visibility)
        organization_id = self._caller.organization_id
        body = {"sourceType": "PUSH", "name": name, "sourceVisibility": visibility, "pushEnabled": True}
        request = Request(
            f"Could not create source {name!r} in organization {organization_id!r}",
            "POST",
            platform_path(organization_id, "sources"),
            body=json.dumps(body).encode(),
            host="platform",
            expected=201,
        )
        return self._create_once(name, json_call(request, "id"), "the privilege Sources: Create")

    def duplicate_source(self, source_id: str, new_name: str) -> JsonObject:
        """
        Create an empty source with the configuration of an existing one.

        Use it to recreate a source whose items can't be deleted by time, such as one that Coveo for Sitecore
        or the Crawling Module manages. It can't create two copies: after a request without a response, it
        retries only if no copy was created. See https://docs.coveo.com/en/35/.

        :param source_id: The source to copy.
        :param new_name: The copy's name. It can't be changed later.
        :return: The copy, as :meth:`get_source` returns it.
        :raises CoveoInputError: before anything is sent, if an argument is invalid.
        :raises SourceNameTakenError: if a source with that name exists.
        :raises AccessDeniedError: if the key lacks the privilege to view, edit and create sources.
        :raises CoveoError: if the request fails otherwise.
        """
        source_id, new_name = validate_source_id(source_id), validate_source_name(new_name)
        request = Request(
            f"Could not duplicate source {source_id!r} as {new_name!r}",
            "POST",
            platform_path(self._caller.organization_id, "sources", source_id, "duplicate"),
            query={"newSourceName": new_name},
            host="platform",
            expected=201,
        )
        return self._create_once(
            new_name, json_call(request, "id"), "the privileges Sources: Edit and Create"
        )

    def delete_source(self, source_id: str) -> DeletedSourceResult:
        """
        Permanently delete a source and all its items.

        :param source_id: The source.
        :return: ``source_id`` and ``request_id``.
        :raises CoveoInputError: before anything is sent, if the argument is invalid.
        :raises AccessDeniedError: if the key lacks the privilege to edit the source, like a push-only key.
        :raises CoveoError: if the request fails otherwise.
        """
        source_id = validate_source_id(source_id)
        path = platform_path(self._caller.organization_id, "sources", source_id)
        request = Request(f"Could not delete source {source_id!r}", "DELETE", path, host="platform")
        may_be_deleted = False

        def attempt(number: int) -> str | None:
            nonlocal may_be_deleted
            try:
                return self._caller.send(request, ONE_ATTEMPT).request_id
            except OUTCOME_UNKNOWN:
                may_be_deleted = True
                raise
            except _NO_SUCH_SOURCE:
                if not may_be_deleted:
                    raise
                return None

        request_id = self._explained(attempt, "delete this source", "the privilege Sources: Edit for it")
        self._caller.log.info("Deleted source %s", source_id)
        return {"source_id": source_id, "request_id": request_id}

    def abort_activity(self, source_id: str, activity_id: str) -> ActivityResult:
        """
        Abort an activity of a source, such as an update that should not end as a success.

        :param source_id: The source.
        :param activity_id: The activity. For a running update, :meth:`get_source` returns it as
            ``activityId`` in ``information.sourceStatus``.
        :return: ``source_id``, ``activity_id`` and ``request_id``.
        :raises CoveoInputError: before anything is sent, if an argument is invalid.
        :raises AccessDeniedError: if the key lacks the privilege to edit the source, like a push-only key.
        :raises CoveoError: if the request fails otherwise.
        """
        source_id = validate_source_id(source_id)
        if not isinstance(activity_id, str) or not activity_id.strip():
            raise CoveoInputError(
                f"Invalid activity_id: {short_repr(activity_id)}",
                remedy="Pass activityId from the source's information.sourceStatus",
            )
        request = Request(
            f"Could not abort activity {activity_id!r} of source {source_id!r}",
            "POST",
            platform_path(self._caller.organization_id, "sources", source_id, "tasks", "abort"),
            query={"activityId": activity_id},
            host="platform",
        )
        explain = explain_privilege("edit this source", "the privilege Sources: Edit for it")
        response = self._caller.call(Call(request, lambda response: response, explain))
        self._caller.log.info("Aborted activity %s of source %s", activity_id, source_id)
        return {"source_id": source_id, "activity_id": activity_id, "request_id": response.request_id}

    def count_sources(self) -> int:
        """
        Return how many Push sources the key can view. It sends one request.

        :raises CoveoError: if Coveo returns an error, or no response.
        """
        page = self._page(0, 1, host_type="PUSH", retry=ONE_ATTEMPT)
        return int(page.get("totalEntries", len(page["sourceModels"])))

    def _create_once(self, name: str, call: Call[JsonObject], privileges: str) -> JsonObject:
        taken = self._named(name)
        if taken:
            raise SourceNameTakenError(
                call.request.action,
                cause=f"source {' and '.join(str(s['id']) for s in taken)} already has that name",
            )
        may_be_created = False

        def attempt(number: int) -> JsonObject:
            nonlocal may_be_created
            created = self._named(name, retry=ONE_ATTEMPT) if may_be_created else []
            if created:
                return created[0]
            try:
                return self._caller.call(call, ONE_ATTEMPT)
            except OUTCOME_UNKNOWN:
                may_be_created = True
                raise

        source = self._explained(attempt, "create sources", privileges)
        self._caller.log.info("Created source %s: %s", source["id"], name)
        return source

    def _explained(self, attempt: Callable[[int], T], doing: str, privileges: str) -> T:
        """Repeat attempts; a 403 names the privilege that the key lacks."""
        try:
            return self._caller.repeat(attempt)
        except AccessDeniedError as error:
            raise missing_privilege_error(error, doing, privileges) from None

    def _named(self, name: str, *, retry: RetryPolicy | None = None) -> list[JsonObject]:
        # Coveo does not document which names its own filter treats as equal, and it needs two letters.
        return [source for source in self._sources(retry=retry) if source.get("name") == name]

    def _sources(
        self, *, host_type: str | None = None, retry: RetryPolicy | None = None
    ) -> Iterator[JsonObject]:
        for index in itertools.count():
            page = self._page(index, _SOURCES_PER_PAGE, host_type=host_type, retry=retry)
            yield from page["sourceModels"]
            if not page["sourceModels"] or index + 1 >= page.get("totalPages", 0):
                return

    def _page(
        self, index: int, per_page: int, *, host_type: str | None = None, retry: RetryPolicy | None = None
    ) -> JsonObject:
        kind = "Push sources" if host_type == "PUSH" else "sources"
        organization_id = self._caller.organization_id
        query: dict[str, object] = {"page": index, "perPage": per_page}
        if host_type is not None:
            query["filterHostType"] = host_type
        request = Request(
            f"Could not list the {kind} of organization {organization_id!r}",
            "GET",
            platform_path(organization_id, "sources", "pages"),
            query=query,
            host="platform",
        )

        def parse(response: Response) -> JsonObject:
            page = response.json(request.action, "sourceModels")
            models = page["sourceModels"]
            if (
                isinstance(models, list)
                and all(isinstance(model, dict) for model in models)
                and isinstance(page.get("totalPages", 0), int)
                and isinstance(page.get("totalEntries", 0), int)
            ):
                return page
            raise response.unexpected(request.action, "not a page of sources")

        explain = explain_privilege("view sources", "the privilege Sources: View")
        return self._caller.call(Call(request, parse, explain), retry)
