"""Rejected items are saved in a file, from which they can be pushed again."""

from __future__ import annotations

import gzip
import json
import runpy
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, task

from airflow_provider_coveo.coveo.errors import CoveoError, CoveoInputError, ItemsRefusedError
from airflow_provider_coveo.coveo.items import Delete
from airflow_provider_coveo.coveo.observer import Observer
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.operators.coveo_push import (
    DeleteItemsOperator,
    PushItemsOperator,
    RepushRejectedItemsOperator,
)
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE
from tests.unit.sensors.test_coveo_push import WAYS, indexed_sensor, outcome

pytestmark = pytest.mark.usefixtures("connect", "variables")


def good(number: int, **more: Any) -> dict[str, Any]:
    return {"documentId": f"a://{number}", "data": "x", **more}


def bad(number: int) -> dict[str, Any]:
    return {"documentId": f"no uri {number}", "data": "x"}


def lines(path: Path) -> list[dict[str, Any]]:
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    return [json.loads(line) for line in content.splitlines()]


def execute(operator_class: Any, run_id: str = "run-1", try_number: int = 1, **how: Any) -> dict[str, Any]:
    with DAG("d", schedule=None, start_date=datetime(2025, 1, 1)):
        operator = operator_class(task_id="t", source_id=SOURCE, **how)
    ti = SimpleNamespace(
        dag_id="d", task_id="t", run_id=run_id, map_index=-1, max_tries=0, try_number=try_number
    )
    operator.render_template_fields({"run": run_id})
    result: dict[str, Any] = operator.execute({"ti": ti})
    return result


def test_skipped_items_are_saved_whatever_their_number(coveo: Simulator, tmp_path: Path) -> None:
    items = [good(0), *map(bad, range(1, 151)), good(151)]
    result = execute(
        PushItemsOperator, items=items, on_invalid="skip",
        rejected_path=str(tmp_path / "{{ run }}" / "rejected.ndjson.gz"),
    )  # fmt: skip
    path = tmp_path / "run-1" / "rejected.ndjson.gz"
    assert (result["accepted_adds"], result["invalid"]) == (2, 150)
    assert (result["rejected"], result["rejected_path"]) == (150, str(path))
    written = lines(path)
    assert [line["item"] for line in written] == items[1:-1]
    assert [line["index"] for line in written] == list(range(1, 151))
    assert {line["source_id"] for line in written} == {SOURCE}
    assert "Invalid documentId" in written[0]["rule"]


def test_items_of_files_are_saved_unchanged(coveo: Simulator, tmp_path: Path) -> None:
    source, path = tmp_path / "items.ndjson", tmp_path / "rejected.ndjson"
    source.write_text('{"documentId": "no uri", "data": 1.50}\n{"documentId": "a://1"\n')
    execute(PushItemsOperator, path=str(source), on_invalid="skip", rejected_path=path)
    assert '"item": {"documentId": "no uri", "data": 1.50}' in path.read_text()
    assert "a://1" in lines(path)[1]["item_repr"]


