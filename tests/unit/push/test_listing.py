"""A listing reads all files, or fails with the name of the one that it could not examine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_coveo.content.files import read_files
from airflow_provider_coveo.content.listing import files_of
from airflow_provider_coveo.coveo.errors import CoveoInputError


def put(path: Path, identity: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"documentId": identity or path.name}) + "\n")
    return path


def ids(path: Any) -> list[str]:
    return [json.loads(item)["documentId"] for item in read_files(path)]


_AS_NOBODY = """
import os, sys
sys.path[:0] = {search!r}
import json
from airflow_provider_coveo.content.files import read_files
from airflow_provider_coveo.content.listing import files_of
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
try:
    print(sum(1 for _ in read_files({path!r})))
except OSError as problem:
    print(type(problem).__name__, problem)
"""


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that all users can read."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    # Whenever another pytest starts, pytest closes the parent of its temporary folders to other users.
    with tempfile.TemporaryDirectory(prefix="open-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def read_as_nobody(path: str) -> str:
    code = _AS_NOBODY.format(search=[entry for entry in sys.path if entry], path=path)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize("prefix", ["", "file://"])
@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "/*/*.ndjson",
        "/**/*.ndjson",
        "/**",
        "/closed/*.ndjson",
        "/c*/b.ndjson",
        "/closed/b.ndjson",
        "/closed/sub",
    ],
)
@pytest.mark.parametrize("mode", [0o000, 0o444, 0o311])
def test_a_folder_without_read_permission_is_an_error(
    open_to_all: Path, prefix: str, pattern: str, mode: int
) -> None:
    put(open_to_all / "open" / "a.ndjson")
    put(open_to_all / "closed" / "b.ndjson")
    put(open_to_all / "closed" / "sub" / "c.ndjson")
    (open_to_all / "closed").chmod(mode)
    said = read_as_nobody(f"{prefix}{open_to_all}{pattern}")
    (open_to_all / "closed").chmod(0o755)
    if mode == 0o311 and pattern in {"/closed/b.ndjson", "/closed/sub", "/c*/b.ndjson"}:
        # A named file can be read even if its folder can't be listed.
        assert said == "1"
    else:
        assert said.startswith("PermissionError")
        assert "closed" in said


@pytest.mark.parametrize("pattern", ["", "/*.ndjson", "/**/*.ndjson", "/b.ndjson"])
def test_a_file_without_read_permission_is_an_error(open_to_all: Path, pattern: str) -> None:
    put(open_to_all / "a.ndjson")
    put(open_to_all / "b.ndjson").chmod(0o000)
    assert read_as_nobody(f"{open_to_all}{pattern}").startswith("PermissionError")


@pytest.mark.parametrize("pattern", ["", "/*", "/**/*.ndjson", "/**", "/*.ndjson", "/b.ndjson"])
@pytest.mark.parametrize("target", ["gone.ndjson", "b.ndjson", "gone/x.ndjson"])
def test_a_broken_link_is_an_error(tmp_path: Path, pattern: str, target: str) -> None:
    put(tmp_path / "a.ndjson")
    (tmp_path / "b.ndjson").symlink_to(tmp_path / target)
    with pytest.raises(CoveoInputError, match=r"b\.ndjson': it is a link"):
        ids(f"{tmp_path}{pattern}")


def test_a_broken_link_that_the_pattern_does_not_match_is_ignored(tmp_path: Path) -> None:
    put(tmp_path / "a.ndjson")
    (tmp_path / "b.csv").symlink_to(tmp_path / "gone")
    (tmp_path / ".hidden").symlink_to(tmp_path / "gone")
    assert ids(f"{tmp_path}/*.ndjson") == ["a.ndjson"]


@pytest.mark.parametrize("pattern", ["", "/**/*.ndjson", "/**"])
def test_circular_links_add_no_file_twice(tmp_path: Path, pattern: str) -> None:
    put(tmp_path / "sub" / "a.ndjson")
    put(tmp_path / "b.ndjson")
    (tmp_path / "sub" / "back").symlink_to(tmp_path)
    (tmp_path / "sub" / "here").symlink_to(tmp_path / "sub")
    assert sorted(ids(f"{tmp_path}{pattern}")) == ["a.ndjson", "b.ndjson"]


@pytest.mark.parametrize("pattern", ["", "/*", "/**/*", "/*.ndjson"])
@pytest.mark.parametrize("kind", ["a pipe", "a socket", "a device"])
def test_paths_that_are_not_files_are_rejected_by_name(tmp_path: Path, pattern: str, kind: str) -> None:
    put(tmp_path / "a.ndjson")
    path = tmp_path / "b.ndjson"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        path.symlink_to("/dev/null")
    with pytest.raises(CoveoInputError, match=rf"b\.ndjson': it is neither a file nor a folder, but {kind}"):
        ids(f"{tmp_path}{pattern}")


def test_a_file_that_vanishes_before_it_is_opened_is_an_error(tmp_path: Path) -> None:
    put(tmp_path / "a.ndjson")
    path = put(tmp_path / "b.ndjson")
    items = read_files(str(tmp_path))
    next(items)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.ndjson"):
        list(items)


@pytest.mark.parametrize("change", ["grown", "cut"])
def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a.ndjson"
    path.write_text('{"documentId": "a"}\n' * 200_000)
    items = read_files(str(path))
    next(items)
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(b'{"documentId": "b"}\n') if change == "grown" else file.truncate(2_000_000)
    with pytest.raises(OSError, match="changed while it was read"):
        list(items)


def test_names_with_any_characters_are_read(tmp_path: Path) -> None:
    names = [
        "a b.ndjson",
        "a#b?c.ndjson",
        "ü😀.ndjson",
        "100%.ndjson",
        "a\nb.ndjson",
        "[x].ndjson",
        "a\\b.ndjson",
    ]
    for name in names:
        put(tmp_path / name)
        assert ids(str(tmp_path / name)) == ids(f"file://{tmp_path / name}") == [name]
    (tmp_path / os.fsdecode(b"\xff.ndjson")).write_text('{"documentId": "raw"}')
    assert sorted(ids(str(tmp_path))) == sorted([*names, "raw"])


def test_a_glob_that_matches_only_folders_is_an_error_that_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path / "day=1" / "a.ndjson")
    with pytest.raises(CoveoInputError, match=r"which matches folders only.*end the pattern with"):
        ids(f"{tmp_path}/day=*")
    put(tmp_path / "b.ndjson")
    assert ids(f"{tmp_path}/*") == ["b.ndjson"]
    assert "also matches 1 folder," in caplog.text


def test_patterns_work_as_in_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "a.ndjson",
        "b.ndjson",
        "sub/c.ndjson",
        "sub/deep/d.ndjson",
        ".e.ndjson",
        ".git/f.ndjson",
        "_g.ndjson",
    ):
        put(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for root in ("", f"{tmp_path}/", "./"):
        assert ids(f"{root}*.ndjson") == ["_g.ndjson", "a.ndjson", "b.ndjson"]
        assert ids(f"{root}?.ndjson") == ["a.ndjson", "b.ndjson"]
        assert ids(f"{root}[!a].ndjson") == ["b.ndjson"]
        assert ids(f"{root}.*.ndjson") == [".e.ndjson"]
        assert ids(f"{root}**/[cd].ndjson") == ["c.ndjson", "d.ndjson"]
        assert ids(f"{root}**/sub/**/*.ndjson") == ["c.ndjson", "d.ndjson"]
        assert ids(f"{root}s*/deep/*") == ["d.ndjson"]
        assert len(ids(f"{root}**")) == 5
    assert ids(".") == ["a.ndjson", "b.ndjson", "c.ndjson", "d.ndjson"]


#: The files of tables that also keep outdated ones, by format: one that identifies it, and one with rows.
TABLES = {
    "Delta Lake": ("_delta_log/00000000000000000000.json", "part-0.parquet"),
    "Apache Hudi": (".hoodie/hoodie.properties", "2026/01/31/part-0.parquet"),
    "Apache Iceberg": ("metadata/v1.metadata.json", "data/part-0.parquet"),
    "Apache Iceberg of a catalog": (
        "metadata/00003-9441e604-b3c2-498a-a45a-6320e8ab9006.metadata.json",
        "data/country=ch/part-0.parquet",
    ),
    "Apache Iceberg, compressed": ("metadata/v12.gz.metadata.json", "data/0101/country=ch/part-0.parquet"),
    "Apache Paimon": ("snapshot/snapshot-1", "country=ch/bucket-0/part-0.parquet"),
}


def put_table(root: Path, table_format: str) -> Path:
    """Write a table's files, and return the one with rows."""
    log, data = TABLES[table_format]
    put(root / log)
    if table_format == "Apache Paimon":
        put(root / "schema/schema-0")
        put(root / "manifest/manifest-0")
    return put(root / data)


