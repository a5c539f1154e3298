"""Single items: which ones the API rejects, which ones the pipeline rejects, and which are indexed."""

from __future__ import annotations

import base64
import gzip
import lzma
import tracemalloc
import zlib
from typing import Any

import pytest

from airflow_provider_coveo.simulator import Simulator
from tests.simulator.client import SOURCE, Client, error

ID = "https://acme.com/1?a=b#c"
PERMISSIONS = [{"allowAnonymous": False, "allowedPermissions": [{"identity": "a", "identityType": "User"}]}]


def failures(coveo: Simulator, source: str = SOURCE) -> list[tuple[str, str, str]]:
    """The stages in the item logs that did not complete."""
    return [
        (entry["id"], entry["task"], entry["result"])
        for entry in coveo.logs(source)
        if entry["result"] != "COMPLETED"
    ]


def test_an_accepted_item_is_indexed_with_the_time_as_its_ordering_id(
    coveo: Simulator, client: Client
) -> None:
    before = coveo.clock.now_ms()
    answer = client.put(ID, {"data": "text", "title": "One", "price": 3.5, "tags": ["a", "b"]})
    assert (answer.status_code, answer.content) == (202, b"null")
    item = coveo.items(SOURCE)[ID]
    assert before <= item.pop("orderingId") <= coveo.clock.now_ms()
    assert item == {"documentId": ID, "data": "text", "title": "One", "price": 3.5, "tags": ["a", "b"]}


@pytest.mark.parametrize("body", [b"", b"null", b"{}"])
def test_the_body_of_an_accepted_push_can_be_chosen(coveo: Simulator, client: Client, body: bytes) -> None:
    coveo.success_body = body
    assert client.put(ID).content == body
    assert client.status("REBUILD").content == body


def test_ordering_ids_increase_even_within_a_millisecond_and_when_the_clock_goes_back(
    coveo: Simulator, client: Client
) -> None:
    stamps = []
    for number in range(20):
        if number == 10:
            coveo.clock.shift(minutes=-1)
        client.put(ID)
        stamps.append(coveo.items(SOURCE)[ID]["orderingId"])
    assert stamps == sorted(set(stamps))


@pytest.mark.parametrize(
    "body",
    [
        b"not JSON",
        b'{"data": "a"',
        b'{"data": "\xff"}',
        b'{"data": NaN}',
        b"[" * 100_000,
        b"[]",
        b'{"title": "no data"}',
        b'{"data": "a", "compressedBinaryData": "b"}',
        b'{"data": {"a": 1}}',
        b'{"data": "a", "size": 1, "size": 2}',
        b'{"data": "a", "size": 1, "Size": 2}',
        b'{"data": "a", "nested": {"a": 1}}',
        b'{"data": "a", "nested": [[1]]}',
        b'{"data": "a", "permissions": {}}',
        b'{"data": "a", "permissions": [{"allowAnonymous": true, "AllowAnonymous": true}]}',
    ],
)
def test_a_malformed_item_is_rejected(coveo: Simulator, client: Client, body: bytes) -> None:
    assert error(client.put_raw(ID, body)) == (400, "INVALID_JSON")
    assert coveo.items(SOURCE) == {}


def test_reserved_keys_are_read_in_any_case(coveo: Simulator, client: Client) -> None:
    client.put(ID, {"Data": "text", "FILEEXTENSION": ".txt", "Title": "One"})
    item = coveo.items(SOURCE)[ID]
    assert (item["data"], item["fileExtension"], item["Title"]) == ("text", ".txt", "One")


def test_an_item_larger_than_6_mb_is_rejected(client: Client) -> None:
    answer = client.put(ID, {"data": "x" * 6 * 1024 * 1024})
    assert answer.status_code == 413
    assert client.put(ID).status_code == 202


def test_text_larger_than_5_mb_is_accepted_and_rejected_later(coveo: Simulator, client: Client) -> None:
    text = "é" * (5 * 1024 * 512 + 1)
    assert client.put_raw(ID, f'{{"data": "{text}"}}'.encode()).status_code == 202
    assert failures(coveo) == [(ID, "CONSUMING", "REJECTED")]


