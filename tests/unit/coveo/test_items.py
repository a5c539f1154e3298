from __future__ import annotations

import enum
import hashlib
import json
import uuid
from datetime import date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any

import pendulum
import pytest

from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.coveo.item_encoding import ItemEncoder
from airflow_provider_coveo.coveo.items import (
    MAX_INLINE_DATA,
    InvalidItemError,
    Item,
    permanent_id,
    prepared_item,
    validate_document_id,
)
from airflow_provider_coveo.coveo.permissions import MAX_PERMISSIONS


class _Nowhere(tzinfo):
    """A time zone without an offset, so that Python treats its times as naive."""

    def utcoffset(self, when: datetime | None) -> None:
        return None


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
    assert validate_document_id(document_id) == document_id


@pytest.mark.parametrize("document_id", ["", "4711", "a:b", "://x", "1x://y", "x://", "x://a\nb", None, 7])
def test_anything_else_is_not_a_document_id(document_id: object) -> None:
    with pytest.raises(CoveoInputError, match="documentId"):
        validate_document_id(document_id)


def test_no_item_is_public_by_default() -> None:
    assert sent() == {"data": "An anvil."}


def test_metadata_is_encoded_as_json() -> None:
    instant = datetime(2026, 11, 24, 8, tzinfo=timezone(timedelta(hours=1)))
    key = uuid.uuid4()
    day, price = date(2026, 11, 24), Decimal("9.90")
    assert sent(a="é{{ x }}", b=3, c=2.5, d=True, e=["x", "y"], f=instant, g=day, h=price, i=key) == {
        "data": "An anvil.",
        "a": "é{{ x }}", "b": 3, "c": 2.5, "d": True, "e": ["x", "y"],
        "f": "2026-11-24T08:00:00+01:00", "g": "2026-11-24", "h": "9.90", "i": str(key),
    }  # fmt: skip


def test_integers_of_64_bits_are_accepted() -> None:
    numbers = {"largest": 2**63 - 1, "smallest": -(2**63)}
    assert sent(**numbers) == {"data": "An anvil.", **numbers}
    written = json.dumps(item(**numbers), separators=(",", ":")).encode()
    assert encoded(written) == encoded(item(**numbers)) == ("product://4711", written)
    with pytest.raises(InvalidItemError, match="64 bits"):
        encoded(written.replace(b"-9223372036854775808", b"-9223372036854775809"))


def test_a_time_whose_offset_has_seconds_is_converted_to_utc() -> None:
    local_mean_time = timezone(timedelta(minutes=53, seconds=28))
    assert sent(since=datetime(1890, 1, 1, 0, 53, 28, tzinfo=local_mean_time))["since"] == (
        "1890-01-01T00:00:00+00:00"
    )
    with pytest.raises(CoveoInputError, match="since"):
        sent(since=datetime(1, 1, 1, tzinfo=local_mean_time))


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
        ({"tiny": -(2**63) - 1}, "64 bits"),
        ({"when": datetime(2026, 1, 1)}, "time zone"),
        ({"when": datetime(2026, 1, 1, tzinfo=_Nowhere())}, "time zone"),
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
        ({"permissions": [{"allowedPermissions": [{}] * (MAX_PERMISSIONS + 1)}]}, "5,001"),
        ({"": "x"}, "non-empty"),
        ({3: "x"}, "non-empty"),
        ({"price": Decimal("NaN")}, "price.*no field"),
        ({"prices": [Decimal("-Infinity")]}, "prices.*no field"),
        ({"photo": memoryview(b"jpeg")}, "photo.*memoryview"),
    ],
)
def test_an_item_that_coveo_would_reject_is_rejected_with_the_reason(
    properties: dict[Any, Any], reason: str
) -> None:
    with pytest.raises(CoveoInputError, match=reason):
        prepared_item({**item(), **properties}).body()


@pytest.mark.parametrize("bad", [None, "x", [], {"data": "x"}, {"documentId": "a://b"}])
def test_an_item_without_an_id_or_content_is_rejected(bad: object) -> None:
    with pytest.raises(CoveoInputError):
        prepared_item(bad)


