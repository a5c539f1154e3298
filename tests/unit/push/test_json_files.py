"""JSON in files: unchanged objects, little memory, and errors with positions."""

from __future__ import annotations

import io
import json
import random
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airflow_provider_coveo.content import json_objects, streams
from airflow_provider_coveo.content.files import read_files
from airflow_provider_coveo.coveo.batches import item_batches
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.coveo.invalid_items import InvalidItemError


def objects(content: bytes) -> list[bytes]:
    return list(json_objects.objects(io.BufferedReader(io.BytesIO(content))))  # type: ignore[arg-type]


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(CoveoInputError) as error:
        list(read_files(str(path)))
    assert len(str(error.value)) < 1_000
    return str(error.value)


def _random_object(chance: random.Random, depth: int = 0) -> Any:
    texts = [
        "",
        '"',
        "\\",
        '\\"',
        "{",
        "}",
        "[]",
        "é",
        "\u2028",
        "\\\\" * 40,
        '"' * 100,
        "x" * 70_000,
        "{\n}",
    ]
    kind = chance.randrange(6 if depth < 3 else 3)
    if kind < 2:
        return chance.choice(texts)
    if kind == 2:
        return chance.choice([1, 2**70, 1.5, True, None])
    if kind == 3:
        return [_random_object(chance, depth + 1) for _ in range(chance.randrange(4))]
    count = chance.choice([0, 2, 300 if depth == 2 else 3])
    return {chance.choice(texts[:9]) + str(n): _random_object(chance, depth + 1) for n in range(count)}


@pytest.mark.parametrize("seed", range(40))
def test_objects_are_read_unchanged(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)  # noqa: S311
    monkeypatch.setattr(streams, "CHUNK", chance.choice([1, 3, 64, 4096, 1024 * 1024]))
    found = [
        json.dumps({"documentId": "a", "x": _random_object(chance)}, indent=chance.choice([None, 1])).encode()
        for _ in range(3)
    ]
    assert objects(b" [ " + b" ,\r\n ".join(found) + b" ]\n") == found
    assert objects(b"\n".join(found)) == objects(b"".join(found)) == found


def test_the_validation_of_items_reports_problems_within_an_object() -> None:
    found = [b'{"a":1,"a":2}', b'{"n":12345678901234567890.10e5}', b'{"a" 1}', b"{]}", b'{"\xff":01}']
    assert objects(b"[" + b",".join(found) + b"]") == found


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (
            b'[{"a":1},\n\n {"b":2} x',
            "'x' found instead of a comma or the array's end, at byte 20, line 3",
        ),
        (b'[{"a":1},\n1]', "'1]' found instead of an object, at byte 10, line 2"),
        (b'[{"a":1}]\n\n{', "'{' follows the array's end, at byte 11, line 3"),
        (b'[{"a":1}\n', "it ended too early, at byte 9, line 2"),
        (b'[{"a":1}\n,{"b"', "it ended within the object that begins at byte 10, line 2"),
        (b'\n{"a":"x" y"}', "begins at byte 1, line 2 is not JSON: expected ',' or '}' at byte 10, line 2"),
        (b"[" * 1_000_000, "'" + "[" * 39),
        (b"5", "'5' found instead of an object, at byte 0, line 1"),
    ],
)
def test_an_error_names_the_position(tmp_path: Path, content: bytes, place: str) -> None:
    assert place in refused(tmp_path / "a.json", content)


@pytest.mark.parametrize("name", ["a.json", "a.ndjson"])
@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (b'{"items": [{"documentId": "a"}]}', "jq '.items'"),
        (b'{"total": 1, "Documents": [ {"documentId": "a"}]}', "jq '.Documents'"),
        (b'{"addOrUpdate": [{"documentId": "a"}], "delete": []}', "jq '.addOrUpdate'"),
        (b'{"took": 1, "hits": {"hits": [{}]}}', "Elasticsearch"),
        (b'{"index": {"_id": "1"}}\n{"documentId": "a"}', "Elasticsearch's bulk format"),
    ],
)
def test_an_object_that_contains_items_is_rejected_with_a_remedy(
    tmp_path: Path, name: str, content: bytes, remedy: str
) -> None:
    assert remedy in refused(tmp_path / name, content)


@pytest.mark.parametrize("content", [b'{"documentId": "a", "items": [{"b": 1}]}', b'{"title": "x"}', b"{}"])
def test_objects_that_may_be_items_are_read(tmp_path: Path, content: bytes) -> None:
    for name in ("a.json", "a.ndjson"):
        (tmp_path / name).write_bytes(content)
        assert list(read_files(str(tmp_path / name))) == [content]


@pytest.mark.parametrize(
    "content",
    [b'[{"documentId": "a"}]', b'{\n"documentId": "a"}', b'{"documentId": "a"}\r{"documentId": "b"}'],
)
def test_ndjson_without_one_item_a_line_is_rejected_but_can_be_read_as_json(
    tmp_path: Path, content: bytes
) -> None:
    assert "file_format='json'" in refused(tmp_path / "a.ndjson", content)
    assert list(read_files(str(tmp_path / "a.ndjson"), file_format="json"))


# --- memory ---


