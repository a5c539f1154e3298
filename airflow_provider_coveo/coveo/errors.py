"""Coveo's errors as classes: what was tried, what Coveo said, the likely cause and the remedy."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Mapping
from typing import Any, ClassVar

#: No more of an answer's body than this is looked at, so that an endless error page costs nothing.
_MAX_BODY_READ = 64 * 1024
#: No more of what Coveo said than this is repeated in a message.
_MAX_MESSAGE = 400

#: No more of a value that was refused is shown than this.
_MAX_SHOWN = 120
_short_repr = reprlib.Repr()
_short_repr.maxstring = _short_repr.maxother = _MAX_SHOWN

_URL_QUERY = re.compile(r"\?[^\s'\"<>)]+")
_URL_USER = re.compile(r"//[^\s/@]+@")


class CoveoError(Exception):
    """
    The base of every error that this provider raises about Coveo.

    :param tried: What was tried, on which source.
    :param status_code: The HTTP status of Coveo's answer, ``None`` where there was no answer.
    :param error_code: Coveo's ``errorCode``, ``None`` where the answer bore none.
    :param request_id: The answer's ``X-Request-ID``, which Coveo's support asks for.
    :param answer: What Coveo said in words.
    :param cause: The likely cause; each class has a default.
    :param remedy: What to do about it; each class has a default.
    :param retry_after: For how many seconds Coveo asked to wait, ``None`` where it did not ask.
    :param note: What else is to be said, at the end of the message.
    :param accepted: Of a push, what had been accepted before: the result so far, else ``None``.

    The codes and their causes are those of https://docs.coveo.com/en/95/.
    """

    default_cause: ClassVar[str] = ""
    default_remedy: ClassVar[str] = ""
    #: Whether the same request may succeed later. Where it can't, a task fails without using up its retries.
    retry_can_help: ClassVar[bool] = False
    #: Whether Coveo may have done what was asked, where no answer says so.
    may_be_done: bool = True

    def __init__(
        self,
        tried: str,
        *,
        status_code: int | None = None,
        error_code: str | None = None,
        request_id: str | None = None,
        answer: str = "",
        cause: str = "",
        remedy: str = "",
        retry_after: float | None = None,
        note: str = "",
        accepted: dict[str, Any] | None = None,
    ) -> None:
        self.tried = tried
        self.status_code = status_code
        self.error_code = error_code
        self.request_id = request_id
        self.answer = answer
        self.cause = cause or self.default_cause
        self.remedy = remedy or self.default_remedy
        self.retry_after = retry_after
        self.note = note
        self.accepted = accepted
        super().__init__(self._message())

    def _message(self) -> str:
        parts = [self.tried.rstrip(".")]
        if self.status_code is not None:
            said = f": Coveo answered {self.status_code}"
            if self.error_code:
                said += f" {self.error_code}"
            if self.answer:
                said += f" “{self.answer}”"
            if self.request_id:
                said += f" (request ID {self.request_id})"
            parts.append(said)
        elif self.answer:
            parts.append(f": {self.answer.rstrip('.')}")
        text = "".join(parts) + "."
        if self.cause:
            text += f" Likely cause: {self.cause.rstrip('.')}."
        if self.remedy:
            text += f" Remedy: {self.remedy.rstrip('.')}."
        if self.note:
            text += self.note if self.note.startswith("\n") else f" {self.note}"
        return text

    def fields(self) -> dict[str, Any]:
        """Return the keyword arguments that make an equal error."""
        return {
            "status_code": self.status_code,
            "error_code": self.error_code,
            "request_id": self.request_id,
            "answer": self.answer,
            "cause": self.cause,
            "remedy": self.remedy,
            "retry_after": self.retry_after,
            "note": self.note,
            "accepted": self.accepted,
        }

    def __reduce__(self) -> Any:
        # Exceptions cross process borders by pickle, which by default passes the message as `tried`.
        return _rebuild, (type(self), self.tried, self.fields())


def _rebuild(error_class: type[CoveoError], tried: str, fields: dict[str, Any]) -> CoveoError:
    return error_class(tried, **fields)


class CoveoInputError(CoveoError, ValueError):
    """A value that was refused before anything was sent."""


class SourceNameTakenError(CoveoInputError):
    """A name for a new source that a source has already; no other was made."""

    default_remedy = "Choose another name, or delete that source if nobody needs it"


class CoveoConfigurationError(CoveoInputError):
    """A connection that can't be used as it stands."""


class SourceTestFailedError(CoveoError):
    """A new source did not index the item that it was tested with."""

    default_cause = "a rule, an extension or a mapping of the source does not suit the test item"
    default_remedy = (
        "Correct the source, or give a test_item like those that the source is for, then clear the task: it "
        "goes on with the same source"
    )
    # It may be the source that is mended in between, or the pipeline that catches up.
    retry_can_help = True