@pytest.mark.parametrize("content", [b"bytes", 5, None])
def test_content_that_is_not_text_is_rejected(content: object) -> None:
    with pytest.raises(CoveoInputError, match="data must be a string"):
        prepared_item(item(data=content))


def test_coveo_s_own_keys_are_recognized_in_any_case() -> None:
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


def test_a_compression_type_is_accepted_only_in_upper_case() -> None:
    with pytest.raises(CoveoInputError, match="ZLIB"):
        prepared_item({"documentId": "a://b", "compressedBinaryData": "eJw=", "compressionType": "zlib"})


def test_sizes_are_measured_in_bytes() -> None:
    assert not prepared_item(item(data="a" * MAX_INLINE_DATA)).is_too_large_for_inline_data
    assert prepared_item(item(data="é" * (MAX_INLINE_DATA // 2 + 1))).is_too_large_for_inline_data
    with pytest.raises(CoveoInputError, match="bytes"):
        prepared_item(item(note="a" * 6_500_000)).body()


def test_limits_of_coveo_with_an_ambiguous_unit_have_the_smaller_value() -> None:
    assert prepared_item(item(data="a" * 5_000_001)).is_too_large_for_inline_data
    with pytest.raises(CoveoInputError, match="Coveo accepts 6,000,000"):
        prepared_item(item(note="a" * 6_000_001)).body()


# --- content of items ---


class _Colour(enum.Enum):
    RED = "red"


def test_enums_and_times_of_libraries_are_encoded_as_plain_values() -> None:
    moment = pendulum.datetime(2026, 11, 24, 8, tz="Europe/Vienna")
    assert sent(a=_Colour.RED, b=moment, c=("x", moment), d=[1, Decimal("2.5")]) == {
        "data": "An anvil.",
        "a": "red",
        "b": "2026-11-24T08:00:00+01:00",
        "c": ["x", "2026-11-24T08:00:00+01:00"],
        "d": [1, "2.5"],
    }


def test_values_of_numpy_are_encoded_like_those_of_python() -> None:
    numpy = pytest.importorskip("numpy")
    assert sent(
        a=numpy.int64(3), b=numpy.float32(0.5), c=numpy.bool_(True), d=numpy.str_("x"), e=numpy.array([1, 2])
    ) == {"data": "An anvil.", "a": 3, "b": 0.5, "c": True, "d": "x", "e": [1, 2]}
    for value, reason in (
        (numpy.float64("nan"), "nan"),
        (numpy.datetime64("2026-11-24"), "time zone"),
        (numpy.array([[1], [2]]), "a list"),
    ):
        with pytest.raises(CoveoInputError, match=reason):
            sent(a=value)


_USER = {"identity": "asmith@example.com", "identityType": "User"}
_UPPER = {name.upper(): value for name, value in _USER.items()}


@pytest.mark.parametrize(
    "permissions",
    [
        [],
        [{"allowAnonymous": True}],
        [{"allowAnonymous": False, "allowedPermissions": [_USER], "deniedPermissions": []}],
        [{"allowedPermissions": [{**_USER, "identityType": "VirtualGroup", "securityProvider": "AD"}]}],
        [{"allowedPermissions": [{**_USER, "additionalInfo": {"domain": "x"}}]}],
        [{"name": "level", "permissionSets": [{"name": "set", "allowedPermissions": [_USER]}]}],
    ],
)
def test_both_permission_models_are_accepted_unchanged(permissions: list[Any]) -> None:
    assert sent(permissions=permissions)["permissions"] == permissions


@pytest.mark.parametrize(
    ("permissions", "spelled"),
    [
        ([{"AllowedPermissions": [_USER]}], [{"allowedPermissions": [_USER]}]),
        ([{"ALLOWANONYMOUS": True}], [{"allowAnonymous": True}]),
        *(
            (
                [{"deniedPermissions": [{"identity": "x", "identityType": given}]}],
                [{"deniedPermissions": [{"identity": "x", "identityType": spelled}]}],
            )
            for given, spelled in [
                ("VIRTUAL_GROUP", "VirtualGroup"),
                ("virtualgroup", "VirtualGroup"),
                ("USER", "User"),
                ("group", "Group"),
                ("UNKNOWN", "Unknown"),
            ]
        ),
        (
            [{"allowedPermissions": [{**_USER, "securityProvider": None, "additionalInfo": None}]}],
            [{"allowedPermissions": [_USER]}],
        ),
        (
            [{"Name": "level", "PermissionSets": [{"Name": "set", "DeniedPermissions": [_UPPER]}]}],
            [{"name": "level", "permissionSets": [{"name": "set", "deniedPermissions": [_USER]}]}],
        ),
    ],
)
def test_permissions_are_sent_in_the_spelling_of_the_push_api(
    permissions: list[Any], spelled: list[Any]
) -> None:
    assert sent(permissions=permissions)["permissions"] == spelled
    given = item(permissions=permissions, price=1.5)
    for form in (given, json.dumps(given).encode()):
        encoded = ItemEncoder().encode(form)
        assert isinstance(encoded, tuple)
        assert json.loads(encoded[1]) == {**given, "permissions": spelled}


def test_the_pipeline_s_maximum_of_permissions_is_accepted() -> None:
    permissions = [{"allowedPermissions": [_USER] * 4_000, "deniedPermissions": [_USER] * 1_000}]
    assert MAX_PERMISSIONS == 5_000
    assert sent(permissions=permissions)["permissions"] == permissions


@pytest.mark.parametrize(
    ("permissions", "reason"),
    [
        ([_USER], "unknown key 'identity'"),
        ([{"allowedPermision": [_USER]}], "unknown key 'allowedpermision'"),
        ([{"allowAnonymous": "yes"}], "allowAnonymous"),
        ([{"allowedPermissions": _USER}], "not a list"),
        ([{"allowedPermissions": ["asmith"]}], "not an identity"),
        ([{"allowedPermissions": [{"identityType": "User"}]}], "without a name"),
        ([{"allowedPermissions": [{**_USER, "identityType": "xUSERx"}]}], "xUSERx"),
        ([{"allowedPermissions": [{**_USER, "securityProvider": 5}]}], "securityProvider"),
        ([{"allowedPermissions": [{**_USER, "securityProvider": ""}]}], "securityProvider"),
        ([{"allowedPermissions": [{**_USER, "rights": "all"}]}], "rights"),
        ([{"allowedPermissions": [{**_USER, "additionalInfo": {"a": 1}}]}], "additionalInfo"),
        ([{"allowAnonymous": True, "ALLOWANONYMOUS": True}], "duplicate"),
        ([{"permissionSets": []}], "no name"),
        ([{"name": "level", "permissionSets": {}}], "not a list"),
        ([{"name": "l", "permissionSets": [{"deniedPermissions": [_USER] * 5001}]}], "5,001"),
    ],
)
def test_permissions_that_coveo_could_misinterpret_are_rejected(permissions: list[Any], reason: str) -> None:
    with pytest.raises(CoveoInputError, match=reason):
        sent(permissions=permissions)


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"compressedBinaryData": "not Base64!"}, "not Base64"),
        ({"compressedBinaryData": "eJw=", "compressionType": None}, "compressionType"),
        ({"compressedBinaryData": "eJw=", "compressionType": ["GZIP"]}, "compressionType"),
        ({"data": "x", "parentId": "parent"}, "parentId"),
        ({"data": "x", "huge": "\ud800" * 10**6}, "surrogate"),
    ],
)
def test_invalid_values_of_reserved_keys_are_rejected_with_a_short_reason(
    properties: dict[str, Any], reason: str
) -> None:
    with pytest.raises(CoveoInputError, match=reason) as refused:
        prepared_item({"documentId": "a://b", **properties})
    assert len(str(refused.value)) < 1000


