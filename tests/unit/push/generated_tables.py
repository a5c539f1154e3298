"""Tables of random types, dialects, encodings and layouts, each generated from a seed."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import json
import lzma
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal, localcontext
from pathlib import Path
from random import Random
from typing import Any, Final
from urllib.parse import quote

import pyarrow as pa
from pyarrow import parquet

FORMATS: Final = ("csv", "tsv", "parquet", "json", "ndjson", "sql")
_TEXTS: Final = (
    "", "Anvil", "a,b;c|d", 'say "hello"', '"', '"quoted"', "two\nlines", "two\r\nlines",
    "lone\rreturn", "\t", "\\N", "\\", "back\\slash", "NULL", "null", "NA", "N/A", "nan", "true",
    "007", "1e5", "-0", " both sides ", "é", "Größe €", "日本語", "😀", "e\u0301", "\u2028", "\xa0",
    "'", "{", "}", "[1]", "<b>&amp;</b>", "#", "=1+1", "%41", "\x7f", "\x01", "\ufeff", "x" * 3_000,
    "None", "0", "-", "a=b", "http://x/?a=1&b=2",
)  # fmt: skip
_INTS: Final = (0, 1, -1, 7, 4711, 2**31, -(2**31), 2**53 + 1, 2**63 - 1, -(2**63), 2**32)
_FLOATS: Final = (0.0, -0.0, 0.1, 1.5, -2.25, 1e-7, 1e22, 1e300, 5e-324, 4711.0)
_DECIMALS: Final = tuple(
    map(Decimal, ("0", "0E-10", "1.50", "-0.0000000001", "12345678901234567890.5", "100"))
)
#: The bytes that replace a byte of a text file, or are inserted before it.
_SIGNS: Final = (
    b'"',
    b",",
    b"\t",
    b"\n",
    b"\r",
    b"\0",
    b"\xff",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b"0",
    b" ",
)
_KINDS: Final = {
    "parquet": (
        "text", "int", "uint64", "int8", "float", "float32", "decimal", "decimal256", "bool", "date",
        "utc", "zoned", "naive",
        "binary", "texts", "ints", "nested", "struct", "time", "nanoseconds", "dictionary", "none", "date64",
    ),
    "json": ("text", "int", "big", "float", "bool", "null", "texts", "ints", "nested", "struct", "mixed"),
    "sql": ("text", "int", "float", "bool", "blob", "any"),
    "text": ("text", "int", "float", "decimal", "bool", "date", "utc", "naive"),
}  # fmt: skip
#: The probability of a column of these kinds, whose values all make items invalid.
_RARE: Final = frozenset({"naive", "binary", "nested", "struct", "blob", "big", "null", "none"})
_FIELDS: Final = (
    "data",
    "title",
    "price",
    "In Stock",
    "größe",
    "created",
    "tags",
    "a.b",
    "x_1",
    "note\u2009é",
)


class Nanoseconds(int):
    """A time in nanoseconds since 1970, which Python's own datetime can't represent."""

    def text(self) -> str:
        """Return the time in ISO 8601: without a fraction, or with one of six or nine digits."""
        seconds, fraction = divmod(self, 10**9)
        text = (datetime(1970, 1, 1) + timedelta(seconds=seconds)).isoformat()
        return f"{text}.{fraction:09d}".removesuffix(".000000000").removesuffix("000") + "+00:00"


@dataclass
class Table:
    """
    A generated table.

    :param number: Its seed.
    :param file_format: One of FORMATS.
    :param names: Its columns, without those of its folders.
    :param kinds: The kind of each column.
    :param rows: Its rows; in a text file, as strings; ``None`` for no value.
    :param options: The options for its readers.
    :param path: The path for its readers.
    :param files: Its files, and the number of rows of each.
    :param folders: The columns from its folders.
    :param encoding: The encoding of its text.
    :param packed: The compression of its files.
    :param is_damaged: Whether its bytes were changed.
    """

    number: int
    file_format: str
    names: list[str]
    kinds: list[str]
    rows: list[list[Any]]
    options: dict[str, Any] = field(default_factory=dict)
    path: Path = Path()
    files: list[tuple[Path, int]] = field(default_factory=list)
    folders: dict[str, str | None] = field(default_factory=dict)
    encoding: str = "utf-8"
    packed: str = ""
    is_damaged: bool = False

    @property
    def columns(self) -> dict[str, str] | None:
        return self.options.get("columns")


def drawn(number: int, folder: Path) -> Table:
    """Return the table of a number, and write it to the folder unless it is for a database."""
    random = Random(number)  # noqa: S311
    file_format = FORMATS[number % len(FORMATS)]
    is_text = file_format in {"csv", "tsv"}
    kinds_of = _KINDS["text" if is_text else "json" if "json" in file_format else file_format]
    fields = random.sample(_FIELDS, random.randint(1, 6))
    kinds = ["text" if random.random() < 0.3 else _kind(random, kinds_of) for _ in fields]
    has_id = "json" in file_format or random.random() < 0.4
    key_kind = "text" if has_id or random.random() < 0.5 else random.choice(kinds_of)
    # The written values do not show how the file represents the zone.
    key_kind = "utc" if key_kind == "zoned" else key_kind
    names, kinds = ["documentId" if has_id else "sku", *fields], [key_kind, *kinds]
    count = random.choice((0, 1, 2, 3, 10, 30))
    rows = []
    for place in range(count):
        key = _value(random, key_kind) if not has_id and random.random() < 0.2 else None
        if key is None and random.random() > 0.03:
            key = f"product://{place} {random.choice(('é', 'x', '%'))}" if has_id else _key(key_kind, place)
        blank = random.choice((0, 0.1, 0.6))
        values = [None if random.random() < blank else _value(random, kind) for kind in kinds[1:]]
        rows.append([key, *values])
    if rows and random.random() < 0.1:
        rows.append([rows[0][0], *rows[-1][1:]])
    table = Table(number, file_format, names, kinds, rows)
    if not has_id:
        columns = {"documentId": random.choice(("product://{sku}", "a://{sku}/x"))}
        columns |= {name.replace(" ", "").lower(): name for name in fields}
        if random.random() < 0.3:
            columns["about"] = f"{{{fields[0]}}} and {{{fields[-1]}}}"
        table.options["columns"] = columns
    if file_format != "sql":
        _lay_out(table, random, folder)
    return table


def _kind(random: Random, kinds: tuple[str, ...]) -> str:
    kind = random.choice(kinds)
    return kind if kind not in _RARE or random.random() < 0.15 else "text"


def _key(kind: str, place: int) -> Any:
    return {"int": place, "uint64": place, "int8": place}.get(kind, f"k{place}" if kind == "text" else None)


def _value(random: Random, kind: str) -> Any:
    day = date(1, 1, 1) + timedelta(days=random.choice((0, 719_162, 719_000, 730_119, 3_652_058)))
    moment = datetime(1970, 1, 1) + timedelta(
        days=random.randint(-30_000, 30_000), seconds=random.choice((0, 1, 86_399)),
        microseconds=random.choice((0, 1, 123_000, 999_999)),
    )  # fmt: skip
    makers: dict[str, Callable[[], Any]] = {
        "text": lambda: random.choice(_TEXTS),
        "dictionary": lambda: random.choice(_TEXTS),
        "int": lambda: random.choice(_INTS),
        "uint64": lambda: random.choice((0, 5, 2**63 - 1, 2**63, 2**64 - 1)),
        "int8": lambda: random.randint(-128, 127),
        "big": lambda: random.choice((2**63, -(2**63) - 1, 2**64, 10**30)),
        "float": lambda: random.choice((*_FLOATS, *((float("nan"), float("inf")) * (random.random() < 0.1)))),
        "float32": lambda: random.choice((0.5, 0.1, 1e20, -0.7)),
        "decimal": lambda: random.choice(_DECIMALS),
        "decimal256": lambda: random.choice(_DECIMALS),
        "bool": lambda: random.random() < 0.5,
        "date": lambda: day,
        "date64": lambda: day,
        "utc": lambda: moment.replace(tzinfo=timezone.utc),
        "zoned": lambda: moment.replace(tzinfo=timezone.utc),
        "nanoseconds": lambda: Nanoseconds(
            (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1) * 1000
            + random.choice((0, 0, 1, 999, 120))
        ),
        "naive": lambda: moment,
        "time": lambda: time(
            random.randint(0, 23), 5, random.choice((0, 59)), random.choice((0, 1, 500_000))
        ),
        "binary": lambda: random.choice((b"", b"x", b"\xff\0")),
        "blob": lambda: random.choice((b"", b"x", b"\xff\0")),
        "texts": lambda: [random.choice(_TEXTS) for _ in range(random.randint(0, 3))],
        "ints": lambda: [random.choice((*_INTS, *((None,) * (random.random() < 0.05)))) for _ in range(2)],
        "nested": lambda: [[1], []],
        "struct": lambda: {"a": 1, "b": "x"},
        "none": lambda: None,
        "null": lambda: None,
        "mixed": lambda: [True, 1, "x", 1.5],
        "any": lambda: random.choice((*_INTS, *_FLOATS, *_TEXTS)),
    }
    return makers[kind]()


# --- files ---


def _lay_out(table: Table, random: Random, folder: Path) -> None:
    """Write the table to one or several files, possibly in folders that define columns."""
    suffix = table.file_format
    if table.file_format in {"csv", "tsv"}:
        table.rows = [[_as_text(value) for value in row] for row in table.rows]
    elif suffix == "parquet":
        scales = [{"decimal": 12, "decimal256": 15}.get(kind, 0) for kind in table.kinds]
        table.rows = [list(map(_with_scale, row, scales)) for row in table.rows]
    if suffix != "parquet":
        packers = ["", "", "", "gz", "bz2", "xz"] + ["zst"] * bool(importlib.util.find_spec("zstandard"))
        table.packed = random.choice(packers)
        table.encoding = random.choice(
            ("utf-8", "utf-8", "utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-16-le", "utf-32",
             "iso-8859-15", "gb18030")
        )  # fmt: skip
        if table.encoding != "utf-8" and not (table.encoding == "utf-8-sig" and random.random() < 0.5):
            table.options["encoding"] = table.encoding
        if table.encoding in {"latin-1", "cp1252", "iso-8859-15"}:
            _keep_encodable(table)
    root = folder / str(table.number)
    table.path = inside = root
    if random.random() < 0.3:
        values = random.sample(("ch", "01", "a b", "é/ü", "2026-01-01", "%41", "", None), 2)
        table.folders = dict(zip(random.sample(("country", "month", "größe"), 2), values, strict=True))
        for name, value in table.folders.items():
            told = "__HIVE_DEFAULT_PARTITION__" if value is None else quote(value, safe="")
            inside = inside / f"{quote(name)}={told}"
    inside.mkdir(parents=True)
    parts = random.choice((1, 1, 2, 3))
    ends = sorted(random.randint(0, len(table.rows)) for _ in range(parts - 1))
    write = _text_writer(table, random) if suffix in {"csv", "tsv"} else _WRITERS[suffix]
    for place, (begin, end) in enumerate(zip([0, *ends], [*ends, len(table.rows)], strict=True)):
        name = f"part-{place}.{suffix}" + (f".{table.packed}" if table.packed else "")
        content = write(table, table.rows[begin:end], random)
        (inside / name).write_bytes(content)
        table.files.append((inside / name, end - begin))
    if random.random() < 0.3:
        table.is_damaged = True
        path = random.choice(table.files)[0]
        path.write_bytes(_damaged(table, path.read_bytes(), random))
    if parts == 1 and random.random() < 0.3:
        table.path = table.files[0][0]


def _with_scale(value: Any, scale: int) -> Any:
    with localcontext() as context:
        context.prec = 60
        return value.quantize(Decimal(1).scaleb(-scale)) if isinstance(value, Decimal) else value


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return value.isoformat() if isinstance(value, (date, datetime)) else str(value)


def _keep_encodable(table: Table) -> None:
    def kept(value: Any) -> Any:
        if isinstance(value, list):
            return [kept(entry) for entry in value]
        return value.encode(table.encoding, "ignore").decode(table.encoding) if type(value) is str else value

    names = [kept(name) for name in table.names]
    assert len(set(names)) == len(names)
    if columns := table.columns:
        table.options["columns"] = {kept(key): kept(text) for key, text in columns.items()}
    table.names, table.rows = names, [[kept(value) for value in row] for row in table.rows]


def packed(content: bytes, how: str) -> bytes:
    if how == "zst":
        import zstandard

        return bytes(zstandard.ZstdCompressor().compress(content))
    by_name: dict[str, Callable[[bytes], bytes]] = {
        "": bytes,
        "gz": gzip.compress,
        "bz2": bz2.compress,
        "xz": lzma.compress,
    }
    return by_name[how](content)


def _damaged(table: Table, content: bytes, random: Random) -> bytes:
    """Return content with a part truncated, omitted, inserted or repeated."""
    is_within = bool(table.packed) and random.random() < 0.7
    if is_within:
        content = unpacked(content, table.packed)
    at = random.randint(0, len(content))
    end = min(len(content), at + random.choice((1, 2, 5, 40)))
    sign = random.choice(_SIGNS)
    content = random.choice((
        content[:at], content[:at] + content[end:], content[:at] + sign + content[at:],
        content[:at] + sign + content[at + 1 :], content[:end] + content[at:],
    ))  # fmt: skip
    return packed(content, table.packed) if is_within else content


def unpacked(content: bytes, how: str) -> bytes:
    """Return compressed content, if possible from another library than the provider's."""
    if not how:
        return content
    if how == "xz":
        # `lzma.decompress` would ignore data after the end of the compressed data.
        stream = lzma.LZMADecompressor()
        text = stream.decompress(content)
        if not stream.eof or stream.unused_data:
            raise lzma.LZMAError("it is cut off, or something follows its end")
        return text
    codec = {"gz": "gzip", "bz2": "bz2", "zst": "zstd"}[how]
    with pa.input_stream(pa.BufferReader(content), compression=codec) as stream:
        return bytes(stream.read())


