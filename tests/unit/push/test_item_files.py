"""Items from files: every format is read as a stream, and damaged files fail."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import threading
import tracemalloc
from collections import UserList
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_coveo.content import streams
from airflow_provider_coveo.content.files import read_files
from airflow_provider_coveo.coveo.errors import CoveoInputError

ITEMS: list[dict[str, Any]] = [
    {"documentId": "a://1", "data": 'braces {in} "quotes" [and] \\ more', "price": 1.5},
    {"documentId": "a://2", "data": "é\n😀", "sizes": [1, 2], "permissions": [{"allowAnonymous": True}]},
    {"documentId": "a://3", "data": "{{ ds }}"},
]
LINES = b"\n".join(json.dumps(item).encode() for item in ITEMS)


def read(path: Any, **options: Any) -> list[Any]:
    return [json.loads(item) if isinstance(item, bytes) else item for item in read_files(path, **options)]


def written(path: Path, content: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


def zstd(content: bytes) -> bytes:
    compressed: bytes = pytest.importorskip("zstandard").compress(content)
    return compressed


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n\n  \n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["a.ndjson", "a.jsonl", "a.json"])
def test_a_line_is_an_item(tmp_path: Path, name: str, start: bytes, ending: bytes) -> None:
    assert read(written(tmp_path / name, start + LINES + ending)) == ITEMS


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("chunk", [1, 7, 64, 1024 * 1024])
def test_an_element_of_an_array_is_an_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indent: int | None, chunk: int
) -> None:
    monkeypatch.setattr(streams, "CHUNK", chunk)
    path = written(tmp_path / "a.json", b" " + json.dumps(ITEMS, indent=indent).encode() + b"\n")
    assert read(path) == ITEMS


def test_a_file_may_hold_one_object_or_an_empty_array(tmp_path: Path) -> None:
    assert read(written(tmp_path / "a.json", json.dumps(ITEMS[0], indent=2).encode())) == ITEMS[:1]
    assert read(written(tmp_path / "b.json", b"[]")) == []
    assert read(written(tmp_path / "c.ndjson", b"")) == []


@pytest.mark.parametrize("name", ["a.ndjson.gz", "a.json.gz", "a.ndjson", "a.jsonl.gzip"])
def test_gzip_is_recognized_by_its_content(tmp_path: Path, name: str) -> None:
    half = len(LINES.split(b"\n")[0]) + 1
    path = written(tmp_path / name, gzip.compress(LINES[:half]) + gzip.compress(LINES[half:]))
    assert read(path) == ITEMS


@pytest.mark.parametrize("name", ["a.ndjson.zst", "a.json.zstd", "a.ndjson"])
def test_zstd_is_recognized_by_its_content(tmp_path: Path, name: str) -> None:
    half = len(LINES.split(b"\n")[0]) + 1
    assert read(written(tmp_path / name, zstd(LINES[:half]) + zstd(LINES[half:]))) == ITEMS


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", b"[" + LINES.split(b"\n")[0]),
        ("a.json", b"[" + LINES.split(b"\n")[0] + b","),
        ("a.json", b"[" + LINES.split(b"\n")[0] + b",]"),
        ("a.json", b"[" + LINES.split(b"\n")[0] * 2 + b"]"),
        ("a.json", b"[" + LINES.split(b"\n")[0] + b"] x"),
        ("a.json", LINES.replace(b"\n", b",\n", 1)),
        ("a.json", b'[{"documentId": "a'),
        ("a.json", b"[1]"),
        ("a.json", b'"text"'),
        ("a.json", b""),
        ("a.ndjson.gz", gzip.compress(LINES)[:-9]),
        ("a.ndjson.gz", gzip.compress(LINES)[:-1]),
        ("a.ndjson.gz", gzip.compress(LINES)[:30] + b"\0" * 30 + gzip.compress(LINES)[60:]),
        ("a.csv", b"documentId,data\na://1\n"),
        ("a.csv", b"documentId,data\na://1,x,y\n"),
        ("a.csv", b"documentId,documentId\na://1,x\n"),
        ("a.csv", b'documentId,data\na://1,"x\n'),
        ("a.csv", b"documentId,data\na://1,\xff\n"),
        ("a.parquet", b"PAR1 or not"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, name: str, content: bytes) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    path = written(tmp_path / name, content)
    with pytest.raises(CoveoInputError) as refused:
        read(path)
    assert path in str(refused.value)
    assert len(str(refused.value)) < 1500


def test_a_zstd_file_that_was_cut_off_is_an_error(tmp_path: Path) -> None:
    lines = b"".join(b'{"documentId":"a://%d","data":"%d"}\n' % (n, n * 7919) for n in range(50_000))
    with pytest.raises(CoveoInputError, match="end-of-stream"):
        read(written(tmp_path / "a.ndjson.zst", zstd(lines)[:-10]))


# --- tables ---

_TABLE = b'sku,name,description,price,note\n4711,Anvil,"Heavy, ""very""",9.90,\n4712,Rope,,1,x\n'
_COLUMNS = {
    "documentId": "product://{sku}",
    "title": "name",
    "data": "{name}: {description}",
    "price": "price",
}