def test_a_typed_item_is_equivalent_to_a_dict() -> None:
    moment = datetime(2026, 11, 24, tzinfo=timezone.utc)
    typed = Item(
        "a://b",
        title="B",
        author="me",
        date=moment,
        clickable_uri="https://b.example.com",
        file_extension=".pdf",
        parent_id="a://b",
        compressed_binary_data=b"x",
        compression_type="UNCOMPRESSED",
        permissions=[{"allowAnonymous": True}],
        metadata={"price": 5},
    )
    assert typed.as_dict() == {
        "documentId": "a://b", "title": "B", "author": "me", "date": moment,
        "clickableuri": "https://b.example.com", "fileExtension": ".pdf", "parentId": "a://b",
        "compressedBinaryData": "eA==", "compressionType": "UNCOMPRESSED",
        "permissions": [{"allowAnonymous": True}], "price": 5,
    }  # fmt: skip
    assert prepared_item(typed) == prepared_item(typed.as_dict())
    with pytest.raises(CoveoInputError, match="parameter of Item"):
        prepared_item(Item("a://b", "x", title="B", metadata={"title": "C"}))
    with pytest.raises(CoveoInputError, match="case only"):
        prepared_item(Item("a://b", "x", title="B", metadata={"TITLE": "C"}))


def test_the_permanent_id_is_the_same_as_that_of_coveo_s_clients() -> None:
    uri = "https://example.com/"
    md5, sha1 = (
        hashlib.new(name, uri.encode(), usedforsecurity=False).hexdigest() for name in ("md5", "sha1")
    )
    assert permanent_id(uri) == md5[:30] + sha1[:30]


