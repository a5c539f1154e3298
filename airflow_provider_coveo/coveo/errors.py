"""Coveo's errors as classes: the attempted action, Coveo's response, the likely cause and the remedy."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Mapping
from typing import Any, ClassVar, Final

#: Bytes of an error body that are read, so that an endless error page costs nothing.
_MAX_BODY_READ = 64 * 1024
#: Characters of Coveo's own message that an error repeats.
_MAX_MESSAGE = 400

#: Characters of a rejected value that a message shows.
_MAX_SHOWN = 120
_short_repr = reprlib.Repr()
_short_repr.maxstring = _short_repr.maxother = _MAX_SHOWN

# Compiled when they are first used, because every DAG file imports this module.
_URL_QUERY: Final = r"\?[^\s'\"<>)]+"
_URL_USER: Final = r"//[^\s/@]+@"


class CoveoError(Exception):
    """
    Base class of every error that this provider raises about Coveo.

    :param tried: The attempted action and its source, as in ``Could not push items to source 'x'``.
    :param status_code: The HTTP status of Coveo's response, ``None`` without a response.
    :param error_code: Coveo's ``errorCode``, ``None`` if the response has none.
    :param request_id: The response's ``X-Request-ID``, which Coveo's support asks for.
    :param answer: Coveo's error message.
    :param cause: The likely cause; each class has a default.
    :param remedy: The action that fixes the error; each class has a default.
    :param retry_after: The seconds that Coveo asks to wait, ``None`` if it doesn't ask.
    :param note: More details, appended to the message.
    :param accepted: The result of a push so far: what Coveo had accepted before the error. ``None`` for
        other actions.
    :param rejected: The numbers of operations (``rejected``) or of whole batches (``rejected_batches``) that
        the indexing pipeline rejected. ``None`` if the error is not about these.

    The codes and their causes come from https://docs.coveo.com/en/95/.
    """

    default_cause: ClassVar[str] = ""
    default_remedy: ClassVar[str] = ""
    #: Whether the same request can succeed later. If not, the task fails without using its retries.
    retry_can_help: ClassVar[bool] = False
    #: Whether Coveo may have carried out the request although no response confirms it.
    may_be_done: bool = True
    #: The number of earlier attempts of the request that Coveo may have carried out.
    repeats: int = 0

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
        accepted: Mapping[str, object] | None = None,
        rejected: Mapping[str, int] | None = None,
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
        self.rejected = rejected
        super().__init__(self._message())

    def _message(self) -> str:
        parts = [self.tried.rstrip(".")]
        if self.status_code is not None:
            response = f": Coveo returned {self.status_code}"
            if self.error_code:
                response += f" {self.error_code}"
            if self.answer:
                response += f" “{self.answer}”"
            if self.request_id:
                response += f" (request ID {self.request_id})"
            parts.append(response)
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
        """Return the keyword arguments that create an equal error."""
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
            # An earlier version on another machine does not have this parameter.
            **({} if self.rejected is None else {"rejected": self.rejected}),
        }

    def __reduce__(self) -> tuple[object, ...]:
        # Pickle carries exceptions between processes, and by default passes the message as `tried`.
        return _rebuild, (type(self), self.tried, self.fields())


def _rebuild(error_class: type[CoveoError], tried: str, fields: dict[str, Any]) -> CoveoError:
    return error_class(tried, **fields)


class CoveoInputError(CoveoError, ValueError):
    """An invalid value, rejected before anything was sent."""


class SourceNameTakenError(CoveoInputError):
    """The name of a new source already belongs to another source; no source was created."""

    default_remedy = "Choose another name, or delete that source if nobody needs it"


class CoveoConfigurationError(CoveoInputError):
    """An invalid or incomplete connection."""


class SourceTestFailedError(CoveoError):
    """A new source did not index its test item."""

    default_cause = "a rule, an extension or a mapping of the source does not suit the test item"
    default_remedy = (
        "Correct the source, or pass a test_item that resembles the source's real items, then clear the "
        "task: it resumes with the same source"
    )
    # Somebody may fix the source in the meantime, or the pipeline may catch up.
    retry_can_help = True


class InvalidRequestError(CoveoError):
    """400: Coveo could not read the request."""

    default_cause = "a parameter or the body does not match what the API expects"
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
    """401: the API key is missing, unknown, expired, disabled, or not allowed from this address."""

    default_cause = (
        "the connection's password is not a valid API key in this organization's region, the key was "
        "disabled or deleted, or its IP rules block this worker"
    )
    default_remedy = "Set the connection's password to a valid API key, and check its region"


class AccessDeniedError(CoveoError):
    """403: the API key is valid, but lacks a privilege."""

    default_cause = "the API key lacks the privilege for this call"
    default_remedy = (
        "Grant the privilege to the key, or use the key that the source's “Create API key” creates"
    )


class FirewallBlockedError(CoveoError):
    """Coveo's web application firewall blocked the request as an attack."""

    default_cause = "the firewall in front of Coveo mistook the item's content for an attack"
    default_remedy = "Push the item through a file container, which the firewall does not read"