def test_a_body_without_the_content_type_of_json_is_rejected(client: Client) -> None:
    answer = client.put_raw(ID, b'{"data": "a"}', **{"Content-Type": "text/plain"})
    assert error(answer) == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"documentId": ""}, "MISSING_PARAMETER"),
        ({"documentId": "no-uri"}, "INVALID_PARAMETER"),
        ({"orderingId": "1.5"}, "INVALID_PARAMETER"),
        ({"orderingId": "-1"}, "INVALID_PARAMETER"),
        ({"orderingId": str(2**63)}, "INVALID_PARAMETER"),
        ({"compressionType": "gzip"}, "INVALID_PARAMETER"),
    ],
)
def test_an_invalid_parameter_is_rejected(client: Client, parameters: dict[str, Any], code: str) -> None:
    url = f"{client.push}/sources/{SOURCE}/documents"
    answer = client.session.put(url, params={"documentId": ID, **parameters}, json={"data": "a"})
    assert error(answer) == (412, code)


@pytest.mark.parametrize(
    ("compression_type", "compress"),
    [
        (None, zlib.compress),
        ("ZLIB", zlib.compress),
        ("GZIP", gzip.compress),
        ("LZMA", lzma.compress),
        ("DEFLATE", lambda data: zlib.compress(data)[2:-4]),
        ("UNCOMPRESSED", bytes),
    ],
)
def test_compressed_data_is_decompressed_by_its_declared_type(
    coveo: Simulator, client: Client, compression_type: str | None, compress: Any
) -> None:
    item = {"compressedBinaryData": base64.b64encode(compress(b"text")).decode()}
    options = {} if compression_type is None else {"compressionType": compression_type}
    assert client.put(ID, item, **options).status_code == 202
    assert failures(coveo) == []
    wrong = "GZIP" if compression_type != "GZIP" else "ZLIB"
    assert client.put(ID, item, compressionType=wrong).status_code == 202
    assert failures(coveo) == [(ID, "PROCESSING", "ERROR")]


CONTENT = b"some text" * 100_000
#: The declared type, and values for it: valid ones, then invalid ones.
DECLARED: list[tuple[str | None, bytes, bool]] = [
    (None, zlib.compress(CONTENT), True),
    (None, zlib.compress(b""), True),
    (None, CONTENT, False),
    (None, bytes(1000), False),
    (None, b"", False),
    ("ZLIB", zlib.compress(CONTENT)[:-1], False),
    ("ZLIB", zlib.compress(CONTENT) + b"x", False),
    ("ZLIB", gzip.compress(CONTENT), False),
    ("GZIP", gzip.compress(CONTENT), True),
    ("GZIP", gzip.compress(CONTENT) + gzip.compress(CONTENT), True),
    ("GZIP", gzip.compress(CONTENT)[:-1], False),
    ("GZIP", zlib.compress(CONTENT), False),
    ("GZIP", b"", False),
    ("DEFLATE", zlib.compress(CONTENT)[2:-4], True),
    ("DEFLATE", zlib.compress(CONTENT)[2:-5], False),
    ("DEFLATE", zlib.compress(CONTENT), False),
    ("LZMA", lzma.compress(CONTENT), True),
    ("LZMA", lzma.compress(CONTENT, format=lzma.FORMAT_ALONE), True),
    ("LZMA", lzma.compress(CONTENT)[:-1], False),
    ("LZMA", CONTENT, False),
    ("UNCOMPRESSED", CONTENT, True),
    ("UNCOMPRESSED", b"", True),
]


@pytest.mark.parametrize("way", ["single, inline", "single, container", "batch, inline", "batch, container"])
@pytest.mark.parametrize(("declared", "content", "is_right"), DECLARED)
def test_content_is_read_completely_by_its_declared_type(
    coveo: Simulator, client: Client, way: str, declared: str | None, content: bytes, is_right: bool
) -> None:
    kind = {} if declared is None else {"compressionType": declared}
    if "inline" in way:
        item = {"compressedBinaryData": base64.b64encode(content).decode()}
    else:
        item = {"compressedBinaryDataFileId": client.filled_container(content)}
    if "single" in way:
        answer = client.put(ID, item, **kind)
    else:
        answer = client.batch({"addOrUpdate": [{"documentId": ID, **item, **kind}]})
    assert answer.status_code == 202
    assert failures(coveo) == ([] if is_right else [(ID, "PROCESSING", "ERROR")])
    assert (ID in coveo.items(SOURCE)) is is_right