@pytest.mark.parametrize("table_format", TABLES)
@pytest.mark.parametrize("deep", [False, True], ids=["table", "partition"])
def test_a_table_whose_files_can_contain_deleted_rows_is_rejected_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table_format: str, deep: bool
) -> None:
    root = tmp_path / "table"
    file = put_table(root, table_format)
    if deep:
        file = put(file.parent / "day=2026-01-31" / "part-1.parquet")
    named = table_format.removesuffix(" of a catalog").removesuffix(", compressed")
    depth = len(file.relative_to(root).parts)
    paths = [
        *(root, f"{root}/", f"{root}/**", f"{root}/**/*.parquet", f"{root}/{'*/' * (depth - 1)}*.parquet"),
        *(tmp_path, f"{tmp_path}/**/*.parquet", f"{tmp_path}/t*/**/part-*.parquet"),
        *(file.parent, f"{file.parent}/*", f"{file.parent}/*.parquet", f"{tmp_path}/t*/**/part-*"),
        *(f"{root}/{'*/' * (depth - 1)}{file.stem[:-1]}?.parquet", [str(file), str(root)]),
    ]
    for path in paths:
        with pytest.raises(CoveoInputError, match=f"/table'.*table of {named}.*SqlToCoveoPushOperator"):
            list(read_files(path if isinstance(path, list) else str(path)))
    monkeypatch.chdir(file.parent)
    for relative in (".", "*.parquet", "./*.parquet"):
        with pytest.raises(CoveoInputError, match=f"/table'.*table of {named}"):
            files_of(relative)
    link = tmp_path / "link"
    link.symlink_to(file.parent)
    for linked in (str(link), f"{link}/*.parquet"):
        with pytest.raises(CoveoInputError, match=f"table of {named}"):
            files_of(linked)
    # A file that is named is read.
    assert files_of(file) == [file]


def test_files_that_only_look_like_a_table_with_deleted_rows_are_read(tmp_path: Path) -> None:
    for name in ("metadata/schema.json", "metadata/metadata.json", "snapshot/snapshot-1", "_delta_log"):
        put(tmp_path / name)
    put(tmp_path / "metadata/20260131-export.metadata.json")
    file = put(tmp_path / "data/part-0.parquet")
    # A table beside the files says nothing of them.
    put_table(tmp_path / "table", "Delta Lake")
    for path in (file.parent, f"{file.parent}/*", f"{tmp_path}/d*/*.parquet"):
        assert files_of(str(path)) == [file]
    with pytest.raises(CoveoInputError, match=r"/table'.*Delta Lake"):
        files_of(f"{tmp_path}/*/part-0.parquet")
