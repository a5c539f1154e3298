from __future__ import annotations

import json
import uuid
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.coveo.items import (
    LARGEST_INLINE_DATA,
    MOST_PERMISSIONS,
    checked_document_id,
    prepared_item,
)


def item(**properties: Any) -> dict[str, Any]:
    return {"documentId": "product://4711", "data": "An anvil.", **properties}


def sent(**properties: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(prepared_item(item(**properties)).body())
    return body


@pytest.mark.parametrize(
    "document_id",
    ["file://folder/a.html", "entity://1#en", "https://x.org/?a=1&b=2#c", "product://a b", "x+y.z-1://é"],
)
def test_any_uri_with_a_scheme_is_a_document_id(document_id: str) -> None:
    assert checked_document_id(document_id) == document_id


@pytest.mark.parametrize("document_id", ["", "4711", "a:b", "://x", "1x://y", "x://", "x://a\nb", None, 7])
def test_anything_else_is_not(document_id: object) -> None:
    with pytest.raises(CoveoInputError, match="documentId"):
        checked_document_id(document_id)


def test_nothing_is_made_public_by_default() -> None:
    assert sent() == {"data": "An anvil."}


def test_metadata_arrives_as_json() -> None:
    instant = datetime(2026, 11, 24, 8, tzinfo=timezone(timedelta(hours=1)))
    key = uuid.uuid4()
    day, price = date(2026, 11, 24), Decimal("9.90")
    assert sent(a="é{{ x }}", b=3, c=2.5, d=True, e=["x", "y"], f=instant, g=day, h=price, i=key) == {
        "data": "An anvil.",
        "a": "é{{ x }}", "b": 3, "c": 2.5, "d": True, "e": ["x", "y"],
        "f": "2026-11-24T08:00:00+01:00", "g": "2026-11-24", "h": "9.90", "i": str(key),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"price": {"amount": 1}}, "a dict"),
        ({"sizes": [[1], [2]]}, "a list"),
        ({"price": None}, "None"),
        ({"price": float("nan")}, "nan"),
        ({"price": float("inf")}, "inf"),
        ({"blob": b"x"}, "a bytes"),
        ({"thing": object()}, "object"),
        ({"huge": 2**63}, "64 bits"),
        ({"when": datetime(2026, 1, 1)}, "time zone"),
        ({"title": "\ud800"}, "surrogate"),
        ({"Title": "a", "TITLE": "b"}, "case only"),
        ({"DATA": "b"}, "case only"),
        ({"orderingId": 1}, "orderingId"),
        ({"ORDERINGID": 1}, "orderingId"),
        ({"compressedBinaryData": "eA=="}, "data and compressedBinaryData"),
        ({"compressionType": "GZIP"}, "binary"),
        ({"fileExtension": "html"}, "fileExtension"),
        ({"fileExtension": "."}, "fileExtension"),
        ({"parentId": "4711"}, "documentId"),
        ({"permissions": "all"}, "permissions"),
        ({"permissions": [{"allowedPermissions": [{}] * (MOST_PERMISSIONS + 1)}]}, "5,001"),
        ({"": "x"}, "non-empty"),
        ({3: "x"}, "non-empty"),
    ],
)
def test_what_coveo_would_refuse_is_refused_and_named(properties: dict[Any, Any], reason: str) -> None:
    with pytest.raises(CoveoInputError, match=reason):
        prepared_item({**item(), **properties}).body()


@pytest.mark.parametrize("bad", [None, "x", [], {"data": "x"}, {"documentId": "a://b"}])
def test_an_item_has_an_id_and_content(bad: object) -> None:
    with pytest.raises(CoveoInputError):
        prepared_item(bad)


@pytest.mark.parametrize("content", [b"bytes", 5, None])
def test_content_is_text(content: object) -> None:
    with pytest.raises(CoveoInputError, match="data must be a string"):
        prepared_item(item(data=content))


def test_keys_of_coveo_are_known_in_any_case() -> None:
    prepared = prepared_item(
        {
            "DOCUMENTID": "a://b",
            "compressedbinarydata": "eJw=",
            "COMPRESSIONTYPE": "ZLIB",
            "FileExtension": ".pdf",
        }
    )
    assert prepared.document_id == "a://b"
    assert prepared.compression_type == "ZLIB"
    assert json.loads(prepared.body()) == {"compressedBinaryData": "eJw=", "fileExtension": ".pdf"}


def test_a_compression_type_is_taken_in_upper_case_only() -> None:
    with pytest.raises(CoveoInputError, match="ZLIB"):
        prepared_item({"documentId": "a://b", "compressedBinaryData": "eJw=", "compressionType": "zlib"})


def test_size_is_counted_in_bytes() -> None:
    assert not prepared_item(item(data="a" * LARGEST_INLINE_DATA)).is_too_large_for_inline_data
    assert prepared_item(item(data="é" * (LARGEST_INLINE_DATA // 2 + 1))).is_too_large_for_inline_data
    with pytest.raises(CoveoInputError, match="bytes"):
        prepared_item(item(note="a" * 6_500_000)).body()