class InvalidRequestError(CoveoError):
    """400: Coveo could not read the request."""

    default_cause = "a parameter or the body is not what the API expects"
    default_remedy = "Correct the value that Coveo names"


class InvalidJsonError(InvalidRequestError):
    """400 ``INVALID_JSON``."""

    default_cause = "malformed JSON, a missing data key, keys that differ only by case, or a nested object"
    default_remedy = "Correct the item's data"


class OrganizationPausedError(CoveoError):
    """400 ``ORGANIZATION_IS_PAUSED``."""

    default_cause = "the organization is a trial or sandbox that Coveo paused for inactivity"
    default_remedy = "Resume the organization in Coveo's Administration Console, then clear the task"


class AuthenticationError(CoveoError):
    """401: the API key was missing, unknown, expired, disabled, or not allowed from this address."""

    default_cause = (
        "the connection's password is not a valid API key of this organization's region, the key was "
        "disabled or deleted, or its IP rules refuse this worker"
    )
    default_remedy = "Put a valid API key into the connection's password and check its region"


class AccessDeniedError(CoveoError):
    """403: the API key is valid, but lacks a privilege."""

    default_cause = "the API key lacks the privilege for this call"
    default_remedy = "Grant the privilege to the key, or use the key that the source's “Create API key” gives"


class FirewallBlockedError(CoveoError):
    """Coveo's web application firewall took the request for an attack."""

    default_cause = "the firewall in front of Coveo took the item's content for an attack"
    default_remedy = "Push the item through a file container, which the firewall does not read"


class NotFoundError(CoveoError):
    """404: what the path names does not exist."""

    default_cause = "the source or another ID in the request does not exist in this organization"
    default_remedy = "Compare the IDs with those shown in Coveo's Administration Console"


class OrganizationNotFoundError(NotFoundError):
    """404 ``ORGANIZATION_NOT_FOUND``."""

    default_cause = "the organization ID is wrong, or the organization lives in another region"
    default_remedy = "Correct the connection's login (the organization ID) or its region"


class InvalidParameterError(CoveoError):
    """412 ``MISSING_PARAMETER`` or ``INVALID_PARAMETER``, and any other precondition that Coveo names."""

    default_cause = "a parameter is absent or has a value that Coveo does not accept"
    default_remedy = "Correct the parameter that Coveo names"


class SourceDoesNotExistError(CoveoError):
    """412 ``SOURCE_DOES_NOT_EXIST``."""

    default_cause = "the source ID is wrong, or the source is still being created (up to ten minutes)"
    default_remedy = "Copy the ID from the Sources page of Coveo's Administration Console"


class DocumentLimitExceededError(CoveoError):
    """412 ``DOCUMENT_LIMIT_EXCEEDED``."""

    default_cause = "the organization's entitlement for items in the index is used up"
    default_remedy = "Delete items, or have the licence raised"


class RequestTooLargeError(CoveoError):
    """413: the request is larger than Coveo takes."""

    default_cause = "a single request may hold 6 MB, a file container 256 MB"
    default_remedy = "Make the batch smaller, compress the data, or move it to a file container"


class UnsupportedMediaTypeError(CoveoError):
    """415 ``UNSUPPORTED_MEDIA_TYPE``."""

    default_cause = "something between here and Coveo changed the request's Content-Type"
    default_remedy = "Check the proxy that the connection names"


class TooManyRequestsError(CoveoError):
    """429 ``TOO_MANY_REQUESTS``: too many calls in a short time, or the day's calls are used up."""

    default_cause = "the organization makes more calls than its limits allow"
    default_remedy = "Push fewer, larger batches, and let fewer tasks push at once"
    retry_can_help = True


class DailyQuotaExceededError(CoveoError):
    """429 ``TOO_MANY_DOCUMENTS_DAILY``: no item will be taken before the quota renews."""

    default_cause = "the organization's daily quota of items is used up; it renews the next day"
    default_remedy = "Clear the task once the quota has renewed, or have the quota raised"


class ServiceError(CoveoError):
    """408 or 5xx: Coveo, or something on the way to it, failed."""

    default_cause = "Coveo or a gateway on the way had a fault"
    default_remedy = "Retry later; https://status.cloud.coveo.com shows known incidents"
    retry_can_help = True


class RedirectError(CoveoError):
    """3xx: something on the way answered in Coveo's place."""

    default_cause = "the host is not Coveo's API: a proxy or login page answered"
    default_remedy = "Correct the connection's host, platform_host or proxies"


class UnexpectedAnswerError(CoveoError):
    """An answer that Coveo does not document."""

    default_cause = "the host is not Coveo's API, or the API changed"
    default_remedy = "Check the connection's host, and report it if the host is right"


