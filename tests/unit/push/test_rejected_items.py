"""Files of rejected items: complete or missing, with each item in its original form."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_coveo.content.rejected_items import RejectedItems, RejectedItemsFile
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.coveo.invalid_items import InvalidItemError, InvalidValue, ItemWithoutId
from airflow_provider_coveo.coveo.item_encoding import ItemEncoder
from airflow_provider_coveo.coveo.items import Delete, Item
from tests.unit.push.object_storage import Request, Storage, connection_to, running_storage

NO_URI = InvalidItemError("4711", "it is not a URI", "Add a scheme")


def written(path: Any, *items: Any) -> list[dict[str, Any]]:
    file = RejectedItemsFile(path, "products")
    for index, item in enumerate(items):
        file.add_invalid(index, NO_URI, item)
    file.write()
    file.close()
    content = Path(str(path)).read_bytes()
    if str(path).endswith(".gz"):
        content = gzip.decompress(content)
    return [json.loads(line) for line in content.splitlines()]


def read(path: Any) -> tuple[list[Any], dict[str, Any]]:
    items = RejectedItems(path)
    return list(items.entries()), items.result()


@pytest.mark.parametrize("name", ["rejected.ndjson", "rejected.ndjson.gz", "r.JSONL", "of/run=x/r.jsonl.gz"])
def test_each_line_contains_the_item_and_the_reason(tmp_path: Path, name: str) -> None:
    item = {"documentId": "4711", "data": "ä\n", "price": 9.5, "tags": ["a", None], "title": None}
    assert written(tmp_path / name, item) == [
        {
            "source_id": "products",
            "index": 0,
            "document_id": "4711",
            "rule": "it is not a URI",
            "remedy": "Add a scheme",
            "item": item,
        }
    ]
    entries, result = read(tmp_path / name)
    assert [json.loads(entry) for entry in entries] == [item]
    assert result == {"entries": 1, "without_item": 0, "document_ids_without_item": []}


def test_text_is_kept_unchanged(tmp_path: Path) -> None:
    # A parser would keep one of the two, but the push rejects both.
    text = b'{"documentId": "a://1",\n "price": 1, "price": 2.50}\n'
    written(tmp_path / "r.ndjson", text, memoryview(text))
    assert read(tmp_path / "r.ndjson")[0] == [text.strip().replace(b"\n", b" ")] * 2


def test_values_without_a_json_type_are_written_as_they_are_sent(tmp_path: Path) -> None:
    moment = datetime(2026, 1, 1, tzinfo=timezone.utc)
    item = {"documentId": "a://1", "data": "x", "price": Decimal("1.50"), "updated": moment, "tags": ("a",)}
    (line,) = written(tmp_path / "r.ndjson", item)
    assert line["item"] == {
        "documentId": "a://1",
        "data": "x",
        "price": "1.50",
        "updated": "2026-01-01T00:00:00+00:00",
        "tags": ["a"],
    }
    encode = ItemEncoder().encode
    assert encode(item) == encode(line["item"])


def test_items_and_deletions_can_be_pushed_again(tmp_path: Path) -> None:
    written(
        tmp_path / "r.ndjson", Item("4711", data="x", metadata={"a": 1}), Delete("4711"), Delete("8", True)
    )
    entries, _ = read(tmp_path / "r.ndjson")
    assert json.loads(entries[0]) == {"documentId": "4711", "data": "x", "a": 1}
    assert entries[1:] == [Delete("4711", False), Delete("8", True)]


class Unreadable:
    def __repr__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    "item",
    [
        {"documentId": "a://1", "when": datetime(2026, 1, 1)},
        {"documentId": "a://1", "price": float("nan")},
        {"documentId": "a://1", "nested": {1: 2}},
        {1: "a"},
        {"documentId": "a://1", "data": "\ud800"},
        b'{"documentId": "a://1", "data": "\\ud800"}',
        {"documentId": InvalidValue("it can't be read")},
        ItemWithoutId({}, InvalidValue("its sku is empty")),
        b"{broken",
        b"[1]",
        "text",
        5,
        Unreadable(),
        Delete(5),  # type: ignore[arg-type]
        {"a": b"x" * 100_000},
    ],
)
def test_values_that_json_cannot_hold_are_shown_and_not_pushed_again(tmp_path: Path, item: Any) -> None:
    (line,) = written(tmp_path / "r.ndjson", item)
    assert len(line["item_repr"]) <= 10_000
    assert read(tmp_path / "r.ndjson") == (
        [],
        {"entries": 1, "without_item": 1, "document_ids_without_item": ["4711"]},
    )


def test_an_id_that_utf_8_cannot_encode_does_not_fail_the_file(tmp_path: Path) -> None:
    file = RejectedItemsFile(tmp_path / "r.ndjson", "products")
    file.add_invalid(0, InvalidItemError("a://\ud800", "it is \ud800"), {"a": 1})
    file.write()
    assert read(tmp_path / "r.ndjson")[0] == [b'{"a": 1}']


def test_without_items_there_is_no_file(tmp_path: Path) -> None:
    file = RejectedItemsFile(str(tmp_path / "r.ndjson"), "products")
    file.write()
    assert list(tmp_path.iterdir()) == []
    assert file.result() == {"rejected": 0, "rejected_path": None}
    assert read(tmp_path / "r.ndjson") == (
        [],
        {"entries": 0, "without_item": 0, "document_ids_without_item": []},
    )


def test_the_previous_file_is_kept_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "r.ndjson"
    written(path, {"a": 1})
    before = path.read_bytes()
    file = RejectedItemsFile(path, "products")
    file.add_invalid(0, NO_URI, {"a": 2})
    assert path.read_bytes() == before
    file.close()
    assert path.read_bytes() == before
    written(path, {"a": 3})
    assert [each.name for each in tmp_path.iterdir()] == ["r.ndjson"]


@pytest.mark.parametrize(
    "path",
    ["", "rejected", "rejected.json", "r.ndjson.zst", "r.ndjson/", "https://x.io/r.ndjson", 5, "r\0.ndjson"],
)
def test_an_unsupported_path_is_rejected(path: Any) -> None:
    with pytest.raises(CoveoInputError, match="Invalid rejected_path") as refused:
        RejectedItemsFile(path, "products")
    assert ".ndjson, .jsonl, .ndjson.gz or .jsonl.gz" in str(refused.value) or "HTTP" in str(refused.value)


@pytest.mark.parametrize(
    "line", [b'{"documentId": "a://1"}', b'{"source_id": "x", "index": "y"}', b'{"item": 1}', b"x"]
)
def test_a_file_of_another_kind_is_not_pushed(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "items.ndjson").write_bytes(line + b"\n")
    with pytest.raises(CoveoInputError, match="not a file of rejected items"):
        read(tmp_path / "items.ndjson")


def test_a_truncated_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "r.ndjson.gz"
    written(path, *({"number": number, "x": "x" * 500} for number in range(50)))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CoveoInputError, match="damaged or truncated"):
        read(path)


def test_the_memory_is_limited(tmp_path: Path) -> None:
    import tracemalloc

    item = {"documentId": "4711", "data": "x" * 100_000}
    file = RejectedItemsFile(tmp_path / "r.ndjson", "products")
    tracemalloc.start()
    for index in range(300):
        file.add_invalid(index, NO_URI, item)
    file.write()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "r.ndjson").stat().st_size > 30_000_000
    assert peak < 8_000_000


# --- on an object storage ---


@pytest.fixture(scope="module")
def _storage() -> Iterator[tuple[Storage, str]]:
    pytest.importorskip("s3fs")
    with running_storage() as running:
        yield running


@pytest.fixture
def storage(_storage: tuple[Storage, str], monkeypatch: pytest.MonkeyPatch) -> Storage:
    storage, proxy = _storage
    storage.clear()
    monkeypatch.setenv("AIRFLOW_CONN_STORE", connection_to(storage.client.meta.endpoint_url))
    monkeypatch.setenv("AIRFLOW_CONN_BROKEN", connection_to(proxy))
    return storage


@pytest.mark.parametrize("as_path", [False, True])
def test_the_file_can_be_on_an_object_storage(storage: Storage, as_path: bool) -> None:
    url = "s3://store@bucket/run/rejected.ndjson.gz"
    path: Any = ObjectStoragePath(url) if as_path else url
    file = RejectedItemsFile(path, "products")
    file.add_invalid(3, NO_URI, {"documentId": "4711"})
    assert not storage.has("run/rejected.ndjson.gz")
    file.write()
    assert file.result() == {"rejected": 1, "rejected_path": url}
    assert [json.loads(entry) for entry in read(path)[0]] == [{"documentId": "4711"}]
    file.remove()
    assert not storage.has("run/rejected.ndjson.gz")
    file.remove()
    assert read(path)[0] == []


def test_a_file_that_cannot_be_written_leaves_nothing_behind(storage: Storage) -> None:
    def fault(request: Request) -> int | None:
        return 403 if request.method in {"PUT", "POST"} else None

    storage.fault = fault
    file = RejectedItemsFile("s3://broken@bucket/run/r.ndjson", "products")
    file.add_invalid(3, NO_URI, {"documentId": "4711"})
    with pytest.raises(OSError, match="Writing it failed") as raised:
        file.write()
    assert "secret" not in str(raised.value)
    assert file.result()["rejected_path"] is None
    assert not storage.has("run/r.ndjson")