def _text_writer(table: Table, random: Random) -> Callable[[Table, list[list[Any]], Random], bytes]:
    """Draw a dialect, and return a function that writes a table in it."""
    is_csv = table.file_format == "csv"
    delimiter = random.choice((",", ",", ";", "|", "\t", "\x01") if is_csv else ("\t", "\t", "|"))
    quotechar = random.choice(('"', '"', '"', "'", None) if is_csv else (None, None, '"'))
    escapechar = random.choice((None, None, None, "\\"))
    # No text of the table equals it, unless every candidate occurs.
    null = random.choice((None, None, "NULL", "\\N", "-"))
    end = random.choice(("\n", "\n", "\r\n", "\r"))
    header = random.random() < 0.8
    always = random.random() < 0.3
    if delimiter != ("," if is_csv else "\t"):
        table.options["delimiter"] = delimiter
    if quotechar != ('"' if is_csv else None):
        table.options["quotechar"] = quotechar
    if escapechar:
        table.options["escapechar"] = escapechar
    if null is not None:
        table.options["null_values"] = random.choice(([null], [null, "N/A"]))
    if not header:
        table.options["column_names"] = table.names
    if null is not None:
        nulls = table.options["null_values"]
        table.rows = [[None if value in nulls else value for value in row] for row in table.rows]
    if quotechar is None:
        # Text that no field of this dialect can contain.
        lost = {"\n", "\r"} if escapechar is None else {"\r", "\n"}
        lost |= {delimiter} if escapechar is None else set()
        table.rows = [[_without(value, lost) for value in row] for row in table.rows]
    if end == "\r" and any("\n" in (value or "") for row in table.rows for value in row):
        end = "\n"
    special = {
        delimiter,
        "\n",
        "\r",
        *([quotechar] if quotechar else []),
        *([escapechar] if escapechar else []),
    }

    def as_field(value: str | None) -> str:
        if value is None:
            return "" if null is None else null
        if escapechar:
            value = value.replace(escapechar, escapechar * 2)
        if quotechar is None:
            return value.replace(delimiter, f"{escapechar}{delimiter}") if escapechar else value
        if always or not special.isdisjoint(value):
            return quotechar + value.replace(quotechar, quotechar * 2) + quotechar
        return value

    def write(table: Table, rows: list[list[Any]], random: Random) -> bytes:
        lines = [delimiter.join(map(as_field, row)) for row in ([table.names] if header else []) + rows]
        if random.random() < 0.2:
            lines.insert(random.randint(0, len(lines)), "")
        text = end.join(lines) + (end if lines and random.random() < 0.8 else "")
        return packed(text.encode(table.encoding), table.packed)

    return write