class NotFoundError(CoveoError):
    """404: the resource in the path does not exist."""

    default_cause = "the source or another ID in the request does not exist in this organization"
    default_remedy = "Compare the IDs with those in Coveo's Administration Console"


class OrganizationNotFoundError(NotFoundError):
    """404 ``ORGANIZATION_NOT_FOUND``."""

    default_cause = "the organization ID is wrong, or the organization is in another region"
    default_remedy = "Correct the connection's login (the organization ID) or its region"


class InvalidParameterError(CoveoError):
    """412 ``MISSING_PARAMETER`` or ``INVALID_PARAMETER``, and any other precondition that Coveo names."""

    default_cause = "a parameter is missing or has a value that Coveo does not accept"
    default_remedy = "Correct the parameter that Coveo names"


class SourceDoesNotExistError(CoveoError):
    """412 ``SOURCE_DOES_NOT_EXIST``."""

    default_cause = "the source ID is wrong, or the source is still being created (up to ten minutes)"
    default_remedy = "Copy the ID from the Sources page of Coveo's Administration Console"


class DocumentLimitExceededError(CoveoError):
    """412 ``DOCUMENT_LIMIT_EXCEEDED``."""

    default_cause = "the organization's entitlement for items in the index is used up"
    default_remedy = "Delete items, or have the license extended"


class RequestTooLargeError(CoveoError):
    """413: the request is larger than Coveo accepts."""

    default_cause = "a request may hold up to 6 MB, a file container up to 256 MB"
    default_remedy = "Reduce the batch size, compress the data, or move it to a file container"


class UnsupportedMediaTypeError(CoveoError):
    """415 ``UNSUPPORTED_MEDIA_TYPE``."""

    default_cause = "something between the worker and Coveo changed the request's Content-Type"
    default_remedy = "Check the connection's proxy"


class TooManyRequestsError(CoveoError):
    """429 ``TOO_MANY_REQUESTS``: too many calls in a short time, or the daily limit of calls is reached."""

    default_cause = "the organization makes more calls than its limits allow"
    default_remedy = "Push fewer, larger batches, and run fewer pushing tasks at once"
    retry_can_help = True


class DailyQuotaExceededError(CoveoError):
    """429 ``TOO_MANY_DOCUMENTS_DAILY``: Coveo accepts no more items until the quota renews."""

    default_cause = "the organization's daily quota of items is used up; it renews the next day"
    default_remedy = "Clear the task after the quota renews, or have the quota raised"


class ServiceError(CoveoError):
    """408 or 5xx: Coveo, or a gateway in front of it, failed."""

    default_cause = "Coveo, or a gateway in front of it, failed"
    default_remedy = "Retry later; https://status.cloud.coveo.com shows known incidents"
    retry_can_help = True


class RedirectError(CoveoError):
    """3xx: something else responded in Coveo's place."""

    default_cause = "the host is not Coveo's API: a proxy or login page responded"
    default_remedy = "Correct the connection's host, platform_host or proxies"


class UnexpectedAnswerError(CoveoError):
    """A response that Coveo does not document."""

    default_cause = "the host is not Coveo's API, or the API changed"
    default_remedy = "Check the connection's host; if it is correct, report this response"


class UploadError(CoveoError):
    """A file container rejected the upload."""

    default_cause = "the container expired, or something on the way changed the upload's headers"
    default_remedy = (
        "Retry: each attempt creates a new container; allow `*.amazonaws.com` through the firewall"
    )
    retry_can_help = True


class NoAnswerError(CoveoError):
    """No response arrived: Coveo may or may not have carried out the request."""

    default_cause = "the network, a proxy or a firewall between this worker and Coveo"
    default_remedy = "Retry later; check that the worker can reach the host"
    retry_can_help = True


class CertificateError(CoveoError):
    """The host's TLS certificate could not be verified, so nothing was sent."""

    default_cause = "a proxy that inspects TLS, or an outdated certificate store on the worker"
    default_remedy = "Set the connection's verify extra to the path of the right CA bundle"


class SourceNotUsableError(CoveoError):
    """The source is in a state that it does not leave by itself, so waiting can't help."""

    default_cause = "an earlier operation on the source failed, or somebody disabled or deleted it"
    default_remedy = "Check the source on the Sources page of Coveo's Administration Console"


class ItemsRefusedError(CoveoError):
    """Coveo accepted items that its indexing pipeline then rejected."""

    default_remedy = "Correct the items as Coveo's reasons suggest, and push them again"


class IndexingUnknownError(CoveoError):
    """The logs can't show whether all pushed items are indexed."""

    default_remedy = "Push again, or pass on_repeated='warn' to accept this"


class SnapshotError(CoveoError):
    """The snapshot of a push could not be read or written."""

    default_cause = "the folder or the object storage does not respond, or denies access"
    default_remedy = "Check snapshot_path, and its connection's permissions to list, read, write and delete"
    retry_can_help = True