@pytest.mark.parametrize("encoded", ["eJ", "e J w=", "eJw=eJw=", "ü", "eJwDAAAAAAE=" * 100_000])
def test_content_that_is_not_base64_is_an_error_in_the_logs(
    coveo: Simulator, client: Client, encoded: str
) -> None:
    assert (
        client.put(ID, {"compressedBinaryData": encoded}, compressionType="UNCOMPRESSED").status_code == 202
    )
    assert failures(coveo) == [(ID, "PROCESSING", "ERROR")]


def test_content_that_decompresses_to_a_thousandfold_size_needs_bounded_memory(
    coveo: Simulator, client: Client
) -> None:
    bomb = zlib.compress(bytes(200 * 1024 * 1024))
    file_id = client.filled_container(bomb)
    tracemalloc.start()
    try:
        assert client.put(ID, {"compressedBinaryDataFileId": file_id}).status_code == 202
        assert tracemalloc.get_traced_memory()[1] < 20 * 1024 * 1024
    finally:
        tracemalloc.stop()
    assert failures(coveo) == []


USER = {"identity": "asmith@example.com", "identityType": "User"}


@pytest.mark.parametrize("source", [SOURCE, "secured"])
@pytest.mark.parametrize(
    "permissions",
    [
        [1],
        ["a"],
        [None],
        [[USER]],
        "a",
        {},
        [{"allowedPermissions": {}}],
        [{"allowedPermissions": ["a"]}],
        [{"deniedPermissions": [{"identityType": "User"}]}],
        [{"deniedPermissions": [{**USER, "identity": 1}]}],
        [{"deniedPermissions": [{**USER, "identityType": "USER"}]}],
        [{"deniedPermissions": [{**USER, "securityProvider": 1}]}],
        [{"deniedPermissions": [{**USER, "additionalInfo": {"a": 1}}]}],
        [{"allowAnonymous": "true"}],
        [{"name": "level", "permissionSets": {}}],
        [{"name": "level", "permissionSets": [1]}],
        [{"name": 1, "permissionSets": []}],
        [{"name": "level", "permissionSets": [{"allowedPermissions": [1]}]}],
    ],
)
def test_permissions_in_an_undocumented_form_are_rejected(
    coveo: Simulator, client: Client, source: str, permissions: Any
) -> None:
    if source == "secured":
        coveo.add_source(source, visibility="SECURED")
    item = {"data": "text", "permissions": permissions}
    assert error(client.put(ID, item, source)) == (400, "INVALID_JSON")
    assert client.batch({"addOrUpdate": [{"documentId": ID, **item}]}, source).status_code == 202
    assert failures(coveo, source) == [(ID, "CONSUMING", "REJECTED")]
    assert coveo.items(source) == {}


@pytest.mark.parametrize(
    "permissions",
    [
        [],
        [{}],
        [{"allowAnonymous": True}],
        [{"AllowedPermissions": [USER], "deniedPermissions": []}],
        [{"allowedPermissions": [{**USER, "securityProvider": "AD", "additionalInfo": {"a": "b"}}]}],
        [{"name": "level", "permissionSets": [{"name": "set", "allowedPermissions": [USER]}]}],
    ],
)
def test_permissions_of_both_models_are_accepted(
    coveo: Simulator, client: Client, permissions: list[Any]
) -> None:
    assert client.put(ID, {"data": "text", "permissions": permissions}).status_code == 202
    assert coveo.items(SOURCE)[ID]["permissions"] == permissions
    assert coveo.undocumented == []


@pytest.mark.parametrize(
    "permissions",
    [
        [{"allowedPermisions": [USER]}],
        [{"allowAnonymous": None}],
        [{"allowedPermissions": [{"identity": "a"}]}],
        [{"allowedPermissions": [{**USER, "rights": "all"}]}],
        [{"level": 1, "permissionSets": []}],
    ],
)
def test_undocumented_keys_of_permissions_are_noted(
    coveo: Simulator, client: Client, permissions: list[Any]
) -> None:
    item = {"documentId": ID, "data": "text", "permissions": permissions}
    assert client.batch({"addOrUpdate": [item]}).status_code == 202
    assert failures(coveo) == []
    assert len(coveo.undocumented) == 1