def test_without_rejected_items_there_is_no_file(coveo: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "r.ndjson"
    result = execute(PushItemsOperator, items=[good(1)], rejected_path=path)
    assert (result["rejected"], result["rejected_path"]) == (0, None)
    assert not path.exists()
    assert "rejected" not in execute(PushItemsOperator, items=[good(1)])


def test_items_that_fail_a_push_are_saved_too(coveo: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "r.ndjson"
    with pytest.raises(CoveoInputError, match=f"The rejected items are in {path}") as failed:
        execute(PushItemsOperator, items=[bad(1), good(2), bad(3)], rejected_path=path)
    assert [line["index"] for line in lines(path)] == [0, 2]
    assert failed.value.accepted is not None
    assert failed.value.accepted["rejected"] == 2


def test_one_push_of_an_attempt_does_not_replace_or_delete_the_file_of_another(
    coveo: Simulator, hook: CoveoPushHook, tmp_path: Path
) -> None:
    path = tmp_path / "r.ndjson"
    how: Any = {"on_invalid": "skip", "rejected_path": path}
    ti = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1, max_tries=0, try_number=1)
    hook.task_context = {"ti": ti}
    with pytest.raises(CoveoError):
        hook.push_items(SOURCE, [bad(1)], rejected_path=path)
    hook.push_items(SOURCE, [bad(1), bad(2)], **how)
    with pytest.raises(AirflowFailException, match="an earlier push of this task has the same path"):
        hook.push_items(SOURCE, [good(3)], **how)
    assert len(lines(path)) == 2
    assert coveo.items(SOURCE) == {}
    hook.push_items(SOURCE, [bad(4)], **{**how, "rejected_path": tmp_path / "r2.ndjson"})
    # A retry replaces the file.
    ti.try_number = 2
    hook.push_items(SOURCE, [bad(1)], **how)
    assert len(lines(path)) == 1


def test_rejected_deletions_are_saved(coveo: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "r.ndjson"

    def function() -> Iterator[Any]:
        yield Delete("no uri", True)

    with DAG("d", schedule=None, start_date=datetime(2025, 1, 1)):
        pushed = task.coveo_push(source_id=SOURCE, on_invalid="skip", rejected_path=str(path))(function)()
    pushed.operator.execute({})
    assert lines(path)[0]["delete"] == {"documentId": "no uri", "deleteChildren": True}
    execute(DeleteItemsOperator, document_ids=["b", "a://1"], on_invalid="skip", rejected_path=str(path))
    assert lines(path)[0]["delete"] == {"documentId": "b", "deleteChildren": False}


@pytest.mark.parametrize("name", ["x.ndjson", "x.csv", "x.parquet", "items"])
@pytest.mark.parametrize("only_changes", [False, True])
def test_every_way_to_push_saves_the_items(
    coveo: Simulator, tmp_path: Path, name: str, only_changes: bool
) -> None:
    path, source = tmp_path / "r.ndjson", tmp_path / name
    rows = [{"documentId": "a://1", "title": "t"}, {"documentId": "wiki-3", "title": "t"}]
    if name == "x.ndjson":
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif name == "x.csv":
        source.write_text("documentId,title\na://1,t\nwiki-3,t\n")
    elif name == "x.parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(rows), source)
    how: dict[str, Any] = {"path": str(source)} if name != "items" else {"items": [*rows, Delete("b", True)]}
    if only_changes:
        how |= {"only_changes": True, "snapshot_path": str(tmp_path / "snapshots"), "max_deleted": "100%"}
    execute(PushItemsOperator, on_invalid="skip", rejected_path=path, **how)
    assert lines(path)[0]["item"] == rows[1]
    if name == "items":
        assert lines(path)[1]["delete"] == {"documentId": "b", "deleteChildren": True}
    path.write_text(path.read_text().replace("wiki-3", "wiki://3"))
    result = execute(RepushRejectedItemsOperator, path=str(path))
    assert result["without_item"] == 0
    assert set(coveo.items(SOURCE)) == {"a://1", "wiki://3"}


def test_a_row_without_an_id_can_be_corrected_and_pushed_again(coveo: Simulator, tmp_path: Path) -> None:
    source, path = tmp_path / "shop.csv", tmp_path / "r.ndjson"
    source.write_text("sku,name\n1,Anvil\n,Rope\n")
    columns = {"documentId": "product://{sku}", "title": "name"}
    execute(PushItemsOperator, path=str(source), columns=columns, on_invalid="skip", rejected_path=path)
    (line,) = lines(path)
    assert (line["index"], line["item"]) == (1, {"title": "Rope"})
    assert "'sku', which is part of it, is empty" in line["rule"]
    again = execute(RepushRejectedItemsOperator, path=str(path))
    assert (again["accepted_adds"], again["invalid"], again["without_item"]) == (0, 1, 0)
    path.write_text(path.read_text().replace('"item": {', '"item": {"documentId": "product://2", '))
    assert execute(RepushRejectedItemsOperator, "run-2", path=str(path))["accepted_adds"] == 1
    assert coveo.items(SOURCE)["product://2"]["title"] == "Rope"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", "Remedy: If an empty file is valid, pass column_names."),
        ("a.csv", b"documentId,title\na://1,\xe9\n", "Remedy: Pass the file's encoding, such as 'cp1252' or"),
        ("a.ndjson", b"[{}]", "Remedy: Pass file_format='json' to read it."),
        (
            "a.json",
            b'[{"documentId": "a://1", "data": ""}, ',
            "Likely cause: the file is damaged or truncated",
        ),
    ],
)
def test_the_error_of_an_unreadable_file_has_one_remedy(
    coveo: Simulator, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CoveoInputError) as failed:
        execute(PushItemsOperator, path=str(tmp_path / name))
    said = str(failed.value)
    assert words in said
    assert said.count("Remedy:") == 1
    assert ("damaged" in said) == (name == "a.json")
    # The batch with the items before it was not sent.
    assert "were pushed" not in said
    assert coveo.items(SOURCE) == {}


