"""The object storage behind file containers: presigned uploads like those of S3."""

from __future__ import annotations

import hashlib
from urllib.parse import quote, urlencode
from xml.sax.saxutils import escape

from starlette.routing import Route

from airflow_provider_coveo.simulator.call import Call
from airflow_provider_coveo.simulator.errors import StorageError
from airflow_provider_coveo.simulator.exchange import Answer
from airflow_provider_coveo.simulator.items import MEGABYTE
from airflow_provider_coveo.simulator.records import Container
from airflow_provider_coveo.simulator.state import CONTAINER_LIFE_SECONDS

UPLOAD_LIMIT = 256 * MEGABYTE
REQUIRED_HEADERS = {
    "x-amz-server-side-encryption": "AES256",
    "Content-Type": "application/octet-stream",
}
_BUCKET = "coveo-simulator-file-containers"


def upload_uri(call: Call, container: Container) -> str:
    """Return the upload address; anyone who has it can write."""
    signed_at = call.organization.clock.utcnow()
    query = urlencode(
        {
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Date": signed_at.strftime("%Y%m%dT%H%M%SZ"),
            "X-Amz-SignedHeaders": "content-type;host;x-amz-server-side-encryption",
            "X-Amz-Expires": str(CONTAINER_LIFE_SECONDS),
            "X-Amz-Credential": f"SIMULATOR/{signed_at:%Y%m%d}/us-east-1/s3/aws4_request",
            "X-Amz-Signature": container.signature,
        }
    )
    return f"{call.base_url}/{_BUCKET}/{quote(call.organization.id, safe='')}/{container.id}?{query}"


def upload(call: Call) -> Answer:
    """Accept an upload to a file container."""
    headers = call.exchange.headers
    organization = call.organization
    container = organization.containers.get(call.path["file"])
    if "authorization" in headers:
        message = "Only one auth mechanism allowed; the address is signed already"
        raise StorageError(400, "InvalidArgument", message)
    if container is None or call.exchange.query.get("X-Amz-Signature") != container.signature:
        raise StorageError(403, "SignatureDoesNotMatch", "The request signature does not match")
    if organization.expired(container):
        raise StorageError(403, "AccessDenied", "Request has expired")
    for name, value in REQUIRED_HEADERS.items():
        if headers.get(name.lower()) != value:
            raise StorageError(
                403, "SignatureDoesNotMatch", f"The header {name} is not the one that was signed"
            )
    unsigned = sorted(name for name in headers if name.startswith("x-amz-") and name not in REQUIRED_HEADERS)
    if unsigned:
        message = f"There were headers present in the request which were not signed: {', '.join(unsigned)}"
        raise StorageError(403, "AccessDenied", message)
    if "content-length" not in headers:
        raise StorageError(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
    if call.exchange.body_size > UPLOAD_LIMIT:
        raise StorageError(400, "EntityTooLarge", "The upload exceeds the maximum allowed size")
    with organization.transaction():
        if not container.consumed:
            container.content = call.exchange.body
    etag = hashlib.md5(call.exchange.body, usedforsecurity=False).hexdigest()
    return Answer(
        200,
        headers={
            "ETag": f'"{etag}"',
            "x-amz-server-side-encryption": "AES256",
        },
    )


def storage_error(error: StorageError, request_id: str) -> Answer:
    """Return an error response in S3's format."""
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{error.code}</Code><Message>{escape(error.message)}</Message>"
        f"<RequestId>{request_id}</RequestId></Error>"
    )
    return Answer(error.status, body.encode(), "application/xml")


ROUTES = [Route(f"/{_BUCKET}/{{organization}}/{{file}}", upload, methods=["PUT"], name="upload")]