class Endless(io.RawIOBase):
    """A file that repeats the same bytes, longer than any memory."""

    def __init__(self, begin: bytes, repeated: bytes, length: int) -> None:
        self._begin, self._left = begin, length
        self._block = repeated * max(1, 65_536 // len(repeated))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._begin or self._block
        if self._left <= 0:
            return 0
        count = min(len(buffer), len(block))
        buffer[:count] = block[:count]
        self._begin = self._begin[count:]
        self._left -= count
        return count


def peak_of(items: Iterator[bytes]) -> tuple[int, int, str]:
    """Return the number of items, their memory, and the error."""
    count, said = 0, ""
    tracemalloc.start()
    try:
        for _ in items:
            count += 1
    except (streams.MalformedError, EOFError) as error:
        said = str(error)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return count, peak, said


@pytest.mark.parametrize(
    ("begin", "repeated", "said"),
    [
        (b'[{"a":"5" pipe"},', b'{"a":"lorem ipsum"},\n', "is not JSON"),
        (b'[{"a":"x', b"y", "longer than"),
        (b'[{"a":"', b'\\"', "longer than"),
        (b'[{"a":"', b"\\\\", "longer than"),
        (b'[{"a":', b"{", "is not JSON"),
        (b'[{"a":', b'{"a":', "nested too deeply"),
        (b'[{"a":', b"[", "nested too deeply"),
        (b'[{"a":[', b'"x",', "longer than"),
        (b'[{"a":"', b'\\"}{[', "longer than"),
        (b"", b"[", "found instead of an object"),
        (b"[", b" \n", "ended too early"),
        (b'[{"a":1}', b" ", "it ended"),
        (b'{"items":[', b'{"a":1},', "longer than"),
    ],
)
def test_no_file_takes_more_memory_than_a_small_multiple_of_the_largest_item(
    monkeypatch: pytest.MonkeyPatch, begin: bytes, repeated: bytes, said: str
) -> None:
    monkeypatch.setattr(streams, "MAX_ITEM", 4_000_000)
    monkeypatch.setattr(json_objects, "_LARGE", 1_000_000)
    file = io.BufferedReader(Endless(begin, repeated, 30_000_000))
    _, peak, reason = peak_of(json_objects.objects(file))
    assert said in reason
    assert peak < 16_000_000


@pytest.mark.parametrize("text", [b"x" * 30_000_000, b'\\"' * 15_000_000, b"\\\\" * 15_000_000])
def test_a_large_item_needs_a_small_multiple_of_its_size_in_memory(text: bytes) -> None:
    item = b'{"documentId":"a","data":"' + text + b'"}'
    file = io.BytesIO(b"[" + item + b",{}]")
    reader = json_objects.objects(io.BufferedReader(file))  # type: ignore[arg-type]
    count, peak, said = peak_of(reader)
    assert (count, said) == (2, "")
    assert peak < 3.2 * len(item)


def test_the_work_grows_linearly_with_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting:
        calls = 0

        def __init__(self, pattern: Any) -> None:
            self._pattern = pattern

        def match(self, *arguments: Any) -> Any:
            Counting.calls += 1
            return self._pattern.match(*arguments)

    for name in ("_OUTSIDE", "_INSIDE", "_TO_NEXT_BRACE"):
        monkeypatch.setattr(json_objects, name, Counting(getattr(json_objects, name)))
    calls = []
    for size in (1_000_000, 4_000_000):
        Counting.calls = 0
        objects(b'{"documentId":"' + b"\\\\" * size + b'"}')
        calls.append(Counting.calls)
    assert calls[1] <= calls[0] * 4 + 10


def test_an_item_that_is_nested_very_deeply_is_an_invalid_item(tmp_path: Path) -> None:
    text = b'{"documentId":"a","x":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    assert objects(b"[" + text + b"]") == [text]
    with pytest.raises(RecursionError):
        msgspec.json.decode(text)


@pytest.mark.parametrize("name", ["a.json", "a.ndjson", "c=1/a.json", "c=1/a.ndjson"])
@pytest.mark.parametrize(
    ("item", "rule"),
    [
        (b'{"documentId": "a://1", "data": "\xff"}', "it is not UTF-8"),
        (b'{"documentId": "a://1", "data": "", "\xff": 1}', "it is not UTF-8"),
        (b'{"documentId": "a://1", "data": "", "c": "\xff"}', "it is not UTF-8|its folder sets 'c'"),
        (b'{"documentId": "a://1", "data": "\\u00e9", "x": NaN}', "it is not one JSON object.*invalid"),
        (
            b'{"documentId": "a://1", "data": "\\u00e9", "x": [-Infinity]}',
            "it is not one JSON object.*invalid",
        ),
        (b'{"documentId": "a://1", "data": "\\ud800"}', "half of a surrogate pair"),
    ],
)
def test_invalid_utf_8_is_reported_for_the_item_that_contains_it(
    tmp_path: Path, name: str, item: bytes, rule: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    between = b"\n" if name.endswith("ndjson") else b" "
    path.write_bytes(between.join([item, b'{"documentId": "a://2", "data": "", "c": "1"}']))
    rules: dict[int, str] = {}

    def noted(place: int, error: InvalidItemError) -> bool:
        rules[place] = error.rule
        return True

    try:
        batches = list(item_batches(read_files(str(path)), 10_000, noted))
    except CoveoInputError as error:
        assert str(path) in str(error)  # noqa: PT017
        assert re.search(rule, str(error))  # noqa: PT017
    else:
        assert [batch.sent for batch in batches] == [1]
        assert list(rules) == [0]
        assert re.search(rule, rules[0])