def test_parquet_values_that_coveo_cannot_hold_are_rejected_with_a_remedy(
    coveo: Simulator, tmp_path: Path
) -> None:
    parquet, path = pytest.importorskip("pyarrow.parquet"), tmp_path / "r.ndjson"
    rows = [
        {"documentId": "a://1", "title": "t", "changed": datetime(2026, 1, 1), "weight": None},
        {"documentId": "a://2", "title": "t", "changed": None, "weight": float("nan")},
        {"documentId": "a://3", "title": "t", "changed": None, "weight": None},
    ]
    parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(rows), tmp_path / "x.parquet")
    execute(PushItemsOperator, path=str(tmp_path / "x.parquet"), on_invalid="skip", rejected_path=path)
    of_time, of_number = lines(path)
    assert "convert the column to a type with a time zone" in of_time["remedy"]
    assert "null" in of_number["remedy"]


# --- how many ---


@pytest.mark.parametrize(("max_invalid", "fails"), [("50%", False), ("49%", True), (2, False), (1, True)])
def test_a_limit_in_percent_is_checked_at_the_end(coveo: Simulator, max_invalid: Any, fails: bool) -> None:
    items = [bad(1), good(2), bad(3), good(4)]
    how: Any = {"on_invalid": "skip", "max_invalid": max_invalid}
    if not fails:
        assert execute(PushItemsOperator, items=items, **how)["invalid"] == 2
        return
    with pytest.raises(AirflowFailException, match=f"more than the {max_invalid} that may be skipped"):
        execute(PushItemsOperator, items=items, **how)


def test_a_limit_in_percent_ends_a_long_push_early(coveo: Simulator) -> None:
    read = 0

    def items() -> Iterator[Any]:
        nonlocal read
        for number in range(50_000):
            read += 1
            yield good(number) if number % 10 else bad(number)

    with pytest.raises(CoveoInputError, match="more than the 1%"):
        CoveoPushHook().push_items(SOURCE, items(), on_invalid="skip", max_invalid="1%")
    assert read < 15_000


# --- attempts ---


def test_a_later_attempt_does_not_replace_the_file_with_one_of_fewer_items(
    coveo: Simulator, tmp_path: Path
) -> None:
    path = tmp_path / "r.ndjson"
    how: Any = {"on_invalid": "skip", "rejected_path": path, "batch_bytes": 1024}
    items = [bad(1), *(good(number, text="x" * 400) for number in range(2, 12)), bad(12), bad(13)]
    coveo.faults.answer(413, operation="batch", after=2)
    with pytest.raises(CoveoError):
        execute(PushItemsOperator, items=items, **how)
    assert len(lines(path)) >= 1
    coveo.faults.clear()
    # It fails before it has found as many.
    first = path.read_bytes()
    assert b"no uri 1" in first
    coveo.faults.answer(413, operation="files")
    with pytest.raises(CoveoError):
        execute(PushItemsOperator, items=[good(77), good(78)], try_number=2, **how)
    coveo.faults.clear()
    assert path.read_bytes() == first
    execute(PushItemsOperator, items=items, try_number=3, **how)
    assert [line["index"] for line in lines(path)] == [0, 11, 12]
    # Corrected and cleared.
    assert execute(PushItemsOperator, items=items[1:-2], **how)["rejected"] == 0
    assert not path.exists()


def test_an_attempt_that_resumes_also_saves_the_rejected_items_of_earlier_ones(
    coveo: Simulator, tmp_path: Path
) -> None:
    path = tmp_path / "r.ndjson"
    how: Any = {"on_invalid": "skip", "rejected_path": path, "batch_bytes": 1024}
    items = [bad(1), *(good(number, text="x" * 400) for number in range(2, 12)), bad(12)]
    coveo.faults.answer(413, operation="batch", after=2)
    with pytest.raises(CoveoError):
        execute(PushItemsOperator, items=items, **how)
    coveo.faults.clear()
    result = execute(PushItemsOperator, items=items, try_number=2, **how)
    assert (result["resumed_batches"], result["rejected"]) == (2, 2)
    assert [line["index"] for line in lines(path)] == [0, 11]


