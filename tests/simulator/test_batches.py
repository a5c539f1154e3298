"""File containers, presigned uploads, and batches from them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from airflow_provider_coveo.simulator import Simulator
from tests.simulator.client import SOURCE, Client, error
from tests.simulator.test_items import failures

A, B, C = "https://acme.com/a", "https://acme.com/b", "https://acme.com/c"


def item(document_id: str, **more: Any) -> dict[str, Any]:
    return {"documentId": document_id, "data": "text", **more}


def storage_code(answer: requests.Response) -> tuple[int, str]:
    """The status and the code of the storage's error, which is XML."""
    assert answer.headers["Content-Type"] == "application/xml"
    found = re.search(r"<Error><Code>(\w+)</Code>", answer.text)
    assert found
    return answer.status_code, found[1]


def test_a_batch_adds_and_deletes(coveo: Simulator, client: Client) -> None:
    client.put(C)
    batch = {"addOrUpdate": [item(A), item(B)], "delete": [{"documentId": C, "deleteChildren": False}]}
    answer = client.batch(batch)
    assert (answer.status_code, answer.content) == (202, b"null")
    items = coveo.items(SOURCE)
    assert list(items) == [A, B]
    assert items[A]["orderingId"] == items[B]["orderingId"]
    assert coveo.timeline(SOURCE)[-1].items() >= {"event": "batch", "added": 2, "deleted": 1}.items()
    assert coveo.undocumented == []


def test_the_keys_of_a_batch_are_read_in_any_case(coveo: Simulator, client: Client) -> None:
    client.batch({"AddOrUpdate": [{"DocumentId": A, "Data": "text"}], "Delete": []})
    assert list(coveo.items(SOURCE)) == [A]


def test_a_new_container_lists_the_headers_that_its_upload_requires(coveo: Simulator, client: Client) -> None:
    container = client.container()
    assert container["requiredHeaders"] == {
        "x-amz-server-side-encryption": "AES256",
        "Content-Type": "application/octet-stream",
    }
    assert container["uploadUri"].startswith(f"{coveo.url}/")
    assert "X-Amz-Signature=" in container["uploadUri"]
    answer = client.upload(container, b"{}")
    assert (answer.status_code, answer.content) == (200, b"")


def test_an_upload_with_an_authorization_header_is_rejected(coveo: Simulator, client: Client) -> None:
    answer = client.upload(client.container(), b"{}", Authorization=f"Bearer {coveo.api_key}")
    assert storage_code(answer) == (400, "InvalidArgument")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Type": "application/json"},
        {"Content_Type": None},
        {"x_amz_server_side_encryption": "aws:kms"},
        {"x_amz_server_side_encryption": None},
    ],
)
def test_an_upload_without_exactly_the_signed_headers_is_rejected(
    client: Client, headers: dict[str, str | None]
) -> None:
    container = client.container()
    assert storage_code(client.upload(container, b"{}", **headers)) == (403, "SignatureDoesNotMatch")
    assert client.upload(container, b"{}").status_code == 200


def test_an_upload_with_unsigned_headers_is_rejected(client: Client) -> None:
    answer = client.upload(client.container(), b"{}", x_amz_acl="public-read")
    assert storage_code(answer) == (403, "AccessDenied")


def test_an_upload_to_a_changed_address_is_rejected(client: Client) -> None:
    container = client.container()
    container["uploadUri"] = container["uploadUri"][:-1]
    assert storage_code(client.upload(container, b"{}")) == (403, "SignatureDoesNotMatch")


def test_an_upload_requires_a_content_length(client: Client) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"{}"

    assert storage_code(client.upload(client.container(), chunks())) == (411, "MissingContentLength")


def test_an_upload_is_limited_to_256_mb(coveo: Simulator, client: Client) -> None:
    container = client.container()
    assert storage_code(client.upload(container, bytes(256 * 1024 * 1024 + 1))) == (400, "EntityTooLarge")
    assert error(client.send_batch(container["fileId"])) == (412, "INVALID_PARAMETER")
    coveo.reset()


