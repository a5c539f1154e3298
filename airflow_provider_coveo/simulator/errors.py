"""The error responses of the simulated Coveo."""

from __future__ import annotations

from collections.abc import Mapping


class ApiError(Exception):
    """
    An error response.

    :param status: the HTTP status code.
    :param code: the ``errorCode`` of the body.
    :param message: the ``message`` of the body, for people.
    :param headers: further headers.
    """

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})

    @classmethod
    def invalid_json(cls, message: str) -> ApiError:
        """Return the error for a body that can't be read."""
        return cls(400, "INVALID_JSON", message)

    @classmethod
    def missing_parameter(cls, name: str) -> ApiError:
        """Return the error for a missing parameter."""
        return cls(412, "MISSING_PARAMETER", f"The parameter {name!r} is required.")

    @classmethod
    def invalid_parameter(cls, name: str, why: str) -> ApiError:
        """Return the error for an invalid parameter."""
        return cls(412, "INVALID_PARAMETER", f"The parameter {name!r} is invalid: {why}.")

    @classmethod
    def not_found(cls, what: str) -> ApiError:
        """Return the platform API's error for a missing resource."""
        return cls(404, "NOT_FOUND", what)


class StorageError(Exception):
    """
    An error response of the object storage behind a file container: XML like S3's, never Coveo's JSON.

    :param status: the HTTP status code.
    :param code: the ``Code`` element.
    :param message: the ``Message`` element.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