def test_a_file_of_another_run_is_left_alone_if_nothing_is_rejected(coveo: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "r.ndjson"
    execute(PushItemsOperator, items=[bad(1)], on_invalid="skip", rejected_path=path)
    execute(PushItemsOperator, "run-2", items=[good(1)], on_invalid="skip", rejected_path=path)
    assert len(lines(path)) == 1


def test_a_file_that_can_t_be_written_fails_the_task(coveo: Simulator, tmp_path: Path) -> None:
    (tmp_path / "r.ndjson").mkdir()
    how: Any = {"items": [bad(1), good(2)], "rejected_path": tmp_path / "r.ndjson"}
    with pytest.raises(OSError, match=r"r\.ndjson"):
        execute(PushItemsOperator, on_invalid="skip", **how)
    # But not after a failure for another reason.
    with pytest.raises(CoveoInputError, match="Coveo would reject"):
        execute(PushItemsOperator, **how)


def test_an_unsupported_path_is_rejected_before_anything_is_sent(coveo: Simulator) -> None:
    with pytest.raises(AirflowFailException, match="Invalid rejected_path"):
        execute(PushItemsOperator, items=[good(1)], rejected_path="rejected", check_quota=False)
    assert coveo.requests == []


def test_a_client_without_airflow_raises_an_error_that_says_that_it_writes_no_files() -> None:
    with pytest.raises(CoveoInputError, match="this client writes no files"):
        Observer().rejected_items(SOURCE, "r.ndjson")


# --- again ---


def test_corrected_items_are_pushed_again(coveo: Simulator, tmp_path: Path) -> None:
    path, still = tmp_path / "r.ndjson", tmp_path / "still.ndjson"
    naive = good(3, when=datetime(2025, 1, 1))
    items = [bad(1), bad(2), naive, Delete("a://9"), Delete("b")]
    execute(PushItemsOperator, items=items, on_invalid="skip", rejected_path=path)
    path.write_text(path.read_text().replace("no uri 1", "a://1"))
    result = execute(RepushRejectedItemsOperator, path=str(path), rejected_path=str(still))
    assert (result["accepted_adds"], result["invalid"], result["rejected"]) == (1, 2, 2)
    assert (result["entries"], result["without_item"]) == (4, 1)
    assert result["document_ids_without_item"] == ["a://3"]
    assert set(coveo.items(SOURCE)) == {"a://1"}
    assert ["item" in line for line in lines(still)] == [True, False]
    assert lines(still)[1]["delete"]["documentId"] == "b"
    with pytest.raises(CoveoInputError):
        execute(RepushRejectedItemsOperator, path=str(path), on_invalid="fail")


@pytest.mark.parametrize("dry_run", [False, True])
def test_items_of_another_source_are_pushed_only_on_request(
    coveo: Simulator, tmp_path: Path, dry_run: bool
) -> None:
    path = tmp_path / "r.ndjson"
    of_this = {"source_id": SOURCE, "index": 0, "item": good(0)}
    without = {"index": 1, "item": good(1)}
    path.write_text("".join(json.dumps(line) + "\n" for line in (of_this, without)))
    assert execute(RepushRejectedItemsOperator, path=str(path))["accepted_adds"] == 2
    before = len(coveo.requests)
    other = tmp_path / "other.ndjson"
    other.write_text(json.dumps({"source_id": "wiki", "index": 0, "item": good(2)}) + "\n")
    how: dict[str, Any] = {"path": [str(path), str(other)], "run_id": "run-2", "dry_run": dry_run}
    with pytest.raises(AirflowFailException, match=r"items of source 'wiki'.*allow_other_source=True"):
        execute(RepushRejectedItemsOperator, **how)
    assert len(coveo.requests) == before
    assert set(coveo.items(SOURCE)) == {"a://0", "a://1"}
    result = execute(RepushRejectedItemsOperator, allow_other_source="True", **how)
    assert (result["adds"] if dry_run else result["accepted_adds"]) == 3


def test_without_a_file_nothing_is_pushed_again(coveo: Simulator, tmp_path: Path) -> None:
    result = execute(RepushRejectedItemsOperator, path=str(tmp_path / "r.ndjson"))
    assert (result["accepted_adds"], result["entries"]) == (0, 0)


def test_a_push_cannot_write_to_the_file_that_it_reads(coveo: Simulator, tmp_path: Path) -> None:
    path = str(tmp_path / "r.ndjson")
    with pytest.raises(AirflowFailException, match="rejected_path is also a file to read"):
        execute(RepushRejectedItemsOperator, path=path, rejected_path=path)


@pytest.mark.parametrize(
    "read", ["{0}", "{0}/*.ndjson", "{0}/./r.ndjson", "file://{0}/r.ndjson", "list", "link"]
)
def test_a_push_cannot_write_to_the_file_that_it_reads_by_another_path_either(
    coveo: Simulator, tmp_path: Path, read: str
) -> None:
    path = tmp_path / "r.ndjson"
    items = [bad(1), good(3, when=datetime(2025, 1, 1))]
    execute(PushItemsOperator, items=items, on_invalid="skip", rejected_path=path)
    before = path.read_bytes()
    named: Any = read.format(tmp_path)
    if read == "list":
        named = [str(path)]
    if read == "link":
        named = str(tmp_path / "link.ndjson")
        (tmp_path / "link.ndjson").symlink_to(path)
    with pytest.raises(AirflowFailException, match="rejected_path is also a file to read"):
        execute(RepushRejectedItemsOperator, path=named, rejected_path=path)
    assert path.read_bytes() == before


# --- what the pipeline rejects ---


@WAYS
@pytest.mark.parametrize("max_refused", [0, 5])
@pytest.mark.parametrize("with_input", [False, True])
def test_items_that_the_pipeline_rejects_are_saved(
    coveo: Simulator,
    hook: CoveoPushHook,
    tmp_path: Path,
    deferrable: bool,
    max_refused: int,
    with_input: bool,
) -> None:
    source, path = tmp_path / "items.ndjson", tmp_path / "r.ndjson.gz"
    items = [good(number, price=1.5) for number in range(1, 5)]
    source.write_text("".join(json.dumps(item) + "\n" for item in items))
    for number in (2, 3):
        coveo.reject_item(f"a://{number}", reason="The body is too large")
    pushed = hook.push_items(SOURCE, items)
    sensor = indexed_sensor(
        pushed, deferrable=deferrable, max_refused=max_refused, rejected_path=str(path),
        pushed_path=str(source) if with_input else None,
    )  # fmt: skip
    if max_refused:
        result = outcome(sensor)
        assert (result["refused"], result["rejected"], result["rejected_path"]) == (2, 2, str(path))
    else:
        with pytest.raises(ItemsRefusedError):
            outcome(sensor)
    written = sorted(lines(path), key=lambda line: str(line["document_id"]))
    assert [(line["document_id"], line["reason"]) for line in written] == [
        ("a://2", "The body is too large"), ("a://3", "The body is too large"),
    ]  # fmt: skip
    assert [line.get("item") for line in written] == ([items[1], items[2]] if with_input else [None, None])
    again = execute(RepushRejectedItemsOperator, path=path)
    assert (again["accepted_adds"], again["without_item"]) == ((2, 0) if with_input else (0, 2))


@WAYS
def test_if_the_pipeline_rejects_nothing_there_is_no_file(
    coveo: Simulator, hook: CoveoPushHook, tmp_path: Path, deferrable: bool
) -> None:
    pushed = hook.push_items(SOURCE, [good(1)])
    requests = len(coveo.requests)
    result = outcome(indexed_sensor(pushed, deferrable=deferrable, rejected_path=str(tmp_path / "r.ndjson")))
    assert (result["rejected"], result["rejected_path"]) == (0, None)
    assert list(tmp_path.iterdir()) == []
    assert len(coveo.requests) - requests <= 4


def test_a_file_contains_no_secret(coveo: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "r.ndjson"
    execute(PushItemsOperator, items=[bad(1), good(2)], on_invalid="skip", rejected_path=path)
    key = json.loads(coveo.connection_json())["password"]
    assert key not in path.read_text()


def test_the_example_saves_rejected_items_and_pushes_them_again(coveo: Simulator, tmp_path: Path) -> None:
    example = Path(__file__).resolve().parents[3] / "dags_examples" / "coveo_push_rejected.py"
    (tmp_path / "items.ndjson").write_text("".join(json.dumps(good(number)) + "\n" for number in range(200)))
    (tmp_path / "more.ndjson").write_text(json.dumps(bad(1)) + "\n")
    coveo.reject_item("a://7")

    def run(task_id: str, of_run: str = "", **fields: Any) -> dict[str, Any]:
        operator = runpy.run_path(str(example))["dag"].get_task(task_id)
        for name, value in fields.items():
            setattr(operator, name, value)
        operator.render_template_fields(
            {
                "params": {
                    "source_id": SOURCE,
                    "path": str(tmp_path / "*.ndjson"),
                    "folder": str(tmp_path / "rejected"),
                    "of_run": of_run,
                },
                "run_id": "again" if of_run else "first",
            }
        )
        # Outside a run, so that no bracket is required.
        result: dict[str, Any] = operator.execute({})
        return result

    pushed = run("catalog.push_catalog")
    assert (pushed["accepted_adds"], pushed["rejected"]) == (200, 1)
    indexed = run("catalog.wait_until_indexed", result=pushed, settle_time=0, deferrable=False)
    assert (indexed["refused"], indexed["rejected"]) == (1, 1)
    coveo.reject_item("a://7", result="WARNING")
    again = run("again.push_again", of_run="first")
    assert (again["entries"], again["accepted_adds"], again["invalid"]) == (2, 1, 1)
    assert "a://7" in coveo.items(SOURCE)
