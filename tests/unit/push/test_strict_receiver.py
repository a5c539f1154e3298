"""The requests of pushes, validated by a receiver that is based only on Coveo's OpenAPI files."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

import pytest
from airflow.providers.common.compat.sdk import DAG, task
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_coveo.coveo.errors import CoveoInputError, InvalidJsonError
from airflow_provider_coveo.coveo.items import MAX_INLINE_DATA, Delete, Item
from airflow_provider_coveo.coveo.ordering_ids import now_ms
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.operators.coveo_push import (
    DeleteItemsOperator,
    PushItemsOperator,
    PushSecurityIdentitiesOperator,
    ResetPushSourceOperator,
    SetPushSourceStatusOperator,
)
from tests.strict_coveo import StrictCoveo
from tests.unit.push.conftest import Judged

SOURCE = "rp5rxzbdz753uhndklv2ztkfgy-acme"
PROVIDER = "Rôle & Groups/2"
USER = {"identity": "asmith@example.com", "identityType": "User"}
PUSH = "/push/v1/organizations/acme"
COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "UNCOMPRESSED": bytes,
    "ZLIB": zlib.compress,
    "GZIP": gzip.compress,
    "LZMA": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "DEFLATE": lambda data: zlib.compress(data)[2:-4],
}


@pytest.fixture
def strict_hook(strict_coveo: StrictCoveo, monkeypatch: pytest.MonkeyPatch) -> CoveoPushHook:
    monkeypatch.setenv("AIRFLOW_CONN_COVEO_DEFAULT", Judged(strict_coveo).connection_json())
    # Deleting old items reads the source first.
    strict_coveo.answers["GET /rest/organizations/{organizationId}/sources/{sourceId}/light"] = {
        "id": SOURCE,
        "pushEnabled": True,
    }
    return CoveoPushHook(retry=RetryPolicy(total_seconds=5, first_wait=0.01, longest_wait=0.05))


# --- the receiver itself: it must detect errors ---


def send(
    strict: StrictCoveo, method: str, target: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(urlsplit(strict.url).netloc, timeout=30)
    given_headers = {"Authorization": "Bearer some-key", "Accept": "application/json"}
    if body is not None:
        given_headers["Content-Type"] = "application/json"
    given_headers |= {name.replace("_", "-"): value for name, value in headers.items()}
    with closing(connection):
        connection.request(
            method, target, body, {name: value for name, value in given_headers.items() if value}
        )
        answer = connection.getresponse()
        content = answer.read()
    is_json = content and "json" in (answer.headers["Content-Type"] or "")
    return answer.status, (json.loads(content) or {}) if is_json else {}


def batch(strict: StrictCoveo, content: Any) -> tuple[int, dict[str, Any]]:
    encoded = content if isinstance(content, bytes) else json.dumps(content).encode()
    return send(strict, "PUT", f"{PUSH}/sources/s/documents/batch?fileId={uploaded(strict, encoded)}")


def uploaded(strict: StrictCoveo, content: bytes) -> str:
    _, container = send(strict, "POST", f"{PUSH}/files")
    target = container["uploadUri"].removeprefix(strict.url)
    headers = {**container["requiredHeaders"], "Authorization": "", "Accept": ""}
    assert send(strict, "PUT", target, content, **headers)[0] == 200
    file_id: str = container["fileId"]
    return file_id


DOCUMENTS = f"{PUSH}/sources/s/documents"
ITEM = f"{DOCUMENTS}?documentId=a%3A%2F%2F1"


@pytest.mark.parametrize(
    ("method", "target", "body", "headers", "status", "objection"),
    [
        ("GET", f"{PUSH}/files", None, {}, 404, "declare POST here"),
        ("POST", f"{PUSH}//files", None, {}, 404, "empty segment"),
        ("POST", f"/{PUSH}/files", None, {}, 404, "empty segment"),
        ("POST", f"{PUSH}/files/", None, {}, 404, "empty segment"),
        ("POST", f"{PUSH}/sources/a<b/status?statusType=IDLE", None, {}, 404, "percent-encoded"),
        ("POST", f"{PUSH}/files", None, {"Authorization": ""}, 401, "no Authorization"),
        ("POST", f"{PUSH}/files", None, {"Authorization": "Basic eA=="}, 401, "no Bearer"),
        ("POST", f"{PUSH}/files", None, {"Accept": "text/html"}, 400, "Accept"),
        ("POST", f"{PUSH}/files?useVirtualHostedStyleUrl=1", None, {}, 412, "neither true nor false"),
        ("POST", f"{PUSH}/files", b'{"a": 1}', {}, 400, "none is declared"),
        ("POST", f"{PUSH}/sources/s/status", None, {}, 412, "'statusType' is missing"),
        ("POST", f"{PUSH}/sources/s/status?statusType=idle", None, {}, 412, "none of"),
        ("POST", f"{PUSH}/sources/s/status?statusType=IDLE&x=1", None, {}, 412, "'x' is not declared"),
        ("POST", f"{PUSH}/sources/s/status?statusType=IDLE&statusType=IDLE", None, {}, 412, "twice"),
        ("DELETE", f"{DOCUMENTS}/olderthan?orderingId=1.5", None, {}, 412, "no integer"),
        ("DELETE", f"{DOCUMENTS}/olderthan?orderingId={2**63}", None, {}, 412, "int64"),
        ("DELETE", f"{DOCUMENTS}/olderthan?orderingId=1&queueDelay=-1", None, {}, 412, "out of bounds"),
        ("DELETE", f"{DOCUMENTS}?documentId=no-uri", None, {}, 400, "not a URI"),
        ("DELETE", f"{DOCUMENTS}?documentId=a://1+2", None, {}, 412, "not percent-encoded"),
        ("PUT", ITEM, None, {}, 400, "no body"),
        ("PUT", ITEM, b'{"data": "x"}', {"Content_Type": "text/plain"}, 415, "Content-Type"),
        ("PUT", ITEM, b'{"data": "x"', {}, 400, "not JSON"),
        ("PUT", ITEM, b'{"data": NaN}', {}, 400, "NaN"),
        ("PUT", ITEM, b'{"data": "\xff"}', {}, 400, "UTF-8"),
        ("PUT", ITEM, b'{"data": "\\ud800"}', {}, 400, "surrogate"),
        ("PUT", ITEM, b'{"data": "x", "A": 1, "a": 1}', {}, 400, "twice"),
        ("PUT", ITEM, b'{"data": 1}', {}, 400, "1 is not of type 'string'"),
        ("PUT", ITEM, b'{"data": "x", "nested": {}}', {}, 400, "of type dict"),
        ("PUT", ITEM, b'{"data": "x", "nothing": null}', {}, 400, "of type NoneType"),
        ("PUT", ITEM, b'{"data": "x", "compressedBinaryData": "eA=="}', {}, 400, "either"),
        ("PUT", ITEM, b'{"compressedBinaryData": "eA"}', {}, 400, "not Base64"),
        ("PUT", ITEM, b'{"compressedBinaryData": "eA=="}', {}, 400, "not ZLIB"),
        ("PUT", ITEM, b'{"compressedBinaryDataFileId": "eA=="}', {}, 400, "no file container"),
        ("PUT", f"{ITEM}&compressionType=gzip", b'{"compressedBinaryData": ""}', {}, 412, "none of"),
        ("PUT", ITEM, b'{"data": "x", "fileExtension": "html"}', {}, 400, "a dot"),
        ("PUT", ITEM, b'{"data": "x", "parentId": "x"}', {}, 400, "parentId"),
        ("PUT", ITEM, b'{"data": "x", "permissions": [1]}', {}, 400, "permissions: the body"),
        (
            "PUT",
            ITEM,
            b'{"data":"","permissions":[{"deniedPermissions":[{"identity":"a","identityType":"USER"}]}]}',
            {},
            400,
            "'USER' is not one of",
        ),
        ("PUT", f"{PUSH}/providers/p/permissions", b'{"identity": {"name": "a"}}', {}, 400, "no type"),
        ("PUT", f"{PUSH}/providers/p/permissions", b'{"identiti": {}}', {}, 400, "'identiti'"),
        (
            "POST",
            "/logs/v1/organizations/acme?from=2026-11-28&to=2026-11-28T00:00:00Z",
            b"{}",
            {},
            412,
            "no date-time",
        ),
        ("POST", "/rest/organizations/acme/activities/public", b'{"state": []}', {}, 400, "'state'"),
    ],
)
def test_the_receiver_objects_to_undeclared_requests(
    strict_coveo: StrictCoveo,
    method: str,
    target: str,
    body: bytes | None,
    headers: dict[str, str],
    status: int,
    objection: str,
) -> None:
    assert send(strict_coveo, method, target, body, **headers)[0] == status
    assert objection in "; ".join(strict_coveo.objections)
    strict_coveo.objections.clear()


@pytest.mark.parametrize(
    ("content", "objection"),
    [
        (b"{", "not JSON"),
        ([], "no object"),
        ({}, "empty"),
        ({"addOrUpdate": [{"documentId": "a://1"}], "add": []}, "'add'"),
        ({"addOrUpdate": [{"data": "x"}]}, "addOrUpdate/0: documentId"),
        ({"addOrUpdate": [{"documentId": "a://1", "orderingId": 1, "data": ""}]}, "reserved"),
        ({"addOrUpdate": [{"documentId": "a://1", "data": "x", "compressionType": "ZLIB"}]}, "no compressed"),
        ({"addOrUpdate": [{"documentId": "a://1", "data": "x" * (5 * 1024 * 1024 + 1)}]}, "5242881 bytes"),
        ({"delete": [{"documentId": "a://1", "deleteChildren": "no"}]}, "no boolean"),
        ({"delete": ["a://1"]}, "delete/0"),
    ],
)
def test_the_receiver_reads_batches_completely(
    strict_coveo: StrictCoveo, content: Any, objection: str
) -> None:
    assert batch(strict_coveo, content)[0] == 400
    assert objection in "; ".join(strict_coveo.objections)
    strict_coveo.objections.clear()


@pytest.mark.parametrize("declared", COMPRESSED)
@pytest.mark.parametrize("given_type", COMPRESSED)
def test_the_receiver_decodes_content_by_its_declared_type(
    strict_coveo: StrictCoveo, given_type: str, declared: str
) -> None:
    content = COMPRESSED[given_type](b"some text" * 100)
    for broken in {content} if given_type != declared else {content, content[:-1]}:
        body = json.dumps({"compressedBinaryDataFileId": uploaded(strict_coveo, broken)}).encode()
        status, _ = send(strict_coveo, "PUT", f"{ITEM}&compressionType={declared}", body)
        is_right = declared == "UNCOMPRESSED" or (given_type == declared and broken == content)
        # An LZMA stream is complete without its last byte.
        if not (declared == "LZMA" and given_type == "LZMA"):
            assert (status, bool(strict_coveo.objections)) == ((202, False) if is_right else (400, True))
        strict_coveo.objections.clear()


@pytest.mark.parametrize(
    "change", [{"Authorization": "Bearer x"}, {"x-amz-acl": "y"}, {"Content-Type": "a/b"}]
)
def test_the_receiver_accepts_uploads_with_the_required_headers(
    strict_coveo: StrictCoveo, change: dict[str, str]
) -> None:
    _, container = send(strict_coveo, "POST", f"{PUSH}/files")
    target = container["uploadUri"].removeprefix(strict_coveo.url)
    headers = {**container["requiredHeaders"], "Authorization": "", "Accept": "", **change}
    assert send(strict_coveo, "PUT", target, b"x", **headers)[0] == 403
    assert strict_coveo.objections
    strict_coveo.objections.clear()


# --- the hook ---


@pytest.mark.parametrize("status", ["REBUILD", "refresh", "INCREMENTAL", "IDLE"])
def test_statuses(strict_coveo: StrictCoveo, strict_hook: CoveoPushHook, status: str) -> None:
    strict_hook.set_source_status(SOURCE, status)
    assert [call.query for call in strict_coveo.calls] == [{"statusType": status.upper()}]


PERMISSIONS: list[list[Any]] = [
    [],
    [{"allowAnonymous": True}],
    [{"allowAnonymous": False, "allowedPermissions": [USER], "deniedPermissions": []}],
    [{"AllowedPermissions": [{**USER, "identityType": "VIRTUAL_GROUP", "securityProvider": "AD"}]}],
    [{"allowedPermissions": [{**USER, "identityType": "group", "securityProvider": None}]}],
    [{"allowedPermissions": [{**USER, "additionalInfo": {"domain": "x"}}]}],
    [{"name": "level", "permissionSets": [{"name": "set", "allowedPermissions": [USER]}]}],
    [{"Name": "level", "PermissionSets": [{"DENIEDPERMISSIONS": [{**USER, "identityType": "USER"}]}]}],
]


@pytest.mark.parametrize("permissions", PERMISSIONS)
@pytest.mark.parametrize("form", ["dict", "Item", "bytes", "single"])
def test_permissions_in_all_forms(
    strict_coveo: StrictCoveo, strict_hook: CoveoPushHook, form: str, permissions: list[Any]
) -> None:
    item = {"documentId": "a://1", "data": "x", "permissions": permissions}
    if form == "single":
        strict_hook.add_or_update_item(SOURCE, item)
    else:
        forms = {
            "dict": item,
            "Item": Item("a://1", "x", permissions=permissions),
            "bytes": json.dumps(item).encode(),
        }
        strict_hook.push_items(SOURCE, [forms[form]])
    assert len(strict_coveo.items()["a://1"]["permissions"]) == len(permissions)


ITEMS: dict[str, Any] = {
    "metadata": {
        "documentId": "https://acme.com/a b?c=d&e=f#g+h",
        "data": "é\u2028\U0001f600\x00",
        "title": "T",
        "sizes": [1, "two", 2.5, True],
        "price": 1e300,
        "count": 2**53,
        "flag": False,
        "date": datetime(2026, 1, 1, tzinfo=timezone.utc),
        "parentId": "a://2",
        "fileExtension": ".html",
    },
    "empty": {"documentId": "a://1", "data": ""},
    "key in other letters": {"DocumentId": "a://1", "DATA": "x"},
    "large": {"documentId": "a://1", "data": "é" * (MAX_INLINE_DATA // 2 + 1)},
    "long as JSON": {"documentId": "a://1", "data": "\x01" * 1_200_000},
    **{
        f"{name}, inline": {
            "documentId": "a://1",
            "compressedBinaryData": base64.b64encode(compress(b"some text")).decode(),
            "compressionType": name,
        }
        for name, compress in COMPRESSED.items()
    },
    "default compression": {
        "documentId": "a://1",
        "compressedBinaryData": base64.b64encode(zlib.compress(b"x")).decode(),
    },
    "large binary": {
        "documentId": "a://1",
        "compressedBinaryData": base64.b64encode(zlib.compress(bytes(range(256)) * 20_000, 0)).decode(),
    },
    "large binary, not compressed": {
        "documentId": "a://1",
        "compressedBinaryData": base64.b64encode(bytes(MAX_INLINE_DATA)).decode(),
        "compressionType": "UNCOMPRESSED",
    },
}


@pytest.mark.parametrize("name", ITEMS)
@pytest.mark.parametrize("form", ["dict", "bytes", "single"])
def test_items_in_all_forms(
    strict_coveo: StrictCoveo, strict_hook: CoveoPushHook, form: str, name: str
) -> None:
    item = ITEMS[name]
    if form == "bytes":
        as_text = {key: str(value) if key == "date" else value for key, value in item.items()}
        strict_hook.push_items(SOURCE, [json.dumps(as_text).encode()])
    elif form == "dict":
        strict_hook.push_items(SOURCE, [item])
    else:
        strict_hook.add_or_update_item(SOURCE, item)
    (received,) = strict_coveo.items().values()
    assert received["documentId"] == item.get("documentId", "a://1")
    assert bool(strict_coveo.contents) == ("large" in name or (form == "single" and name == "long as JSON"))


def test_an_item_object_with_everything(strict_coveo: StrictCoveo, strict_hook: CoveoPushHook) -> None:
    strict_hook.push_items(
        SOURCE,
        [
            Item(
                "a://1", "x", title="T", author="A", date=datetime(2026, 1, 1, tzinfo=timezone.utc),
                clickable_uri="https://acme.com/1", file_extension=".txt", parent_id="a://0",
                permissions=[{"allowAnonymous": True}], metadata={"sizes": [1, 2]},
            ),
            Item("a://2", compressed_binary_data=gzip.compress(b"x"), compression_type="GZIP"),
        ],
    )  # fmt: skip
    assert set(strict_coveo.items()) == {"a://1", "a://2"}


def test_an_item_whose_content_was_uploaded_before(
    strict_coveo: StrictCoveo, strict_hook: CoveoPushHook
) -> None:
    for push in (
        lambda item: strict_hook.push_items(SOURCE, [item]),
        lambda item: strict_hook.add_or_update_item(SOURCE, item),
    ):
        container = strict_hook.client.containers.upload(b"raw", "Could not upload").file_id
        push(
            {
                "documentId": "a://1",
                "compressedBinaryDataFileId": container,
                "compressionType": "UNCOMPRESSED",
            }
        )
        assert strict_coveo.contents[container] == b"raw"


def test_content_of_another_type_than_declared_is_rejected(
    strict_coveo: StrictCoveo, strict_hook: CoveoPushHook
) -> None:
    with pytest.raises(InvalidJsonError, match="not GZIP"):
        strict_hook.push_items(
            SOURCE, [Item("a://1", compressed_binary_data=zlib.compress(b"x"), compression_type="GZIP")]
        )
    strict_coveo.objections.clear()


def test_batches_deletions_and_children(strict_coveo: StrictCoveo, strict_hook: CoveoPushHook) -> None:
    strict_hook.push_items(
        SOURCE,
        [{"documentId": f"a://{number}", "data": "x" * 100} for number in range(100)]
        + [Delete("a://1"), Delete("a://2", delete_children=True)],
        delete=["a://3", Delete("a://4", True)],
        batch_bytes=1024,
    )
    assert len(strict_coveo.items()) == 96
    assert len(strict_coveo.batches) > 10


@pytest.mark.parametrize("delete_children", [False, True])
def test_one_item_and_its_deletion(
    strict_coveo: StrictCoveo, strict_hook: CoveoPushHook, delete_children: bool
) -> None:
    document_id = "https://acme.com/é?a=b c&d=#e+%41"
    strict_hook.add_or_update_item(SOURCE, {"documentId": document_id, "data": "x"}, ordering_id=now_ms())
    strict_hook.delete_item(SOURCE, document_id, delete_children=delete_children)
    assert [call.query["documentId"] for call in strict_coveo.calls] == [document_id] * 2


@pytest.mark.parametrize("queue_delay", [0, 15, "5"])
def test_old_items_and_old_identities(
    strict_coveo: StrictCoveo, strict_hook: CoveoPushHook, queue_delay: Any
) -> None:
    strict_hook.delete_old_items(SOURCE, queue_delay=queue_delay)
    strict_hook.delete_old_identities(PROVIDER, now_ms(), queue_delay=queue_delay)
    delays = [call.query["queueDelay"] for call in strict_coveo.calls if call.request.method == "DELETE"]
    assert delays == [str(queue_delay)] * 2


MEMBERS = [
    {"identity": {"name": "staff", "type": "group"}, "members": [{"name": "ann", "type": "USER"}]},
    {
        "identity": {"name": "ann", "type": "USER", "additionalInfo": None},
        "wellKnowns": [{"name": "everybody", "type": "VIRTUAL_GROUP"}],
    },
]
MAPPINGS = [
    {
        "identity": {"name": "ann", "type": "USER", "additionalInfo": {"mail": "a@b.c"}},
        "mappings": [{"name": "a@b.c", "type": "USER", "provider": "Email Security Provider"}],
    }
]


def test_identities_mappings_and_deletions(strict_coveo: StrictCoveo, strict_hook: CoveoPushHook) -> None:
    strict_hook.push_identities(
        PROVIDER, members=MEMBERS, mappings=MAPPINGS, deleted=[{"name": "bob", "type": "user"}]
    )
    assert strict_coveo.calls[-1].path["providerId"] == PROVIDER


# --- operators ---


@pytest.fixture
def dag(strict_hook: CoveoPushHook) -> Iterator[DAG]:
    with DAG("d", schedule=None, start_date=datetime(2025, 1, 1)) as dag:
        yield dag


@task.coveo_push(source_id=SOURCE)
def pushed() -> Iterator[Any]:
    yield {"documentId": "a://1", "data": "x"}
    yield Delete("a://2", True)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SetPushSourceStatusOperator(task_id="t", source_id=SOURCE, status="REBUILD"),
        lambda: PushItemsOperator(
            task_id="t", source_id=SOURCE, items=[{"documentId": "a://1", "data": "x"}], delete=["a://2"]
        ),
        lambda: DeleteItemsOperator(
            task_id="t", source_id=SOURCE, document_ids=["a://1"], delete_children=True
        ),
        lambda: ResetPushSourceOperator(task_id="t", source_id=SOURCE, queue_delay=0),
        lambda: PushSecurityIdentitiesOperator(
            task_id="t", provider_id=PROVIDER, members=MEMBERS, mappings=MAPPINGS, delete_old=True
        ),
        pushed,
    ],
    ids=["status", "push", "delete", "reset", "identities", "decorator"],
)
def test_operators(strict_coveo: StrictCoveo, dag: DAG, make: Callable[[], Any]) -> None:
    made = make()
    operator = getattr(made, "operator", made)
    operator.render_template_fields({"params": {}})
    operator.execute({"params": {}})
    assert strict_coveo.calls


# --- whatever the client accepts matches the files ---

_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=10),
    st.dates(),
    st.decimals(allow_nan=False),
    st.lists(st.one_of(st.text(max_size=5), st.integers(), st.none()), max_size=3),
    st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
)
_CONTENTS = st.one_of(
    st.text(max_size=30).map(lambda text: {"data": text}),
    st.builds(
        lambda name, data: {
            "compressedBinaryData": base64.b64encode(COMPRESSED[name](data)).decode(),
            "compressionType": name,
        },
        st.sampled_from(sorted(COMPRESSED)),
        st.binary(max_size=30),
    ),
)
_ITEMS = st.builds(
    lambda document_id, content, metadata, known: {
        **metadata,
        "documentId": document_id,
        **content,
        **known,
    },
    st.one_of(st.text(max_size=8).map("a://".__add__), st.text(max_size=8)),
    _CONTENTS,
    st.dictionaries(st.text(max_size=8), _VALUES, max_size=4),
    st.fixed_dictionaries(
        {},
        optional={
            "permissions": st.one_of(st.sampled_from(PERMISSIONS), _VALUES, st.just([1])),
            "parentId": st.sampled_from(["a://0", "x", None]),
            "fileExtension": st.sampled_from([".html", "html", "", None]),
        },
    ),
)


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(item=_ITEMS, form=st.sampled_from(["dict", "bytes", "single"]))
def test_accepted_items_conform_to_coveo_s_openapi_files(
    strict_coveo: StrictCoveo, strict_hook: CoveoPushHook, item: dict[str, Any], form: str
) -> None:
    try:
        if form == "single":
            strict_hook.add_or_update_item(SOURCE, item)
        else:
            given_form: Any = item
            if form == "bytes":
                given_form = json.dumps(item, default=str).encode("utf-8", "surrogatepass")
            strict_hook.push_items(SOURCE, [given_form])
    except CoveoInputError:
        pass
    assert strict_coveo.objections == []