class RejectedItemsError(CoveoError, OSError):
    """The file of rejected items could not be written; all other items may have been pushed."""

    default_cause = "the folder or the object storage does not answer, or refuses"
    default_remedy = "Check rejected_path, and its connection's permission to write, then clear the task"
    retry_can_help = True


class SnapshotDamagedError(CoveoInputError):
    """A snapshot is truncated, was changed by others, or is not a snapshot; nothing was sent."""

    default_cause = "something else wrote to the folder for snapshots, or the storage lost a part"
    default_remedy = (
        "Restore the file, or push everything once with on_damaged_snapshot='push_all'; items that only "
        "this file contains are then not deleted"
    )


class SnapshotFormatError(CoveoInputError):
    """A snapshot of a format that this version does not read."""


class TooManyDeletionsError(CoveoInputError):
    """More items were missing from the input than may be deleted; none was deleted."""


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
    Return an access error that names the missing privileges.

    :param refused: Coveo's 403 error.
    :param doing: The action that the key lacks the privilege for: "view sources".
    :param privileges: The privileges that it needs, as https://docs.coveo.com/en/1707/ names them.
    """
    return AccessDeniedError(
        refused.tried,
        **{
            **refused.fields(),
            "cause": f"the API key lacks the privilege to {doing}, like any push-only key",
            "remedy": f"Grant the key {privileges}, or use a connection whose key has it; "
            "see https://docs.coveo.com/en/1707/",
        },
    )


def error_to_json(error: CoveoError) -> dict[str, object]:
    """
    Return an error as small JSON, from which :func:`error_from_json` restores it.

    :param error: The error.
    """
    return {"error": type(error).__name__, "tried": error.tried, **error.fields()}


def error_from_json(described: Mapping[str, Any]) -> CoveoError:
    """
    Return the error that :func:`error_to_json` serialized.

    :param described: The result of that function.
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
    Return the error for a response outside of 2xx, whatever its body looks like.

    :param tried: The attempted action and its source.
    :param status_code: The response's HTTP status.
    :param body: The response's body: JSON, XML, HTML, truncated or empty.
    :param headers: The response's headers, in any case.
    :param retry_after: The seconds that the response asks to wait.
    :param default_class: The class for a 4xx response whose code Coveo does not document for this call.
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
    # An error code is reliable only below 500: a gateway's 503 is worth a retry whatever its body contains.
    if status_code < 500 and error_code in _BY_ERROR_CODE:
        return _BY_ERROR_CODE[error_code]
    if status_code >= 500:
        return ServiceError
    # "Too large" and "too many" mean the same for every call.
    if default_class is not None and status_code >= 400 and status_code not in {413, 429}:
        return default_class
    if 300 <= status_code < 400:
        return RedirectError
    return _BY_STATUS_CODE.get(status_code, UnexpectedAnswerError)


def _read_body(body: bytes) -> tuple[str | None, str]:
    """Return the error code and the message of an error body in any known format."""
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
        # S3's error bodies repeat the signed request, so only these two elements are read.
        return _element(text, "Code"), sanitize(_element(text, "Message") or "")
    if text.startswith("<"):
        return None, sanitize(_element(text, "title") or _element(text, "h1") or "an HTML page")
    return None, sanitize(text)


def _first_text(parsed: Mapping[str, object], *keys: str) -> str | None:
    for key in keys:
        value = parsed.get(key)
        if isinstance(value, str) and value:
            return sanitize(value)
    return None


def _from_truncated_json(text: str) -> tuple[str | None, str]:
    code = re.search(r'"errorCode"\s*:\s*"(\w+)"', text)
    message = re.search(r'"message"\s*:\s*"([^"]*)', text)
    text = message.group(1) if message else "a truncated response"
    return (code.group(1) if code else None), sanitize(text)


def _element(text: str, name: str) -> str | None:
    found = re.search(rf"<{name}(?:\s[^<>]*)?>([^<]*)", text, flags=re.IGNORECASE)
    return found.group(1).strip() if found else None


def sanitize(text: str) -> str:
    """
    Return ``text`` on one line, bounded, and without the queries of URLs, which can contain signatures.

    :param text: Text from elsewhere, such as a response.
    """
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    flat = without_url_queries(" ".join(printable.split()))
    return flat if len(flat) <= _MAX_MESSAGE else flat[: _MAX_MESSAGE - 1] + "…"


def short_repr(value: object) -> str:
    """
    Return the bounded ``repr`` of a value, for a message.

    :param value: The value.
    """
    try:
        text = _short_repr.repr(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


def without_url_queries(text: str) -> str:
    """
    Return ``text`` with the parts of its URLs and paths replaced that can be secret: user and query.

    :param text: Text that may contain URLs.
    """
    return re.sub(_URL_QUERY, "?…", re.sub(_URL_USER, "//…@", text))


# Names that 0.1 documented.
shortened = sanitize
shown = short_repr
without_privilege = missing_privilege_error