def _without(value: str | None, signs: set[str]) -> str | None:
    return value if value is None else "".join(sign for sign in value if sign not in signs)


def _object(table: Table, row: list[Any], random: Random) -> str:
    members = dict(zip(table.names, row, strict=True))
    members = {
        name: value
        for name, value, kind in zip(members, row, table.kinds, strict=True)
        if value is not None or kind == "null"
    }
    escapes = table.encoding.startswith(("latin", "cp", "iso")) or random.random() < 0.3
    return json.dumps(members, ensure_ascii=escapes, indent=random.choice((None, None, 1)))


def _json(table: Table, rows: list[list[Any]], random: Random) -> bytes:
    texts = [_object(table, row, random) for row in rows]
    between = random.choice((",", ", ", ",\n", "\r\n , "))
    text = "[" + between.join(texts) + random.choice(("]", "]\n", "\n]"))
    if rows and random.random() < 0.2:
        text = random.choice(("\n", "", " ")).join(texts)
    return packed(text.encode(table.encoding), table.packed)


def _ndjson(table: Table, rows: list[list[Any]], random: Random) -> bytes:
    lines = [_object(table, row, random).replace("\n", "") for row in rows]
    if random.random() < 0.2:
        lines.insert(random.randint(0, len(lines)), "")
    end = random.choice(("\n", "\n", "\r\n"))
    return packed((end.join(lines) + random.choice(("", end))).encode(table.encoding), table.packed)