def test_csv_rows_become_items_by_a_mapping_of_columns(tmp_path: Path) -> None:
    assert read(written(tmp_path / "a.csv", b"\xef\xbb\xbf" + _TABLE), columns=_COLUMNS) == [
        {"documentId": "product://4711", "title": "Anvil", "data": 'Anvil: Heavy, "very"', "price": "9.90"},
        {"documentId": "product://4712", "title": "Rope", "data": "Rope: ", "price": "1"},
    ]


def test_without_a_mapping_the_columns_are_the_keys_and_empty_values_are_left_out(tmp_path: Path) -> None:
    table = b"documentId\tdata\tnote\na://1\tx\t\na://2\t\ty\n"
    assert read(written(tmp_path / "a.tsv", table)) == [
        {"documentId": "a://1", "data": "x"},
        {"documentId": "a://2", "data": "", "note": "y"},
    ]


def test_an_incomplete_id_is_left_out(tmp_path: Path) -> None:
    table = b"shop,sku,name\nvienna,1,Anvil\nvienna,,Rocket\n"
    columns = {"documentId": "product://{shop}/{sku}", "data": "{name} in {shop}"}
    assert read(written(tmp_path / "a.csv", table), columns=columns) == [
        {"documentId": "product://vienna/1", "data": "Anvil in vienna"},
        # A push rejects these, rather than making all of them the same item.
        {"data": "Rocket in vienna"},
    ]


def test_a_csv_field_can_be_long(tmp_path: Path) -> None:
    (item,) = read(written(tmp_path / "a.csv", b"documentId,data\na://1," + b"x" * 1_000_000 + b"\n"))
    assert len(item["data"]) == 1_000_000


@pytest.mark.parametrize("columns", [{"title": "nme"}, {"data": "{name} {nme}"}, {"data": "constant"}])
def test_the_error_of_a_missing_column_lists_the_existing_ones(
    tmp_path: Path, columns: dict[str, str]
) -> None:
    with pytest.raises(CoveoInputError, match=r"no column '(nme|constant)'.*'description'"):
        read(written(tmp_path / "a.csv", _TABLE), columns=columns)


def test_parquet_rows_are_items_with_types(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table(
        {"sku": [4711, 4712], "name": ["Anvil", "Rope"], "price": [9.9, None], "sizes": [[1], [2, 3]]}
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    columns = {"documentId": "product://{sku}", "data": "name", "price": "price", "sizes": "sizes"}
    assert read(str(tmp_path / "a.parquet"), columns=columns) == [
        {"documentId": "product://4711", "data": "Anvil", "price": 9.9, "sizes": [1]},
        {"documentId": "product://4712", "data": "Rope", "sizes": [2, 3]},
    ]


# --- which files ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(["b.ndjson", "a.json.gz", "sub/c.csv"], 1):
        content = json.dumps({"documentId": f"a://{number}", "data": "x"}).encode()
        if name.endswith("csv"):
            content = b"documentId,data\na://3,x\n"
        written(tmp_path / name, gzip.compress(content) if name.endswith("gz") else content)
    for name in ["_SUCCESS", ".hidden.json", "_temporary/x.json", "sub/.crc"]:
        written(tmp_path / name, b"not to be read")
    return tmp_path


def ids(items: list[dict[str, Any]]) -> list[str]:
    return [item["documentId"] for item in items]


@pytest.mark.parametrize("prefix", ["", "file://"])
@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("", ["a://2", "a://1", "a://3"]),
        ("/*.ndjson", ["a://1"]),
        ("/**/*.csv", ["a://3"]),
        ("/sub/*", ["a://3"]),
        ("/a.json.gz", ["a://2"]),
    ],
)
def test_files_folders_and_globs_are_read_in_the_order_of_names(
    folder: Path, prefix: str, path: str, found: list[str]
) -> None:
    assert ids(read(f"{prefix}{folder}{path}")) == found


def test_an_object_storage_path_is_read_as_well(folder: Path) -> None:
    assert ids(read(ObjectStoragePath(f"file://{folder}") / "b.ndjson")) == ["a://1"]
    assert ids(read([str(folder / "b.ndjson"), folder / "sub"])) == ["a://1", "a://3"]