class UploadError(CoveoError):
    """A file container refused the upload."""

    default_cause = "the container expired, or something on the way changed the upload's headers"
    default_remedy = "Retry: a new container is made for each try; let `*.amazonaws.com` through the firewall"
    retry_can_help = True


class NoAnswerError(CoveoError):
    """No answer came: the request may or may not have been carried out."""

    default_cause = "the network, a proxy or a firewall between this worker and Coveo"
    default_remedy = "Retry later; check that the worker reaches the host"
    retry_can_help = True


class CertificateError(CoveoError):
    """The host's TLS certificate could not be verified, so nothing was sent."""

    default_cause = "a proxy that inspects TLS, or an outdated certificate store on the worker"
    default_remedy = "Point the connection's verify extra to the right CA bundle"


class SourceNotUsableError(CoveoError):
    """A source in a state that it does not leave by itself, so that waiting for it can't help."""

    default_cause = "an earlier operation on the source failed, or somebody disabled or deleted it"
    default_remedy = "Look at the source on the Sources page of Coveo's Administration Console"


class ItemsRefusedError(CoveoError):
    """Items that Coveo accepted, and that its pipeline did not index."""

    default_remedy = "Correct the items by the reasons that Coveo gives, and push them again"


class IndexingUnknownError(CoveoError):
    """It can't be told whether all items that were pushed are indexed."""

    default_remedy = "Push again, or accept it with on_repeated='warn'"


class SnapshotError(CoveoError):
    """The snapshot of a push could not be read or written."""

    default_cause = "the folder or the object storage does not answer, or refuses"
    default_remedy = "Check snapshot_path, and its connection's permissions to list, read, write and delete"
    retry_can_help = True


class SnapshotDamagedError(CoveoInputError):
    """A snapshot that was cut off or changed by others, or is none; nothing was sent."""

    default_cause = "something else wrote to the folder of snapshots, or the storage lost a part"
    default_remedy = (
        "Restore the file, or push everything once by on_damaged_snapshot='push_all'; items that only this "
        "file knows are then not deleted"
    )


class SnapshotFormatError(CoveoInputError):
    """A snapshot of a format that this version does not read."""


class TooManyDeletionsError(CoveoInputError):
    """More items were missing than may be deleted; none was."""


_BY_ERROR_CODE: dict[str, type[CoveoError]] = {
    "INVALID_JSON": InvalidJsonError,
    "ORGANIZATION_IS_PAUSED": OrganizationPausedError,
    "UNAUTHORIZED": AuthenticationError,
    "INVALID_TOKEN": AuthenticationError,
    "ACCESS_DENIED": AccessDeniedError,
    "ORGANIZATION_NOT_FOUND": OrganizationNotFoundError,
    "SOURCE_DOES_NOT_EXIST": SourceDoesNotExistError,
    "MISSING_PARAMETER": InvalidParameterError,
    "INVALID_PARAMETER": InvalidParameterError,
    "DOCUMENT_LIMIT_EXCEEDED": DocumentLimitExceededError,
    "UNSUPPORTED_MEDIA_TYPE": UnsupportedMediaTypeError,
    "TOO_MANY_REQUESTS": TooManyRequestsError,
    "TOO_MANY_DOCUMENTS_DAILY": DailyQuotaExceededError,
}

_BY_STATUS_CODE: dict[int, type[CoveoError]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    403: AccessDeniedError,
    404: NotFoundError,
    408: ServiceError,
    412: InvalidParameterError,
    413: RequestTooLargeError,
    415: UnsupportedMediaTypeError,
    429: TooManyRequestsError,
}


def missing_privilege_error(refused: AccessDeniedError, doing: str, privileges: str) -> AccessDeniedError:
    """
    Return a refusal with the privileges that are lacking.

    :param refused: The refusal.
    :param doing: What the key may not do: "view sources".
    :param privileges: What it needs for that, in the words of https://docs.coveo.com/en/1707/.
    """
    return AccessDeniedError(
        refused.tried,
        **{
            **refused.fields(),
            "cause": f"the API key may not {doing}, as one that may only push",
            "remedy": f"Grant the key {privileges}, or use a connection whose key has that; "
            "see https://docs.coveo.com/en/1707/",
        },
    )


def error_to_json(error: CoveoError) -> dict[str, Any]:
    """
    Return an error as small JSON, from which :func:`error_from_json` makes it again.

    :param error: The error.
    """
    return {"error": type(error).__name__, "tried": error.tried, **error.fields()}