# --- bytes ---


def encoded(text: object) -> Any:
    return ItemEncoder().encode(text)


@pytest.mark.parametrize(
    "text",
    [
        b'{"documentId":"a://b","data":"x"}',
        b'{"documentId": "a://b", "data": "x", "n": [1, 2.50], "t": true}',
        b'{\n  "documentId": "a:\\/\\/b",\n  "data": "\\u00e9\\ud83d\\ude00"\n}',
        '{"documentId":"a://b","data":"é","é":"x"}'.encode(),
        b'{"data":"x","permissions":[{"allowAnonymous":true}],"documentId":"a://b"}',
        b'{"DOCUMENTID":"a://b","Data":"x"}',
    ],
)
def test_json_of_an_item_is_sent_unchanged(text: bytes) -> None:
    assert encoded(text) == ("a://b", text)
    assert encoded(b" \t" + text + b"\r\n") == ("a://b", text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"documentId":"a://b","data":"x","data":"y"}', "'data' occurs twice"),
        (b'{"documentId": "a://b", "data": "x", "data": "y"}', "'data' occurs twice"),
        (b'{"data":"x" ,"documentId":"a://b","data":"x"}', "'data' occurs twice"),
        (b'{"documentId":"a://b","data":"x","d\\u0061ta":"y"}', "'data' occurs twice"),
        (b'{"documentId":"a://b","data":"x","Title":"y","title":"y"}', "case only"),
        (b'{"documentId":"a://b","data":"x","permissions":[{"a":1,"a":2}]}', "unknown key"),
        (
            b'{"documentId":"a://b","data":"x","permissions":[{"allowAnonymous":true,"allowAnonymous":false}]}',
            "'allowAnonymous' occurs twice",
        ),
        (b'{"documentId":"a://b","data":"x","title":"\\ud800"}', "surrogate"),
        (b'{"documentId":"a://b","data":"\xff"}', "UTF-8"),
        (b'{"documentId":"a://b","data":"x","n":1e999}', "not one JSON object"),
        (b'{"documentId":"a://b","data":"x","n":NaN}', "not one JSON object"),
        (b'{"documentId":"a://b","data":"x","n":9223372036854775808}', "64 bits"),
        (b'{"documentId":"a://b","data":"x","n":null}', "None"),
        (b'{"documentId":"a://b","data":"x"} {}', "not one JSON object"),
        (b"[]", "array"),
        (b"null", "null"),
        (b"", "not one JSON object"),
        (b'{"documentId":"a://b","x":' + b"[" * 100_000, "too deeply"),
    ],
)
def test_json_that_coveo_would_reject_is_rejected_with_the_reason(text: bytes, reason: str) -> None:
    with pytest.raises(InvalidItemError) as refused:
        encoded(text)
    assert reason in refused.value.rule


def test_any_number_of_different_item_schemas_can_be_encoded() -> None:
    encoder = ItemEncoder()
    for number in range(5_000):
        assert encoder.encode({"documentId": "a://b", "data": "x", f"key{number}": 1})