def test_large_data_is_read_from_a_container_that_can_be_used_only_once(
    coveo: Simulator, client: Client
) -> None:
    file_id = client.filled_container(zlib.compress(b"binary"))
    assert client.put(ID, {"compressedBinaryDataFileId": file_id}).status_code == 202
    assert coveo.items(SOURCE)[ID]["compressedBinaryDataFileId"] == file_id
    assert coveo.undocumented == []
    assert error(client.put(ID, {"compressedBinaryDataFileId": file_id})) == (412, "INVALID_PARAMETER")
    assert len(coveo.undocumented) == 1


def test_a_secured_source_rejects_an_item_without_permissions_only_in_its_logs(
    coveo: Simulator, client: Client
) -> None:
    coveo.add_source("secured", visibility="SECURED")
    assert client.put(ID, source="secured").status_code == 202
    assert failures(coveo, "secured") == [(ID, "CONSUMING", "ERROR")]
    assert client.put(ID, {"data": "text", "permissions": PERMISSIONS}, source="secured").status_code == 202
    assert list(coveo.items("secured")) == [ID]


def test_more_than_5000_permissions_are_rejected_only_in_the_logs(coveo: Simulator, client: Client) -> None:
    identity = {"identity": "a", "identityType": "User"}
    permissions = [{"allowedPermissions": [identity] * 3000, "deniedPermissions": [identity] * 2001}]
    assert client.put(ID, {"data": "text", "permissions": permissions}).status_code == 202
    assert failures(coveo) == [(ID, "CONSUMING", "REJECTED")]
    permissions[0]["deniedPermissions"].pop()
    client.put(ID, {"data": "text", "permissions": permissions})
    assert list(coveo.items(SOURCE)) == [ID]


def test_undocumented_features_of_an_item_are_noted(
    coveo: Simulator, client: Client, tolerated: list[str]
) -> None:
    tolerated += ["orderingId", "size"]
    client.put(ID, {"data": "text", "orderingId": 1})
    client.put(ID, {"data": "text", "size": None})
    client.put(ID, {"data": "text", "fileExtension": "txt"})
    client.put(ID, {"data": "text", "compressionType": "ZLIB"})
    assert client.put(ID, {"data": "text", "documentId": "https://acme.com/2"}).status_code == 412
    assert len(coveo.undocumented) == 5
    assert all(SOURCE in note for note in coveo.undocumented)


def test_an_item_can_be_made_to_fail_at_a_stage(coveo: Simulator, client: Client) -> None:
    coveo.reject_item(ID, task="MAPPING", result="ERROR", reason="no such field")
    client.put(ID)
    assert coveo.items(SOURCE) == {}
    stages = [(entry["task"], entry["result"], entry["meta"]) for entry in coveo.logs(SOURCE)]
    assert stages == [
        ("CONSUMING", "COMPLETED", {}),
        ("PROCESSING", "COMPLETED", {}),
        ("MAPPING", "ERROR", {"error": "no such field"}),
    ]


def test_an_item_with_a_warning_is_indexed(coveo: Simulator, client: Client) -> None:
    coveo.reject_item(ID, task="PROCESSING", result="WARNING", reason="odd")
    client.put(ID)
    assert list(coveo.items(SOURCE)) == [ID]
    assert [entry["result"] for entry in coveo.logs(SOURCE)] == ["COMPLETED", "WARNING", "COMPLETED"]


def test_indexing_can_take_time(coveo: Simulator, client: Client) -> None:
    coveo.indexing_delay = 180
    client.put(ID)
    assert coveo.items(SOURCE) == {}
    coveo.clock.shift(minutes=5)
    assert coveo.items(SOURCE) == {}
    coveo.clock.advance(minutes=3)
    assert list(coveo.items(SOURCE)) == [ID]


def test_deleting_includes_the_children_only_on_request(coveo: Simulator, client: Client) -> None:
    ids = ["https://acme.com/a", "https://acme.com/a/b", "https://acme.com/ab"]
    for document_id in ids:
        client.put(document_id)
    assert client.delete(ids[0]).status_code == 202
    assert list(coveo.items(SOURCE)) == ids[1:]
    client.delete(ids[0], deleteChildren="true")
    assert list(coveo.items(SOURCE)) == ids[2:]
    assert [entry["operation"] for entry in coveo.logs(SOURCE)][-1] == "DELETE_AND_CHILDREN"


def test_delete_children_must_be_a_boolean(client: Client) -> None:
    assert error(client.delete(ID, deleteChildren="yes")) == (412, "INVALID_PARAMETER")
