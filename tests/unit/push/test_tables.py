"""CSV and TSV: rows are read unchanged, or the error names the line and the remedy."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_coveo.content import streams
from airflow_provider_coveo.content.files import read_files
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.operators.coveo_push import PushItemsOperator
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE
from tests.unit.push.model import indexed


def read(folder: Path, name: str, content: bytes, **options: Any) -> list[list[Any]]:
    """Return the rows of a table as lists of non-empty values."""
    (folder / name).write_bytes(content)
    return [list(item.values()) for item in read_files(str(folder / name), **options)]


def refused(folder: Path, name: str, content: bytes, **options: Any) -> str:
    with pytest.raises(CoveoInputError) as error:
        read(folder, name, content, **options)
    assert len(str(error.value)) < 1_000
    return str(error.value)


@pytest.mark.parametrize(
    "value",
    [
        '"',
        '"Swing it',
        'Swing it"',
        '"Swing it" magistern',
        '""',
        'a"b',
        "'",
        "a,b;c|d",
        "\\",
        "\\N",
        "back\\slash\\",
        "line\u2028separator\u2029\x85\x0b\x0c\x1c",
        "\ufeff",
        " both sides ",
        "lone\rcarriage return",
        "é😀",
        "x" * 300_000,
    ],
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("has_last_end", [True, False])
def test_each_line_of_tsv_is_a_row_whatever_it_contains(
    tmp_path: Path, value: str, end: bytes, has_last_end: bool
) -> None:
    rows = ["documentId\ttitle\tdata", f"a://1\t{value}\tone", f"a://2\ttwo\t{value}", "a://3\tthree\tz"]
    content = end.join(row.encode() for row in rows) + (end if has_last_end else b"")
    assert read(tmp_path, "a.tsv", content) == [
        ["a://1", value, "one"],
        ["a://2", "two", value],
        ["a://3", "three", "z"],
    ]


@pytest.mark.parametrize("value", ['"', 'a "b" c', "a,b", "a\nb", "a\r\nb", "a\rb", "\n", '""', "\u2028"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_quoted_field_of_csv_can_contain_anything(tmp_path: Path, value: str, end: str) -> None:
    quoted = '"' + value.replace('"', '""') + '"'
    content = end.join(["documentId,title,data", f"a://1,{quoted},x", f"a://2,y,{quoted}"])
    assert read(tmp_path, "a.csv", content.encode()) == [["a://1", value, "x"], ["a://2", "y", value]]


@pytest.mark.parametrize("sign", [";", "\t", "|"])
def test_another_delimiter_is_named_in_the_error_and_never_read_as_one_column(
    tmp_path: Path, sign: str
) -> None:
    content = sign.join(["documentId", "title", "data"]) + "\n" + sign.join(["a://1", "x", "y, z"]) + "\n"
    said = refused(tmp_path, "a.csv", content.encode())
    assert f"the first line has one column {sign.join(['documentId', 'title', 'data'])!r}" in said
    assert f"Pass delimiter={sign!r}" in said
    # The general cause and remedy would contradict it, and the push's own note says what was accepted.
    assert said.endswith(f"Remedy: Pass delimiter={sign!r}.")
    assert read(tmp_path, "a.csv", content.encode(), delimiter=sign) == [["a://1", "x", "y, z"]]
    names = ["documentId", "title", "data"]
    assert f"Pass delimiter={sign!r}" in refused(tmp_path, "a.csv", content.encode(), column_names=names)


def test_the_error_of_csv_in_a_file_named_tsv_names_the_delimiter_too(tmp_path: Path) -> None:
    assert "Pass delimiter=','" in refused(tmp_path, "a.tsv", b"documentId,title\na://1,x\n")
    assert read(tmp_path, "a.tsv", b"documentId,title\na://1,x\n", file_format="csv") == [["a://1", "x"]]
    assert read(
        tmp_path, "a.csv", b"documentId;x\na://1\n", delimiter=",", columns={"documentId": "documentId;x"}
    )


@pytest.mark.parametrize("delimiter", ["\t", "\\t", "tab"])
def test_a_tab_can_be_passed_as_a_word(tmp_path: Path, delimiter: str) -> None:
    assert read(tmp_path, "a.csv", b"documentId\tb\na://1\tx\n", delimiter=delimiter) == [["a://1", "x"]]


@pytest.mark.parametrize("quotechar", [None, "", False, "None"])
def test_quotes_can_be_ordinary_characters_and_other_characters_quotes(
    tmp_path: Path, quotechar: Any
) -> None:
    content = b'documentId,title\na://1,"Swing it" magistern\n'
    assert read(tmp_path, "a.csv", content, quotechar=quotechar) == [["a://1", '"Swing it" magistern']]
    assert "pass quotechar=None" in refused(tmp_path, "a.csv", content)
    assert read(tmp_path, "a.csv", b"documentId,b\na://1,'x, y'\n", quotechar="'") == [["a://1", "x, y"]]
    content = b'documentId\ttitle\na://1\t"x\ty"\n'
    assert "Pass quotechar='\"'" in refused(tmp_path, "a.tsv", content)
    assert read(tmp_path, "a.tsv", content, quotechar='"') == [["a://1", "x\ty"]]


@pytest.mark.parametrize("quotechar", [None, '"'])
def test_escapes_and_null_values_work_as_in_databases(tmp_path: Path, quotechar: str | None) -> None:
    content = rb"""documentId|b|c|d