def error_from_json(described: Mapping[str, Any]) -> CoveoError:
    """
    Return the error that :func:`error_to_json` described.

    :param described: What that function returned.
    """
    fields = dict(described)
    error_class = globals().get(fields.pop("error"))
    if not (isinstance(error_class, type) and issubclass(error_class, CoveoError)):
        error_class = CoveoError
    return error_class(fields.pop("tried"), **fields)


def error_from_answer(
    tried: str,
    status_code: int,
    body: bytes,
    headers: Mapping[str, str],
    *,
    retry_after: float | None = None,
    default_class: type[CoveoError] | None = None,
) -> CoveoError:
    """
    Return the error that an answer outside of 2xx stands for, whatever its body looks like.

    :param tried: What was tried, on which source.
    :param status_code: The answer's HTTP status.
    :param body: The answer's body: JSON, XML, HTML, truncated or empty.
    :param headers: The answer's headers, looked up in any case.
    :param retry_after: The seconds that the answer asks to wait.
    :param default_class: The class for a 4xx answer whose code Coveo does not document for this call.
    """
    lower_case = {name.lower(): value for name, value in headers.items()}
    error_code, answer = _read_body(body)
    return _error_class(status_code, error_code, lower_case, default_class)(
        tried,
        status_code=status_code,
        error_code=error_code,
        request_id=lower_case.get("x-request-id") or lower_case.get("x-amz-request-id"),
        answer=answer,
        retry_after=retry_after,
    )


def _error_class(
    status_code: int,
    error_code: str | None,
    headers: Mapping[str, str],
    default_class: type[CoveoError] | None,
) -> type[CoveoError]:
    if headers.get("x-coveo-waf-action", "").lower() == "block":
        return FirewallBlockedError
    # An error code speaks for itself only below 500: a gateway's 503 stays worth a retry whatever it says.
    if status_code < 500 and error_code in _BY_ERROR_CODE:
        return _BY_ERROR_CODE[error_code]
    if status_code >= 500:
        return ServiceError
    # That something is too large, or too much, is so wherever it was sent.
    if default_class is not None and status_code >= 400 and status_code not in {413, 429}:
        return default_class
    if 300 <= status_code < 400:
        return RedirectError
    return _BY_STATUS_CODE.get(status_code, UnexpectedAnswerError)


def _read_body(body: bytes) -> tuple[str | None, str]:
    """Return the error code and the words of an error body in any of the forms that were seen."""
    text = body[:_MAX_BODY_READ].decode("utf-8", errors="replace").strip()
    if not text:
        return None, ""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        parsed = None
    if isinstance(parsed, dict):
        return _first_text(parsed, "errorCode", "code", "type"), sanitize(
            _first_text(parsed, "message", "detail", "title", "errorMessage") or ""
        )
    if text.startswith("{"):
        return _from_truncated_json(text)
    if re.match(r"<\?xml|<Error[\s>]", text):
        # S3's error bodies repeat the signed request: nothing but these two elements is taken from them.
        return _element(text, "Code"), sanitize(_element(text, "Message") or "")
    if text.startswith("<"):
        return None, sanitize(_element(text, "title") or _element(text, "h1") or "a page of HTML")
    return None, sanitize(text)


def _first_text(parsed: Mapping[str, Any], *keys: str) -> str | None:
    for key in keys:
        value = parsed.get(key)
        if isinstance(value, str) and value:
            return sanitize(value)
    return None


def _from_truncated_json(text: str) -> tuple[str | None, str]:
    code = re.search(r'"errorCode"\s*:\s*"(\w+)"', text)
    message = re.search(r'"message"\s*:\s*"([^"]*)', text)
    return (code.group(1) if code else None), sanitize(message.group(1) if message else "a truncated answer")


def _element(text: str, name: str) -> str | None:
    found = re.search(rf"<{name}(?:\s[^<>]*)?>([^<]*)", text, flags=re.IGNORECASE)
    return found.group(1).strip() if found else None


def sanitize(text: str) -> str:
    """
    Return ``text`` on one line, bounded, and without the queries of URLs, which can hold signatures.

    :param text: What somebody else said.
    """
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    flat = without_url_queries(" ".join(printable.split()))
    return flat if len(flat) <= _MAX_MESSAGE else flat[: _MAX_MESSAGE - 1] + "…"


def short_repr(value: object) -> str:
    """
    Return how a value that was refused is shown in a message: as Python writes it, but bounded.

    :param value: The value.
    """
    try:
        text = _short_repr.repr(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


def without_url_queries(text: str) -> str:
    """
    Return ``text`` with what may be secret in every URL or path in it replaced: user and query.

    :param text: What may hold URLs.
    """
    return _URL_QUERY.sub("?…", _URL_USER.sub("//…@", text))


# The names that 0.1 documented.
shortened = sanitize
shown = short_repr
without_privilege = missing_privilege_error