def _parquet(table: Table, rows: list[list[Any]], random: Random) -> bytes:
    random = Random(table.number)  # noqa: S311
    types = {
        "text": random.choice((pa.string(), pa.large_string())),
        "dictionary": pa.dictionary(pa.int32(), pa.string()),
        "int": pa.int64(), "uint64": pa.uint64(), "int8": pa.int8(), "float": pa.float64(),
        "float32": pa.float32(), "decimal": pa.decimal128(38, 12), "decimal256": pa.decimal256(60, 15),
        "bool": pa.bool_(), "date": pa.date32(), "date64": pa.date64(),
        "utc": random.choice((pa.timestamp("us", "UTC"), pa.timestamp("us", "+00:00"))),
        "zoned": pa.timestamp("us", random.choice(("Europe/Zurich", "America/New_York", "+05:30"))),
        "nanoseconds": pa.timestamp("ns", "UTC"),
        "naive": pa.timestamp("us"), "time": random.choice((pa.time64("us"), pa.time64("ns"))),
        "binary": random.choice((pa.binary(), pa.large_binary())),
        "texts": random.choice((pa.list_(pa.string()), pa.large_list(pa.string()))),
        "ints": pa.list_(pa.int64()), "nested": pa.list_(pa.list_(pa.int64())),
        "struct": pa.struct([("a", pa.int64()), ("b", pa.string())]), "none": pa.null(),
    }  # fmt: skip
    schema = pa.schema([(name, types[kind]) for name, kind in zip(table.names, table.kinds, strict=True)])
    columns = [
        pa.array([row[place] for row in rows], schema.field(place).type) for place in range(len(schema))
    ]
    sink = pa.BufferOutputStream()
    parquet.write_table(
        pa.Table.from_arrays(columns, schema=schema),
        sink,
        compression=random.choice(("none", "snappy", "gzip", "zstd", "lz4", "brotli")),
        row_group_size=random.choice((1, 4, 1_000)),
        data_page_version=random.choice(("1.0", "2.0")),
        use_dictionary=random.random() < 0.5,
        # The former does not support nanoseconds.
        version="2.6" if "nanoseconds" in table.kinds else random.choice(("2.4", "2.6")),
    )
    return bytes(sink.getvalue().to_pybytes())


_WRITERS: Final = {"json": _json, "ndjson": _ndjson, "parquet": _parquet}
