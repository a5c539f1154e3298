"""The Push API: statuses, items, batches, file containers and security identities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.routing import Route

from airflow_provider_coveo.coveo.statuses import SourceStatus
from airflow_provider_coveo.simulator.call import INT32_MAX, Call, json_answer
from airflow_provider_coveo.simulator.content import COMPRESSION_TYPES
from airflow_provider_coveo.simulator.errors import ApiError
from airflow_provider_coveo.simulator.exchange import Answer
from airflow_provider_coveo.simulator.items import (
    Rejection,
    canonical,
    is_document_id,
    json_problem,
    oddities,
    pipeline_problem,
)
from airflow_provider_coveo.simulator.json_body import RepeatedKeys, decode, has_repeated_keys, member
from airflow_provider_coveo.simulator.records import SentIdentity, Source
from airflow_provider_coveo.simulator.uploads import REQUIRED_HEADERS, upload_uri

DEFAULT_QUEUE_DELAY_MINUTES = 15
DEFAULT_COMPRESSION_TYPE = "ZLIB"
IDENTITY_TYPES = ("USER", "GROUP", "VIRTUAL_GROUP", "UNKNOWN")


def set_status(call: Call) -> Answer:
    """Set the status of a source."""
    call.organization.push_source(call.path["source"])
    value = call.text("statusType")
    try:
        status = SourceStatus(value.upper())
    except ValueError:
        offered = ", ".join(status.value for status in SourceStatus)
        raise ApiError.invalid_parameter("statusType", f"{value!r} is not one of {offered}") from None
    call.check_content_type()
    call.organization.set_status(call.path["source"], status, call.request_id)
    return call.accepted(201)


def put_item(call: Call) -> Answer:
    """Add or update one item."""
    organization = call.organization
    source = organization.push_source(call.path["source"])
    document_id = _document_id(call)
    call.integer("orderingId")
    compression_type = call.one_of("compressionType", COMPRESSION_TYPES) or DEFAULT_COMPRESSION_TYPE
    body = call.json_object()
    problem = json_problem(body)
    if problem is not None:
        raise ApiError.invalid_json(problem)
    item = canonical(body)
    if item.get("documentId", document_id) != document_id:
        call.undocumented("the response to a documentId in the body that differs from the one in the query")
        raise ApiError.invalid_parameter("documentId", "the body has another one")
    if "compressionType" in item:
        call.undocumented("compressionType in the body of a single item; it belongs in the query")
    organization.check_document_limits()
    content = _take_data(call, item)
    for oddity in oddities(item):
        call.undocumented(oddity)
    ordering_id = call.ordering_id()
    item["documentId"] = document_id
    rejection = pipeline_problem(
        item,
        compression_type=compression_type,
        secured=source.visibility == "SECURED",
        content=content,
    )
    with organization.transaction():
        facts = {"document_id": document_id, "ordering_id": ordering_id, "request_id": call.request_id}
        organization.event(source, "push", **facts)
        organization.accept(
            lambda: organization.index(source, document_id, item, ordering_id, call.request_id, rejection),
            documents=1,
        )
    return call.accepted()


def delete_item(call: Call) -> Answer:
    """Delete one item, and its children if requested."""
    organization = call.organization
    source = organization.push_source(call.path["source"])
    document_id = _document_id(call)
    children = call.boolean("deleteChildren") or False
    ordering_id = call.ordering_id()
    with organization.transaction():
        organization.event(
            source,
            "delete",
            document_id=document_id,
            children=children,
            ordering_id=ordering_id,
            request_id=call.request_id,
        )
        organization.accept(
            lambda: organization.delete(source, document_id, children, ordering_id, call.request_id)
        )
    return call.accepted()


def delete_old_items(call: Call) -> Answer:
    """Queue the deletion of old items."""
    source = call.organization.push_source(call.path["source"])
    ordering_id = call.required_integer("orderingId")
    call.organization.delete_older_than(source, ordering_id, _queue_delay(call), call.request_id)
    return call.accepted()


def put_batch(call: Call) -> Answer:
    """Accept a batch from a file container."""
    organization = call.organization
    source = organization.push_source(call.path["source"])
    file_id = call.text("fileId")
    call.integer("orderingId")
    call.check_content_type()
    organization.check_document_limits()
    content = organization.take_content(file_id)
    ordering_id = call.ordering_id()
    batch, problem = _read_batch(content)
    added: list[object] = []
    deleted: list[object] = []
    if problem is None:
        added, deleted = _array(batch, "addOrUpdate"), _array(batch, "delete")
        unknown = sorted(key for key in batch if key.lower() not in {"addorupdate", "delete"})
        if unknown:
            call.undocumented(f"a batch with the keys {', '.join(unknown)}, which were ignored")
        if not added and not deleted:
            call.undocumented("a batch without any entry")

    def work() -> None:
        if problem is not None:
            rejection = Rejection("CONSUMING_BATCH", "ERROR", problem)
            organization.log(source, file_id, "BATCH_FILE", call.request_id, rejection)
            return
        organization.log(source, file_id, "BATCH_FILE", call.request_id, stages=("CONSUMING_BATCH",))
        _take_batch(call, source, added, deleted, ordering_id)

    with organization.transaction():
        organization.event(
            source,
            "batch",
            file_id=file_id,
            added=len(added),
            deleted=len(deleted),
            ordering_id=ordering_id,
            request_id=call.request_id,
        )
        organization.accept(work, documents=len(added))
    return call.accepted()


def create_container(call: Call) -> Answer:
    """Create a file container."""
    call.boolean("useVirtualHostedStyleUrl")
    call.check_content_type()
    container = call.organization.create_container()
    return json_answer(
        {
            "uploadUri": upload_uri(call, container),
            "fileId": container.id,
            "requiredHeaders": REQUIRED_HEADERS,
        },
        201,
    )


def put_identity(call: Call) -> Answer:
    """Add or replace a security identity."""
    return _put_identity(call, "identity")


def put_alias(call: Call) -> Answer:
    """Add or replace the aliases of a security identity."""
    return _put_identity(call, "alias")


def disable_identity(call: Call) -> Answer:
    """Disable a security identity."""
    organization = call.organization
    call.integer("orderingId")
    sent = _identity(call.json_object())
    provider = organization.provider(call.path["provider"])
    ordering_id = call.ordering_id()
    organization.accept(lambda: organization.disable_identity(provider, sent, ordering_id))
    return call.accepted()


def disable_old_identities(call: Call) -> Answer:
    """Queue the disabling of old identities."""
    ordering_id = call.required_integer("orderingId")
    delay = _queue_delay(call)
    provider = call.organization.provider(call.path["provider"])
    call.organization.disable_identities_older_than(provider, ordering_id, delay)
    return call.accepted()


def put_identity_batch(call: Call) -> Answer:
    """Accept a batch of identities from a file container."""
    organization = call.organization
    file_id = call.text("fileId")
    call.integer("orderingId")
    call.check_content_type()
    content = organization.take_content(file_id)
    ordering_id = call.ordering_id()
    provider = organization.provider(call.path["provider"])
    try:
        batch = decode(content)
        if not isinstance(batch, dict):
            raise TypeError("not an object")  # noqa: TRY301 - handled like invalid JSON
        members = [_identity(body) for body in _array(batch, "members")]
        mappings = [_identity(body) for body in _array(batch, "mappings")]
        deleted = [_identity(body) for body in _array(batch, "deleted")]
    except (ValueError, TypeError, ApiError) as error:
        # Identities have no log, so this is the only place to report it.
        call.undocumented(f"the handling of a malformed batch of identities ({error})")
        return call.accepted()

    def work() -> None:
        for sent in members:
            organization.put_identity(provider, "identity", sent, ordering_id)
        for sent in mappings:
            organization.put_identity(provider, "alias", sent, ordering_id)
        for sent in deleted:
            organization.disable_identity(provider, sent, ordering_id)

    organization.accept(work)
    return call.accepted()


def _document_id(call: Call) -> str:
    document_id = call.text("documentId")
    if not is_document_id(document_id):
        call.undocumented("the response to a documentId that is not a URI")
        raise ApiError.invalid_parameter(
            "documentId", f"{document_id!r} is not of the form <scheme>://<rest>"
        )
    return document_id


def _queue_delay(call: Call) -> int:
    delay = call.integer("queueDelay", most=INT32_MAX)
    return DEFAULT_QUEUE_DELAY_MINUTES if delay is None else delay


def _take_data(call: Call, item: Mapping[str, object]) -> bytes | None:
    """Consume the container that holds the data of an item, and return its content."""
    file_id = item.get("compressedBinaryDataFileId")
    return call.organization.take_content(file_id) if isinstance(file_id, str) else None


def _array(value: Mapping[str, object], name: str) -> list[object]:
    """Return a member that is an array, ``[]`` if it is missing."""
    array = member(value, name) or []
    if not isinstance(array, list):
        raise TypeError(f"{name} is not an array")
    return array


def _read_batch(content: bytes) -> tuple[dict[str, object], str | None]:
    """Return the content of a container, and the reason if it is not a batch of items."""
    try:
        batch = decode(content)
    except ValueError as error:
        return {}, f"The batch is not JSON: {error}."
    if not isinstance(batch, dict):
        return {}, "The batch is not a JSON object."
    if isinstance(batch, RepeatedKeys):
        return {}, "A key of the batch occurs twice (keys are case-insensitive)."
    for name in ("addOrUpdate", "delete"):
        if not isinstance(member(batch, name), list | None):
            return {}, f"{name} must be an array."
    return batch, None


def _take_batch(
    call: Call, source: Source, added: Sequence[object], deleted: Sequence[object], ordering_id: int
) -> None:
    organization, request_id = call.organization, call.request_id
    seen: set[str] = set()
    for entry in added:
        document_id, item, rejection = _entry(call, source, entry)
        if item is None:
            organization.log(source, document_id, "ADD", request_id, rejection)
            continue
        repeated = document_id in seen
        if repeated:
            call.undocumented(f"{document_id} occurs twice in one batch; the later entry applied")
        seen.add(document_id)
        organization.index(
            source, document_id, item, ordering_id, request_id, rejection, same_request=repeated
        )
    for entry in deleted:
        document_id, children, rejection = _deletion(entry)
        if rejection is not None:
            organization.log(source, document_id, "DELETE", request_id, rejection)
            continue
        if document_id in seen:
            call.undocumented(f"{document_id} is added and deleted in one batch; it was deleted")
        organization.delete(source, document_id, children, ordering_id, request_id)


def _deletion(entry: object) -> tuple[str, bool, Rejection | None]:
    """Return the ID to delete, whether to delete its children, and the problem of the entry."""
    document_id = member(entry, "documentId") if isinstance(entry, dict) else None
    children = member(entry, "deleteChildren") if isinstance(entry, dict) else None
    well_formed = is_document_id(document_id) and (children is None or isinstance(children, bool))
    if not well_formed or has_repeated_keys(entry):
        rejection = Rejection("CONSUMING", "REJECTED", "The entry does not have the documented form.")
        return str(document_id or ""), False, rejection
    return str(document_id), bool(children), None


def _entry(
    call: Call, source: Source, entry: object
) -> tuple[str, dict[str, object] | None, Rejection | None]:
    """Return the ID of an entry, the item to index unless it is malformed, and its rejection."""
    document_id = member(entry, "documentId") if isinstance(entry, dict) else None
    problem = json_problem(entry)
    if problem is None and not is_document_id(document_id):
        problem = f"The documentId {document_id!r} is not of the form <scheme>://<rest>."
    if problem is not None or not isinstance(entry, dict) or not is_document_id(document_id):
        return str(document_id or ""), None, Rejection("CONSUMING", "REJECTED", str(problem))
    item = canonical(entry)
    for oddity in oddities(item):
        call.undocumented(oddity)
    try:
        content = _take_data(call, item)
    except ApiError as error:
        return document_id, None, Rejection("CONSUMING", "ERROR", error.message)
    compression_type = str(item.get("compressionType", DEFAULT_COMPRESSION_TYPE))
    secured = source.visibility == "SECURED"
    rejection = pipeline_problem(item, compression_type=compression_type, secured=secured, content=content)
    return document_id, item, rejection


def _put_identity(call: Call, kind: str) -> Answer:
    organization = call.organization
    call.integer("orderingId")
    sent = _identity(call.json_object())
    provider = organization.provider(call.path["provider"])
    ordering_id = call.ordering_id()
    organization.accept(lambda: organization.put_identity(provider, kind, sent, ordering_id))
    return call.accepted()


def _identity(body: object) -> SentIdentity:
    """Return an identity with its body in Coveo's spelling."""
    identity = member(body, "identity") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(identity, dict) or has_repeated_keys(body):
        raise ApiError.invalid_json("identity, an object with name and type, is required.")
    name, kind = member(identity, "name"), member(identity, "type")
    if not isinstance(name, str) or not name or not isinstance(kind, str) or kind not in IDENTITY_TYPES:
        raise ApiError.invalid_json(
            f"An identity needs a name and a type, one of {', '.join(IDENTITY_TYPES)}."
        )
    parts = {key: member(body, key) for key in ("members", "wellKnowns", "mappings")}
    if not all(isinstance(part, list | None) for part in parts.values()):
        raise ApiError.invalid_json("members, wellKnowns and mappings must be arrays.")
    given = {key: part for key, part in parts.items() if part is not None}
    return SentIdentity(kind, name, {"identity": {**identity, "name": name, "type": kind}, **given})


