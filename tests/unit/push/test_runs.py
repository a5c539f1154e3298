"""Consecutive JSON items are validated together, which changes nothing but the time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_coveo.coveo.batches import item_batches
from airflow_provider_coveo.coveo.item_encoding import ItemEncoder
from airflow_provider_coveo.coveo.items import InvalidItemError


def line(number: int = 1, **properties: Any) -> bytes:
    item = {"documentId": f"a://{number}", "data": "text", "tags": ["x"], "price": number, **properties}
    return json.dumps(item, separators=(",", ":")).encode()


_PIECES = [
    line(1),
    line(2),
    line(3, data='<a href="b">'),
    line(4, price=2.5),
    line(5, price="2.5"),
    line(6, tags=[]),
    line(7, tags=[1]),
    line(8, price=None),
    line(9, more=1),
    line(10, tags=["}", "{"]),
    line(11, price=2**64),
    line(12, documentId="no uri"),
    line(13, documentId="a://x\nb://y"),
    b'{"documentId":"a://20","data":"x","tags":["y"],"price":1,"price":2}',
    b'{"documentId":"a://21","data":"\\"","tags":["y"],"price":1,"price":2}',
    b'{"documentId":"a://22","data":"\\u0022","tags":["y"],"price":1}',
    b'{"documentId":"a://23","data":"\\u0022\\u0022","tags":["y"],"price" :1,"price":2}',
    b'{"documentId": "a://24", "data": "x", "tags": ["y"], "price": 1}',
    b'{"documentId":"a://25","data":"x","tags":["y"],"price":1},' + line(26),
    b'{"documentId":"a://27","data":"x","tags":["}',
    b'{"],"price":1}',
    b'{"documentId":"a://28","data":"x","tags":["y"',
    b'"z"],"price":1}',
    b'{"documentId":"a://29","data":"\xff","tags":["y"],"price":1}',
    b'{"documentId":"a://30","data":"\\ud800","tags":["y"],"price":1}',
    b'{"data":"x","documentId":"a://31","tags":["y"],"price":1}',
    b'{"documentId":"a://32","data":"x","tags":["y"],"PRICE":1}',
    line(33, **{'"': 1}),
    line(34, **{"\x1f\\": 1}),
    b"",
    b"[]",
    b"{}",
]


@settings(deadline=None)
@given(texts=st.lists(st.sampled_from(_PIECES), min_size=1, max_size=6))
@example(texts=[line(1), _PIECES[18], _PIECES[19], _PIECES[20]])
@example(texts=[line(1), _PIECES[18], _PIECES[21], _PIECES[22]])
def test_a_chunk_is_accepted_if_its_items_are_accepted_one_by_one(texts: list[bytes]) -> None:
    for as_lines in (False, True):
        run = ItemEncoder().encode_chunk([each + b"\n" for each in texts] if as_lines else texts)
        if run is not None:
            ids, text, sizes, gap = run
            assert [ItemEncoder().encode(each) for each in texts] == list(zip(ids, texts, strict=True))
            assert json.loads(b"[" + bytes(text) + b"]") == [json.loads(each) for each in texts]
            assert sizes == [len(each) + as_lines for each in texts]
            assert sum(sizes) + gap * (len(sizes) - 1) == len(text)


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"data": '<a href="https://example.com">é</a> \\ \u2028'},
        {"tags": ['"quoted"', ""], "instock": True, "fileExtension": ".html"},
    ],
)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_items_of_one_kind_form_a_chunk_however_they_are_formatted(
    properties: dict[str, Any], separators: tuple[str, str], ensure_ascii: bool
) -> None:
    texts = [
        json.dumps(
            {"documentId": f"a://{n}", "data": "x", "price": n, **properties},
            separators=separators,
            ensure_ascii=ensure_ascii,
        ).encode()
        for n in range(3)
    ]
    run = ItemEncoder().encode_chunk(texts)
    assert run is not None
    assert run[0] == ["a://0", "a://1", "a://2"]


def no_invalid_item(place: int, error: InvalidItemError) -> bool:
    raise AssertionError((place, error))


def test_chunks_fill_batches_as_well_as_single_items_do() -> None:
    lines = [line(n) for n in range(5_000)]
    as_runs = list(item_batches(lines, 20_000, no_invalid_item))
    one_by_one = list(item_batches(map(json.loads, lines), 20_000, no_invalid_item))
    # A chunk has one more newline per item.
    assert len(one_by_one) <= len(as_runs) <= len(one_by_one) * 1.05
    assert max(batch.size for batch in as_runs) <= 20_000
    bodies = [b"".join(batch.body(lambda _: "")) for batch in as_runs]
    assert [len(body) for body in bodies] == [batch.size for batch in as_runs]
    assert [item for body in bodies for item in json.loads(body)["addOrUpdate"]] == list(
        map(json.loads, lines)
    )
    assert [batch.first for batch in as_runs[1:]] == [batch.last + 1 for batch in as_runs[:-1]]
    assert sum(batch.counts["addOrUpdate"] for batch in as_runs) == len(lines)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_repeated_item_replaces_the_one_in_a_chunk(end: bytes) -> None:
    lines = [
        *(line(n) for n in range(1_000)),
        line(500, data="again"),
        *(line(n) for n in range(1_000, 1_100)),
    ]
    (batch,) = item_batches([each + end for each in lines], 10_000_000, no_invalid_item)
    items = json.loads(b"".join(batch.body(lambda _: "")))["addOrUpdate"]
    assert [item["documentId"] for item in items] == [f"a://{n}" for n in range(1_100)]
    assert items[500]["data"] == "again"
    assert (batch.replaced, batch.entries) == (1, 1_101)


def test_no_more_than_a_chunk_is_read_ahead() -> None:
    taken = 0

    def lines() -> Iterator[bytes]:
        nonlocal taken
        for n in range(20):
            taken += 1
            yield line(n, data="x" * 4_000_000)

    batches = item_batches(lines(), 1_000_000, no_invalid_item)
    next(batches)
    assert taken <= 3


def test_invalid_items_of_a_chunk_are_reported_with_their_index() -> None:
    lines = [line(n, documentId="no uri") if n in {3, 700} else line(n) for n in range(1_000)]
    places: list[int] = []
    batches = item_batches(lines, 10_000, lambda place, _: places.append(place) or True)
    assert sum(batch.counts["addOrUpdate"] for batch in batches) == 998
    assert places == [3, 700]


def test_items_after_an_invalid_one_are_validated_to_the_end() -> None:
    lines = [line(n, documentId="no uri") if n in {3, 4, 3_000, 4_999} else line(n) for n in range(5_000)]
    places: list[int] = []
    assert list(item_batches(lines, 10_000_000, lambda place, _: places.append(place) or False)) == []
    assert places == [3, 4, 3_000, 4_999]
