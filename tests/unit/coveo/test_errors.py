from __future__ import annotations

import pickle

import pytest

from airflow_provider_coveo.coveo import errors
from airflow_provider_coveo.coveo.errors import CoveoError, error_from_answer

S3_ERROR = (
    b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Request has expired</Message>"
    b"<StringToSign>secret</StringToSign></Error>"
)
TRIED = "Could not set the status of source 'acme-products'"


def answered(status: int, body: bytes = b"", **headers: str) -> CoveoError:
    return error_from_answer(TRIED, status, body, {name.replace("_", "-"): v for name, v in headers.items()})


@pytest.mark.parametrize(
    ("status", "code", "expected", "retry_can_help"),
    [
        (400, "INVALID_JSON", errors.InvalidJsonError, False),
        (400, "ORGANIZATION_IS_PAUSED", errors.OrganizationPausedError, False),
        (400, "SOMETHING_NEW", errors.InvalidRequestError, False),
        (401, "UNAUTHORIZED", errors.AuthenticationError, False),
        (401, "INVALID_TOKEN", errors.AuthenticationError, False),
        (403, "ACCESS_DENIED", errors.AccessDeniedError, False),
        (404, "ORGANIZATION_NOT_FOUND", errors.OrganizationNotFoundError, False),
        (404, "X", errors.NotFoundError, False),
        (408, "X", errors.ServiceError, True),
        (412, "SOURCE_DOES_NOT_EXIST", errors.SourceDoesNotExistError, False),
        (412, "MISSING_PARAMETER", errors.InvalidParameterError, False),
        (412, "INVALID_PARAMETER", errors.InvalidParameterError, False),
        (412, "DOCUMENT_LIMIT_EXCEEDED", errors.DocumentLimitExceededError, False),
        (413, "X", errors.RequestTooLargeError, False),
        (415, "UNSUPPORTED_MEDIA_TYPE", errors.UnsupportedMediaTypeError, False),
        (429, "TOO_MANY_REQUESTS", errors.TooManyRequestsError, True),
        (429, "X", errors.TooManyRequestsError, True),
        (429, "TOO_MANY_DOCUMENTS_DAILY", errors.DailyQuotaExceededError, False),
        (500, "X", errors.ServiceError, True),
        (502, "X", errors.ServiceError, True),
        (503, "INVALID_TOKEN", errors.ServiceError, True),
        (504, "X", errors.ServiceError, True),
        (302, "X", errors.RedirectError, False),
        (418, "X", errors.UnexpectedAnswerError, False),
    ],
)
def test_each_documented_error_has_its_own_class(
    status: int, code: str, expected: type[CoveoError], retry_can_help: bool
) -> None:
    body = b'{"errorCode": "%s", "message": "As it is."}' % code.encode()
    error = answered(status, body, X_Request_Id="r-1")
    assert type(error) is expected
    assert (error.status_code, error.error_code, error.request_id) == (status, code, "r-1")
    assert error.retry_can_help is retry_can_help
    for part in (TRIED, str(status), code, "As it is.", "r-1", "Likely cause: ", "Remedy: "):
        assert part in str(error)


@pytest.mark.parametrize("action", ["block", "BLOCK"])
def test_a_firewall_s_403_is_distinguished_from_a_missing_privilege(action: str) -> None:
    assert isinstance(answered(403, x_coveo_waf_action=action), errors.FirewallBlockedError)


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (b"", None, ""),
        (b"   ", None, ""),
        (b'{"message": "Only words"}', None, "Only words"),
        (b'{"code": "X1", "title": "Platform style"}', "X1", "Platform style"),
        (b'{"errorCode": "INVALID_TOKEN", "message": "Trunca', "INVALID_TOKEN", "Trunca"),
        (b'{"errorCode": ["odd"], "message": {}}', None, ""),
        (b"<html><head><title>502 Bad Gateway</title></head></html>", None, "502 Bad Gateway"),
        (b"<!doctype html><p>hello", None, "an HTML page"),
        (S3_ERROR, "AccessDenied", "Request has expired"),
        (b"upstream connect error", None, "upstream connect error"),
        (b"\xff\xfe\x00\xe2\x80\xae", None, "\ufffd\ufffd"),
        (b"[" * 100_000, None, "[" * 399 + "…"),
        (b"[1, 2]", None, "[1, 2]"),
        (b"see https://s3/x?X-Amz-Signature=abc now", None, "see https://s3/x?… now"),
        (b"no way by http://me:secret@proxy:3128 to it", None, "no way by http://…@proxy:3128 to it"),
        (b"x" * 1_000_000, None, "x" * 399 + "…"),
    ],
)
def test_any_response_body_is_accepted_and_shown_only_in_part(
    body: bytes, code: str | None, said: str
) -> None:
    error = answered(502, body)
    assert (error.error_code, error.answer) == (code, said)
    assert "secret" not in str(error)


def test_an_error_can_be_sent_to_another_process() -> None:
    error = answered(429, b'{"errorCode": "TOO_MANY_REQUESTS", "message": "m"}', X_Request_Id="r")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.fields() == error.fields()