def test_a_path_with_glob_characters_is_a_file_if_that_file_exists(tmp_path: Path) -> None:
    assert read(written(tmp_path / "a[1].ndjson", LINES)) == ITEMS


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("no/such/file.json", "Could not find the file"),
        ("no/such/*.json", "Could not find any file"),
        ("file:///no/such/*.json", "Could not find any file"),
        ("", "Invalid path"),
        (5, "Invalid path"),
    ],
)
def test_a_path_without_any_file_is_an_error(path: Any, reason: str) -> None:
    with pytest.raises(CoveoInputError, match=reason):
        read(path)


def test_an_empty_folder_and_an_unknown_kind_of_file_are_errors(tmp_path: Path) -> None:
    with pytest.raises(CoveoInputError, match="Could not find any file"):
        read(str(tmp_path))
    path = written(tmp_path / "a.txt", LINES)
    with pytest.raises(CoveoInputError, match="file_format"):
        read(path)
    assert read(path, file_format="ndjson") == ITEMS
    with pytest.raises(CoveoInputError, match="Invalid file_format: 'xml'"):
        read(path, file_format="xml")


# --- memory ---


@pytest.mark.parametrize("name", ["a.ndjson", "a.json", "a.ndjson.gz", "a.csv"])
def test_a_large_file_needs_no_more_memory_than_a_small_one(tmp_path: Path, name: str) -> None:
    def content(count: int) -> Iterator[bytes]:
        if name == "a.csv":
            yield b"documentId,data\n"
            yield from (b"a://%d,%s\n" % (number, b"x" * 1000) for number in range(count))
            return
        separator = b"[" if name == "a.json" else b""
        for number in range(count):
            yield separator + b'{"documentId":"a://%d","data":"%s"}' % (number, b"x" * 1000)
            separator = b",\n" if name == "a.json" else b"\n"
        yield b"]" if name == "a.json" else b"\n"

    peaks = []
    for count in (5_000, 40_000):
        whole = b"".join(content(count))
        path = written(
            tmp_path / f"{count}" / name, gzip.compress(whole, 1) if name.endswith("gz") else whole
        )
        del whole
        tracemalloc.start()
        assert sum(1 for _ in read_files(path)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.1 + 100_000
    assert peaks[1] < 12_000_000


def test_a_zstd_file_that_unpacks_to_a_large_size_needs_little_memory(tmp_path: Path) -> None:
    compressor = pytest.importorskip("zstandard").ZstdCompressor().compressobj()
    blank = b" " * 999_999 + b"\n"
    packed = [compressor.compress(blank) for _ in range(300)]
    path = written(
        tmp_path / "a.ndjson.zst", b"".join([*packed, compressor.compress(LINES), compressor.flush()])
    )
    assert Path(path).stat().st_size < 20_000
    tracemalloc.start()
    assert read(path) == ITEMS
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000_000


@pytest.mark.parametrize("name", ["a.ndjson", "a.csv"])
@pytest.mark.parametrize("begin", [b"documentId,data\n", b""])
def test_a_file_without_line_ends_is_not_read_completely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, begin: bytes
) -> None:
    monkeypatch.setattr(streams, "MAX_ITEM", 100_000)
    path = written(tmp_path / name, (begin if name == "a.csv" else b"") + b"a://1," * 5_000_000)
    tracemalloc.start()
    with pytest.raises(CoveoInputError, match="a line is longer than 100,000"):
        read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12_000_000


# --- hostile input ---


def test_a_link_to_a_folder_is_followed_unless_it_leads_back_to_a_parent_folder(tmp_path: Path) -> None:
    tree, elsewhere = tmp_path / "tree", tmp_path / "elsewhere"
    written(tree / "sub" / "a.ndjson", json.dumps(ITEMS[0]).encode())
    written(elsewhere / "b.ndjson", json.dumps(ITEMS[1]).encode())
    (tree / "linked").symlink_to(elsewhere)
    (tree / "sub" / "back").symlink_to(tree)
    assert read(str(tree)) == [ITEMS[1], ITEMS[0]]


@pytest.mark.parametrize("path", [".", "*.ndjson"])
def test_a_broken_link_is_an_error_that_names_it(tmp_path: Path, path: str) -> None:
    written(tmp_path / "a.ndjson", LINES)
    (tmp_path / "b.ndjson").symlink_to(tmp_path / "gone.ndjson")
    with pytest.raises(CoveoInputError, match=r"b\.ndjson': it is a link to a missing file"):
        read(str(tmp_path / path))


def test_a_folder_that_cannot_be_read_is_an_error_and_does_not_count_as_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "a.ndjson", LINES)
    (tmp_path / "closed").mkdir()
    # Root, who may run the tests, can access all folders.
    scan = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="closed"):
        read(str(tmp_path))


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.ndjson")
    writer = threading.Thread(target=(tmp_path / "a.ndjson").write_bytes, args=[LINES])
    writer.start()
    assert read(str(tmp_path / "a.ndjson")) == ITEMS
    writer.join()


