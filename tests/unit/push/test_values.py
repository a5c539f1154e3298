"""All parts of an item pass the same validation, whatever their origin: correct, or a clear error."""

from __future__ import annotations

import collections
import dataclasses
import enum
import ipaddress
import itertools
import json
import math
import pathlib
import uuid
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from airflow_provider_coveo.content.files import read_files
from airflow_provider_coveo.content.rows import row_mapper
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.coveo.items import RESERVED_KEYS, Delete, Item
from airflow_provider_coveo.coveo.metadata import shortest_float
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.simulator import Simulator

_sources = itertools.count()
UTC = timezone.utc
AWARE = datetime(2026, 1, 31, 8, tzinfo=UTC)


@pytest.fixture
def source(coveo: Simulator, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AIRFLOW_CONN_COVEO_DEFAULT", coveo.connection_json())
    return new_source(coveo)


def new_source(coveo: Simulator) -> str:
    coveo.reset()
    name = f"source-{next(_sources)}"
    coveo.add_source(name)
    return name


class Text(str):
    """A string subclass that converts to something else wherever it can."""

    __slots__ = ()

    def __str__(self) -> str:
        return "other"

    def __format__(self, spec: str) -> str:
        return "other"

    def __iter__(self) -> Iterator[str]:
        raise ValueError("no text")

    def encode(self, *args: Any) -> bytes:
        raise ValueError("no text")

    def lower(self) -> str:
        return "other"


class Whole(int):
    def __str__(self) -> str:
        return "other"

    def __int__(self) -> int:
        raise ValueError("no number")


class Real(float):
    def __repr__(self) -> str:
        return "other"

    def __float__(self) -> float:
        raise ValueError("no number")


class Listed(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        raise ValueError("no list")


class Moment(datetime):
    def isoformat(self, *args: Any) -> str:
        return "other"


class Amount(Decimal):
    def __str__(self) -> str:
        return "other"

    def __format__(self, *args: Any) -> str:
        return "other"


class Color(str, enum.Enum):
    RED = "red"


class Plain(enum.Enum):
    TEXT = "text"
    PAIR = (1, 2)
    NAIVE = datetime(2026, 1, 31)


class Level(enum.IntEnum):
    HIGH = 3


class NaTType(datetime):
    """Like pandas' missing time."""

    def utcoffset(self) -> Any:
        raise ValueError("NaTType does not support utcoffset")


class BadZone(tzinfo):
    def utcoffset(self, moment: Any) -> Any:
        raise RuntimeError("no such zone")


class Nasty:
    """Raises on every operation."""

    def _refuse(self, *args: Any) -> Any:
        raise RuntimeError("nasty")

    __str__ = __repr__ = __eq__ = __iter__ = __len__ = __bool__ = __format__ = _refuse  # type: ignore[assignment]
    __hash__ = __getattr__ = isoformat = _refuse  # type: ignore[assignment]

    @property
    def __class__(self) -> Any:
        raise RuntimeError("nasty")


class NastyMapping(Mapping[str, Any]):
    """A mapping that lies about its content."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("nasty")

    def __iter__(self) -> Iterator[str]:
        return iter(["documentId", "data"])

    def __len__(self) -> int:
        return 2


@dataclasses.dataclass
class Record:
    name: str = "x"


class Struct(msgspec.Struct):
    name: str = "x"


def _recursive() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


async def _later() -> int:
    return 1


#: A value, its form in metadata, and its form in a text.
TAKEN = {
    "str": ("a", "a", "a"),
    "str subclass": (Text("a"), "a", "a"),
    "numpy str": (np.str_("a"), "a", "a"),
    "str enum": (Color.RED, "red", "red"),
    "enum": (Plain.TEXT, "text", "text"),
    "int enum": (Level.HIGH, 3, "3"),
    "int": (4711, 4711, "4711"),
    "int subclass": (Whole(3), 3, "3"),
    "numpy int": (np.int64(3), 3, "3"),
    "0-d array": (np.array(3), 3, "3"),
    "float": (4711.0, 4711.0, "4711.0"),
    "large float": (1e22, 1e22, "10000000000000000000000"),
    "small float": (1e-7, 1e-7, "0.0000001"),
    "float subclass": (Real(2.5), 2.5, "2.5"),
    "numpy float": (np.float32(2.5), 2.5, "2.5"),
    "32-bit float": (np.float32(0.1), 0.1, "0.1"),
    "16-bit float": (np.float16(0.1), 0.1, "0.1"),
    "large 32-bit float": (np.finfo("f4").max, 3.4028235e38, "34028235" + "0" * 31),
    "small 32-bit float": (np.float32(1e-45), 1e-45, "0." + "0" * 44 + "1"),
    "0-d array of a 32-bit float": (np.array(0.1, "f4"), 0.1, "0.1"),
    "bool": (True, True, "true"),
    "numpy bool": (np.bool_(False), False, "false"),
    "decimal": (Decimal("9.90"), "9.90", "9.90"),
    "decimal zero": (Decimal("0E-10"), "0.0000000000", "0.0000000000"),
    "decimal exponent": (Decimal("1E+2"), "100", "100"),
    "decimal subclass": (Amount("1E+2"), "100", "100"),
    "uuid": (uuid.UUID(int=1), str(uuid.UUID(int=1)), str(uuid.UUID(int=1))),
    "aware": (AWARE, "2026-01-31T08:00:00+00:00", "2026-01-31T08:00:00+00:00"),
    "datetime subclass": (
        Moment(2026, 1, 31, tzinfo=UTC), "2026-01-31T00:00:00+00:00", "2026-01-31T00:00:00+00:00"
    ),
    "date": (date(2026, 1, 31), "2026-01-31", "2026-01-31"),
    "time": (time(8), "08:00:00", "08:00:00"),
    "duration": (timedelta(days=1, seconds=3), "P1DT3S", "P1DT3S"),
}  # fmt: skip
#: Texts can't contain these, but metadata accepts them.
LISTS = {
    "list": ([1, "a"], [1, "a"]),
    "tuple": ((1, "a"), [1, "a"]),
    "list subclass": (Listed([Text("a"), Whole(1)]), ["a", 1]),
    "named tuple": (collections.namedtuple("Pair", "a b")(1, 2), [1, 2]),
    "array": (np.array([1, 2]), [1, 2]),
    "array of 32-bit floats": (np.array([0.1, 16777216], "f4"), [0.1, 16777216.0]),
    "list of short floats": ([np.float32(0.1), np.float16(0.1), 0.1], [0.1, 0.1, 0.1]),
    "pandas column of 32-bit floats": (pd.Series([0.1], dtype="Float32"), [0.1]),
}
#: No field can contain these.
REFUSED: dict[str, Any] = {
    "bytes": b"4711",
    "memoryview": memoryview(b"4711"),
    "bytearray": bytearray(b"4711"),
    "numpy bytes": np.bytes_(b"a"),
    "NaN": math.nan,
    "infinity": -math.inf,
    "numpy NaN": np.float32("nan"),
    "decimal NaN": Decimal("NaN"),
    "decimal sNaN": Decimal("sNaN"),
    "decimal of too many digits": Decimal("1E+999999999"),
    "dict": {"a": 1},
    "set": {1},
    "frozenset": frozenset(),
    "nested": [[1]],
    "recursive": _recursive(),
    "naive": datetime(2026, 1, 31),
    "naive subclass": Moment(2026, 1, 31),
    "numpy datetime": np.datetime64("2026-01-31"),
    "numpy NaT": np.datetime64("NaT"),
    "numpy duration": np.timedelta64(1, "s"),
    "NaT": NaTType(2026, 1, 31),
    "bad zone": datetime(2026, 1, 31, tzinfo=BadZone()),
    "enum of a tuple": Plain.PAIR,
    "enum of a naive time": Plain.NAIVE,
    "large int": 2**63,
    "int of too many digits": 10**5000,
    "surrogate": "\ud800",
    "surrogate subclass": Text("\ud800"),
    "fraction": Fraction(1, 3),
    "complex": 1j,
    "range": range(3),
    "address": ipaddress.ip_address("127.0.0.1"),
    "path": pathlib.PurePath("/a"),
    "nasty": Nasty,
    "nasty mapping": NastyMapping(),
    "generator": (number for number in (1,)),
    "dataclass": Record(),
    "struct": Struct(),
    "class": object,
    "masked": np.ma.masked,
    "object array": np.array([object()], dtype=object),
}


def refused_value(name: str) -> Any:
    # pytest inspects the content of a module, which this object does not survive.
    return Nasty() if name == "nasty" else REFUSED.get(name)


def push(source: str, items: Any, **options: Any) -> dict[str, Any]:
    return CoveoPushHook().push_items(source, items, **options)


def refusal(source: str, coveo: Simulator, item: Any, document_id: str | None = None) -> str:
    """Push an item after a valid one, in each way, and return the rule that rejects it."""
    good = {"documentId": "good://1", "data": ""}
    before = len(coveo.requests)
    with pytest.raises(CoveoInputError) as refused:
        push(source, [good, item])
    assert len(coveo.requests) == before
    assert "number 1 (" in str(refused.value)
    skipped = push(source, [good, item], on_invalid="skip")
    assert (skipped["accepted_adds"], skipped["accepted_deletes"], skipped["invalid"]) == (1, 0, 1)
    (told,) = skipped["invalid_items"]
    assert told["index"] == 1
    if document_id is not None:
        assert told["document_id"] == document_id
    json.dumps(told)
    assert told["rule"]
    return str(told["rule"])


def row_item(value: Any, columns: dict[str, str]) -> dict[str, Any]:
    return row_mapper(["sku", "value"], columns, "The test")({"sku": 1, "value": value})


PLAIN = {"documentId": "product://{sku}", "data": "sku", "field": "value"}
IN_TEXT = {"documentId": "product://{sku}", "data": "<{value}>"}
IN_ID = {"documentId": "product://{value}", "data": "text{sku}"}


@pytest.mark.parametrize("name", TAKEN)
def test_a_value_in_a_text_has_the_same_form_as_in_metadata(coveo: Simulator, source: str, name: str) -> None:
    value, sent, text = TAKEN[name]
    items = [
        {"documentId": "a://dict", "data": "", "field": value},
        Item("a://item", data="", metadata={"field": value}),
        row_item(value, {**PLAIN, "documentId": "a://row{sku}", "data": "text{sku}"}),
        row_item(value, {**IN_TEXT, "documentId": "a://text"} | {"documentId": "a://text{sku}"}),
    ]
    assert push(source, items)["accepted_adds"] == 4
    indexed = coveo.items(source)
    assert [indexed[key]["field"] for key in ("a://dict", "a://item", "a://row1")] == [sent] * 3
    assert type(indexed["a://dict"]["field"]) is type(sent)
    assert indexed["a://text1"]["data"] == f"<{text}>"


@pytest.mark.parametrize("name", TAKEN)
def test_an_id_cannot_contain_floats_or_booleans(coveo: Simulator, source: str, name: str) -> None:
    value, sent, text = TAKEN[name]
    if type(sent) in {float, bool}:
        assert "can't be part of an ID" in refusal(source, coveo, row_item(value, IN_ID))
    else:
        push(source, [row_item(value, IN_ID)])
        assert set(coveo.items(source)) == {f"product://{text}"}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_accepted_as_metadata_but_not_as_part_of_a_text(
    coveo: Simulator, source: str, name: str
) -> None:
    value, sent = LISTS[name]
    push(source, [row_item(value, {**PLAIN, "data": "text{sku}"})])
    assert coveo.items(source)["product://1"]["field"] == sent
    assert "'value' is a" in refusal(source, coveo, row_item(value, IN_TEXT), "product://1")
    assert "'value' is a" in refusal(source, coveo, row_item(value, IN_ID))


@pytest.mark.parametrize("name", REFUSED)
def test_values_that_metadata_cannot_hold_are_rejected_in_every_form(
    coveo: Simulator, source: str, name: str
) -> None:
    value = refused_value(name)
    plain = refusal(source, coveo, row_item(value, {**PLAIN, "data": "text{sku}"}), "product://1")
    assert "'field'" in plain
    if "surrogate" not in name:
        assert "'value'" in refusal(source, coveo, row_item(value, IN_TEXT), "product://1")
        assert "'value'" in refusal(source, coveo, row_item(value, IN_ID))
    refusal(source, coveo, row_item(value, IN_TEXT), "product://1")
    refusal(source, coveo, row_item(value, IN_ID))
    refusal(source, coveo, Item("product://1", data="", metadata={"field": value}), "product://1")
    refusal(source, coveo, {"documentId": "product://1", "data": "", "field": ["a", value]}, "product://1")


@pytest.mark.parametrize("name", [*REFUSED, "None"])
@pytest.mark.parametrize(
    "key", ["documentId", "data", "parentId", "fileExtension", "compressedBinaryData", "permissions"]
)
def test_invalid_values_of_coveo_s_own_keys_are_rejected(
    coveo: Simulator, source: str, key: str, name: str
) -> None:
    item = {
        "documentId": "a://b",
        **({} if key.startswith("compressed") else {"data": ""}),
        key: refused_value(name),
    }
    assert refusal(source, coveo, item, None if key == "documentId" else "a://b")


@pytest.mark.parametrize("name", REFUSED)
def test_invalid_values_instead_of_items_and_ids_are_rejected(
    coveo: Simulator, source: str, name: str
) -> None:
    value = refused_value(name)
    assert refusal(source, coveo, value)
    assert refusal(source, coveo, Delete(value))
    assert refusal(source, coveo, Delete("a://b", delete_children=value), "a://b")
    with pytest.raises(CoveoInputError):
        push(source, [], delete=[value])
    with pytest.raises(CoveoInputError):
        CoveoPushHook().add_or_update_item(source, {"documentId": "a://b", "data": "", "x": value})
    with pytest.raises(CoveoInputError):
        CoveoPushHook().delete_item(source, value)


def test_a_property_that_raises_makes_an_invalid_item(coveo: Simulator, source: str) -> None:
    class Lazy(Item):
        @property
        def title(self) -> str:
            raise LookupError("gone")

        @title.setter
        def title(self, value: str) -> None:
            pass

    class LazyDelete(Delete):
        def __getattribute__(self, name: str) -> Any:
            raise LookupError("gone")

    assert "gone" in refusal(source, coveo, Lazy("a://b", data=""), "'a://b'")
    assert "gone" in refusal(source, coveo, LazyDelete("a://b"))


class Odd(dict[Any, Any]):
    def items(self) -> Any:
        raise ValueError("no dict")

    def __getitem__(self, key: Any) -> Any:
        raise ValueError("no dict")


def test_subclasses_of_builtin_types_are_accepted_in_coveo_s_own_keys(coveo: Simulator, source: str) -> None:
    user = Odd(
        {Text("identity"): Text("ada"), "identityType": Text("User"), "additionalInfo": Odd(a=Text("b"))}
    )
    item = Odd(
        {
            Text("documentId"): Text("a://b"),
            Text("data"): Text("content"),
            "fileExtension": Text(".html"),
            "parentId": np.str_("a://c"),
            "permissions": Listed([Odd(allowedPermissions=Listed([user]), allowAnonymous=False)]),
            Text("Field"): Real(1.5),
        }
    )
    binary = {
        "documentId": Text("a://d"),
        "compressedBinaryData": Text("eJwDAAAAAAE="),
        "compressionType": Text("ZLIB"),
    }
    assert push(source, [item, binary, Delete(Text("a://e"))])["accepted_deletes"] == 1
    indexed = coveo.items(source)
    assert {**indexed["a://b"], "orderingId": 0} == {
        "documentId": "a://b",
        "data": "content",
        "fileExtension": ".html",
        "parentId": "a://c",
        "permissions": [
            {
                "allowedPermissions": [
                    {"identity": "ada", "identityType": "User", "additionalInfo": {"a": "b"}}
                ],
                "allowAnonymous": False,
            }
        ],
        "Field": 1.5,
        "orderingId": 0,
    }
    assert set(indexed) == {"a://b", "a://d"}
    push(source, [], delete=[Text("a://b"), np.str_("a://d")])
    assert coveo.items(source) == {}


def test_bytes_like_objects_are_read_as_json(coveo: Simulator, source: str) -> None:
    class Bytes(bytes):
        def __bytes__(self) -> bytes:
            raise ValueError("no bytes")

        def strip(self, *args: Any) -> bytes:
            raise ValueError("no bytes")

    text = b'{"documentId": "a://%d", "data": ""}'
    released = memoryview(b"x")
    released.release()
    push(source, [Bytes(text % 1), bytearray(text % 2), memoryview(text % 3)])
    assert set(coveo.items(source)) == {"a://1", "a://2", "a://3"}
    assert refusal(source, coveo, released)


def test_an_item_with_other_key_types_is_not_encoded_like_the_previous_one(
    coveo: Simulator, source: str
) -> None:
    keys = enum.Enum("keys", {"field": "field"}, type=str)  # type: ignore[misc]
    first = {"documentId": "a://1", "data": "", "field": AWARE}
    second = {"documentId": "a://2", "data": "", keys("field"): AWARE}
    push(source, [first, second, first | {"documentId": Text("a://3")}])
    assert {item["field"] for item in coveo.items(source).values()} == {"2026-01-31T08:00:00+00:00"}


# --- identities and permissions ---


@pytest.mark.parametrize("name", REFUSED)
def test_invalid_values_in_identities_are_rejected(source: str, name: str) -> None:
    value = refused_value(name)
    good = {"name": "ada", "type": "USER"}
    for members in (
        [value],
        [{"identity": value}],
        [{"identity": {**good, "name": value}}],
        [{"identity": {**good, "type": value}}],
        [{"identity": {**good, "additionalInfo": {"a": value}}}],
        [{"identity": good, "members": value}],
        [{"identity": good, "members": [value]}],
    ):
        with pytest.raises(CoveoInputError, match=r"number 0 \("):
            CoveoPushHook().push_identities("P", members=members)


def test_subclasses_of_builtin_types_are_accepted_in_identities(coveo: Simulator, source: str) -> None:
    ada = Odd({Text("name"): Text("ada"), "type": Text("user"), "additionalInfo": Odd(a=Text("b"))})
    team = Odd(identity=Odd(name=Color.RED, type="GROUP"), members=Listed([ada]))
    result = CoveoPushHook().push_identities(
        "P", members=[team], deleted=[Odd(name=Text("bob"), type="USER")]
    )
    assert (result["accepted_members"], result["accepted_deleted"]) == (1, 1)


# --- the input itself ---


def test_neither_the_input_s_failure_nor_an_invalid_item_hides_the_other(
    coveo: Simulator, source: str
) -> None:
    def items(as_bytes: bool) -> Iterator[Any]:
        yield {"documentId": "a://1", "data": ""}
        yield b'{"documentId": "none"}' if as_bytes else {"documentId": "none"}
        yield b'{"documentId": "a://2", "data": ""}' if as_bytes else {"documentId": "a://2", "data": ""}
        raise LookupError("the line broke")

    for as_bytes in (False, True):
        with pytest.raises(CoveoInputError, match=r"number 1 .*'none'.* the input failed.*line broke"):
            push(source, items(as_bytes))
        with pytest.raises(LookupError, match="the line broke") as failed:
            push(source, items(as_bytes), on_invalid="skip")
        notes = getattr(failed.value, "__notes__", None)
        assert notes is None or "'none'" in notes[0]
    assert coveo.requests == []


def test_items_before_a_failure_of_the_input_are_counted(
    coveo: Simulator, source: str, caplog: pytest.LogCaptureFixture
) -> None:
    def items() -> Iterator[Any]:
        for number in range(40):
            yield json.dumps({"documentId": f"a://{number}", "data": "x" * 100}).encode()
        yield b"{}"
        raise CoveoInputError("The file ended")

    with pytest.raises(CoveoInputError, match=r"The file ended.*number 40 .*no documentId"):
        push(source, items(), on_invalid="skip", batch_bytes=1024)
    assert coveo.items(source)
    with pytest.raises(CoveoInputError, match=r"number 40 .*The file ended"):
        push(source, items(), batch_bytes=1024)


# --- items without content, and other formats ---


@pytest.mark.parametrize("as_json", [False, True])
def test_an_item_with_metadata_needs_no_content(coveo: Simulator, source: str, as_json: bool) -> None:
    titled = {"documentId": "a://1", "title": "Anvil"}
    push(source, [json.dumps(titled).encode() if as_json else titled] * 2)
    if not as_json:
        CoveoPushHook().add_or_update_item(source, Item("a://2", title="Rope"))
        assert coveo.items(source)["a://2"]["data"] == ""
    assert {**coveo.items(source)["a://1"], "orderingId": 0} == {**titled, "data": "", "orderingId": 0}
    for item in ({"documentId": "a://1"}, {"documentId": "a://1", "compressionType": "GZIP", "title": "x"}):
        rule = refusal(source, coveo, json.dumps(item).encode() if as_json else item, "a://1")
        assert '{"data": ""}' in rule


@pytest.mark.parametrize(
    ("item", "named"),
    [
        ({"addOrUpdate": [{"documentId": "a://1", "data": ""}], "delete": []}, "whole batch.*Delete"),
        ({"AddOrUpdate": []}, "whole batch"),
        ({"delete": [{"documentId": "a://1"}]}, "whole batch"),
        ({"index": {"_index": "products", "_id": "1"}}, "Elasticsearch's bulk format.*Remove such lines"),
        ({"delete": {"_index": "products", "_id": "1"}}, "Elasticsearch's bulk format"),
        ({"doc": {"title": "x"}, "doc_as_upsert": True}, "Elasticsearch.*doc"),
        ({"_index": "products", "_id": "1", "_source": {"title": "x"}}, "Elasticsearch.*_source"),
        ({"identity": {"name": "ada", "type": "USER"}}, "PushSecurityIdentitiesOperator"),
        ({"title": "Anvil", "uri": "a://1"}, "no documentId; its keys are 'title', 'uri'"),
        ({}, "its keys are none"),
    ],
)
def test_entries_that_are_not_items_are_named(coveo: Simulator, source: str, item: Any, named: str) -> None:
    with pytest.raises(CoveoInputError, match=f"number 0 .*{named}"):
        push(source, [item])
    with pytest.raises(CoveoInputError, match=f"number 0 .*{named}"):
        push(source, [json.dumps(item).encode()])


@pytest.mark.parametrize("key", ["data", "Permissions", "documentId", "parentid", "compressedBinaryData"])
@pytest.mark.parametrize("form", ["{} ", " {}", "{}\t", "\ufeff{}", "{}\u200b", "\xa0{}\n"])
def test_white_space_around_a_known_key_is_rejected(
    coveo: Simulator, source: str, key: str, form: str
) -> None:
    """Otherwise, the content or the permissions would be sent as metadata, which nobody reads."""
    padded = form.format(key)
    item = {"documentId": "a://1", "title": "x", padded: "y"}
    for one in (item, Item("a://1", metadata={padded: "y"}), json.dumps(item).encode()):
        assert f"is not {RESERVED_KEYS[key.lower()]}: white space" in refusal(source, coveo, one)
    many = [json.dumps({**item, "documentId": f"a://{number}"}).encode() for number in range(50)]
    assert push(source, many, on_invalid="skip")["invalid"] == 50
    push(source, [{"documentId": "a://1", "data ed": "x", "parent_id": 1, " other": "y"}])
    assert coveo.items(source)["a://1"][" other"] == "y"


# --- floats of fewer than 64 bits ---


@pytest.mark.parametrize(("bits", "size"), [("u2", 2), ("u4", 4)])
def test_a_short_float_is_sent_with_the_fewest_digits_that_identify_it(bits: str, size: int) -> None:
    patterns = range(2**16) if size == 2 else np.random.default_rng(1).integers(0, 2**32, 20_000)
    for number in np.array(patterns, bits).view(f"f{size}"):
        if np.isfinite(number):
            sent = shortest_float(float(number), size)
            assert number.dtype.type(sent) == number
            # At powers of two, numpy's text of some halves is not the closest number of its length.
            assert len(repr(sent)) <= len(repr(float(str(number)))) + (size == 2)
    assert math.isnan(shortest_float(math.nan, size))


def test_short_floats_of_parquet_are_sent_with_the_fewest_digits(
    coveo: Simulator, source: str, tmp_path: Path
) -> None:
    half, number = np.float16(0.1), pa.float32()
    columns = {
        "single": pa.array([0.1, None], number),
        "half": pa.array([half, None], pa.float16()),
        "double": pa.array([0.10000000149011612, None]),
        "list": pa.array([[0.1, 16777216], None], pa.list_(number)),
        "large": pa.array([[0.1], None], pa.large_list(number)),
        "fixed": pa.array([[0.1, 0.2], None], pa.list_(number, 2)),
        "halves": pa.array([[half], None], pa.list_(pa.float16())),
        "dictionary": pa.DictionaryArray.from_arrays(pa.array([0, None]), pa.array([0.1], number)),
    }
    table = {"documentId": ["a://0", "a://1"], "data": ["", ""], **columns}
    parquet.write_table(pa.table(table), tmp_path / "a.parquet")
    push(source, read_files(str(tmp_path / "a.parquet")))
    indexed = coveo.items(source)
    assert {key: indexed["a://0"][key] for key in columns} == {
        "single": 0.1,
        "half": 0.1,
        "double": 0.10000000149011612,
        "list": [0.1, 16777216.0],
        "large": [0.1],
        "fixed": [0.1, 0.2],
        "halves": [0.1],
        "dictionary": 0.1,
    }
    assert not columns.keys() & indexed["a://1"].keys()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_short_float_of_parquet_that_is_not_a_number_rejects_the_item(
    coveo: Simulator, source: str, tmp_path: Path, value: float
) -> None:
    table = {"documentId": ["a://1"], "data": [""], "price": pa.array([value], pa.float32())}
    parquet.write_table(pa.table(table), tmp_path / "a.parquet")
    (item,) = read_files(str(tmp_path / "a.parquet"))
    assert "'price' is" in refusal(source, coveo, item, "a://1")


# --- any value at all ---

_SUBCLASSES = st.one_of(
    st.text(max_size=5).map(Text),
    st.integers().map(Whole),
    st.floats().map(Real),
    st.floats(width=32).map(np.float32),
    st.integers(-(2**63), 2**63 - 1).map(np.int64),
    st.text(max_size=5).map(np.str_),
    st.decimals().map(Amount),
    st.builds(Decimal, st.tuples(st.integers(0, 1), st.tuples(st.integers(0, 9)), st.integers(-20, 20))),
)
_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=3),
    st.text(st.characters(categories=["Cs"]), min_size=1, max_size=2), st.decimals(), st.dates(), st.times(),
    st.timedeltas(), st.uuids(), st.datetimes(), st.datetimes(timezones=st.just(UTC)), st.fractions(),
    st.complex_numbers(), _SUBCLASSES,
    st.sampled_from([value for name, value in REFUSED.items() if name not in {"bad zone", "nasty"}]),
)  # fmt: skip
_VALUES = _SCALARS | st.lists(_SCALARS, max_size=3) | st.lists(_SCALARS, max_size=2).map(tuple)


def expected(value: Any) -> Any:
    """Return a value's form in metadata, without the tested code; ``REFUSED`` if it is rejected."""
    if type(value) in {list, tuple}:
        sent = [expected(entry) if type(entry) not in {list, tuple} else REFUSED for entry in value]
        return REFUSED if any(entry is REFUSED for entry in sent) else sent
    if isinstance(value, (np.datetime64, np.timedelta64)):
        return REFUSED
    if isinstance(value, np.float32):
        # Its text has the fewest digits that identify it.
        value = float(str(value))
    if isinstance(value, np.generic) and not isinstance(value, (str, bytes)):
        value = value.item()
    kind = next((kind for kind in (str, bool, int, float, Decimal) if issubclass(type(value), kind)), None)
    if kind is str:
        text = str.__str__(value)
        return REFUSED if any(0xD800 <= ord(sign) <= 0xDFFF for sign in text) else text
    if kind is bool:
        return bool(value)
    if kind is int:
        number = int.__index__(value)
        return number if -(2**63) <= number < 2**63 else REFUSED
    if kind is float:
        return float.__add__(value, 0.0) if math.isfinite(value) else REFUSED
    if kind is Decimal and Decimal.is_finite(value) and abs(Decimal.adjusted(value)) < 10_000:
        sign, digits, exponent = Decimal.as_tuple(value)
        whole = "".join(map(str, digits)) + "0" * max(exponent, 0)  # type: ignore[arg-type, type-var]
        whole = whole.rjust(1 - min(exponent, 0), "0")  # type: ignore[arg-type, type-var]
        point = len(whole) + min(exponent, 0)  # type: ignore[arg-type, type-var]
        whole = (whole[:point].lstrip("0") or "0") + ("." + whole[point:] if whole[point:] else "")
        return "-" * sign + whole
    if type(value) is datetime and value.tzinfo is UTC:
        return value.isoformat()
    if type(value) in {date, time}:
        return value.isoformat()
    if type(value) is timedelta:
        return msgspec.to_builtins(value)
    return str(value) if type(value) is uuid.UUID else REFUSED


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(value=_VALUES)
def test_a_value_is_accepted_or_rejected_alike_in_a_column_and_in_a_text(
    coveo: Simulator, monkeypatch: pytest.MonkeyPatch, value: Any
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_COVEO_DEFAULT", coveo.connection_json())
    source = new_source(coveo)
    sent = expected(value)
    empty = value is None or sent == ""
    rows = {
        "plain": row_item(value, {"documentId": "plain://{sku}", "data": "text{sku}", "field": "value"}),
        "text": row_item(value, {"documentId": "text://{sku}", "data": "<{value}>"}),
        "id": row_item(value, {"documentId": "id://{value}", "data": ""} | {"data": "text{sku}"}),
    }
    taken = {}
    for name, item in rows.items():
        result = push(source, [item], on_invalid="skip")
        taken[name] = not result["invalid"]
        if result["invalid"]:
            (told,) = result["invalid_items"]
            assert told["index"] == 0
            assert told["rule"]
            assert told["document_id"] == {"plain": "plain://1", "text": "text://1", "id": None}[name]
    indexed = coveo.items(source)
    assert taken["plain"] == (sent is not REFUSED or empty)
    if taken["plain"] and not empty:
        assert indexed["plain://1"]["field"] == sent
        assert type(indexed["plain://1"]["field"]) is type(sent)
    assert taken["text"] == (taken["plain"] and type(sent) is not list)
    if taken["text"]:
        words = "" if empty else {True: "true", False: "false"}[sent] if type(sent) is bool else sent
        if type(words) is float:
            assert float(indexed["text://1"]["data"][1:-1]) == words
            assert "e" not in indexed["text://1"]["data"]
        else:
            assert indexed["text://1"]["data"] == f"<{words}>"
    if taken["id"]:
        assert f"id://{sent}" in indexed
    if not taken["text"] or empty or type(sent) in {bool, float}:
        assert not taken["id"]
    assert not coveo.undocumented
