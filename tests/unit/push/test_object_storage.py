"""Files on an S3 over a socket: all are read completely, or the task fails with the file's name."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("s3fs")
pytest.importorskip("moto")
pytest.importorskip("airflow.providers.amazon")

from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_coveo.content.files import read_files
from airflow_provider_coveo.content.listing import files_of
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.operators.coveo_push import PushItemsOperator
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE
from tests.unit.push.model import indexed
from tests.unit.push.object_storage import Request, Storage, connection_to, running_storage

ROOT = "s3://coveo_test_s3@bucket"
#: A bucket of its own, which the other tests don't list.
MANY = "s3://coveo_test_s3@many"


@pytest.fixture(scope="module")
def _running() -> Iterator[Storage]:
    with running_storage() as (storage, url), pytest.MonkeyPatch.context() as patched:
        patched.setenv("AIRFLOW_CONN_COVEO_TEST_S3", connection_to(url))
        yield storage


@pytest.fixture
def storage(_running: Storage) -> Storage:
    _running.clear()
    return _running


def line(identity: str) -> bytes:
    return json.dumps({"documentId": f"a://{identity}", "data": "x"}).encode() + b"\n"


def _put_pages(storage: Storage) -> None:
    """Write one more object than a page of a listing contains."""
    if not storage.has_bucket("many"):
        storage.client.create_bucket(Bucket="many")
        for number in range(1_001):
            key = f"pages/{number:04}.ndjson"
            storage.client.put_object(Bucket="many", Key=key, Body=line(str(number)))


def ids(path: Any, **options: Any) -> list[str]:
    items = read_files(path, **options)
    return [
        (json.loads(item) if isinstance(item, bytes) else item)["documentId"].removeprefix("a://")
        for item in items
    ]


# --- which files ---


def test_more_keys_than_one_page_of_a_listing_holds_are_all_read(storage: Storage) -> None:
    _put_pages(storage)
    for path in ("/pages", "/pages/*.ndjson", "/pages/**"):
        storage.seen.clear()
        files = files_of(f"{MANY}{path}")
        assert [file.name for file in files] == [f"{number:04}.ndjson" for number in range(1_001)]
        # One listing of two pages, without a request for each object.
        assert len(storage.seen) <= 6
    assert ids(f"{MANY}/pages/1*0.ndjson") == ["1000"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/catalog", ["1", "2", "3"]),
        ("/catalog/", ["1", "2", "3"]),
        ("/catalog/*.ndjson", ["1"]),
        ("/catalog/*/*.ndjson", ["2"]),
        ("/catalog/**/*.ndjson", ["1", "2", "3"]),
        ("/catalog/**", ["1", "2", "3", "of _"]),
        ("/cat*/sub/deep/?.ndjson", ["3"]),
        ("/catalog/sub/[ab].ndjson", ["2"]),
        ("/catalog/a.ndjson", ["1"]),
    ],
)
def test_folders_and_globs_find_the_same_files_as_on_a_disk(
    storage: Storage, path: str, found: list[str]
) -> None:
    storage.put("catalog/", b"")
    storage.put("catalog/a.ndjson", line("1"))
    storage.put("catalog/sub/", b"")
    storage.put("catalog/sub/b.ndjson", line("2"))
    storage.put("catalog/sub/deep/c.ndjson", line("3"))
    storage.put("catalog/.hidden.ndjson", line("hidden"))
    storage.put("catalog/.git/d.ndjson", line("hidden"))
    if not path.endswith("*.ndjson"):
        storage.put("catalog/sub/deep/x_/_SUCCESS.ndjson", line("of _"))
    storage.put("catalog2/e.ndjson", line("another"))
    assert ids(f"{ROOT}{path}") == found
    assert ids(ObjectStoragePath(f"{ROOT}{path}")) == found


@pytest.mark.parametrize(
    "key",
    [
        "a b/ü#1?x=2&y%20z+.ndjson",
        "a[1]/b[!x]*.ndjson",
        "a//b.ndjson",
        "A/a.ndjson",
        "a@b/c:d.ndjson",
        "日本/😀.ndjson",
        "q?/versions.ndjson",
        "trailing./a..ndjson",
    ],
)
def test_a_key_with_any_characters_is_read_by_its_name_and_in_its_folder(storage: Storage, key: str) -> None:
    storage.put(f"odd/{key}", line("odd"))
    storage.put("odd/z.ndjson", line("usual"))
    assert ids(f"{ROOT}/odd/{key}") == ["odd"]
    assert sorted(ids(f"{ROOT}/odd")) == ["odd", "usual"]
    assert sorted(ids(f"{ROOT}/odd/**/*.ndjson")) == ["odd", "usual"]


def test_an_object_and_others_below_its_name_are_both_read(storage: Storage) -> None:
    storage.put("both/a.ndjson", line("object"))
    storage.put("both/a.ndjson/b.ndjson", line("below"))
    assert sorted(ids(f"{ROOT}/both")) == ["below", "object"]
    assert ids(f"{ROOT}/both/*.ndjson") == ["object"]
    assert ids(f"{ROOT}/both/*/*.ndjson") == ["below"]
    assert ids(f"{ROOT}/both/a.ndjson") == ["object"]
    assert ids(f"{ROOT}/both/a.ndjson/") == ["below"]


def test_objects_written_or_deleted_since_the_last_listing_are_noticed(
    storage: Storage,
) -> None:
    storage.put("fresh/a.ndjson", line("1"))
    assert ids(f"{ROOT}/fresh") == ids(f"{ROOT}/fresh/*.ndjson") == ["1"]
    storage.put("fresh/b.ndjson", line("2"))
    storage.put("fresh/a.ndjson", line("longer than before"))
    for path in ("/fresh", "/fresh/*.ndjson", "/fresh/**"):
        assert ids(f"{ROOT}{path}") == ["longer than before", "2"]
    storage.client.delete_object(Bucket="bucket", Key="fresh/b.ndjson")
    for path in ("/fresh", "/fresh/*.ndjson", "/fresh/**"):
        assert ids(f"{ROOT}{path}") == ["longer than before"]


@pytest.mark.parametrize("path", ["/none", "/none/", "/none/*.ndjson", "/none/**/*.ndjson", "/none.ndjson"])
def test_a_path_without_any_file_is_an_error(storage: Storage, path: str) -> None:
    storage.put("other/a.ndjson", line("1"))
    with pytest.raises(CoveoInputError, match=r"Could not find (any|the) file"):
        ids(f"{ROOT}{path}")


def test_an_object_with_content_that_has_the_name_of_a_folder_is_an_error(storage: Storage) -> None:
    storage.put("folder/sub/", line("lost"))
    storage.put("folder/sub/a.ndjson", line("1"))
    for path in ("/folder", "/folder/sub", "/folder/**/*.ndjson", "/folder/sub/*.ndjson"):
        with pytest.raises(OSError, match="an object with the name of a folder has content"):
            ids(f"{ROOT}{path}")


# --- what fails ---


@pytest.mark.parametrize("status", [403, 503])
@pytest.mark.parametrize("path", ["/closed", "/closed/*.ndjson", "/closed/**/*.ndjson", "/closed/*/*.ndjson"])
def test_a_listing_that_fails_is_an_error_and_never_an_empty_folder(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, path: str, status: int
) -> None:
    _without_waits(monkeypatch)
    storage.put("closed/a.ndjson", line("1"))
    storage.put("closed/sub/b.ndjson", line("2"))
    storage.fault = lambda request: status if request.is_listing else None
    with pytest.raises(OSError, match="failed") as failed:
        ids(f"{ROOT}{path}")
    assert "bucket/closed" in str(failed.value)
    assert not isinstance(failed.value, FileNotFoundError)


@pytest.mark.parametrize("path", ["/some/*/*.ndjson", "/some/sub*/b.ndjson"])
def test_a_sub_listing_that_fails_is_an_error(storage: Storage, path: str) -> None:
    for name in ("sub1", "sub2", "sub3"):
        storage.put(f"some/{name}/b.ndjson", line(name))
    storage.fault = lambda request: 403 if request.is_listing and "sub2" in request.path else None
    with pytest.raises(PermissionError, match="sub2"):
        ids(f"{ROOT}{path}")


def test_a_second_page_of_a_listing_that_fails_is_an_error(storage: Storage) -> None:
    _put_pages(storage)
    for path in ("/pages", "/pages/*.ndjson"):
        storage.fault = lambda request: 403 if "continuation-token" in request.path else None
        with pytest.raises(PermissionError, match="pages"):
            next(read_files(f"{MANY}{path}"))


@pytest.mark.parametrize("path", ["/heads", "/heads/*.ndjson", "/heads/b.ndjson", "/heads/**/*.ndjson"])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_an_object_that_cannot_be_examined_or_read_is_an_error(
    storage: Storage, path: str, method: str
) -> None:
    for name in "abc":
        storage.put(f"heads/{name}.ndjson", line(name))

    def fault(request: Request) -> int | None:
        return 403 if request.method == method and "/b.ndjson" in request.path else None

    storage.fault = fault
    with pytest.raises(PermissionError, match=r"b\.ndjson"):
        ids(f"{ROOT}{path}")


def test_an_object_that_vanishes_before_it_is_opened_is_an_error(storage: Storage) -> None:
    storage.put("gone/a.ndjson", line("1"))
    storage.put("gone/b.ndjson", line("2"))
    items = read_files(f"{ROOT}/gone")
    next(items)
    storage.client.delete_object(Bucket="bucket", Key="gone/b.ndjson")
    with pytest.raises(FileNotFoundError, match=r"gone/b\.ndjson"):
        list(items)


def test_a_read_that_breaks_off_once_is_resumed(storage: Storage, monkeypatch: Any) -> None:
    _without_waits(monkeypatch)
    content = b"".join(line(str(number)) for number in range(20_000))
    storage.put("cut/a.ndjson", content)
    reads = []

    def fault(request: Request) -> int | None:
        if request.is_read:
            reads.append(request)
            return -100_000 if len(reads) == 1 else None
        return None

    storage.fault = fault
    assert ids(f"{ROOT}/cut/a.ndjson") == [str(number) for number in range(20_000)]
    assert len(reads) > 1


@pytest.mark.parametrize("name", ["a.ndjson", "a.csv", "a.json", "a.parquet"])
@pytest.mark.parametrize("cut", [-1, -100_000])
def test_a_read_that_breaks_off_repeatedly_is_an_error_and_not_a_shorter_file(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, name: str, cut: int
) -> None:
    _without_waits(monkeypatch)
    rows = [f"a://{number}" for number in range(20_000)]
    if name.endswith("csv"):
        content = "\n".join(["documentId", *rows]).encode()
    elif name.endswith("parquet"):
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        written = io.BytesIO()
        parquet.write_table(pyarrow.table({"documentId": rows}), written, compression="none")
        content = written.getvalue()
    else:
        content = b"\n".join(line(row) for row in rows)
    storage.put(f"cut/{name}", content)
    storage.fault = lambda request: cut if request.is_read else None
    with pytest.raises(OSError, match=rf"Reading it.*failed.*cut/{name}") as failed:
        ids(f"{ROOT}/cut/{name}")
    assert not isinstance(failed.value, CoveoInputError)


def test_an_unavailable_storage_is_an_error_that_names_the_object(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without_waits(monkeypatch)
    storage.put("busy/a.ndjson", line("1"))
    storage.fault = lambda request: 503 if request.is_read else None
    with pytest.raises(OSError, match=r"busy/a\.ndjson"):
        ids(f"{ROOT}/busy/a.ndjson")


@pytest.mark.parametrize("name", ["a.ndjson", "a.csv", "a.parquet"])
@pytest.mark.parametrize("is_large", [False, True])
def test_an_object_that_changes_while_it_is_read_is_an_error(
    storage: Storage, name: str, is_large: bool
) -> None:
    import s3fs

    def content(mark: str) -> bytes:
        length = 6_000 if is_large else 300
        rows = [f"a://{mark}{number:09}{'x' * length}" for number in range(12_500 if is_large else 3_000)]
        if name.endswith("parquet"):
            pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
            written = io.BytesIO()
            table = pyarrow.table({"documentId": rows})
            parquet.write_table(table, written, compression="none", use_dictionary=False)
            return written.getvalue()
        lines = rows if name.endswith("csv") else [line(row).decode().strip() for row in rows]
        return "\n".join((["documentId"] if name.endswith("csv") else []) + lines).encode()

    before = content("a")
    if is_large:
        # More than the storage's client reads ahead.
        assert len(before) > s3fs.S3FileSystem.default_block_size + 10_000_000
    storage.put(f"changing/{name}", before)
    items = read_files(f"{ROOT}/changing/{name}")
    next(items)
    storage.put(f"changing/{name}", content("b"))
    with pytest.raises(OSError, match=rf"it changed while it was read.*changing/{name}"):
        for _ in items:
            pass


@pytest.mark.parametrize("path", ["/delta", "/delta/", "/delta/**", "/delta/*.ndjson", "/delta/**/*.ndjson"])
def test_a_table_whose_objects_can_contain_deleted_rows_is_rejected_by_name(
    storage: Storage, path: str
) -> None:
    storage.put("delta/_delta_log/00000.json", b"{}")
    storage.put("delta/part-0.ndjson", line("deleted"))
    with pytest.raises(CoveoInputError, match=r"/delta'.*table of Delta Lake"):
        ids(f"{ROOT}{path}")
    assert ids(f"{ROOT}/delta/part-0.ndjson") == ["deleted"]


@pytest.mark.parametrize(
    "path",
    [
        *("/ice", "/ice/", "/ice/**", "/ice/data", "/ice/data/", "/ice/data/**", "/ice/data/**/*.parquet"),
        *("/ice/data/*/*.parquet", "/ice/data/country=ch", "/ice/data/country=ch/*.parquet", "/i*/data/*/*"),
        *("/*/data/country=ch/*", "/*/**/*.parquet", "/ice/data/country=*/part-0.parquet"),
    ],
)
@pytest.mark.parametrize(
    ("log", "named"),
    [
        ("metadata/00000-9441e604-b3c2-498a-a45a-6320e8ab9006.metadata.json", "Apache Iceberg"),
        ("_delta_log/00000000000000000000.json", "Delta Lake"),
        (".hoodie/hoodie.properties", "Apache Hudi"),
    ],
)
def test_a_table_is_recognized_from_each_folder_and_pattern(
    storage: Storage, path: str, log: str, named: str
) -> None:
    storage.put(f"ice/{log}", b"{}")
    storage.put("ice/data/country=ch/part-0.parquet", b"")
    with pytest.raises(CoveoInputError, match=rf"{ROOT}/ice'.*table of {named}"):
        files_of(f"{ROOT}{path}")
    (file,) = files_of(f"{ROOT}/ice/data/country=ch/part-0.parquet")
    assert file.name == "part-0.parquet"


def test_parent_folders_are_listed_only_for_parquet_and_access_may_be_denied(storage: Storage) -> None:
    storage.put("lake/shop/export/part-0.parquet", b"")
    storage.put("lake/shop/export/part-0.ndjson", line("1"))
    storage.put("lake/shop/metadata/schema.json", b"{}")

    def forbid_above(request: Request) -> int | None:
        return None if "export" in request.path else 403

    for fault in (lambda request: None, forbid_above):
        storage.fault = fault
        for path in ("/lake/shop/export", "/lake/shop/export/*.parquet", "/lake/shop/export/**/*.parquet"):
            storage.seen.clear()
            assert "part-0.parquet" in [file.name for file in files_of(f"{ROOT}{path}")]
            assert len(storage.seen) < 40
        storage.seen.clear()
        assert ids(f"{ROOT}/lake/shop/export/*.ndjson") == ["1"]
        assert all("export" in request.path for request in storage.seen)


# --- columns from folders ---


@pytest.mark.parametrize("path", ["/hive", "/hive/country=*/*", "/hive/**/*.csv", "/hive/country=ch"])
def test_folder_names_become_columns(storage: Storage, path: str) -> None:
    storage.put("hive/country=ch/day=2026-01-01/a%2Fb=x%20y%23/part.csv", b"documentId\na://1\n")
    storage.put("hive/country=ch/part.csv", b"documentId\na://0\n")
    pattern = path.replace("/country=*/*", "/country=*/**")
    items = {item["documentId"]: item for item in read_files(f"{ROOT}{pattern}")}
    assert items == {
        "a://0": {"documentId": "a://0", "country": "ch"},
        "a://1": {"documentId": "a://1", "country": "ch", "day": "2026-01-01", "a/b": "x y#"},
    }


@pytest.mark.usefixtures("connect")
def test_an_operator_pushes_files_from_object_storage(storage: Storage, coveo: Simulator) -> None:
    storage.put("country=ch/a.tsv", b'sku\tname\n1\t"Swing it" magistern\n2\t\\N\n')
    PushItemsOperator(
        task_id="push",
        source_id=SOURCE,
        path=f"{ROOT}/country=ch/*.tsv",
        columns={"documentId": "film://{country}/{sku}", "data": "country", "title": "name"},
        null_values=["\\N"],
    ).execute({})
    assert indexed(coveo, SOURCE) == {"film://ch/1": "ch", "film://ch/2": "ch"}


def _without_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the storage's client retry without a wait."""
    import asyncio

    import s3fs.core

    class Hurrying:
        def __getattr__(self, name: str) -> Any:
            return getattr(asyncio, name)

        @staticmethod
        async def sleep(seconds: float) -> None:
            await asyncio.sleep(0)

    monkeypatch.setattr(s3fs.core, "asyncio", Hurrying())