a://1|\N|\N|x\|y
a://2|N|\\N|NULL
a://3|\Nx|z\|\N|\N
"""
    options: dict[str, Any] = {"escapechar": "\\", "null_values": ["\\N", "NULL"], "quotechar": quotechar}
    assert read(tmp_path, "a.csv", content, delimiter="|", **options) == [
        ["a://1", "x|y"],
        ["a://2", "N", "\\N"],
        ["a://3", "Nx", "z|N"],
    ]


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (r'"\N",x', ["x"]),
        (r'\N,"\N"', []),
        (r'"a,\N,b",x', ["a,N,b", "x"]),
        (r'"a,\N",\N', ["a,N"]),
        (r"a\,\N,\N", ["a,N"]),
        (r'\\N,"\\N"', ["\\N", "\\N"]),
        (r'"a""\N",x', ['a"N', "x"]),
        ('"a\n\\N\n,\\N",\\N', ["a\nN\n,N"]),
        ('a\\\nb,"c\\\n\n"', ["a\nb", "c\n\n"]),
        ('a"b,"c\rd"', ['a"b', "c\rd"]),
        ("\ufdd0x,\ufdd1\\,", ["\ufdd0x", "\ufdd1,"]),
    ],
)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_an_escaped_null_means_no_value_if_it_is_a_whole_field(
    tmp_path: Path, line: str, fields: list[str], end: str
) -> None:
    content = f"a://1,{line}{end}".encode()
    options: dict[str, Any] = {"escapechar": "\\", "column_names": ["documentId", "b", "c"]}
    assert read(tmp_path, "a.csv", content, null_values=["\\N"], **options) == [["a://1", *fields]]
    if "\\N" not in line:
        assert read(tmp_path, "a.csv", content, **options) == [["a://1", *fields]]


@pytest.mark.parametrize("null_values", [None, ["\\N"]])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('x,y\na,"b\nc,d\n', "line 2: a quote in this row is never closed"),
        ('x,y\na,"b"c\n', "line 2: text follows the quote"),
        ("x,y\na,b\rc\nd,e\n", "line 2: it contains a lone carriage return"),
        ("x,y\na,b\\", "line 2: a quote in this row is never closed"),
        ("x,y\na\n", "line 2 has fewer columns"),
        ("", "it is empty"),
    ],
)
def test_invalid_csv_is_rejected_with_an_escape_character_too(
    tmp_path: Path, content: str, said: str, null_values: Any
) -> None:
    columns = {"documentId": "a://{x}"}
    options: dict[str, Any] = {"escapechar": "\\", "null_values": null_values, "columns": columns}
    assert said in refused(tmp_path, "a.csv", content.encode(), **options)


@pytest.mark.parametrize("null_values", ["\\N", ["\\N"], ("NULL", "\\N")])
def test_null_values_are_left_out(tmp_path: Path, null_values: Any) -> None:
    content = b"documentId\tdata\tb\na://1\t\\N\tx\\N\na://2\ty\t\\N\r\n"
    assert read(tmp_path, "a.tsv", content, null_values=null_values) == [["a://1", "x\\N"], ["a://2", "y"]]
    assert read(tmp_path, "a.tsv", content)[0] == ["a://1", "\\N", "x\\N"]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-32", "iso-8859-15"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv.gz", "a.ndjson", "a.json"])
def test_text_can_be_in_another_encoding(tmp_path: Path, encoding: str, name: str) -> None:
    if "json" in name:
        text = '{"documentId": "a://é", "data": "ü"}\n{"documentId": "a://2", "data": "ÿ"}'
    else:
        sign = "," if "csv" in name else "\t"
        text = f"documentId{sign}data\na://é{sign}ü\na://2{sign}ÿ\n"
    content = text.encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    items = list(read_files(str(tmp_path / name), encoding=encoding))
    assert len(items) == 2
    if not isinstance(items[0], bytes):
        assert items == [{"documentId": "a://é", "data": "ü"}, {"documentId": "a://2", "data": "ÿ"}]
    else:
        assert b"".join(items).decode() == text.replace("\n", "" if name == "a.json" else "\n")


@pytest.mark.parametrize("encoding", [None, "utf-8", "UTF8", "utf-8-sig"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_utf_8_can_have_a_byte_order_mark(tmp_path: Path, encoding: str | None, mark: bytes) -> None:
    assert read(tmp_path, "a.csv", mark + "documentId\na://é\n".encode(), encoding=encoding) == [["a://é"]]


@pytest.mark.parametrize(
    ("content", "encoding", "said"),
    [
        (b"documentId,data\na://1,x\na://2,\xe9\n", None, "line 3: byte 0xe9 is not UTF-8"),
        (b"documentId,data\na://1,x\na://2,\x81\n", "cp1252", "line 3: the bytes 81 are not cp1252"),
        (b"documentId\n" * 3 + b"\xff", "ascii", "line 4: the bytes ff are not ascii"),
        ("documentId\na://1\n".encode("utf-16-le")[:-1], "utf-16-le", "line 2"),
        ("documentId\na://1\n".encode("utf-16-le"), None, "line 1 contains a zero byte"),
        ("documentId\n".encode("utf-16"), "cp1252", "it is UTF-16, not CP1252"),
        (b"\xef\xbb\xbfdocumentId\n", "latin-1", "it is UTF-8, not"),
        ("documentId\n".encode("utf-32"), None, "it is UTF-32, not UTF-8. Remedy: Pass encoding='utf-32'"),
    ],
)
def test_undecodable_text_is_rejected_with_its_line(
    tmp_path: Path, content: bytes, encoding: str | None, said: str
) -> None:
    assert said in refused(tmp_path, "a.csv", content, encoding=encoding)


@pytest.mark.parametrize("encoding", ["latin-7x", "base64", "rot13", "hex", "zip", "undefined", "no\0"])
def test_an_unknown_encoding_is_rejected_by_name(tmp_path: Path, encoding: str) -> None:
    assert "Invalid encoding" in refused(tmp_path, "a.csv", b"documentId\n", encoding=encoding)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"\n\r\n\n", "it is empty"),
        (b"documentId,data\na://1\n", "line 2 has fewer columns than the first line: 1 instead of 2"),
        (
            b"documentId,data\na://0,y\na://1,x,\n",
            "line 3 has more columns than the first line: 3 instead of 2",
        ),
        (b"documentId,data,data\n", "a column's name occurs twice"),
        (b"documentId, data\na://1,x\n", "the name of column ' data' begins or ends with white space"),
        (b"documentId,,\na://1,,x\n", "line 2 has a value in column 2, which has no name"),
        (b'documentId,data\na://1,"x\na://2,y\na://3,z\n', "line 2: a quote in this row is never closed"),
        (b'documentId,data\na://1,"x" y\n', "line 2: text follows the quote"),
        (b"documentId,data\na://1,x\ry\na://2,z\n", "line 2: it contains a lone carriage return"),
        (b"documentId,data\na://1,\0\n", "line 2 contains a zero byte"),
    ],
)
def test_invalid_csv_is_rejected_with_its_line(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in refused(tmp_path, "a.csv", content)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_empty_lines_and_empty_last_columns_are_ignored(tmp_path: Path, name: str) -> None:
    content = b"\n\ndocumentId,data,\n\na://1,x,\n\r\n\na://2,y,"
    content = content.replace(b",", b"\t") if name == "a.tsv" else content
    assert read(tmp_path, name, content) == [["a://1", "x"], ["a://2", "y"]]
    assert read(tmp_path, name, b"documentId\n") == read(tmp_path, name, b"documentId") == []


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_lines_of_old_macs_end_with_a_carriage_return(tmp_path: Path, name: str) -> None:
    content = b"documentId,data\ra://1,x\r" + b"a://2,y\r" * 50_000 + b"a://3,z"
    content = content.replace(b",", b"\t") if name == "a.tsv" else content
    rows = read(tmp_path, name, content)
    assert (len(rows), rows[0], rows[-1]) == (50_002, ["a://1", "x"], ["a://3", "z"])


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("end", ["", "\r", "\r\r"])
@pytest.mark.parametrize("encoding", [None, "utf-16"])
def test_the_last_carriage_return_can_be_missing_or_repeated(
    tmp_path: Path, name: str, end: str, encoding: str | None
) -> None:
    sign = "," if name == "a.csv" else "\t"
    content = "\r" + "\r".join(["documentId,data", "a://1,x", "", "a://2,y"]).replace(",", sign) + end
    read_so = read(tmp_path, name, content.encode(encoding or "utf-8"), encoding=encoding)
    assert read_so == [["a://1", "x"], ["a://2", "y"]]
    header = f"documentId{sign}data{end}".encode(encoding or "utf-8")
    assert read(tmp_path, name, header, encoding=encoding) == []


@pytest.mark.parametrize("quoted", ["a\rb", "\r", "a\r\rb"])
def test_a_carriage_return_within_quotes_is_kept_even_if_others_end_lines(
    tmp_path: Path, quoted: str
) -> None:
    content = f'documentId,data\ra://1,"{quoted}"\ra://2,y\r'
    assert read(tmp_path, "a.csv", content.encode()) == [["a://1", quoted], ["a://2", "y"]]


def test_a_file_that_was_cut_within_its_last_line_end_is_complete(tmp_path: Path) -> None:
    for name in ("a.csv", "a.tsv"):
        content = b"documentId,data\r\na://1,x\r".replace(b",", b"," if name == "a.csv" else b"\t")
        assert read(tmp_path, name, content) == [["a://1", "x"]]


def test_a_first_line_that_contains_rows_is_rejected(tmp_path: Path) -> None:
    content = b"documentId\tdata\ra://1\tx\ra://2\ty\n"
    assert "its first line contains a carriage return" in refused(tmp_path, "a.tsv", content)
    content = content.replace(b"\t", b",")
    assert "its first line contains a carriage return" in refused(tmp_path, "a.csv", content, quotechar=None)
    assert "line 1: it contains a lone carriage return" in refused(tmp_path, "a.csv", content)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.ndjson", "a.json"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_text_without_the_byte_order_mark_that_its_encoding_needs_is_rejected(
    tmp_path: Path, name: str, encoding: str
) -> None:
    content = '{"documentId": "a://1", "data": "x"}'.encode(f"{encoding}-be")
    assert name in refused(tmp_path, name, content, encoding=encoding)


@pytest.mark.parametrize("names", [["documentId", "data"], ("documentId", "data")])
def test_names_can_be_passed_if_the_first_line_has_none(tmp_path: Path, names: Any) -> None:
    assert read(tmp_path, "a.csv", b"a://1,x\n", column_names=names) == [["a://1", "x"]]
    assert read(tmp_path, "a.csv", b"", column_names=names) == []
    said = refused(tmp_path, "a.csv", b"a://1,x,y\n", column_names=names)
    assert "line 1 has more columns than column_names: 3 instead of 2" in said


@pytest.mark.parametrize(
    "options",
    [
        {"delimiter": "::"},
        {"delimiter": "\n"},
        {"delimiter": '"'},
        {"delimiter": 5},
        {"quotechar": "''"},
        {"quotechar": True},
        {"quotechar": ","},
        {"escapechar": '"'},
        {"escapechar": "\\\\"},
        {"null_values": [None]},
        {"null_values": 5},
        {"column_names": ["a", "a"]},
        {"column_names": ["a", ""]},
        {"column_names": "a"},
        {"partitioning": "directory"},
    ],
)
def test_an_invalid_value_is_rejected_by_name(tmp_path: Path, options: dict[str, Any]) -> None:
    said = refused(tmp_path, "a.csv", b"documentId\na://1\n", **options)
    assert next(iter(options)) in said


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *[
            (name, options)
            for name in ("a.json", "a.ndjson", "a.parquet")
            for options in (
                {"delimiter": ";"},
                {"quotechar": None},
                {"escapechar": "\\"},
                {"null_values": ["x"]},
                {"column_names": ["a"]},
            )
        ],
        ("a.parquet", {"encoding": "latin-1"}),
        ("a.json", {"columns": {"documentId": "a"}}),
    ],
)
def test_a_parameter_that_a_format_does_not_have_is_rejected(
    tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    (parameter,) = options
    assert f"which has no {parameter}" in refused(tmp_path, name, b"{}", **options)


# --- memory ---


@pytest.mark.parametrize(
    ("begin", "repeated", "said"),
    [
        (b"documentId,data\na://1,", b"x" * 1_000_000, "a line is longer"),
        (b'documentId,data\na://1,"', b"x" * 999_999 + b"\n", "line 2: a row is longer"),
        (b'documentId,data\na://1,"', (b"x" * 99 + b'",\n"') * 10_000, "more columns|a row is longer"),
        (b"documentId,data\n", b"," * 1_000_000, "a line is longer"),
    ],
)
def test_a_row_without_an_end_needs_no_more_memory_than_the_largest_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: bytes, repeated: bytes, said: str
) -> None:
    monkeypatch.setattr(streams, "MAX_ITEM", 3_000_000)
    with (tmp_path / "a.csv").open("wb") as file:
        file.write(begin)
        for _ in range(60):
            file.write(repeated)
    tracemalloc.start()
    with pytest.raises(CoveoInputError, match=said):
        list(read_files(str(tmp_path / "a.csv")))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40_000_000


# --- from the operator ---


@pytest.mark.usefixtures("connect")
def test_the_operator_applies_its_options_for_reading(tmp_path: Path, coveo: Simulator) -> None:
    (tmp_path / "a.txt").write_bytes("1;'é';\\N\n2;x\\;y;z\n".encode("cp1252"))
    operator = PushItemsOperator(
        task_id="push",
        source_id=SOURCE,
        path=str(tmp_path / "a.txt"),
        file_format="csv",
        columns={"documentId": "a://{id}", "data": "text", "title": "name"},
        delimiter="{{ params.delimiter }}",
        quotechar="'",
        escapechar="\\",
        null_values=["\\N"],
        column_names=["id", "text", "name"],
        encoding="{{ params.encoding }}",
        partitioning=None,
    )
    context: Any = {"params": {"delimiter": ";", "encoding": "cp1252"}}
    operator.render_template_fields(context)
    operator.execute(context)
    assert indexed(coveo, SOURCE) == {"a://1": "é", "a://2": "x;y"}


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize(("name", "sign"), [("a.csv", ","), ("a.tsv", "\t")])
def test_a_row_that_repeats_the_names_is_rejected(tmp_path: Path, name: str, sign: str, mark: str) -> None:
    columns = {"documentId": "product://{sku}", "title": "name"}
    first, row = f"sku{sign}name\n", f"1{sign}x\n"
    joined = (first + row + mark + first + row).encode()
    said = refused(tmp_path, name, joined, columns=columns)
    assert "line 3 repeats the names of the first line" in said
    said = refused(
        tmp_path, name, (mark + first + row).encode(), columns=columns, column_names=["sku", "name"]
    )
    assert "line 1 repeats column_names" in said
    assert "omit column_names" in said
    # A cell may be the name of its column, and so may the only one of a row.
    assert read(tmp_path, name, f"{first}1{sign}name\n".encode(), columns=columns) == [
        ["name", "product://1"]
    ]
    assert read(tmp_path, name, b"sku\nsku\n", columns={"documentId": "product://{sku}"}) == [
        ["product://sku"]
    ]


JOINED = {"documentId": "product://{sku}", "title": "name"}
MARK = "\ufeff"


@pytest.mark.parametrize(
    ("text", "options", "line"),
    [
        (f"{MARK}1,x\n2,y\n{MARK}3,z\n", {"column_names": ["sku", "name"]}, 3),
        (f'{MARK}"1",x\n{MARK}"2",y\n', {"column_names": ["sku", "name"]}, 2),
        (f"{MARK}{MARK}1,x\n", {"column_names": ["sku", "name"]}, 1),
        (f"{MARK}{MARK}sku,name\n1,x\n", {}, 1),
        (f"sku,name\n1,x\n{MARK}2,y\n", {}, 3),
        (f'sku,name\n1,"x\ny"\n\n{MARK}2,y\n', {}, 5),
        (f"sku,name\r1,x\r{MARK}2,y\r", {}, 3),
        (f"sku,name\n1,x\n{MARK}2,\\N\n", {"null_values": ["\\N"], "escapechar": "\\"}, 3),
        ("sku,name\n1,x\n\ufffe2,y\n", {}, 3),
    ],
)
@pytest.mark.parametrize(("name", "sign"), [("a.csv", ","), ("a.tsv", "\t"), ("a.csv.gz", ",")])
def test_a_row_that_begins_with_the_byte_order_mark_of_a_joined_file_is_rejected(
    tmp_path: Path, text: str, options: dict[str, Any], line: int, name: str, sign: str
) -> None:
    """Otherwise, the mark would become part of the ID of an item."""
    if sign == "\t" and '"' in text:
        options = {**options, "quotechar": '"'}
    content = text.replace(",", sign).encode()
    if name.endswith("gz"):
        content = b"".join(map(gzip.compress, content.splitlines(keepends=True)))
    said = refused(tmp_path, name, content, columns=JOINED, **options)
    assert f"line {line} begins with a byte order mark" in said


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-32"])
def test_the_byte_order_mark_of_another_encoding_is_rejected_too(tmp_path: Path, encoding: str) -> None:
    content = "sku,name\n1,x\n".encode(encoding) + "2,y\n".encode(encoding)
    said = refused(tmp_path, "a.csv", content, columns=JOINED, encoding=encoding)
    assert "line 3 begins with a byte order mark" in said


def test_a_byte_order_mark_in_the_middle_of_a_row_is_content(tmp_path: Path) -> None:
    text = f'sku,name\n1,{MARK}x\n"{MARK}2","a\n{MARK}b"\n'
    assert read(tmp_path, "a.csv", text.encode(), columns=JOINED) == [
        [f"{MARK}x", "product://1"],
        [f"a\n{MARK}b", f"product://{MARK}2"],
    ]


@pytest.mark.parametrize(
    ("content", "options", "line"),
    [
        ("sku\n4711\n(1 row)\n", {}, 3),
        ("sku\n4711\n4712\n\n(2 rows)\n\n", {}, 5),
        ("sku\n----------\n4711\n", {}, 2),
        ("sku\n4711\n\n1 row selected.\n", {}, 4),
        ("sku\n4711\n4712\n2 rows in set (0.00 sec)\n", {}, 4),
        ("sku\n4711\n(1 rows affected)\n", {}, 3),
        ("4711\n(1 row)\n", {"column_names": ["sku"]}, 2),
        ("sku,name\n---,----\n4711,x\n", {}, 2),
        ("sku,n\n---,-\n4711,x\n", {}, 2),
        ("sku  ,name \n-----,-----\n4711 ,x    \n", {"columns": {"documentId": "a://{sku  }"}}, 2),
        ("|sku|name|\n|---|---|\n|4711|x|\n", {"delimiter": "|"}, 2),
    ],
)
def test_lines_that_a_console_adds_to_the_rows_are_rejected(
    tmp_path: Path, content: str, options: dict[str, Any], line: int
) -> None:
    options = {"columns": {"documentId": "a://{sku}"}, **options}
    said = refused(tmp_path, "a.csv", content.encode(), **options)
    assert f"line {line} is no row" in said
    if "," in content:
        said = refused(tmp_path, "a.tsv", content.replace(",", "\t").encode(), **options)
        assert f"line {line} is no row" in said


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (" sku | name \n-----+------\n 4711 | x\n(1 row)\n", {"columns": {"documentId": "a://{ sku }"}}),
        (" sku | name \n-----+------\n 4711 | x\n(1 row)\n", {"column_names": ["sku", "name"]}),
        ("sku|name\n4711|x\n(1 row)\n", {}),
        ("+------+------+\n| sku  | name |\n+------+------+\n| 4711 | x    |\n+------+------+\n", {}),
        ("sku|name\n4711|x\n\n1 row selected.\n", {}),
    ],
)
@pytest.mark.parametrize("delimiter", [None, "|"])
def test_a_table_from_a_database_console_is_rejected(
    tmp_path: Path, content: str, options: dict[str, Any], delimiter: str | None
) -> None:
    options = {"columns": {"documentId": "a://{sku}"}, **options}
    said = refused(tmp_path, "a.csv", content.encode(), delimiter=delimiter, **options)
    assert "a database's console" in said or (delimiter is None and "Pass delimiter='|'" in said)


def test_rows_that_only_look_like_console_output_are_read(tmp_path: Path) -> None:
    columns = {"documentId": "a://{sku}", "title": "name"}
    content = b"sku,name\n-,--\n--x,---\n---,---\n(1 row),x\n"
    assert [row[1] for row in read(tmp_path, "a.csv", content, columns=columns)] == [
        "a://-",
        "a://--x",
        "a://---",
        "a://(1 row)",
    ]
    content = b"sku\n12 rows\n-\n---\n"
    assert len(read(tmp_path, "a.csv", content, columns={"documentId": "a://{sku}"})) == 3
