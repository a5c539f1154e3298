"""The receiver's server: Coveo's hosts and the storage for presigned uploads, on one socket."""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.strict_coveo.content import (
    CONTENT_KEYS,
    MAX_CONTAINER_SIZE,
    MAX_REQUEST_SIZE,
    InvalidJsonError,
    judge_identity,
    judge_identity_batch,
    judge_item,
    judge_item_batch,
    judge_uri,
    read_json,
    with_documented_keys,
)
from tests.strict_coveo.declarations import (
    Operation,
    find_operation,
    judge_parameter,
    judge_query,
    load_operations,
    read_query,
)

STORAGE = "/strict-coveo-storage/proda/blobstore/"
DOCUMENTED_KEYS = ("documentId", "compressionType", "parentId", "fileExtension", "permissions", *CONTENT_KEYS)
#: The headers of HTTP itself, which ``requiredHeaders`` never contains.
TRANSPORT_HEADERS = {
    "host",
    "connection",
    "content-length",
    "user-agent",
    "accept",
    "accept-encoding",
    "traceparent",
    "tracestate",
}
#: Paths that Coveo declares in other files, which are not available: 404, but no objection.
ELSEWHERE = re.compile(
    r"/rest/organizations/[^/]+/(limits/content/[A-Za-z]+|status)|/rest/global/regions", re.ASCII
)
IDENTITY_BODIES = {
    "identityBody": "IdentityBody",
    "mappedIdentityBody": "MappedIdentityBody",
    "baseIdentityBody": "BaseIdentityBody",
}