_PUSH = "/push/v1/organizations/{organization}"
_DOCUMENTS = _PUSH + "/sources/{source}/documents"
_PROVIDER = _PUSH + "/providers/{provider}"

#: The name of a route is the ``operation`` that faults and recorded requests go by.
ROUTES = [
    Route(_PUSH + "/sources/{source}/status", set_status, methods=["POST"], name="status"),
    Route(_DOCUMENTS, put_item, methods=["PUT"], name="item"),
    Route(_DOCUMENTS, delete_item, methods=["DELETE"], name="delete"),
    Route(_DOCUMENTS + "/olderthan", delete_old_items, methods=["DELETE"], name="olderthan"),
    Route(_DOCUMENTS + "/batch", put_batch, methods=["PUT"], name="batch"),
    Route(_PUSH + "/files", create_container, methods=["POST"], name="files"),
    Route(_PROVIDER + "/permissions", put_identity, methods=["PUT"], name="identity"),
    Route(_PROVIDER + "/mappings", put_alias, methods=["PUT"], name="alias"),
    Route(_PROVIDER + "/permissions", disable_identity, methods=["DELETE"], name="disable_identity"),
    Route(_PROVIDER + "/permissions/batch", put_identity_batch, methods=["PUT"], name="identity_batch"),
    Route(
        _PROVIDER + "/permissions/olderthan",
        disable_old_identities,
        methods=["DELETE"],
        name="identity_olderthan",
    ),
]
