"""File containers: Coveo's way to accept content larger than a request, in three requests."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final, NamedTuple

from airflow_provider_coveo.coveo.batches import Body
from airflow_provider_coveo.coveo.caller import Caller
from airflow_provider_coveo.coveo.endpoints import base_url, push_path
from airflow_provider_coveo.coveo.errors import CoveoConfigurationError, UnexpectedAnswerError, UploadError
from airflow_provider_coveo.coveo.ordering_ids import CoveoClock
from airflow_provider_coveo.coveo.responses import JsonObject, Response
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.coveo.stop import StopSignal
from airflow_provider_coveo.coveo.transport import Request

#: The number of file containers to try for one upload before a rejection is final.
_CONTAINERS_PER_UPLOAD: Final = 3


class Uploaded(NamedTuple):
    """
    A file container with content.

    :param file_id: Its ``fileId``.
    :param made_at: The time on this machine's monotonic clock, in seconds, before it was created.
    :param clock: Coveo's clock at its creation.
    """

    file_id: str
    made_at: float
    clock: CoveoClock


class Containers:
    """
    The file containers of an organization: creates them, uploads into them, and submits their content.

    See https://docs.coveo.com/en/43/.

    :param caller: Sends the requests.
    """

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    def stoppable(self) -> Containers:
        """Return containers whose requests are stopped with these, and can be stopped alone."""
        return Containers(self.caller.stoppable())

    @property
    def stop(self) -> StopSignal:
        """The signal that ends requests in flight."""
        return self.caller.stop

    def upload(self, data: bytes | Body, action: str) -> Uploaded:
        """
        Upload data into a new file container.

        :param data: The data.
        :param action: The action, for error messages.
        """
        caller = self.caller
        for container in range(1, _CONTAINERS_PER_UPLOAD + 1):
            made_at = time.monotonic()
            path = push_path(caller.organization_id, "files")
            response = caller.send(Request(action, "POST", path, expected=201))
            described = response.json(action, "fileId", "uploadUri", "requiredHeaders")
            if not _is_container(described):
                raise response.unexpected(action, "not a file container with texts for what it needs")
            try:
                _check_upload_uri(response, str(described["uploadUri"]), action)
                self._put(described, data, action)
            except UploadError as error:
                if container == _CONTAINERS_PER_UPLOAD:
                    raise
                caller.log.warning("The file container was rejected; creating a new one: %s", error)
            else:
                return Uploaded(str(described["fileId"]), made_at, response.clock)
        raise AssertionError("unreachable: the last container returns or raises")

    def submit(self, path: str, file_id: str, action: str, retry: RetryPolicy | None = None) -> Response:
        """
        Submit the batch in a file container to Coveo.

        :param path: The path of the request.
        :param file_id: The container's ``fileId``.
        :param action: The action, for error messages.
        :param retry: The retry policy. Default: the caller's.
        """
        request = Request(action, "PUT", path, query={"fileId": file_id}, expected=202)
        return self.caller.send(request, retry)

    def _put(self, described: JsonObject, data: bytes | Body, action: str) -> None:
        response = self.caller.send(
            Request(
                action,
                "PUT",
                "",
                body=data,
                host="storage",
                presigned_url=str(described["uploadUri"]),
                headers=described["requiredHeaders"],
                default_class=UploadError,
            )
        )
        if response.content.strip():
            raise UnexpectedAnswerError(
                action,
                status_code=response.status_code,
                cause="the response of a file container is empty, so something else sent this one",
                remedy="Check the proxies of the connection and of the environment",
            )


def _is_container(described: Mapping[str, object]) -> bool:
    """Return whether a response describes a usable file container."""
    headers = described["requiredHeaders"]
    if not described["fileId"] or not isinstance(headers, dict):
        return False
    texts = [described["fileId"], described["uploadUri"], *headers, *headers.values()]
    return all(
        isinstance(text, str) and text == text.strip() and text.isascii() and text.isprintable()
        for text in texts
    )


def _check_upload_uri(response: Response, uri: str, action: str) -> None:
    """Reject an address that is not safe for a presigned URL: the URL is as sensitive as a key."""
    try:
        base_url(uri.partition("?")[0], field="uploadUri")
    except CoveoConfigurationError:
        # The error's text contains the address.
        pass
    else:
        return
    response.drop_connection()
    raise CoveoConfigurationError(
        action,
        answer="the address for the upload is not an https URL",
        cause="something else responded instead of Coveo",
        remedy="Check the connection's host, and the proxies of the connection and of the environment",
    )