def test_a_container_expires_after_an_hour(coveo: Simulator, client: Client) -> None:
    empty, full = client.container(), client.filled_container({"addOrUpdate": [item(A)]})
    coveo.clock.shift(hours=2)
    assert client.upload(empty, b"{}").status_code == 200
    coveo.clock.advance(minutes=60)
    answer = client.upload(empty, b"{}")
    assert storage_code(answer) == (403, "AccessDenied")
    assert "expired" in answer.text
    assert error(client.send_batch(full)) == (412, "INVALID_PARAMETER")
    assert coveo.items(SOURCE) == {}


def test_an_unknown_empty_or_used_file_id_is_rejected_and_noted(coveo: Simulator, client: Client) -> None:
    used = client.filled_container({"addOrUpdate": [item(A)]})
    assert client.send_batch(used).status_code == 202
    for file_id in ("unknown", client.container()["fileId"], used):
        assert error(client.send_batch(file_id)) == (412, "INVALID_PARAMETER")
    assert len(coveo.undocumented) == 3


@pytest.mark.parametrize(
    "content", [b"", b"no JSON", b"[]", b'{"addOrUpdate": {}}', b'{"delete": [], "Delete": []}']
)
def test_a_malformed_batch_is_accepted_and_shows_in_the_logs(
    coveo: Simulator, client: Client, content: bytes
) -> None:
    file_id = client.filled_container(content)
    assert client.send_batch(file_id).status_code == 202
    assert failures(coveo) == [(file_id, "CONSUMING_BATCH", "ERROR")]


def test_each_invalid_entry_of_a_batch_is_rejected_individually(coveo: Simulator, client: Client) -> None:
    good = json.dumps(item(A))
    bad = [
        "1",
        "{}",
        '{"documentId": "https://acme.com/1"}',
        '{"documentId": "no-uri", "data": "text"}',
        '{"documentId": "https://acme.com/2", "data": "text", "a": 1, "A": 2}',
        '{"documentId": "https://acme.com/3", "data": "text", "nested": {}}',
        '{"documentId": "https://acme.com/4", "compressedBinaryDataFileId": "unknown"}',
        '{"documentId": "https://acme.com/5", "compressedBinaryData": "AAAA", "compressionType": "zip"}',
    ]
    deletions = '[{"documentId": "https://acme.com/6", "deleteChildren": "yes"}, {}, 1]'
    content = f'{{"addOrUpdate": [{", ".join([*bad, good])}], "delete": {deletions}}}'
    assert client.batch(content.encode()).status_code == 202
    assert list(coveo.items(SOURCE)) == [A]
    assert len(failures(coveo)) == len(bad) + 3


def test_two_entries_with_the_same_id_apply_in_order_and_are_noted(coveo: Simulator, client: Client) -> None:
    client.batch({"addOrUpdate": [item(A, title="1"), item(A, title="2"), item(B)], "delete": []})
    assert coveo.items(SOURCE)[A]["title"] == "2"
    client.batch({"addOrUpdate": [item(B)], "delete": [{"documentId": B}]})
    assert list(coveo.items(SOURCE)) == [A]
    assert len(coveo.undocumented) == 2


def test_an_empty_batch_and_an_unknown_key_of_a_batch_are_noted(coveo: Simulator, client: Client) -> None:
    client.batch({"addOrUpdate": [], "delete": []})
    client.batch({"partialUpdate": [], "delete": [{"documentId": A}]})
    assert len(coveo.undocumented) == 2


def test_a_batch_of_items_for_a_secured_source_is_checked_item_by_item(
    coveo: Simulator, client: Client
) -> None:
    coveo.add_source("secured", visibility="SECURED")
    client.batch({"addOrUpdate": [item(A), item(B, permissions=[{"allowAnonymous": True}])]}, "secured")
    assert list(coveo.items("secured")) == [B]
    assert failures(coveo, "secured") == [(A, "CONSUMING", "ERROR")]


def test_one_batch_can_contain_many_items(coveo: Simulator, client: Client) -> None:
    client.batch({"addOrUpdate": [item(f"https://acme.com/{number}") for number in range(10_000)]})
    assert len(coveo.items(SOURCE)) == 10_000


def test_the_parameter_of_a_new_container_must_be_a_boolean(client: Client) -> None:
    answer = client.session.post(f"{client.push}/files", params={"useVirtualHostedStyleUrl": "true"})
    assert answer.status_code == 201
    answer = client.session.post(f"{client.push}/files", params={"useVirtualHostedStyleUrl": "1"})
    assert error(answer) == (412, "INVALID_PARAMETER")