@dataclass
class Request:
    """A request as received."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name]
        return ", ".join(found) if found else None


@dataclass(frozen=True)
class Call:
    """
    A parsed request.

    :param operation: the method and the declared path, ``"PUT upload"`` for an upload.
    :param path: the values in the path.
    :param query: the parameters.
    :param body: the parsed body; for an upload, its bytes.
    :param status: the status of the response.
    :param request: the request as received.
    """

    operation: str
    path: dict[str, str]
    query: dict[str, str]
    body: Any
    status: int
    request: Request = field(repr=False)


@dataclass
class Container:
    """A file container: the address and headers that it accepts, and the uploaded content."""

    target: str
    headers: dict[str, str]
    content: bytes | None = None
    is_used: bool = False


class Refusal(Exception):  # noqa: N818 - it is an answer rather than an error.
    """An error response."""

    def __init__(self, status: int, code: str, *sentences: str) -> None:
        super().__init__("; ".join(sentences))
        self.status, self.code, self.sentences = status, code, sentences


@dataclass
class StrictCoveo:
    """
    The receiver. Use it as a context manager; ``url`` is its address while it runs.

    :param directory: the folder of the OpenAPI files.
    """

    directory: Path
    objections: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    #: The accepted batches, in order; a single item is a batch of one. Content is in ``contents``.
    batches: list[dict[str, Any]] = field(default_factory=list)
    #: The contents of the file containers that items named, by fileId.
    contents: dict[str, bytes] = field(default_factory=dict)
    #: Responses to send instead of the minimal one, by method and declared path.
    answers: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.operations = load_operations(self.directory)
        self._containers: dict[str, Container] = {}
        self._streams: set[str] = set()
        self._lock = threading.RLock()
        self.url = ""

    def __enter__(self) -> StrictCoveo:
        receiver = self

        class Handler(_Handler):
            strict = receiver

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def reset(self) -> None:
        """Forget all requests."""
        with self._lock:
            for kept in (self.objections, self.calls, self.batches):
                kept.clear()
            self.contents.clear()
            self.answers.clear()

    def items(self) -> dict[str, dict[str, Any]]:
        """Return the result of all batches, by documentId."""
        index: dict[str, dict[str, Any]] = {}
        with self._lock:
            for batch in self.batches:
                for item in batch.get("addOrUpdate", []):
                    named = with_documented_keys(item, DOCUMENTED_KEYS)
                    index[named["documentId"]] = named
                for deletion in batch.get("delete", []):
                    index.pop(deletion["documentId"], None)
                    if deletion.get("deleteChildren"):
                        prefix = f"{deletion['documentId']}/"
                        index = {name: item for name, item in index.items() if not name.startswith(prefix)}
        return index

    # -- responses ---------------------------------------------------------------------------------

    def answer(self, request: Request) -> tuple[int, str, bytes]:
        """Return the status, the type and the body of the response."""
        with self._lock:
            if request.target.startswith(STORAGE):
                return self._answer_upload(request)
            path, _, query_text = request.target.partition("?")
            call: dict[str, Any] = {
                "operation": f"{request.method} {path}",
                "path": {},
                "query": {},
                "body": None,
            }
            try:
                status, value = self._answer_call(request, path, query_text, call)
            except Refusal as refusal:
                self._object(request, *refusal.sentences)
                status, value = (
                    refusal.status,
                    {"errorCode": refusal.code, "message": "; ".join(refusal.sentences)},
                )
            self.calls.append(Call(**call, status=status, request=request))
            if status == 204:
                return status, "", b""
            return status, "application/json", json.dumps(value).encode()

    def _object(self, request: Request, *sentences: str) -> None:
        path = request.target.partition("?")[0]
        self.objections += [f"{request.method} {path}: {sentence}" for sentence in sentences]

    def _answer_call(
        self, request: Request, path: str, query_text: str, call: dict[str, Any]
    ) -> tuple[int, Any]:
        found = find_operation(self.operations, request.method, path)
        if isinstance(found, str):
            if request.method == "GET" and ELSEWHERE.fullmatch(path):
                raise Refusal(404, "NOT_FOUND")
            raise Refusal(404, "NOT_FOUND", found)
        operation, call["path"] = found
        call["operation"] = operation.name
        _check_headers(request)
        call["query"], sentences = read_query(query_text)
        if sentences:
            raise Refusal(412, "INVALID_PARAMETER", *sentences)
        for code, sentence in judge_query(operation, call["query"]):
            raise Refusal(412, code, sentence)
        for name, text in call["path"].items():
            for sentence in judge_parameter(operation.parameters("path").get(name, {}), text):
                raise Refusal(412, "INVALID_PARAMETER", f"{name} in the path is {text!r}: {sentence}")
        call["body"] = _read_body(operation, request)
        if operation.file == "coveo-push.yml":
            return operation.success(), self._push(operation, call)
        if call["body"] is not None and operation.body_schema() is not None:
            violations = [*_judge_names(operation, call["body"])]
            violations += operation.violations(operation.body_schema() or {}, call["body"])
            if violations:
                raise Refusal(400, "INVALID_JSON", *violations)
        return operation.success(), self._least_answer(operation)

    def _least_answer(self, operation: Operation) -> Any:
        schema = operation.answer_schema()
        value = self.answers.get(operation.name)
        if value is None:
            # No object in the files has required properties, so the minimal response is empty.
            value = [] if (schema or {}).get("type") == "array" else {}
        elif schema is not None and (violations := list(operation.violations(schema, value))):
            raise AssertionError(f"The answer set for {operation.name} is not as declared: {violations}")
        return value

    def _push(self, operation: Operation, call: dict[str, Any]) -> Any:
        query, body = call["query"], call["body"]
        name = operation.template.removeprefix("/push/v1/organizations/{organizationId}/")
        documents = name.removeprefix("sources/{sourceId}/")
        sentences: list[str] = []
        if "documentId" in query:
            sentences += judge_uri("documentId", query["documentId"])
        if "epochMilliseconds" in call["path"] and not re.fullmatch(
            r"\d{13}", call["path"]["epochMilliseconds"]
        ):
            sentences.append(f"{call['path']['epochMilliseconds']!r} is not milliseconds since the epoch")
        if documents == "documents" and operation.method == "PUT":
            sentences += judge_item(operation, body, self._take_item, query.get("compressionType"))
            if not sentences:
                self.batches.append({"addOrUpdate": [{"documentId": query["documentId"], **body}]})
        elif "fileId" in query:
            sentences += self._judge_batch(operation, query["fileId"])
        for parameter, definition in IDENTITY_BODIES.items():
            if parameter in operation.parameters("body"):
                sentences += judge_identity(operation, body, definition)
        if "streamId" in call["path"] and call["path"]["streamId"] not in self._streams:
            sentences.append(f"there is no open stream {call['path']['streamId']!r}")
        if sentences:
            raise Refusal(400, "INVALID_JSON", *sentences)
        return self._push_answer(operation, call)

    def _push_answer(self, operation: Operation, call: dict[str, Any]) -> Any:
        reference = (operation.answer_schema() or {}).get("$ref", "").rpartition("/")[2]
        if operation.template.endswith("/close"):
            self._streams.remove(call["path"]["streamId"])
        if reference == "CatalogStreamOutArgs":
            return {"orderingId": "1506700606240", "requestId": str(uuid.uuid4())}
        if reference:
            answer = self._create_container(call["path"]["organizationId"])
            if reference == "OpenStreamOutArgs":
                answer["streamId"] = str(uuid.uuid4())
                self._streams.add(answer["streamId"])
            return answer
        # Coveo's pages show both as the empty body; the file declares none.
        return None if len(self.calls) % 2 else {}

    # -- file containers -----------------------------------------------------------------------------

    def _create_container(self, organization: str) -> dict[str, Any]:
        file_id = str(uuid.uuid4())
        # A signature contains characters that a client must neither encode again nor decode.
        target = (
            f"{STORAGE}{organization}/{file_id}?X-Amz-Credential=AKIA%2F20260101%2Fus-east-1%2Fs3"
            "&X-Amz-SignedHeaders=host%3Bx-amz-server-side-encryption&X-Amz-Signature=ab%2Bcd%3D%3D&empty="
        )
        headers = {
            "x-amz-server-side-encryption": "AES256",
            "Content-Type": "application/octet-stream",
            # Only this container has this header: the response defines the required ones, not a fixed list.
            "x-amz-meta-container": file_id,
        }
        self._containers[file_id] = Container(target, headers)
        return {"uploadUri": self.url + target, "fileId": file_id, "requiredHeaders": headers}

    def _take(self, file_id: str) -> bytes | str:
        """Return the content of a container and delete it, or return why there is none."""
        container = self._containers.get(file_id)
        if container is None:
            return f"there is no file container {file_id!r}"
        if container.is_used:
            return f"the file container {file_id!r} was used before"
        if container.content is None:
            return f"nothing was uploaded into the file container {file_id!r}"
        container.is_used = True
        content, container.content = container.content, None
        return content

    def _take_item(self, file_id: str) -> bytes | str:
        content = self._take(file_id)
        if isinstance(content, bytes):
            self.contents[file_id] = content
        return content

    def _judge_batch(self, operation: Operation, file_id: str) -> Iterator[str]:
        content = self._take(file_id)
        if isinstance(content, str):
            yield content
            return
        try:
            batch = read_json(content)
        except InvalidJsonError as error:
            yield f"the batch in the container is not JSON: {error}"
            return
        if operation.template.endswith("permissions/batch"):
            found = list(judge_identity_batch(operation, batch))
        elif "/stream/" in operation.template:
            found = [] if isinstance(batch, dict) else ["the stream's content is no object"]
        else:
            found = list(judge_item_batch(operation, batch, self._take_item))
            if not found:
                self.batches.append(batch)
        yield from found

    def _answer_upload(self, request: Request) -> tuple[int, str, bytes]:
        file_id = request.target.partition("?")[0].rpartition("/")[2]
        container = self._containers.get(file_id)
        status, code, sentences = 200, "", []
        if container is None or container.target != request.target:
            status, code, sentences = 403, "SignatureDoesNotMatch", ["the address was not given so"]
        elif request.method != "PUT":
            status, code, sentences = 405, "MethodNotAllowed", ["a container takes PUT only"]
        elif container.is_used:
            status, code, sentences = 403, "AccessDenied", ["the container was used and is gone"]
        else:
            sentences = list(_judge_upload_headers(request, container.headers))
            if sentences:
                status, code = 403, "SignatureDoesNotMatch"
            else:
                container.content = request.body
        self._object(request, *sentences)
        self.calls.append(Call("PUT upload", {"fileId": file_id}, {}, request.body, status, request))
        if status == 200:
            return status, "", b""
        return status, "application/xml", f"<Error><Code>{code}</Code></Error>".encode()


def _judge_upload_headers(request: Request, required: dict[str, str]) -> Iterator[str]:
    named = {name.lower() for name in required}
    for name, value in required.items():
        if request.header(name.lower()) != value:
            yield f"the header {name} is {request.header(name.lower())!r}, where {value!r} is required"
    for name, _ in request.headers:
        if name.lower() not in named | TRANSPORT_HEADERS:
            yield f"the upload has the header {name}, which the container did not name"
    if request.header("content-length") is None:
        yield "the upload has no Content-Length"


def _check_headers(request: Request) -> None:
    authorization = request.header("authorization")
    if authorization is None:
        raise Refusal(401, "UNAUTHORIZED", "there is no Authorization")
    if not re.fullmatch(r"Bearer [A-Za-z0-9\-._~+/]+=*", authorization):
        raise Refusal(401, "INVALID_TOKEN", "the Authorization is no Bearer token")
    accepted = (request.header("accept") or "*/*").lower()
    types = {part.partition(";")[0].strip() for part in accepted.split(",")}
    if not types & {"application/json", "application/*", "*/*"}:
        raise Refusal(400, "INVALID_HEADER", f"the Accept {accepted!r} takes no application/json")
    if not request.header("host"):
        raise Refusal(400, "INVALID_HEADER", "there is no Host")
    if request.header("content-length") is not None and request.header("transfer-encoding") is not None:
        raise Refusal(400, "INVALID_HEADER", "there are both a Content-Length and a Transfer-Encoding")
    if request.header("content-encoding") not in (None, "identity"):
        raise Refusal(415, "UNSUPPORTED_MEDIA_TYPE", "no Content-Encoding is declared")


def _read_body(operation: Operation, request: Request) -> Any:
    schema = operation.body_schema()
    if not request.body:
        if schema is not None:
            raise Refusal(400, "INVALID_JSON", "there is no body, and one is required")
        return None
    content_type = request.header("content-type") or ""
    if not re.fullmatch(r'application/json(\s*;\s*charset="?utf-8"?)?', content_type, re.IGNORECASE):
        raise Refusal(415, "UNSUPPORTED_MEDIA_TYPE", f"the Content-Type is {content_type!r}")
    if len(request.body) > MAX_REQUEST_SIZE:
        raise Refusal(413, "REQUEST_TOO_LARGE", f"the body has {len(request.body)} bytes")
    try:
        value = read_json(request.body)
    except InvalidJsonError as error:
        raise Refusal(400, "INVALID_JSON", f"the body is not JSON: {error}") from None
    if schema is None and value != {}:
        raise Refusal(400, "INVALID_JSON", "there is a body, and none is declared")
    return value


def _judge_names(operation: Operation, body: Any) -> Iterator[str]:
    """Yield the top-level names that an OpenAPI 3 schema does not declare (they inherit, so stay open)."""
    if operation.is_swagger or not isinstance(body, dict):
        return
    names: set[str] = set()
    pending, seen = [operation.body_schema() or {}], set()
    while pending:
        schema = pending.pop()
        reference = schema.get("$ref")
        if reference and reference not in seen:
            seen.add(reference)
            pending.append(operation.document["components"]["schemas"][reference.rpartition("/")[2]])
        if "additionalProperties" in schema:
            return
        names |= set(schema.get("properties", {}))
        pending += [*schema.get("anyOf", []), *schema.get("allOf", [])]
    for name in body.keys() - names:
        yield f"the body has {name!r}, which is not declared"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    strict: StrictCoveo

    def _serve(self) -> None:
        # ``self.path`` reduces leading slashes to one, unlike the request line.
        method, target, _ = self.raw_requestline.decode("latin-1").split(" ", 2)
        length = self.headers.get("Content-Length")
        is_upload = target.startswith(STORAGE)
        if length is not None and int(length) > MAX_CONTAINER_SIZE:
            self.strict.objections.append(f"{method} {target.partition('?')[0]}: the body has {length} bytes")
            self.close_connection = True
            self._send(400 if is_upload else 413, "application/xml" if is_upload else "application/json", b"")
            return
        if length is not None:
            body = self.rfile.read(int(length))
        elif "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            body = self._read_chunks()
        else:
            body = b""
        try:
            answer = self.strict.answer(Request(method, target, list(self.headers.items()), body))
        except Exception as error:  # An error of the receiver is an objection, too, so that it is not missed.
            self.strict.objections.append(f"{method}: the receiver failed: {error!r}")
            answer = (500, "application/json", b'{"errorCode": "UNKNOWN", "message": "failed"}')
        self._send(*answer)

    def _read_chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def _send(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        if content_type:
            self.send_header("Content-Type", content_type)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = do_HEAD = _serve  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Print nothing."""