def test_paths_can_come_from_a_mapped_task(tmp_path: Path) -> None:
    paths = UserList([written(tmp_path / "a.ndjson", LINES), written(tmp_path / "b.json", LINES)])
    assert read(paths) == [*ITEMS, *ITEMS]


@pytest.mark.parametrize("name", ["a.ndjson", "a.json", "a.csv"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_the_error_of_a_utf_16_file_names_the_encoding(
    tmp_path: Path, name: str, encoding: str, pack: Any
) -> None:
    mark = "\ufeff" if encoding.endswith("be") else ""
    path = written(tmp_path / name, pack((mark + LINES.decode()).encode(encoding)))
    with pytest.raises(CoveoInputError, match="it is UTF-16, not UTF-8"):
        read(path)


def test_a_zstd_file_can_begin_with_a_skippable_frame(tmp_path: Path) -> None:
    # The format of pzstd.
    to_skip = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"size"
    assert read(written(tmp_path / "a.ndjson.zst", to_skip + zstd(LINES))) == ITEMS


@pytest.mark.parametrize("columns", [None, {}, {"title": "title"}])
def test_a_table_without_documentids_is_rejected_at_once(tmp_path: Path, columns: Any) -> None:
    path = written(tmp_path / "a.csv", b"sku;name,title\n1;x,y\n")
    with pytest.raises(
        CoveoInputError, match=r"no column is mapped to documentId.*the columns are 'sku;name', 'title'"
    ):
        read(path, columns=columns)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("name", "Remedy: Pass ' name', whose name begins or ends with white space; the columns are"),
        ("price", "Remedy: Pass 'Price', which differs by case; the columns are"),
        ("{colour}", "Remedy: Pass the name of one of the columns: 'sku', ' name', 'Price'."),
    ],
)
def test_the_error_of_a_missing_column_suggests_the_intended_one(
    tmp_path: Path, column: str, words: str
) -> None:
    path = written(tmp_path / "a.csv", b"sku, name,Price\n1,x,2\n")
    with pytest.raises(CoveoInputError) as failed:
        read(path, columns={"documentId": "a://{sku}", "title": column})
    assert words in str(failed.value)


def test_damaged_parquet_is_an_error_that_names_the_format(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"documentId": [f"a://{number}" for number in range(20_000)]})
    path = tmp_path / "a.parquet"
    parquet.write_table(table, path)
    whole = path.read_bytes()
    # A page's header, the pages, their description.
    for place in (4, len(whole) // 2, len(whole) - 150):
        path.write_bytes(whole[:place] + bytes(range(130)) + whole[place + 130 :])
        with pytest.raises(CoveoInputError, match="as parquet:"):
            read(str(path))


def test_a_repeated_column_name_in_parquet_is_an_error(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = [pyarrow.array([text]) for text in ("a://1", "one", "another")]
    table = pyarrow.Table.from_arrays(columns, names=["documentId", "data", "data"])
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(CoveoInputError, match="a column's name occurs twice"):
        read(str(tmp_path / "a.parquet"))


def test_a_time_zone_that_python_does_not_know_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    kind = pyarrow.timestamp("us", "Mars/Olympus")
    table = pyarrow.table({"documentId": ["a://1"], "seen": pyarrow.array([0], kind)})
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(CoveoInputError, match=r"a\.parquet.*Mars/Olympus"):
        read(str(tmp_path / "a.parquet"))


def test_a_parquet_time_that_python_cannot_represent_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    day = pyarrow.array([3_000_000], pyarrow.date32())
    parquet.write_table(pyarrow.table({"documentId": ["a://1"], "day": day}), tmp_path / "a.parquet")
    with pytest.raises(CoveoInputError, match=r"a\.parquet.*out of range"):
        read(str(tmp_path / "a.parquet"))


def test_a_storage_that_cannot_be_read_is_not_reported_as_a_damaged_file(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"documentId": ["a://1"]}), tmp_path / "a.parquet")

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError("the storage is away")

    class Remote:
        name = "a.parquet"
        is_dir = staticmethod(lambda: False)
        exists = staticmethod(lambda: True)

        def open(self, mode: str) -> Any:
            return Failing((tmp_path / "a.parquet").read_bytes())

    with pytest.raises(OSError, match="the storage is away") as failed:
        read(Remote())
    assert not isinstance(failed.value, CoveoInputError)


@pytest.mark.parametrize(
    ("package", "name", "remedy"),
    [("zstandard", "a.ndjson.zst", "[zstd]"), ("pyarrow", "a.parquet", "[parquet]")],
)
def test_the_error_of_a_missing_package_shows_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, name: str, remedy: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    file = written(tmp_path / name, b"\x28\xb5\x2f\xfd and so on")
    with pytest.raises(CoveoInputError, match=f"{package} is not installed") as refused:
        read(file)
    assert f"pip install 'airflow-provider-coveo{remedy}'" in str(refused.value)
