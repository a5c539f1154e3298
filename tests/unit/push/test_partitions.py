"""Columns from folders, as in PyArrow, Spark and DuckDB: never dropped, and never guessed."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_coveo.content.files import read_files
from airflow_provider_coveo.coveo.errors import CoveoInputError


def written(path: Path, row: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table({name: [value] for name, value in row.items()}), path)
    elif path.suffix in {".csv", ".tsv"}:
        sign = "," if path.suffix == ".csv" else "\t"
        path.write_text(sign.join(row) + "\n" + sign.join(map(str, row.values())) + "\n")
    elif path.suffix == ".json":
        path.write_text(json.dumps([row], indent=2))
    else:
        path.write_text(json.dumps(row) + "\n")
    return path


def read(path: Any, **options: Any) -> list[dict[str, Any]]:
    return [json.loads(item) if isinstance(item, bytes) else item for item in read_files(path, **options)]


FORMATS = ["parquet", "csv", "tsv", "json", "ndjson"]


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(
    "path",
    ["", "/country=*/*/*", "/**/part.*", "/country=ch/day=2026-01-01", "/country=ch/day=2026-01-01/part.*"],
)
@pytest.mark.parametrize("prefix", ["", "file://"])
def test_folder_names_become_columns_wherever_the_path_begins(
    tmp_path: Path, ending: str, path: str, prefix: str
) -> None:
    written(tmp_path / "country=ch" / "day=2026-01-01" / f"part.{ending}", {"documentId": "a://1"})
    assert read(f"{prefix}{tmp_path}{path}") == [
        {"documentId": "a://1", "country": "ch", "day": "2026-01-01"}
    ]
    assert read(f"{prefix}{tmp_path}{path}", partitioning=None) == [{"documentId": "a://1"}]


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(
    ("folder", "column"),
    [
        ("month=01", {"month": "01"}),
        ("a%20b=c%2Fd%3De", {"a b": "c/d=e"}),
        ("name=%C3%A9%F0%9F%98%80", {"name": "é😀"}),
        ("name=a=b", {"name": "a=b"}),
        ("name=a+b", {"name": "a+b"}),
        ("_year=2026", {"_year": "2026"}),
        ("name=__HIVE_DEFAULT_PARTITION__", {}),
        ("name=", {}),
        ("=x", {}),
        ("plain", {}),
        ('quoted=%22"%5C', {"quoted": '""\\'}),
    ],
)
def test_names_of_folders_are_decoded_and_stay_text(
    tmp_path: Path, ending: str, folder: str, column: dict[str, str]
) -> None:
    written(tmp_path / folder / f"part.{ending}", {"documentId": "a://1", "data": "x"})
    assert read(str(tmp_path)) == [{"documentId": "a://1", "data": "x", **column}]


@pytest.mark.parametrize(
    ("own", "folder"),
    [("ch", "ch"), (7, "7"), (7, "07"), (True, "true"), (1.5, "1.5"), (date(2026, 1, 1), "2026-01-01")],
)
@pytest.mark.parametrize("ending", FORMATS)
def test_a_column_that_is_also_in_the_file_must_have_the_same_value(
    tmp_path: Path, ending: str, own: Any, folder: str
) -> None:
    if isinstance(own, date) and "json" in ending:
        own = own.isoformat()
    if ending in {"csv", "tsv"}:
        own = folder
    path = written(tmp_path / f"c={folder}" / f"part.{ending}", {"documentId": "a://1", "c": own})
    assert read(str(path)) == [{"documentId": "a://1", "c": own}]
    path = written(tmp_path / "c=other" / f"part.{ending}", {"documentId": "a://1", "c": own})
    with pytest.raises(CoveoInputError, match="its folder sets 'c' to 'other', but an item in it has"):
        read(str(path))
    assert read(str(path), partitioning=None) == [{"documentId": "a://1", "c": own}]


@pytest.mark.parametrize("folders", ["day=1/day=2", "x=%FF", "%FF=x"])
def test_folders_that_cannot_be_columns_are_rejected(tmp_path: Path, folders: str) -> None:
    path = written(tmp_path / folders / "part.csv", {"documentId": "a://1"})
    with pytest.raises(CoveoInputError, match=r"two values|is not UTF-8"):
        read(str(path))


def test_an_id_can_be_composed_of_partition_columns(tmp_path: Path) -> None:
    path = written(tmp_path / "country=ch" / "part.csv", {"sku": "1"})
    assert read(str(path), columns={"documentId": "p://{country}/{sku}"}) == [{"documentId": "p://ch/1"}]


def test_apart_from_partition_columns_json_is_unchanged(tmp_path: Path) -> None:
    (tmp_path / "a=1").mkdir()
    text = '{ "documentId":"a://1","n": 12345678901234567890123.50,"n":1e400 , "b":"\\u00e9"}'
    (tmp_path / "a=1" / "x.ndjson").write_text(text + "\n{}\n{broken\n")
    assert list(read_files(str(tmp_path))) == [
        b'{"a":"1","documentId"' + text[14:].encode() + b"\n",
        b'{"a":"1"}\n',
        b"{broken\n",
    ]
